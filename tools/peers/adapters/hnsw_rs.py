"""The crate hnsw_rs with its SIMD kernels (`benches/peer_hnsw_rs.rs`), compiled as this module is loaded."""

from cargo import compiled

PROGRAM = compiled("peer_hnsw_rs", "bench", "--no-run", "--bench")


def build_command(data, variant, threads, out):
    if data.metric != "cosine":
        raise NotImplementedError("its dot product is for vectors of unit length only")
    return [PROGRAM, "--build", data.base, "--out", out]  # the number of threads is in the environment


def search_command(data, variant, index, k, sweep):
    return [PROGRAM, "--index", index, "--queries", data.queries, "--truth", data.truth,
            "--k", str(k), "--ef", ",".join(map(str, sweep))]
