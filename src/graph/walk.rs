//! The loop that everything here runs: a best-first walk that expands several nodes a step.
//!
//! The bottleneck of such a walk is never the distance. It is keeping candidates in order, branches that cannot be
//! predicted, and waiting for memory once a hop. So the pool of candidates is not sorted: its best are found by a
//! vector scan. Eight nodes are expanded together: their links are fetched at once, their unseen neighbours gathered
//! without branches, prefetched, and scored by one kernel call of about a hundred rows. The effort is a number of
//! expansions.

use super::scratch::{Pool, Scratch};
use crate::codec::{Matrix, Query};
use crate::kernel::Kernels;

/// Nodes expanded together. Measured on three sets: 4 loses up to a quarter, 16 gains nothing or loses.
pub(super) const BEAM: usize = 8;

/// How far a pool may grow beyond what it must keep before it is thinned.
const SLACK: usize = 128;

/// The links of one layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer<'a> {
    pub links: &'a [u32],
    pub cap: usize,
}

impl<'a> Layer<'a> {
    pub fn row(&self, node: u32) -> &'a [u32] {
        &self.links[node as usize * self.cap..][..self.cap]
    }
}

/// The used part of a row of links: unused places hold the node itself.
pub(super) fn used(row: &[u32], node: u32) -> &[u32] {
    let unused = row.iter().filter(|&&link| link == node).count();
    &row[..row.len() - unused]
}

/// What a walk is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Nodes to expand.
    pub hops: usize,
    /// Candidates that must survive: the best of all that were met.
    pub keep: usize,
}

/// A row of bits, one a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits<'a>(pub &'a [u64]);

impl Bits<'_> {
    #[inline]
    pub fn has(self, node: u32) -> bool {
        self.0[node as usize / 64] >> (node % 64) & 1 == 1
    }
}

/// Moves greedily from `from` to better neighbours until there is none, and returns where it ended.
pub(super) fn descend(
    layer: Layer,
    matrix: &Matrix,
    kernels: &Kernels,
    query: &Query,
    from: (u32, f32),
    scores: &mut Vec<f32>,
) -> ((u32, f32), usize) {
    let (mut at, mut distances) = (from, 0);
    loop {
        let links = used(layer.row(at.0), at.0);
        if links.is_empty() {
            return (at, distances);
        }
        scores.resize(layer.cap.max(scores.len()), 0.0);
        matrix.score(kernels, query, links, scores);
        distances += links.len();
        let best = kernels.argmax(&scores[..links.len()]);
        if scores[best] <= at.1 {
            return (at, distances);
        }
        at = (links[best], scores[best]);
    }
}

/// Walks a layer from the candidates in `scratch.open`. Afterwards `closed` and `open` hold the best of what was met;
/// with a filter `hits` holds the best that pass it.
///
/// The query is in `scratch.query`, `scratch.visited` has been restarted, and the entries are marked in it.
pub(super) fn walk(
    layer: Layer,
    matrix: &Matrix,
    kernels: &Kernels,
    effort: Effort,
    filter: Option<Bits>,
    scratch: &mut Scratch,
) {
    let mut floor = f32::NEG_INFINITY;
    let mut hit_floor = f32::NEG_INFINITY;
    let mut beam = 1;
    (scratch.hops, scratch.distances) = (0, 0);
    reserve(&mut scratch.fresh, BEAM * layer.cap);
    if let Some(bits) = filter {
        let Scratch { open, hits, .. } = &mut *scratch;
        let entries = open.ids.iter().zip(&open.scores).filter(|(id, _)| bits.has(**id));
        entries.for_each(|(&id, &score)| hits.push(id, score));
    }
    while scratch.hops < effort.hops && scratch.open.len() > 0 {
        let width = beam.min(effort.hops - scratch.hops).min(scratch.open.len());
        beam = (beam + 1).min(BEAM);
        expand(layer, kernels, width, scratch);
        let found = gather(layer, matrix, width, scratch);
        let Scratch { fresh, query, open, hits, spare, .. } = scratch;
        let (ids, scores) = (&fresh.ids[..found], &mut fresh.scores[..found]);
        matrix.score(kernels, query, ids, scores);
        scratch.distances += found;
        append(kernels, floor, ids, scores, open);
        // What cannot be expanded any more need not be kept to be expanded.
        let keep = effort.keep.max(effort.hops - scratch.hops);
        if open.len() > keep + SLACK {
            floor = thin(kernels, keep, open, spare);
        }
        if let Some(bits) = filter {
            let passing = keep_passing(bits, found, fresh);
            append(kernels, hit_floor, &fresh.ids[..passing], &fresh.scores[..passing], hits);
            if hits.len() > effort.keep + SLACK {
                hit_floor = thin(kernels, effort.keep, hits, spare);
            }
        }
    }
}

