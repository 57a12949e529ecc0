"""The set debian: the real items and users of data/debian (see its README): 23k items, 64-d, inner product.

`python debian.py FOLDER` writes base.npy, timed_queries.npy (2,000 users), train_users.npy (the other users) and
timed_truth.npy, then prints the metric.
"""

import json
import sys
from pathlib import Path

import numpy as np

from exact import nearest

DATA = Path(__file__).parents[2] / "data/debian"
QUERIES, TRUTH, SEED = 2_000, 100, 1


def make(folder):
    folder = Path(folder)
    if (folder / "timed_truth.npy").exists():  # written last
        return
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "base.npy", np.load(DATA / "items.npy").astype(np.float32))
    users = np.load(DATA / "users.npy").astype(np.float32)
    users = users[np.random.default_rng(SEED).permutation(len(users))]
    np.save(folder / "timed_queries.npy", users[:QUERIES])
    np.save(folder / "train_users.npy", users[QUERIES:])
    np.save(folder / "timed_truth.npy", nearest(folder / "base.npy", users[:QUERIES], TRUTH))


if __name__ == "__main__":
    make(sys.argv[1])
    print(json.dumps({"metric": "ip"}))
