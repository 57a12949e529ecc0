//! What each codec of items and of users costs in recall, and in hits: measured on the very vectors.
//!
//! Every pair of codecs is measured as it would serve: a user's vector becomes a record and is scored against the items'
//! codes as a stored one is. Two numbers are told apart: *exact*, where every item is scored, which is what the codecs
//! cost; and *served*, where an index is walked at each `ef` of its ladder, which is what a request gets. All of them come
//! as an [`Estimate`]: a mean and the interval that the sample leaves open.

mod sample;

use std::fmt;

use serde::{Deserialize, Serialize};

use self::sample::{IndexRows, Rows, Sample};
use super::Estimate;
use super::heldout::Case;
use crate::catalog::{CatalogError, Index};
use crate::codec::{Codec, Layout, Metric};
use crate::input::{Ids, Vectors};

/// Users asked at least and at most; in between, so many that scoring all items for one codec of users takes about
/// `WORK` products. 400 tell recall 0.99 to about ±0.006, 2,000 to ±0.003.
const USERS: std::ops::RangeInclusive<u64> = 400..=2000;
const WORK: u64 = 20_000_000_000;

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

    /// Codes, and what the best are scored again by.
    pub const fn new(codec: Codec, finer: Option<Codec>) -> Self {
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

impl fmt::Display for ItemForm {
    /// `int8`, `int8 + f16`, or `int8 + residual` when the finer codes are what the first leave.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.finer {
            None => write!(f, "{}", self.codec),
            Some(Codec::Int8) => write!(f, "{} + residual", self.codec),
            Some(finer) => write!(f, "{} + {finer}", self.codec),
        }
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
    /// Share of the NDCG of exact `f32` that is lost, user by user: its upper bound.
    pub ndcg_lost: Option<f64>,
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

/// How many users there should be in a sample of so many.
pub fn sample_size(items: &Vectors, users: usize) -> usize {
    let wanted = (WORK / (items.rows() as u64 * items.dim() as u64).max(1)).clamp(*USERS.start(), *USERS.end());
    (wanted as usize).min(users)
}

/// Users who are asked, and what they should be answered: exactly, by `f32`.
///
/// Holds the sampled users, their answers, and a few MiB of items at a time.
pub struct Jury<'a> {
    spec: QualitySpec<'a>,
    /// Users of whom nothing but the vector is known.
    anyone: Sample<'a>,
    truth: Rows,
    /// Users of held-out interactions.
    holders: Option<Holders<'a>>,
    /// Codecs that can hold all of them.
    codecs: Vec<Codec>,
}

struct Holders<'a> {
    sample: Sample<'a>,
    cases: &'a [Case],
    /// Of the exact answers.
    ndcg: Vec<f64>,
}

impl<'a> Jury<'a> {
    /// Chooses users, evenly spread over the file, and scores every item for them.
    pub fn new(spec: QualitySpec<'a>) -> Result<Self, CatalogError> {
        if spec.users.dim() != spec.items.dim() {
            return Err(CatalogError::Dimensions { expected: spec.items.dim(), got: spec.users.dim() });
        }
        let count = sample_size(spec.items, spec.users.rows());
        let rows: Vec<u32> = (0..count).map(|at| (at * spec.users.rows() / count) as u32).collect();
        let anyone = Sample::new(&spec, &rows, None)?;
        let truth = anyone.truth(&spec)?;
        let cases = &spec.cases[..count.min(spec.cases.len())];
        let holders = if cases.is_empty() { None } else { Some(Holders::new(&spec, cases)?) };
        let can_be = |&codec: &Codec| anyone.can_be(codec) && holders.as_ref().is_none_or(|h| h.sample.can_be(codec));
        let codecs = Codec::ALL.into_iter().filter(can_be).collect();
        Ok(Self { spec, anyone, truth, holders, codecs })
    }

    /// Users asked.
    pub fn users(&self) -> usize {
        self.truth.len()
    }

    /// Measures every pair of codecs, items' forms as in [`ItemForm::ALL`] and users' as in [`Codec::ALL`]. A codec that
    /// cannot hold the vectors is missing. `progress` is told how much is done, from 0 to 1.
    pub fn exact(&self, progress: &mut dyn FnMut(f64)) -> Result<Vec<Exact>, CatalogError> {
        let pairs: Vec<(Codec, Codec)> =
            Codec::ALL.into_iter().flat_map(|items| self.codecs.iter().map(move |&users| (items, users))).collect();
        let mut table = Vec::new();
        for (done, &(items, users)) in pairs.iter().enumerate() {
            progress(done as f64 / pairs.len() as f64);
            let found = match self.each(|sample| sample.scan(&self.spec, items, users)) {
                // Vectors that halves cannot hold leave the other codecs to choose from.
                Err(CatalogError::Vector { .. }) if items == Codec::F16 => continue,
                found => found?,
            };
            for form in ItemForm::ALL.into_iter().filter(|form| form.codec == items) {
                let mut candidates = found.iter();
                let answers = self.each(|sample| match candidates.next() {
                    Some(found) if form.finer.is_some() => sample.score_again(&self.spec, users, found),
                    found => Ok(found.cloned().unwrap_or_default()),
                })?;
                table.push(Exact { items: form, users, worth: self.worth(&answers) });
            }
        }
        progress(1.0);
        table.sort_by_key(|exact| (ItemForm::ALL.iter().position(|form| *form == exact.items), exact.users));
        Ok(table)
    }

