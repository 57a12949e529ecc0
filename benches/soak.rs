//! Searches of all kinds, as many as asked for: what `tools/asan` runs under AddressSanitizer.
//!
//! `cargo bench --bench soak -- --searches 1000000`. Without a number it does nothing, so that `cargo bench` runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for us, not for users")]

use std::path::Path;

use clap::Parser;
use rayon::prelude::*;
use tonnage::catalog::{BuildSpec, Index, QueryVector, build};
use tonnage::codec::{Codec, Metric};
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::Vectors;
use tonnage::kernel;

#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 0)]
    searches: usize,
    /// Given by cargo.
    #[arg(long)]
    bench: bool,
}

fn main() {
    let searches = Args::parse().searches;
    if searches == 0 {
        return;
    }
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian");
    let open = |name| Vectors::open(&data.join(name)).unwrap();
    let (items, users) = (open("items.npy"), open("users.npy"));
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (Metric::Dot, Codec::Int8, Some(Codec::Int8)),
        (Metric::Cosine, Codec::Int4, Some(Codec::Int8)),
        (Metric::L2, Codec::Int8, Some(Codec::F16)),
        (Metric::Dot, Codec::F16, None),
        (Metric::Cosine, Codec::F32, None),
    ];
    let mut queries = vec![0.0; users.rows() * users.dim()];
    users.read(0, &mut queries).unwrap();
    for (metric, codec, finer) in cases {
        for kernels in kernel::available().into_iter().filter(|kernels| kernels.level() != kernel::Level::Scalar) {
            let spec = BuildSpec {
                codec,
                finer,
                graph: BuildOptions { ef_construction: 60, ..BuildOptions::new(metric) },
                profile: false,
                ..BuildSpec::new(&items, metric)
            };
            let path = folder.path().join("soak.tng");
            let index = build(&spec, &path, &|_| ()).unwrap().0.with_kernels(kernels);
            let found = soak(&index, &queries, searches / cases.len() / (kernel::available().len() - 1));
            println!("{metric} {codec} {:?}: {found} items found", kernels.level());
        }
    }
}

/// Searches with every `k`, effort, filter and exclusion there may be, and returns how many items were found.
fn soak(index: &Index, queries: &[f32], searches: usize) -> usize {
    let (dim, n) = (index.dim(), index.len());
    let count = queries.len() / dim;
    let bits: Vec<(Vec<u64>, usize)> = [2, 10, 100, 1000]
        .map(|one_in| {
            let mut bits = vec![0_u64; n.div_ceil(64)];
            let passing = (0..n).filter(|node| (node * 7) % one_in == 0);
            let passing = passing.map(|node| bits[node / 64] |= 1 << (node % 64)).count();
            (bits, passing)
        })
        .to_vec();
    let search = |at: usize| {
        let query = &queries[at % count * dim..][..dim];
        let bits = (at % 16 == 3).then(|| &bits[at / 16 % 4]).map(|(bits, passing)| (&bits[..], *passing));
        let exclude: Vec<u32> = (0..at as u32 % 50 / 40 * 300).map(|node| node * 7).collect();
        let options = SearchOptions { k: 1 + at % 13, ef: 1 + at % 29 };
        let (hits, _) = index.search(QueryVector::Floats(query), options, Filter { bits, exclude: &exclude }).unwrap();
        assert!(hits.iter().all(|hit| (hit.node as usize) < n && exclude.binary_search(&hit.node).is_err()));
        hits.len()
    };
    (0..searches).into_par_iter().map(search).sum()
}
