//! Scanning every row: the truth that graphs are measured by, and the faster way when few rows pass a filter.

use super::Filter;
use super::scratch::{Scratch, better};
use super::walk::{Bits, append, room, thin};
use crate::codec::{Matrix, Query};
use crate::kernel::{self, Kernels};

/// Rows scored by one kernel call.
const CHUNK: usize = 256;

/// Finds exactly the best `k` rows that pass, by the matrix's codec, into `found`, best first.
pub fn best(
    matrix: &Matrix,
    query: &Query,
    k: usize,
    filter: Filter,
    scratch: &mut Scratch,
    found: &mut Vec<(u32, f32)>,
) {
    scratch.query.clone_from(query);
    let keep = k.saturating_add(filter.exclude.len()).min(matrix.rows());
    scan(matrix, kernel::best(), keep, filter.bits.map(|(bits, _)| Bits(bits)), scratch);
    found.clear();
    let hits = scratch.hits.ids.iter().copied().zip(scratch.hits.scores.iter().copied());
    found.extend(hits.filter(|(id, _)| filter.exclude.binary_search(id).is_err()));
    found.sort_unstable_by(better);
    found.truncate(k);
}

/// Scores every row that passes against `scratch.query` and leaves about the best `keep` in `scratch.hits`.
pub(super) fn scan(matrix: &Matrix, kernels: &Kernels, keep: usize, filter: Option<Bits>, scratch: &mut Scratch) {
    let Scratch { hits, spare, ids, scores, query, .. } = scratch;
    hits.clear();
    room(scores, CHUNK);
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
}
