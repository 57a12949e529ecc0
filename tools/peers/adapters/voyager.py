"""voyager, Spotify's descendant of hnswlib, f32. For inner products it adds a dimension that makes all norms equal."""

import numpy as np
from voyager import Index, Space

from npy import blocks, shape


def build(base, metric, variant, threads, out):
    rows, dim = shape(base)
    # The plain dot product for "cosine" would also add that dimension; its own cosine normalizes once more, at no cost in search.
    space = {"cosine": Space.Cosine, "ip": Space.InnerProduct}[metric]
    index = Index(space, dim, M=16, ef_construction=200, random_seed=1, max_elements=rows)
    for block in blocks(base):
        index.add_items(block, num_threads=threads)
    index.save(out)


class Searcher:
    def __init__(self, path, metric, variant, dim):
        self.index = Index.load(path)

    def search(self, queries, k, ef):
        return self.index.query(queries, k, num_threads=1, query_ef=ef)[0].astype(np.int64)
