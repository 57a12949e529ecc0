//! Numbers: dot products on slices, and the few vector operations of the search pool.
//!
//! Everything here exists once as plain Rust in [`scalar`], which *defines* what is right, and again for
//! AVX2+FMA+F16C, AVX-512 with VNNI, and NEON. The best level that the processor has is picked once per process
//! ([`best`]); [`at`] gives any other that it has, so that tests judge every level against the scalar one.
//!
//! Integer kernels are exact. `int8 · int8` sums at most `d · 2^14` in magnitude (the AVX-512 form up to
//! `d · 255 · 128`), so an `i32` holds every sum of up to [`MAX_DIM`] dimensions. Float kernels add in another
//! order than the scalar one: for `d` dimensions the results differ by at most `d · 2^-23 · Σ|a_i·b_i|`, in practice
//! a few units in the last place.
//!
//! Shapes: *one against one* takes two slices of equal length. *Many rows* (`rows_*`) takes one query and a
//! row-major matrix whose stride is the query's length, scores the rows named by `ids`, and writes one `f32` for
//! each; this is what a graph traversal does at every step. *Many queries* (`many_*`) does so for a batch of queries.

mod many;
pub mod scalar;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

use half::f16;

pub use many::{PANEL, Panel, Queries};

/// The most dimensions a vector may have: below it no `i32` sum can overflow, in any kernel.
pub const MAX_DIM: usize = 32_768;

/// Codes of `int4` are packed in blocks: byte `j` of a block of 64 dimensions holds dimension `j` in its low nibble
/// and dimension `j + 32` in its high one, each as `code + 8`.
pub const INT4_BLOCK: usize = 64;

/// Columns that [`Kernels::best_of_columns`] tells apart.
pub const COLUMNS: usize = 16;

/// A set of instructions that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, VL and VNNI.
    Avx512,
    /// The vector unit of AArch64.
    Neon,
}

/// The kernels of one level, behind plain function pointers.
///
/// The pointers are private: the methods check the lengths that the pointers rely on.
#[derive(Debug)]
#[expect(clippy::type_complexity, reason = "the shapes of the kernels, side by side")]
pub struct Kernels {
    level: Level,
    dot_f32: unsafe fn(&[f32], &[f32]) -> f32,
    dot_f16: unsafe fn(&[f16], &[f32]) -> f32,
    dot_i8: unsafe fn(&[i8], &[i8]) -> i32,
    dot_i4: unsafe fn(&[u8], &[i8]) -> i32,
    rows_f32: unsafe fn(&[f32], &[f32], &[u32], &mut [f32]),
    rows_f16: unsafe fn(&[f32], &[f16], &[u32], &mut [f32]),
    rows_i8: unsafe fn(&[i8], &[i8], &[u32], &mut [f32]),
    rows_i4: unsafe fn(&[i8], &[u8], &[u32], &mut [f32]),
    many_i8: unsafe fn(&Queries, &[i8], &[u32], &mut Panel, &mut [f32]),
    many_i4: unsafe fn(&Queries, &[u8], &[u32], &mut Panel, &mut [f32]),
    rescale: unsafe fn(f32, &[f32], &[f32], f32, &mut [f32]) -> u64,
    max_id: unsafe fn(&[u32]) -> u32,
    argmax: unsafe fn(&[f32]) -> usize,
    best_of_columns: unsafe fn(&[f32], usize, &mut [u32; COLUMNS]) -> usize,
    append_above: unsafe fn(f32, &[u32], &[f32], &mut [u32], &mut [f32]) -> usize,
    count_above: unsafe fn(f32, &[f32]) -> usize,
}

/// The best kernels that this processor has; chosen at the first call.
pub fn best() -> &'static Kernels {
    static BEST: OnceLock<&'static Kernels> = OnceLock::new();
    BEST.get_or_init(|| available().last().copied().unwrap_or(&scalar::KERNELS))
}

/// The kernels of one level, if this processor has it.
pub fn at(level: Level) -> Option<&'static Kernels> {
    available().into_iter().find(|kernels| kernels.level == level)
}

/// Every level that this processor has, the best last.
pub fn available() -> Vec<&'static Kernels> {
    let mut levels = vec![&scalar::KERNELS];
    #[cfg(target_arch = "x86_64")]
    levels.extend(x86::available());
    #[cfg(target_arch = "aarch64")]
    levels.push(&neon::KERNELS); // NEON is part of every AArch64
    levels
}

/// Bytes of an `int4` row of `dim` dimensions.
pub const fn int4_bytes(dim: usize) -> usize {
    dim / INT4_BLOCK * (INT4_BLOCK / 2) + (dim % INT4_BLOCK).div_ceil(2)
}

impl Kernels {
    /// Which level these are.
    pub fn level(&self) -> Level {
        self.level
    }

