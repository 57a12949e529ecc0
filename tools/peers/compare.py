"""Times building and searching, ours and other people's, on one set: `run --help`.

Every build and every sweep is a process of its own. A build runs once, on `--threads` threads. A sweep runs one query after
another on one thread; peers take turns within each round, so that a bad minute of the machine hits all of them, and the best
round counts. A peer that cannot be had or cannot do the set is named in the tables, with its reason.
"""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import data as sets
from adapters import PEERS, SWEEPS
from chart import frontier

# No numpy up here: a child's peak memory starts from what its parent held as it forked.

HERE = Path(__file__).parent
K = 10
RECALLS = [0.90, 0.95, 0.98, 0.99, 0.995]
# A kernel of OpenBLAS that the environment asks for would hold back those who build with it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}


class Unable(Exception):
    """A peer that takes no part, and why."""


def commands(peer):
    """(build, search) of a peer: makers of command lines. A peer that is a Python module gets those of worker.py."""
    if "def build_command" in (HERE / f"adapters/{peer.module}.py").read_text():  # not imported to find out: that takes memory
        try:
            program = importlib.import_module(f"adapters.{peer.module}")
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unable(f"does not compile: {error}") from error
        return (lambda data, *rest: program.build_command(data, peer.variant, *rest),
                lambda data, *rest: program.search_command(data, peer.variant, *rest))
    worker, who = [sys.executable, HERE / "worker.py"], [peer.module, peer.variant]
    return (lambda data, threads, out: [*worker, "build", *who, data.metric, data.base, str(threads), out],
            lambda data, index, k, sweep:
                [*worker, "search", *who, data.metric, index, data.queries, data.truth, str(k), *map(str, sweep)])


def run(command, threads):
    """Runs to the end. Returns the JSON objects among the lines it printed, and what it took."""
    env = ENVIRONMENT | {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(list(map(str, command)), env=env, stdout=subprocess.PIPE, stderr=complaints, text=True)
        output = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)  # unlike wait(): the usage of this one child
        child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        complaints.seek(0)
        said = [line.strip() for line in complaints.read().splitlines() if line.strip()]
    if status:
        raise Unable(reason(said) if child.returncode > 0 else f"ended by signal {-child.returncode}")
    taken = {"wall_s": round(wall, 3), "cpu_s": round(used.ru_utime + used.ru_stime, 2), "peak_mb": round(used.ru_maxrss / 1024)}
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], taken


def reason(said):
    """The line of an error's text that tells most: what a program calls its error, or the end of a Python traceback."""
    line = next((line for line in said if line.startswith("error:")), said[-1] if said else "no reason given")
    return line.removeprefix("NotImplementedError: ").removeprefix("RuntimeError: ")[:160]


def size(path):
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size


