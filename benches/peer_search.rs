//! Recall against queries a second of an index, one thread, one query at a time: the side of `tools/peers` that is ours.
//!
//! `cargo bench --bench peer_search -- --index x.tng --queries q.npy --truth t.npy --k 10 --ef 20,40` prints one JSON
//! object for each `ef`. `truth` holds, for each query, the ids of the true neighbours, best first. Without `--index` it
//! does nothing, so that `cargo bench` runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a tool for us, not for users")]

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use tonnage::catalog::{Index, QueryVector};
use tonnage::graph::{Filter, SearchOptions};
use tonnage::input::Id;
use tonnage::kernel::{self, Kernels};

#[path = "support/npy.rs"]
mod npy;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    index: Option<PathBuf>,
    #[arg(long, requires = "truth")]
    queries: Option<PathBuf>,
    #[arg(long)]
    truth: Option<PathBuf>,
    #[arg(long, default_value_t = 10)]
    k: usize,
    #[arg(long, value_delimiter = ',', default_value = "20,30,40,60,80,120,160,240,320,480,640")]
    ef: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Rows that may be answered: a byte for each, 0 or 1
    #[arg(long)]
    allow: Option<PathBuf>,
    /// Rows that may not be answered, as many for each query: little-endian i32
    #[arg(long)]
    exclude: Option<PathBuf>,
    /// Copy the index into memory, as the peers hold theirs, instead of mapping it
    #[arg(long)]
    resident: bool,
    /// Kernels to search by: scalar, avx2, avx512 or neon
    #[arg(long)]
    level: Option<String>,
    /// Given by cargo.
    #[arg(long)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let (Some(index), Some(queries), Some(truth)) = (&args.index, &args.queries, &args.truth) else { return };
    let mut index = if args.resident { Index::open_resident(index) } else { Index::open(index) }.unwrap();
    if let Some(name) = &args.level {
        let levels = kernel::available().into_iter();
        let named = |kernels: &&Kernels| format!("{:?}", kernels.level()).eq_ignore_ascii_case(name);
        index = index.with_kernels(levels.clone().find(named).expect("this processor has no such level"));
    }
    // Filters are made before the clock starts, ours as everybody's.
    let node = |row: u64| index.find(Id::U64(row)).unwrap();
    let (queries, truth) = (npy::vectors(queries), npy::row_numbers(truth));
    let allowed = args.allow.as_ref().map(|path| {
        let (bytes, _) = npy::numbers(path, "|u1");
        let mut bits = vec![0_u64; index.len().div_ceil(64)];
        let rows = (0..).zip(bytes).filter(|&(_, byte)| byte == 1);
        let passing = rows.map(|(row, _)| bits[node(row) as usize / 64] |= 1 << (node(row) % 64)).count();
        (bits, passing)
    });
    let excluded: Vec<Vec<u32>> = args.exclude.as_ref().map_or(vec![Vec::new(); queries.len()], |path| {
        let mut lists: Vec<Vec<u32>> =
            npy::row_numbers(path).into_iter().map(|rows| rows.into_iter().map(node).collect()).collect();
        lists.iter_mut().for_each(|list| list.sort_unstable());
        lists
    });
    for &ef in &args.ef {
        let options = SearchOptions { k: args.k, ef };
        let mut best = f64::INFINITY;
        let (mut hits, mut distances) = (0, 0);
        for _ in 0..args.repeats {
            (hits, distances) = (0, 0);
            let mut spent = 0.0;
            for ((query, truth), exclude) in queries.iter().zip(&truth).zip(&excluded) {
                let bits = allowed.as_ref().map(|(bits, passing)| (&bits[..], *passing));
                let filter = Filter { bits, exclude };
                let started = Instant::now();
                let (found, stats) = index.search(QueryVector::Floats(query), options, filter).unwrap();
                spent += started.elapsed().as_secs_f64();
                distances += stats.distances;
                let ids = found.iter().map(|hit| index.id(hit.node));
                hits += ids.filter(|id| truth[..args.k].iter().any(|&t| *id == Id::U64(t))).count();
            }
            best = best.min(spent);
        }
        let count = queries.len();
        let (recall, qps) = (hits as f64 / (count * args.k) as f64, count as f64 / best);
        let distances = distances / count;
        println!("{}", serde_json::json!({"ef": ef, "recall_at_10": recall, "qps": qps, "distances": distances}));
    }
}
