//! Building: layer by layer from the top, node by node in batches that double.
//!
//! A batch is searched in the graph of all nodes before it, in parallel, since that graph does not change meanwhile;
//! then the links back are written, in parallel over disjoint rows, in an order that does not depend on threads. So
//! the graph is a function of the rows and the seed. A batch never exceeds 2 % of the layer, which costs no recall.
//!
//! Memory while building, beyond the rows: 3 `m` links of 4 bytes a node, and 8 bytes more ([`working_bytes`]).

use std::sync::Mutex;

use rayon::prelude::*;

use super::attune::attune;
use super::links::{Layer, Packed, Roomy, push, put, used};
use super::prune::{PruneScratch, select};
use super::scratch::{Scratch, rank};
use super::walk::{Effort, enter, room, walk};
use super::{BuildOptions, Graph, check};
use crate::codec::{Matrix, Query};
use crate::kernel::{self, Kernels};

/// Part of a layer that one batch may be.
const BATCH_SHARE: usize = 50;

/// Nodes chosen together by the walks of a build.
const BEAM: usize = 4;

/// A graph as it comes from the builder: see [`Graph`].
#[derive(Debug)]
pub struct Built {
    len: usize,
    /// Where the links of each row begin, and where those of the last one end.
    pub starts: Vec<u32>,
    /// The links.
    pub links: Vec<u32>,
    /// Nodes of each layer above, lowest first.
    pub upper_lens: Vec<u32>,
    /// Nodes that no path from the entry led to, and that were given one.
    pub repaired: usize,
}

impl Built {
    /// The graph, to be searched.
    pub fn graph(&self) -> Graph<'_> {
        Graph::new(self.len, &self.starts, &self.links, &self.upper_lens)
    }
}

/// Bytes that a build takes at its peak, beyond the rows themselves.
pub fn working_bytes(n: usize, m: usize) -> u64 {
    (n * (stride(2 * m) * 4 + 8)) as u64
}

/// Links that a graph may come to have: every row, of layer 0 and of those above, full with what room it has while
/// building. The layers above have half as wide rows, and fewer than half as many.
pub fn most_links(n: usize, m: usize) -> u64 {
    (n as u64 + n as u64 / 4) * stride(2 * m) as u64
}

/// Numbers in a row while building: its length and room for half as many links again as it will keep, so that it is
/// pruned seldom.
const fn stride(cap: usize) -> usize {
    cap + cap / 2
}

/// One layer being built.
struct Builder<'a> {
    matrix: Matrix<'a>,
    kernels: &'static Kernels,
    /// Links that a node keeps, and that a new one is given.
    cap: usize,
    ef: usize,
    spaces: Workspaces<Workspace>,
}

/// The buffers of one thread.
#[derive(Default)]
struct Workspace {
    walk: Scratch,
    prune: PruneScratch,
    kept: Vec<u32>,
    candidates: Vec<(u32, f32)>,
}

/// Builds the graph over rows that lie in insertion order ([`super::order`]), `lens` being that order's layers.
///
/// `users` are queries prepared for the rows: links are added where their searches miss. `progress` is told the number
/// of nodes and users done, of `n`, the nodes of the layers above, and the users.
pub fn build(
    matrix: Matrix,
    options: &BuildOptions,
    lens: &[u32],
    users: &[Query],
    progress: &(dyn Fn(usize) + Sync),
) -> Built {
    let (m, n) = (options.m, matrix.rows());
    let kernels = kernel::best();
    let layer = |cap| Builder { matrix, kernels, cap, ef: options.ef_construction, spaces: Workspaces::default() };
    let mut above: Vec<Rows> = Vec::new(); // highest first
    let mut done = 0;
    for &len in lens.iter().rev() {
        let builder = layer(m);
        let rows = builder.build_layer(len as usize, &above, &|batch| progress(done + batch));
        above.push(Rows::pack(rows, stride(m)));
        done += len as usize;
    }
    let mut rows = layer(2 * m).build_layer(n, &above, &|batch| progress(done + batch));
    done += n;
    attune(&mut rows, stride(2 * m), &above, &matrix, users, &|users| progress(done + users));
    let repaired = check::repair(&mut rows, stride(2 * m), &matrix, kernels);
    let mut all = Rows::pack(rows, stride(2 * m));
    above.iter().rev().for_each(|layer| all.append(layer));
    Built { len: n, starts: all.starts, links: all.to, upper_lens: lens.to_vec(), repaired }
}

/// Packed rows that are ours.
pub(super) struct Rows {
    starts: Vec<u32>,
    to: Vec<u32>,
}

impl Rows {
    /// Closes the gaps of roomy rows, where they are.
    fn pack(mut rows: Vec<u32>, stride: usize) -> Self {
        let mut starts = Vec::with_capacity(rows.len() / stride + 1);
        let mut end = 0;
        for at in (0..rows.len()).step_by(stride) {
            starts.push(end as u32);
            let degree = rows[at] as usize;
            rows.copy_within(at + 1..at + 1 + degree, end);
            end += degree;
        }
        starts.push(end as u32);
        rows.truncate(end);
        rows.shrink_to_fit();
        Self { starts, to: rows }
    }

    /// Adds the rows of another layer.
    fn append(&mut self, layer: &Self) {
        let before = self.to.len() as u32;
        self.starts.extend(layer.starts[1..].iter().map(|end| before + end));
        self.to.extend_from_slice(&layer.to);
    }

    pub fn layer(&self) -> Packed<'_> {
        Packed { starts: &self.starts, to: &self.to }
    }
}

