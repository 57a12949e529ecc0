//! The loop that everything here runs: a best-first walk that expands several nodes a turn, one turn ahead of itself.
//!
//! The bottleneck of such a walk is never the distance. It is keeping candidates in order, branches that cannot be
//! predicted, and waiting for memory once a hop. So the pool of candidates is not sorted: its best are found by a
//! vector scan. Several nodes are chosen together, and nothing is used as soon as it is asked for. A turn
//!
//! 1. asks for the links of the nodes that the last turn chose,
//! 2. scores the neighbours that the last turn met, whose codes have arrived meanwhile,
//! 3. chooses the next nodes and asks where their links are,
//! 4. meets the neighbours of those chosen a turn ago, whose links have arrived, and asks for their codes.
//!
//! So a choice does not know what the choice before it will find, which costs a few expansions; waiting would cost more.
//! The effort is a number of expansions.

use std::ops::Range;

use super::MOST_NODES;
use super::links::{Layer, Packed};
use super::scratch::{Pool, Scratch};
use crate::codec::{Matrix, Query};
use crate::kernel::{COLUMNS, Kernels};

/// How far a pool may grow beyond what it must keep before it is thinned.
const SLACK: usize = 64;

/// What a walk is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Nodes to expand; with a gate, of those that pass it.
    pub hops: usize,
    /// Candidates that must survive: the best of all that were met.
    pub keep: usize,
    /// Nodes to choose together.
    pub beam: usize,
}

/// Whether the bit of a node is set.
#[inline]
fn has(bits: &[u64], node: u32) -> bool {
    bits[node as usize / 64] >> (node % 64) & 1 == 1
}

/// Which nodes may be answered. The others are walked over: what passes may lie behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate<'a> {
    /// One bit a node, set where it passes.
    pub bits: Option<&'a [u64]>,
    /// One bit a node, set where it does not.
    pub barred: Option<&'a [u64]>,
    /// Nodes to expand at most, whether they pass or not.
    pub most: usize,
}

impl Gate<'_> {
    #[inline]
    pub fn passes(self, node: u32) -> bool {
        self.bits.is_none_or(|bits| has(bits, node)) && !self.bars(node)
    }

    #[inline]
    fn bars(self, node: u32) -> bool {
        self.barred.is_some_and(|bits| has(bits, node))
    }

    /// Marks those that do not pass; how many of them are barred.
    fn mark(self, nodes: &mut [u32]) -> usize {
        let mut barred = 0;
        for node in nodes {
            barred += usize::from(self.bars(*node));
            *node |= if self.passes(*node) { 0 } else { FAILS };
        }
        barred
    }

    /// Whether a walk that has `left` nodes to expand cannot end within its bounds, or will not, going on as it went.
    fn is_hopeless(self, effort: Effort, left: usize, scratch: &Scratch) -> bool {
        let (expanded, passed) = (scratch.closed.len(), scratch.passed);
        let few = expanded.saturating_mul(effort.hops) > self.most.saturating_mul(2 * passed + 16);
        expanded + left > self.most || self.bits.is_some() && few
    }
}

/// Stands in a pool of open candidates, on top of its number, with a node that does not pass: the pool is counted often, and
/// a look at the bits of each would take longer than all else. Numbers of nodes are below it.
const FAILS: u32 = MOST_NODES as u32 + 1;

/// Further nodes to expand for each barred one that was: what comes after the best is harder to find than they are.
pub(super) const FURTHER: usize = 2;

impl Effort {
    /// Nodes that pass a gate and are still to be expanded.
    pub(super) fn left(self, scratch: &Scratch) -> usize {
        (self.hops + FURTHER * scratch.over).saturating_sub(scratch.passed)
    }
}

/// What a walk keeps of candidates.
struct Bounds {
    /// Scores that open candidates, and hits, must be above.
    open: f32,
    hits: f32,
    /// Open candidates that are kept without looking.
    limit: usize,
}

/// Nodes of a layer that are scored together rather than walked.
const SMALL_LAYER: usize = 64;

