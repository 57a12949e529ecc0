//! Scanning a million rows of 64 dimensions, the time given for a row and a query: one query on one core, as a request
//! would, then batches on all cores, and one query under filters.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tonnage::codec::{Codec, Layout, Matrix, Query};
use tonnage::graph::{Filter, Scratch, exact};
use tonnage::kernel;

const ROWS: usize = 1_000_000;
const DIM: usize = 64;
const K: usize = 20;

/// The same bytes every time.
fn noise(words: usize) -> Vec<u64> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    (0..words).map(|_| next()).collect()
}

fn queries(layout: Layout, count: usize) -> Vec<Query> {
    let numbers = noise(count * DIM);
    let vector = |words: &[u64]| words.iter().map(|&word| (word >> 40) as f32 - 8_388_608.0).collect::<Vec<_>>();
    let prepare = |words: &[u64]| {
        let mut query = Query::default();
        assert!(query.prepare(layout, &vector(words)).is_ok());
        query
    };
    numbers.chunks(DIM).map(prepare).collect()
}

fn scans(c: &mut Criterion) {
    let codes = noise(ROWS * DIM / 8);
    let scales: Vec<f32> = (0..ROWS).map(|row| 1.0 + (row % 7) as f32 / 100.0).collect();
    let mut group = c.benchmark_group("scan");
    group.sample_size(10);
    for codec in [Codec::Int8, Codec::Int4] {
        let layout = Layout { codec, dim: DIM };
        let bytes = &bytemuck::cast_slice(&codes)[..ROWS * layout.row_bytes()];
        let Some(matrix) = Matrix::new(layout, bytes, &scales, &[]) else { continue };
        let (all, mut scratch, mut found) = (queries(layout, 256), Scratch::default(), Vec::new());
        group.throughput(Throughput::Elements(ROWS as u64));
        group.bench_function(BenchmarkId::new("one query, one core", codec), |b| {
            b.iter(|| exact::best(&matrix, &all[0], K, Filter::default(), &mut scratch, &mut found));
        });
        for one_in in [2, 10, 100, 1000] {
            let mut bits = vec![0_u64; ROWS / 64];
            let picked = noise(bits.len() * 64);
            let rows = (0..bits.len() * 64).filter(|&row| (picked[row] >> 33).is_multiple_of(one_in));
            let passing = rows.map(|row| bits[row / 64] |= 1 << (row % 64)).count();
            let filter = Filter { bits: Some((&bits, passing)), exclude: &[] };
            group.throughput(Throughput::Elements(passing as u64));
            group.bench_function(BenchmarkId::new(format!("one in {one_in} passes"), codec), |b| {
                b.iter(|| exact::best(&matrix, &all[0], K, filter, &mut scratch, &mut found));
            });
        }
        for count in [8, 32, 256] {
            group.throughput(Throughput::Elements((ROWS * count) as u64));
            group.bench_function(BenchmarkId::new(format!("{count} queries, all cores"), codec), |b| {
                b.iter(|| exact::best_many(&matrix, kernel::best(), &all[..count], K, Filter::default()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, scans);
criterion_main!(benches);
