"""One job of one Python peer, in a process of its own, so that its memory and its threads are its own.

worker.py build  MODULE VARIANT METRIC BASE THREADS OUT                 prints {"idle_mb", "build_s"}
worker.py search MODULE VARIANT METRIC INDEX QUERIES TRUTH K EFFORT...  prints {"ef", "recall_at_10", "qps"} for each effort
"""

import importlib
import json
import resource
import sys
import time

import numpy as np

WARM_UP, REPEATS = 200, 3


def build(peer, variant, metric, base, threads, out):
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # what Python and the imports cost on their own
    start = time.perf_counter()
    peer.build(base, metric, variant, int(threads), out)
    print(json.dumps({"idle_mb": round(idle), "build_s": round(time.perf_counter() - start, 2)}))


def search(peer, variant, metric, index, queries, truth, k, *efforts):
    queries, truth, k = np.load(queries), np.load(truth), int(k)
    truth = truth[:, :k]
    searcher = peer.Searcher(index, metric, variant, queries.shape[1])
    searcher.search(queries[:WARM_UP], k, int(efforts[-1]))
    for effort in map(int, efforts):
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            # All queries in one call: the peer walks them one after another on its one thread, and Python costs it nothing.
            found = searcher.search(queries, k, effort)
            seconds.append(time.perf_counter() - start)
        hits = (found[:, :, None] == truth[:, None, :]).sum()
        point = {"ef": effort, f"recall_at_{k}": round(hits / truth.size, 5), "qps": round(len(queries) / min(seconds), 1)}
        print(json.dumps(point), flush=True)


if __name__ == "__main__":
    verb, name, *rest = sys.argv[1:]
    {"build": build, "search": search}[verb](importlib.import_module(f"adapters.{name}"), *rest)
