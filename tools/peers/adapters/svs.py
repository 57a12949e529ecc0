"""SVS, Intel's Vamana graph in C++: f32, f16, or LVQ (4 bits, then 8 of what they leave out). Degree 32 as the layer-0 links of
HNSW with M 16, window 200 as their ef_construction, alpha .95 as its manual has it for inner products."""

import shutil
from pathlib import Path

import numpy as np
import svs

from npy import blocks, shape

DISTANCE = svs.DistanceType.MIP  # of unit vectors this is the cosine


def build(base, metric, variant, threads, out):
    parameters = svs.VamanaBuildParameters(alpha=0.95, graph_max_degree=32, window_size=200)
    rows, dim = shape(base)
    if variant == "lvq":
        data = loader(np.load(base, mmap_mode="r"), out)
    else:
        data = np.empty((rows, dim), {"f32": np.float32, "f16": np.float16}[variant])
        start = 0
        for block in blocks(base):
            data[start : start + len(block)] = block
            start += len(block)
    index = svs.Vamana.build(parameters, data, DISTANCE, num_threads=threads)
    shutil.rmtree(out, ignore_errors=True)
    Path(out).mkdir()
    index.save(*parts(out))
    shutil.rmtree(f"{out}.raw", ignore_errors=True)


def loader(data, out):
    """LVQ is made from a file of SVS's own kind."""
    Path(f"{out}.raw").mkdir(exist_ok=True)
    svs.write_vecs(np.ascontiguousarray(data), f"{out}.raw/base.fvecs")
    raw = svs.VectorDataLoader(f"{out}.raw/base.fvecs", svs.float32, data.shape[1])
    return svs.LVQLoader(raw, primary=4, residual=8, strategy=svs.LVQStrategy.Auto)


def parts(folder):
    return [str(Path(folder) / part) for part in ("config", "graph", "data")]


class Searcher:
    def __init__(self, path, metric, variant, dim):
        config, graph, data = parts(path)
        data = {"f32": lambda: svs.VectorDataLoader(data, svs.float32), "f16": lambda: svs.VectorDataLoader(data, svs.float16),
                "lvq": lambda: svs.LVQLoader(data, strategy=svs.LVQStrategy.Auto)}[variant]()
        self.index = svs.Vamana(config, svs.GraphLoader(graph), data, DISTANCE, num_threads=1)

    def search(self, queries, k, ef):
        self.index.search_window_size = max(ef, k)
        return self.index.search(queries, k)[0].astype(np.int64)