/// Nodes that are scored to find where to begin where no layers lead, and how many of the best are begun from. Node
/// numbers are drawn at random, so that the first are a sample of all; their rows lie together and stay in the cache.
/// Fewer begin further away, more take longer to score: between 128 and 256, and 3 and 6, nothing differed by 2 %.
pub(super) const SAMPLE: usize = 256;
const ENTRIES: usize = 4;

/// Whether a layer is scored as a whole.
pub(super) fn is_small(layer: &Packed) -> bool {
    layer.len() <= SMALL_LAYER
}

/// Nodes from the first on that are scored to find where to begin, in a layer of `nodes` under others.
pub(super) fn scanned<'a>(nodes: usize, mut above: impl Iterator<Item = Packed<'a>> + Clone) -> usize {
    let whole = above.clone().take_while(is_small).last().map_or(1, |layer| layer.len());
    if above.next().is_some() { whole } else { SAMPLE.min(nodes) }
}

/// Opens a walk of a layer of `nodes` for `scratch.query`, where the layers `above` lead, highest first, or where the
/// best of a sample are.
///
/// The largest layer that is small is scored as a whole, as its rows lie together as well.
pub(super) fn enter<'a>(
    nodes: usize,
    above: impl Iterator<Item = Packed<'a>> + Clone,
    matrix: &Matrix,
    kernels: &Kernels,
    scratch: &mut Scratch,
) {
    let scanned = scanned(nodes, above.clone());
    scratch.clear(nodes);
    scratch.ids.clear();
    scratch.ids.extend(0..scanned as u32);
    if above.clone().next().is_none() {
        return begin(ENTRIES, matrix, kernels, scratch);
    }
    let Scratch { query, open, visited, ids, scores, .. } = scratch;
    room(scores, scanned);
    matrix.score(kernels, query, ids, scores);
    let best = kernels.argmax(&scores[..scanned]);
    let mut at = (best as u32, scores[best]);
    for layer in above.skip_while(is_small) {
        at = descend(layer, matrix, kernels, query, at, scores);
    }
    visited.insert(at.0);
    open.push(at.0, at.1);
}

/// Opens a walk at about the best `width` of the nodes in `scratch.ids`, which has been cleared of the last one.
pub(super) fn begin(width: usize, matrix: &Matrix, kernels: &Kernels, scratch: &mut Scratch) {
    let Scratch { query, open, visited, ids, scores, .. } = scratch;
    room(scores, ids.len());
    matrix.score(kernels, query, ids, scores);
    let mut places = [0; COLUMNS];
    let count = kernels.best_of_columns(&scores[..ids.len()], width, &mut places);
    for &at in &places[..count] {
        let (node, score) = (ids[at as usize], scores[at as usize]);
        visited.insert(node);
        open.push(node, score);
    }
}

/// Moves greedily from `from` to better neighbours until there is none, and returns where it ended.
fn descend(
    layer: impl Layer,
    matrix: &Matrix,
    kernels: &Kernels,
    query: &Query,
    from: (u32, f32),
    scores: &mut Vec<f32>,
) -> (u32, f32) {
    let mut at = from;
    loop {
        let links = layer.row(at.0);
        if links.is_empty() {
            return at;
        }
        matrix.prefetch(links);
        room(scores, links.len());
        matrix.score(kernels, query, links, scores);
        let best = kernels.argmax(&scores[..links.len()]);
        if scores[best] <= at.1 {
            return at;
        }
        at = (links[best], scores[best]);
    }
}

