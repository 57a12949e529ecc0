//! The quality profile: what searching this file finds and costs, measured on it.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::tune::tune;
use super::{CatalogError, Index, Meta, QueryVector, recall, top_by_codec};
use crate::codec::{Codec, Layout, Query};
use crate::graph::{Filter, Scratch, SearchOptions, Tuning, exact};
use crate::input::Vectors;

/// The `ef` that are measured.
const LADDER: [u32; 12] = [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];

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

    /// Rows that a long walk scores for each node that it expands: with the rows that pass a filter it decides between
    /// walking and scanning.
    pub fn distances_per_hop(&self) -> Option<f32> {
        // Of few items the last rungs may have scanned all: then they scored as many.
        let most = self.rungs.last()?.distances;
        let walked = self.rungs.iter().rev().find(|rung| rung.distances < most)?;
        Some((walked.distances / self.tuning.expansions(walked.ef as usize) as f64) as f32)
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

/// Measures an index against the exact answers by the vectors that it was built from. Returns what it found, and what the
/// index is without layers that searches do as well without.
pub(super) fn measure(
    index: Index,
    items: &Vectors,
    order: &[u32],
    sample: &Sample,
) -> Result<(Profile, Meta), CatalogError> {
    let mut trial = Trial::new(index, items, order, sample)?;
    let tuning = tune(&mut trial)?;
    trial.index.set_tuning(tuning);
    let rungs = LADDER.into_iter().map(|ef| {
        let (ten, hundred) = (trial.run(ef, 10)?, trial.run(ef, 100)?);
        Ok(Rung { ef, recall_at_10: ten.recall, recall_at_100: hundred.recall, distances: ten.distances })
    });
    let profile = Profile {
        source: sample.source,
        queries: trial.truth.len() as u32,
        tuning,
        rungs: rungs.collect::<Result<_, CatalogError>>()?,
        codec_recall_at_10: trial.codec_recall()?,
    };
    Ok((profile, trial.index.meta().clone()))
}

/// An index and queries whose answers are known.
pub(super) struct Trial<'a> {
    pub index: Index,
    order: &'a [u32],
    queries: Vec<f32>,
    /// The best hundred rows of each query.
    truth: Vec<Vec<(u32, f32)>>,
    /// Of each query, the node that it is itself.
    own: Vec<Vec<u32>>,
}

/// What searching cost and found; means of the queries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub recall: f64,
    pub distances: f64,
    pub hops: f64,
}

impl<'a> Trial<'a> {
    fn new(index: Index, items: &Vectors, order: &'a [u32], sample: &Sample) -> Result<Self, CatalogError> {
        let (dim, metric) = (items.dim(), index.meta().metric);
        let mut queries = sample.vectors.clone();
        queries.chunks_mut(dim).for_each(|query| metric.prepare(query));
        let by_items = sample.source == QuerySource::Items;
        let layout = Layout { codec: Codec::F32, dim };
        let mut truth = top_by_codec(items, layout, metric, &queries, 100 + usize::from(by_items))?;
        let mut own = vec![Vec::new(); truth.len()];
        if by_items {
            truth.iter_mut().zip(&sample.rows).for_each(|(top, own)| top.retain(|(row, _)| row != own));
            truth.iter_mut().for_each(|top| top.truncate(100));
            let mut node_of = vec![0; order.len()];
            order.iter().enumerate().for_each(|(node, &row)| node_of[row as usize] = node as u32);
            own.iter_mut().zip(&sample.rows).for_each(|(own, &row)| own.push(node_of[row as usize]));
        }
        Ok(Self { index, order, queries, truth, own })
    }

    /// Searches for the `k` best by all queries.
    pub fn run(&self, ef: u32, k: usize) -> Result<Point, CatalogError> {
        let queries = self.queries.par_chunks(self.index.dim()).zip(&self.own);
        let answers = queries.map(|(query, own)| {
            let filter = Filter { bits: None, exclude: own };
            let options = SearchOptions { k, ef: ef as usize };
            let (hits, stats) = self.index.search(QueryVector::Floats(query), options, filter)?;
            Ok((hits.iter().map(|hit| (self.order[hit.node as usize], hit.score)).collect::<Vec<_>>(), stats))
        });
        let answers = answers.collect::<Result<Vec<_>, CatalogError>>()?;
        let mean = |sum: usize| sum as f64 / answers.len().max(1) as f64;
        Ok(Point {
            recall: recall(&self.truth, answers.iter().map(|(hits, _)| &hits[..]), k),
            distances: mean(answers.iter().map(|(_, stats)| stats.distances).sum()),
            hops: mean(answers.iter().map(|(_, stats)| stats.hops).sum()),
        })
    }

    /// Recall@10 when every row is scored by the codec that the graph is walked by.
    fn codec_recall(&self) -> Result<f64, CatalogError> {
        let searcher = self.index.searcher();
        let matrix = searcher.matrix();
        let best = |(query, own): (&[f32], &Vec<u32>)| {
            let (mut prepared, mut found) = (Query::default(), Vec::new());
            prepared.prepare(matrix.layout(), query)?;
            let filter = Filter { bits: None, exclude: own };
            exact::best(matrix, &prepared, 10, filter, &mut Scratch::default(), &mut found);
            found.iter_mut().for_each(|(node, _)| *node = self.order[*node as usize]);
            Ok(found)
        };
        let queries = self.queries.par_chunks(self.index.dim()).zip(&self.own);
        let found = queries.map(best).collect::<Result<Vec<_>, CatalogError>>()?;
        Ok(recall(&self.truth, found.iter().map(Vec::as_slice), 10))
    }
}
