//! When nothing fits: the smallest changes of the budgets with which something does.
//!
//! Every candidate misses some set of budgets. Changing all of a set to what a candidate needs makes that candidate
//! possible, so the cheapest way to change just that set is its candidate with the least sum of relative changes. A set
//! that holds a smaller one that would do is left out. Where cores or nodes are too slow, fewer requests or replicas are
//! a way as well; and more nodes, which are tried one after another.

use std::collections::BTreeMap;

use super::candidate::{BUSY, CONSTRAINTS, Candidate, allowed};
use super::space::Ways;
use super::{SHARDS, fits, shards};
use crate::plan::{Budgets, Change, Constraint, Floor, Outcome, Problem, Relaxation, Violation};

/// Proposals at most; further ones change ever more.
const PROPOSED: usize = 6;

/// What candidates miss.
#[derive(Default)]
pub(super) struct Misses {
    /// The candidate that misses each set of budgets by the least.
    sets: BTreeMap<u16, Candidate>,
    /// Of each budget, the nearest miss.
    least: BTreeMap<Constraint, Violation>,
    /// Budgets that some candidate meets.
    met: u16,
    /// The most requests per second, and replicas, with which some candidate would do that misses nothing else.
    requests_per_s: f64,
    replicas: Option<u32>,
}

impl Misses {
    pub fn look_at(&mut self, problem: &Problem, candidate: &Candidate) {
        let misses = &candidate.misses;
        // once every set and budget is known, hardly a candidate comes nearer
        if self.sets.get(&misses.mask).is_none_or(|least| misses.sum < least.misses.sum) {
            self.sets.insert(misses.mask, *candidate);
        }
        self.met |= !misses.mask;
        for at in (0..CONSTRAINTS.len()).filter(|&at| self.met & (1 << at) == 0) {
            let constraint = CONSTRAINTS[at];
            let violation = Violation { constraint, allowed: allowed(problem, constraint), needed: misses.needed[at] };
            let least = self.least.entry(constraint).or_insert(violation);
            if violation.excess() < least.excess() {
                *least = violation;
            }
        }
        self.requests_per_s = self.requests_per_s.max(possible_requests(problem, candidate));
        self.replicas = self.replicas.max(possible_replicas(problem, candidate));
    }

    /// What is proposed, and what is hopeless.
    pub fn nothing(mut self, problem: &Problem, ways: &Ways) -> Outcome {
        let met = self.met;
        self.least.retain(|&constraint, _| met & bit(constraint) == 0);
        let smallest = |mask: u16| !self.sets.keys().any(|&other| other != mask && other & mask == other);
        // fewer requests alone are looked for below, where cores may be missed as well
        let of_sets = self.sets.iter().filter(|(mask, _)| **mask != bit(Constraint::NodeCpu) && smallest(**mask));
        let mut relaxations: Vec<Relaxation> = of_sets.map(|(_, candidate)| changes(problem, candidate)).collect();
        let single = |constraint, to| {
            let from = allowed(problem, constraint);
            relaxation(vec![Change { constraint, from, to }])
        };
        let requests = whole_requests(problem, ways, self.requests_per_s);
        relaxations.extend(requests.map(|to| single(Constraint::RequestsPerS, to)));
        relaxations.extend(self.replicas.map(|to| single(Constraint::Replicas, f64::from(to))));
        let more = SHARDS.into_iter().filter(|&shards| shards > problem.budgets.nodes);
        let nodes = more.into_iter().find(|&shards| fits(&with_nodes(problem, shards), ways, &[shards]));
        relaxations.extend(nodes.map(|to| single(Constraint::Nodes, f64::from(to))));
        relaxations.sort_by(|a, b| a.changes.len().cmp(&b.changes.len()).then(a.relative.total_cmp(&b.relative)));
        relaxations.retain(|relaxation| {
            relaxation.relative.is_finite()
                && relaxation.applied(problem).is_some_and(|relaxed| fits(&relaxed, ways, &shards(&relaxed)))
        });
        relaxations.truncate(PROPOSED);
        Outcome::Nothing { hopeless: self.least.into_values().collect(), relaxations }
    }
}

fn with_nodes(problem: &Problem, nodes: u32) -> Problem {
    let mut changed = problem.clone();
    changed.budgets.nodes = nodes;
    changed
}

