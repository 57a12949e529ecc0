//! Building: layer by layer from the top, node by node in batches that double.
//!
//! A batch is searched in the graph of all nodes before it, in parallel, since that graph does not change meanwhile;
//! then the links back are written, in parallel over disjoint rows, in an order that does not depend on threads. So
//! the graph is a function of the rows and the seed. A batch never exceeds 2 % of the layer, which costs no recall.
//!
//! Memory while building, beyond the rows: 3 `m` links of 4 bytes a node, and 2 bytes a node and thread
//! ([`working_bytes`]).

use std::sync::Mutex;

use rayon::prelude::*;

use super::prune::{PruneScratch, select};
use super::scratch::{Scratch, better};
use super::walk::{Effort, Layer, descend, used, walk};
use super::{BuildOptions, Graph, check};
use crate::codec::{Matrix, Metric};
use crate::kernel::{self, Kernels};

/// Part of a layer that one batch may be.
const BATCH_SHARE: usize = 50;

/// A graph as it comes from the builder.
#[derive(Debug)]
pub struct Built {
    m: usize,
    /// Layer 0.
    pub links: Vec<u32>,
    /// The layers above, lowest first.
    pub upper: Vec<u32>,
    /// Nodes of each layer above, lowest first.
    pub upper_lens: Vec<u32>,
    /// Nodes that no path from the entry led to, and that were given one.
    pub repaired: usize,
}

impl Built {
    /// The graph, to be searched.
    pub fn graph(&self) -> Graph<'_> {
        Graph::new(self.m, &self.links, &self.upper, &self.upper_lens)
    }
}

/// Bytes that a build takes at its peak, beyond the rows themselves.
pub fn working_bytes(n: usize, m: usize, threads: usize) -> u64 {
    let (links, stamps) = (stride(2 * m) * 4, 2 * threads);
    (n * (links + stamps)) as u64
}

/// Links that a row has room for while building: half as many again as it will keep, so that it is pruned seldom.
const fn stride(cap: usize) -> usize {
    cap + cap / 2
}

/// One layer being built.
struct Builder<'a> {
    matrix: Matrix<'a>,
    kernels: &'static Kernels,
    /// Links of a node in the layers above.
    m: usize,
    /// Links that a node keeps.
    cap: usize,
    /// Links that a new node is given.
    fresh: usize,
    ef: usize,
    scratch: Mutex<Vec<Workspace>>,
}

/// The buffers of one thread.
#[derive(Default)]
struct Workspace {
    walk: Scratch,
    prune: PruneScratch,
    kept: Vec<u32>,
    candidates: Vec<(u32, f32)>,
    scores: Vec<f32>,
}

/// Builds the graph over rows that lie in insertion order ([`super::order`]), `lens` being that order's layers.
///
/// `progress` is told the number of nodes done, of `n` plus the nodes of the layers above.
pub fn build(
    matrix: Matrix,
    metric: Metric,
    options: &BuildOptions,
    lens: &[u32],
    progress: &(dyn Fn(usize) + Sync),
) -> Built {
    let (m, n) = (options.m, matrix.rows());
    let kernels = kernel::best();
    let layer =
        |cap, fresh| Builder { matrix, kernels, m, cap, fresh, ef: options.ef_construction, scratch: Mutex::default() };
    let mut above: Vec<Vec<u32>> = Vec::new(); // highest first
    let mut done = 0;
    for &len in lens.iter().rev() {
        above.push(layer(m, m).build_layer(len as usize, &above, &|batch| progress(done + batch)));
        done += len as usize;
    }
    // Inner product links gather at few items: there, more than 48 at once only cost time.
    let fresh = if metric == Metric::Dot { (2 * m).min(48) } else { 2 * m };
    let links = layer(2 * m, fresh).build_layer(n, &above, &|batch| progress(done + batch));
    let upper = above.iter().rev().flatten().copied().collect();
    let mut built = Built { m, links, upper, upper_lens: lens.to_vec(), repaired: 0 };
    built.repaired = check::repair(&mut built.links, 2 * m, &matrix, kernels);
    built
}

