"""Tonnage itself, compiled as this module is loaded. Two commands; what they print is what worker.py prints for the others."""

from cargo import compiled

METRIC = {"cosine": "cosine", "ip": "dot"}
# The peers hold their indexes in memory, so ours is copied there too, unless it is to be seen mapped.
VARIANTS = {"": ["--resident"], "mapped": [], "avx2": ["--resident", "--level", "avx2"]}

TONNAGE = compiled("tonnage", "build", "--release", "--bin")
PEER_SEARCH = compiled("peer_search", "bench", "--no-run", "--bench")


def build_command(data, variant, threads, out):
    # Its defaults and no more, but for what a set says of itself. It learns from users that are not the timed ones.
    users = ["--users", data.users] if data.users else []
    return [TONNAGE, "build", "--items", data.base, "--metric", METRIC[data.metric], *users, "--threads", str(threads),
            "--seed", "1", *data.tonnage, "--out", out]


def search_command(data, variant, index, k, sweep):
    return [PEER_SEARCH, "--index", index, "--queries", data.queries, "--truth", data.truth,
            "--k", str(k), "--ef", ",".join(map(str, sweep)), *VARIANTS[variant]]
