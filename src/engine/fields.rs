//! The tags of each node, the other way round than the index has them: for limits by value.

use std::ops::Range;

use crate::catalog::Index;

/// Tags of nodes, by number. 4 bytes a node and 4 a tag of a node.
#[derive(Debug)]
pub(super) struct Fields {
    starts: Vec<u32>,
    tags: Vec<u32>,
}

impl Fields {
    pub fn new(index: &Index) -> Self {
        let mut starts = vec![0_u32; index.len() + 1];
        let all = 0..index.tag_count();
        for tag in all.clone() {
            index.tag(tag).1.iter().for_each(|&node| starts[node as usize + 1] += 1);
        }
        for node in 1..starts.len() {
            starts[node] += starts[node - 1];
        }
        let mut next = starts.clone();
        let mut tags = vec![0; starts.last().map_or(0, |&end| end as usize)];
        for tag in all {
            for &node in index.tag(tag).1 {
                tags[next[node as usize] as usize] = tag as u32;
                next[node as usize] += 1;
            }
        }
        Self { starts, tags }
    }

    /// The tags of a node, ascending.
    pub fn of(&self, node: u32) -> &[u32] {
        let [start, end] = [0, 1].map(|at| self.starts.get(node as usize + at).map_or(0, |&at| at as usize));
        &self.tags[start..end]
    }
}

/// The numbers of the tags of a field: names are sorted, so they stand together.
pub(super) fn tags_of_field(index: &Index, field: &str) -> Vec<Range<u32>> {
    let below = |bound: &str| {
        let (mut first, mut end) = (0, index.tag_count());
        while first < end {
            let middle = usize::midpoint(first, end);
            if index.tag(middle).0 < bound { first = middle + 1 } else { end = middle }
        }
        first as u32
    };
    if !field.is_empty() {
        // `;` follows `:`
        return std::iter::once(below(&format!("{field}:"))..below(&format!("{field};"))).collect();
    }
    let bare = (0..index.tag_count()).filter(|&tag| !index.tag(tag).0.contains(':'));
    bare.map(|tag| tag as u32..tag as u32 + 1).collect()
}

/// The field of a tag `field:value`; empty when it has none.
pub(super) fn field_of(tag: &str) -> &str {
    tag.split_once(':').map_or("", |(field, _)| field)
}
