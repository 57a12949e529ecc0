//! Items added since the index was built, as they are searched: every one of them is scored, by `int8`.

use std::collections::HashMap;
use std::sync::Arc;

use super::EngineError;
use super::filter::Clause;
use super::live::NewItem;
use crate::catalog::Index;
use crate::codec::{Codec, Layout, Matrix, Metric, Query};
use crate::graph::{Filter, Scratch, exact};
use crate::store::item_hash;

/// The items, numbered from 0, oldest first.
#[derive(Debug)]
pub(super) struct Added {
    items: Vec<Arc<NewItem>>,
    place_of: HashMap<u64, u32>,
    /// Numbers of the tags of each: those of the index, and beyond them those that it does not have.
    tags: Vec<Vec<u32>>,
    /// Names of tags beyond the index's.
    names: Vec<String>,
    layout: Layout,
    metric: Metric,
    codes: Vec<u64>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Added {
    /// Encodes items for an index; their vectors have its dimensions.
    pub fn new(index: &Index, items: Vec<Arc<NewItem>>) -> Result<Self, EngineError> {
        let (layout, metric) = (Layout { codec: Codec::Int8, dim: index.dim() }, index.meta().metric);
        let mut codes = vec![0_u64; (items.len() * layout.row_bytes()).div_ceil(8)];
        let rows = bytemuck::cast_slice_mut::<u64, u8>(&mut codes).chunks_exact_mut(layout.row_bytes());
        let (mut scales, mut biases) = (Vec::with_capacity(items.len()), Vec::new());
        for (item, row) in items.iter().zip(rows) {
            scales.push(layout.encode(&item.vector, row).map_err(crate::catalog::CatalogError::Query)?);
            if metric == Metric::L2 {
                biases.push(metric.bias(&item.vector));
            }
        }
        let place_of = items.iter().map(|item| item_hash(item.id.as_id())).zip(0..).collect();
        let mut added =
            Self { items, place_of, tags: Vec::new(), names: Vec::new(), layout, metric, codes, scales, biases };
        added.number_tags(index);
        Ok(added)
    }

    fn number_tags(&mut self, index: &Index) {
        let first = index.tag_count() as u32;
        let mut own: HashMap<&str, u32> = HashMap::new();
        for item in &self.items {
            let mut tags = Vec::with_capacity(item.tags.len());
            for tag in &item.tags {
                let next = first + own.len() as u32;
                let number = index.find_tag(tag).map_or_else(
                    |_| {
                        *own.entry(tag).or_insert_with(|| {
                            self.names.push(tag.clone());
                            next
                        })
                    },
                    |number| number as u32,
                );
                tags.push(number);
            }
            self.tags.push(tags);
        }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn item(&self, place: u32) -> &NewItem {
        &self.items[place as usize]
    }

    pub fn find(&self, hash: u64) -> Option<u32> {
        self.place_of.get(&hash).copied()
    }

    pub fn tags(&self, place: u32) -> &[u32] {
        self.tags.get(place as usize).map_or(&[], Vec::as_slice)
    }

    /// Tags that the index does not have; the first has the number [`Index::tag_count`].
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether any has this tag, or a number of this field.
    pub fn knows(&self, clause: &Clause) -> bool {
        match clause {
            Clause::Tag(tag) => self.names.contains(tag),
            Clause::Range(range) => self.items.iter().any(|item| item.numbers.contains_key(&range.field)),
        }
    }

    /// The best `k` of those that pass for a vector in the form that is compared, best first, by the metric's score.
    pub fn best(&self, vector: &[f32], k: usize, filter: Filter) -> Vec<(u32, f32)> {
        let mut found = Vec::new();
        let bytes = self.items.len() * self.layout.row_bytes();
        let rows = &bytemuck::cast_slice(&self.codes)[..bytes];
        let Some(matrix) = Matrix::new(self.layout, rows, &self.scales, &self.biases).filter(|_| bytes > 0) else {
            return found;
        };
        let mut query = Query::default();
        if query.prepare(self.layout, vector).is_ok() {
            exact::best(&matrix, &query, k, filter, &mut Scratch::default(), &mut found);
        }
        found.iter_mut().for_each(|(_, score)| *score = self.metric.score(*score, vector));
        found
    }
}
