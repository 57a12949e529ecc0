//! What `tools/peers` hands to benches: `.npy` files, read whole.

use std::path::Path;

use tonnage::input::Vectors;

/// The rows of a file of vectors.
pub fn vectors(path: &Path) -> Vec<Vec<f32>> {
    let vectors = Vectors::open(path).unwrap();
    let mut all = vec![0.0; vectors.rows() * vectors.dim()];
    vectors.read(0, &mut all).unwrap();
    all.chunks(vectors.dim()).map(<[f32]>::to_vec).collect()
}

/// The rows of a two-dimensional `.npy` of little-endian `i32`, none negative.
pub fn row_numbers(path: &Path) -> Vec<Vec<u64>> {
    let (bytes, shape) = numbers(path, "<i4");
    let rows: Vec<u64> = bytes.as_chunks::<4>().0.iter().map(|&row| i32::from_le_bytes(row) as u64).collect();
    rows.chunks(shape[1]).map(<[u64]>::to_vec).collect()
}

/// The numbers of a `.npy` of a type, as bytes, and its shape.
pub fn numbers(path: &Path, of: &str) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    assert!(header.contains(&format!("'{of}'")) && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape = shape.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    (bytes.split_off(start), shape)
}
