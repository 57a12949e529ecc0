//! The bytes of one node of the store, between publishes and at the most during one.
//!
//! A publish is played through on the memory model: what stands, what comes, what goes, with the tables as they grow.

use std::collections::HashMap;

use super::space::Stored;
use crate::codec::Codec;
use crate::kv::memory::{Dataset, Expiry, Keys, Names, Priced, Server, Value, Values};
use crate::plan::{Cache, Component, Entry, Facts, Pages, Problem, Publishing};
use crate::store::{PUBLISHER_BYTES, geometry};

/// Keys whose TTL is over and who have not been found yet: with the default `active-expire-effort` a server tries to have
/// no more than a tenth of them (`redis.conf`).
const EXPIRED: f64 = 0.10;

/// Characters of a key around the namespace, as `docs/wire-format.md` draws them: `ns:id:page` with 12 of the release,
/// `ns:id:l:user`, and `ns:s:user` for what belongs to no release.
const PAGE_NAME: usize = 14;
const LIST_NAME: usize = 16;
const USER_NAME: usize = 3;

/// Bytes of the fullest node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub rest_bytes: u64,
    pub peak_bytes: u64,
    pub components: Vec<Component>,
}

/// Prices groups once.
pub(super) struct Prices<'a> {
    problem: &'a Problem,
    pages: HashMap<(Codec, bool, u64, u32), Priced>,
    lists: HashMap<(Entry, u64, u32), Priced>,
    others: HashMap<u32, Vec<Priced>>,
}

/// What stands on a node.
struct Groups {
    pages: Option<Priced>,
    /// Lists or candidates of a release.
    precomputed: Option<Priced>,
    /// Those that requests have written; and what there is more of them while two releases' are alive.
    cached: Option<(Priced, Priced)>,
    others: Vec<Priced>,
}

impl<'a> Prices<'a> {
    pub fn new(problem: &'a Problem) -> Self {
        Self { problem, pages: HashMap::new(), lists: HashMap::new(), others: HashMap::new() }
    }

    /// Plays a publish through. `components` only where they are wanted.
    pub fn node(&mut self, stored: &Stored, components: bool) -> Node {
        let facts = &self.problem.facts;
        let groups = self.groups(stored);
        let mut dataset = Dataset::new(server(facts, stored.shards), facts.overhead_bytes, 0, 0);
        let standing = stored.releases_kept + 1;
        groups.others.iter().for_each(|group| dataset.add_priced(group));
        (0..standing).for_each(|_| groups.load(&mut dataset));
        if let Some((cached, _)) = &groups.cached {
            dataset.add_priced(cached);
        }
        if stored.publishing == Publishing::RetireFirst {
            groups.retire(&mut dataset);
        }
        if stored.publishing != Publishing::Rolling {
            groups.load(&mut dataset);
        }
        if let Some((_, more)) = &groups.cached {
            dataset.add_priced(more);
            dataset.remove_priced(more);
        }
        if stored.publishing == Publishing::Beside {
            groups.retire(&mut dataset);
        }
        let rest_bytes = dataset.rest_bytes();
        let peak_bytes = dataset.peak_bytes() + PUBLISHER_BYTES;
        let components = if components { self.components(stored, &groups, rest_bytes, peak_bytes) } else { Vec::new() };
        Node { rest_bytes, peak_bytes, components }
    }

    /// What a peak cannot be below: everything that stands then, without tables. A hundredth of the work, in a cluster.
    pub fn least_peak_bytes(&mut self, stored: &Stored) -> u64 {
        let groups = self.groups(stored);
        let releases =
            f64::from(stored.releases_kept) + if stored.publishing == Publishing::Beside { 2.0 } else { 1.0 };
        let once = |group: Option<Priced>| group.map_or(0.0, |group| group.persisted().bytes());
        let cached = groups.cached.map_or(0.0, |(cached, more)| cached.bytes() + more.bytes());
        let others: f64 = groups.others.iter().map(Priced::bytes).sum();
        let own = releases * (once(groups.pages) + groups.precomputed.map_or(0.0, |lists| lists.bytes()));
        self.problem.facts.overhead_bytes + PUBLISHER_BYTES + (own + cached + others) as u64
    }

