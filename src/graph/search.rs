//! Searching: descend, walk, take the best, score them again by the finer codec.

use serde::{Deserialize, Serialize};

use super::scratch::{Scratch, rank};
use super::walk::{Effort, FURTHER, Gate, enter, room, thin, walk};
use super::{Graph, exact};
use crate::codec::{Matrix, Query, residual};
use crate::kernel::{self, Kernels};

/// Rows scanned in the time of one scored by a walk, which waits for it, tests whether it was met and keeps it in order.
const SCANNED_PER_DISTANCE: f32 = 3.0;

/// What suits an index best: measured when it is built, and kept in its profile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Nodes expanded together, 1 to 64. More hide the latency of memory better and choose worse.
    pub beam: usize,
    /// Part of `ef` that is scored again by the finer codec, 0 to 4; never less than twice the results wanted.
    pub rescored: f32,
}

impl Tuning {
    /// Nodes that a search with an `ef` expands: a quarter more than that, and two beams for the turns before the beam is
    /// where the answers are. So an `ef` finds what it finds in an HNSW that keeps its candidates in order, whatever the
    /// beam expands needlessly.
    pub fn expansions(self, ef: usize) -> usize {
        ef.saturating_add(ef / 4 + 2 * self.beam)
    }
}

impl Default for Tuning {
    /// Eight, and a half: where rows have to be waited for, no other choice gained more than a tenth on any set measured.
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
    /// Nodes that may not be answered, ascending; they cost what is walked over them, and where none is among the best
    /// nothing to speak of.
    pub exclude: &'a [u32],
}

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Rows scored.
    pub distances: usize,
    /// Of these, rows that were scored one after another as they lie, which takes less than on a walk.
    pub scanned: usize,
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
    distances_per_hop: Option<f32>,
}

impl<'a> Searcher<'a> {
    /// Puts the parts together. The graph's structure must have been checked ([`super::check::structure`]) against the
    /// number of rows; `finer`, when given, has as many, and is of a float codec or holds the residuals of `matrix`.
    ///
    /// Panics when the numbers of rows differ.
    pub fn new(graph: Graph<'a>, matrix: Matrix<'a>, finer: Option<Matrix<'a>>) -> Self {
        assert_eq!(graph.len(), matrix.rows());
        assert!(finer.is_none_or(|finer| finer.rows() == matrix.rows()));
        Self { graph, matrix, finer, kernels: kernel::best(), tuning: Tuning::default(), distances_per_hop: None }
    }

