//! The judge of the solver: it shares the problem's types and the memory model with it, and nothing else. Its loops nest in
//! another order, nothing is skipped or shared between combinations but the prices of equal groups of keys.

use std::collections::HashMap;

use tonnage::codec::Codec;
use tonnage::kv::memory::{Dataset, Expiry, Keys, Names, Priced, Server, Value, Values};
use tonnage::plan::solver::{BUSY, KEPT_PERCENT, LOCAL_ENTRY_BYTES, LOCAL_PERMILLE, PRECOMPUTED_PERCENT, SHARDS};
use tonnage::plan::{Cache, Cost, Entry, Facts, Floor, Problem, Publishing};
use tonnage::store::geometry;

/// One combination, flat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Combination {
    pub percent: u64,
    pub kept: u64,
    pub releases: u32,
    pub publishing: Publishing,
    pub codec: Option<Codec>,
    pub dense: bool,
    pub cache: Cache,
    pub shards: u32,
    pub point: usize,
}

/// What a combination comes to. `rank` is better when smaller, place by place.
pub struct Result {
    pub possible: bool,
    pub rank: Vec<f64>,
    pub peak_bytes: u64,
}

pub struct Judge<'a> {
    pub problem: &'a Problem,
    pub prices: HashMap<String, Priced>,
    /// Users of a hashed page, by the bytes of a record.
    pub means: HashMap<usize, f64>,
}

