//! From budgets to settings, by trying everything.
//!
//! The space is small: ways to keep items and users, shares of the users, ways to load a release, lists or candidates
//! for whom and for how long, nodes. Every combination is priced (`node` plays a publish through on the memory model,
//! `candidate` the requests on the measured costs) and held against every budget. So the plan is optimal by
//! construction, over the lists in `space`, and each alternative that was not taken has been tried.
//!
//! # What is best
//!
//! Of the combinations that meet all budgets, the first by these, in this order:
//!
//! 1. *more users kept*: someone left out gets what is popular, which is what the product is there to avoid;
//! 2. *the safer way to load a release*, since a way back is worth more than bytes that are there anyhow;
//! 3. *fewer whole cores*, nodes of the store included: cores are what is paid for, and a part of one saves nothing;
//! 4. *fewer bytes in the store* at the peak, the resource that is scarce here; what is left is room to grow;
//! 5. *fewer bytes on the serving machines*;
//! 6. *more recall* (its lower bound): above the floor it is a gift, so it is taken where it costs nothing of the above;
//! 7. *shorter p99*, then *less processor time*.
//!
//! Whoever comes first in the order of enumeration wins what is left of ties: the safer, simpler and larger settings are
//! enumerated first. Everything is a pure function of the [`Problem`]; the same problem gives the same plan.
//!
//! # What is not modelled
//!
//! Lists are cached in one place: what a second cache would hit depends on what the first one lets through, and no log
//! says that well. Hit rates are those of all requests, also where some of them are answered otherwise. p99 is a sum of
//! p99s, which is an upper bound while cores are not busier than planned ([`BUSY`]), and no statement about overload.

mod candidate;
mod node;
mod reject;
mod relax;
mod space;

use std::ops::ControlFlow;

use candidate::{Answering, Candidate};
use node::{Node, Prices};
use space::{Stored, Ways};

use super::{Budgets, Cache, Outcome, Plan, Point, Predicted, Problem, Settings};

pub use candidate::BUSY;
pub use space::{KEPT_PERCENT, LOCAL_ENTRY_BYTES, LOCAL_PERMILLE, PRECOMPUTED_PERCENT, SHARDS};

/// Years ahead that growth is looked at: beyond ten, no growth is known.
const DAYS: u64 = 3_650;

/// Resident memory of a server for what it uses: 1.07 to 1.10 right after a load, more as versions come and go.
const FRAGMENTATION: f64 = 1.2;
/// Pages that a server copies while it writes a snapshot and a release is loaded beside: 8 to 15 % were measured.
const COPIED: f64 = 0.15;

/// Why a problem cannot be looked at.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{what}: expected {expected}, got {got}")]
pub struct ProblemError {
    /// The field.
    pub what: &'static str,
    /// What it may be.
    pub expected: &'static str,
    /// What it is.
    pub got: f64,
}

/// The best plan, or what to change. Takes a fraction of a second on one node, and seconds where many may be used.
pub fn solve(problem: &Problem) -> Result<Outcome, ProblemError> {
    check(problem)?;
    let mut best: Option<Candidate> = None;
    let (mut alternatives, mut misses) = (reject::Alternatives::default(), relax::Misses::default());
    let ways = space::ways(problem);
    for_each_candidate(problem, &ways, |candidate| {
        if !candidate.feasible() {
            misses.look_at(problem, candidate);
        } else if best.is_none_or(|best| candidate.score.compare(&best.score).is_lt()) {
            best = Some(*candidate);
        }
        alternatives.look_at(problem, candidate);
    });
    Ok(match best {
        Some(best) => {
            Outcome::Fits { plan: Box::new(plan(problem, &best)), rejected: alternatives.rejected(problem, &best) }
        }
        None => misses.nothing(problem, &ways),
    })
}

/// Numbers of nodes within the budget.
fn shards(problem: &Problem) -> Vec<u32> {
    SHARDS.into_iter().filter(|&shards| shards <= problem.budgets.nodes).collect()
}

/// Every combination, in the order that breaks ties.
fn for_each_candidate(problem: &Problem, ways: &Ways, mut f: impl FnMut(&Candidate)) {
    let mut prices = Prices::new(problem);
    // the same on fewer nodes, where neither bytes nor commands were too many: then more nodes only cost more
    let mut enough: Option<Stored> = None;
    let _: ControlFlow<()> = space::for_each_stored(problem, ways, &shards(problem), |stored| {
        if enough.is_some_and(|fewer| fewer == Stored { shards: fewer.shards, ..stored }) {
            return ControlFlow::Continue(());
        }
        let node = prices.node(&stored, false);
        let mut busiest = 0.0_f64;
        let _: ControlFlow<()> = answers(problem, stored, |answering, at, point| {
            let candidate = answering.with(problem, at, point, &node);
            busiest = busiest.max(candidate.node_busy);
            f(&candidate);
            ControlFlow::Continue(())
        });
        let enough_now = node.peak_bytes <= problem.budgets.store_bytes() && busiest <= BUSY;
        enough = enough_now.then_some(stored);
        ControlFlow::Continue(())
    });
}

