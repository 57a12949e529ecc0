"""The sets twotower-100k, -1m, -10m and -1m-degenerate: what a two-tower recommender leaves, synthetic. 64-d, inner product.

Items lie around cluster centres (cluster sizes by a mild Zipf law) and have log-normal norms, as popularity gives them. A user
is a mixture of four centres plus noise, so that queries are distributed unlike items. train_users.npy holds separate draws of
the same kind, for an index to learn from.

An inner-product set is easily made too easy: when norms vary much, a few huge items answer everybody, and an index need find
only these. 1m-degenerate is such a set. The others are not; stats.json tells, for the top 10s of the 2,000 timed queries:

| set | distinct items of 20,000 | most frequent item | norm rank of the answers, quantiles 1, 5, 25, 50 % |
|---|---|---|---|
| 100k | 11,091 | 45 | .31 .56 .86 .95 |
| 1m | 14,785 | 26 | .53 .75 .95 .985 |
| 10m | 17,162 | 12 | .74 .89 .98 .996 |
| 1m-degenerate | 3,203 | 224 | .985 .995 .999 1 |

`python twotower.py FOLDER VARIANT` writes base.npy in blocks (10m: 2.5 GB), train_users.npy, timed_queries.npy,
timed_truth.npy and stats.json, then prints the metric.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exact import nearest
from npy import blocks, write_blocks

DIM, QUERIES, TRUTH, SEED, BLOCK = 64, 2_000, 100, 1, 1 << 16
CENTRES, ITEMS, TRAIN_USERS, USERS = range(4)  # streams of random numbers
# Further than usual: inner products take more effort, and large sets do.
SWEEPS = {"ef": [10, 20, 40, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920, 2560],
          "nprobe": [1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 512, 1024]}


@dataclass
class Variant:
    rows: int
    train_users: int
    clusters_per_row: float = 1 / 20
    zipf: float = 0.97
    spread: float = 0.8  # of items around their centre, whose length is 1
    norms: float = 0.15  # sigma of their logarithm
    noise: float = 0.7  # of users
    huge: float = 0.0  # share of items with 2.5 times the norm they would have


DEGENERATE = {"clusters_per_row": 1 / 500, "zipf": 1.3, "spread": 0.6, "norms": 0.5, "noise": 0.5, "huge": 0.003}
VARIANTS = {
    "100k": Variant(100_000, 10_000),
    "1m": Variant(1_000_000, 200_000),
    "10m": Variant(10_000_000, 200_000),
    "1m-degenerate": Variant(1_000_000, 20_000, **DEGENERATE),
}


class Generator:
    def __init__(self, variant):
        self.variant = variant
        clusters = int(variant.rows * variant.clusters_per_row)
        self.centres = unit(normal(np.random.default_rng([SEED, CENTRES]), clusters))
        sizes = (np.arange(clusters) + 10.0) ** -variant.zipf
        self.steps = np.cumsum(sizes / sizes.sum())

    def pick(self, random, count):
        return self.centres[np.minimum(np.searchsorted(self.steps, random.random(count)), len(self.centres) - 1)]

    def items(self):
        """Blocks; each has random numbers of its own, so that one needs no other to be made."""
        for start in range(0, self.variant.rows, BLOCK):
            random, count = np.random.default_rng([SEED, ITEMS, start]), min(BLOCK, self.variant.rows - start)
            ways = unit(self.pick(random, count) + normal(random, count, self.variant.spread))
            norms = np.exp(self.variant.norms * random.standard_normal((count, 1), np.float32))
            norms[random.random(count) < self.variant.huge] *= 2.5
            yield ways * norms

    def users(self, count, stream):
        random = np.random.default_rng([SEED, stream])
        weights = random.dirichlet(np.ones(4), count).astype(np.float32)
        mixture = np.einsum("um,umd->ud", weights, self.pick(random, count * 4).reshape(count, 4, DIM))
        return unit(mixture) + normal(random, count, self.variant.noise)


def normal(random, count, length=1.0):
    """Vectors of a length that is about this."""
    return random.standard_normal((count, DIM), np.float32) * np.float32(length / DIM**0.5)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make(folder, variant):
    folder = Path(folder)
    if (folder / "timed_truth.npy").exists():  # written last
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = Generator(variant)
    write_blocks(folder / "base.npy", (variant.rows, DIM), generator.items())
    np.save(folder / "train_users.npy", generator.users(variant.train_users, TRAIN_USERS))
    queries = generator.users(QUERIES, USERS)
    np.save(folder / "timed_queries.npy", queries)
    truth = nearest(folder / "base.npy", queries, TRUTH)
    (folder / "stats.json").write_text(json.dumps(stats(folder / "base.npy", truth[:, :10])) + "\n")
    np.save(folder / "timed_truth.npy", truth)


def stats(base, top):
    """How hard the set is; see the head of this file."""
    norms = np.concatenate([np.linalg.norm(block, axis=1) for block in blocks(base)])
    rank = np.searchsorted(np.sort(norms), norms[top.ravel()]) / len(norms)
    _, counts = np.unique(top, return_counts=True)
    return {"distinct": len(counts), "of": top.size, "most_frequent": int(counts.max()),
            "norm_rank_quantiles": np.quantile(rank, [0.01, 0.05, 0.25, 0.5]).round(3).tolist()}


if __name__ == "__main__":
    make(sys.argv[1], VARIANTS[sys.argv[2]])
    print(json.dumps({"metric": "ip", "sweeps": SWEEPS if VARIANTS[sys.argv[2]].rows >= 1_000_000 else {}}))
