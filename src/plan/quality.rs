//! What each codec of items and of users costs in recall, and in hits: measured on the very vectors.
//!
//! Every pair of codecs is measured as it would serve: a user's vector becomes a record and is scored against the items'
//! codes as a stored one is. Two numbers are told apart: *exact*, where every item is scored, which is what the codecs
//! cost; and *served*, where an index is walked at each `ef` of its ladder, which is what a request gets. All of them come
//! as an [`Estimate`]: a mean and the interval that the sample leaves open.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Estimate;
use super::heldout::Case;
use crate::catalog::{CatalogError, Index, QueryVector, Rung, top_of_queries};
use crate::codec::{Codec, CodecError, Layout, Metric, Query, record};
use crate::graph::{Filter, SearchOptions};
use crate::input::{Id, Ids, Vectors, check_rows};

/// Users asked at least and at most; in between, so many that scoring all items for one codec of users takes about
/// `WORK` products. 400 tell recall 0.99 to about ±0.006, 2,000 to ±0.003.
const USERS: std::ops::RangeInclusive<u64> = 400..=2000;
const WORK: u64 = 20_000_000_000;

/// Candidates for each answer that are scored again where residuals are kept, as in a search with little effort.
const RESCORED: usize = 2;

/// What to measure on.
#[derive(Clone, Copy, Debug)]
pub struct QualitySpec<'a> {
    /// The items' vectors.
    pub items: &'a Vectors,
    /// External ids of the items, which an index knows them by; their own column or row numbers when `None`.
    pub ids: Option<&'a Ids>,
    /// The users' vectors.
    pub users: &'a Vectors,
    /// How they are compared.
    pub metric: Metric,
    /// Items in an answer.
    pub k: usize,
    /// Interactions held out, when there are any ([`super::heldout::read_cases`]).
    pub cases: &'a [Case],
    /// The index made of these items, to be measured as well.
    pub index: Option<&'a Index>,
}

/// A way to keep items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemForm {
    /// The codec that candidates are found by.
    pub codec: Codec,
    /// What the best of them are scored again by; `int8` beside an integer codec is what that one leaves.
    pub finer: Option<Codec>,
}

impl ItemForm {
    /// Every way that is measured, the smallest first.
    pub const ALL: [Self; 6] = [
        Self::new(Codec::Int4, None),
        Self::new(Codec::Int8, None),
        Self::new(Codec::Int4, Some(Codec::Int8)),
        Self::new(Codec::Int8, Some(Codec::Int8)),
        Self::new(Codec::F16, None),
        Self::new(Codec::F32, None),
    ];

    const fn new(codec: Codec, finer: Option<Codec>) -> Self {
        Self { codec, finer }
    }

    /// Bytes of an item's codes, with their scales.
    pub fn bytes(self, dim: usize) -> usize {
        let layout = |codec| Layout { codec, dim };
        let codes = layout(self.codec);
        codes.row_bytes()
            + if codes.has_scales() { 4 } else { 0 }
            + self.finer.map_or(0, |finer| layout(finer).row_bytes())
    }
}

/// What answers are worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worth {
    /// Share of the best `k` items, by exact `f32` scores, that are among the `k` answered.
    pub recall: Estimate,
    /// Share of a user's held-out interactions that are among the `k` answered, what the user has seen left out.
    pub hit_rate: Option<Estimate>,
    /// The same by place, after Järvelin and Kekäläinen: a hit at place `p` from 1 counts `1 / log2(p + 1)`, relative to
    /// the best order.
    pub ndcg: Option<Estimate>,
}

/// Codecs of items and users, every item scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exact {
    /// How items are kept.
    pub items: ItemForm,
    /// How users are.
    pub users: Codec,
    /// What that is worth.
    pub worth: Worth,
}

/// An `ef` of the index and a codec of users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// The effort.
    pub ef: u32,
    /// How users are kept.
    pub users: Codec,
    /// What that is worth.
    pub worth: Worth,
}

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
    /// Items in an answer.
    pub k: usize,
    /// Users asked, of how many.
    pub users: (usize, usize),
    /// Every pair of codecs, items' forms as in [`ItemForm::ALL`] and users' as in [`Codec::ALL`]. A codec that cannot hold
    /// the vectors is missing.
    pub exact: Vec<Exact>,
    /// The index, effort rising; empty without one.
    pub served: Vec<Served>,
}

