"""Tonnage itself, compiled as this module is loaded. Two commands; what they print is what worker.py prints for the others."""

import json
import subprocess
from pathlib import Path

REPO = Path(__file__).parents[3]


def compiled(name, *cargo):
    """Has cargo compile a target and returns where it went; a bench's file name holds a hash that only cargo knows."""
    lines = subprocess.run(["cargo", *cargo, name, "--message-format=json"],
                           cwd=REPO, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    messages = (json.loads(line) for line in lines if line.startswith("{"))
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name)


TONNAGE = compiled("tonnage", "build", "--release", "--bin")
PEER_SEARCH = compiled("peer_search", "bench", "--no-run", "--bench")


def build_command(base, metric, threads, out):
    # The number of threads is in the environment, where compare.py puts it for everybody.
    return [TONNAGE, "build", "--items", base, "--metric", metric, "--codec", "int8",
            "--m", "16", "--ef-construction", "200", "--seed", "1", "--out", out]


def search_command(index, metric, queries, truth, k, efs):
    return [PEER_SEARCH, "--index", index, "--queries", queries, "--truth", truth,
            "--k", str(k), "--ef", ",".join(map(str, efs))]
