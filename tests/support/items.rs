//! Vectors drawn from a seed, the same on every machine, and what is needed to build an index of them.
#![allow(dead_code, clippy::unwrap_used, reason = "each includer uses a part; a helper fails by panicking")]

use std::path::Path;

use tonnage::catalog::BuildSpec;
use tonnage::codec::{Codec, Metric};
use tonnage::graph::BuildOptions;
use tonnage::input::{Numbers, Tags, Vectors};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// From 0 to 1.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// About normal. A sum, and no logarithm, of which the last bit differs between machines.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

/// Writes a matrix as `.npy` and opens it.
pub fn vectors(folder: &Path, name: &str, dim: usize, values: &[f32]) -> Vectors {
    let shape = format!("({}, {dim})", values.len() / dim);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend_from_slice(format!("{header:<117}\n").as_bytes());
    bytes.extend_from_slice(bytemuck::cast_slice(values));
    let path = folder.join(format!("{name}.npy"));
    std::fs::write(&path, bytes).unwrap();
    Vectors::open(&path).unwrap()
}

/// Tags as [`tonnage::input::read_tags`] would leave them: names ascending.
pub fn tags(all: &[(&str, &[u32])]) -> Tags {
    Tags {
        names: all.iter().map(|(name, _)| (*name).to_owned()).collect(),
        rows: all.iter().map(|(_, rows)| rows.to_vec()).collect(),
    }
}

/// Numbers as [`tonnage::input::read_numbers`] would leave them: names and rows ascending.
pub fn numbers(all: &[(&str, &[(u32, f64)])]) -> Numbers {
    Numbers {
        fields: all.iter().map(|(name, _)| (*name).to_owned()).collect(),
        values: all.iter().map(|(_, values)| values.to_vec()).collect(),
    }
}

/// `int8` scored again by `f16`, under inner product, of `items` alone and without a profile.
pub fn spec(items: &Vectors) -> BuildSpec<'_> {
    BuildSpec {
        finer: Some(Codec::F16),
        graph: BuildOptions { m: 16, ef_construction: 100, seed: 1 },
        release: "test",
        profile: false,
        ..BuildSpec::new(items, Metric::Dot)
    }
}
