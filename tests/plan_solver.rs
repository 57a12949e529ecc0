//! The solver finds what somebody finds who tries everything the slow and obvious way; what he cannot solve it cannot;
//! and each relaxation it proposes is enough, and no smaller one is.
//!
//! The judge below shares the problem's types and the memory model with the solver, and nothing else: its loops nest in
//! another order, nothing is skipped or shared between combinations but the prices of equal groups of keys.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and prints what it saw")]

use std::collections::HashMap;
use std::time::Instant;

use tonnage::codec::Codec;
use tonnage::kv::memory::{Allocator, Dataset, Expiry, Flavor, Keys, Names, Priced, Server, Value, Values};
use tonnage::plan::quality::ItemForm;
use tonnage::plan::solver::{BUSY, KEPT_PERCENT, LOCAL_ENTRY_BYTES, LOCAL_PERMILLE, PRECOMPUTED_PERCENT, SHARDS};
use tonnage::plan::traffic::Traffic;
use tonnage::plan::{
    Budgets, Cache, Change, Constraint, Cost, Costs, Entry, Estimate, Facts, Floor, Measured, Mode, Outcome, Pages,
    PerUser, Plan, Point, Problem, Publishing, Reason, Relaxation, solve,
};
use tonnage::store::geometry;

// ---------------------------------------------------------------------------------------------- the judge

/// One combination, flat.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Combination {
    percent: u64,
    kept: u64,
    releases: u32,
    publishing: Publishing,
    codec: Option<Codec>,
    dense: bool,
    cache: Cache,
    shards: u32,
    point: usize,
}

/// What a combination comes to. `rank` is better when smaller, place by place.
struct Result {
    possible: bool,
    rank: Vec<f64>,
    peak_bytes: u64,
}

struct Judge<'a> {
    problem: &'a Problem,
    prices: HashMap<String, Priced>,
    /// Users of a hashed page, by the bytes of a record.
    means: HashMap<usize, f64>,
}

