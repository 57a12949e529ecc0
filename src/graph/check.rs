//! What a graph must be before it is searched, and a path to every node.

use std::fmt;

use super::Graph;
use super::order::MAX_LAYERS;
use super::scratch::Scratch;
use super::walk::{Effort, Layer, used, walk};
use crate::codec::Matrix;
use crate::kernel::Kernels;

/// How a graph is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks all that the search relies on: the lengths fit `n` nodes, layers are prefixes that shrink, and every link is
/// to a node of its layer.
pub fn structure(graph: &Graph, n: usize) -> Result<(), Broken> {
    use rayon::prelude::*;
    let broken = |what: String| Err(Broken(what));
    if graph.cap == 0 || graph.links.len() != n * graph.cap {
        return broken(format!("expected {n} nodes of {} links, got {} links", graph.cap, graph.links.len()));
    }
    if graph.upper_lens.len() > MAX_LAYERS {
        return broken(format!("expected at most {MAX_LAYERS} layers above, got {}", graph.upper_lens.len()));
    }
    let mut below = n;
    for &len in graph.upper_lens {
        if len == 0 || len as usize > below {
            return broken(format!("a layer of {len} nodes above one of {below}"));
        }
        below = len as usize;
    }
    let upper: usize = graph.upper_lens.iter().map(|&len| len as usize * graph.upper_cap).sum();
    if graph.upper.len() != upper {
        return broken(format!("expected {upper} links in the layers above, got {}", graph.upper.len()));
    }
    let layers = graph.upper_layers().chain([graph.base()]);
    for layer in layers {
        let len = layer.links.len() / layer.cap;
        let top = layer.links.par_chunks(1 << 16).map(|chunk| chunk.iter().copied().max().unwrap_or(0)).max();
        if let Some(link) = top.filter(|&link| link as usize >= len) {
            return broken(format!("a link to node {link} in a layer of {len}"));
        }
    }
    Ok(())
}

/// Number of nodes that no path of layer 0 leads to from the entry.
pub fn unreachable(graph: &Graph) -> usize {
    let mut reached = Reached::new(graph.len());
    reached.spread(graph.links, graph.cap, 0);
    graph.len() - reached.count
}

/// Gives every node that cannot be reached a link to it, and returns how many needed one.
///
/// Inner product needs this most: the links back to an item of small norm lose against the large ones in every row.
/// The link is put where a search for the node ends, in the best node with a free place, so that nothing is displaced
/// and the walks of ordinary queries meet it late. Where no place is free the node is put between two linked ones.
pub(super) fn repair(links: &mut [u32], cap: usize, matrix: &Matrix, kernels: &Kernels) -> usize {
    let n = links.len() / cap;
    let mut reached = Reached::new(n);
    reached.spread(links, cap, 0);
    let mut scratch = Scratch::default();
    let mut near = Vec::new();
    let mut repaired = 0;
    for node in 0..n as u32 {
        if reached.nodes[node as usize] {
            continue;
        }
        find(node, Layer { links, cap }, matrix, kernels, &mut scratch, &mut near);
        let degree = |at: u32, links: &[u32]| used(&links[at as usize * cap..][..cap], at).len();
        let free = near.iter().find(|&&(at, _)| degree(at, links) < cap).map(|&(at, _)| at);
        if let Some(at) = free {
            links[at as usize * cap + degree(at, links)] = node;
        } else {
            insert_between(links, cap, near[0].0, node);
        }
        reached.spread(links, cap, node);
        repaired += 1;
    }
    repaired
}

/// The reachable nodes that a search for `node` ends at, best first; never empty, as the entry is one.
fn find(
    node: u32,
    layer: Layer,
    matrix: &Matrix,
    kernels: &Kernels,
    scratch: &mut Scratch,
    near: &mut Vec<(u32, f32)>,
) {
    scratch.query.prepare_row(matrix, node);
    scratch.visited.restart(layer.links.len() / layer.cap);
    scratch.open.clear();
    scratch.closed.clear();
    let mut score = [0.0];
    matrix.score(kernels, &scratch.query, &[0], &mut score);
    scratch.visited.insert(0);
    scratch.open.push(0, score[0]);
    walk(layer, matrix, kernels, Effort { hops: 48, keep: 128 }, None, scratch);
    let Scratch { open, closed, .. } = scratch;
    for (&id, &score) in closed.ids.iter().zip(&closed.scores) {
        open.push(id, score);
    }
    open.sort_into(near);
}

/// Replaces the last link of `at`, to some `next`, by one to `node`, and has `node` link to `next`: all that was
/// reached stays so, whatever stood in the row of `node`.
fn insert_between(links: &mut [u32], cap: usize, at: u32, node: u32) {
    let last = at as usize * cap + used(&links[at as usize * cap..][..cap], at).len() - 1;
    let next = std::mem::replace(&mut links[last], node);
    let row = &mut links[node as usize * cap..][..cap];
    let degree = used(row, node).len();
    if !row[..degree].contains(&next) {
        row[degree.min(cap - 1)] = next;
    }
}

/// What a breadth-first search has met.
struct Reached {
    nodes: Vec<bool>,
    count: usize,
    queue: Vec<u32>,
}

impl Reached {
    fn new(n: usize) -> Self {
        Self { nodes: vec![false; n], count: 0, queue: Vec::new() }
    }

    /// Marks all that can be reached from a node.
    fn spread(&mut self, links: &[u32], cap: usize, from: u32) {
        let Self { nodes, count, queue } = self;
        let mut meet = |node: u32, queue: &mut Vec<u32>| {
            if let Some(reached) = nodes.get_mut(node as usize).filter(|reached| !**reached) {
                *reached = true;
                *count += 1;
                queue.push(node);
            }
        };
        meet(from, queue);
        while let Some(node) = queue.pop() {
            links[node as usize * cap..][..cap].iter().for_each(|&link| meet(link, queue));
        }
    }
}
