//! What one walk needs, kept from one to the next so that a query allocates nothing.

use crate::codec::Query;

/// Candidates as two arrays, so that scores can be scanned by vector instructions.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub ids: Vec<u32>,
    pub scores: Vec<f32>,
}

impl Pool {
    pub fn clear(&mut self) {
        self.ids.clear();
        self.scores.clear();
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn push(&mut self, id: u32, score: f32) {
        self.ids.push(id);
        self.scores.push(score);
    }

    /// Takes out the candidate at `at`; the last one takes its place.
    pub fn take(&mut self, at: usize) -> (u32, f32) {
        (self.ids.swap_remove(at), self.scores.swap_remove(at))
    }

    /// The candidates, best first; equals by id, so that the order is the same on every machine.
    pub fn sort_into(&self, out: &mut Vec<(u32, f32)>) {
        out.clear();
        out.extend(self.ids.iter().copied().zip(self.scores.iter().copied()));
        out.sort_unstable_by(better);
    }
}

/// Larger scores first, then smaller ids.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature of a comparison")]
pub(super) fn better(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Which nodes a walk has met: a stamp a node, so that forgetting them all is one addition.
#[derive(Debug, Default)]
pub(super) struct Visited {
    stamps: Vec<u16>,
    now: u16,
}

impl Visited {
    /// Forgets everything and makes room for `nodes`.
    pub fn restart(&mut self, nodes: usize) {
        if self.stamps.len() < nodes {
            self.stamps.resize(nodes, 0);
        }
        self.now = self.now.wrapping_add(1);
        if self.now == 0 {
            self.stamps.fill(0);
            self.now = 1;
        }
    }

    /// Marks a node; whether it was new.
    #[inline]
    pub fn insert(&mut self, node: u32) -> bool {
        let stamp = &mut self.stamps[node as usize];
        std::mem::replace(stamp, self.now) != self.now
    }

    /// Writes the nodes that are new to the front of `fresh`, marks them, and returns how many. `fresh` has room for
    /// all of `nodes`, and every node is below the number given to [`Visited::restart`].
    #[inline]
    pub fn insert_all(&mut self, nodes: &[u32], fresh: &mut [u32]) -> usize {
        assert!(fresh.len() >= nodes.len());
        let mut count = 0;
        for &node in nodes {
            debug_assert!((node as usize) < self.stamps.len());
            // SAFETY: links are below the number of nodes: the builder makes them so and `check::structure` holds
            // files to it; `count` never passes the number of nodes seen, for which there is room.
            unsafe {
                let stamp = self.stamps.get_unchecked_mut(node as usize);
                *fresh.get_unchecked_mut(count) = node;
                count += usize::from(*stamp != self.now);
                *stamp = self.now;
            }
        }
        count
    }
}

/// The buffers of one walk. Make one a thread and reuse it.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) visited: Visited,
    /// Met, not yet expanded.
    pub(super) open: Pool,
    /// Expanded.
    pub(super) closed: Pool,
    /// Passing the filter; used only when there is one.
    pub(super) hits: Pool,
    /// The other half of a pool that is being thinned.
    pub(super) spare: Pool,
    /// Neighbours to score in this step.
    pub(super) fresh: Pool,
    pub(super) query: Query,
    /// Distances and hops of the last walk.
    pub(super) distances: usize,
    pub(super) hops: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_forgotten_when_the_counter_wraps() {
        let mut visited = Visited::default();
        for round in 0..=u32::from(u16::MAX) + 2 {
            visited.restart(3);
            let mut fresh = [0; 3];
            assert_eq!(visited.insert_all(&[2, 0, 2], &mut fresh), 2, "round {round}");
            assert_eq!(fresh[..2], [2, 0]);
            assert!(!visited.insert(0) && visited.insert(1));
        }
    }
}
