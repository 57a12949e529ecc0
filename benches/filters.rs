//! Searching the bundled items under filters: from all to one item in a thousand that may be answered, and with none to
//! 2,000 of the best already seen. Recall@10 among what may be answered is in the names. What may be answered is a range
//! of numbers; beside it what the bitmap of such a range of a million items takes.
#![allow(clippy::unwrap_used, reason = "a benchmark stops by panicking")]

use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tonnage::catalog::{BuildSpec, Index, QueryVector, build};
use tonnage::codec::{Codec, Layout, Matrix, Metric, Query};
use tonnage::graph::{BuildOptions, Filter, SearchOptions, exact};
use tonnage::input::{Id, Numbers, Vectors};
use tonnage::kernel;

const METRIC: Metric = Metric::Dot;
const QUERIES: usize = 200;
const OPTIONS: SearchOptions = SearchOptions { k: 10, ef: 64 };

/// The bundled items and users with the index, whose nodes are in another order than the rows.
struct Data {
    index: Index,
    rows: Vec<f32>,
    queries: Vec<f32>,
    dim: usize,
    node_of: Vec<u32>,
}

/// What may not be answered, by row and by node.
struct Case {
    bits: Option<[(Vec<u64>, usize); 2]>,
    seen: Vec<[Vec<u32>; 2]>,
}

/// A number of 32 bits for each row.
fn mixed(row: u64) -> u64 {
    (row + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
}

/// Those as a field of numbers.
fn numbers(rows: usize) -> Numbers {
    let values = (0..rows as u32).map(|row| (row, mixed(u64::from(row)) as f64)).collect();
    Numbers { fields: vec!["mixed".to_owned()], values: vec![values] }
}

fn data(folder: &Path) -> Data {
    let bundled = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/debian"));
    let open = |name: &str| Vectors::open(&bundled.join(name)).unwrap();
    let (items, users) = (open("items.npy"), open("users.npy"));
    let read = |vectors: &Vectors, count: usize| {
        let mut all = vec![0.0; count * vectors.dim()];
        vectors.read(0, &mut all).unwrap();
        all
    };
    let numbers = numbers(items.rows());
    let spec = BuildSpec { profile: false, numbers: Some(&numbers), ..BuildSpec::new(&items, METRIC) };
    let (index, _) = build(&spec, &folder.join("bench.tng"), &|_| ()).unwrap();
    let node_of = (0..items.rows() as u64).map(|row| index.find(Id::U64(row)).unwrap()).collect();
    Data { index, rows: read(&items, items.rows()), queries: read(&users, QUERIES), dim: items.dim(), node_of }
}

impl Data {
    /// The best `k` rows for each query that pass, by exact `f32`.
    fn truth(&self, k: usize, case: &Case) -> Vec<Vec<u32>> {
        let layout = Layout { codec: Codec::F32, dim: self.dim };
        let matrix = Matrix::new(layout, bytemuck::cast_slice(&self.rows), &[], &[]).unwrap();
        let answer = |(at, vector): (usize, &[f32])| {
            let mut query = Query::default();
            query.prepare(layout, vector).unwrap();
            let found = exact::best_many(&matrix, kernel::best(), &[query], k, case.filter(at, 0));
            found[0].iter().map(|&(row, _)| row).collect()
        };
        self.queries.chunks(self.dim).enumerate().map(answer).collect()
    }

    /// Bits of the rows that pass, and of their nodes.
    fn bits(&self, passes: impl Fn(u64) -> bool) -> [(Vec<u64>, usize); 2] {
        let rows: Vec<u32> = (0..self.node_of.len() as u32).filter(|&row| passes(u64::from(row))).collect();
        let set = |name: &dyn Fn(u32) -> u32| {
            let mut bits = vec![0_u64; self.node_of.len().div_ceil(64)];
            rows.iter().map(|&row| name(row)).for_each(|at| bits[at as usize / 64] |= 1 << (at % 64));
            (bits, rows.len())
        };
        [set(&|row| row), set(&|row| self.node_of[row as usize])]
    }

    fn recall(&self, case: &Case) -> f64 {
        let node = |row: &u32| self.node_of[*row as usize];
        let truth = self.truth(OPTIONS.k, case);
        let hits = |(at, truth): (usize, &Vec<u32>)| {
            let found = self.search(at, case);
            truth.iter().map(node).filter(|node| found.contains(node)).count()
        };
        truth.iter().enumerate().map(hits).sum::<usize>() as f64 / (OPTIONS.k * truth.len()) as f64
    }

    fn search(&self, at: usize, case: &Case) -> Vec<u32> {
        let vector = QueryVector::Floats(&self.queries[at * self.dim..][..self.dim]);
        let (hits, _) = self.index.search(vector, OPTIONS, case.filter(at, 1)).unwrap();
        hits.iter().map(|hit| hit.node).collect()
    }
}

impl Case {
    /// The filter of a query, by row (0) or by node (1).
    fn filter(&self, at: usize, by: usize) -> Filter<'_> {
        let bits = self.bits.as_ref().map(|bits| (&bits[by].0[..], bits[by].1));
        Filter { bits, exclude: self.seen.get(at).map_or(&[], |seen| &seen[by]) }
    }
}

