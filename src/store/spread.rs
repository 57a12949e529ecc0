//! Which pages of a release go to which server: all, or in a cluster those in its slots, by the names they will have.

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
        let is_ours = |slots: &[SlotRange], page: &u32| {
            let slot = slot_of(&name(*page));
            slots.iter().any(|range| (range.first..=range.last).contains(&slot))
        };
        let own = self.slots.map(|slots| (0..manifest.pages()).filter(|page| is_ours(slots, page)).collect());
        Pages { prefix_bytes: name(0).len() - 1, count: manifest.pages(), own }
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

    /// Their share of the release.
    pub fn share(&self) -> f64 {
        self.own.as_ref().map_or(1.0, |own| own.len() as f64 / f64::from(self.count.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
