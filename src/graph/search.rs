//! Searching: descend, walk, take the best, score them again by the finer codec.

use super::Graph;
use super::exact;
use super::scratch::{Scratch, rank};
use super::walk::{Bits, Effort, descend, room, walk};
use serde::{Deserialize, Serialize};

use crate::codec::{Matrix, Query, residual};
use crate::kernel::{self, Kernels};

/// Nodes expanded beyond `ef` and a quarter of it, for the turns before the beam is where the answers are and for what
/// it expands needlessly: with them an `ef` finds what it finds in an HNSW that keeps its candidates in order.
const APPROACH: usize = 16;

/// Nodes of a layer that are scored together rather than walked.
const SMALL_LAYER: u32 = 64;

/// What suits an index best: measured when it is built, and kept in its profile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// Nodes expanded together, 1 to 64. More hide the latency of memory better and choose worse.
    pub beam: usize,
    /// Part of `ef` that is scored again by the finer codec, 0 to 4; never less than twice the results wanted.
    pub rescored: f32,
}

impl Default for Tuning {
    /// Eight, and a half: on no set that was measured does another choice gain more than a tenth.
    fn default() -> Self {
        Self { beam: 8, rescored: 0.5 }
    }
}

/// How a search is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchOptions {
    /// Results wanted.
    pub k: usize,
    /// The effort: about as many nodes are expanded. More finds better items and takes longer; the quality profile of an
    /// index says how much.
    pub ef: usize,
}

/// Which items may be answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// One bit a node, and how many are set; `None` lets all pass.
    pub bits: Option<(&'a [u64], usize)>,
    /// Nodes that may not be answered, ascending; a few hundred cost nothing to speak of.
    pub exclude: &'a [u32],
}

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Rows scored.
    pub distances: usize,
    /// Nodes expanded; 0 when the rows were scanned.
    pub hops: usize,
}

/// A graph with the rows that it links, ready to be searched by any number of threads.
#[derive(Debug)]
pub struct Searcher<'a> {
    graph: Graph<'a>,
    matrix: Matrix<'a>,
    /// To score the final candidates by: the same rows in a float codec, or what the codes leave of them.
    finer: Option<Matrix<'a>>,
    kernels: &'static Kernels,
    tuning: Tuning,
}

impl<'a> Searcher<'a> {
    /// Puts the parts together. The graph's structure must have been checked ([`super::check::structure`]) against the
    /// number of rows; `finer`, when given, has as many, and is of a float codec or holds the residuals of `matrix`.
    ///
    /// Panics when the numbers of rows differ.
    pub fn new(graph: Graph<'a>, matrix: Matrix<'a>, finer: Option<Matrix<'a>>) -> Self {
        assert_eq!(graph.len(), matrix.rows());
        assert!(finer.is_none_or(|finer| finer.rows() == matrix.rows()));
        Self { graph, matrix, finer, kernels: kernel::best(), tuning: Tuning::default() }
    }

