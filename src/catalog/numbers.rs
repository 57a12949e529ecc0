//! Numbers in a mapped file, that filters take ranges of.
//!
//! The one thing to know: the nodes of a field stand in the order of their values, so the items within a range are one run of
//! them. Its ends are found by bisection and its length is a subtraction; no number is looked at but those, and a bitmap
//! of the range is written from the run like one of a tag.

use rayon::prelude::*;

use super::names::MappedNames;
use super::{CatalogError, section};
use crate::file::{FileError, Mapped, Writer};
use crate::input::{MAX_FIELDS, Numbers};

/// A field of numbers.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct NumberField<'a> {
    /// Its name.
    pub field: &'a str,
    /// Items that have a number of it.
    pub items: usize,
    /// The smallest number.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Fields, ascending, each with its values, ascending, and the nodes of those.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MappedNumbers<'a> {
    fields: MappedNames<'a>,
    values: &'a [f64],
    nodes: &'a [u32],
}

/// Refuses numbers that no file may hold; there are `n` items.
pub(super) fn check(numbers: &Numbers, n: usize) -> Result<(), CatalogError> {
    let refuse = |what, expected: String, got: String| Err(CatalogError::Setting { what, expected, got });
    if numbers.fields.len() > MAX_FIELDS {
        return refuse("the number of fields", format!("at most {MAX_FIELDS}"), numbers.fields.len().to_string());
    }
    let pairs = || numbers.values.iter().flatten();
    if let Some((row, _)) = pairs().find(|(row, _)| *row as usize >= n) {
        return refuse("the row of a number", format!("below {n}"), row.to_string());
    }
    match pairs().find(|(_, value)| !value.is_finite()) {
        Some((_, value)) => refuse("a number of an item", "a finite one".to_owned(), value.to_string()),
        None => Ok(()),
    }
}

/// Writes the numbers, if there are any; `node_of[row]` is the node of each row.
pub(super) fn write(writer: &mut Writer, numbers: &Numbers, node_of: &[u32]) -> Result<(), FileError> {
    if numbers.fields.is_empty() {
        return Ok(());
    }
    let (mut text, mut ends, mut values, mut nodes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (field, pairs) in numbers.fields.iter().zip(&numbers.values) {
        let mut pairs: Vec<(u32, f64)> = pairs.iter().map(|&(row, value)| (node_of[row as usize], value)).collect();
        pairs.par_sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        text.extend_from_slice(field.as_bytes());
        values.extend(pairs.iter().map(|&(_, value)| value));
        nodes.extend(pairs.iter().map(|&(node, _)| node));
        ends.push([text.len() as u64, nodes.len() as u64]);
    }
    writer.section_bytes(section::NUMBER_TEXT, &text)?;
    writer.section_bytes(section::NUMBER_ENDS, bytemuck::cast_slice(&ends))?;
    writer.section_bytes(section::NUMBERS, bytemuck::cast_slice(&values))?;
    writer.section_bytes(section::NUMBER_ITEMS, bytemuck::cast_slice(&nodes))
}

impl<'a> MappedNumbers<'a> {
    /// The numbers of a file, none where it has no section of them. [`MappedNumbers::check`] says whether they can be
    /// trusted.
    pub fn of(file: &'a Mapped) -> Result<Self, FileError> {
        let tags = [section::NUMBER_TEXT, section::NUMBER_ENDS, section::NUMBERS, section::NUMBER_ITEMS];
        if file.sections().all(|info| !tags.contains(&info.tag)) {
            return Ok(Self::default());
        }
        Ok(Self {
            fields: MappedNames::of(file, section::NUMBER_TEXT, section::NUMBER_ENDS)?,
            values: file.numbers(section::NUMBERS)?,
            nodes: file.numbers(section::NUMBER_ITEMS)?,
        })
    }

    /// What there is.
    pub fn fields(self) -> Vec<NumberField<'a>> {
        let field = |at: usize| {
            let values = &self.values[self.fields.list(at)];
            let end = |value: Option<&f64>| value.copied().unwrap_or_default();
            let (min, max) = (end(values.first()), end(values.last()));
            NumberField { field: self.fields.name(at), items: values.len(), min, max }
        };
        (0..self.fields.len()).map(field).collect()
    }

    /// The nodes whose number is within `min` and `max`, both included, by that number.
    pub fn range(self, field: &str, min: f64, max: f64) -> Result<&'a [u32], CatalogError> {
        let list = self.fields.find(field).map(|at| self.fields.list(at)).ok_or_else(|| {
            let (count, examples) = (self.fields.len(), self.fields.examples());
            CatalogError::UnknownField { got: field.to_owned(), count, examples }
        })?;
        let values = &self.values[list.clone()];
        let first = values.partition_point(|&value| value < min);
        let passing = values[first..].partition_point(|&value| value <= max);
        Ok(&self.nodes[list][first..first + passing])
    }

    /// What is wrong with the numbers of `n` nodes, if anything.
    pub fn check(self, n: usize) -> Result<(), String> {
        if self.fields.len() > MAX_FIELDS || self.nodes.len() != self.values.len() {
            return Err("there are too many fields of numbers, or not as many nodes as numbers".to_owned());
        }
        self.fields.check(self.values.len()).map_err(|what| format!("numbers: {what}"))?;
        (0..self.fields.len()).into_par_iter().try_for_each(|at| {
            let list = self.fields.list(at);
            check_field(&self.values[list.clone()], &self.nodes[list], n)
                .map_err(|what| format!("numbers of {:?}: {what}", self.fields.name(at)))
        })
    }
}

/// Values must ascend, which none does that is not a number, and no node come twice.
fn check_field(values: &[f64], nodes: &[u32], n: usize) -> Result<(), &'static str> {
    let [Some(first), Some(last)] = [values.first(), values.last()] else { return Err("there are none") };
    let ascending = values.windows(2).all(|pair| pair[0] <= pair[1]);
    if !(ascending && first.is_finite() && last.is_finite()) {
        return Err("they are out of order or not finite");
    }
    let mut met = vec![0_u64; n.div_ceil(64)];
    let is_new = |&node: &u32| {
        let (at, bit) = (node as usize / 64, 1 << (node % 64));
        if (node as usize) >= n || met[at] & bit != 0 {
            return false;
        }
        met[at] |= bit;
        true
    };
    if nodes.iter().all(is_new) { Ok(()) } else { Err("a node is out of range or comes twice") }
}
