//! What a graph must be before it is searched, and a path to every node.

use std::fmt;

use super::links::{Layer, Roomy, push, used};
use super::order::MAX_LAYERS;
use super::scratch::{Scratch, rank};
use super::walk::{Effort, begin, walk};
use super::{Graph, MOST_NODES};
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
    if graph.len != n {
        return broken(format!("expected {n} nodes, got {}", graph.len));
    }
    if n > MOST_NODES {
        return broken(format!("expected at most {MOST_NODES} nodes, got {n}"));
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
    let rows = n + graph.upper_lens.iter().map(|&len| len as usize).sum::<usize>();
    let (first, last) = (graph.starts.first(), graph.starts.last());
    if graph.starts.len() != rows + 1 || first != Some(&0) || last.map(|&end| end as usize) != Some(graph.to.len()) {
        return broken(format!("{} starts of rows for {rows} rows of {} links", graph.starts.len(), graph.to.len()));
    }
    if !graph.starts.par_windows(2).all(|pair| pair[0] <= pair[1]) {
        return broken("a row of links that ends before it begins".into());
    }
    for layer in graph.upper_layers().chain([graph.base()]) {
        let ends = [layer.starts[0], layer.starts[layer.len()]].map(|end| end as usize);
        let links = &graph.to[ends[0]..ends[1]];
        let top = links.par_chunks(1 << 16).map(|chunk| chunk.iter().copied().max().unwrap_or(0)).max();
        if let Some(link) = top.filter(|&link| link as usize >= layer.len()) {
            return broken(format!("a link to node {link} in a layer of {}", layer.len()));
        }
    }
    Ok(())
}

/// Number of nodes that no path of layer 0 leads to from the entry.
pub fn unreachable(graph: &Graph) -> usize {
    let mut reached = Reached::new(graph.len());
    reached.spread(graph.base(), 0);
    graph.len() - reached.count
}

/// Gives every node that cannot be reached a link to it, and returns how many needed one.
///
/// Inner product needs this most: the links back to an item of small norm lose against the large ones in every row.
/// The link is put where a search for the node ends, in the best node with a free place, so that nothing is displaced
/// and the walks of ordinary queries meet it late. Where no place is free the node is put between two linked ones.
pub(super) fn repair(rows: &mut [u32], stride: usize, matrix: &Matrix, kernels: &Kernels) -> usize {
    let n = rows.len() / stride;
    let mut reached = Reached::new(n);
    reached.spread(Roomy { rows, stride }, 0);
    let mut scratch = Scratch::default();
    let mut near = Vec::new();
    let mut repaired = 0;
    for node in 0..n as u32 {
        if reached.nodes[node as usize] {
            continue;
        }
        find(node, Roomy { rows, stride }, matrix, kernels, &mut scratch, &mut near);
        let row_of = |at: u32| at as usize * stride..(at as usize + 1) * stride;
        if !near.iter().any(|&(at, _)| push(&mut rows[row_of(at)], node)) {
            insert_between(rows, stride, near[0].0, node);
        }
        reached.spread(Roomy { rows, stride }, node);
        repaired += 1;
    }
    repaired
}

/// The reachable nodes that a search for `node` ends at, best first; never empty, as the entry is one.
fn find(
    node: u32,
    layer: Roomy,
    matrix: &Matrix,
    kernels: &Kernels,
    scratch: &mut Scratch,
    near: &mut Vec<(u32, f32)>,
) {
    scratch.query.prepare_row(matrix, node);
    scratch.clear(layer.len());
    scratch.ids.clear();
    scratch.ids.push(0);
    begin(1, matrix, kernels, scratch);
    walk(layer, matrix, kernels, Effort { hops: 48, keep: 128, beam: 4 }, None, scratch);
    near.clear();
    near.extend(scratch.met());
    near.sort_unstable_by_key(rank);
}

/// Replaces the last link of `at`, to some `next`, by one to `node`, and has `node` link to `next`: all that was
/// reached stays so, whatever stood in the row of `node`.
fn insert_between(rows: &mut [u32], stride: usize, at: u32, node: u32) {
    let row = &mut rows[at as usize * stride..][..stride];
    let next = std::mem::replace(&mut row[row[0] as usize], node);
    let row = &mut rows[node as usize * stride..][..stride];
    if !used(row).contains(&next) && !push(row, next) {
        row[stride - 1] = next;
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
    fn spread(&mut self, layer: impl Layer, from: u32) {
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
            layer.row(node).iter().for_each(|&link| meet(link, queue));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_nodes_than_walks_can_mark_are_refused() {
        let broken = |n| structure(&Graph::new(n, &[], &[], &[]), n).unwrap_err().to_string();
        assert!(broken(MOST_NODES + 1).starts_with("expected at most 2147483647 nodes"), "{}", broken(MOST_NODES + 1));
        assert!(broken(MOST_NODES).contains("starts of rows"));
    }
}
