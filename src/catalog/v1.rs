//! The graph of a file of format 1, whose rows had a fixed length: unused places held the node itself.

use super::Meta;

/// Packs the rows of layer 0 and of those above, or `None` when their lengths are not what `meta` says.
pub(super) fn pack(meta: &Meta, links: &[u32], upper: &[u32]) -> Option<(Vec<u32>, Vec<u32>)> {
    let (m, mut upper) = (meta.m as usize, upper);
    let (mut starts, mut to) = (vec![0], Vec::new());
    let mut layer = |rows: &[u32], cap: usize| {
        for (node, row) in (0..).zip(rows.chunks(cap)) {
            to.extend(row.iter().filter(|&&link| link != node));
            starts.push(to.len() as u32);
        }
    };
    if links.len() != meta.items as usize * 2 * m {
        return None;
    }
    layer(links, 2 * m);
    for &len in &meta.layers {
        let (rows, above) = upper.split_at_checked(len as usize * m)?;
        layer(rows, m);
        upper = above;
    }
    upper.is_empty().then_some((starts, to))
}