    /// `Σ a_i · b_i`. Panics when the lengths differ.
    pub fn dot_f32(&self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        // SAFETY: equal lengths, and the level was detected when this table was handed out.
        unsafe { (self.dot_f32)(a, b) }
    }

    /// `Σ row_i · query_i` of a half precision row. Panics when the lengths differ.
    pub fn dot_f16(&self, row: &[f16], query: &[f32]) -> f32 {
        assert_eq!(row.len(), query.len());
        // SAFETY: as above.
        unsafe { (self.dot_f16)(row, query) }
    }

    /// `Σ a_i · b_i`, exact. Panics when the lengths differ or exceed [`MAX_DIM`].
    pub fn dot_i8(&self, a: &[i8], b: &[i8]) -> i32 {
        assert_eq!(a.len(), b.len());
        assert!(a.len() <= MAX_DIM);
        // SAFETY: as above, and no sum can overflow.
        unsafe { (self.dot_i8)(a, b) }
    }

    /// `Σ row_i · query_i` of a packed `int4` row, exact. Panics when the row is not [`int4_bytes`] long.
    pub fn dot_i4(&self, row: &[u8], query: &[i8]) -> i32 {
        assert_eq!(row.len(), int4_bytes(query.len()));
        assert!(query.len() <= MAX_DIM);
        // SAFETY: as above.
        unsafe { (self.dot_i4)(row, query) }
    }

    /// Scores the rows `ids` of a matrix of `f32`.
    pub fn rows_f32(&self, query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
        self.check_rows(query.len(), rows.len(), ids, out);
        // SAFETY: every id names a row inside `rows`, and there is a place in `out` for each.
        unsafe { (self.rows_f32)(query, rows, ids, out) }
    }

    /// Scores the rows `ids` of a matrix of `f16`.
    pub fn rows_f16(&self, query: &[f32], rows: &[f16], ids: &[u32], out: &mut [f32]) {
        self.check_rows(query.len(), rows.len(), ids, out);
        // SAFETY: as above.
        unsafe { (self.rows_f16)(query, rows, ids, out) }
    }

    /// Scores the rows `ids` of a matrix of `int8`. The sums are exact for query codes within ±127; as `f32` they are
    /// rounded beyond 2^24.
    pub fn rows_i8(&self, query: &[i8], rows: &[i8], ids: &[u32], out: &mut [f32]) {
        assert!(query.len() <= MAX_DIM);
        self.check_rows(query.len(), rows.len(), ids, out);
        // SAFETY: as above.
        unsafe { (self.rows_i8)(query, rows, ids, out) }
    }

    /// Scores the rows `ids` of a matrix of packed `int4`. The query's length is a multiple of [`INT4_BLOCK`].
    pub fn rows_i4(&self, query: &[i8], rows: &[u8], ids: &[u32], out: &mut [f32]) {
        assert!(query.len() <= MAX_DIM && query.len().is_multiple_of(INT4_BLOCK));
        self.check_rows(query.len() / 2, rows.len(), ids, out);
        // SAFETY: as above.
        unsafe { (self.rows_i4)(query, rows, ids, out) }
    }

    /// Scores the rows `ids`, at most [`PANEL`], of a matrix of `int8` against many queries, as [`Kernels::rows_i8`]
    /// does for each: the products with query `q` are `out[q * PANEL..][..ids.len()]`. The panel is a buffer.
    pub fn many_i8(&self, queries: &Queries, rows: &[i8], ids: &[u32], panel: &mut Panel, out: &mut [f32]) {
        if self.check_many(queries, queries.dim(), rows.len(), ids, out) {
            // SAFETY: as above, and there is a query and an id.
            unsafe { (self.many_i8)(queries, rows, ids, panel, out) }
        }
    }

    /// As [`Kernels::many_i8`] for packed `int4`, of a length that is a multiple of [`INT4_BLOCK`].
    pub fn many_i4(&self, queries: &Queries, rows: &[u8], ids: &[u32], panel: &mut Panel, out: &mut [f32]) {
        assert!(queries.dim().is_multiple_of(INT4_BLOCK));
        if self.check_many(queries, queries.dim() / 2, rows.len(), ids, out) {
            // SAFETY: as above.
            unsafe { (self.many_i4)(queries, rows, ids, panel, out) }
        }
    }

    /// What the `many_*` kernels rely on; whether there is anything to score.
    fn check_many(&self, queries: &Queries, stride: usize, elements: usize, ids: &[u32], out: &[f32]) -> bool {
        assert!(queries.dim() <= MAX_DIM && ids.len() <= PANEL && out.len() >= queries.len() * PANEL);
        let some = !(queries.is_empty() || ids.is_empty());
        if some {
            self.check_rows(stride, elements, ids, out);
        }
        some
    }

