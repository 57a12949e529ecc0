#!/usr/bin/env python3
"""Make data/debian: the package graph of Debian as implicit feedback, and two-tower vectors learnt from it.

A *user* is a package; its *items* are the names it asks for. Nobody had to be watched for this data, it is real, small,
and has what made-up data lacks: a long tail, clusters, a few items everybody wants (libc6), and item norms that matter.

    pip install implicit pyarrow
    tools/debian_dataset.py                        # reads `apt-cache dumpavail` of this machine
    tools/debian_dataset.py --avail Packages       # or a file in that format
    tools/debian_dataset.py --split-seed 1 --dry   # another split, nothing written: what the parameters were chosen on
"""

import argparse
import re
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

ASKS = ("Depends", "Pre-Depends", "Recommends", "Suggests", "Enhances")
MIN_USERS_OF_ITEM, MIN_ITEMS_OF_USER, MIN_ITEMS_TO_HOLD_OUT = 2, 3, 5
FACTORS = 64


def packages(text):
    """Yields the fields of each package; continuation lines are joined to their field."""
    for paragraph in re.sub(r"\n[ \t]+", " ", text).split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line)
        if "Package" in fields:
            yield fields


def names(relation):
    """`a (>= 1) | b:any, c` -> {a, b, c}: versions and architectures dropped, every alternative counted."""
    return {re.split(r"[\s(:\[]", part.strip(), maxsplit=1)[0] for part in re.split(r"[,|]", relation)} - {""}


def interactions(text):
    """Returns ({user: sorted items}, {package: section}), pruned until no rule below removes anything more."""
    asks, section = {}, {}
    for fields in packages(text):
        user = fields["Package"]
        section[user] = fields.get("Section", "")
        asks[user] = set().union(*(names(fields[f]) for f in ASKS if f in fields)) - {user}
    while True:
        wanted = Counter(item for items in asks.values() for item in items)
        kept = {u: {i for i in items if wanted[i] >= MIN_USERS_OF_ITEM} for u, items in asks.items()}
        kept = {u: items for u, items in kept.items() if len(items) >= MIN_ITEMS_OF_USER}
        if kept == asks:
            return {u: sorted(asks[u]) for u in sorted(asks)}, section
        asks = kept


def split(asks, seed):
    """Holds out one random item of every user that has enough; never the last trace of an item."""
    rng = np.random.default_rng(seed)
    left = Counter(item for items in asks.values() for item in items)
    held = {}
    for user, items in asks.items():
        if len(items) >= MIN_ITEMS_TO_HOLD_OUT:
            item = items[rng.integers(len(items))]
            if left[item] > 1:
                left[item] -= 1
                held[user] = item
    return held


def hit_rate(score_block, train, held, k=10):
    """Share of held-out items among the k best items the user was not trained on."""
    rows = np.flatnonzero(held >= 0)
    hits = 0
    for block in np.array_split(rows, len(rows) // 1024 + 1):
        scores = score_block(block)
        seen = train[block].tocoo()
        scores[seen.row, seen.col] = -np.inf
        top = np.argpartition(-scores, k, axis=1)[:, :k]
        hits += (top == held[block, None]).any(axis=1).sum()
    return hits / len(rows)


def write_pairs(path, pairs):
    users, items = zip(*pairs)
    table = pa.table({"user": pa.array(users).dictionary_encode(), "item": pa.array(items).dictionary_encode()})
    pq.write_table(table, path, compression="zstd", compression_level=19)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--avail", type=Path, help="package lists; without it, apt-cache dumpavail is run")
    args.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data/debian")
    args.add_argument("--split-seed", type=int, default=12)
    args.add_argument("--iterations", type=int, default=15)
    args.add_argument("--regularization", type=float, default=10.0)
    args.add_argument("--alpha", type=float, default=300.0)
    args.add_argument("--dry", action="store_true", help="print the figures, write nothing")
    args = args.parse_args()

    text = args.avail.read_text() if args.avail else subprocess.run(
        ["apt-cache", "dumpavail"], check=True, capture_output=True, text=True).stdout
    asks, section = interactions(text)
    users = list(asks)
    items = sorted({item for wanted in asks.values() for item in wanted})
    row = {item: r for r, item in enumerate(items)}
    held = split(asks, args.split_seed)
    train = [(u, i) for u, wanted in asks.items() for i in wanted if held.get(u) != i]
    user_row = {user: r for r, user in enumerate(users)}
    matrix = csr_matrix((np.ones(len(train), np.float32), ([user_row[u] for u, _ in train], [row[i] for _, i in train])),
                        shape=(len(users), len(items)))
    held_row = np.array([row[held[u]] if u in held else -1 for u in users])
    print(f"{len(users)} users, {len(items)} items, {len(train)} training and {len(held)} held-out interactions")

    with threadpool_limits(1, "blas"):  # one thread, one order of sums: the same bytes on every run
        als = AlternatingLeastSquares(FACTORS, regularization=args.regularization, alpha=args.alpha,
                                      iterations=args.iterations, num_threads=1, random_state=7)
        als.fit(matrix, show_progress=False)
    # What is measured is what is written: the rounded vectors.
    user_vectors, item_vectors = als.user_factors.astype(np.float16), als.item_factors.astype(np.float16)
    u32, i32 = user_vectors.astype(np.float32), item_vectors.astype(np.float32)
    popularity = np.bincount(matrix.indices, minlength=len(items)).astype(np.float32)
    norms = np.linalg.norm(i32, axis=1)
    print(f"hit rate@10: ALS {hit_rate(lambda b: u32[b] @ i32.T, matrix, held_row):.4f}, "
          f"popularity {hit_rate(lambda b: np.tile(popularity, (len(b), 1)), matrix, held_row):.4f}")
    print(f"item norms: {norms.min():.4f} .. {np.median(norms):.4f} .. {norms.max():.4f}")
    for user in ("r-cran-ggplot2", "python3-scipy", "gimp"):
        if user in user_row:
            best = np.argsort(-(i32 @ u32[user_row[user]]))[:8]
            print(f"{user}: {' '.join(items[i] for i in best)}")
    if args.dry:
        return

    args.out.mkdir(parents=True, exist_ok=True)
    np.save(args.out / "users.npy", user_vectors)
    np.save(args.out / "items.npy", item_vectors)
    (args.out / "users.txt").write_text("".join(u + "\n" for u in users))
    tags = pa.array([[section[i]] if section.get(i) else [] for i in items], pa.list_(pa.string()))
    pq.write_table(pa.table({"id": items, "tags": tags, "popularity": popularity}), args.out / "items.parquet",
                   compression="zstd", compression_level=19)
    write_pairs(args.out / "train.parquet", train)
    write_pairs(args.out / "heldout.parquet", held.items())


if __name__ == "__main__":
    main()
