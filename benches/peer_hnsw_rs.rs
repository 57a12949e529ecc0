//! The crate hnsw_rs for `tools/peers`: it builds an index, or searches one, and prints what `peer_search` prints.
//!
//! `-- --build base.npy --out folder` or `-- --index folder --queries q.npy --truth t.npy --k 10 --ef 20,40`. Without either
//! it does nothing, so that `cargo bench` runs. Vectors are of unit length: hnsw_rs has no inner product of others.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for us, not for users")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use hnsw_rs::api::AnnT;
use hnsw_rs::hnswio::HnswIo;
use hnsw_rs::prelude::{DistDot, Hnsw};
use tonnage::input::Vectors;

const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;
const LAYERS: usize = 16;
const BLOCK: usize = 1 << 16;
const NAME: &str = "index";

#[path = "support/npy.rs"]
mod npy;

#[derive(Parser)]
struct Args {
    #[arg(long, requires = "out")]
    build: Option<PathBuf>,
    #[arg(long)]
    out: Option<PathBuf>,
    #[arg(long, requires = "queries")]
    index: Option<PathBuf>,
    #[arg(long, requires = "truth")]
    queries: Option<PathBuf>,
    #[arg(long)]
    truth: Option<PathBuf>,
    #[arg(long, default_value_t = 10)]
    k: usize,
    #[arg(long, value_delimiter = ',', default_value = "20,40,80,160,320,640")]
    ef: Vec<usize>,
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Given by cargo.
    #[arg(long)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    if let (Some(base), Some(out)) = (&args.build, &args.out) {
        build(base, out);
    }
    if let (Some(index), Some(queries), Some(truth)) = (&args.index, &args.queries, &args.truth) {
        search(&args, index, &npy::vectors(queries), &npy::row_numbers(truth));
    }
}

/// On as many threads as `RAYON_NUM_THREADS` says, from one block of the base after another.
fn build(base: &Path, out: &Path) {
    let base = Vectors::open(base).unwrap();
    let hnsw = Hnsw::<f32, DistDot>::new(M, base.rows(), LAYERS, EF_CONSTRUCTION, DistDot {});
    for first in (0..base.rows()).step_by(BLOCK) {
        let mut block = vec![0.0; BLOCK.min(base.rows() - first) * base.dim()];
        base.read(first, &mut block).unwrap();
        hnsw.parallel_insert_slice(&block.chunks(base.dim()).zip(first..).collect());
    }
    // It does not write over what is there, but beside it under another name.
    std::fs::remove_dir_all(out).ok();
    std::fs::create_dir_all(out).unwrap();
    hnsw.file_dump(out, NAME).unwrap();
}

fn search(args: &Args, index: &Path, queries: &[Vec<f32>], truth: &[Vec<u64>]) {
    let mut file = HnswIo::new(index, NAME);
    let mut hnsw: Hnsw<f32, DistDot> = file.load_hnsw().unwrap();
    hnsw.set_searching_mode(true);
    for &ef in &args.ef {
        let (mut hits, mut best) = (0, f64::INFINITY);
        for _ in 0..args.repeats {
            let mut spent = 0.0;
            hits = 0;
            for (query, truth) in queries.iter().zip(truth) {
                let started = Instant::now();
                let found = hnsw.search(query, args.k, ef);
                spent += started.elapsed().as_secs_f64();
                hits += found.iter().filter(|hit| truth[..args.k].contains(&(hit.d_id as u64))).count();
            }
            best = f64::min(best, spent);
        }
        let (recall, qps) = (hits as f64 / (queries.len() * args.k) as f64, queries.len() as f64 / best);
        println!("{}", serde_json::json!({"ef": ef, "recall_at_10": recall, "qps": qps}));
    }
}
