//! Tags in a mapped file.

use super::names::MappedNames;
use super::{CatalogError, section};
use crate::file::{FileError, Mapped, Writer};
use crate::input::Tags;

/// Names, ascending, each with the nodes of its items, ascending.
#[derive(Clone, Copy, Debug)]
pub(super) struct MappedTags<'a> {
    names: MappedNames<'a>,
    nodes: &'a [u32],
}

/// Writes the tags; `node_of[row]` is the node of each row.
pub(super) fn write(writer: &mut Writer, tags: &Tags, node_of: &[u32]) -> Result<(), FileError> {
    let (mut text, mut ends, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for (name, rows) in tags.names.iter().zip(&tags.rows) {
        text.extend_from_slice(name.as_bytes());
        let first = nodes.len();
        nodes.extend(rows.iter().map(|&row| node_of[row as usize]));
        nodes[first..].sort_unstable();
        ends.push([text.len() as u64, nodes.len() as u64]);
    }
    writer.section_bytes(section::TAG_TEXT, &text)?;
    writer.section_bytes(section::TAG_ENDS, bytemuck::cast_slice(&ends))?;
    writer.section_bytes(section::TAG_ITEMS, bytemuck::cast_slice(&nodes))
}

impl<'a> MappedTags<'a> {
    /// The tags of a file. [`MappedTags::check`] says whether they can be trusted.
    pub fn of(file: &'a Mapped) -> Result<Self, FileError> {
        let names = MappedNames::of(file, section::TAG_TEXT, section::TAG_ENDS)?;
        Ok(Self { names, nodes: file.numbers(section::TAG_ITEMS)? })
    }

    pub fn len(self) -> usize {
        self.names.len()
    }

    pub fn name(self, tag: usize) -> &'a str {
        self.names.name(tag)
    }

    pub fn nodes(self, tag: usize) -> &'a [u32] {
        &self.nodes[self.names.list(tag)]
    }

    /// The tags of a node; a scan of all tags, for showing a few items.
    pub fn of_node(self, node: u32) -> Vec<&'a str> {
        (0..self.len()).filter(|&tag| self.nodes(tag).binary_search(&node).is_ok()).map(|tag| self.name(tag)).collect()
    }

    pub fn find(self, name: &str) -> Result<usize, CatalogError> {
        self.names.find(name).ok_or_else(|| {
            let (count, examples) = (self.len(), self.names.examples());
            CatalogError::UnknownTag { got: name.to_owned(), count, examples }
        })
    }

    /// What is wrong with the tags of `n` nodes, if anything.
    pub fn check(self, n: usize) -> Result<(), String> {
        self.names.check(self.nodes.len()).map_err(|what| format!("tags: {what}"))?;
        let ascending = |tag: usize| self.nodes(tag).windows(2).all(|pair| pair[0] < pair[1]);
        if self.nodes.iter().any(|&node| node as usize >= n) || !(0..self.len()).all(ascending) {
            return Err("a tag's items are out of range or out of order".to_owned());
        }
        Ok(())
    }
}
