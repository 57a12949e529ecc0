"""Times searching under filters: `run --filters --help`.

Random items are let through, the same for all queries, or each query brings items that must not come back: half of them the best it
would have got, half random. The indexes are those of compare.py, built if they are not there. Truth is exact under the filter.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import compare
import data as sets

# No numpy up here, as in compare.py: --prepare is a process of its own.

HERE = Path(__file__).parent
K, SEED = compare.K, 1
SHARES = [0.5, 0.1, 0.01, 0.001]
COUNTS = [200, 2000]
RECALLS = [0.90, 0.95, 0.99]
EFS = [10, 20, 40, 80, 160, 320, 640, 1280, 2560]
HNSWLIB = "hnswlib==0.8.0"  # as in requirements.txt, whose wheel has no headers


def cases():
    """(file name, name, verb) of each filter."""
    return [(f"allow-{share:g}", f"{share * 100:g} % of the items allowed", "allow") for share in SHARES] + \
           [(f"exclude-{count}", f"{count:,} items excluded for each query", "exclude") for count in COUNTS]


def prepare(base, folder, count):
    """Writes queries.npy, and for each case its filter and its truth."""
    import numpy as np

    from exact import nearest

    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(SEED)
    rows = len(np.load(base, mmap_mode="r"))
    queries = np.load(base.parent / "timed_queries.npy")[:count]
    np.save(folder / "queries.npy", queries)
    for share in SHARES:
        allowed = np.zeros(rows, np.uint8)
        allowed[random.permutation(rows)[: max(K, round(rows * share))]] = 1
        np.save(folder / f"allow-{share:g}.npy", allowed)
        np.save(folder / f"allow-{share:g}.truth.npy", nearest(base, queries, K, allowed=allowed.astype(bool)))
    best = nearest(base, queries, max(COUNTS) // 2)
    for number in COUNTS:
        top = best[:, : number // 2]
        others = np.stack([random.choice(np.setdiff1d(random.integers(rows, size=number * 2), row), number // 2, replace=False)
                           for row in top])
        excluded = np.concatenate([top, others], axis=1).astype(np.int32)
        np.save(folder / f"exclude-{number}.npy", excluded)
        np.save(folder / f"exclude-{number}.truth.npy", nearest(base, queries, K, excluded=excluded))


def hnswlib_filter(work):
    """Compiles hnswlib_filter.cpp with the headers that hnswlib's source package brings, as its own setup does."""
    folder = work / "hnswlib-source"
    if not list(folder.glob("hnswlib-*/hnswlib/hnswlib.h")):
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", "hnswlib", "--no-deps",
                        "-d", folder, HNSWLIB], check=True)
        subprocess.run(["tar", "xzf", next(folder.glob("*.tar.gz")), "-C", folder], check=True)
    program = folder / "hnswlib_filter"
    subprocess.run(["g++", "-std=c++17", "-O3", "-march=native", "-I", next(folder.glob("hnswlib-*/")),
                    HERE / "hnswlib_filter.cpp", "-o", program], check=True)
    return program


def tonnage(data, work):
    from adapters.tonnage import PEER_SEARCH

    return lambda queries, truth, verb, file, efs: [
        PEER_SEARCH, "--index", data.folder / "tonnage.index", "--queries", queries, "--truth", truth, "--k", str(K),
        f"--{verb}", file, "--ef", ",".join(map(str, efs))]


def hnswlib(data, work):
    program = hnswlib_filter(work)
    return lambda queries, truth, verb, file, efs: [
        program, data.folder / "hnswlib.index", queries, truth, str(K), verb, file, *map(str, efs)]


def faiss(data, work):
    return lambda queries, truth, verb, file, efs: [
        sys.executable, HERE / "filter_worker.py", "hnsw", data.folder / "faiss.index", queries, truth, str(K), verb, file,
        *map(str, efs)]


def faiss_exact(data, work):
    return lambda queries, truth, verb, file, efs: [
        sys.executable, HERE / "filter_worker.py", "exact", data.base, queries, truth, str(K), verb, file, "0"]


PEERS = {"tonnage": tonnage, "faiss": faiss, "hnswlib": hnswlib, "faiss_exact": faiss_exact}


def measure(name, data, work, args):
    """Results of one peer, by case."""
    try:
        if name in compare.PEERS:
            runner = compare.Runner(name, data)
            runner.attempt("build", args.threads, True)
            if runner.error:
                raise compare.Unable(runner.error)
        command = PEERS[name](data, work)
    except (compare.Unable, OSError, subprocess.CalledProcessError) as error:
        return {case: {"error": str(error)} for _, case, _ in cases()}
    return {case: attempt(command, data.folder / "filters", file, verb, args) for file, case, verb in cases()}


def attempt(command, folder, file, verb, args):
    rounds = []
    try:
        for _ in range(args.rounds):
            words = command(folder / "queries.npy", folder / f"{file}.truth.npy", verb, folder / f"{file}.npy", args.ef)
            rounds.append(compare.run(words, 1)[0])
    except compare.Unable as error:
        return {"error": str(error)}
    points = [max(points, key=lambda point: point["qps"]) for points in zip(*rounds)]
    return {"search": points, "qps_at_recall": {str(recall): compare.qps_at(points, recall) for recall in RECALLS}}


def main():
    args = argparse.ArgumentParser(prog="run --filters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--set", default="glove")
    args.add_argument("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    args.add_argument("--queries", type=int, default=500, help="how many of the set's")
    args.add_argument("--ef", default=EFS, type=lambda text: [int(ef) for ef in text.split(",")])
    args.add_argument("--rounds", type=int, default=2)
    args.add_argument("--threads", type=int, default=2, help="threads of a build")
    args.add_argument("--work", type=Path, default=HERE.parents[1] / "target/peers")
    args.add_argument("--prepare", action="store_true", help=argparse.SUPPRESS)
    args = args.parse_args()
    if args.prepare:
        return prepare(args.work / args.set / "base.npy", args.work / args.set / "filters", args.queries)
    data = sets.load(args.set, args.work)
    subprocess.run([sys.executable, __file__, "--prepare", "--set", args.set, "--work", args.work, "--queries", str(args.queries)],
                   check=True, env=compare.ENVIRONMENT)
    measured = {}
    for name in args.peers.split(","):
        measured[name] = measure(name, data, args.work, args)
        print(f"filters: {name} done", file=sys.stderr)
    found = [{"name": case, "peers": {name: by_case[case] for name, by_case in measured.items()}} for _, case, _ in cases()]
    result = {"set": args.set, "queries": args.queries, "rounds": args.rounds, "processor": compare.processor(),
              "recalls": list(map(str, RECALLS)), "cases": found}
    (data.folder / "filters.json").write_text(json.dumps(result, indent=1) + "\n")
    tables(result)
    subprocess.run([sys.executable, HERE / "report.py", "--work", args.work], check=True)


def tables(result):
    print(f"\nqueries/s of one thread under filters, {result['set']}, {result['processor']}\n")
    for case in result["cases"]:
        rows = []
        for name, peer in case["peers"].items():
            if "error" in peer:
                print(f"{name}: {peer['error']}")
                continue
            top = max(peer["search"], key=lambda point: point[f"recall_at_{K}"])
            rows.append([name, *peer["qps_at_recall"].values(), top[f"recall_at_{K}"], round(top["qps"])])
        compare.table([case["name"], *(f"{recall:g}" for recall in RECALLS), "best recall", "queries/s there"], rows)


if __name__ == "__main__":
    main()