fn changes(problem: &Problem, candidate: &Candidate) -> Relaxation {
    let requests_per_s = problem.budgets.requests_per_s;
    let change = |violation: Violation| match violation.constraint {
        Constraint::NodeCpu => {
            let to = (requests_per_s * violation.allowed / violation.needed).floor();
            Change { constraint: Constraint::RequestsPerS, from: requests_per_s, to }
        }
        // in the unit of the budget, which is the whole of `maxmemory`
        Constraint::StoreBytes => Change {
            constraint: Constraint::StoreBytes,
            from: problem.budgets.maxmemory_bytes as f64,
            to: Budgets::maxmemory_for(violation.needed as u64) as f64,
        },
        constraint => Change { constraint, from: violation.allowed, to: violation.needed },
    };
    relaxation(candidate.misses.list(problem).into_iter().map(change).collect())
}

fn relaxation(changes: Vec<Change>) -> Relaxation {
    let violation = |c: &Change| Violation { constraint: c.constraint, allowed: c.from, needed: c.to };
    let relative = changes.iter().map(|change| violation(change).excess()).sum();
    Relaxation { changes, relative }
}

/// The bit of a constraint in a mask.
fn bit(constraint: Constraint) -> u16 {
    CONSTRAINTS.iter().position(|&other| other == constraint).map_or(0, |at| 1 << at)
}

/// Requests per second that a candidate could serve which misses nothing but cores or the node's.
fn possible_requests(problem: &Problem, candidate: &Candidate) -> f64 {
    let budgets = &problem.budgets;
    let stored = &candidate.choice.stored;
    let nodes = u64::from(stored.shards) * (1 + u64::from(budgets.replicas));
    if candidate.misses.mask & !(bit(Constraint::Cores) | bit(Constraint::NodeCpu)) != 0 {
        return 0.0;
    }
    let cores = u64::from(budgets.cores).saturating_sub(nodes) as f64;
    let per_s = |cores: f64, us: f64| if us > 0.0 { cores * BUSY * 1e6 / us } else { f64::INFINITY };
    let store = per_s(f64::from(stored.shards), candidate.cost.server_us);
    per_s(cores, candidate.cost.client_us).min(store)
}

/// The most whole requests per second at which something fits, near what was computed.
fn whole_requests(problem: &Problem, ways: &Ways, near: f64) -> Option<f64> {
    let near = near.min(problem.budgets.requests_per_s).floor();
    let fits_at = |to: &f64| {
        let mut changed = problem.clone();
        changed.budgets.requests_per_s = *to;
        *to >= 1.0 && *to < problem.budgets.requests_per_s && fits(&changed, ways, &shards(&changed))
    };
    // sums are rounded: the last request may be one too many, or there may be room for one more
    if near < 1.0 { None } else { [near + 1.0, near, near - 1.0].into_iter().find(fits_at) }
}

/// Replicas that a candidate could have which misses nothing but cores.
fn possible_replicas(problem: &Problem, candidate: &Candidate) -> Option<u32> {
    let budgets = &problem.budgets;
    if candidate.misses.mask != bit(Constraint::Cores) {
        return None;
    }
    let over = candidate.cores.saturating_sub(u64::from(budgets.cores));
    let fewer = over.div_ceil(u64::from(candidate.choice.stored.shards));
    u64::from(budgets.replicas).checked_sub(fewer).map(|replicas| replicas as u32)
}

impl Relaxation {
    /// The problem with its budgets changed; `None` where a change is none of its budgets'.
    pub fn applied(&self, problem: &Problem) -> Option<Problem> {
        let mut changed = problem.clone();
        let budgets = &mut changed.budgets;
        for change in &self.changes {
            let to = change.to;
            match change.constraint {
                Constraint::StoreBytes => budgets.maxmemory_bytes = to as u64,
                Constraint::LocalRam => budgets.local_ram_bytes = to as u64,
                Constraint::Quality => {
                    budgets.floor = match budgets.floor {
                        Floor::Recall(_) => Floor::Recall(to),
                        Floor::RankingLoss(_) => Floor::RankingLoss(to),
                    }
                }
                Constraint::Coverage => budgets.coverage = to,
                Constraint::P99 => budgets.p99_ms = to,
                Constraint::Freshness => budgets.freshness_s = to,
                Constraint::Cores => budgets.cores = to as u32,
                Constraint::ReleasesKept => budgets.releases_kept = to as u32,
                Constraint::Nodes => budgets.nodes = to as u32,
                Constraint::RequestsPerS => budgets.requests_per_s = to,
                Constraint::Replicas => budgets.replicas = to as u32,
                Constraint::NodeCpu => return None,
            }
        }
        Some(changed)
    }
}
