"""usearch: HNSW in C++ with kernels picked at run time; f32, f16 and i8 vectors, the last scored from their bytes alone."""

import numpy as np
from usearch.index import Index

from npy import blocks, shape



def empty(dim, metric, variant):
    if variant == "i8" and metric != "cosine":
        raise NotImplementedError("its i8 vectors are of unit length: for cosine only")
    # The base is of unit length already, so "ip" ranks as "cos" does and is quicker; i8 needs "cos", as rounding changes lengths.
    return Index(ndim=dim, metric="cos" if variant == "i8" else "ip", dtype=variant, connectivity=16, expansion_add=200)


def build(base, metric, variant, threads, out):
    index = empty(shape(base)[1], metric, variant)
    for block in blocks(base):
        index.add(np.arange(len(index), len(index) + len(block)), block, threads=threads)
    index.save(out)


class Searcher:
    def __init__(self, path, metric, variant, dim):
        self.index = empty(dim, metric, variant)
        self.index.load(path)

    def search(self, queries, k, ef):
        self.index.expansion_search = ef
        return self.index.search(queries, k, threads=1).keys.astype(np.int64)
