//! Many vectors laid out for scanning: what an index keeps.
//!
//! Integer rows are what a graph is walked on, so they are padded to begin at a cache line or to share one evenly: 16,
//! 32 or a multiple of 64 bytes for `int8`, a multiple of 32 for `int4`. Padding is the code of zero and meets zeros of
//! the query. Float rows, mostly there to score a few candidates again, are not padded. The scales of the integer
//! codecs, and the biases of L2, are arrays of their own.

use half::f16;

use super::{Codec, CodecError, Query, get_int4, max_abs, put_int4, quantize, residual};
use crate::kernel::{self, INT4_BLOCK, Kernels, LINE};

/// Scales or biases, 256 KiB of them, that stay in the cache of a core while walks read rows.
const CACHED_NUMBERS: usize = 1 << 16;

/// The shape of a matrix's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How components become bytes.
    pub codec: Codec,
    /// Dimensions of a vector.
    pub dim: usize,
}

impl Layout {
    /// Bytes from one row to the next.
    pub const fn row_bytes(self) -> usize {
        match (self.codec, self.dim) {
            (Codec::F16, dim) => dim * 2,
            (Codec::F32, dim) => dim * 4,
            (Codec::Int4, dim) => dim.div_ceil(INT4_BLOCK) * (INT4_BLOCK / 2),
            (Codec::Int8, 0..=16) => 16,
            (Codec::Int8, 17..=32) => 32,
            (Codec::Int8, dim) => dim.next_multiple_of(64),
        }
    }

    /// Dimensions of a row with its padding: the length of a query's codes or floats.
    pub const fn padded_dim(self) -> usize {
        match self.codec {
            Codec::Int4 => self.row_bytes() * 2,
            Codec::Int8 => self.row_bytes(),
            Codec::F16 => self.row_bytes() / 2,
            Codec::F32 => self.row_bytes() / 4,
        }
    }

    /// Whether rows have a scale.
    pub const fn has_scales(self) -> bool {
        matches!(self.codec, Codec::Int8 | Codec::Int4)
    }

    /// The scale that a vector's largest component fits: what [`Layout::encode`] would choose.
    pub fn scale_for(self, vector: &[f32]) -> f32 {
        if self.has_scales() { max_abs(vector) / self.codec.levels() } else { 1.0 }
    }

    /// Encodes one vector into one row by a scale of its own and returns the scale (1 for a float codec).
    ///
    /// Panics when `row` is not [`Layout::row_bytes`] long.
    pub fn encode(self, vector: &[f32], row: &mut [u8]) -> Result<f32, CodecError> {
        let scale = self.scale_for(vector);
        self.encode_by(scale, vector, row)?;
        Ok(scale)
    }

    /// Encodes what a row of these codes leaves of the vector it was made of, into a row of `int8`.
    ///
    /// Panics when the layout is not of an integer codec, or a row is of another length than its layout says.
    pub fn encode_residual(self, scale: f32, vector: &[f32], codes: &[u8], residual: &mut [u8]) {
        assert!(self.has_scales() && (vector.len(), codes.len()) == (self.dim, self.row_bytes()));
        assert_eq!(residual.len(), Self { codec: Codec::Int8, ..self }.row_bytes());
        residual.fill(0);
        let padded = self.padded_dim();
        for (at, (&x, out)) in vector.iter().zip(residual).enumerate() {
            let code = if self.codec == Codec::Int4 { get_int4(codes, at, padded) } else { codes[at] as i8 };
            *out = if scale > 0.0 { residual::code_of(x / scale, code) as u8 } else { 0 };
        }
    }

    /// Encodes one vector into one row by a given scale; components beyond its range become the largest code.
    ///
    /// Panics when `row` is not [`Layout::row_bytes`] long.
    pub fn encode_by(self, scale: f32, vector: &[f32], row: &mut [u8]) -> Result<(), CodecError> {
        assert_eq!((vector.len(), row.len()), (self.dim, self.row_bytes()));
        self.codec.check(vector)?;
        row.fill(if self.codec == Codec::Int4 { 0x88 } else { 0 });
        let levels = self.codec.levels();
        match self.codec {
            Codec::F32 => {
                row.as_chunks_mut::<4>().0.iter_mut().zip(vector).for_each(|(out, x)| *out = x.to_le_bytes());
            }
            Codec::F16 => {
                let halves = vector.iter().map(|&x| f16::from_f32(x).to_le_bytes());
                row.as_chunks_mut::<2>().0.iter_mut().zip(halves).for_each(|(out, x)| *out = x);
            }
            Codec::Int8 => quantize(vector, scale, levels, |at, code| row[at] = code as u8),
            Codec::Int4 => {
                let padded = self.padded_dim();
                quantize(vector, scale, levels, |at, code| put_int4(row, at, padded, code));
            }
        }
        Ok(())
    }
}

/// A view of encoded rows.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    layout: Layout,
    /// The layout's, at hand: a walk asks for it at every step.
    row_bytes: usize,
    codes: &'a [u8],
    /// One for all rows, or one a row; empty for float codecs.
    scales: &'a [f32],
    /// Added to each dot product; empty unless the metric is L2.
    biases: &'a [f32],
}

