//! The best items for one vector: of the index and of what was added, without what was seen.

use std::cmp::Ordering;
use std::time::Instant;

use super::EngineError;
use super::effort::Speed;
use super::mask::Mask;
use super::shelf::{Eligible, Scope, sorted};
use crate::catalog::{Hit, QueryVector};
use crate::codec::Codec;
use crate::graph::{Filter, SearchOptions};
use crate::store::{Seen, item_hash};

/// A pick and its score.
pub(super) type Found = (u32, f32);

/// What is searched for. A record says more precisely than its vector what was published.
#[derive(Clone, Debug)]
pub(super) struct Sought {
    pub vector: Vec<f32>,
    pub record: Option<(Codec, Vec<u8>)>,
}

/// The best picks, best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Candidates {
    pub found: Vec<Found>,
    /// Whether these are all that there are.
    pub complete: bool,
    pub distances: usize,
}

/// A search and all that limits it.
#[derive(Debug)]
pub(super) struct Quest<'a> {
    pub scope: &'a Scope<'a>,
    pub eligible: &'a Eligible,
    /// Picks that must not come, ascending.
    pub barred: &'a [u32],
    /// Older items that the user has seen, for whose hashes there is no way to a pick.
    pub older: Option<&'a Seen>,
    pub ef: usize,
    /// Where is noted what searches take.
    pub speed: &'a Speed,
}

/// Bitmaps that stand in for those of the eligible ones.
pub(super) struct Narrowed {
    pub nodes: Mask,
    pub added: Mask,
}

impl Quest<'_> {
    /// The best `want`, or all that there are.
    pub fn best(&self, sought: &Sought, want: usize) -> Result<Candidates, EngineError> {
        self.best_within(sought, want, None, self.barred)
    }

    /// The same, of fewer.
    pub fn best_within(
        &self,
        sought: &Sought,
        want: usize,
        narrowed: Option<&Narrowed>,
        barred: &[u32],
    ) -> Result<Candidates, EngineError> {
        // Of those that are seen some are among the best, most likely.
        let mut ask = if self.older.is_some() { want + want / 2 + 8 } else { want };
        let mut barred = barred.to_vec();
        let mut distances = 0;
        loop {
            let mut candidates = self.once(sought, ask, narrowed, &barred)?;
            distances += candidates.distances;
            let met = candidates.found.len();
            let mut seen = Vec::new();
            if let Some(older) = self.older {
                let is_new = |&(pick, _): &Found| !older.has_older(item_hash(self.scope.id(pick)));
                let (new, old): (Vec<Found>, Vec<Found>) = candidates.found.into_iter().partition(is_new);
                candidates.found = new;
                seen = old;
            }
            if candidates.found.len() >= want || candidates.complete || seen.is_empty() {
                candidates.complete &= candidates.found.len() <= want;
                candidates.found.truncate(want);
                return Ok(Candidates { distances, ..candidates });
            }
            barred = sorted(barred.into_iter().chain(seen.iter().map(|&(pick, _)| pick)).collect());
            ask = met + want;
        }
    }

    fn once(
        &self,
        sought: &Sought,
        ask: usize,
        narrowed: Option<&Narrowed>,
        barred: &[u32],
    ) -> Result<Candidates, EngineError> {
        let (scope, nodes) = (self.scope, self.scope.nodes());
        let (of_nodes, of_added) = barred.split_at(barred.partition_point(|&pick| pick < nodes));
        let mask =
            narrowed.map(|narrowed| &narrowed.nodes).or(self.eligible.nodes.as_ref().map(|passing| &passing.nodes));
        let filter = Filter { bits: mask.map(|mask| (&mask.bits[..], mask.passing)), exclude: of_nodes };
        let query = match &sought.record {
            Some((codec, record)) => QueryVector::Record(*codec, record),
            None => QueryVector::Floats(&sought.vector),
        };
        let begun = Instant::now();
        let (hits, stats) = scope.shelf.index.search(query, SearchOptions { k: ask, ef: self.ef }, filter)?;
        self.speed.note(stats, begun.elapsed());
        let mut found: Vec<Found> = hits.into_iter().map(|Hit { node, score }| (node, score)).collect();
        let mut complete = found.len() < ask;
        let mut distances = stats.distances;
        if scope.view.added.len() > 0 {
            let mask = narrowed.map_or(&self.eligible.added, |narrowed| &narrowed.added);
            let exclude: Vec<u32> = of_added.iter().map(|pick| pick - nodes).collect();
            let filter = Filter { bits: Some((&mask.bits, mask.passing)), exclude: &exclude };
            let added = scope.view.added.best(&sought.vector, ask, filter);
            complete &= added.len() < ask;
            distances += mask.passing;
            found.extend(added.into_iter().map(|(place, score)| (nodes + place, score)));
            found.sort_by(by_score);
            complete &= found.len() <= ask;
            found.truncate(ask);
        }
        Ok(Candidates { found, complete, distances })
    }

    /// Popular items that may come, the most popular first.
    pub fn popular(&self) -> impl Iterator<Item = Found> {
        self.scope.shelf.index.popular().iter().copied().filter(|&node| self.allows(node)).map(|node| (node, 0.0))
    }

    /// Items added since the build that may come, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = Found> {
        let first = self.scope.nodes();
        let places = (0..self.scope.view.added.len() as u32).rev();
        places.map(move |place| first + place).filter(|&pick| self.allows(pick)).map(|pick| (pick, 0.0))
    }

    /// Whether a pick may come.
    pub fn allows(&self, pick: u32) -> bool {
        self.eligible.has(self.scope, pick)
            && self.barred.binary_search(&pick).is_err()
            && self.older.is_none_or(|older| !older.has_older(item_hash(self.scope.id(pick))))
    }
}

/// Larger scores first, then smaller picks.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature of a comparison")]
pub(super) fn by_score(a: &Found, b: &Found) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}
