//! Scanning every row: the truth that graphs are measured by, and the faster way when few rows pass a filter.

use super::scratch::Scratch;
use super::walk::{Bits, append, thin};
use crate::codec::Matrix;
use crate::kernel::Kernels;

/// Rows scored by one kernel call.
const CHUNK: usize = 256;

/// Scores every row that passes against `scratch.query` and leaves about the best `keep` in `scratch.hits`.
pub(super) fn scan(matrix: &Matrix, kernels: &Kernels, keep: usize, filter: Option<Bits>, scratch: &mut Scratch) {
    let Scratch { hits, spare, fresh, query, .. } = scratch;
    hits.clear();
    let (ids, scores) = (&mut fresh.ids, &mut fresh.scores);
    scores.resize(CHUNK.max(scores.len()), 0.0);
    let mut floor = f32::NEG_INFINITY;
    let mut rows = (0..matrix.rows() as u32).filter(|&row| filter.is_none_or(|bits| bits.has(row)));
    (scratch.hops, scratch.distances) = (0, 0);
    loop {
        ids.clear();
        ids.extend(rows.by_ref().take(CHUNK));
        if ids.is_empty() {
            break;
        }
        matrix.score(kernels, query, ids, scores);
        scratch.distances += ids.len();
        append(kernels, floor, ids, &scores[..ids.len()], hits);
        if hits.len() > keep + CHUNK {
            floor = thin(kernels, keep, hits, spare);
        }
    }
    // Walks expect the two to be equally long.
    ids.resize(scores.len().max(ids.len()), 0);
}
