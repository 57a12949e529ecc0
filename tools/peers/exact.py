"""The exact answers of a set, however large its base: one block of rows at a time."""

import numpy as np

from npy import blocks

SCORES = 1 << 26  # held at a time: 256 MB
SPARE = 10  # scored again in f64, so that neither the last place nor the order depends on how a processor sums in f32


def nearest(base, queries, k, allowed=None, excluded=None):
    """Rows of the k largest dot products, best first, as int32. `base` is a .npy file. `allowed`, a bool for each of its rows,
    leaves rows out for all queries; `excluded`, some rows for each query, for one."""
    many = k + SPARE
    best = np.full((len(queries), many), -np.inf, np.float32)
    rows = np.zeros((len(queries), many), np.int64)
    start = 0
    for block in blocks(base, SCORES // len(queries)):
        scores = queries @ block.T
        if allowed is not None:
            scores[:, ~allowed[start : start + len(block)]] = -np.inf
        if excluded is not None:
            query, place = np.nonzero((excluded >= start) & (excluded < start + len(block)))
            scores[query, excluded[query, place] - start] = -np.inf
        merge(best, rows, scores, start)
        start += len(block)
    return in_f64(base, queries, rows, best)[:, :k].astype(np.int32)


def merge(best, rows, scores, start):
    """Keeps the largest of what is in `best` and in `scores`. Most scores lie below the least that is kept: those cost one look."""
    for query, beats in enumerate(scores > best.min(axis=1, keepdims=True)):
        new = np.flatnonzero(beats)
        if len(new):
            values, names = np.concatenate([best[query], scores[query, new]]), np.concatenate([rows[query], new + start])
            keep = np.argpartition(values, -best.shape[1])[-best.shape[1] :]
            best[query], rows[query] = values[keep], names[keep]


def in_f64(base, queries, rows, scores):
    """The rows of each query, sorted by their score in f64; equal ones by row. Those that scored -inf stay last."""
    vectors = np.load(base, mmap_mode="r")
    sorted_rows = np.empty_like(rows)
    for query, found in enumerate(rows):
        exact = vectors[found].astype(np.float64) @ queries[query].astype(np.float64)
        exact[scores[query] == -np.inf] = -np.inf
        sorted_rows[query] = found[np.lexsort((found, -exact))]
    return sorted_rows
