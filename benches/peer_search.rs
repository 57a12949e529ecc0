//! Recall against queries a second of an index, one thread, one query at a time: the side of `tools/peers` that is ours.
//!
//! `cargo bench --bench peer_search -- --index x.tng --queries q.npy --truth t.npy --k 10 --ef 20,40` prints one JSON
//! object for each `ef`. `truth` holds, for each query, the ids of the true neighbours, best first. Without `--index` it
//! does nothing, so that `cargo bench` runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for us, not for users")]

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use tonnage::catalog::{Index, QueryVector};
use tonnage::graph::{Filter, SearchOptions};
use tonnage::input::{Id, Vectors};

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
    /// Given by cargo.
    #[arg(long)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let (Some(index), Some(queries), Some(truth)) = (&args.index, &args.queries, &args.truth) else { return };
    let index = Index::open(index).unwrap();
    let (queries, truth) = (read(queries), read_truth(truth));
    for &ef in &args.ef {
        let options = SearchOptions { k: args.k, ef };
        let mut best = f64::INFINITY;
        let (mut hits, mut distances) = (0, 0);
        for _ in 0..args.repeats {
            (hits, distances) = (0, 0);
            let mut spent = 0.0;
            for (query, truth) in queries.iter().zip(&truth) {
                let started = Instant::now();
                let (found, stats) = index.search(QueryVector::Floats(query), options, Filter::default()).unwrap();
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

fn read(path: &std::path::Path) -> Vec<Vec<f32>> {
    let vectors = Vectors::open(path).unwrap();
    let mut all = vec![0.0; vectors.rows() * vectors.dim()];
    vectors.read(0, &mut all).unwrap();
    all.chunks(vectors.dim()).map(<[f32]>::to_vec).collect()
}

/// A two-dimensional `.npy` of little-endian `i32`.
fn read_truth(path: &std::path::Path) -> Vec<Vec<u64>> {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    assert!(header.contains("'<i4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let columns: usize = shape.split(',').nth(1).unwrap().trim().parse().unwrap();
    let ids: Vec<u64> = bytes[start..].as_chunks::<4>().0.iter().map(|&id| i32::from_le_bytes(id) as u64).collect();
    ids.chunks(columns).map(<[u64]>::to_vec).collect()
}
