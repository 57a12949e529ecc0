"""faiss IndexHNSWFlat: f32 vectors and 2 M links a node, in C++. It picks AVX2 or AVX-512 at run time."""

import faiss

from npy import blocks, shape


def build(base, metric, threads, out):
    faiss.omp_set_num_threads(threads)
    _, dim = shape(base)
    index = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    for block in blocks(base):
        index.add(block)
    faiss.write_index(index, out)


class Searcher:
    def __init__(self, path, metric, dim):
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(path)

    def search(self, queries, k, ef):
        self.index.hnsw.efSearch = ef
        return self.index.search(queries, k)[1]
