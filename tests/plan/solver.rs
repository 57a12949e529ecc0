//! The solver finds what somebody finds who tries everything the slow and obvious way; what he cannot solve it cannot;
//! and each relaxation it proposes is enough, and no smaller one is.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and prints what it saw")]

use std::collections::HashMap;
use std::time::Instant;

use crate::judge::{Combination, Judge};
use tonnage::codec::Codec;
use tonnage::kv::memory::{Allocator, Flavor, Server};
use tonnage::plan::quality::ItemForm;
use tonnage::plan::solver::{KEPT_PERCENT, SHARDS};
use tonnage::plan::traffic::Traffic;
use tonnage::plan::{
    Budgets, Cache, Change, Constraint, Cost, Costs, Estimate, Facts, Floor, Measured, Mode, Outcome, Pages, PerUser,
    Plan, Point, Problem, Reason, Relaxation, solve,
};

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
        Cost {
            client_us: us,
            server_us: us * dice.between(0.01, 0.3),
            idle_us: 0.0, // said, but nothing is chosen by it
            p99_us: us * dice.between(2.0, 20.0),
        }
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
        missed: cost(&mut dice, 12.0),
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
        maxmemory_bytes: ((size * dice.between(0.5, 20.0)) as u64 + 1_200_000) * 20 / 19,
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
