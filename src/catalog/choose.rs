//! `--codec auto`: the codes that are searched fastest of those that are good enough, by measurement.

use super::profile::Sample;
use super::{CatalogError, recall, top_by_codec};
use crate::codec::{Codec, Layout, Metric};
use crate::input::Vectors;

/// A way to keep items, and what it is worth.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Candidate {
    /// The codec that the graph is walked by.
    pub codec: Codec,
    /// The codec that the final candidates are scored by.
    pub finer: Option<Codec>,
    /// Bytes of an item's codes, both.
    pub bytes_per_item: usize,
    /// Recall@10 of the codes when every item is scored, against exact `f32`.
    pub recall_at_10: f64,
}

/// Candidates that are scored again by what the codes leave: as many as a search with the smallest measured `ef` does.
const RESCORED: usize = 20;

/// Measures every way to keep the items, the fastest first, and returns the table with the place of the first that
/// reaches `floor`.
pub fn choose(
    items: &Vectors,
    users: Option<&Vectors>,
    metric: Metric,
    floor: f64,
) -> Result<(Vec<Candidate>, usize), CatalogError> {
    let dim = items.dim();
    let mut queries = Sample::take(items, users)?.vectors;
    queries.chunks_mut(dim).for_each(|query| metric.prepare(query));
    let layout = |codec| Layout { codec, dim };
    let truth = top_by_codec(items, layout(Codec::F32), metric, &queries, 10)?;
    let mut table = Vec::new();
    for codec in Codec::ALL {
        // Vectors that halves cannot hold leave the other codecs to choose from.
        let found = match top_by_codec(items, layout(codec), metric, &queries, RESCORED) {
            Err(CatalogError::Vector { .. }) if codec == Codec::F16 => continue,
            found => found?,
        };
        let scale = if layout(codec).has_scales() { 4 } else { 0 };
        let bytes = layout(codec).row_bytes() + scale;
        let alone = recall(&truth, found.iter().map(Vec::as_slice), 10);
        table.push(Candidate { codec, finer: None, bytes_per_item: bytes, recall_at_10: alone });
        if layout(codec).has_scales() {
            // What the residual itself loses is below what shows here: it holds a vector to 12 bits at least.
            let met = recall(&truth, found.iter().map(Vec::as_slice), RESCORED);
            let bytes_per_item = bytes + layout(Codec::Int8).row_bytes();
            table.push(Candidate { codec, finer: Some(Codec::Int8), bytes_per_item, recall_at_10: met });
        }
    }
    // A walk waits for cache lines: the codes that take the fewest come first, among equals the smallest.
    let lines = |candidate: &Candidate| layout(candidate.codec).row_bytes().div_ceil(64);
    table.sort_by_key(|candidate| (lines(candidate), candidate.bytes_per_item));
    if let Some(at) = table.iter().position(|candidate| candidate.recall_at_10 >= floor) {
        return Ok((table, at));
    }
    let best = table.iter().max_by(|a, b| a.recall_at_10.total_cmp(&b.recall_at_10));
    let (best, recall) = best.map_or((String::new(), 0.0), |best| (best.codec.to_string(), best.recall_at_10));
    Err(CatalogError::Floor { floor, best, recall })
}