/// Whether any plan with one of these numbers of nodes meets the budgets. Bytes are worked out last, where all else is met.
fn fits(problem: &Problem, ways: &Ways, shards: &[u32]) -> bool {
    let mut prices = Prices::new(problem);
    let free = Node::default();
    let found = space::for_each_stored(problem, ways, shards, |stored| {
        let possible = answers(problem, stored, |answering, at, point| {
            if answering.with(problem, at, point, &free).feasible() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let allowed = problem.budgets.store_bytes();
        if possible.is_break()
            && prices.least_peak_bytes(&stored) <= allowed
            && prices.node(&stored, false).peak_bytes <= allowed
        {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    found.is_break()
}

/// Calls `f` with every way to answer from what is stored, until it breaks off.
fn answers<B>(
    problem: &Problem,
    stored: Stored,
    mut f: impl FnMut(&Answering, usize, &Point) -> ControlFlow<B>,
) -> ControlFlow<B> {
    for choice in space::choices(problem, stored) {
        let answering = Answering::new(problem, choice);
        for (at, point) in problem.measured.points.iter().enumerate() {
            if point.users == codec_of(&stored) {
                f(&answering, at, point)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// The codec that users are searched with; lists are made from the trainer's own vectors.
fn codec_of(stored: &Stored) -> crate::codec::Codec {
    stored.vectors.map_or(crate::codec::Codec::F32, |(codec, _)| codec)
}

fn plan(problem: &Problem, best: &Candidate) -> Plan {
    let (budgets, facts) = (&problem.budgets, &problem.facts);
    let (stored, point) = (&best.choice.stored, &problem.measured.points[best.point]);
    let node = Prices::new(problem).node(stored, true);
    let expiring = matches!(best.choice.cache, Cache::Precomputed { .. } | Cache::Store { .. })
        || facts.per_user.iter().any(|other| other.ttl_s.is_some());
    Plan {
        settings: Settings {
            mode: best.choice.mode,
            cache: best.choice.cache,
            items: point.items,
            users: point.users,
            ef: point.ef,
            pages: stored.vectors.map(|(_, pages)| pages),
            users_kept: stored.users_kept,
            publishing: stored.publishing,
            shards: stored.shards,
            replicas: budgets.replicas,
            releases_kept: stored.releases_kept,
            maxmemory_bytes: budgets.maxmemory_bytes,
            maxmemory_policy: if expiring { "volatile-lru" } else { "noeviction" }.to_owned(),
        },
        predicted: Predicted {
            recall: point.recall,
            ranking_loss: point.ranking_loss,
            coverage: best.coverage,
            hit_rate: best.hit_rate,
            freshness_s: best.freshness_s,
            rest_bytes: node.rest_bytes,
            peak_bytes: node.peak_bytes,
            components: node.components,
            node_ram_bytes: (budgets.maxmemory_bytes as f64 * (FRAGMENTATION + COPIED)).ceil() as u64,
            local_ram_bytes: best.local_ram_bytes,
            client_us: best.cost.client_us,
            server_us: best.cost.server_us,
            p99_ms: best.p99_ms,
            requests_per_s_per_core: 1e6 / best.cost.client_us,
            serving_cores: best.serving_cores as u32,
            cores: best.cores as u32,
            days_until_full: days_until_full(problem, best),
        },
        traffic: problem.traffic.basis.clone(),
    }
}

/// Days until the peak reaches the budget, at the given growth and with these settings.
fn days_until_full(problem: &Problem, best: &Candidate) -> Option<u32> {
    let stored = &best.choice.stored;
    if stored.kept_percent < 100 || problem.facts.users_per_day <= 0.0 {
        return None;
    }
    let full = |days: u64| {
        let users = problem.facts.users + (problem.facts.users_per_day * days as f64) as u64;
        let mut grown = problem.clone();
        grown.facts.users = users;
        let cache = match stored.cache {
            Cache::Precomputed { entry, users: some } => {
                // the same share of more users
                let share = some as f64 / problem.facts.users as f64;
                Cache::Precomputed { entry, users: (share * users as f64).ceil() as u64 }
            }
            cache => cache,
        };
        let stored = Stored { users_kept: users, cache, ..*stored };
        Prices::new(&grown).node(&stored, false).peak_bytes > problem.budgets.store_bytes()
    };
    let (mut fits, mut over) = (0, DAYS);
    if !full(DAYS) {
        return None;
    }
    while over - fits > 1 {
        let middle = u64::midpoint(fits, over);
        if full(middle) { over = middle } else { fits = middle }
    }
    Some(over as u32)
}

fn within(what: &'static str, got: f64, expected: &'static str, from: f64, to: f64) -> Result<(), ProblemError> {
    if (from..=to).contains(&got) { Ok(()) } else { Err(ProblemError { what, expected, got }) }
}

impl Budgets {
    /// Refuses numbers that mean nothing. [`solve`] does it as well; this is for before anything is measured.
    pub fn check(&self) -> Result<(), ProblemError> {
        within("floor of quality", self.floor.value(), "0 to 1", 0.0, 1.0)?;
        within("coverage", self.coverage, "0 to 1", 0.0, 1.0)?;
        within("requests per second", self.requests_per_s, "0 to 10^9", 0.0, 1e9)?;
        within("p99", self.p99_ms, "0 or more", 0.0, f64::MAX)?;
        within("freshness", self.freshness_s, "0 or more", 0.0, f64::MAX)?;
        within("nodes", f64::from(self.nodes), "1 or more", 1.0, f64::MAX)?;
        within("replicas", f64::from(self.replicas), "0 to 16", 0.0, 16.0)?;
        within("releases kept", f64::from(self.releases_kept), "0 to 16", 0.0, 16.0)
    }
}

/// Refuses numbers that mean nothing.
fn check(problem: &Problem) -> Result<(), ProblemError> {
    let (facts, traffic) = (&problem.facts, &problem.traffic);
    problem.budgets.check()?;
    within("users", facts.users as f64, "1 to 2^32 - 1", 1.0, u32::MAX as f64)?;
    within("items", facts.items as f64, "1 to 2^32 - 1", 1.0, u32::MAX as f64)?;
    within("dimensions", f64::from(facts.dim), "1 to 65,536", 1.0, 65_536.0)?;
    within("bytes of a list", f64::from(facts.list_bytes), "1 to 2^24", 1.0, 16_777_216.0)?;
    within("bytes of candidates", f64::from(facts.candidates_bytes), "1 to 2^24", 1.0, 16_777_216.0)?;
    within("bytes of an id", f64::from(facts.id_bytes), "0 to 1,024", 0.0, 1024.0)?;
    within("bytes of a namespace", f64::from(facts.ns_bytes), "0 to 32", 0.0, 32.0)?;
    within("new users a day", facts.users_per_day, "0 or more", 0.0, 1e9)?;
    within("seconds between releases", facts.release_every_s, "0 or more", 0.0, f64::MAX)?;
    within("share of varied requests", facts.varied_share, "0 to 1", 0.0, 1.0)?;
    for other in &facts.per_user {
        within("TTL of what is kept of each user", other.ttl_s.unwrap_or(1.0), "above 0", f64::MIN_POSITIVE, f64::MAX)?;
    }
    within("points measured", problem.measured.points.len() as f64, "1 to 10,000", 1.0, 10_000.0)?;
    for point in &problem.measured.points {
        within("recall measured", point.recall.low, "0 to 1", 0.0, 1.0)?;
        within("ranking loss measured", point.ranking_loss.unwrap_or(0.0), "at most 1", -f64::MAX, 1.0)?;
        within("bytes of the index an item", point.index_bytes_per_item, "0 to 10^9", 0.0, 1e9)?;
        within_cost(&point.search)?;
    }
    let costs = &problem.measured.costs;
    [costs.list, costs.candidates, costs.vector, costs.write].iter().try_for_each(within_cost)?;
    let points = traffic.ttl_on_read.iter().chain(&traffic.ttl_on_write);
    let rates = points.map(|point| point.hit_rate).chain(traffic.lru.iter().map(|point| point.hit_rate));
    for rate in rates.chain(traffic.kept.iter().map(|point| point.requests)) {
        within("hit rate", rate, "0 to 1", 0.0, 1.0 + 1e-9)?;
    }
    Ok(())
}

fn within_cost(cost: &super::Cost) -> Result<(), ProblemError> {
    for got in [cost.client_us, cost.server_us, cost.p99_us] {
        if !(0.0..=1e12).contains(&got) {
            return Err(ProblemError { what: "measured cost", expected: "0 or more", got });
        }
    }
    Ok(())
}
