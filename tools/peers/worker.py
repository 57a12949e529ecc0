"""One job of one Python peer, in a process of its own, so that its memory and its threads are its own.

worker.py build  PEER METRIC BASE THREADS OUT            prints {"idle_mb", "build_s"}
worker.py search PEER METRIC INDEX QUERIES TRUTH K EF... prints {"ef", "recall_at_10", "qps"} for each ef
"""

import importlib
import json
import resource
import sys
import time

import numpy as np

WARM_UP = 200


def build(peer, metric, base, threads, out):
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # what Python and the imports cost on their own
    start = time.perf_counter()
    peer.build(base, metric, int(threads), out)
    print(json.dumps({"idle_mb": round(idle), "build_s": round(time.perf_counter() - start, 2)}))


def search(peer, metric, index, queries, truth, k, *efs):
    queries, truth, k = np.load(queries), np.load(truth), int(k)
    truth = truth[:, :k]
    searcher = peer.Searcher(index, metric, queries.shape[1])
    searcher.search(queries[:WARM_UP], k, int(efs[-1]))
    for ef in map(int, efs):
        start = time.perf_counter()
        # All queries in one call: the peer walks them one after another on its one thread, and Python costs it nothing.
        found = searcher.search(queries, k, ef)
        seconds = time.perf_counter() - start
        hits = (found[:, :, None] == truth[:, None, :]).sum()
        point = {"ef": ef, f"recall_at_{k}": round(hits / truth.size, 5), "qps": round(len(queries) / seconds, 1)}
        print(json.dumps(point), flush=True)


if __name__ == "__main__":
    verb, name, *rest = sys.argv[1:]
    {"build": build, "search": search}[verb](importlib.import_module(f"adapters.{name}"), *rest)
