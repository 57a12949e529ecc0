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

/// The vector that a row and its residual hold together.
///
/// Panics when there is no such row, or `out` is not the layout's dimensions long.
pub fn decode(codes: &Matrix, residuals: &Matrix, row: u32, out: &mut [f32]) {
    assert_eq!((out.len(), out.len()), (codes.layout().dim, residuals.layout().dim));
    let (bytes, rests, scale) = (codes.row(row), residuals.row(row), codes.scale(row));
    for (at, out) in out.iter_mut().enumerate() {
        *out = scale * (f32::from(codes.code(bytes, at)) + f32::from(rests[at] as i8) / STEPS);
    }
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
    let spare = &mut spare[..ids.len()];
    let mut add = |rows: &Matrix, query_codes: &[i8]| {
        rows.products(kernels, query_codes, query.scale() / STEPS, ids, spare);
        scores.iter_mut().zip(&*spare).for_each(|(score, rest)| *score += rest);
    };
    // The codes first: a walk has just read them, while residuals may still be on their way.
    if !query.rest().is_empty() {
        add(codes, query.rest());
    }
    // Rows of `int4` may be padded to more dimensions than those of their residuals.
    add(residuals, &query.codes()[..residuals.layout().padded_dim()]);
}

#[cfg(test)]
mod tests {
    use super::super::{Codec, Layout, record};
    use super::*;
    use crate::kernel;
    use proptest::prelude::*;

    /// Rows, their residuals, and one scale for all or one a row.
    struct Rows {
        layout: Layout,
        codes: Vec<u64>,
        rests: Vec<u64>,
        scales: Vec<f32>,
        n: usize,
    }

    impl Rows {
        fn new(codec: Codec, vectors: &[Vec<f32>], shared: bool) -> Self {
            let (layout, n) = (Layout { codec, dim: vectors[0].len() }, vectors.len());
            let finer = Layout { codec: Codec::Int8, ..layout };
            let words = |layout: Layout| vec![0_u64; (n * layout.row_bytes()).div_ceil(8)];
            let mut made = Self { layout, codes: words(layout), rests: words(finer), scales: Vec::new(), n };
            let codes = bytemuck::cast_slice_mut::<u64, u8>(&mut made.codes).chunks_mut(layout.row_bytes());
            let rests = bytemuck::cast_slice_mut::<u64, u8>(&mut made.rests).chunks_mut(finer.row_bytes());
            let all = layout.scale_for(&vectors.concat());
            for ((vector, codes), rest) in vectors.iter().zip(codes).zip(rests) {
                let scale = if shared { all } else { layout.scale_for(vector) };
                layout.encode_by(scale, vector, codes).unwrap();
                layout.encode_residual(scale, vector, codes, rest);
                made.scales.push(scale);
            }
            made.scales.truncate(if shared { 1 } else { n });
            made
        }

        fn matrix(&self, words: &[u64], layout: Layout, scores: impl FnOnce(&Matrix)) {
            let bytes = &bytemuck::cast_slice(words)[..self.n * layout.row_bytes()];
            scores(&Matrix::new(layout, bytes, &self.scales, &[]).unwrap());
        }

        /// Scores of all rows by their codes alone, and by codes and residuals.
        fn scores(&self, kernels: &Kernels, query: &Query) -> (Vec<f32>, Vec<f32>) {
            let ids: Vec<u32> = (0..self.n as u32).collect();
            let (mut coarse, mut fine) = (vec![0.0; self.n], Vec::new());
            self.matrix(&self.codes, self.layout, |codes| {
                codes.score(kernels, query, &ids, &mut coarse);
                fine.clone_from(&coarse);
                self.matrix(&self.rests, Layout { codec: Codec::Int8, ..self.layout }, |rests| {
                    refine(codes, rests, kernels, query, &ids, &mut fine, &mut Vec::new());
                });
            });
            (coarse, fine)
        }
    }

    fn exact(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }

    fn sum(vector: &[f32]) -> f64 {
        vector.iter().map(|&x| f64::from(x.abs())).sum()
    }

    /// How far a refined score may be off: half a step of each residual by the other side, and the term left out.
    fn bound(scale: f32, vector: &[f32], query_scale: f32, query: &[f32], rest: bool) -> f64 {
        let steps = f64::from(STEPS);
        let (step, query_step) = (f64::from(scale) / steps, f64::from(query_scale) / if rest { steps } else { 1.0 });
        let dim = vector.len() as f64;
        let left_out = if rest { dim * 127.0 * 127.0 * step * query_step } else { 0.0 };
        let slack = 1e-6 * vector.iter().zip(query).map(|(x, y)| f64::from((x * y).abs())).sum::<f64>();
        0.51 * (step * sum(query) + query_step * sum(vector) + step * query_step * dim) + left_out + slack
    }

    fn vectors(seed: &[f32], dim: usize, spread: i32) -> Vec<Vec<f32>> {
        let norm = |at: usize| 2_f32.powi(at as i32 % 4 * spread - 3);
        seed.chunks(seed.len() / 6).enumerate().map(|(at, x)| x[..dim].iter().map(|x| x * norm(at)).collect()).collect()
    }