    fn groups(&mut self, stored: &Stored) -> Groups {
        let (problem, shards) = (self.problem, stored.shards);
        let pages = stored.vectors.map(|(codec, pages)| {
            let key = (codec, matches!(pages, Pages::Dense { .. }), stored.users_kept, shards);
            *self
                .pages
                .entry(key)
                .or_insert_with(|| price_pages(&problem.facts, codec, pages, stored.users_kept, shards))
        });
        let mut lists = |entry, users: u64| {
            let price = || price_lists(&problem.facts, entry, users, shards);
            *self.lists.entry((entry, users, shards)).or_insert_with(price)
        };
        let precomputed = match stored.cache {
            Cache::Precomputed { entry, users } => Some(lists(entry, users)),
            _ => None,
        };
        let cached = match stored.cache {
            Cache::Store { entry, ttl_s, on_read } => {
                let alive = |ttl_s| {
                    let resident = problem.traffic.resident_peak(ttl_s, on_read) * (1.0 + EXPIRED);
                    resident.min(stored.users_kept as f64)
                };
                // at half the TTL after a switch the old release's that are left and the new one's that have come are
                // the most, since with time ever fewer new users come
                let (at_rest, at_most) = (alive(ttl_s), 2.0 * alive(ttl_s / 2.0));
                let more = (at_most - at_rest).max(0.0);
                Some((lists(entry, at_rest.ceil() as u64), lists(entry, more.ceil() as u64)))
            }
            _ => None,
        };
        let others = self.others.entry(shards).or_insert_with(|| price_others(problem, shards)).clone();
        Groups { pages, precomputed, cached, others }
    }

    /// What the bytes consist of; tables are what the groups do not explain.
    fn components(&self, stored: &Stored, groups: &Groups, rest_bytes: u64, peak_bytes: u64) -> Vec<Component> {
        let standing = f64::from(stored.releases_kept) + 1.0;
        let loading = match stored.publishing {
            Publishing::Beside => standing + 1.0,
            Publishing::RetireFirst | Publishing::Rolling => standing,
        };
        let mut parts: Vec<(String, f64, f64)> = Vec::new();
        if let Some(pages) = groups.pages {
            let kept = pages.persisted();
            let coming = if stored.publishing == Publishing::Rolling { kept } else { pages };
            let peak = (loading - 1.0) * kept.bytes() + coming.bytes();
            parts.push(("user vectors".to_owned(), standing * kept.bytes(), peak));
        }
        if let Some(lists) = groups.precomputed {
            parts.push(("precomputed lists".to_owned(), standing * lists.bytes(), loading * lists.bytes()));
        }
        if let Some((cached, more)) = groups.cached {
            parts.push(("cached lists".to_owned(), cached.bytes(), cached.bytes() + more.bytes()));
        }
        for (other, group) in self.problem.facts.per_user.iter().zip(&groups.others) {
            parts.push((other.name.clone(), group.bytes(), group.bytes()));
        }
        let overhead = self.problem.facts.overhead_bytes as f64;
        let explained = |of: &dyn Fn(&(String, f64, f64)) -> f64| parts.iter().map(of).sum::<f64>() + overhead;
        let in_flight = PUBLISHER_BYTES as f64;
        let tables =
            (rest_bytes as f64 - explained(&|part| part.1), peak_bytes as f64 - in_flight - explained(&|part| part.2));
        parts.push(("tables of keys".to_owned(), tables.0, tables.1));
        parts.push(("the server itself".to_owned(), overhead, overhead));
        parts.push(("publisher in flight".to_owned(), 0.0, in_flight));
        let component = |(name, rest, peak): (String, f64, f64)| Component {
            name,
            rest_bytes: rest.max(0.0).round() as u64,
            peak_bytes: peak.max(0.0).round() as u64,
        };
        parts.into_iter().map(component).collect()
    }
}

