"""hnswlib: the reference implementation, in C++. Compiled on this machine, for its CPU."""

import hnswlib
import numpy as np

from npy import blocks, shape

SPACE = "ip"  # for "cosine" too: the base is of unit length already, and so it is spared a second normalization


def build(base, metric, variant, threads, out):
    rows, dim = shape(base)
    index = hnswlib.Index(SPACE, dim)
    index.init_index(rows, ef_construction=200, M=16, random_seed=1)
    for block in blocks(base):
        index.add_items(block, num_threads=threads)
    index.save_index(out)


class Searcher:
    def __init__(self, path, metric, variant, dim):
        self.index = hnswlib.Index(SPACE, dim)
        self.index.load_index(path)

    def search(self, queries, k, ef):
        self.index.set_ef(ef)
        return self.index.knn_query(queries, k, num_threads=1)[0].astype(np.int64)