    proptest! {
        #[test]
        fn refined_scores_are_dot_products_within_half_a_step_of_the_residuals(
            dim in 1_usize..200, seed in prop::collection::vec(-1_f32..1.0, 200 * 6), spread in 0_i32..4
        ) {
            let vectors = vectors(&seed, dim, spread);
            let (query, items) = vectors.split_first().unwrap();
            for (codec, shared) in [(Codec::Int8, false), (Codec::Int8, true), (Codec::Int4, false), (Codec::Int4, true)] {
                let rows = Rows::new(codec, items, shared);
                let mut prepared = Query::default();
                prepared.prepare(rows.layout, query).unwrap();
                for kernels in kernel::available() {
                    let (_, fine) = rows.scores(kernels, &prepared);
                    for ((item, got), at) in items.iter().zip(fine).zip(0..) {
                        let scale = *rows.scales.get(at).unwrap_or(&rows.scales[0]);
                        let (want, most) = (exact(item, query), bound(scale, item, prepared.scale(), query, true));
                        prop_assert!((f64::from(got) - want).abs() <= most, "{codec}: {got} for {want} within {most}");
                    }
                }
            }
        }

        #[test]
        fn a_stored_user_has_no_rest_and_is_refined_by_the_rows_alone(
            dim in 1_usize..200, seed in prop::collection::vec(-1_f32..1.0, 200 * 6)
        ) {
            let vectors = vectors(&seed, dim, 0);
            let (user, items) = vectors.split_first().unwrap();
            for (codec, stored) in [(Codec::Int8, Codec::Int8), (Codec::Int4, Codec::Int8), (Codec::Int8, Codec::Int4)] {
                let rows = Rows::new(codec, items, true);
                let mut bytes = vec![0; stored.bytes_per_vector(dim)];
                record::encode(stored, user, &mut bytes).unwrap();
                let (mut decoded, mut prepared) = (vec![0.0; dim], Query::default());
                // A query before it leaves no rest behind.
                prepared.prepare(rows.layout, user).unwrap();
                record::decode(stored, &bytes, &mut decoded).unwrap();
                prepared.prepare_record(rows.layout, stored, &bytes, &decoded).unwrap();
                prop_assert!(prepared.rest().is_empty());
                for (item, got) in items.iter().zip(rows.scores(kernel::best(), &prepared).1) {
                    let (want, most) = (exact(item, &decoded), bound(rows.scales[0], item, 0.0, &decoded, false));
                    prop_assert!((f64::from(got) - want).abs() <= most, "{codec}: {got} for {want} within {most}");
                }
            }
        }
    }

    #[test]
    fn a_residual_leaves_a_hundredth_of_the_error_of_the_codes() {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        for (codec, dim, ratio) in [(Codec::Int8, 64, 100.0), (Codec::Int8, 384, 100.0), (Codec::Int4, 20, 50.0)] {
            let items: Vec<Vec<f32>> = (0..400).map(|_| (0..dim).map(|_| next()).collect()).collect();
            let query: Vec<f32> = (0..dim).map(|_| next()).collect();
            let rows = Rows::new(codec, &items, true);
            let mut prepared = Query::default();
            prepared.prepare(rows.layout, &query).unwrap();
            let (coarse, fine) = rows.scores(kernel::best(), &prepared);
            let error = |scores: &[f32]| {
                let errors =
                    items.iter().zip(scores).map(|(item, &got)| (f64::from(got) - exact(item, &query)).powi(2));
                errors.sum::<f64>().sqrt()
            };
            assert!(error(&fine) * ratio < error(&coarse), "{codec}: {} and {}", error(&fine), error(&coarse));
        }
    }

    #[test]
    fn one_scale_for_all_scores_as_the_same_scale_for_each() {
        let items: Vec<Vec<f32>> =
            (0..9).map(|row| (0..70).map(|at| ((row * 70 + at) as f32 * 0.7).sin()).collect()).collect();
        for codec in [Codec::Int8, Codec::Int4] {
            let shared = Rows::new(codec, &items, true);
            let scales = vec![shared.scales[0]; items.len()];
            let mut query = Query::default();
            query.prepare(shared.layout, &items[4]).unwrap();
            let expected = shared.scores(kernel::best(), &query);
            let own = Rows { scales, ..shared };
            assert_eq!(own.scores(kernel::best(), &query), expected, "{codec}");
        }
    }

    #[test]
    fn what_has_no_scale_has_no_residual() {
        let rows = Rows::new(Codec::Int4, &vec![vec![0.0; 33]; 3], false);
        assert!(rows.rests.iter().all(|&word| word == 0) && rows.scales == [0.0; 3]);
        let mut query = Query::default();
        query.prepare(rows.layout, &[1e15; 33]).unwrap();
        assert_eq!(rows.scores(kernel::best(), &query), (vec![0.0; 3], vec![0.0; 3]));
        query.prepare(rows.layout, &[0.0; 33]).unwrap();
        assert_eq!(rows.scores(kernel::best(), &query).1, [0.0; 3]);
    }
}
