//! Vectors to bytes and back.
//!
//! A *record* is one vector encoded on its own: the codes, then for the integer codecs a `bf16` scale.
//! `int4` packs two codes in a byte; see `docs/wire-format.md`.

use serde::{Deserialize, Serialize};

/// How a vector becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// 4 bytes a dimension, exact.
    F32,
    /// 2 bytes a dimension.
    F16,
    /// 1 byte a dimension and one scale a vector.
    Int8,
    /// Half a byte a dimension and one scale a vector.
    Int4,
}

impl Codec {
    /// Bytes of one record of `dim` dimensions.
    pub const fn bytes_per_vector(self, dim: usize) -> usize {
        match self {
            Self::F32 => dim * 4,
            Self::F16 => dim * 2,
            Self::Int8 => dim + 2,
            Self::Int4 => dim.div_ceil(2) + 2,
        }
    }
}
