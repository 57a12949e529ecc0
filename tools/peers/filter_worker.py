"""faiss under a filter, in a process of its own: filter_worker.py hnsw|exact INDEX QUERIES TRUTH K allow|exclude FILTER EF...

`hnsw` walks the graph and lets only passing items into the answer; `exact` scores every passing item of the .npy file INDEX.
Selectors are made before the clock starts. An `allow` filter is one bitmap and all queries go in one call; with `exclude` each
query has a selector of its own and so a call of its own, in which Python's part is some 10 us.
"""

import json
import sys
import time

import faiss
import numpy as np

from npy import blocks, shape


def opened(kind, path):
    if kind == "hnsw":
        return faiss.read_index(path)
    index = faiss.IndexFlatIP(shape(path)[1])
    for block in blocks(path):
        index.add(block)
    return index


def selectors(verb, filters):
    """One selector for all, or one for each query; with what they point to, which faiss does not hold."""
    if verb == "allow":
        bits = np.packbits(filters, bitorder="little")
        return [faiss.IDSelectorBitmap(len(filters), faiss.swig_ptr(bits))], bits
    batches = [faiss.IDSelectorBatch(row.astype(np.int64)) for row in filters]
    return [faiss.IDSelectorNot(batch) for batch in batches], batches


def main(kind, index, queries, truth, k, verb, filters, *efforts):
    faiss.omp_set_num_threads(1)
    index, queries, k = opened(kind, index), np.load(queries), int(k)
    truth = np.load(truth)[:, :k]
    chosen, _held = selectors(verb, np.load(filters))
    groups = [queries] if len(chosen) == 1 else [queries[row : row + 1] for row in range(len(queries))]
    for ef in map(int, efforts):
        several = [faiss.SearchParametersHNSW(efSearch=ef, sel=sel) if kind == "hnsw" else faiss.SearchParameters(sel=sel)
                   for sel in chosen]
        start = time.perf_counter()
        found = [index.search(group, k, params=parameters)[1] for group, parameters in zip(groups, several)]
        seconds = time.perf_counter() - start
        hits = (np.concatenate(found)[:, :, None] == truth[:, None, :]).sum()
        point = {"ef": ef, f"recall_at_{k}": round(hits / truth.size, 5), "qps": round(len(queries) / seconds, 1)}
        print(json.dumps(point), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
