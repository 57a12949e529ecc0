"""faiss IVF + PQ of 4 bits with FastScan, two dimensions a code, and exact f32 scores for the best: its effort is `nprobe`.
It trains on a sample, which is part of the build."""

import faiss
import numpy as np

from npy import blocks, shape

REFINE = 20  # candidates for each answer


def build(base, metric, variant, threads, out):
    faiss.omp_set_num_threads(threads)
    rows, dim = shape(base)
    lists = 1 << round(np.log2(4 * rows**0.5))  # as faiss's own guidelines have it: about 4 sqrt(rows)
    pq = faiss.index_factory(dim, f"IVF{lists},PQ{dim // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
    index = faiss.IndexRefineFlat(pq)
    sample = min(rows, 64 * lists)
    take = np.sort(np.random.default_rng(1).choice(rows, sample, replace=False))
    index.train(np.ascontiguousarray(np.load(base, mmap_mode="r")[take]))
    for block in blocks(base):
        index.add(block)
    faiss.write_index(index, out)


class Searcher:
    def __init__(self, path, metric, variant, dim):
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(path)
        # Query by query, with a reservoir for the candidates. Left to itself faiss takes a list's codes for many queries at once.
        faiss.downcast_index(self.index.base_index).implem = 11

    def search(self, queries, k, nprobe):
        return self.index.search(queries, k, params=faiss.IndexRefineSearchParameters(
            k_factor=REFINE, base_index_params=faiss.IVFPQSearchParameters(nprobe=nprobe)))[1]
