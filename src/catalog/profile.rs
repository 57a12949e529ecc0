//! The quality profile: what searching this file finds and costs, measured on it.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CatalogError, Index, QueryVector, recall, top_by_codec};
use crate::codec::{Codec, Layout};
use crate::graph::{Filter, SearchOptions, Tuning};
use crate::input::Vectors;

/// The `ef` that are measured.
const LADDER: [u32; 11] = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];

/// Recall@10 that the default `ef` is chosen for: what is lost beyond it no longer shows in what users click.
pub const DEFAULT_RECALL: f64 = 0.99;

/// Queries measured at most, and at least; in between, so many that the exact answers take about `WORK` products.
const QUERIES: std::ops::RangeInclusive<u64> = 100..=1000;
const WORK: u64 = 40_000_000_000;

/// Where the queries came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuerySource {
    /// Nothing was measured.
    #[default]
    None,
    /// User vectors, as they will query.
    Users,
    /// Items, each without itself; users may fare differently.
    Items,
}

/// One `ef` of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// The effort, as a search is asked for it.
    pub ef: u32,
    /// Share of the exact ten best that were found.
    pub recall_at_10: f64,
    /// Share of the exact hundred best that were found when a hundred were asked for.
    pub recall_at_100: f64,
    /// Rows scored for ten, mean.
    pub distances: f64,
}

/// Recall and cost of an index.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Where the queries came from.
    pub source: QuerySource,
    /// How many there were.
    pub queries: u32,
    /// Recall@10 when every row is scored by the index's codec alone: what quantization costs without any graph.
    pub codec_recall_at_10: f64,
    /// How searches are tuned.
    #[serde(default)]
    pub tuning: Tuning,
    /// The ladder, rising.
    pub rungs: Vec<Rung>,
}

impl Profile {
    /// The smallest measured `ef` that reaches a recall@10, if one does.
    pub fn ef_for(&self, recall_at_10: f64) -> Option<u32> {
        self.rungs.iter().find(|rung| rung.recall_at_10 >= recall_at_10).map(|rung| rung.ef)
    }

    /// The `ef` of a search that asks for nothing else: enough for 0.99, or the largest measured, or 128.
    pub fn default_ef(&self) -> usize {
        let last = self.rungs.last().map_or(128, |rung| rung.ef);
        self.ef_for(DEFAULT_RECALL).unwrap_or(last) as usize
    }
}

/// Queries to measure by: rows, evenly spread, of a file of vectors.
pub(super) struct Sample {
    pub source: QuerySource,
    pub vectors: Vec<f32>,
    /// For items, the row of each.
    pub rows: Vec<u32>,
}

impl Sample {
    /// Takes users when there are any, else items.
    pub fn take(items: &Vectors, users: Option<&Vectors>) -> Result<Self, CatalogError> {
        let from = users.unwrap_or(items);
        let wanted = (WORK / (items.rows() as u64 * items.dim() as u64).max(1)).clamp(*QUERIES.start(), *QUERIES.end());
        let count = wanted.min(from.rows() as u64);
        let rows: Vec<u32> = (0..count).map(|at| (at * from.rows() as u64 / count) as u32).collect();
        let mut vectors = vec![0.0; rows.len() * from.dim()];
        from.gather(&rows, &mut vectors)?;
        let source = if users.is_some() { QuerySource::Users } else { QuerySource::Items };
        Ok(Self { source, vectors, rows })
    }
}

/// Measures an index against the exact answers by the vectors that it was built from.
pub(super) fn measure(index: &Index, items: &Vectors, order: &[u32], sample: &Sample) -> Result<Profile, CatalogError> {
    let (dim, metric) = (items.dim(), index.meta().metric);
    let mut queries = sample.vectors.clone();
    queries.chunks_mut(dim).for_each(|query| metric.prepare(query));
    let by_items = sample.source == QuerySource::Items;
    let exact = |codec, k| -> Result<Vec<Vec<(u32, f32)>>, CatalogError> {
        let mut top = top_by_codec(items, Layout { codec, dim }, metric, &queries, k + usize::from(by_items))?;
        if by_items {
            top.iter_mut().zip(&sample.rows).for_each(|(top, own)| top.retain(|(row, _)| row != own));
        }
        top.iter_mut().for_each(|top| top.truncate(k));
        Ok(top)
    };
    let truth = exact(Codec::F32, 100)?;
    let alone = exact(index.meta().codec, 10)?;
    let mut node_of = vec![0; order.len()];
    order.iter().enumerate().for_each(|(node, &row)| node_of[row as usize] = node as u32);
    let run = |ef: u32, k: usize| -> Result<(f64, f64), CatalogError> {
        let answers = queries.par_chunks(dim).enumerate().map(|(at, query)| {
            let own = if by_items { vec![node_of[sample.rows[at] as usize]] } else { Vec::new() };
            let filter = Filter { bits: None, exclude: &own };
            let options = SearchOptions { k, ef: ef as usize };
            let (hits, stats) = index.search(QueryVector::Floats(query), options, filter)?;
            Ok((hits.iter().map(|hit| (order[hit.node as usize], hit.score)).collect::<Vec<_>>(), stats.distances))
        });
        let answers = answers.collect::<Result<Vec<_>, CatalogError>>()?;
        let distances: usize = answers.iter().map(|(_, distances)| distances).sum();
        let found = answers.iter().map(|(hits, _)| &hits[..]);
        Ok((recall(&truth, found, k), distances as f64 / answers.len().max(1) as f64))
    };
    let rungs = LADDER.into_iter().map(|ef| {
        let ((recall_at_10, distances), (recall_at_100, _)) = (run(ef, 10)?, run(ef, 100)?);
        Ok(Rung { ef, recall_at_10, recall_at_100, distances })
    });
    Ok(Profile {
        source: sample.source,
        queries: truth.len() as u32,
        tuning: Tuning::default(),
        codec_recall_at_10: recall(&truth, alone.iter().map(Vec::as_slice), 10),
        rungs: rungs.collect::<Result<_, CatalogError>>()?,
    })
}
