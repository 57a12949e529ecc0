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

    /// Takes in all of another pool, which is empty then.
    pub fn append(&mut self, other: &mut Self) {
        self.ids.append(&mut other.ids);
        self.scores.append(&mut other.scores);
    }

    /// The candidates, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
        self.ids.iter().copied().zip(self.scores.iter().copied())
    }

    /// Takes out the candidate at `at`; the last one takes its place.
    pub fn take(&mut self, at: usize) -> (u32, f32) {
        (self.ids.swap_remove(at), self.scores.swap_remove(at))
    }

    /// Drops those from place `from` on whose id fails a test.
    pub fn keep_from(&mut self, from: usize, passes: impl Fn(u32) -> bool) {
        let mut kept = from;
        for at in from..self.len() {
            let (id, score) = (self.ids[at], self.scores[at]);
            (self.ids[kept], self.scores[kept]) = (id, score);
            kept += usize::from(passes(id));
        }
        self.ids.truncate(kept);
        self.scores.truncate(kept);
    }

    /// The candidates, best first; equals by id, so that the order is the same on every machine.
    pub fn sort_into(&self, out: &mut Vec<(u32, f32)>) {
        out.clear();
        out.extend(self.iter());
        out.sort_unstable_by_key(rank);
    }
}

/// What candidates are sorted by: larger scores first, then smaller ids. As a number, since comparing two of them takes
/// no branch.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature of a key")]
pub(super) fn rank(&(id, score): &(u32, f32)) -> u64 {
    let bits = score.to_bits();
    // Bits of floats rise with positive floats and fall with negative ones.
    let falling = if score.is_sign_negative() { bits } else { !bits & !(1 << 31) };
    u64::from(falling) << 32 | u64::from(id)
}

/// Which nodes a walk has met: a bit a node, and the nodes in the order they were met, so that forgetting them costs as
/// much as meeting them did, however large the graph.
///
/// The bits of a million nodes fit the second level cache, where a stamp a node would not.
#[derive(Debug, Default)]
pub(super) struct Visited {
    bits: Vec<u64>,
    /// The first `len` are the nodes met; what follows is room.
    log: Vec<u32>,
    len: usize,
}

impl Visited {
    /// Forgets everything and makes room for `nodes`.
    pub fn restart(&mut self, nodes: usize) {
        self.log[..self.len].iter().for_each(|&node| self.bits[node as usize / 64] = 0);
        self.len = 0;
        if self.bits.len() < nodes.div_ceil(64) {
            self.bits.resize(nodes.div_ceil(64), 0);
        }
    }

    /// How many nodes were met.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The nodes met after the first `from`, in that order.
    pub fn since(&self, from: usize) -> &[u32] {
        &self.log[from..self.len]
    }

    /// Whether a node was met.
    pub fn has(&self, node: u32) -> bool {
        self.bits[node as usize / 64] >> (node % 64) & 1 == 1
    }

    /// Marks a node; whether it was new.
    pub fn insert(&mut self, node: u32) -> bool {
        let before = self.len;
        self.insert_all(&[node]);
        self.len > before
    }

    /// Marks nodes, all below the number given to [`Visited::restart`].
    #[inline]
    pub fn insert_all(&mut self, nodes: &[u32]) {
        let room = self.len + nodes.len();
        if self.log.len() < room {
            self.log.resize(2 * room, 0);
        }
        // Slices of its own: where they lie is then not looked up again after every write.
        let (bits, log, mut len) = (&mut self.bits[..], &mut self.log[..], self.len);
        for &node in nodes {
            debug_assert!((node as usize) < bits.len() * 64);
            // SAFETY: links are below the number of nodes: the builder makes them so and `check::structure` holds
            // files to it; `len` never passes `room`, which the log has.
            unsafe {
                let word = bits.get_unchecked_mut(node as usize / 64);
                let new = !(*word >> (node % 64)) & 1;
                *word |= 1 << (node % 64);
                *log.get_unchecked_mut(len) = node;
                len += new as usize;
            }
        }
        self.len = len;
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
    /// Nodes to score that no walk met: of a scan, or to score again.
    pub(super) ids: Vec<u32>,
    /// Those after them, of a scan.
    pub(super) coming: Vec<u32>,
    /// Of the nodes scored last.
    pub(super) scores: Vec<f32>,
    pub(super) query: Query,
    /// Nodes that may not be answered, a bit each; clear between searches.
    pub(super) barred: Vec<u64>,
    /// Expanded nodes of the last walk that pass its gate.
    pub(super) passed: usize,
    /// Expanded nodes that are barred.
    pub(super) over: usize,
    /// Distances and hops of the last walk.
    pub(super) distances: usize,
    pub(super) hops: usize,
}

impl Scratch {
    /// Forgets the last walk and makes room for one among `nodes`.
    pub(super) fn clear(&mut self, nodes: usize) {
        self.visited.restart(nodes);
        [&mut self.open, &mut self.closed, &mut self.hits].into_iter().for_each(Pool::clear);
    }

    /// What the last walk met and kept, in no order.
    pub(super) fn met(&self) -> impl Iterator<Item = (u32, f32)> {
        self.closed.iter().chain(self.open.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_forgets_all_that_was_met_and_nothing_else_is_marked() {
        let mut visited = Visited::default();
        for nodes in [3, 3, 200, 70, 1000] {
            visited.restart(nodes);
            let last = nodes as u32 - 1;
            visited.insert_all(&[last, 0, last, 1, 0]);
            assert_eq!(visited.since(0), [last, 0, 1], "of {nodes}");
            assert_eq!((0..nodes as u32).filter(|&node| visited.has(node)).count(), 3);
            assert!(!visited.insert(0) && !visited.insert(last));
            assert_eq!((visited.len(), visited.since(2)), (3, &[1][..]));
        }
    }
}