/// Moves the best `width` open candidates to `closed` and asks for their links.
fn expand(layer: Layer, kernels: &Kernels, width: usize, scratch: &mut Scratch) {
    for _ in 0..width {
        let (node, score) = scratch.open.take(kernels.argmax(&scratch.open.scores));
        prefetch(bytemuck::cast_slice(layer.row(node)));
        scratch.closed.push(node, score);
    }
    scratch.hops += width;
}

/// Gathers the unseen neighbours of the last `width` closed nodes into `fresh`, asks for their rows, and returns how
/// many there are.
fn gather(layer: Layer, matrix: &Matrix, width: usize, scratch: &mut Scratch) -> usize {
    let mut found = 0;
    for &node in &scratch.closed.ids[scratch.closed.len() - width..] {
        let room = &mut scratch.fresh.ids[found..];
        let new = scratch.visited.insert_all(used(layer.row(node), node), room);
        for &id in &room[..new] {
            prefetch(matrix.row(id));
        }
        found += new;
    }
    found
}

/// Moves the fresh candidates that pass the filter to the front of `fresh`.
fn keep_passing(bits: Bits, found: usize, fresh: &mut Pool) -> usize {
    let mut passing = 0;
    for at in 0..found {
        let (id, score) = (fresh.ids[at], fresh.scores[at]);
        (fresh.ids[passing], fresh.scores[passing]) = (id, score);
        passing += usize::from(bits.has(id));
    }
    passing
}

/// Appends the candidates above `floor` to a pool.
pub(super) fn append(kernels: &Kernels, floor: f32, ids: &[u32], scores: &[f32], pool: &mut Pool) {
    let len = pool.len();
    pool.ids.resize(len + ids.len(), 0);
    pool.scores.resize(len + ids.len(), 0.0);
    let kept = kernels.append_above(floor, ids, scores, &mut pool.ids[len..], &mut pool.scores[len..]);
    pool.ids.truncate(len + kept);
    pool.scores.truncate(len + kept);
}

/// Thins a pool to about its best `keep` (more only among equals) and returns a floor that no later candidate needs
/// to be below.
pub(super) fn thin(kernels: &Kernels, keep: usize, pool: &mut Pool, spare: &mut Pool) -> f32 {
    let floor = floor_of_best(kernels, keep, &pool.scores);
    spare.clear();
    append(kernels, floor, &pool.ids, &pool.scores, spare);
    std::mem::swap(pool, spare);
    floor
}

/// A value that at least `keep` scores are above, and not many more, found by bisection between the extremes: a few
/// passes of counting are cheaper than any sort. Minus infinity when equals make it impossible.
fn floor_of_best(kernels: &Kernels, keep: usize, scores: &[f32]) -> f32 {
    let low = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let (mut low, mut high) = (low, scores[kernels.argmax(scores)]);
    if kernels.count_above(low, scores) < keep {
        return f32::NEG_INFINITY;
    }
    for _ in 0..10 {
        let middle = f32::midpoint(low, high);
        let above = kernels.count_above(middle, scores);
        if above < keep {
            high = middle;
        } else {
            low = middle;
            if above <= keep + SLACK / 8 {
                break;
            }
        }
    }
    low
}

/// Makes room for `len` fresh candidates.
fn reserve(fresh: &mut Pool, len: usize) {
    if fresh.ids.len() < len {
        fresh.ids.resize(len, 0);
        fresh.scores.resize(len, 0.0);
    }
}

/// Asks for the cache lines of `bytes` without waiting for them.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that a program can see; the address is inside a slice besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes; // no stable prefetch elsewhere
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;

    #[test]
    fn thinning_keeps_the_best_and_never_fewer_than_asked() {
        let mut state = 1_u64;
        for round in 0..200 {
            let len = 150 + round;
            let mut pool = Pool::default();
            for id in 0..len as u32 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                pool.push(id, if round % 3 == 0 { (state >> 62) as f32 } else { (state >> 40) as f32 });
            }
            let mut before = Vec::new();
            pool.sort_into(&mut before);
            let floor = thin(kernel::best(), 40, &mut pool, &mut Pool::default());
            assert!(pool.len() >= 40, "kept {}", pool.len());
            let (mut after, worst) = (Vec::new(), before[39].1);
            pool.sort_into(&mut after);
            assert_eq!(after[..], before[..after.len()]);
            assert!(floor < worst || floor == f32::NEG_INFINITY);
        }
    }
}
