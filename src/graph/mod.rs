//! HNSW: a graph over encoded rows that is walked from node to better node.
//!
//! **Nodes are numbered by insertion rank.** The builder's order is drawn from the seed with the highest levels first,
//! so that layer `l` holds exactly the nodes `0..layer_len(l)`: the layers above are prefixes, no map between numbers
//! exists, and node 0 is the entry. Whoever stores an index stores its rows in this order ([`order`]).
//!
//! **The layers above may be missing.** Most searches begin as well at the best of a sample, and sooner: the first nodes
//! are one. Whoever keeps a graph finds out ([`Graph::new`] takes any number of layers) and keeps those that pay.
//!
//! Layers are searched by [`search`] and built by [`mod@build`], which run the same walk: an unsorted pool, its best
//! few nodes expanded together, all their unseen neighbours scored by one kernel call.
//!
//! The graph is that of Malkov and Yashunin (arXiv 1603.09320); nodes are inserted in batches that double
//! (ParlayANN, arXiv 2305.04359), so that the result depends on the seed alone and never on the number of threads.

mod attune;
mod batch;
pub mod build;
pub mod check;
pub mod exact;
mod links;
pub mod order;
mod prune;
mod scratch;
pub mod search;
mod walk;

use crate::codec::Metric;
use links::Packed;

pub use build::{Built, build};
pub use scratch::Scratch;
pub use search::{Filter, SearchOptions, SearchStats, Searcher, Tuning};

/// Nodes of a graph at most: what walks keep of one is its number and a bit.
pub const MOST_NODES: usize = i32::MAX as usize;

/// How a graph is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Links of a node in the upper layers; layer 0 has twice as many. 4 to 128.
    pub m: usize,
    /// Nodes expanded when the neighbours of a new node are sought.
    pub ef_construction: usize,
    /// Draws levels and order.
    pub seed: u64,
}

impl BuildOptions {
    /// Defaults for a metric.
    ///
    /// - `m` is 16, as everywhere. Inner product has 24: links point at the few items of large norm, and the searches
    ///   that need recall beyond 0.98 need more of them (at 0.99, 16 takes a quarter more distances and 32 as many).
    /// - `ef_construction` is 200: 100 halves the build and costs 15 to 20 % of the queries per second at equal recall.
    pub fn new(metric: Metric) -> Self {
        Self { m: if metric == Metric::Dot { 24 } else { 16 }, ef_construction: 200, seed: 1 }
    }
}

/// A built graph, wherever its numbers lie: the rows of layer 0, then those of the layers above, lowest first, packed
/// without gaps.
#[derive(Clone, Copy, Debug)]
pub struct Graph<'a> {
    /// Nodes of layer 0.
    len: usize,
    /// Where the links of each row begin, and where those of the last one end.
    starts: &'a [u32],
    to: &'a [u32],
    /// Nodes of each layer above, lowest first.
    upper_lens: &'a [u32],
}

impl<'a> Graph<'a> {
    /// A view of the numbers of a graph of `len` nodes. They are not checked: see [`check::structure`].
    pub fn new(len: usize, starts: &'a [u32], to: &'a [u32], upper_lens: &'a [u32]) -> Self {
        Self { len, starts, to, upper_lens }
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The links of a node in layer 0.
    pub fn links(&self, node: u32) -> &'a [u32] {
        self.base().links(node)
    }

    /// Mean number of links in layer 0.
    pub fn mean_degree(&self) -> f64 {
        let links = self.starts.get(self.len).copied().unwrap_or(0);
        f64::from(links) / self.len.max(1) as f64
    }

    /// The layers above layer 0, highest first.
    fn upper_layers(&self) -> impl Iterator<Item = Packed<'a>> + Clone {
        let Self { starts, to, .. } = *self;
        let mut end = starts.len() - 1;
        self.upper_lens.iter().rev().map(move |&len| {
            let last = end;
            end -= len as usize;
            Packed { starts: &starts[end..=last], to }
        })
    }

    /// What finding out where to begin takes: rows scored as they lie, and layers descended through.
    pub fn entry(&self) -> (usize, usize) {
        let layers = self.upper_layers().filter(|layer| !walk::is_small(layer)).count();
        (walk::scanned(self.len, self.upper_layers()), layers)
    }

    fn base(&self) -> Packed<'a> {
        Packed { starts: &self.starts[..=self.len], to: self.to }
    }
}

#[cfg(test)]
mod tests;