    /// Makes the products of up to [`PANEL`] rows scores, `product · (scale · factor) + bias`, with a factor for each
    /// and a bias for each or none, and returns which are above `floor`, the first in the lowest bit.
    pub fn rescale(&self, scale: f32, factors: &[f32], biases: &[f32], floor: f32, products: &mut [f32]) -> u64 {
        assert!(products.len() <= PANEL && factors.len() == products.len());
        assert!(biases.is_empty() || biases.len() == products.len());
        // SAFETY: lengths checked.
        unsafe { (self.rescale)(scale, factors, biases, floor, products) }
    }

    /// What the `rows_*` kernels rely on: `stride` elements a row, every id inside, room for every score.
    #[inline]
    fn check_rows(&self, stride: usize, elements: usize, ids: &[u32], out: &[f32]) {
        assert!(stride > 0 && out.len() >= ids.len());
        // SAFETY: no conditions.
        let top = unsafe { (self.max_id)(ids) };
        // Multiplied, as a walk is here at every turn and a division takes longer.
        let inside = (u64::from(top) + 1) * stride as u64 <= elements as u64;
        assert!(ids.is_empty() || inside, "row {top} of {}", elements / stride);
    }

    /// Position of the largest value, the first of equals. Panics on an empty slice; values must not be NaN.
    pub fn argmax(&self, values: &[f32]) -> usize {
        assert!(!values.is_empty());
        // SAFETY: not empty.
        let at = unsafe { (self.argmax)(values) };
        at.min(values.len() - 1) // NaN, which never comes, must not lead outside
    }

    /// Positions of about the best `width` values, at most [`COLUMNS`], and how many: a column is every sixteenth value,
    /// and what is found are the best of those that are best in their columns. So one pass finds them, however many, and
    /// the very best is always among them. Minus infinity never is; values must not be NaN.
    pub fn best_of_columns(&self, values: &[f32], width: usize, out: &mut [u32; COLUMNS]) -> usize {
        // SAFETY: no conditions.
        unsafe { (self.best_of_columns)(values, width.min(COLUMNS), out) }
    }

    /// Appends each `(id, score)` with `score > floor` to `out_ids` and `out_scores`, in order, and returns how
    /// many. The outputs must have room for all of them, and nothing beyond what is returned may be read.
    pub fn append_above(
        &self,
        floor: f32,
        ids: &[u32],
        scores: &[f32],
        out_ids: &mut [u32],
        out_scores: &mut [f32],
    ) -> usize {
        assert_eq!(ids.len(), scores.len());
        assert!(out_ids.len() >= ids.len() && out_scores.len() >= ids.len());
        // SAFETY: lengths checked.
        unsafe { (self.append_above)(floor, ids, scores, out_ids, out_scores) }
    }

    /// How many values are above `floor`.
    pub fn count_above(&self, floor: f32, values: &[f32]) -> usize {
        // SAFETY: no conditions.
        unsafe { (self.count_above)(floor, values) }
    }
}

/// Asks for the cache lines of `values` without waiting for them.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    let start = values.as_ptr().addr() & !(LINE - 1);
    let end = values.as_ptr().addr() + size_of_val(values);
    for line in (start..end).step_by(LINE) {
        prefetch_line(values.as_ptr().cast::<u8>().with_addr(line));
    }
}

/// Asks for the rows `ids` of a matrix whose rows are `stride` values long, without waiting for them. An id that is no
/// row's does no harm: a prefetch of any address reads nothing.
#[inline(always)]
pub fn prefetch_rows<T>(values: &[T], stride: usize, ids: &[u32]) {
    let (first, bytes) = (values.as_ptr().cast::<u8>(), stride * size_of::<T>());
    // Rows that share a line evenly, or are whole halves of lines, lie in no more lines than their length needs.
    let even = LINE.is_multiple_of(bytes) || bytes.is_multiple_of(LINE / 2);
    for &id in ids {
        let row = first.wrapping_add(id as usize * bytes);
        prefetch_line(row);
        (LINE..bytes).step_by(LINE).for_each(|at| prefetch_line(row.wrapping_add(at)));
        if !even {
            prefetch_line(row.wrapping_add(bytes - 1));
        }
    }
}

/// Asks for the cache line of the byte `at` of `values`, without waiting for it. Beyond them it does no harm.
#[inline(always)]
pub fn prefetch_at(values: &[u8], at: usize) {
    prefetch_line(values.as_ptr().wrapping_add(at));
}

/// Bytes that memory is fetched by.
pub const LINE: usize = 64;

#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn prefetch_line(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch of any address reads nothing that a program can see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[inline(always)]
#[cfg(target_arch = "aarch64")]
fn prefetch_line(line: *const u8) {
    // SAFETY: as for x86-64.
    unsafe { std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) line, options(nostack, readonly, preserves_flags)) };
}

#[inline(always)]
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn prefetch_line(_: *const u8) {}

#[cfg(test)]
mod tests;
