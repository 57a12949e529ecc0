//! The answer put together: each place from its source, and if that has nothing left, from any other.
//!
//! The one thing to know: an answer is shorter than asked for only when nothing more may come, and then it says why,
//! with numbers that are counted, not estimated.

use std::collections::HashSet;

use super::EngineError;
use super::answer::{Reason, Shortfall};
use super::diversify::Caps;
use super::quest::{Found, Quest};
use super::request::Source;
use crate::store::item_hash;

/// What one source has, best first.
#[derive(Debug)]
pub(super) struct Feed {
    pub source: Source,
    pub items: Vec<Found>,
    /// The next to be looked at.
    at: usize,
}

/// An item that comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Chosen {
    pub pick: u32,
    pub score: f32,
    pub source: Source,
}

/// Places, and what there is to put there.
pub(super) struct Filling<'a> {
    pub plan: &'a [Source],
    /// Places and the picks that are pinned to them, allowed and no pick twice.
    pub pins: &'a [(usize, u32)],
    /// The first is what takes the place of others that have nothing left.
    pub feeds: Vec<Feed>,
    pub caps: Caps<'a>,
}

impl Feed {
    pub fn new(source: Source, items: Vec<Found>) -> Self {
        Self { source, items, at: 0 }
    }

    fn next(&mut self, used: &HashSet<u32>, caps: &Caps) -> Option<Chosen> {
        while let Some(&(pick, score)) = self.items.get(self.at) {
            self.at += 1;
            if !used.contains(&pick) && caps.admits(pick) {
                return Some(Chosen { pick, score, source: self.source });
            }
        }
        None
    }
}

/// Fills the places. `more` is asked for more of the first feed, given what came and what the limits are at, until it has
/// none.
pub(super) fn fill(
    filling: Filling,
    mut more: impl FnMut(&Caps, &HashSet<u32>) -> Result<Vec<Found>, EngineError>,
) -> Result<Vec<Chosen>, EngineError> {
    let Filling { plan, pins, mut feeds, mut caps } = filling;
    let mut used: HashSet<u32> = pins.iter().map(|&(_, pick)| pick).collect();
    pins.iter().for_each(|&(_, pick)| caps.count(pick));
    let mut chosen = Vec::with_capacity(plan.len());
    let mut dry = false;
    for (place, &source) in plan.iter().enumerate() {
        let pinned = pins.iter().find(|(at, _)| *at == place);
        let mut next = pinned.map(|&(_, pick)| Chosen { pick, score: 0.0, source: Source::Pinned });
        if next.is_none() {
            let own = feeds.iter_mut().find(|feed| feed.source == source);
            next = own.and_then(|feed| feed.next(&used, &caps));
        }
        while next.is_none() && !dry {
            let Some(first) = feeds.first_mut() else { break };
            next = first.next(&used, &caps);
            if next.is_none() {
                let items = more(&caps, &used)?;
                dry = items.is_empty();
                *first = Feed::new(first.source, items);
            }
        }
        let next = next.or_else(|| feeds.iter_mut().find_map(|feed| feed.next(&used, &caps)));
        let Some(next) = next else { continue };
        used.insert(next.pick);
        if pinned.is_none() {
            caps.count(next.pick);
        }
        chosen.push(next);
    }
    Ok(chosen)
}

/// What limited an answer, beside the filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// Picks that were seen, ascending.
    pub seen: &'a [u32],
    /// Picks of the pages before, ascending.
    pub shown: &'a [u32],
    /// Why, if it is none of what can be counted.
    pub otherwise: Reason,
}

/// Why `returned` items are fewer than `requested`.
pub(super) fn shortfall(quest: &Quest, limits: Limits, requested: usize, returned: usize) -> Option<Shortfall> {
    if returned >= requested {
        return None;
    }
    let Quest { scope, eligible, older, .. } = quest;
    let (items, available, passing) = (scope.view.items, scope.available(), eligible.count(scope));
    let of = |picks: &[u32]| picks.iter().filter(|&&pick| eligible.has(scope, pick)).count();
    let mut unseen = passing - of(limits.seen);
    let was_older = |pick: u32| older.is_some_and(|older| older.has_older(item_hash(scope.id(pick))));
    if older.is_some() {
        let end = scope.nodes() + scope.view.added.len() as u32;
        let is_seen =
            |&pick: &u32| eligible.has(scope, pick) && limits.seen.binary_search(&pick).is_err() && was_older(pick);
        unseen -= (0..end).filter(is_seen).count();
    }
    let unseen_shown =
        |&&pick: &&u32| eligible.has(scope, pick) && limits.seen.binary_search(&pick).is_err() && !was_older(pick);
    let left = unseen - limits.shown.iter().filter(unseen_shown).count();
    let stages = [
        (items, Reason::Catalogue),
        (available, Reason::Unavailable),
        (passing, Reason::Filter),
        (unseen, Reason::Seen),
        (left, Reason::Pages),
    ];
    let reason =
        stages.into_iter().find(|(count, _)| *count < requested).map_or(limits.otherwise, |(_, reason)| reason);
    Some(Shortfall { reason, requested, returned, items, available, passing, unseen })
}