impl Judge<'_> {
    pub fn every(&self) -> Vec<Combination> {
        let Problem { budgets, facts, measured, traffic } = self.problem;
        let mut all = Vec::new();
        for (point, measure) in measured.points.iter().enumerate() {
            for shards in SHARDS.into_iter().filter(|&shards| shards <= budgets.nodes) {
                for percent in KEPT_PERCENT {
                    let kept = (facts.users * percent).div_ceil(100);
                    let mut with = |codec, dense, cache| {
                        let ways = [(0, Publishing::Rolling)].into_iter();
                        let ways = ways.chain((0..=budgets.releases_kept).map(|kept| (kept, Publishing::Beside)));
                        let ways = ways.chain((1..=budgets.releases_kept).map(|kept| (kept, Publishing::RetireFirst)));
                        for (releases, publishing) in ways {
                            all.push(Combination {
                                percent,
                                kept,
                                releases,
                                publishing,
                                codec,
                                dense,
                                cache,
                                shards,
                                point,
                            });
                        }
                    };
                    for entry in [Entry::Lists, Entry::Candidates] {
                        if measure.users == Codec::F32 {
                            with(None, false, Cache::Precomputed { entry, users: kept });
                        }
                    }
                    let mut caches = vec![Cache::None];
                    for entry in [Entry::Lists, Entry::Candidates] {
                        for part in PRECOMPUTED_PERCENT {
                            caches.push(Cache::Precomputed { entry, users: (kept * part).div_ceil(100) });
                        }
                        for (points, on_read) in [(&traffic.ttl_on_read, true), (&traffic.ttl_on_write, false)] {
                            caches.extend(points.iter().map(|p| Cache::Store { entry, ttl_s: p.ttl_s, on_read }));
                        }
                        for part in LOCAL_PERMILLE {
                            let entries = (facts.users * part).div_ceil(1000);
                            let bytes = entries * (u64::from(facts.entry_bytes(entry)) + LOCAL_ENTRY_BYTES);
                            caches.push(Cache::Local { entry, entries, bytes });
                        }
                    }
                    for cache in caches {
                        with(Some(measure.users), false, cache);
                        if facts.dense_ids && percent == 100 {
                            with(Some(measure.users), true, cache);
                        }
                    }
                }
            }
        }
        all
    }

    pub fn best(&mut self) -> Option<(Combination, Result)> {
        let mut best: Option<(Combination, Result)> = None;
        for combination in self.every() {
            let result = self.result(&combination);
            if result.possible && best.as_ref().is_none_or(|(_, best)| less(&result.rank, &best.rank)) {
                best = Some((combination, result));
            }
        }
        best
    }

    pub fn possible(&mut self) -> bool {
        self.every().iter().any(|combination| self.result(combination).possible)
    }

    pub fn result(&mut self, c: &Combination) -> Result {
        let Problem { budgets, facts, measured, traffic } = self.problem;
        let point = &measured.points[c.point];
        let varied = match c.cache {
            Cache::Precomputed { entry: Entry::Lists, .. }
            | Cache::Store { entry: Entry::Lists, .. }
            | Cache::Local { entry: Entry::Lists, .. } => facts.varied_share,
            _ => 0.0,
        };
        let candidates = matches!(
            c.cache,
            Cache::Precomputed { entry: Entry::Candidates, .. } | Cache::Store { entry: Entry::Candidates, .. }
        );
        let share_of = |users: u64| traffic.kept_share(users, facts.users);
        let found = match c.cache {
            Cache::None => 0.0,
            Cache::Precomputed { users, .. } => share_of(users),
            Cache::Store { ttl_s, on_read, .. } => {
                let curve = if on_read { &traffic.ttl_on_read } else { &traffic.ttl_on_write };
                curve.iter().find(|point| point.ttl_s == ttl_s).unwrap().hit_rate
            }
            Cache::Local { entries, .. } => traffic.lru_hit_rate(entries),
        } * (1.0 - varied);
        let coverage = share_of(c.kept);
        let coverage = if c.codec.is_none() { coverage * (1.0 - varied) } else { coverage };
        let looked = if candidates { measured.costs.candidates } else { measured.costs.list };
        let missed = &measured.costs.missed;
        let searched = |f: fn(&Cost) -> f64| f(&measured.costs.vector) + f(&point.search);
        let us = |f: fn(&Cost) -> f64| match (c.codec, c.cache) {
            (None, _) => f(&looked),
            (_, Cache::None) => searched(f),
            (_, Cache::Local { .. }) => (1.0 - found) * searched(f),
            (_, Cache::Precomputed { .. }) => found * f(&looked) + (1.0 - found) * (f(missed) + searched(f)),
            (_, Cache::Store { .. }) => {
                found * f(&looked) + (1.0 - found) * (f(missed) + searched(f) + f(&measured.costs.write))
            }
        };
        let p99_us = match (c.codec, c.cache) {
            (None, _) => looked.p99_us,
            (_, Cache::None) => searched(|cost| cost.p99_us),
            (_, Cache::Local { .. }) if found > 0.99 => 0.0,
            (_, Cache::Local { .. }) => searched(|cost| cost.p99_us),
            _ if found > 0.99 => looked.p99_us,
            // in the order of the solver, to the last bit
            _ => missed.p99_us + measured.costs.vector.p99_us + point.search.p99_us,
        };
        let freshness_s = match c.cache {
            Cache::None => 0.0,
            Cache::Store { ttl_s, on_read: false, .. } if ttl_s < facts.release_every_s => ttl_s,
            _ => facts.release_every_s,
        };
        let (client_us, server_us) = (us(|cost| cost.client_us), us(|cost| cost.server_us));
        let busy = |us: f64| budgets.requests_per_s * us / 1e6;
        let serving = (busy(client_us) / BUSY).ceil().max(1.0);
        let cores = serving + f64::from(c.shards * (1 + budgets.replicas));
        let local = if let Cache::Local { bytes, .. } = c.cache { bytes as f64 } else { 0.0 };
        let ram = 2.0 * (facts.items as f64 * point.index_bytes_per_item).ceil() + local;
        let good = match budgets.floor {
            Floor::Recall(floor) => point.recall.low >= floor,
            Floor::RankingLoss(most) => point.ranking_loss.is_some_and(|loss| loss <= most),
        };
        let possible = good
            && ram <= budgets.local_ram_bytes as f64
            && coverage >= budgets.coverage
            && p99_us / 1e3 <= budgets.p99_ms
            && freshness_s <= budgets.freshness_s
            && cores <= f64::from(budgets.cores)
            && busy(server_us) / f64::from(c.shards) <= BUSY
            && c.releases >= budgets.releases_kept;
        if !possible {
            return Result { possible, rank: Vec::new(), peak_bytes: 0 };
        }
        let peak_bytes = self.peak(c);
        let safety = [Publishing::Beside, Publishing::RetireFirst, Publishing::Rolling];
        let rank = vec![
            facts.users as f64 - c.kept as f64,
            safety.iter().position(|&way| way == c.publishing).unwrap() as f64,
            cores,
            peak_bytes as f64 * f64::from(c.shards),
            ram,
            1.0 - point.recall.low,
            p99_us,
            client_us + server_us,
        ];
        Result { possible: peak_bytes <= budgets.maxmemory_bytes * 19 / 20, rank, peak_bytes }
    }

    /// Plays a publish through.
    pub fn peak(&mut self, c: &Combination) -> u64 {
        let Problem { facts, traffic, .. } = self.problem;
        let slots = if c.shards > 1 { Some(16_384_u32.div_ceil(c.shards)) } else { facts.server.cluster_slots };
        let server = Server { cluster_slots: slots, ..facts.server };
        let mut dataset = Dataset::new(server, facts.overhead_bytes, 0, 0);
        for (at, other) in facts.per_user.iter().enumerate() {
            let users = other.ttl_s.map_or(facts.users as f64, |ttl_s| traffic.resident_peak(ttl_s, true) * 1.1);
            let users = users.min(facts.users as f64).ceil() as u64;
            let expiry = if other.ttl_s.is_some() { Expiry::Set } else { Expiry::None };
            let keys = self.of_users(3, users, c.shards, other.value_bytes, expiry);
            dataset.add_priced(&self.price(&server, format!("other {at} {}", c.shards), || keys));
        }
        let pages = c.codec.map(|codec| {
            let name = format!("pages {codec} {} {} {}", c.dense, c.kept, c.shards);
            let record = codec.bytes_per_vector(facts.dim as usize);
            let mean = *self
                .means
                .entry(record)
                .or_insert_with(|| geometry::hashed_mean(geometry::Home::Server(facts.server), 6, record + 7));
            let keys = || self::pages(facts, record, mean, c.dense, c.kept, c.shards);
            self.price(&server, name, keys)
        });
        let mut lists = |entry, users: u64| {
            let keys = self.of_users(16, users, c.shards, facts.entry_bytes(entry), Expiry::Set);
            self.price(&server, format!("{entry:?} {users} {}", c.shards), || keys)
        };
        let own = match c.cache {
            Cache::Precomputed { entry, users } => Some(lists(entry, users)),
            _ => None,
        };
        let written = match c.cache {
            Cache::Store { entry, ttl_s, on_read } => {
                let alive = |ttl_s: f64| (traffic.resident_peak(ttl_s, on_read) * 1.1).min(c.kept as f64);
                let more = (2.0 * alive(ttl_s / 2.0) - alive(ttl_s)).max(0.0);
                Some((lists(entry, alive(ttl_s).ceil() as u64), lists(entry, more.ceil() as u64)))
            }
            _ => None,
        };
        let publish = |dataset: &mut Dataset| {
            own.iter().for_each(|lists| dataset.add_priced(lists));
            pages.iter().for_each(|pages| {
                dataset.add_priced(pages);
                dataset.persist_priced(pages);
            });
        };
        for _ in 0..=c.releases {
            publish(&mut dataset);
        }
        written.iter().for_each(|(lists, _)| dataset.add_priced(lists));
        if c.publishing == Publishing::RetireFirst {
            own.iter().for_each(|lists| dataset.remove_priced(lists));
            pages.iter().for_each(|pages| dataset.remove_priced(&pages.persisted()));
        }
        if c.publishing != Publishing::Rolling {
            publish(&mut dataset);
        }
        written.iter().for_each(|(_, more)| dataset.add_priced(more));
        let peak = dataset.peak_bytes();
        // what stays may be a byte more than what was: in a cluster the tables are expectations
        written.iter().for_each(|(_, more)| dataset.remove_priced(more));
        if c.publishing == Publishing::Beside {
            own.iter().for_each(|lists| dataset.remove_priced(lists));
            pages.iter().for_each(|pages| dataset.remove_priced(&pages.persisted()));
        }
        peak + (384 << 10) + 2 * 38_200
    }

    fn of_users(&self, around: usize, users: u64, shards: u32, bytes: u32, expiry: Expiry) -> Keys {
        let facts = &self.problem.facts;
        let prefix = facts.ns_bytes as usize + around;
        let some = |names: Names, part: f64| {
            Names::of(names.lengths().iter().map(|&(length, count)| (length, (count as f64 * part).ceil() as u64)))
        };
        let names = if facts.dense_ids {
            some(Names::numbered(prefix, 0..facts.users), users as f64 / facts.users as f64)
        } else {
            Names::same(prefix + facts.id_bytes as usize, users)
        };
        Keys::strings(some(names, shard_part(users, shards)), bytes as usize, expiry)
    }

    fn price(&mut self, server: &Server, name: String, keys: impl FnOnce() -> Keys) -> Priced {
        *self.prices.entry(name).or_insert_with(|| server.price(&keys()))
    }
}