impl Quality {
    /// What a pair of codecs is worth when every item is scored.
    pub fn of(&self, items: ItemForm, users: Codec) -> Option<&Worth> {
        self.exact.iter().find(|exact| (exact.items, exact.users) == (items, users)).map(|exact| &exact.worth)
    }
}

/// How many users there should be in a sample of so many.
pub fn sample_size(items: &Vectors, users: usize) -> usize {
    let wanted = (WORK / (items.rows() as u64 * items.dim() as u64).max(1)).clamp(*USERS.start(), *USERS.end());
    (wanted as usize).min(users)
}

/// Measures all codecs, and the index if there is one. `progress` is told how much of the work is done, from 0 to 1.
///
/// Holds the sampled users, their answers, and a few MiB of items at a time.
pub fn measure(spec: &QualitySpec, progress: &mut dyn FnMut(f64)) -> Result<Quality, CatalogError> {
    if spec.users.dim() != spec.items.dim() {
        return Err(CatalogError::Dimensions { expected: spec.items.dim(), got: spec.users.dim() });
    }
    let count = sample_size(spec.items, spec.users.rows());
    let rows: Vec<u32> = (0..count).map(|at| (at * spec.users.rows() / count) as u32).collect();
    let anyone = Sample::new(spec, &rows, None)?;
    let cases = &spec.cases[..count.min(spec.cases.len())];
    let users: Vec<u32> = cases.iter().map(|case| case.user).collect();
    let holders = if cases.is_empty() { None } else { Some(Sample::new(spec, &users, Some(cases))?) };
    let samples: Vec<&Sample> = [Some(&anyone), holders.as_ref()].into_iter().flatten().collect();
    let codecs: Vec<Codec> = Codec::ALL.into_iter().filter(|&codec| samples.iter().all(|s| s.can_be(codec))).collect();
    let rungs = spec.index.map_or(0, |index| index.profile().rungs.len().max(1));
    let steps = (1 + Codec::ALL.len() * codecs.len() + rungs * codecs.len()) * samples.len();
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done as f64 / steps as f64);
    };
    let truth = anyone.truth(spec)?;
    step();
    let judge = Judge { k: spec.k, truth: &truth, cases };
    let mut quality = Quality { k: spec.k, users: (count, spec.users.rows()), exact: Vec::new(), served: Vec::new() };
    for items in Codec::ALL {
        for &users in &codecs {
            let mut found = Vec::with_capacity(2);
            for sample in &samples {
                found.push(sample.scan(spec, items, users));
                step();
            }
            let found = match found.into_iter().collect::<Result<Vec<_>, _>>() {
                // Vectors that halves cannot hold leave the other codecs to choose from.
                Err(CatalogError::Vector { .. }) if items == Codec::F16 => continue,
                found => found?,
            };
            for form in ItemForm::ALL.into_iter().filter(|form| form.codec == items) {
                let again = |(sample, found): (&&Sample, &Rows)| match form.finer {
                    None => Ok(found.clone()),
                    Some(_) => sample.score_again(spec, users, found),
                };
                let answers = samples.iter().zip(&found).map(again).collect::<Result<Vec<_>, CatalogError>>()?;
                quality.exact.push(Exact { items: form, users, worth: judge.worth(&answers) });
            }
        }
    }
    let place = |exact: &Exact| (ItemForm::ALL.iter().position(|form| *form == exact.items), exact.users);
    quality.exact.sort_by_key(place);
    if let Some(index) = spec.index {
        let rows = IndexRows::new(index, spec)?;
        for ef in efs(index) {
            for &users in &codecs {
                let mut found = Vec::with_capacity(2);
                for sample in &samples {
                    found.push(sample.search(&rows, ef, users, spec.k)?);
                    step();
                }
                quality.served.push(Served { ef, users, worth: judge.worth(&found) });
            }
        }
    }
    progress(1.0);
    Ok(quality)
}

/// The ladder of an index, or its default alone when it was built without.
fn efs(index: &Index) -> Vec<u32> {
    let profile = index.profile();
    match &profile.rungs[..] {
        [] => vec![profile.default_ef() as u32],
        rungs => rungs.iter().map(|&Rung { ef, .. }| ef).collect(),
    }
}

