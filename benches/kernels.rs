//! Dot products at every level that this processor has: rows named by ids, as a graph walk scores them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use tonnage::kernel;

const ROWS: usize = 4096;
const SCORED: usize = 96;

fn rows(c: &mut Criterion) {
    let ids: Vec<u32> = (0..SCORED as u32).map(|i| i.wrapping_mul(2_654_435_761) % ROWS as u32).collect();
    let mut out = vec![0.0; SCORED];
    for dim in [64, 384] {
        let codes: Vec<i8> = (0..dim * ROWS).map(|i| (i * 37 % 251) as i8).collect();
        let bytes: Vec<u8> = codes.iter().map(|&code| code as u8).collect();
        let floats: Vec<f32> = codes.iter().map(|&code| f32::from(code)).collect();
        let halves: Vec<f16> = floats.iter().map(|&x| f16::from_f32(x)).collect();
        let mut group = c.benchmark_group(format!("{SCORED} rows of {dim}"));
        group.throughput(Throughput::Elements(SCORED as u64)).sample_size(30);
        for kernels in kernel::available() {
            let mut bench = |name: &str, work: &mut dyn FnMut(&mut [f32])| {
                let id = BenchmarkId::new(name, format!("{:?}", kernels.level()));
                group.bench_function(id, |b| b.iter(|| work(&mut out)));
            };
            bench("f32", &mut |out| kernels.rows_f32(&floats[..dim], &floats, &ids, out));
            bench("f16", &mut |out| kernels.rows_f16(&floats[..dim], &halves, &ids, out));
            bench("int8", &mut |out| kernels.rows_i8(&codes[..dim], &codes, &ids, out));
            bench("int4", &mut |out| kernels.rows_i4(&codes[..dim], &bytes, &ids, out));
        }
        group.finish();
    }
}

criterion_group!(benches, rows);
criterion_main!(benches);