impl Groups {
    /// A release comes, and becomes active.
    fn load(&self, dataset: &mut Dataset) {
        self.precomputed.iter().for_each(|lists| dataset.add_priced(lists));
        if let Some(pages) = self.pages {
            dataset.add_priced(&pages);
            dataset.persist_priced(&pages);
        }
    }

    /// A release that was active goes.
    fn retire(&self, dataset: &mut Dataset) {
        self.precomputed.iter().for_each(|lists| dataset.remove_priced(lists));
        if let Some(pages) = self.pages {
            dataset.remove_priced(&pages.persisted());
        }
    }
}

/// A node, alone or of a cluster.
pub(super) fn server(facts: &Facts, shards: u32) -> Server {
    let cluster_slots = if shards > 1 { Some(16_384_u32.div_ceil(shards)) } else { facts.server.cluster_slots };
    Server { cluster_slots, ..facts.server }
}

/// The fullest shard's part of `keys` keys. Were they thrown at random, the fullest of `s` would have
/// `sqrt(2 ln s * s / keys)` more than the mean; CRC16 spreads names that are counted up more evenly.
fn fullest(keys: u64, shards: u32) -> f64 {
    let s = f64::from(shards);
    if shards <= 1 || keys == 0 {
        return 1.0;
    }
    ((1.0 + (2.0 * s.ln() * s / keys as f64).sqrt()) / s).min(1.0)
}

/// Names with this part of their counts.
fn part(names: &Names, part: f64) -> Names {
    Names::of(names.lengths().iter().map(|&(bytes, count)| (bytes, (count as f64 * part).ceil() as u64)))
}

fn price_pages(facts: &Facts, codec: Codec, pages: Pages, users: u64, shards: u32) -> Priced {
    let record = codec.bytes_per_vector(facts.dim as usize);
    let (count, values) = match pages {
        Pages::Dense { slots } => {
            let (slot, slots) = (geometry::dense_user_bytes(record), u64::from(slots));
            let page = |users: u64, count: u64| (Value::String(users as usize * slot), count as f64);
            let values = Values::mixed([
                page(slots, users / slots),
                page(users % slots, u64::from(!users.is_multiple_of(slots))),
            ]);
            (users.div_ceil(slots), values)
        }
        Pages::Hashed { mean_users } => {
            let count = (users as f64 / mean_users).ceil().max(1.0) as u64;
            let entry = geometry::hashed_user_bytes(record);
            (count, Values::poisson(geometry::HASHED_HEADER_BYTES, entry, users as f64 / count as f64))
        }
    };
    let names = Names::numbered(facts.ns_bytes as usize + PAGE_NAME, 0..count);
    let keys = Keys { names: part(&names, fullest(count, shards)), values, expiry: Expiry::Set };
    server(facts, shards).price(&keys)
}

fn price_lists(facts: &Facts, entry: Entry, users: u64, shards: u32) -> Priced {
    let names = user_names(facts, LIST_NAME, users, shards);
    server(facts, shards).price(&Keys::strings(names, facts.entry_bytes(entry) as usize, Expiry::Set))
}

fn price_others(problem: &Problem, shards: u32) -> Vec<Priced> {
    let facts = &problem.facts;
    let price = |other: &crate::plan::PerUser| {
        let (users, expiry) = match other.ttl_s {
            None => (facts.users as f64, Expiry::None),
            Some(ttl_s) => (problem.traffic.resident_peak(ttl_s, true) * (1.0 + EXPIRED), Expiry::Set),
        };
        let names = user_names(facts, USER_NAME, users.min(facts.users as f64).ceil() as u64, shards);
        server(facts, shards).price(&Keys::strings(names, other.value_bytes as usize, expiry))
    };
    facts.per_user.iter().map(price).collect()
}

/// Names of keys of `users` of the users, whoever they are.
fn user_names(facts: &Facts, around: usize, users: u64, shards: u32) -> Names {
    let prefix = facts.ns_bytes as usize + around;
    let names = if facts.dense_ids {
        part(&Names::numbered(prefix, 0..facts.users), users as f64 / facts.users as f64)
    } else {
        Names::same(prefix + facts.id_bytes as usize, users)
    };
    part(&names, fullest(users, shards))
}
