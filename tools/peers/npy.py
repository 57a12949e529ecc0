"""Reads and writes .npy files block by block, so that a build holds its index and one block, and not the input as well."""

import numpy as np


def shape(path):
    return np.load(path, mmap_mode="r").shape


def blocks(path, rows=1 << 16):
    with open(path, "rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0), path
        (left, dim), fortran, dtype = np.lib.format.read_array_header_1_0(file)
        assert not fortran and dtype == np.float32, path
        while left:
            count = min(rows, left)
            yield np.fromfile(file, np.float32, count * dim).reshape(count, dim)
            left -= count


def write_blocks(path, shape, parts):
    """Writes what `parts` yields, one after another; the file appears when it is whole."""
    unfinished = path.with_suffix(".part")
    with open(unfinished, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for part in parts:
            np.ascontiguousarray(part, np.float32).tofile(file)
    unfinished.rename(path)
