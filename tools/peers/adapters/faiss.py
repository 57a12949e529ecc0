"""faiss HNSW in C++, 2 M links a node; it picks AVX2 or AVX-512 at run time. `flat` keeps f32 vectors. `sq8` walks the graph
on 8 bits a dimension and, since that alone ends at a recall of .97, scores the best found once more from f16 vectors."""

import faiss
import numpy as np

from npy import blocks, shape

REFINE = 3  # candidates for each answer


def build(base, metric, variant, threads, out):
    faiss.omp_set_num_threads(threads)
    _, dim = shape(base)
    if variant == "flat":
        hnsw = index = faiss.IndexHNSWFlat(dim, 16, faiss.METRIC_INNER_PRODUCT)
    else:
        hnsw = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, 16, faiss.METRIC_INNER_PRODUCT)
        exact = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index = faiss.IndexRefine(hnsw, exact)
        index.train(np.concatenate([block for block, _ in zip(blocks(base), range(4))]))
    hnsw.hnsw.efConstruction = 200
    for block in blocks(base):
        index.add(block)
    faiss.write_index(index, out)


class Searcher:
    def __init__(self, path, metric, variant, dim):
        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(path)
        self.refined = variant == "sq8"

    def search(self, queries, k, ef):
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        if self.refined:
            parameters = faiss.IndexRefineSearchParameters(k_factor=min(REFINE, ef / k), base_index_params=parameters)
        return self.index.search(queries, k, params=parameters)[1]
