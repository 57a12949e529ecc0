//! Our graph finds no less than that of hnsw_rs at the same `m`, `ef_construction` and `ef`.

use std::path::Path;

use hnsw_rs::prelude::{DistL2, Hnsw};
use tonnage::catalog::{BuildSpec, QueryVector, build, top_by_codec};
use tonnage::codec::{Codec, Layout, Metric};
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::{Id, Vectors};

const ITEMS: usize = 8000;
const QUERIES: usize = 300;
const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;
const K: usize = 10;

#[test]
fn recall_is_never_below_that_of_hnsw_rs() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, queries) = (directions("items.npy", ITEMS), directions("users.npy", QUERIES));
    let path = folder.path().join("items.fvecs");
    write_fvecs(&path, &rows);
    let items = Vectors::open(&path).unwrap();
    let spec = BuildSpec {
        graph: BuildOptions { m: M, ef_construction: EF_CONSTRUCTION, seed: 1 },
        profile: false,
        ..BuildSpec::new(&items, Metric::Cosine)
    };
    let (index, _) = build(&spec, &folder.path().join("items.tng"), &|_| ()).unwrap();
    let yardstick = Hnsw::new(M, ITEMS, 16, EF_CONSTRUCTION, DistL2 {});
    rows.iter().enumerate().for_each(|(at, row)| yardstick.insert((row, at)));

    let layout = Layout { codec: Codec::F32, dim: items.dim() };
    let truth = top_by_codec(&items, layout, Metric::Cosine, &queries.concat(), K).unwrap();
    let mut below = false;
    for ef in [16, 32, 64, 128] {
        let ours = recall(&truth, &queries, |query| {
            let options = SearchOptions { k: K, ef };
            let (hits, _) = index.search(QueryVector::Floats(query), options, Filter::default()).unwrap();
            hits.iter().map(|hit| index.id(hit.node)).filter_map(row_of).collect()
        });
        let theirs = recall(&truth, &queries, |query| {
            yardstick.search(query, K, ef).iter().map(|found| found.d_id as u32).collect()
        });
        println!("ef {ef}: {ours:.4}, hnsw_rs {theirs:.4}");
        below |= ours < theirs;
    }
    assert!(!below, "see above");
}

fn row_of(id: Id) -> Option<u32> {
    if let Id::U64(row) = id { row.try_into().ok() } else { None }
}

fn recall(truth: &[Vec<(u32, f32)>], queries: &[Vec<f32>], search: impl Fn(&[f32]) -> Vec<u32>) -> f64 {
    let hits = |(truth, query): (&Vec<(u32, f32)>, &Vec<f32>)| {
        let found = search(query);
        truth.iter().filter(|(row, _)| found.contains(row)).count()
    };
    truth.iter().zip(queries).map(hits).sum::<usize>() as f64 / (truth.len() * K) as f64
}

/// Bundled vectors at unit length.
fn directions(file: &str, count: usize) -> Vec<Vec<f32>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian").join(file);
    let vectors = Vectors::open(&path).unwrap();
    let mut all = vec![0.0; count * vectors.dim()];
    vectors.read(0, &mut all).unwrap();
    all.chunks_mut(vectors.dim()).for_each(|vector| Metric::Cosine.prepare(vector));
    all.chunks(vectors.dim()).map(<[f32]>::to_vec).collect()
}

fn write_fvecs(path: &Path, rows: &[Vec<f32>]) {
    let row = |row: &Vec<f32>| {
        let dim = (row.len() as u32).to_le_bytes();
        dim.into_iter().chain(row.iter().flat_map(|x| x.to_le_bytes())).collect::<Vec<u8>>()
    };
    std::fs::write(path, rows.iter().flat_map(row).collect::<Vec<u8>>()).unwrap();
}