fn filters(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let mut group = c.benchmark_group("filters, 200 queries");
    group.sample_size(10).throughput(Throughput::Elements(QUERIES as u64));
    let mut measure = |name: String, case: &Case| {
        let id = BenchmarkId::new(name, format!("recall {:.3}", data.recall(case)));
        group.bench_function(id, |b| b.iter(|| (0..QUERIES).map(|at| data.search(at, case).len()).sum::<usize>()));
    };
    for (name, share) in [("all", 1000_u64), ("50 %", 500), ("10 %", 100), ("1 %", 10), ("0.1 %", 1)] {
        let end = (share << 32) / 1000;
        let bits = (share < 1000).then(|| data.bits(|row| mixed(row) < end));
        if let Some([_, by_node]) = &bits {
            let run = data.index.range("mixed", 0.0, (end - 1) as f64).unwrap();
            assert_eq!((&set(data.index.len(), run), run.len()), (&by_node.0, by_node.1));
        }
        measure(format!("{name} passes"), &Case { bits, seen: Vec::new() });
    }
    let best = data.truth(2000, &Case { bits: None, seen: Vec::new() });
    for excluded in [200, 2000] {
        let seen = |best: &Vec<u32>| {
            let mut rows: Vec<u32> = best[..excluded].to_vec();
            let mut nodes: Vec<u32> = rows.iter().map(|&row| data.node_of[row as usize]).collect();
            rows.sort_unstable();
            nodes.sort_unstable();
            [rows, nodes]
        };
        measure(format!("the best {excluded} seen"), &Case { bits: None, seen: best.iter().map(seen).collect() });
    }
    group.finish();
}

/// A bitmap of nodes.
fn set(n: usize, nodes: &[u32]) -> Vec<u64> {
    let mut bits = vec![0_u64; n.div_ceil(64)];
    nodes.iter().for_each(|&at| bits[at as usize / 64] |= 1 << (at % 64));
    bits
}

/// The bitmap of a range, from its ends on. Of the items only how many they are matters.
fn ranges(c: &mut Criterion) {
    const ITEMS: usize = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("items.npy");
    let shape = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ITEMS}, 2), }}");
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend_from_slice(format!("{shape:<117}\n").as_bytes());
    npy.extend((0..2 * ITEMS as u64).flat_map(|at| (mixed(at) as f32).to_le_bytes()));
    std::fs::write(&path, npy).unwrap();
    let (items, numbers) = (Vectors::open(&path).unwrap(), numbers(ITEMS));
    let graph = BuildOptions { m: 4, ef_construction: 4, seed: 1 };
    let spec =
        BuildSpec { profile: false, graph, numbers: Some(&numbers), finer: None, ..BuildSpec::new(&items, METRIC) };
    let (index, _) = build(&spec, &folder.path().join("bench.tng"), &|_| ()).unwrap();
    let mut group = c.benchmark_group("bitmap of a range, 1,000,000 items");
    for (name, share) in [("all", 1000_u64), ("50 %", 500), ("10 %", 100), ("1 %", 10), ("0.1 %", 1)] {
        let end = ((share << 32) / 1000 - 1) as f64;
        group.bench_function(name, |b| b.iter(|| set(ITEMS, index.range("mixed", 0.0, end).unwrap())));
    }
    group.finish();
}

criterion_group!(benches, filters, ranges);
criterion_main!(benches);