fn less(a: &[f64], b: &[f64]) -> bool {
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => a < b,
        None => false,
    }
}

fn shard_part(keys: u64, shards: u32) -> f64 {
    let s = f64::from(shards);
    if shards == 1 || keys == 0 { 1.0 } else { f64::min(1.0, (1.0 + (2.0 * s.ln() * s / keys as f64).sqrt()) / s) }
}

fn pages(facts: &Facts, record: usize, mean: f64, dense: bool, users: u64, shards: u32) -> Keys {
    let (count, values) = if dense {
        let slots = u64::from(geometry::dense_slots(geometry::Home::Server(facts.server), record + 2));
        let page = |users: u64| Value::String(users as usize * (record + 2));
        let last = (page(users % slots), if users.is_multiple_of(slots) { 0.0 } else { 1.0 });
        (users.div_ceil(slots), Values::mixed([(page(slots), (users / slots) as f64), last]))
    } else {
        let count = (users as f64 / mean).ceil().max(1.0);
        (count as u64, Values::poisson(6, record + 7, users as f64 / count))
    };
    let names = Names::numbered(facts.ns_bytes as usize + 14, 0..count);
    let part = shard_part(count, shards);
    let lengths = names.lengths().iter().map(|&(length, count)| (length, (count as f64 * part).ceil() as u64));
    Keys { names: Names::of(lengths), values, expiry: Expiry::Set }
}