impl Builder<'_> {
    /// Builds the layer of the nodes `0..len` under the layers `above`, highest first, and returns its roomy rows.
    fn build_layer(&self, len: usize, above: &[Rows], progress: &dyn Fn(usize)) -> Vec<u32> {
        let stride = stride(self.cap);
        let mut rows = vec![0; len * stride];
        let covered = above.last().map_or(0, |above| above.layer().len());
        let mut inserted = 1.min(len);
        while inserted < len {
            // Until all nodes of the layer above are in, its nodes lead to places that are not: see `enter`.
            let end = if inserted < covered { covered } else { len };
            let batch = inserted.min((len / BATCH_SHARE).max(64)).min(end - inserted);
            let (before, new) = rows.split_at_mut(inserted * stride);
            let layer = Roomy { rows: before, stride };
            new[..batch * stride].par_chunks_mut(stride).enumerate().for_each(|(at, row)| {
                self.spaces.with(|space| self.insert((inserted + at) as u32, layer, above, row, space));
            });
            let mut back: Vec<u64> = new[..batch * stride]
                .par_chunks(stride)
                .enumerate()
                .flat_map_iter(|(at, row)| {
                    let node = (inserted + at) as u32;
                    used(row).iter().map(move |&link| u64::from(link) << 32 | u64::from(node))
                })
                .collect();
            back.par_sort_unstable();
            self.link_back(before, 0, &back);
            inserted += batch;
            progress(inserted);
        }
        self.finish(&mut rows);
        rows
    }

    /// Finds the neighbours of a new node among those before it and writes them to its row.
    fn insert(&self, node: u32, layer: Roomy, above: &[Rows], row: &mut [u32], space: &mut Workspace) {
        let Workspace { walk: scratch, prune, kept, candidates } = space;
        scratch.query.prepare_row(&self.matrix, node);
        self.enter(node, layer, above, scratch);
        walk(layer, &self.matrix, self.kernels, Effort { hops: self.ef, keep: self.ef, beam: BEAM }, None, scratch);
        candidates.clear();
        candidates.extend(scratch.met());
        candidates.sort_unstable_by_key(rank);
        candidates.truncate(self.ef);
        select(&self.matrix, self.kernels, node, candidates, self.cap, prune, kept);
        put(row, kept);
    }

    /// Opens the walk of a new node where the layers above lead. A node of those layers comes before the place they
    /// lead to may have been inserted: it starts from node 0 and from its own links above.
    fn enter(&self, node: u32, layer: Roomy, above: &[Rows], scratch: &mut Scratch) {
        let lowest = above.last().map(Rows::layer);
        let Some(own) = lowest.filter(|lowest| (node as usize) < lowest.len()) else {
            return enter(layer.len(), above.iter().map(Rows::layer), &self.matrix, self.kernels, scratch);
        };
        scratch.clear(layer.len());
        let Scratch { visited, open, query, scores, ids, .. } = scratch;
        ids.clear();
        ids.push(0);
        ids.extend(own.links(node).iter().filter(|&&link| link != 0 && (link as usize) < layer.len()));
        room(scores, ids.len());
        self.matrix.score(self.kernels, query, ids, scores);
        for (&id, &score) in ids.iter().zip(&*scores) {
            visited.insert(id);
            open.push(id, score);
        }
    }

    /// Adds the links back of a batch: `back` holds `target << 32 | source`, sorted; `rows` begin with node `first`.
    fn link_back(&self, rows: &mut [u32], first: u32, back: &[u64]) {
        let target = |edge: u64| (edge >> 32) as u32;
        let stride = stride(self.cap);
        let middle = back.get(back.len() / 2).map_or(first, |&edge| target(edge));
        let split = back.partition_point(|&edge| target(edge) < middle);
        if back.len() < 1024 || split == 0 {
            self.spaces.with(|space| {
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
    fn add_links(&self, node: u32, row: &mut [u32], new: impl Iterator<Item = u32>, space: &mut Workspace) {
        let mut new = new.skip_while(|&link| push(row, link));
        let Some(first) = new.next() else { return };
        space.kept.clear();
        let more = new.collect::<Vec<_>>();
        space.kept.extend(used(row).iter().copied().chain([first]).chain(more));
        self.prune(node, row, space);
    }

    /// Replaces a row by the best `cap` of the nodes in `space.kept`.
    fn prune(&self, node: u32, row: &mut [u32], space: &mut Workspace) {
        let Workspace { walk: scratch, prune, kept, candidates } = space;
        let Scratch { query, scores, .. } = scratch;
        query.prepare_row(&self.matrix, node);
        room(scores, kept.len());
        self.matrix.score(self.kernels, query, kept, scores);
        candidates.clear();
        candidates.extend(kept.iter().copied().zip(scores.iter().copied()));
        candidates.sort_unstable_by_key(rank);
        select(&self.matrix, self.kernels, node, candidates, self.cap, prune, kept);
        put(row, kept);
    }

    /// Prunes what the slack let grow.
    fn finish(&self, rows: &mut [u32]) {
        rows.par_chunks_mut(stride(self.cap)).enumerate().for_each(|(node, row)| {
            if used(row).len() > self.cap {
                self.spaces.with(|space| {
                    space.kept.clear();
                    space.kept.extend_from_slice(used(row));
                    self.prune(node as u32, row, space);
                });
            }
        });
    }
}

/// Buffers that threads take and give back.
#[derive(Default)]
pub(super) struct Workspaces<T>(Mutex<Vec<T>>);

impl<T: Default> Workspaces<T> {
    /// Works with buffers that nobody else has.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        let taken = self.0.lock().ok().and_then(|mut pool| pool.pop());
        let mut space = taken.unwrap_or_default();
        let result = work(&mut space);
        if let Ok(mut pool) = self.0.lock() {
            pool.push(space);
        }
        result
    }
}
