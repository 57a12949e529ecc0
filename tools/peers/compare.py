"""Times building and searching, ours and other people's, on one set: `run --help`.

Every build and every sweep is a process of its own. A build runs once, on `--threads` threads. A sweep runs one query after
another on one thread; peers take turns within each round, so that a bad minute of the machine hits all of them, and the best
round counts.
"""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

# No numpy up here: a child's peak memory starts from what its parent held as it forked.

HERE = Path(__file__).parent
K, EFS = 10, [20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640]
RECALLS = [0.90, 0.95, 0.98, 0.99]


def commands(peer):
    """(build, search) of a peer: makers of command lines. A peer that is a Python module gets those of worker.py."""
    if "def build_command" in (HERE / f"adapters/{peer}.py").read_text():  # not imported to find out: that takes memory, see above
        program = importlib.import_module(f"adapters.{peer}")
        return program.build_command, program.search_command
    worker = [sys.executable, HERE / "worker.py"]
    return (lambda base, metric, threads, out: [*worker, "build", peer, metric, base, str(threads), out],
            lambda index, metric, queries, truth, k, efs:
                [*worker, "search", peer, metric, index, queries, truth, str(k), *map(str, efs)])


def run(command, threads):
    """Runs to the end. Returns the JSON objects among the lines it printed, and what it took."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    print(*(Path(str(word)).name for word in command), file=sys.stderr)
    start = time.perf_counter()
    child = subprocess.Popen(list(map(str, command)), env=env, stdout=subprocess.PIPE, text=True)
    output = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)  # unlike wait(): the usage of this one child
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    taken = {"wall_s": round(wall, 3), "cpu_s": round(used.ru_utime + used.ru_stime, 2), "peak_mb": round(used.ru_maxrss / 1024)}
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], taken


def build(command, out, threads):
    told, taken = run(command, threads)
    figures = taken | (told[0] if told else {}) | {"file_mb": round(out.stat().st_size / 2**20)}
    out.with_suffix(".json").write_text(json.dumps(figures))  # for --keep
    return figures


def best(rounds):
    """The fastest of the rounds at each ef."""
    return [max(points, key=lambda point: point["qps"]) for points in zip(*rounds)]


def qps_at(points, recall):
    """Queries/s at a recall: between two measured points, log(queries/s) is taken as linear in recall."""
    for low, high in zip(points, points[1:]):
        a, b = low[f"recall_at_{K}"], high[f"recall_at_{K}"]
        if a <= recall <= b and a < b:
            t = (recall - a) / (b - a)
            return round(math.exp((1 - t) * math.log(low["qps"]) + t * math.log(high["qps"])))
    return None  # outside of what was measured


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def report(result):
    print(f"\n{result['set']} on {result['processor']}\n\nbuild, {result['build_threads']} threads")
    columns = ["wall_s", "build_s", "cpu_s", "peak_mb", "idle_mb", "file_mb"]
    table(["", *columns], [[peer, *map(figures.get, columns)] for peer, figures in result["build"].items()])
    print(f"queries/s of one thread, best of {result['rounds']}, at recall@{K}")
    table(["", *(f"{recall:.2f}" for recall in RECALLS)], [[peer, *at.values()] for peer, at in result["qps_at_recall"].items()])
    for peer, points in result["search"].items():
        print(f"{peer}: " + ", ".join(f"{point[f'recall_at_{K}']:.3f} {point['qps']:.0f}" for point in points))
    if result["least_share_of_core"] < 0.95:
        print(f"\nNot to be quoted: other work ran here, and one sweep had {result['least_share_of_core']:.0%} of its core.")


def table(head, rows):
    rows = [head, *([("-" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])), sep="  ")
    print()


def main():
    args = argparse.ArgumentParser(prog="run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--set", default="glove", help="a module beside this one")
    args.add_argument("--peers", default="tonnage,faiss,hnswlib", help="modules in adapters/")
    args.add_argument("--threads", type=int, default=2, help="threads of a build")
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--ef", default=",".join(map(str, EFS)))
    args.add_argument("--keep", action="store_true", help="search the indexes of the last time, if there, instead of building")
    args.add_argument("--work", type=Path, default=HERE.parents[1] / "target/peers", help="for sets, indexes and the result")
    args = args.parse_args()
    peers, efs = args.peers.split(","), [int(ef) for ef in args.ef.split(",")]

    folder = args.work / args.set
    metric = subprocess.check_output([sys.executable, HERE / f"{args.set}.py", folder], text=True).strip()
    builds, sweeps, made = {}, {peer: [] for peer in peers}, {peer: commands(peer) for peer in peers}
    for peer, (build_command, _) in made.items():
        index = folder / f"{peer}.index"
        known = index.with_suffix(".json")
        builds[peer] = (json.loads(known.read_text()) if args.keep and known.exists() else
                        build(build_command(folder / "base.npy", metric, args.threads, index), index, args.threads))

    on_core = 1.0
    for _ in range(args.rounds):
        for peer, (_, search_command) in made.items():
            points, taken = run(search_command(folder / f"{peer}.index", metric, folder / "timed_queries.npy",
                                               folder / "timed_truth.npy", K, efs), 1)
            sweeps[peer].append(points)
            on_core = min(on_core, taken["cpu_s"] / taken["wall_s"])
    search = {peer: best(rounds) for peer, rounds in sweeps.items()}
    at = {peer: {str(recall): qps_at(search[peer], recall) for recall in RECALLS} for peer in peers}

    result = {"set": args.set, "processor": processor(), "build_threads": args.threads, "rounds": args.rounds,
              "least_share_of_core": round(on_core, 3), "build": builds, "search": search, "qps_at_recall": at}
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")

    report(result)
    print(f"\n{folder / 'result.json'}")


if __name__ == "__main__":
    main()
