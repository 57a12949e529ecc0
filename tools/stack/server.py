"""The stack that a team would otherwise assemble: FastAPI and uvicorn, a Redis key a user, hnswlib, filters after the search.

It is written as such a service is when somebody cares: raw f32 in Redis, orjson, uvloop, numpy after the search. Requests are
those that `benches/service.rs` sends to Tonnage's `/v1/recommend`: `user_id`, `k`, `session`, one tag in `filter.all`, seen items
in `exclude.items`.
"""

import json
import os
from pathlib import Path

import hnswlib
import numpy as np
import orjson
import redis.asyncio
from fastapi import FastAPI, Request, Response

FOLDER = Path(os.environ["STACK_FOLDER"])
SETTINGS = json.loads((FOLDER / "stack.json").read_text())
ITEMS = np.load(FOLDER / "items.npy", mmap_mode="r")
HAS_TAG = np.load(FOLDER / "has_tag.npy")

index = hnswlib.Index(space="ip", dim=ITEMS.shape[1])
index.load_index(str(FOLDER / "items.hnsw"))
index.set_num_threads(1)
store = redis.asyncio.Redis.from_url(os.environ["STACK_STORE"])
app = FastAPI()


def blend(vector, session):
    """A share of the way to the mean of what was looked at just now."""
    if not session:
        return vector
    recent = ITEMS[[int(event["item_id"]) for event in session]].mean(axis=0)
    share = min(0.5, len(session) / (len(session) + 4))
    return (1 - share) * vector + share * recent


def search(vector, tagged, seen, k):
    """Asks for more than k, drops what may not come back, and asks for twice as many while too few are left."""
    fetch = SETTINGS["fetch"]
    while True:
        index.set_ef(max(SETTINGS["ef"], fetch))
        rows, distances = index.knn_query(vector, k=fetch)
        rows, scores = rows[0], 1 - distances[0]
        keep = ~np.isin(rows, seen)
        if tagged:
            keep &= HAS_TAG[rows]
        if np.count_nonzero(keep) >= k or 2 * fetch > len(HAS_TAG):
            return rows[keep][:k].tolist(), scores[keep][:k].tolist()
        fetch *= 2


@app.post("/v1/recommend")
async def recommend(request: Request):
    asked = orjson.loads(await request.body())
    stored = await store.get(f"vector:{asked['user_id']}")
    if stored is None:
        return Response(status_code=404)
    vector = blend(np.frombuffer(stored, np.float32), asked.get("session", []))
    tagged = bool(asked.get("filter", {}).get("all"))
    seen = np.array(asked.get("exclude", {}).get("items", []), np.uint64)
    rows, scores = search(vector, tagged, seen, asked["k"])
    items = [{"id": str(row), "score": score, "rank": 1 + at} for at, (row, score) in enumerate(zip(rows, scores))]
    return Response(orjson.dumps({"items": items, "returned": len(items)}), media_type="application/json")


@app.get("/readyz")
async def readyz():
    return {}
