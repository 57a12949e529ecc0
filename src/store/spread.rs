//! Which keys go to which server: all, or in a cluster those in its slots, by the names they will have.

use std::collections::BTreeMap;

use super::keys;
use super::release::Manifest;
use crate::kv::memory::Names;
use crate::kv::{Probe, ProbedShard, SlotRange, slot_of};

/// A server that pages go to.
#[derive(Clone, Copy)]
pub(super) struct On<'a> {
    /// Its address, if it is one of several.
    pub shard: Option<&'a str>,
    /// The slots it serves; `None` for every key.
    pub slots: Option<&'a [SlotRange]>,
    /// What is known of it.
    pub probe: &'a Probe,
}

impl<'a> On<'a> {
    /// The only server.
    pub fn alone(probe: &'a Probe) -> Self {
        Self { shard: None, slots: None, probe }
    }

    /// One of several.
    pub fn shard(shard: &'a ProbedShard) -> Self {
        Self { shard: Some(&shard.home), slots: Some(&shard.slots), probe: &shard.probe }
    }

    /// What a release brings it.
    pub fn pages(&self, ns: &str, manifest: &Manifest) -> Pages {
        let name = |page| keys::page(ns, manifest.keys(), page);
        let own = self.slots.map(|_| (0..manifest.pages()).filter(|&page| self.serves(&name(page))).collect());
        Pages { prefix_bytes: name(0).len() - 1, count: manifest.pages(), own }
    }

    /// What any keys bring it, by their names.
    pub fn keys(&self, count: u32, name: impl Fn(u32) -> Vec<u8>) -> Mixed {
        let mut lengths = BTreeMap::new();
        for name in (0..count).map(name).filter(|name| self.serves(name)) {
            *lengths.entry(name.len()).or_insert(0) += 1;
        }
        Mixed { of: count, lengths }
    }

    fn serves(&self, name: &[u8]) -> bool {
        self.slots.is_none_or(|slots| {
            let slot = slot_of(name);
            slots.iter().any(|range| range.has(slot))
        })
    }
}

/// Keys that come to one server, in the order in which they are written.
#[derive(Clone, Debug)]
pub(super) enum Coming {
    Pages(Pages),
    Mixed(Mixed),
}

impl Coming {
    /// Names of those that come with the first `keys` of all.
    pub fn names(&self, keys: u32) -> Names {
        match self {
            Self::Pages(pages) => pages.names(keys),
            Self::Mixed(mixed) => mixed.names(keys),
        }
    }

    /// Names of those that come with the keys `first..keys`.
    pub fn names_from(&self, first: u32, keys: u32) -> Names {
        less(&self.names(keys), &self.names(first))
    }

    /// How many are written, to whichever server.
    pub fn count(&self) -> u32 {
        match self {
            Self::Pages(pages) => pages.count,
            Self::Mixed(mixed) => mixed.of,
        }
    }

    /// The server's share of them.
    pub fn share(&self) -> f64 {
        self.names(self.count()).count() as f64 / f64::from(self.count().max(1))
    }
}

/// Keys of which it is not known in which order their names come: each server and length gets its share all the while.
#[derive(Clone, Debug)]
pub(super) struct Mixed {
    /// Of all servers.
    of: u32,
    /// Names of each length that go to this one.
    lengths: BTreeMap<usize, u64>,
}

impl Mixed {
    fn names(&self, keys: u32) -> Names {
        let share = f64::from(keys.min(self.of)) / f64::from(self.of.max(1));
        Names::of(self.lengths.iter().map(|(&bytes, &count)| (bytes, (count as f64 * share).round() as u64)))
    }
}

/// The pages of a release that go to one server.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// Length of a name without its number.
    prefix_bytes: usize,
    /// Of the whole release.
    count: u32,
    /// Numbers of those that go there, ascending: 4 bytes a page. `None` for all.
    own: Option<Vec<u32>>,
}

impl Pages {
    /// Names of those that come.
    pub fn all_names(&self) -> Names {
        self.names(self.count)
    }

    /// Names of those that come with the pages `first..pages`.
    pub fn names_from(&self, first: u32, pages: u32) -> Names {
        less(&self.names(pages), &self.names(first))
    }

    /// Names of those that come with the first `pages` pages of the release.
    pub fn names(&self, pages: u32) -> Names {
        let Some(own) = &self.own else { return Names::numbered(self.prefix_bytes, 0..u64::from(pages)) };
        let below = |number: u64| own.partition_point(|&page| u64::from(page) < number.min(u64::from(pages))) as u64;
        // numbers of as many digits; a u32 has at most ten
        let group = |digits: u32| {
            let first = if digits == 1 { 0 } else { 10u64.pow(digits - 1) };
            (self.prefix_bytes + digits as usize, below(10u64.pow(digits)) - below(first))
        };
        Names::of((1..=10).map(group).filter(|&(_, count)| count > 0))
    }
}

/// The names of `all` that are not among the first ones.
fn less(all: &Names, first: &Names) -> Names {
    let mut lengths: BTreeMap<usize, u64> = all.lengths().iter().copied().collect();
    for (bytes, count) in first.lengths() {
        lengths.entry(*bytes).and_modify(|left| *left = left.saturating_sub(*count));
    }
    Names::of(lengths.into_iter().filter(|&(_, count)| count > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_pages_that_go_there() {
        for own in [None, Some((0..12_345).filter(|page| page % 7 == 3 || page % 1_000 == 0).collect::<Vec<u32>>())] {
            let pages = Pages { prefix_bytes: 5, count: 12_345, own };
            for first in [0, 1, 3, 4, 10, 11, 100, 999, 1_001, 10_004, 12_345] {
                let ours = |page: &u32| pages.own.as_ref().is_none_or(|own| own.contains(page));
                let mut lengths = BTreeMap::new();
                (0..first).filter(ours).for_each(|n| *lengths.entry(5 + n.to_string().len()).or_insert(0) += 1);
                assert_eq!(pages.names(first), Names::of(lengths), "{first}");
            }
        }
    }
}