/// Walks a layer from the candidates in `scratch.open`. Afterwards `closed` and `open` hold the best of what was met;
/// with a gate `hits` holds the best that pass it, and `passed` says how many that do were expanded.
///
/// A gate makes the walk as long as it must be for as many nodes that pass: short where they are dense. It ends without
/// when there are few around, and then scanning is the way.
///
/// The query is in `scratch.query`, `scratch.visited` has been restarted, and the entries are marked in it.
// Not inlined: in the middle of a search its loop has fewer registers, and takes 2 % longer.
#[inline(never)]
pub(super) fn walk(
    layer: impl Layer,
    matrix: &Matrix,
    kernels: &Kernels,
    effort: Effort,
    gate: Option<Gate>,
    scratch: &mut Scratch,
) {
    (scratch.passed, scratch.over, scratch.distances) = (0, 0, 0);
    if let Some(gate) = gate {
        let Scratch { open, hits, met_barred, .. } = &mut *scratch;
        open.iter().filter(|&(id, _)| gate.passes(id)).for_each(|(id, score)| hits.push(id, score));
        *met_barred = gate.mark(open.ids_mut());
    }
    let mut bounds = Bounds { open: f32::NEG_INFINITY, hits: f32::NEG_INFINITY, limit: 0 };
    let (mut gathered, mut scored) = (0, scratch.visited.len());
    let first = scratch.open.len().clamp(1, 2);
    for turn in 0.. {
        scratch.closed.ids()[gathered..].iter().for_each(|&node| layer.prefetch(node));
        scratch.distances += scratch.visited.len() - scored;
        score(matrix, kernels, effort, gate, scored, &mut bounds, scratch);
        scored = scratch.visited.len();
        let chosen = scratch.closed.len();
        // The first turns lead from the entry to where the answers are: there the best node is worth waiting for.
        choose(layer, kernels, effort, gate, effort.beam.min(first + turn / 2), scratch);
        gather(layer, matrix, gathered..chosen, scratch);
        gathered = chosen;
        if scratch.closed.len() == chosen && scratch.visited.len() == scored {
            break;
        }
    }
    scratch.hops = scratch.closed.len();
}

/// Scores the nodes met after the first `from` and puts them in the pools.
fn score(
    matrix: &Matrix,
    kernels: &Kernels,
    effort: Effort,
    gate: Option<Gate>,
    from: usize,
    bounds: &mut Bounds,
    scratch: &mut Scratch,
) {
    let left = effort.left(scratch);
    let Scratch { visited, scores, query, open, closed, hits, spare, over, met_barred, .. } = scratch;
    let ids = visited.since(from);
    if ids.is_empty() {
        return;
    }
    room(scores, ids.len());
    let scores = &mut scores[..ids.len()];
    matrix.score(kernels, query, ids, scores);
    let new = open.len();
    open.append_above(kernels, bounds.open, ids, scores);
    // What cannot be expanded any more need not be kept to be expanded.
    let Some(gate) = gate else {
        let keep = effort.keep.max(effort.hops - closed.len());
        if open.len() > keep + SLACK {
            bounds.open = thin(kernels, keep, open, spare);
        }
        return;
    };
    *met_barred += gate.mark(&mut open.ids_mut()[new..]);
    if open.len() > bounds.limit.max(left + SLACK) {
        // Expanding those that do not pass brings on others, which must still be there then.
        let failing: u32 = open.ids().iter().map(|&id| id / FAILS).sum();
        let spent = failing as usize + FURTHER * (*met_barred - *over);
        let keep = (left + spent).min(gate.most.saturating_sub(closed.len()));
        bounds.limit = keep + SLACK;
        if open.len() > bounds.limit {
            bounds.open = thin(kernels, keep, open, spare);
        }
    }
    let before = hits.len();
    hits.append_above(kernels, bounds.hits, ids, scores);
    hits.keep_from(before, |_, id, _| gate.passes(id));
    // Far from the best scores lie close together: more of them must be kept to be told apart later.
    let keep = effort.keep + *over;
    if hits.len() > keep + SLACK {
        bounds.hits = thin(kernels, keep, hits, spare);
    }
}

/// Moves about the best `width` open candidates to `closed`, as far as the effort goes, and asks where their links are.
fn choose(
    layer: impl Layer,
    kernels: &Kernels,
    effort: Effort,
    gate: Option<Gate>,
    width: usize,
    scratch: &mut Scratch,
) {
    let left = effort.left(scratch);
    if gate.is_some_and(|gate| gate.is_hopeless(effort, left, scratch)) {
        return;
    }
    let Scratch { open, closed, passed, over, .. } = scratch;
    let before = closed.len();
    let left = if gate.is_some() { left } else { effort.hops - before };
    let mut places = [0; COLUMNS];
    let count = kernels.best_of_columns(open.scores(), width.min(left), &mut places);
    for &at in &places[..count] {
        let (node, score) = (open.ids()[at as usize], open.scores()[at as usize]);
        *passed += usize::from(node < FAILS);
        let node = node & !FAILS;
        layer.ask(node);
        closed.push(node, score);
    }
    open.take(&places[..count]);
    if let Some(gate) = gate {
        let chosen = &closed.ids()[before..];
        *over += chosen.iter().filter(|&&node| gate.bars(node)).count();
    }
}

