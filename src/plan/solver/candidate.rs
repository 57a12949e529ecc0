//! One complete plan: what it does, which budgets it does not meet, and how it compares.

use std::cmp::Ordering;

use super::node::Node;
use super::space::Choice;
use crate::plan::modes::Steps;
use crate::plan::{Cache, Constraint, Cost, Criterion, Entry, Floor, Mode, Point, Problem, Publishing, Violation};

/// How busy cores are planned to be, of the service and of the store. Waiting grows with the inverse of what is left: at
/// 0.7 a request waits about twice its own time, and a machine may fail without the others being over.
pub const BUSY: f64 = 0.7;

/// What comes first counts first.
pub(super) const CRITERIA: [Criterion; 8] = [
    Criterion::UsersKept,
    Criterion::Publishing,
    Criterion::Cores,
    Criterion::StoreBytes,
    Criterion::LocalRam,
    Criterion::Recall,
    Criterion::P99,
    Criterion::Processor,
];

/// One value a criterion, each turned so that less is better.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Score(pub [f64; CRITERIA.len()]);

impl Score {
    pub fn compare(&self, other: &Self) -> Ordering {
        let differing = self.0.iter().zip(&other.0).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        differing.unwrap_or(Ordering::Equal)
    }

    /// The first criterion in which `other` differs, with both values as people know them.
    pub fn difference(&self, other: &Self) -> (Criterion, f64, f64) {
        let at = (0..CRITERIA.len()).find(|&at| self.0[at] != other.0[at]);
        at.map_or((Criterion::Order, 0.0, 0.0), |at| {
            // those of which more is better were turned
            let sign = if matches!(CRITERIA[at], Criterion::UsersKept | Criterion::Recall) { -1.0 } else { 1.0 };
            (CRITERIA[at], sign * self.0[at], sign * other.0[at])
        })
    }
}

/// A choice with its predictions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub choice: Choice,
    /// Place in the measured points.
    pub point: usize,
    pub coverage: f64,
    pub hit_rate: f64,
    pub freshness_s: f64,
    pub cost: Cost,
    pub p99_ms: f64,
    pub serving_cores: u64,
    pub cores: u64,
    pub peak_bytes: u64,
    pub local_ram_bytes: u64,
    /// Part of a node's core that commands take.
    pub node_busy: f64,
    pub score: Score,
    pub misses: Misses,
}

/// The budgets that a candidate does not meet: a bit a constraint, and what it would need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Misses {
    pub mask: u16,
    pub needed: [f64; CONSTRAINTS.len()],
    /// How far off the worst of them is, as a share of what is allowed.
    pub worst: f64,
    /// How far off they are together.
    pub sum: f64,
}

/// Constraints that can be violated, with the bit of each by its place.
pub(super) const CONSTRAINTS: [Constraint; 9] = [
    Constraint::StoreBytes,
    Constraint::LocalRam,
    Constraint::Quality,
    Constraint::Coverage,
    Constraint::P99,
    Constraint::Freshness,
    Constraint::Cores,
    Constraint::NodeCpu,
    Constraint::ReleasesKept,
];

impl Misses {
    pub fn has(&self, at: usize) -> bool {
        self.mask & (1 << at) != 0
    }

    pub fn count(&self) -> u32 {
        self.mask.count_ones()
    }

    pub fn list(&self, problem: &Problem) -> Vec<Violation> {
        let one = |(at, &constraint): (usize, &Constraint)| {
            let violation = Violation { constraint, allowed: allowed(problem, constraint), needed: self.needed[at] };
            self.has(at).then_some(violation)
        };
        CONSTRAINTS.iter().enumerate().filter_map(one).collect()
    }
}

/// What a budget allows; of `maxmemory`, the bytes that a plan may use.
pub(super) fn allowed(problem: &Problem, constraint: Constraint) -> f64 {
    let budgets = &problem.budgets;
    match constraint {
        Constraint::StoreBytes => budgets.store_bytes() as f64,
        Constraint::LocalRam => budgets.local_ram_bytes as f64,
        Constraint::Quality => budgets.floor.value(),
        Constraint::Coverage => budgets.coverage,
        Constraint::P99 => budgets.p99_ms,
        Constraint::Freshness => budgets.freshness_s,
        Constraint::Cores => f64::from(budgets.cores),
        Constraint::NodeCpu => BUSY,
        Constraint::ReleasesKept => f64::from(budgets.releases_kept),
        Constraint::Nodes => f64::from(budgets.nodes),
        Constraint::RequestsPerS => budgets.requests_per_s,
        Constraint::Replicas => f64::from(budgets.replicas),
    }
}

/// What a choice does whatever the point.
pub(super) struct Answering {
    choice: Choice,
    coverage: f64,
    hit_rate: f64,
    freshness_s: f64,
    cache_bytes: u64,
}

