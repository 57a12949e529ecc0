//! External ids in a mapped file: node to id, and id to node by binary search.

use super::section;
use crate::file::{FileError, Mapped, Writer};
use crate::input::{Id, Ids, Texts};
use crate::kernel;

/// Ids of all nodes.
#[derive(Clone, Copy, Debug)]
pub(super) enum MappedIds<'a> {
    /// Numbers.
    U64(&'a [u64]),
    /// Texts: where each ends, and all of them end to end.
    Text { ends: &'a [u64], text: &'a [u8] },
}

/// Writes the ids of the nodes, `order[node]` being the row of each, and the nodes in order of id.
pub(super) fn write(writer: &mut Writer, ids: &Ids, order: &[u32]) -> Result<(), FileError> {
    let in_order = permuted(ids, order);
    match &in_order {
        Ids::U64(numbers) => writer.section_bytes(section::IDS, bytemuck::cast_slice(numbers))?,
        Ids::Text(texts) => {
            writer.section_bytes(section::IDS, bytemuck::cast_slice(&texts.offsets()[1..]))?;
            writer.section_bytes(section::ID_TEXT, texts.bytes())?;
        }
    }
    let mut nodes: Vec<u32> = (0..order.len() as u32).collect();
    nodes.sort_unstable_by_key(|&node| in_order.get(node as usize));
    writer.section_bytes(section::ID_ORDER, bytemuck::cast_slice(&nodes))
}

fn permuted(ids: &Ids, order: &[u32]) -> Ids {
    match ids {
        Ids::U64(numbers) => Ids::U64(order.iter().map(|&row| numbers[row as usize]).collect()),
        Ids::Text(texts) => {
            let mut out = Texts::new();
            order.iter().for_each(|&row| out.push(texts.get(row as usize)));
            Ids::Text(out)
        }
    }
}

impl<'a> MappedIds<'a> {
    /// The ids of a file. [`MappedIds::check`] says whether they can be trusted.
    pub fn of(file: &'a Mapped, text: bool) -> Result<Self, FileError> {
        let numbers = file.numbers(section::IDS)?;
        if !text {
            return Ok(Self::U64(numbers));
        }
        Ok(Self::Text { ends: numbers, text: file.section(section::ID_TEXT)? })
    }

    /// Asks for the first thing that [`get`](Self::get) reads, without waiting for it.
    pub fn ask(self, node: u32) {
        let (Self::U64(first) | Self::Text { ends: first, .. }) = self;
        kernel::prefetch(&first[node as usize..][..1]);
    }

    /// The id of a node; empty text where the file is broken.
    pub fn get(self, node: u32) -> Id<'a> {
        let node = node as usize;
        match self {
            Self::U64(numbers) => Id::U64(numbers[node]),
            Self::Text { ends, text } => {
                let start = if node == 0 { 0 } else { ends[node - 1] as usize };
                let id = text.get(start..ends[node] as usize).unwrap_or_default();
                // As when the ids were read: text that spells a number is that number.
                Id::parse(std::str::from_utf8(id).unwrap_or_default())
            }
        }
    }

    /// The node of an id, `order` being the nodes in order of id.
    pub fn find(self, order: &[u32], id: Id<'_>) -> Option<u32> {
        let id = if let Id::Text(text) = id { Id::parse(text) } else { id };
        order.binary_search_by(|&node| self.get(node).cmp(&id)).ok().map(|at| order[at])
    }

    /// What is wrong with the ids of `n` nodes and their order, if anything: they must be unique and sorted.
    pub fn check(self, n: usize, order: &[u32], file: &Mapped) -> Result<(), String> {
        let len = match self {
            Self::U64(numbers) => numbers.len(),
            Self::Text { ends, .. } => ends.len(),
        };
        if len != n || order.len() != n {
            return Err(format!("expected {n} ids and their order, got {len} and {}", order.len()));
        }
        if let Self::Text { ends, .. } = self {
            let bytes = file.section(section::ID_TEXT).map_err(|error| error.to_string())?;
            let text = std::str::from_utf8(bytes).map_err(|_| "ids are not UTF-8".to_owned())?;
            let cuts = ends.windows(2).all(|pair| pair[0] <= pair[1])
                && ends.last().copied() == Some(text.len() as u64)
                && ends.iter().all(|&end| text.is_char_boundary(end as usize));
            if !cuts {
                return Err("the ids' ends do not cut their text".to_owned());
            }
        }
        if let Some(node) = order.iter().find(|&&node| node as usize >= n) {
            return Err(format!("the order of ids names node {node} of {n}"));
        }
        let sorted = order.windows(2).all(|pair| self.get(pair[0]) < self.get(pair[1]));
        if sorted { Ok(()) } else { Err("ids repeat or are out of order".to_owned()) }
    }
}
