"""ScaNN, Google's tree with anisotropic hashing, two dimensions a code, and exact f32 scores for the best: its effort is the
number of leaves. It holds the base in memory and trains on a sample of it, as its documentation has it."""

import shutil
from pathlib import Path

import numpy as np
import scann

REORDER = 200  # candidates that get exact scores, for 10 answers


def build(base, metric, variant, threads, out):
    data = np.load(base)
    builder = scann.scann_ops_pybind.builder(data, 10, "dot_product").set_n_training_threads(threads)
    index = (builder.tree(round(2 * len(data) ** 0.5), 100, training_sample_size=min(len(data), 250_000))
             .score_ah(2, anisotropic_quantization_threshold=0.2).reorder(REORDER).build())
    shutil.rmtree(out, ignore_errors=True)
    Path(out).mkdir()
    index.serialize(str(out))


class Searcher:
    def __init__(self, path, metric, variant, dim):
        self.index = scann.scann_ops_pybind.load_searcher(str(path))

    def search(self, queries, k, leaves):
        # One at a time: given many queries at once, ScaNN scores them together, which no request of a service can have.
        # Python's part in a query is some 5 us.
        found = [self.index.search(query, k, pre_reorder_num_neighbors=REORDER, leaves_to_search=leaves)[0] for query in queries]
        # Few leaves may hold fewer than k.
        return np.array([np.pad(rows.astype(np.int64), (0, k - len(rows)), constant_values=-1) for rows in found])