class Runner:
    """One peer on one set."""

    def __init__(self, name, data, sweep=None):
        self.name, self.peer, self.data = name, PEERS[name], data
        self.index = data.folder / f"{self.peer.index or name}.index"
        self.sweep = sweep or data.sweeps.get(name) or data.sweeps.get(self.peer.sweep) or SWEEPS[self.peer.sweep]
        self.rounds, self.served, self.error, self.figures = [], {}, None, None
        try:
            self.build_command, self.search_command = commands(self.peer)
        except Unable as error:
            self.error = str(error)

    def build(self, threads, keep):
        """Builds, or with `keep` takes the index and the figures of the last time."""
        known = self.index.with_suffix(".json")
        if not (keep and known.exists()):
            known.unlink(missing_ok=True)
            told, taken = run(self.build_command(self.data, threads, self.index), threads)
            known.write_text(json.dumps(taken | (told[0] if told else {}) | {"threads": threads}))
        total = size(self.index)
        self.figures = json.loads(known.read_text()) | {"file_bytes": total, "bytes_per_vector": round(total / self.data.rows, 1)}

    def search(self):
        points, self.served = run(self.search_command(self.data, self.index, K, self.sweep), 1)
        self.rounds.append(points)

    def attempt(self, what, *args):
        """Does one of the above, or remembers why it could not."""
        if self.error:
            return
        start = time.perf_counter()
        try:
            getattr(self, what)(*args)
            print(f"{what} {self.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        except (Unable, NotImplementedError) as error:
            self.error = str(error)
            print(f"{what} {self.name}: {error}", file=sys.stderr)

    def result(self):
        if self.error:
            return {"about": self.peer.about, "error": self.error}
        points = [max(points, key=lambda point: point["qps"]) for points in zip(*self.rounds)]
        return {"about": self.peer.about, "build": self.figures, "serve_mb": self.served["peak_mb"], "search": points,
                "qps_at_recall": {str(recall): qps_at(points, recall) for recall in RECALLS}}


def qps_at(points, recall):
    """Queries/s at a recall: between two measured points, log(queries/s) is taken as linear in recall. A recall below the lowest
    measured gets the queries/s of that one, which can only be too few."""
    front = frontier((point[f"recall_at_{K}"], point["qps"]) for point in points)
    if recall <= front[0][0]:
        return round(front[0][1])
    for (a, at_a), (b, at_b) in zip(front, front[1:]):
        if a <= recall <= b:
            t = (recall - a) / (b - a)
            return round(math.exp((1 - t) * math.log(at_a) + t * math.log(at_b)))
    return None  # it was not reached


def best_and_ratio(peers):
    """At each recall the fastest of the others, and how many times as fast ours is."""
    ours, best, ratio = peers.get("tonnage", {}).get("qps_at_recall", {}), {}, {}
    for recall in map(str, RECALLS):
        others = {name: result["qps_at_recall"][recall] for name, result in peers.items()
                  if PEERS[name].module != "tonnage" and "error" not in result and result["qps_at_recall"][recall]}
        best[recall] = max(others, key=others.get, default=None)
        ratio[recall] = round(ours[recall] / others[best[recall]], 2) if ours.get(recall) and others else None
    return {"best_peer": best, "ratio_to_best_peer": ratio}


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def tables(result):
    print(f"\n{result['set']} ({result['rows']:,} x {result['dim']}, {result['metric']}) on {result['processor']}\n")
    able = {name: peer for name, peer in result["peers"].items() if "error" not in peer}
    columns = ["wall_s", "build_s", "cpu_s", "peak_mb", "idle_mb", "file_bytes", "bytes_per_vector"]
    print(f"build, {result['build_threads']} threads")
    table(["", *columns, "serve_mb"], [[name, *map(peer["build"].get, columns), peer["serve_mb"]] for name, peer in able.items()])
    print(f"queries/s of one thread, best of {result['rounds']}, at recall@{K}")
    rows = [[name, *peer["qps_at_recall"].values()] for name, peer in able.items()]
    table(["", *(f"{recall:g}" for recall in RECALLS)],
          [*rows, ["tonnage / best peer", *result["ratio_to_best_peer"].values()], ["best peer", *result["best_peer"].values()]])
    for name, peer in result["peers"].items():
        print(f"{name}: " + (peer.get("error") or ", ".join(f"{p[f'recall_at_{K}']:.3f} {p['qps']:.0f}" for p in peer["search"])))
    if result["least_share_of_core"] < 0.95:
        print(f"\nNot to be quoted: other work ran here, and one sweep had {result['least_share_of_core']:.0%} of its core.")


def table(head, rows):
    rows = [head, *([("-" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])), sep="  ")
    print()


def arguments():
    args = argparse.ArgumentParser(prog="run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = ",".join(name for name, peer in PEERS.items() if peer.default)
    args.add_argument("--set", default="glove", help="a module beside this one, or module-variant, such as twotower-1m")
    args.add_argument("--peers", default=default, help=f"of {', '.join(PEERS)} (default {default})")
    args.add_argument("--all-peers", action="store_true")
    args.add_argument("--threads", type=int, default=2, help="threads of a build")
    args.add_argument("--rounds", type=int, default=3)
    args.add_argument("--ef", help="the sweep of everybody, instead of the set's and the peers' own")
    args.add_argument("--keep", action="store_true", help="search the indexes of the last time, if there, instead of building")
    args.add_argument("--work", type=Path, default=HERE.parents[1] / "target/peers", help="for sets, indexes and results")
    args = args.parse_args()
    args.peers = list(PEERS) if args.all_peers else args.peers.split(",")
    if unknown := [name for name in args.peers if name not in PEERS]:
        sys.exit(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return args


def main():
    args = arguments()
    data = sets.load(args.set, args.work)
    runners = [Runner(name, data, args.ef and [int(ef) for ef in args.ef.split(",")]) for name in args.peers]
    built = set()
    for runner in runners:
        runner.attempt("build", args.threads, args.keep or runner.index in built)
        built.add(runner.index)
    on_core = 1.0
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        for runner in runners:
            runner.attempt("search")
            if runner.served:
                on_core = min(on_core, runner.served["cpu_s"] / runner.served["wall_s"])
    peers = {runner.name: runner.result() for runner in runners}
    result = {"set": args.set, "rows": data.rows, "dim": data.dim, "metric": data.metric, "processor": processor(),
              "build_threads": args.threads, "rounds": args.rounds, "least_share_of_core": round(on_core, 3),
              "peers": peers} | best_and_ratio(peers)
    (data.folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    tables(result)
    print(f"\n{data.folder / 'result.json'}")
    subprocess.run([sys.executable, HERE / "report.py", "--work", args.work], check=True)


if __name__ == "__main__":
    main()
