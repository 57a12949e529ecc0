//! Where links lie: packed as they are searched and stored, roomy while they are built.

use crate::kernel;

/// The links of one layer.
pub(super) trait Layer: Copy {
    /// Number of nodes.
    fn len(&self) -> usize;

    /// The links of a node.
    fn row(&self, node: u32) -> &[u32];

    /// Asks for what finding the row of a node reads.
    fn ask(&self, node: u32);

    /// Asks for the row itself.
    fn prefetch(&self, node: u32);
}

/// Rows one after another without a gap: node `i` has the links `to[starts[i]..starts[i + 1]]`.
///
/// Half the rows of an inner product graph use less than a third of what they may: packed they take a third of the
/// memory, and of the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed<'a> {
    pub starts: &'a [u32],
    pub to: &'a [u32],
}

impl<'a> Packed<'a> {
    pub fn links(&self, node: u32) -> &'a [u32] {
        let (start, end) = (self.starts[node as usize], self.starts[node as usize + 1]);
        &self.to[start as usize..end as usize]
    }
}

impl Layer for Packed<'_> {
    fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    #[inline(always)]
    fn row(&self, node: u32) -> &[u32] {
        self.links(node)
    }

    #[inline(always)]
    fn ask(&self, node: u32) {
        kernel::prefetch(&self.starts[node as usize..][..2]);
    }

    #[inline(always)]
    fn prefetch(&self, node: u32) {
        kernel::prefetch(self.row(node));
    }
}

/// Rows of a fixed length with room to grow: the number of links, then the links.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roomy<'a> {
    pub rows: &'a [u32],
    pub stride: usize,
}

impl Layer for Roomy<'_> {
    fn len(&self) -> usize {
        self.rows.len() / self.stride
    }

    #[inline(always)]
    fn row(&self, node: u32) -> &[u32] {
        used(&self.rows[node as usize * self.stride..][..self.stride])
    }

    #[inline(always)]
    fn ask(&self, node: u32) {
        // Its length is in the row: what most rows use is asked for at once.
        kernel::prefetch(&self.rows[node as usize * self.stride..][..self.stride * 2 / 3]);
    }

    #[inline(always)]
    fn prefetch(&self, _: u32) {}
}

/// The links of a roomy row.
#[inline(always)]
pub(super) fn used(row: &[u32]) -> &[u32] {
    &row[1..][..row[0] as usize]
}

/// Puts links in a roomy row in place of what it held.
pub(super) fn put(row: &mut [u32], links: &[u32]) {
    row[0] = links.len() as u32;
    row[1..][..links.len()].copy_from_slice(links);
}

/// Adds a link to a roomy row; whether there was room.
pub(super) fn push(row: &mut [u32], link: u32) -> bool {
    let at = row[0] as usize + 1;
    let room = at < row.len();
    if room {
        row[at] = link;
        row[0] += 1;
    }
    room
}
