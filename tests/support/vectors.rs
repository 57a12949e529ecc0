//! Small made-up data, written the way a trainer leaves it.

use std::fmt::Write as _;
use std::path::Path;

/// Numbers around 0 that are the same on every machine: the sum of four even draws, which is nearly normal.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut even = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..4).map(|_| even()).sum()).collect()
}

/// Writes a matrix of `f32` as `.npy`, version 1.0.
pub fn write_npy(path: &Path, values: &[f32], dim: usize) {
    let shape = format!("({}, {dim})", values.len() / dim);
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let pad = 64 - (10 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(pad));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

/// Writes `prefix-0`, `prefix-1` and so on, one a line.
pub fn write_ids(path: &Path, prefix: &str, count: usize) {
    let mut text = String::new();
    for row in 0..count {
        writeln!(text, "{prefix}-{row}").unwrap();
    }
    std::fs::write(path, text).unwrap();
}
