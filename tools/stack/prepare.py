"""`python prepare.py FOLDER STORE`: an hnswlib index of the items that `benches/service.rs` made, the least effort that reaches a
recall@20 of 0.95 under the bench's filter, and a Redis key for each user."""

import json
import sys
from pathlib import Path

import hnswlib
import numpy as np
import redis

K, SEEN, JUDGED, RECALL = 20, 200, 200, 0.95
folder, store = Path(sys.argv[1]), redis.Redis.from_url(sys.argv[2])
items, users = (np.load(folder / f"{name}.npy") for name in ("items", "users"))

has_tag = np.zeros(len(items), bool)
has_tag[::2] = True  # as the bench tags them
np.save(folder / "has_tag.npy", has_tag)
file = folder / "items.hnsw"
index = hnswlib.Index(space="ip", dim=items.shape[1])
if file.exists():
    index.load_index(str(file))
else:
    index.init_index(len(items), M=16, ef_construction=200, random_seed=1)
    index.add_items(items)
    index.save_index(str(file))

random = np.random.default_rng(1)
seen = random.integers(0, len(items), (JUDGED, SEEN))
scores = users[:JUDGED] @ items.T
scores[:, ~has_tag] = -np.inf
np.put_along_axis(scores, seen, -np.inf, axis=1)
best = np.argpartition(-scores, K, axis=1)[:, :K]
fetch = 3 * K  # half of the items pass the tag
for ef in (60, 80, 100, 120, 160, 200, 260, 320, 400, 520, 640, 800, 1000, 1300, 1600, 2000):
    index.set_ef(max(ef, fetch))
    rows = index.knn_query(users[:JUDGED], k=fetch)[0]
    answers = [[row for row in own if has_tag[row] and row not in out][:K] for own, out in zip(rows, seen)]
    recall = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(answers, best)])
    if recall >= RECALL:
        break
(folder / "stack.json").write_text(json.dumps({"ef": ef, "fetch": fetch}))
print(f"ef {ef}: recall@{K} {recall:.4f}")

for start in range(0, len(users), 10_000):
    block = users[start : start + 10_000]
    store.mset({f"vector:{start + at}": row.tobytes() for at, row in enumerate(block)})