impl Judge<'_> {
    fn every(&self) -> Vec<Combination> {
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

    fn best(&mut self) -> Option<(Combination, Result)> {
        let mut best: Option<(Combination, Result)> = None;
        for combination in self.every() {
            let result = self.result(&combination);
            if result.possible && best.as_ref().is_none_or(|(_, best)| less(&result.rank, &best.rank)) {
                best = Some((combination, result));
            }
        }
        best
    }

    fn possible(&mut self) -> bool {
        self.every().iter().any(|combination| self.result(combination).possible)
    }

    fn result(&mut self, c: &Combination) -> Result {
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
        let searched = |f: fn(&Cost) -> f64| f(&measured.costs.vector) + f(&point.search);
        let us = |f: fn(&Cost) -> f64| match (c.codec, c.cache) {
            (None, _) => f(&looked),
            (_, Cache::None) => searched(f),
            (_, Cache::Local { .. }) => (1.0 - found) * searched(f),
            (_, Cache::Precomputed { .. }) => f(&looked) + (1.0 - found) * searched(f),
            (_, Cache::Store { .. }) => f(&looked) + (1.0 - found) * (searched(f) + f(&measured.costs.write)),
        };
        let p99_us = match (c.codec, c.cache) {
            (None, _) => looked.p99_us,
            (_, Cache::None) => searched(|cost| cost.p99_us),
            (_, Cache::Local { .. }) if found > 0.99 => 0.0,
            (_, Cache::Local { .. }) => searched(|cost| cost.p99_us),
            _ if found > 0.99 => looked.p99_us,
            _ => looked.p99_us + searched(|cost| cost.p99_us),
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
        Result { possible: peak_bytes <= budgets.store_bytes, rank, peak_bytes }
    }

    /// Plays a publish through.
    fn peak(&mut self, c: &Combination) -> u64 {
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
            let mean = *self.means.entry(record).or_insert_with(|| geometry::hashed_mean(6, record + 7));
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
        peak.max(dataset.rest_bytes()) + (1 << 20) + 2 * 38_200
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
        let slots = u64::from(geometry::dense_slots(record + 2));
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

// ---------------------------------------------------------------------------------------------- problems

/// Random numbers, the same each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// From `a` to `b`, evenly by order of magnitude.
    fn between(&mut self, a: f64, b: f64) -> f64 {
        a * (b / a).powf((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

fn estimate(mean: f64) -> Estimate {
    Estimate { mean, low: (mean - 0.01).max(0.0), high: (mean + 0.01).min(1.0), users: 1000 }
}

fn random(seed: u64) -> Problem {
    let mut dice = Dice(seed);
    let users = dice.between(50.0, 3e6) as u64;
    let dim = dice.of(&[16_u32, 32, 64, 128, 300]);
    let forms = [dice.of(&ItemForm::ALL), dice.of(&ItemForm::ALL)];
    let codecs = [dice.of(&Codec::ALL), dice.of(&[Codec::F32, Codec::Int8])];
    let cost = |dice: &mut Dice, us: f64| {
        let us = dice.between(us / 3.0, us * 3.0);
        Cost { client_us: us, server_us: us * dice.between(0.01, 0.3), p99_us: us * dice.between(2.0, 20.0) }
    };
    let points = (0..=dice.below(5)).map(|_| Point {
        items: dice.of(&forms),
        users: dice.of(&codecs),
        ef: dice.of(&[16, 64, 256]),
        recall: estimate(1.0 - dice.between(0.002, 0.3)),
        ranking_loss: if dice.chance(3) { None } else { Some(dice.between(0.001, 0.2)) },
        index_bytes_per_item: dice.between(40.0, 2000.0),
        search: Cost { server_us: 0.0, ..cost(&mut dice, 200.0) },
    });
    let points = points.collect();
    let costs = Costs {
        list: cost(&mut dice, 15.0),
        candidates: cost(&mut dice, 30.0),
        vector: cost(&mut dice, 20.0),
        write: cost(&mut dice, 15.0),
    };
    let per_user = PerUser { name: "sessions".into(), value_bytes: 100, ttl_s: dice.of(&[None, Some(1800.0)]) };
    let facts = Facts {
        users,
        items: dice.between(100.0, 3e6) as u64,
        dim,
        dense_ids: dice.chance(2),
        id_bytes: dice.below(30) as u32,
        users_per_day: dice.of(&[0.0, 100.0]),
        items_per_day: 0.0,
        release_every_s: dice.of(&[3600.0, 86_400.0]),
        list_bytes: dice.below(400) as u32 + 40,
        candidates_bytes: dice.below(2000) as u32 + 200,
        varied_share: dice.of(&[0.0, 0.1, 0.5]),
        per_user: if dice.chance(3) { vec![per_user] } else { Vec::new() },
        ns_bytes: dice.below(12) as u32 + 1,
        server: Server {
            flavor: dice.of(&[Flavor::Redis70, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey80, Flavor::Valkey91]),
            allocator: dice.of(&[Allocator::JemallocQ8, Allocator::JemallocQ16, Allocator::Libc]),
            cluster_slots: None,
        },
        overhead_bytes: Facts::overhead(10, 0),
    };
    let requests_per_s = dice.between(10.0, 50_000.0);
    let mut traffic = Traffic::assumed_zipf(users, dice.between(0.5, 1.3), requests_per_s / 3.0);
    // a few TTLs, so that a thousand problems are tried in a minute
    let (some, step) = (dice.below(4) as usize, 1 + dice.below(6) as usize);
    for points in [&mut traffic.ttl_on_read, &mut traffic.ttl_on_write] {
        *points = points.iter().copied().step_by(step).take(some).collect();
    }
    // what the vectors take as int8, times something
    let size = users as f64 * (f64::from(dim) + 10.0) + facts.overhead_bytes as f64;
    let budgets = Budgets {
        store_bytes: (size * dice.between(0.5, 20.0)) as u64 + 1_200_000,
        local_ram_bytes: (facts.items as f64 * dice.between(100.0, 20_000.0)) as u64,
        floor: if dice.chance(4) {
            Floor::RankingLoss(dice.between(0.002, 0.2))
        } else {
            Floor::Recall(1.0 - dice.between(0.01, 0.4))
        },
        coverage: 1.0 - dice.between(0.001, 0.9),
        requests_per_s,
        p99_ms: dice.between(0.1, 50.0),
        freshness_s: dice.of(&[0.0, 900.0, 3600.0, 1e5, f64::MAX]),
        cores: dice.between(1.0, 100.0) as u32 + 1,
        nodes: dice.of(&[1, 1, 1, 2, 3]),
        replicas: dice.of(&[0, 0, 1]),
        releases_kept: dice.of(&[0, 1, 1]),
    };
    Problem { budgets, facts, measured: Measured { points, costs }, traffic }
}

// ---------------------------------------------------------------------------------------------- the comparison

/// The plan as the judge would write it down.
fn combination(problem: &Problem, plan: &Plan) -> Combination {
    let settings = &plan.settings;
    let percent = KEPT_PERCENT.into_iter().find(|p| (problem.facts.users * p).div_ceil(100) == settings.users_kept);
    let point = problem.measured.points.iter().position(|point| {
        (point.items, point.users, point.ef, point.recall)
            == (settings.items, settings.users, settings.ef, plan.predicted.recall)
            && point.ranking_loss == plan.predicted.ranking_loss
    });
    assert_eq!(settings.mode == Mode::Offline, settings.pages.is_none());
    assert_eq!(settings.mode == Mode::RealTime, settings.cache == Cache::None);
    Combination {
        percent: percent.unwrap(),
        kept: settings.users_kept,
        releases: settings.releases_kept,
        publishing: settings.publishing,
        codec: settings.pages.map(|_| settings.users),
        dense: matches!(settings.pages, Some(Pages::Dense { .. })),
        cache: settings.cache,
        shards: settings.shards,
        point: point.unwrap(),
    }
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0))
}

/// Whether the judge finds a way within these budgets.
fn judged_possible(problem: &Problem) -> bool {
    Judge { problem, prices: HashMap::new(), means: HashMap::new() }.possible()
}

/// The change, but a little less.
fn a_little_less(change: Change) -> Change {
    let toward = if change.to > change.from { -1.0 } else { 1.0 };
    let to = match change.constraint {
        Constraint::Quality | Constraint::Coverage | Constraint::P99 | Constraint::Freshness => {
            change.to + toward * 1e-9 * change.to.abs().max(1e-9)
        }
        // the next number of nodes that a store may have
        Constraint::Nodes => SHARDS.into_iter().rfind(|&shards| f64::from(shards) < change.to).map_or(0.0, f64::from),
        _ => change.to + toward,
    };
    Change { to, ..change }
}

#[derive(Default)]
struct Tally {
    fits: usize,
    nothing: usize,
    relaxations: usize,
    /// Nothing fits, and nothing was proposed.
    mute: usize,
    slowest_s: f64,
}

fn compare(seed: u64, tally: &mut Tally) {
    let problem = random(seed);
    let begun = Instant::now();
    let outcome = solve(&problem).unwrap();
    tally.slowest_s = tally.slowest_s.max(begun.elapsed().as_secs_f64());
    let mut judge = Judge { problem: &problem, prices: HashMap::new(), means: HashMap::new() };
    match (outcome, judge.best()) {
        (Outcome::Fits { plan, rejected }, Some((_, best))) => {
            tally.fits += 1;
            let got = judge.result(&combination(&problem, &plan));
            assert!(got.possible, "seed {seed}: {plan:?}");
            assert!(close(&got.rank, &best.rank), "seed {seed}: {:?} for {:?}", got.rank, best.rank);
            assert_eq!(plan.predicted.peak_bytes, got.peak_bytes, "seed {seed}");
            let sum: u64 = plan.predicted.components.iter().map(|component| component.peak_bytes).sum();
            assert!(sum.abs_diff(got.peak_bytes) <= 10, "seed {seed}: {:?}", plan.predicted);
            assert!(rejected.iter().all(|r| !matches!(&r.reason, Reason::Violates(v) if v.is_empty())), "seed {seed}");
        }
        (Outcome::Nothing { relaxations, .. }, None) => {
            tally.nothing += 1;
            tally.mute += usize::from(relaxations.is_empty());
            relaxations.iter().for_each(|relaxation| {
                tally.relaxations += 1;
                judge_relaxation(seed, &problem, relaxation);
            });
        }
        (Outcome::Fits { plan, .. }, None) => panic!("seed {seed}: the judge finds nothing, the solver {plan:?}"),
        (Outcome::Nothing { .. }, Some((best, _))) => {
            panic!("seed {seed}: the solver finds nothing, the judge {best:?}")
        }
    }
}

fn judge_relaxation(seed: u64, problem: &Problem, relaxation: &Relaxation) {
    let relaxed = relaxation.applied(problem).unwrap();
    assert!(judged_possible(&relaxed), "seed {seed}: not enough: {relaxation:?}");
    for at in 0..relaxation.changes.len() {
        let mut less = relaxation.clone();
        less.changes[at] = a_little_less(less.changes[at]);
        let nearly = less.applied(problem).unwrap();
        assert!(!judged_possible(&nearly), "seed {seed}: more than needed: {relaxation:?}, {less:?} does");
    }
}

/// Half of a thousand, and prints what they were.
fn a_part_of_a_thousand(part: u64) {
    let mut tally = Tally::default();
    (part * 500..(part + 1) * 500).for_each(|seed| compare(seed, &mut tally));
    println!(
        "500 problems: {} fit, as judged; {} do not, as judged, with {} relaxations each enough and none too large, and {} \
         without any; the slowest took {:.3} s",
        tally.fits, tally.nothing, tally.relaxations, tally.mute, tally.slowest_s
    );
    assert!(tally.fits >= 100 && tally.nothing >= 100, "problems are of both kinds: {}, {}", tally.fits, tally.nothing);
}

#[test]
fn the_first_half_of_a_thousand_problems_is_solved_as_by_trying_everything() {
    a_part_of_a_thousand(0);
}

#[test]
fn the_second_half_of_a_thousand_problems_is_solved_as_by_trying_everything() {
    a_part_of_a_thousand(1);
}
