//! Building and searching, beside hnsw_rs at the same `m`, `ef_construction` and `ef`, with recall in the names.
#![allow(clippy::unwrap_used, reason = "a benchmark stops by panicking")]

use std::path::Path;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hnsw_rs::prelude::{DistL2, Hnsw};
use tonnage::catalog::{BuildSpec, Index, QueryVector, build, top_by_codec};
use tonnage::codec::{Codec, Layout, Metric};
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::Vectors;

const M: usize = 16;
const EF_CONSTRUCTION: usize = 200;
const QUERIES: usize = 500;
const K: usize = 10;

/// The bundled items and users, as directions, where L2 and cosine agree: hnsw_rs panics on inner products of other vectors.
struct Data {
    items: Vectors,
    rows: Vec<Vec<f32>>,
    queries: Vec<Vec<f32>>,
    truth: Vec<Vec<(u32, f32)>>,
}

fn data() -> Data {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/debian"));
    let (items, users) = (Vectors::open(&folder.join("items.npy")), Vectors::open(&folder.join("users.npy")));
    let (items, users) = (items.unwrap(), users.unwrap());
    let read = |vectors: &Vectors, count: usize| {
        let mut all = vec![0.0; count * vectors.dim()];
        vectors.read(0, &mut all).unwrap();
        all.chunks_mut(vectors.dim()).for_each(|vector| Metric::Cosine.prepare(vector));
        all
    };
    let dim = items.dim();
    let (rows, queries) = (read(&items, items.rows()), read(&users, QUERIES));
    let layout = Layout { codec: Codec::F32, dim };
    let truth = top_by_codec(&items, layout, Metric::Cosine, &queries, K).unwrap();
    let cut = |all: Vec<f32>| all.chunks(dim).map(<[f32]>::to_vec).collect();
    Data { items, rows: cut(rows), queries: cut(queries), truth }
}

fn index(data: &Data, path: &Path) -> Index {
    let spec = BuildSpec {
        graph: BuildOptions { m: M, ef_construction: EF_CONSTRUCTION, seed: 1 },
        profile: false,
        ..BuildSpec::new(&data.items, Metric::Cosine)
    };
    build(&spec, path, &|_| ()).unwrap().0
}

fn yardstick(data: &Data) -> Hnsw<'static, f32, DistL2> {
    let hnsw = Hnsw::new(M, data.rows.len(), 16, EF_CONSTRUCTION, DistL2 {});
    let numbered: Vec<(&Vec<f32>, usize)> = data.rows.iter().zip(0..).collect();
    hnsw.parallel_insert(&numbered);
    hnsw
}

fn recall(truth: &[Vec<(u32, f32)>], found: impl Iterator<Item = Vec<u32>>) -> f64 {
    let hits: usize =
        truth.iter().zip(found).map(|(truth, found)| truth.iter().filter(|hit| found.contains(&hit.0)).count()).sum();
    hits as f64 / (truth.len() * K) as f64
}

fn graphs(c: &mut Criterion) {
    let (data, folder) = (data(), tempfile::tempdir().unwrap());
    let path = folder.path().join("bench.tng");
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("tonnage", |b| b.iter(|| index(&data, &path)));
    group.bench_function("hnsw_rs", |b| b.iter(|| yardstick(&data)));
    group.finish();

    let (index, yardstick) = (index(&data, &path), yardstick(&data));
    let mut group = c.benchmark_group("search, 500 queries");
    group.sample_size(20);
    for ef in [32, 64, 128] {
        let ours = |query: &Vec<f32>| {
            let options = SearchOptions { k: K, ef };
            let (hits, _) = index.search(QueryVector::Floats(query), options, Filter::default()).unwrap();
            hits.iter()
                .map(|hit| u32::try_from(index.id(hit.node).to_string().parse::<u64>().unwrap()).unwrap())
                .collect()
        };
        let theirs = |query: &Vec<f32>| {
            yardstick.search(query, K, ef).iter().map(|found| found.d_id as u32).collect::<Vec<u32>>()
        };
        let name = |name, recall: f64| BenchmarkId::new(name, format!("ef {ef}, recall {recall:.3}"));
        let found = recall(&data.truth, data.queries.iter().map(ours));
        group.bench_function(name("tonnage", found), |b| {
            b.iter(|| {
                for query in &data.queries {
                    index.search(QueryVector::Floats(query), SearchOptions { k: K, ef }, Filter::default()).unwrap();
                }
            });
        });
        let found = recall(&data.truth, data.queries.iter().map(theirs));
        group.bench_function(name("hnsw_rs", found), |b| {
            b.iter(|| data.queries.iter().map(|query| yardstick.search(query, K, ef).len()).sum::<usize>());
        });
    }
    group.finish();
}

criterion_group!(benches, graphs);
criterion_main!(benches);
