//! Where the rows of a matrix stand in a file, and how their numbers are spelled.
//!
//! Every vector format comes down to this one shape: equal strides from a start, each with an optional prefix.

use half::{bf16, f16};

use super::InputError;
use super::disk::Disk;

/// The longest vector accepted. The longest embeddings in use are a few thousand long; a larger number is
/// almost always a matrix stored on its side.
pub const MAX_DIM: usize = 1 << 16;

/// How one number is stored. Little-endian, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    Bf16,
    F64,
}

impl Element {
    pub(super) fn bytes(self) -> usize {
        match self {
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
        }
    }

    /// Decodes `out.len()` numbers. An f64 too large for f32 becomes an infinity, which the caller refuses.
    pub(super) fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Element::F32 => spell(bytes, out, f32::from_le_bytes),
            Element::F16 => spell(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Element::Bf16 => spell(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Element::F64 => spell(bytes, out, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

fn spell<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = number(*bytes);
    }
}

/// The place of a matrix in a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// First byte of row 0.
    pub(super) start: u64,
    /// Bytes before the numbers of each row: 4 in fvecs, where they repeat `dim`; else 0.
    pub(super) prefix: usize,
    pub(super) element: Element,
    pub(super) rows: usize,
    pub(super) dim: usize,
}

impl Layout {
    /// Bytes from one row to the next.
    pub(super) fn stride(&self) -> usize {
        self.prefix + self.dim * self.element.bytes()
    }

    /// A layout without prefixes, its shape checked against the bytes that should hold it.
    pub(super) fn dense(
        disk: &Disk,
        start: u64,
        shape: (u64, u64),
        element: Element,
        end: u64,
    ) -> Result<Self, InputError> {
        let (rows, dim) = check_shape(disk, shape)?;
        let layout = Layout { start, prefix: 0, element, rows, dim };
        // Fits u64: rows < 2^32 and the stride is at most 2^19.
        let expected = start + rows as u64 * layout.stride() as u64;
        if expected != end || end > disk.len() {
            return Err(InputError::format(
                disk.path(),
                format!("{rows} rows of {dim} {element:?} to end at byte {expected}"),
                format!("an end at byte {}", end.min(disk.len())),
                "the file is truncated or has bytes left over: write it again",
            ));
        }
        Ok(layout)
    }
}

/// Refuses shapes that no matrix of embeddings has.
pub(super) fn check_shape(disk: &Disk, (rows, dim): (u64, u64)) -> Result<(usize, usize), InputError> {
    if rows == 0 || rows > u64::from(u32::MAX) || dim == 0 || dim > MAX_DIM as u64 {
        return Err(InputError::format(
            disk.path(),
            format!("1 to {} rows of 1 to {MAX_DIM} values", u32::MAX),
            format!("{rows} rows of {dim}"),
            "check that the export was not empty and that rows are items, not dimensions",
        ));
    }
    Ok((rows as usize, dim as usize))
}