    /// The rows that the graph is walked by.
    pub fn matrix(&self) -> &Matrix<'a> {
        &self.matrix
    }

    /// The same searcher with the kernels of another level.
    #[must_use]
    pub fn with_kernels(self, kernels: &'static Kernels) -> Self {
        Self { kernels, ..self }
    }

    /// The same searcher tuned otherwise.
    #[must_use]
    pub fn with_tuning(self, tuning: Tuning) -> Self {
        Self { tuning, ..self }
    }

    /// Finds about the best `k` nodes for a query into `found`, best first, as `(node, query · row + bias)`.
    ///
    /// `query` is prepared for the rows, `finer` for the finer rows when there are any. Fewer than `k` are found only
    /// when fewer pass.
    pub fn search(
        &self,
        query: &Query,
        finer: &Query,
        options: SearchOptions,
        filter: Filter,
        scratch: &mut Scratch,
        found: &mut Vec<(u32, f32)>,
    ) -> SearchStats {
        found.clear();
        let n = self.graph.len();
        if n == 0 || options.k == 0 {
            return SearchStats::default();
        }
        scratch.query.clone_from(query);
        let want = options.k.saturating_add(filter.exclude.len()).min(n);
        let rescored = (options.ef as f32 * self.tuning.rescored) as usize;
        let pool = if self.finer.is_some() { want.saturating_mul(2).max(rescored).min(n) } else { want };
        let passing = filter.bits.map_or(n, |(_, passing)| passing);
        // What is excluded stands among the best, where the effort goes: it must not be at the others' cost.
        let ef = options.ef.saturating_add(filter.exclude.len()).max(want);
        let hops = self.hops(ef.saturating_add(ef / 4 + APPROACH), passing);
        let bits = filter.bits.map(|(bits, _)| Bits(bits));
        match hops {
            Some(hops) => {
                self.enter(scratch);
                walk(
                    self.graph.base(),
                    &self.matrix,
                    self.kernels,
                    Effort { hops, keep: pool, beam: self.tuning.beam },
                    bits,
                    scratch,
                );
            }
            None => exact::scan(&self.matrix, self.kernels, pool, filter, scratch),
        }
        collect(hops.is_some() && bits.is_none(), filter.exclude, scratch, found);
        self.refine(finer, pool, options.k, scratch, found);
        SearchStats { distances: scratch.distances, hops: scratch.hops }
    }

    /// Nodes to expand, or `None` when scanning the rows that pass is cheaper.
    ///
    /// A walk meets passing items in proportion to how many there are, so it must be longer by as much. With `s` the
    /// share that passes it scores about `hops · degree / s` rows, of which half are new, and a scan `s · n`.
    fn hops(&self, ef: usize, passing: usize) -> Option<usize> {
        let n = self.graph.len();
        let stretched = (ef as u64).saturating_mul(n as u64).div_ceil(passing.max(1) as u64) as usize;
        let scored = stretched.saturating_mul(self.graph.to.len() / n / 2);
        (scored < passing).then_some(stretched)
    }

    /// Opens the walk where the layers above lead.
    fn enter(&self, scratch: &mut Scratch) {
        let Scratch { query, open, closed, hits, visited, ids, scores, .. } = scratch;
        open.clear();
        closed.clear();
        hits.clear();
        visited.restart(self.graph.len());
        // The first layer that is small enough is scored as a whole: its rows lie together and are in the cache.
        let lens = self.graph.upper_lens;
        let small = lens.iter().position(|&len| len <= SMALL_LAYER).unwrap_or(lens.len());
        let len = lens.get(small).copied().unwrap_or(1) as usize;
        ids.clear();
        ids.extend(0..len as u32);
        room(scores, len);
        self.matrix.score(self.kernels, query, ids, scores);
        let best = self.kernels.argmax(&scores[..len]);
        let mut at = (best as u32, scores[best]);
        for layer in self.graph.upper_layers().skip(lens.len() - small) {
            at = descend(layer, &self.matrix, self.kernels, query, at, scores);
        }
        visited.insert(at.0);
        open.push(at.0, at.1);
    }

    /// Keeps the best `pool`, scores them by the finer codec when there is one, and leaves the best `k` in order.
    fn refine(&self, query: &Query, pool: usize, k: usize, scratch: &mut Scratch, found: &mut Vec<(u32, f32)>) {
        if let Some(finer) = &self.finer {
            if found.len() > pool {
                found.select_nth_unstable_by_key(pool - 1, rank);
                found.truncate(pool);
            }
            let Scratch { ids, scores, query: coarse, spare, .. } = scratch;
            let spare_scores = &mut spare.scores;
            ids.clear();
            ids.extend(found.iter().map(|&(node, _)| node));
            ids.iter().for_each(|&node| finer.prefetch(node));
            room(scores, ids.len());
            if finer.layout().has_scales() {
                scores.iter_mut().zip(&*found).for_each(|(score, found)| *score = found.1);
                residual::refine(&self.matrix, finer, self.kernels, coarse, ids, scores, spare_scores);
            } else {
                finer.score(self.kernels, query, ids, scores);
            }
            found.iter_mut().zip(&*scores).for_each(|(found, &score)| found.1 = score);
        }
        if found.len() > k {
            found.select_nth_unstable_by_key(k - 1, rank);
            found.truncate(k);
        }
        found.sort_unstable_by_key(rank);
    }
}

/// Puts the candidates of a walk, or of a filtered walk or scan, into `found`, without the excluded.
fn collect(walked: bool, exclude: &[u32], scratch: &Scratch, found: &mut Vec<(u32, f32)>) {
    found.clear();
    let pools = if walked { [Some(&scratch.closed), Some(&scratch.open)] } else { [Some(&scratch.hits), None] };
    let candidates = pools.into_iter().flatten().flat_map(|pool| pool.ids.iter().zip(&pool.scores));
    let allowed = candidates.filter(|(id, _)| exclude.is_empty() || exclude.binary_search(id).is_err());
    found.extend(allowed.map(|(&id, &score)| (id, score)));
}
