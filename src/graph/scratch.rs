//! What one walk needs, kept from one to the next so that a query allocates nothing.

use crate::codec::Query;
use crate::kernel::Kernels;

/// Candidates as two arrays, so that scores can be scanned by vector instructions.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// The first `len` of each are the candidates; what follows is room.
    ids: Vec<u32>,
    scores: Vec<f32>,
    len: usize,
}

impl Pool {
    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn ids(&self) -> &[u32] {
        &self.ids[..self.len]
    }

    pub fn ids_mut(&mut self) -> &mut [u32] {
        &mut self.ids[..self.len]
    }

    pub fn scores(&self) -> &[f32] {
        &self.scores[..self.len]
    }

    pub fn push(&mut self, id: u32, score: f32) {
        self.reserve(1);
        (self.ids[self.len], self.scores[self.len]) = (id, score);
        self.len += 1;
    }

    /// Appends the candidates above `floor`.
    pub fn append_above(&mut self, kernels: &Kernels, floor: f32, ids: &[u32], scores: &[f32]) {
        self.reserve(ids.len());
        let (rest, rest_scores) = (&mut self.ids[self.len..], &mut self.scores[self.len..]);
        self.len += kernels.append_above(floor, ids, scores, rest, rest_scores);
    }

    /// Appends all candidates of another pool.
    pub fn extend(&mut self, other: &Self) {
        self.reserve(other.len);
        self.ids[self.len..][..other.len].copy_from_slice(other.ids());
        self.scores[self.len..][..other.len].copy_from_slice(other.scores());
        self.len += other.len;
    }

    /// Makes room for `more` candidates.
    fn reserve(&mut self, more: usize) {
        let room = self.len + more;
        if self.ids.len() < room {
            self.ids.resize(2 * room, 0);
            self.scores.resize(2 * room, 0.0);
        }
    }

    /// The candidates, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f32)> {
        self.ids().iter().copied().zip(self.scores().iter().copied())
    }

    /// Takes out the candidates at some places; the last ones take their places.
    pub fn take(&mut self, places: &[u32]) {
        // Marked first, so that none of them is put in the place of another.
        places.iter().for_each(|&at| self.scores[at as usize] = f32::NEG_INFINITY);
        for &at in places {
            while self.scores().last() == Some(&f32::NEG_INFINITY) {
                self.len -= 1;
            }
            if (at as usize) < self.len {
                self.len -= 1;
                (self.ids[at as usize], self.scores[at as usize]) = (self.ids[self.len], self.scores[self.len]);
            }
        }
    }

    /// Drops those from place `from` on that fail a test, which is told place, id and score.
    #[inline(always)]
    pub fn keep_from(&mut self, from: usize, mut passes: impl FnMut(usize, u32, f32) -> bool) {
        let (ids, scores) = (&mut self.ids[..self.len], &mut self.scores[..self.len]);
        let mut kept = from;
        for at in from..ids.len() {
            let (id, score) = (ids[at], scores[at]);
            (ids[kept], scores[kept]) = (id, score);
            kept += usize::from(passes(at, id, score));
        }
        self.len = kept;
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

/// Words of a run that are cleared in the time of one that lies anywhere.
const FILLED_PER_CLEARED: usize = 8;

impl Visited {
    /// Forgets everything and makes room for `nodes`.
    pub fn restart(&mut self, nodes: usize) {
        if self.len < self.bits.len() / FILLED_PER_CLEARED {
            self.log[..self.len].iter().for_each(|&node| self.bits[node as usize / 64] = 0);
        } else {
            self.bits.fill(0);
        }
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
        self.insert_all(&[node], |_| ());
        self.len > before
    }

    /// Marks nodes, all below the number given to [`Visited::restart`], and tells `met` of each before.
    #[inline(always)]
    pub fn insert_all(&mut self, nodes: &[u32], met: impl Fn(u32)) {
        let room = self.len + nodes.len();
        if self.log.len() < room {
            self.log.resize(2 * room, 0);
        }
        // Slices of its own: where they lie is then not looked up again after every write.
        let (bits, log, mut len) = (&mut self.bits[..], &mut self.log[..], self.len);
        for &node in nodes {
            met(node);
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
    /// What the finer codec adds to them.
    pub(super) rest_scores: Vec<f32>,
    pub(super) query: Query,
    /// Nodes that may not be answered, a bit each; clear between searches.
    pub(super) barred: Vec<u64>,
    /// Expanded nodes of the last walk that pass its gate.
    pub(super) passed: usize,
    /// Expanded nodes that are barred.
    pub(super) over: usize,
    /// Candidates that are, expanded or not.
    pub(super) met_barred: usize,
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
            visited.insert_all(&[last, 0, last, 1, 0], |_| ());
            assert_eq!(visited.since(0), [last, 0, 1], "of {nodes}");
            assert_eq!((0..nodes as u32).filter(|&node| visited.has(node)).count(), 3);
            assert!(!visited.insert(0) && !visited.insert(last));
            assert_eq!((visited.len(), visited.since(2)), (3, &[1][..]));
        }
    }
    #[test]
    fn taking_leaves_the_others() {
        for places in [&[0_u32, 1, 2][..], &[9, 0], &[0, 9], &[8, 9, 7], &[3], &[], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            let mut pool = Pool::default();
            (0..10).for_each(|id| pool.push(id, id as f32));
            pool.take(places);
            let mut left = Vec::new();
            pool.sort_into(&mut left);
            let expected = (0..10).rev().filter(|id| !places.contains(id)).map(|id| (id, id as f32));
            assert_eq!(left, expected.collect::<Vec<_>>(), "without {places:?}");
        }
    }
}