impl Answering {
    pub fn new(problem: &Problem, choice: Choice) -> Self {
        let (facts, traffic) = (&problem.facts, &problem.traffic);
        let stored = &choice.stored;
        let kept = traffic.kept_share(stored.users_kept, facts.users);
        let entry = entry_of(choice.cache);
        // what a list cannot answer
        let varied = if entry == Some(Entry::Lists) { facts.varied_share } else { 0.0 };
        let found = match choice.cache {
            Cache::None => 0.0,
            Cache::Precomputed { users, .. } => traffic.kept_share(users, facts.users),
            Cache::Store { ttl_s, on_read, .. } => traffic.ttl_hit_rate(ttl_s, on_read),
            Cache::Local { entries, .. } => traffic.lru_hit_rate(entries),
        };
        let hit_rate = found * (1.0 - varied);
        let coverage = if choice.mode == Mode::Offline { kept * (1.0 - varied) } else { kept };
        let freshness_s = match choice.cache {
            Cache::None => 0.0,
            // names carry the release, so nothing outlives it
            Cache::Store { ttl_s, on_read: false, .. } => ttl_s.min(facts.release_every_s),
            _ => facts.release_every_s,
        };
        let cache_bytes = if let Cache::Local { bytes, .. } = choice.cache { bytes } else { 0 };
        Self { choice, coverage, hit_rate, freshness_s, cache_bytes }
    }

    /// With one point, on nodes of these bytes.
    pub fn with(&self, problem: &Problem, at: usize, point: &Point, node: &Node) -> Candidate {
        let (budgets, facts, stored) = (&problem.budgets, &problem.facts, &self.choice.stored);
        let steps = Steps::of(&problem.measured.costs, point.search, self.choice.cache);
        let cost = steps.request(self.choice.mode, self.hit_rate);
        let busy = |us: f64| budgets.requests_per_s * us / 1e6;
        let serving_cores = ((busy(cost.client_us) / BUSY).ceil() as u64).max(1);
        let node_busy = busy(cost.server_us) / f64::from(stored.shards);
        let cores = serving_cores + u64::from(stored.shards) * (1 + u64::from(budgets.replicas));
        let index_bytes = (facts.items as f64 * point.index_bytes_per_item).ceil() as u64;
        let local_ram_bytes = (2 * index_bytes).saturating_add(self.cache_bytes);
        let p99_ms = cost.p99_us / 1e3;
        let score = Score([
            -(stored.users_kept as f64),
            publishing_rank(stored.publishing),
            cores as f64,
            node.peak_bytes as f64 * f64::from(stored.shards),
            local_ram_bytes as f64,
            -point.recall.low,
            p99_ms,
            cost.client_us + cost.server_us,
        ]);
        let mut candidate = Candidate {
            choice: self.choice,
            point: at,
            coverage: self.coverage,
            hit_rate: self.hit_rate,
            freshness_s: self.freshness_s,
            cost,
            p99_ms,
            serving_cores,
            cores,
            peak_bytes: node.peak_bytes,
            local_ram_bytes,
            node_busy,
            score,
            misses: Misses { mask: 0, needed: [0.0; CONSTRAINTS.len()], worst: 0.0, sum: 0.0 },
        };
        candidate.check(problem, point);
        candidate
    }
}

impl Candidate {
    /// Compares with the budgets.
    fn check(&mut self, problem: &Problem, point: &Point) {
        let stored = &self.choice.stored;
        let (quality, meets) = match problem.budgets.floor {
            Floor::Recall(floor) => (point.recall.low, point.recall.low >= floor),
            Floor::RankingLoss(ceiling) => {
                (point.ranking_loss.unwrap_or(f64::INFINITY), point.ranking_loss.is_some_and(|loss| loss <= ceiling))
            }
        };
        for (at, constraint) in CONSTRAINTS.into_iter().enumerate() {
            let allowed = allowed(problem, constraint);
            let (needed, met) = match constraint {
                Constraint::StoreBytes => at_most(self.peak_bytes as f64, allowed),
                Constraint::LocalRam => at_most(self.local_ram_bytes as f64, allowed),
                Constraint::Quality => (quality, meets),
                Constraint::Coverage => (self.coverage, self.coverage >= allowed),
                Constraint::P99 => at_most(self.p99_ms, allowed),
                Constraint::Freshness => at_most(self.freshness_s, allowed),
                Constraint::Cores => at_most(self.cores as f64, allowed),
                Constraint::NodeCpu => at_most(self.node_busy, allowed),
                Constraint::ReleasesKept => {
                    (f64::from(stored.releases_kept), f64::from(stored.releases_kept) >= allowed)
                }
                Constraint::RequestsPerS | Constraint::Replicas | Constraint::Nodes => continue,
            };
            self.misses.needed[at] = needed;
            if !met {
                let excess = Violation { constraint, allowed, needed }.excess();
                self.misses.mask |= 1 << at;
                self.misses.worst = self.misses.worst.max(excess);
                self.misses.sum += excess;
            }
        }
    }

    pub fn feasible(&self) -> bool {
        self.misses.mask == 0
    }
}

fn at_most(needed: f64, allowed: f64) -> (f64, bool) {
    (needed, needed <= allowed)
}

fn publishing_rank(publishing: Publishing) -> f64 {
    match publishing {
        Publishing::Beside => 0.0,
        Publishing::RetireFirst => 1.0,
        Publishing::Rolling => 2.0,
    }
}

pub(super) fn entry_of(cache: Cache) -> Option<Entry> {
    match cache {
        Cache::None => None,
        Cache::Precomputed { entry, .. } | Cache::Store { entry, .. } | Cache::Local { entry, .. } => Some(entry),
    }
}