    /// Measures an index made of these items, effort rising along its ladder.
    pub fn served(&self, index: &Index, progress: &mut dyn FnMut(f64)) -> Result<Vec<Served>, CatalogError> {
        let (rows, efs) = (IndexRows::new(index, &self.spec)?, efs(index));
        let mut table = Vec::new();
        for &ef in &efs {
            for &users in &self.codecs {
                let answers = self.each(|sample| sample.search(&rows, ef, users, self.spec.k))?;
                table.push(Served { ef, users, worth: self.worth(&answers) });
                progress(table.len() as f64 / (efs.len() * self.codecs.len()) as f64);
            }
        }
        Ok(table)
    }

    /// The answers to the users of both samples, the second if there is one.
    fn each(&self, mut answer: impl FnMut(&Sample) -> Result<Rows, CatalogError>) -> Result<Vec<Rows>, CatalogError> {
        let holders = self.holders.as_ref().map(|holders| &holders.sample);
        [Some(&self.anyone), holders].into_iter().flatten().map(&mut answer).collect()
    }

    /// Judges the first `k` of the answers to both samples.
    fn worth(&self, answers: &[Rows]) -> Worth {
        let k = self.spec.k;
        let first = |rows: &'_ Rows| rows.iter().map(|row| row[..k.min(row.len())].to_vec()).collect::<Rows>();
        let recall = self
            .truth
            .iter()
            .zip(first(&answers[0]))
            .map(|(truth, found)| share(truth.iter().filter(|row| found.contains(row)).count(), truth.len()));
        let mut worth = Worth { recall: Estimate::of(recall), hit_rate: None, ndcg: None, ndcg_lost: None };
        if let Some((holders, answers)) = self.holders.as_ref().zip(answers.get(1)) {
            let found = first(answers);
            let pairs = || holders.cases.iter().zip(&found);
            let gains: Vec<f64> = pairs().map(|(case, found)| ndcg(case, found, k)).collect();
            worth.hit_rate = Some(Estimate::of(pairs().map(|(case, found)| hits(case, found))));
            worth.ndcg = Some(Estimate::of(gains.iter().copied()));
            worth.ndcg_lost = Some(holders.lost(&gains));
        }
        worth
    }
}

impl<'a> Holders<'a> {
    fn new(spec: &QualitySpec<'a>, cases: &'a [Case]) -> Result<Self, CatalogError> {
        let users: Vec<u32> = cases.iter().map(|case| case.user).collect();
        let sample = Sample::new(spec, &users, Some(cases))?;
        let best = sample.truth(spec)?;
        let ndcg = cases.iter().zip(&best).map(|(case, found)| ndcg(case, found, spec.k)).collect();
        Ok(Self { sample, cases, ndcg })
    }

    /// The share of NDCG lost, upper bound. A user's loss is from -1 to 1; halved and raised it is a share.
    fn lost(&self, gains: &[f64]) -> f64 {
        let shares = self.ndcg.iter().zip(gains).map(|(best, gain)| (1.0 + best - gain) / 2.0);
        let most = 2.0 * Estimate::of(shares).high - 1.0;
        let mean = self.ndcg.iter().sum::<f64>() / self.ndcg.len() as f64;
        if mean > 0.0 { (most / mean).clamp(0.0, 1.0) } else { 1.0 }
    }
}

/// What one more rung of the ladder must find to be worth trying.
const GAIN: f64 = 0.001;

/// The ladder of an index up to where more effort finds hardly more, or its default alone when it was built without.
fn efs(index: &Index) -> Vec<u32> {
    let profile = index.profile();
    let gains = profile.rungs.windows(2).map(|pair| pair[1].recall_at_10 - pair[0].recall_at_10);
    let enough = gains.into_iter().position(|gain| gain < GAIN).map_or(profile.rungs.len(), |at| at + 2);
    match &profile.rungs[..enough] {
        [] => vec![profile.default_ef() as u32],
        rungs => rungs.iter().map(|rung| rung.ef).collect(),
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