    /// The rows that the graph is walked by.
    pub fn matrix(&self) -> &Matrix<'a> {
        &self.matrix
    }

    /// What the final candidates are scored by, if not by the same rows.
    pub fn finer(&self) -> Option<&Matrix<'a>> {
        self.finer.as_ref()
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

    /// The same searcher knowing how many rows an expanded node has it score, where that was measured.
    #[must_use]
    pub fn with_distances_per_hop(self, distances_per_hop: Option<f32>) -> Self {
        Self { distances_per_hop, ..self }
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
        let want = options.k.min(n);
        let pool = self.pool(options);
        let effort = Effort { hops: self.expansions(options.ef.max(want)), keep: pool, beam: self.tuning.beam };
        scratch.distances = 0;
        let walked = self.walk(effort, filter, scratch);
        let (met, mut scanned) = (scratch.distances, 0);
        let pool = pool + if walked { scratch.over } else { filter.exclude.len() };
        if !walked {
            exact::scan(&self.matrix, self.kernels, pool, filter, scratch);
            scanned = scratch.distances;
        }
        let open = walked && filter.bits.is_none() && filter.exclude.is_empty();
        collect(open, pool, self.kernels, scratch, found);
        self.refine(finer, options.k, scratch, found);
        SearchStats { distances: met + scanned, scanned, hops: scratch.hops }
    }

    /// Nodes that a search is expected to expand when so many pass the filter and so many are excluded; `None` when it is
    /// expected to scan what passes. The excluded count as if all of them were met: what a user has seen is what is nearest.
    pub fn forecast(&self, options: SearchOptions, passing: usize, excluded: usize) -> Option<usize> {
        let hops = self.expansions(options.ef.max(options.k.min(self.graph.len())));
        self.steps(hops.saturating_add((1 + FURTHER) * excluded.min(self.graph.len())), passing)
    }

    /// Nodes that a search with an `ef` expands.
    pub(super) fn expansions(&self, ef: usize) -> usize {
        self.tuning.expansions(ef)
    }

    /// Bytes that walks read: codes and the links between all rows.
    pub fn walked_bytes(&self) -> usize {
        self.matrix.codes().len() + (self.graph.mean_degree() * self.graph.len() as f64) as usize * size_of::<u32>()
    }

    /// Candidates to find, of which the best are answered.
    pub(super) fn pool(&self, options: SearchOptions) -> usize {
        let rescored = (options.ef as f32 * self.tuning.rescored) as usize;
        let pool = if self.finer.is_some() { options.k.saturating_mul(2).max(rescored) } else { options.k };
        pool.min(self.graph.len())
    }

    /// The kernels that it searches by.
    pub(super) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Walks, unless scanning the rows that pass is cheaper or turns out to be; whether it did.
    fn walk(&self, effort: Effort, filter: Filter, scratch: &mut Scratch) -> bool {
        let n = self.graph.len();
        let passing = filter.bits.map_or(n, |(_, passing)| passing);
        let most = self.hops(passing);
        if self.steps(effort.hops, passing).is_none() {
            return false;
        }
        enter(n, self.graph.upper_layers(), &self.matrix, self.kernels, scratch);
        let mut barred = std::mem::take(&mut scratch.barred);
        bar(filter.exclude, n, &mut barred);
        let gate = Gate {
            bits: filter.bits.map(|(bits, _)| bits),
            barred: (!filter.exclude.is_empty()).then_some(&barred[..]),
            most,
        };
        let gated = gate.bits.is_some() || gate.barred.is_some();
        walk(self.graph.base(), &self.matrix, self.kernels, effort, gated.then_some(gate), scratch);
        for &node in filter.exclude {
            barred.get_mut(node as usize / 64).into_iter().for_each(|word| *word = 0);
        }
        scratch.barred = barred;
        let left = if gated { effort.left(scratch) } else { effort.hops - scratch.closed.len() };
        // It may have begun where no link leads out: among near copies, say, that link each other alone.
        left == 0 || !gated && scratch.visited.len() == n
    }

    /// Nodes that a walk expands to expand so many that pass, unless scanning the rows that pass is cheaper: unless what
    /// passes stands aside or together, it meets it in proportion to how much there is.
    fn steps(&self, hops: usize, passing: usize) -> Option<usize> {
        let expected = (hops as u64).saturating_mul(self.graph.len() as u64) / passing.max(1) as u64;
        (expected < self.hops(passing) as u64).then_some(expected as usize)
    }

    /// Nodes that may be expanded before scanning the rows that pass would have been cheaper.
    fn hops(&self, passing: usize) -> usize {
        (passing as f32 / (self.new_per_hop() * SCANNED_PER_DISTANCE)) as usize
    }

    /// Rows that an expanded node has a walk score: half its links were met before unless it was measured otherwise.
    pub(super) fn new_per_hop(&self) -> f32 {
        self.distances_per_hop.unwrap_or(self.graph.mean_degree() as f32 / 2.0).max(1.0)
    }

    /// Scores what was found by the finer codec when there is one, and leaves the best `k` in order.
    pub(super) fn refine(&self, query: &Query, k: usize, scratch: &mut Scratch, found: &mut Vec<(u32, f32)>) {
        if let Some(finer) = &self.finer {
            let Scratch { ids, scores, rest_scores, query: coarse, .. } = scratch;
            ids.clear();
            ids.extend(found.iter().map(|&(node, _)| node));
            finer.prefetch(ids);
            room(scores, ids.len());
            if finer.layout().has_scales() {
                scores.iter_mut().zip(&*found).for_each(|(score, found)| *score = found.1);
                residual::refine(&self.matrix, finer, self.kernels, coarse, ids, scores, rest_scores);
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

/// Sets the bits of excluded nodes.
fn bar(exclude: &[u32], n: usize, barred: &mut Vec<u64>) {
    if !exclude.is_empty() && barred.len() < n.div_ceil(64) {
        barred.resize(n.div_ceil(64), 0);
    }
    for node in exclude {
        if let Some(word) = barred.get_mut(*node as usize / 64) {
            *word |= 1 << (node % 64);
        }
    }
}

/// Puts about the best `keep` candidates of an open walk, or of a filtered walk or scan, into `found`.
fn collect(open: bool, keep: usize, kernels: &Kernels, scratch: &mut Scratch, found: &mut Vec<(u32, f32)>) {
    let Scratch { open: unexpanded, closed, hits, spare, .. } = scratch;
    if open {
        closed.extend(unexpanded);
    }
    let met = if open { closed } else { hits };
    // Most need not be sorted to be told from the best.
    if met.len() > keep {
        thin(kernels, keep, met, spare);
    }
    found.clear();
    found.extend(met.iter());
}