impl Builder<'_> {
    /// Builds the layer of the nodes `0..len` under the layers `above`, highest first.
    fn build_layer(&self, len: usize, above: &[Vec<u32>], progress: &dyn Fn(usize)) -> Vec<u32> {
        let stride = stride(self.cap);
        let mut links: Vec<u32> = Vec::with_capacity(len * stride);
        (0..len as u32).for_each(|node| links.extend(std::iter::repeat_n(node, stride)));
        let covered = above.last().map_or(0, |links| links.len() / self.m);
        let mut inserted = 1.min(len);
        while inserted < len {
            // Until all nodes of the layer above are in, its nodes lead to places that are not: see `enter`.
            let end = if inserted < covered { covered } else { len };
            let batch = inserted.min((len / BATCH_SHARE).max(64)).min(end - inserted);
            let (before, new) = links.split_at_mut(inserted * stride);
            let before_layer = Layer { links: before, cap: stride };
            new[..batch * stride].par_chunks_mut(stride).enumerate().for_each(|(at, row)| {
                self.with_workspace(|space| self.insert((inserted + at) as u32, before_layer, above, row, space));
            });
            let mut back: Vec<u64> = new[..batch * stride]
                .par_chunks(stride)
                .enumerate()
                .flat_map_iter(|(at, row)| {
                    let node = (inserted + at) as u32;
                    used(row, node).iter().map(move |&link| u64::from(link) << 32 | u64::from(node))
                })
                .collect();
            back.par_sort_unstable();
            self.link_back(before, 0, &back);
            inserted += batch;
            progress(inserted);
        }
        self.finish(links)
    }

    /// Finds the neighbours of a new node among those before it and writes them to its row.
    fn insert(&self, node: u32, layer: Layer, above: &[Vec<u32>], row: &mut [u32], space: &mut Workspace) {
        let Workspace { walk: scratch, prune, kept, candidates, scores } = space;
        scratch.query.prepare_row(&self.matrix, node);
        self.enter(node, layer, above, scratch, scores);
        walk(layer, &self.matrix, self.kernels, Effort { hops: self.ef, keep: self.ef }, None, scratch);
        candidates.clear();
        for pool in [&scratch.closed, &scratch.open] {
            candidates.extend(pool.ids.iter().copied().zip(pool.scores.iter().copied()));
        }
        candidates.sort_unstable_by(better);
        candidates.truncate(self.ef);
        select(&self.matrix, self.kernels, node, candidates, self.fresh, prune, kept);
        row[..kept.len()].copy_from_slice(kept);
    }

    /// Opens the walk of a new node where the layers above lead. A node of those layers comes before the place they
    /// lead to may have been inserted: it starts from node 0 and from its own links above.
    fn enter(&self, node: u32, layer: Layer, above: &[Vec<u32>], scratch: &mut Scratch, scores: &mut Vec<f32>) {
        let len = (layer.links.len() / layer.cap) as u32;
        let above = above.iter().map(|links| Layer { links, cap: self.m });
        scratch.visited.restart(len as usize);
        scratch.open.clear();
        scratch.closed.clear();
        let mut first = [0.0];
        self.matrix.score(self.kernels, &scratch.query, &[0], &mut first);
        let mut at = (0, first[0]);
        let lowest = above.clone().last();
        if let Some(own) = lowest.filter(|lowest| (node as usize) < lowest.links.len() / self.m) {
            let links: Vec<u32> =
                used(own.row(node), node).iter().copied().filter(|&link| link < len && link != 0).collect();
            scores.resize(links.len().max(scores.len()), 0.0);
            self.matrix.score(self.kernels, &scratch.query, &links, scores);
            for (&link, &score) in links.iter().zip(&*scores) {
                scratch.visited.insert(link);
                scratch.open.push(link, score);
            }
        } else {
            for layer in above {
                at = descend(layer, &self.matrix, self.kernels, &scratch.query, at, scores).0;
            }
        }
        scratch.visited.insert(at.0);
        scratch.open.push(at.0, at.1);
    }

    /// Adds the links back of a batch: `back` holds `target << 32 | source`, sorted; `rows` begin with node `first`.
    fn link_back(&self, rows: &mut [u32], first: u32, back: &[u64]) {
        let target = |edge: u64| (edge >> 32) as u32;
        let stride = stride(self.cap);
        let middle = back.get(back.len() / 2).map_or(first, |&edge| target(edge));
        let split = back.partition_point(|&edge| target(edge) < middle);
        if back.len() < 1024 || split == 0 {
            self.with_workspace(|space| {
                for group in back.chunk_by(|&a, &b| target(a) == target(b)) {
                    let node = target(group[0]);
                    let row = &mut rows[(node - first) as usize * stride..][..stride];
                    self.add_links(node, row, group.iter().map(|&edge| edge as u32), space);
                }
            });
            return;
        }
        let (left, right) = rows.split_at_mut((middle - first) as usize * stride);
        rayon::join(|| self.link_back(left, first, &back[..split]), || self.link_back(right, middle, &back[split..]));
    }

    /// Appends links to a row, and prunes it when they do not fit.
    fn add_links(&self, node: u32, row: &mut [u32], new: impl ExactSizeIterator<Item = u32>, space: &mut Workspace) {
        let degree = used(row, node).len();
        if degree + new.len() <= row.len() {
            row[degree..].iter_mut().zip(new).for_each(|(place, link)| *place = link);
        } else {
            space.kept.clear();
            space.kept.extend(row[..degree].iter().copied().chain(new));
            self.prune(node, row, space);
        }
    }

    /// Replaces a row by the best `cap` of the nodes in `space.kept`.
    fn prune(&self, node: u32, row: &mut [u32], space: &mut Workspace) {
        let Workspace { walk: scratch, prune, kept, candidates, scores } = space;
        scratch.query.prepare_row(&self.matrix, node);
        scores.resize(kept.len().max(scores.len()), 0.0);
        self.matrix.score(self.kernels, &scratch.query, kept, scores);
        candidates.clear();
        candidates.extend(kept.iter().copied().zip(scores.iter().copied()));
        candidates.sort_unstable_by(better);
        select(&self.matrix, self.kernels, node, candidates, self.cap, prune, kept);
        row[..kept.len()].copy_from_slice(kept);
        row[kept.len()..].fill(node);
    }

    /// Prunes what the slack let grow, and closes the gaps between rows.
    fn finish(&self, mut links: Vec<u32>) -> Vec<u32> {
        let (cap, stride) = (self.cap, stride(self.cap));
        links.par_chunks_mut(stride).enumerate().for_each(|(node, row)| {
            let degree = used(row, node as u32).len();
            if degree > cap {
                self.with_workspace(|space| {
                    space.kept.clear();
                    space.kept.extend_from_slice(&row[..degree]);
                    self.prune(node as u32, row, space);
                });
            }
        });
        let len = links.len() / stride;
        (0..len).for_each(|node| links.copy_within(node * stride..node * stride + cap, node * cap));
        links.truncate(len * cap);
        links.shrink_to_fit();
        links
    }

    fn with_workspace(&self, work: impl FnOnce(&mut Workspace)) {
        let taken = self.scratch.lock().ok().and_then(|mut pool| pool.pop());
        let mut space = taken.unwrap_or_default();
        work(&mut space);
        if let Ok(mut pool) = self.scratch.lock() {
            pool.push(space);
        }
    }
}
