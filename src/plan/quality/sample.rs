//! Users to ask, and their answers: by every item scored, or from an index.

use rayon::prelude::*;

use super::QualitySpec;
use crate::catalog::{CatalogError, Index, QueryVector, top_of_queries, top_unseen};
use crate::codec::{Codec, CodecError, Layout, Metric, Query, record};
use crate::graph::{Filter, SearchOptions};
use crate::input::{Id, check_rows};
use crate::plan::heldout::Case;

/// Candidates for each answer that are scored again where residuals are kept, as in a search with little effort.
const RESCORED: usize = 2;

/// An index whose nodes are known by their rows in the file of vectors.
pub(super) struct IndexRows<'a> {
    index: &'a Index,
    row_of: Vec<u32>,
    node_of: Vec<u32>,
}

impl<'a> IndexRows<'a> {
    pub fn new(index: &'a Index, spec: &QualitySpec) -> Result<Self, CatalogError> {
        let rows = spec.items.rows();
        check_rows("items of the index", rows, index.len())?;
        let ids = spec.ids.or(spec.items.ids());
        if let Some(ids) = ids {
            check_rows("item ids", rows, ids.len())?;
        }
        let (mut row_of, mut node_of) = (vec![0; rows], vec![0; rows]);
        for (row, node_of) in node_of.iter_mut().enumerate() {
            let id = ids.map_or(Id::U64(row as u64), |ids| ids.get(row));
            let Some(node) = index.find(id) else {
                let what = format!("it does not have item {id} of {}", spec.items.path().display());
                return Err(CatalogError::Malformed { path: index.path().to_owned(), what });
            };
            (row_of[node as usize], *node_of) = (row as u32, node);
        }
        Ok(Self { index, row_of, node_of })
    }
}

/// Rows of items, best first, a list for each user.
pub(super) type Rows = Vec<Vec<u32>>;

/// Users to ask for.
pub(super) struct Sample<'a> {
    metric: Metric,
    dim: usize,
    /// Their vectors as they are compared, end to end.
    vectors: Vec<f32>,
    /// Items that may not be answered, one list a user, or none for all.
    seen: Vec<&'a [u32]>,
}

impl<'a> Sample<'a> {
    pub fn new(spec: &QualitySpec, rows: &[u32], cases: Option<&'a [Case]>) -> Result<Self, CatalogError> {
        let dim = spec.users.dim();
        let mut vectors = vec![0.0; rows.len() * dim];
        spec.users.gather(rows, &mut vectors)?;
        vectors.chunks_mut(dim).for_each(|vector| spec.metric.prepare(vector));
        let seen = cases.map_or(Vec::new(), |cases| cases.iter().map(|case| &case.seen[..]).collect());
        Ok(Self { metric: spec.metric, dim, vectors, seen })
    }

    pub fn can_be(&self, codec: Codec) -> bool {
        codec.check(&self.vectors).is_ok()
    }

    /// The exact best `k` rows for each user.
    pub fn truth(&self, spec: &QualitySpec) -> Result<Rows, CatalogError> {
        let layout = Layout { codec: Codec::F32, dim: self.dim };
        Ok(rows(top_unseen(spec.items, layout, self.metric, &self.vectors, &self.seen, spec.k)?))
    }

    /// The records that a store would keep.
    fn records(&self, codec: Codec) -> Result<Vec<Vec<u8>>, CodecError> {
        let record = |vector| {
            let mut bytes = vec![0; codec.bytes_per_vector(self.dim)];
            record::encode(codec, vector, &mut bytes).map(|()| bytes)
        };
        self.vectors.par_chunks(self.dim).map(record).collect()
    }

    /// The best rows for each user, every item scored; so many that the best of them can be scored again.
    pub fn scan(&self, spec: &QualitySpec, items: Codec, users: Codec) -> Result<Rows, CatalogError> {
        let layout = Layout { codec: items, dim: self.dim };
        let prepare = |record: &Vec<u8>| {
            let (mut decoded, mut query) = (vec![0.0; self.dim], Query::default());
            record::decode(users, record, &mut decoded)?;
            query.prepare_record(layout, users, record, &decoded)?;
            Ok(query)
        };
        let queries = self.records(users)?.par_iter().map(prepare).collect::<Result<Vec<_>, CodecError>>()?;
        let k = if layout.has_scales() { spec.k * RESCORED } else { spec.k };
        Ok(rows(top_of_queries(spec.items, layout, self.metric, &queries, &self.seen, k)?))
    }

    /// The candidates in the order of exact scores: what residuals make of them, as they keep 12 bits or more.
    pub fn score_again(&self, spec: &QualitySpec, users: Codec, found: &Rows) -> Result<Rows, CatalogError> {
        let score = |(record, rows): (&Vec<u8>, &Vec<u32>)| {
            let (mut user, mut items) = (vec![0.0; self.dim], vec![0.0; rows.len() * self.dim]);
            record::decode(users, record, &mut user)?;
            spec.items.gather(rows, &mut items)?;
            let score = |(&row, item): (&u32, &mut [f32])| {
                self.metric.prepare(item);
                let product: f32 = item.iter().zip(&user).map(|(x, y)| x * y).sum();
                (row, product + self.metric.bias(item))
            };
            let mut scored: Vec<(u32, f32)> = rows.iter().zip(items.chunks_mut(self.dim)).map(score).collect();
            scored.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            Ok(scored.into_iter().map(|(row, _)| row).collect())
        };
        self.records(users)?.par_iter().zip(found).map(score).collect()
    }

    /// The rows that an index answers each user with.
    pub fn search(&self, rows: &IndexRows, ef: u32, users: Codec, k: usize) -> Result<Rows, CatalogError> {
        let search = |(at, record): (usize, &Vec<u8>)| {
            let seen = self.seen.get(at).copied().unwrap_or_default();
            let mut exclude: Vec<u32> = seen.iter().map(|&row| rows.node_of[row as usize]).collect();
            exclude.sort_unstable();
            let (options, filter) = (SearchOptions { k, ef: ef as usize }, Filter { bits: None, exclude: &exclude });
            let (hits, _) = rows.index.search(QueryVector::Record(users, record), options, filter)?;
            Ok(hits.iter().map(|hit| rows.row_of[hit.node as usize]).collect())
        };
        self.records(users)?.par_iter().enumerate().map(search).collect()
    }
}

fn rows(scored: Vec<Vec<(u32, f32)>>) -> Rows {
    scored.into_iter().map(|best| best.into_iter().map(|(row, _)| row).collect()).collect()
}