/// Marks the neighbours of some of the closed nodes as visited and asks for their codes: of all, as most are new, and
/// which are is not known before the marks are there. One after the other in one loop: in two, neither hides the other's
/// waits.
fn gather(layer: impl Layer, matrix: &Matrix, nodes: Range<usize>, scratch: &mut Scratch) {
    let Scratch { visited, closed, .. } = scratch;
    let nodes = &closed.ids()[nodes];
    if matrix.rows_are_lines() {
        nodes.iter().for_each(|&node| visited.insert_all(layer.row(node), |link| matrix.prefetch_line(link)));
    } else {
        nodes.iter().for_each(|&node| visited.insert_all(layer.row(node), |link| matrix.prefetch(&[link])));
    }
}

/// Thins a pool to about its best `keep` (more only among equals) and returns a floor that no later candidate needs
/// to be below.
pub(super) fn thin(kernels: &Kernels, keep: usize, pool: &mut Pool, spare: &mut Pool) -> f32 {
    let floor = floor_of_best(kernels, keep, pool.scores());
    spare.clear();
    spare.append_above(kernels, floor, pool.ids(), pool.scores());
    std::mem::swap(pool, spare);
    floor
}

/// A value that at least `keep` scores are above, and not many more, found by bisection between the extremes: a few
/// passes of counting are cheaper than any sort. Minus infinity when equals make it impossible.
fn floor_of_best(kernels: &Kernels, keep: usize, scores: &[f32]) -> f32 {
    let (mut low, mut high) = (least(scores), scores[kernels.argmax(scores)]);
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

/// The least of scores, none of which is NaN. Lane by lane, so that vector instructions find it.
fn least(scores: &[f32]) -> f32 {
    let (rows, rest) = scores.as_chunks::<COLUMNS>();
    let lower = |a: f32, b: f32| if b < a { b } else { a };
    let mut lanes = [f32::INFINITY; COLUMNS];
    rows.iter().for_each(|row| lanes.iter_mut().zip(row).for_each(|(lane, &score)| *lane = lower(*lane, score)));
    lanes.iter().chain(rest).copied().fold(f32::INFINITY, lower)
}

/// Makes room for `len` scores.
pub(super) fn room(scores: &mut Vec<f32>, len: usize) {
    if scores.len() < len {
        scores.resize(2 * len, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Layout};
    use crate::kernel;

    #[test]
    fn where_no_layers_lead_a_walk_begins_at_the_best_of_the_first_nodes() {
        let layout = Layout { codec: Codec::F32, dim: 1 };
        for nodes in [1, 3, SAMPLE, SAMPLE + 50] {
            // The first best ones lie in columns of their own, and what is better still lies beyond the sample.
            let place = |node: usize| if node < SAMPLE { (node * 7 % SAMPLE) as f32 } else { 1e6 };
            let values: Vec<f32> = (0..nodes).map(place).collect();
            let matrix = Matrix::new(layout, bytemuck::cast_slice(&values), &[], &[]).unwrap();
            let mut best: Vec<u32> = (0..nodes.min(SAMPLE) as u32).collect();
            best.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
            best.truncate(ENTRIES);
            for kernels in kernel::available() {
                let mut scratch = Scratch::default();
                scratch.query.prepare(layout, &[1.0]).unwrap();
                enter(nodes, std::iter::empty(), &matrix, kernels, &mut scratch);
                let mut begun = scratch.open.ids().to_vec();
                begun.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
                assert_eq!(begun, best, "of {nodes}");
                assert!(begun.iter().all(|&node| scratch.visited.has(node)) && scratch.visited.len() == begun.len());
            }
        }
    }

    #[test]
    fn the_least_is_found_wherever_it_is() {
        for len in 0..70 {
            for at in 0..len {
                let scores: Vec<f32> = (0..len).map(|i| if i == at { -1.5 } else { i as f32 }).collect();
                assert!(least(&scores) == -1.5, "at {at} of {len}");
            }
        }
        assert!(least(&[]) == f32::INFINITY);
    }

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