/// An index whose nodes are known by their rows in the file of vectors.
struct IndexRows<'a> {
    index: &'a Index,
    row_of: Vec<u32>,
    node_of: Vec<u32>,
}

impl<'a> IndexRows<'a> {
    fn new(index: &'a Index, spec: &QualitySpec) -> Result<Self, CatalogError> {
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
type Rows = Vec<Vec<u32>>;

/// Users to ask for.
struct Sample<'a> {
    metric: Metric,
    dim: usize,
    /// Their vectors as they are compared, end to end.
    vectors: Vec<f32>,
    /// Items that may not be answered, one list a user, or none for all.
    seen: Vec<&'a [u32]>,
}

impl<'a> Sample<'a> {
    fn new(spec: &QualitySpec, rows: &[u32], cases: Option<&'a [Case]>) -> Result<Self, CatalogError> {
        let dim = spec.users.dim();
        let mut vectors = vec![0.0; rows.len() * dim];
        spec.users.gather(rows, &mut vectors)?;
        vectors.chunks_mut(dim).for_each(|vector| spec.metric.prepare(vector));
        let seen = cases.map_or(Vec::new(), |cases| cases.iter().map(|case| &case.seen[..]).collect());
        Ok(Self { metric: spec.metric, dim, vectors, seen })
    }

    fn can_be(&self, codec: Codec) -> bool {
        codec.check(&self.vectors).is_ok()
    }

    /// The exact best `k` rows for each user.
    fn truth(&self, spec: &QualitySpec) -> Result<Rows, CatalogError> {
        let layout = Layout { codec: Codec::F32, dim: self.dim };
        let prepare = |vector| {
            let mut query = Query::default();
            query.prepare(layout, vector).map(|()| query)
        };
        let queries = self.vectors.chunks(self.dim).map(prepare).collect::<Result<Vec<_>, _>>()?;
        Ok(rows(top_of_queries(spec.items, layout, self.metric, &queries, &self.seen, spec.k)?))
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
    fn scan(&self, spec: &QualitySpec, items: Codec, users: Codec) -> Result<Rows, CatalogError> {
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
    fn score_again(&self, spec: &QualitySpec, users: Codec, found: &Rows) -> Result<Rows, CatalogError> {
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
    fn search(&self, rows: &IndexRows, ef: u32, users: Codec, k: usize) -> Result<Rows, CatalogError> {
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

/// What answers are judged by.
struct Judge<'a> {
    k: usize,
    /// The exact answers to the users of the first sample.
    truth: &'a Rows,
    /// Those of the second.
    cases: &'a [Case],
}

impl Judge<'_> {
    /// Judges the first `k` of the answers to both samples.
    fn worth(&self, answers: &[Rows]) -> Worth {
        let first =
            |sample: usize| answers.get(sample).map(|rows| rows.iter().map(|row| &row[..self.k.min(row.len())]));
        let recall = self
            .truth
            .iter()
            .zip(first(0).into_iter().flatten())
            .map(|(truth, found)| share(truth.iter().filter(|row| found.contains(row)).count(), truth.len()));
        let of_cases = |judge: &dyn Fn(&Case, &[u32]) -> f64| {
            Some(Estimate::of(self.cases.iter().zip(first(1)?).map(|(case, found)| judge(case, found))))
        };
        let ndcg = |case: &Case, found: &[u32]| ndcg(case, found, self.k);
        Worth { recall: Estimate::of(recall), hit_rate: of_cases(&hits), ndcg: of_cases(&ndcg) }
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

/// Share of the wanted items that were answered.
fn hits(case: &Case, found: &[u32]) -> f64 {
    share(found.iter().filter(|row| case.wanted.binary_search(row).is_ok()).count(), case.wanted.len())
}

/// Normalized discounted cumulative gain: relative to the wanted items in the first places.
fn ndcg(case: &Case, found: &[u32], k: usize) -> f64 {
    let gain = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let hits = found.iter().enumerate().filter(|(_, row)| case.wanted.binary_search(row).is_ok());
    let best: f64 = (0..case.wanted.len().min(k)).map(gain).sum();
    if best > 0.0 { hits.map(|(place, _)| gain(place)).sum::<f64>() / best } else { 0.0 }
}
