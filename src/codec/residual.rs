//! What integer codes leave of a vector, as codes again: together they hold it to 12 or 16 bits.
//!
//! With `x ≈ S · c` the rest is at most half a step, so that `x ≈ S · (c + r / 254)` with `r` within ±127, and no scale
//! of its own is needed. A query is taken apart the same way, `q ≈ s · (c' + r' / 254)`, and the product of the two is
//! what the walk has computed already and two corrections by the same integer kernels:
//!
//! `q · x ≈ S s (c · c') + S s (c · r' + r · c') / 254`
//!
//! The fourth term, `r · r' / 254²`, is below what is left of the others. This takes half the bytes of `f16` beside
//! the codes and keeps more: `f16` rounds to 11 bits of each component, `int8` and its rest to 16 of the largest.

use super::{Matrix, Query, round};
use crate::kernel::Kernels;

/// Steps of a residual in one step of the codes.
pub const STEPS: f32 = 254.0;

/// The code of what `code` leaves of `x`, both in steps of the codes.
#[inline(always)]
pub(super) fn code_of(x: f32, code: i8) -> i8 {
    round((x - f32::from(code)) * STEPS, 127.0)
}

/// Makes the scores that `codes` gave to its rows `ids` those of the codes and their residuals. `spare` is a buffer.
///
/// Panics when an id is outside, or `scores` is shorter than `ids`.
pub fn refine(
    codes: &Matrix,
    residuals: &Matrix,
    kernels: &Kernels,
    query: &Query,
    ids: &[u32],
    scores: &mut [f32],
    spare: &mut Vec<f32>,
) {
    spare.resize(ids.len().max(spare.len()), 0.0);
    // Rows of `int4` may be padded to more dimensions than those of their residuals.
    let padded = &query.codes()[..residuals.layout().padded_dim()];
    residuals.products(kernels, padded, query.scale() / STEPS, ids, spare);
    scores.iter_mut().zip(&spare[..ids.len()]).for_each(|(score, rest)| *score += rest);
    if !query.rest().is_empty() {
        codes.products(kernels, query.rest(), query.scale() / STEPS, ids, spare);
        scores.iter_mut().zip(&spare[..ids.len()]).for_each(|(score, rest)| *score += rest);
    }
}
