//! Which candidates become links: the neighbour selection of HNSW (algorithm 4 of the paper).
//!
//! A candidate is kept unless a kept one is nearer to it than the node itself is. With inner product "nearer" is a
//! larger product; nothing is normalised or lifted into another space, because graphs of such spaces answer inner
//! product queries badly (measured: more than ten times slower at equal recall).

use super::scratch::Pool;
use crate::codec::{Matrix, Query};
use crate::kernel::Kernels;

/// Buffers of one selection.
#[derive(Debug, Default)]
pub(super) struct PruneScratch {
    query: Query,
    alive: Pool,
    scores: Vec<f32>,
}

/// Selects at most `max` of the candidates, which are sorted best first and do not hold `node`, into `kept`.
///
/// Instead of asking each candidate about all that were kept, each one kept is scored against all candidates still
/// alive, in one kernel call, and those it is nearer to are dropped.
pub(super) fn select(
    matrix: &Matrix,
    kernels: &Kernels,
    node: u32,
    candidates: &[(u32, f32)],
    max: usize,
    scratch: &mut PruneScratch,
    kept: &mut Vec<u32>,
) {
    kept.clear();
    let PruneScratch { query, alive, scores } = scratch;
    alive.clear();
    candidates.iter().for_each(|&(id, score)| alive.push(id, score));
    // For L2 a score is the product plus the bias of the row, so a comparison of two queries must add theirs.
    let node_bias = matrix.bias(node);
    while kept.len() < max && alive.len() > 0 {
        let best = alive.ids()[0];
        kept.push(best);
        if kept.len() == max {
            return;
        }
        query.prepare_row(matrix, best);
        let bias = matrix.bias(best) - node_bias;
        scores.resize(alive.len().max(scores.len()), 0.0);
        matrix.score(kernels, query, alive.ids(), scores);
        alive.keep_from(0, |at, _, score| at > 0 && scores[at] + bias < score);
    }
}
