//! Links that queries want: where searches by known users miss an item, the graph is given a link to it.
//!
//! Users are not distributed as items are, so a graph of what items have to do with each other lacks ways that users
//! need. Each known user is searched for twice, with much effort and with little. An item among the best of the first
//! that the second never met is linked, both ways, with the best item before it that the second did find: so the next
//! user like this one meets it. No link is displaced; a row that is full stays as it is. After Chen et al., RoarGraph
//! (arXiv 2408.08933), and Hua et al., NGFix
//! (arXiv 2510.22316), simplified to what was measured to pay.

use rayon::prelude::*;

use super::build::{Rows, Workspaces};
use super::links::{Layer, Roomy, push, used};
use super::scratch::{Scratch, rank};
use super::walk::{Effort, enter, walk};
use crate::codec::{Matrix, Query};
use crate::kernel;

/// Best items of each user that are made easy to find.
const TOP: usize = 10;

/// Users searched for before the links that they want are added.
const BATCH: usize = 8192;

/// Nodes expanded with much effort, which stands for the truth, and with little.
const MUCH: Effort = Effort { hops: 300, keep: TOP, beam: 4 };
const LITTLE: Effort = Effort { hops: 64, keep: TOP, beam: 4 };

/// Adds links to the rows of a layer for the users given; `progress` is told how many of them were searched for.
pub(super) fn attune(
    rows: &mut [u32],
    stride: usize,
    above: &[Rows],
    matrix: &Matrix,
    users: &[Query],
    progress: &dyn Fn(usize),
) {
    let kernels = kernel::best();
    let spaces = Workspaces::<Scratch>::default();
    for (at, batch) in users.chunks(BATCH).enumerate() {
        let layer = Roomy { rows, stride };
        let seek = |user: &Query, effort: Effort, scratch: &mut Scratch| {
            scratch.query.clone_from(user);
            enter(layer.len(), above.iter().map(Rows::layer), matrix, kernels, scratch);
            walk(layer, matrix, kernels, effort, None, scratch);
        };
        let search = |user| {
            spaces.with(|scratch| {
                seek(user, MUCH, scratch);
                let best = best(scratch);
                seek(user, LITTLE, scratch);
                missed(&best, scratch)
            })
        };
        let wanted: Vec<(u32, u32)> = batch.par_iter().flat_map_iter(search).collect();
        for (from, to) in wanted.into_iter().flat_map(|(from, to)| [(from, to), (to, from)]) {
            let row = &mut rows[from as usize * stride..][..stride];
            if !used(row).contains(&to) {
                push(row, to);
            }
        }
        progress(at * BATCH + batch.len());
    }
}

/// The best items that a walk met.
fn best(scratch: &Scratch) -> Vec<u32> {
    let mut met: Vec<(u32, f32)> = scratch.met().collect();
    met.sort_unstable_by_key(rank);
    met.truncate(TOP);
    met.into_iter().map(|(id, _)| id).collect()
}

/// Links from what a walk met of the best items to what it did not.
fn missed(best: &[u32], scratch: &Scratch) -> Vec<(u32, u32)> {
    let mut links = Vec::new();
    let mut last = None;
    for &item in best {
        if scratch.visited.has(item) {
            last = Some(item);
        } else if let Some(from) = last.or(scratch.closed.ids().first().copied()) {
            links.push((from, item));
            last = Some(item);
        }
    }
    links
}
