//! Vectors to bytes and back.
//!
//! There are three forms. A *record* ([`record`]) is one vector on its own, as small as it gets: the codes, then for the
//! integer codecs a `bf16` scale; this is what a store keeps for a user. A *matrix* ([`matrix`]) is many vectors laid
//! out for scanning: rows of integer codes padded to whole cache lines or even parts of one, float rows not padded, `f32`
//! scales aside; this is what an index keeps. A *residual* ([`residual`]) is what integer codes leave of a vector, as
//! codes again; an index keeps it beside a matrix to score the best by.
//!
//! Integer codecs hold `x ≈ scale · code`, codes within ±127 (`int8`) or ±7 (`int4`). A record has a scale of its own. A
//! matrix has one a row, or one for all rows where something finer is kept to score by and the rows are alike enough:
//! scored by their codes alone, vectors with one scale for all lost up to 24 points of recall; walked by them and scored
//! again, none. `docs/codecs.md` has the figures, the rule, and why there is neither centring nor rotation.

mod many;
pub mod matrix;
pub mod metric;
pub mod query;
pub mod record;
pub mod residual;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use many::Many;
pub use matrix::{Layout, Matrix};
pub use metric::Metric;
pub use query::Query;

use crate::kernel;

/// Components beyond this are refused: their dot products could leave the range of `f32`.
pub const MAX_COMPONENT: f32 = 1e15;

/// How a vector becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Half a byte a dimension, and a scale.
    Int4,
    /// 1 byte a dimension, and a scale.
    Int8,
    /// 2 bytes a dimension.
    F16,
    /// 4 bytes a dimension, exact.
    F32,
}

impl Codec {
    /// All of them, the smallest first.
    pub const ALL: [Self; 4] = [Self::Int4, Self::Int8, Self::F16, Self::F32];

    /// Bytes of one record of `dim` dimensions.
    pub const fn bytes_per_vector(self, dim: usize) -> usize {
        match self {
            Self::F32 => dim * 4,
            Self::F16 => dim * 2,
            Self::Int8 => dim + 2,
            Self::Int4 => kernel::int4_bytes(dim) + 2,
        }
    }

    /// The name in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// The largest component that this codec can hold.
    pub const fn max_component(self) -> f32 {
        match self {
            Self::F16 => 65504.0,
            _ => MAX_COMPONENT,
        }
    }

    /// Refuses a vector that this codec cannot hold.
    pub fn check(self, vector: &[f32]) -> Result<(), CodecError> {
        let max = self.max_component();
        // NaN fails the comparison, so one test finds all that is wrong; without a branch, as nearly all are right.
        if vector.iter().fold(true, |right, x| right & (x.abs() <= max)) {
            return Ok(());
        }
        match vector.iter().position(|x| !matches!(x.abs().partial_cmp(&max), Some(order) if order.is_le())) {
            None => Ok(()),
            Some(column) => Err(CodecError::Component { codec: self, column, got: vector[column], max }),
        }
    }

    /// The largest code of an integer codec.
    const fn levels(self) -> f32 {
        if matches!(self, Self::Int4) { 7.0 } else { 127.0 }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = CodecError;
    fn from_str(name: &str) -> Result<Self, CodecError> {
        let known = Self::ALL.into_iter().find(|codec| codec.name() == name);
        known.ok_or_else(|| CodecError::Name { got: name.to_owned() })
    }
}

/// Why a vector could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A component that is not finite or too large.
    #[error("column {column} is {got}: {codec} holds finite values within ±{max}; rescale the vectors or choose f32")]
    Component {
        /// The codec asked for.
        codec: Codec,
        /// Place in the vector.
        column: usize,
        /// What stood there.
        got: f32,
        /// The largest magnitude that would do.
        max: f32,
    },
    /// A record of another length than its codec and dimensions make.
    #[error("expected a {codec} record of {expected} bytes, got {got}: was it published for another model?")]
    Length {
        /// The codec asked for.
        codec: Codec,
        /// Bytes that it takes.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// A record whose numbers are not finite.
    #[error("the {codec} record holds a number that is not finite: it is damaged, publish it again")]
    Damaged {
        /// The codec asked for.
        codec: Codec,
    },
    /// A codec that does not exist.
    #[error("unknown codec {got:?}: expected f32, f16, int8 or int4")]
    Name {
        /// What was given.
        got: String,
    },
}

/// Quantizes `vector` with the given scale into codes within `±levels`; a zero scale makes zeros.
fn quantize(vector: &[f32], scale: f32, levels: f32, mut put: impl FnMut(usize, i8)) {
    for (at, &x) in vector.iter().enumerate() {
        put(at, if scale > 0.0 { round(x / scale, levels) } else { 0 });
    }
}

/// The nearest integer, ties to even, within `±levels`, which is at most 127.
///
/// Adding 1.5 · 2^23 leaves no room for a fraction, so the addition rounds, and the low byte of the sum is the integer.
/// `round_ties_even` would be a call of libm for each component wherever the compiler may not use SSE 4.1, and a
/// conversion that saturates would keep the loop from being vectorized.
#[inline(always)]
fn round(x: f32, levels: f32) -> i8 {
    (x.clamp(-levels, levels) + 12_582_912.0).to_bits() as i8
}

/// The largest magnitude in a vector.
fn max_abs(vector: &[f32]) -> f32 {
    // In lanes, since the compiler may not reorder a maximum that knows about NaN.
    let larger = |max: f32, x: f32| if x.abs() > max { x.abs() } else { max };
    let (chunks, rest) = vector.as_chunks::<16>();
    let mut lanes = [0.0; 16];
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(max, &x)| *max = larger(*max, x));
    }
    lanes.iter().chain(rest).fold(0.0, |max, &x| larger(max, x))
}

/// Byte and nibble (0 low, 1 high) of dimension `at` in a packed `int4` row of `dim` dimensions.
const fn int4_place(at: usize, dim: usize) -> (usize, u32) {
    let block = at / kernel::INT4_BLOCK;
    let left = dim - block * kernel::INT4_BLOCK;
    let half = if left >= kernel::INT4_BLOCK { kernel::INT4_BLOCK / 2 } else { left.div_ceil(2) };
    let within = at % kernel::INT4_BLOCK;
    let byte = block * (kernel::INT4_BLOCK / 2) + within % half;
    (byte, (within / half) as u32)
}

/// Writes one code of a packed row.
fn put_int4(row: &mut [u8], at: usize, dim: usize, code: i8) {
    let (byte, nibble) = int4_place(at, dim);
    let shift = 4 * nibble;
    row[byte] = row[byte] & !(15 << shift) | (((code + 8) as u8) << shift);
}

/// Reads one code of a packed row.
fn get_int4(row: &[u8], at: usize, dim: usize) -> i8 {
    let (byte, nibble) = int4_place(at, dim);
    ((row[byte] >> (4 * nibble)) & 15) as i8 - 8
}