impl<'a> Matrix<'a> {
    /// A view of `codes` with their scales and biases, or `None` when the lengths do not fit together or `codes` does
    /// not lie at a multiple of four bytes.
    pub fn new(layout: Layout, codes: &'a [u8], scales: &'a [f32], biases: &'a [f32]) -> Option<Self> {
        let row_bytes = layout.row_bytes();
        let rows = codes.len() / row_bytes;
        let fits = codes.len().is_multiple_of(row_bytes)
            && if layout.has_scales() { scales.len() == 1 || scales.len() == rows } else { scales.is_empty() }
            && (biases.is_empty() || biases.len() == rows)
            && (codes.is_empty() || codes.as_ptr().addr().is_multiple_of(4));
        fits.then_some(Self { layout, row_bytes, codes, scales, biases })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.codes.len() / self.row_bytes
    }

    /// The shape of a row.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The encoded bytes.
    pub fn codes(&self) -> &'a [u8] {
        self.codes
    }

    /// What is added to the dot product with `row`.
    pub fn bias(&self, row: u32) -> f32 {
        self.biases.get(row as usize).copied().unwrap_or(0.0)
    }

    /// Whether anything is added to dot products.
    pub fn has_biases(&self) -> bool {
        !self.biases.is_empty()
    }

    /// The bytes of one row.
    pub fn row(&self, row: u32) -> &'a [u8] {
        &self.codes[row as usize * self.row_bytes..][..self.row_bytes]
    }

    /// The scale of one row; 1 for float codecs.
    pub fn scale(&self, row: u32) -> f32 {
        let at = if self.scales.len() == 1 { 0 } else { row as usize };
        self.scales.get(at).copied().unwrap_or(1.0)
    }

    /// The vector that a row holds. Panics when there is no such row, or `out` is not the layout's dimensions long.
    pub fn decode(&self, row: u32, out: &mut [f32]) {
        assert_eq!(out.len(), self.layout.dim);
        let (bytes, scale) = (self.row(row), self.scale(row));
        match self.layout.codec {
            Codec::F32 => out.copy_from_slice(&bytemuck::cast_slice(bytes)[..self.layout.dim]),
            Codec::F16 => {
                let halves: &[f16] = bytemuck::cast_slice(bytes);
                out.iter_mut().zip(halves).for_each(|(out, half)| *out = half.to_f32());
            }
            Codec::Int8 | Codec::Int4 => {
                out.iter_mut().enumerate().for_each(|(at, out)| *out = scale * f32::from(self.code(bytes, at)));
            }
        }
    }

    /// One code of a row of an integer codec.
    pub(super) fn code(&self, row: &[u8], at: usize) -> i8 {
        if self.layout.codec == Codec::Int4 { get_int4(row, at, self.layout.padded_dim()) } else { row[at] as i8 }
    }

    /// Asks for all that scoring rows reads, without waiting for it.
    #[inline(always)]
    pub fn prefetch(&self, rows: &[u32]) {
        kernel::prefetch_rows(self.codes, self.row_bytes, rows);
        for numbers in [self.scales, self.biases] {
            if numbers.len() > 1 {
                kernel::prefetch_rows(numbers, 1, rows);
            }
        }
    }

    /// Whether no row lies in two cache lines, and codes are all that scoring rows has to wait for: then
    /// [`Matrix::prefetch_line`] is enough, and a shorter loop.
    #[inline]
    pub fn rows_are_lines(&self) -> bool {
        let stay_in_cache = |numbers: &[f32]| numbers.len() <= CACHED_NUMBERS;
        LINE.is_multiple_of(self.row_bytes) && stay_in_cache(self.scales) && stay_in_cache(self.biases)
    }

    /// Asks for the cache line in which a row begins.
    #[inline(always)]
    pub fn prefetch_line(&self, row: u32) {
        kernel::prefetch_at(self.codes, row as usize * self.row_bytes);
    }

    /// Scores the rows `ids` against a query prepared for this layout: dot product plus bias, larger is better.
    ///
    /// Panics when an id is outside, or `out` is shorter than `ids`.
    pub fn score(&self, kernels: &Kernels, query: &Query, ids: &[u32], out: &mut [f32]) {
        match self.layout.codec {
            Codec::F32 => kernels.rows_f32(query.floats(), bytemuck::cast_slice(self.codes), ids, out),
            Codec::F16 => kernels.rows_f16(query.floats(), bytemuck::cast_slice(self.codes), ids, out),
            Codec::Int8 | Codec::Int4 => self.products(kernels, query.codes(), query.scale(), ids, out),
        }
        if !self.biases.is_empty() {
            for (out, &id) in out.iter_mut().zip(ids) {
                *out += self.biases[id as usize];
            }
        }
    }

    /// The dot products of the rows `ids`, of an integer codec, with the codes of a query.
    pub(super) fn products(&self, kernels: &Kernels, query: &[i8], scale: f32, ids: &[u32], out: &mut [f32]) {
        match self.layout.codec {
            Codec::Int4 => kernels.rows_i4(query, self.codes, ids, out),
            _ => kernels.rows_i8(query, bytemuck::cast_slice(self.codes), ids, out),
        }
        match self.scales {
            [one] => {
                let scale = scale * one;
                out[..ids.len()].iter_mut().for_each(|out| *out *= scale);
            }
            scales => out.iter_mut().zip(ids).for_each(|(out, &id)| *out *= scale * scales[id as usize]),
        }
    }
}
