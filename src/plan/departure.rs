//! A plan held against the server that runs it.

use std::fmt;

use serde::Serialize;

use super::Plan;
use crate::kv::Probe;

/// Something that a server does otherwise than planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "departure")]
pub enum Departure {
    /// It uses more than it should even while a release is loaded.
    AbovePeak {
        /// `used_memory` at the most, by the plan.
        planned_bytes: u64,
        /// `used_memory`.
        used_bytes: u64,
    },
    /// It may use less than the plan counts on.
    SmallerLimit {
        /// `maxmemory` by the plan.
        planned_bytes: u64,
        /// `maxmemory`.
        limit_bytes: u64,
    },
    /// It has no limit where the plan sets one.
    NoLimit {
        /// `maxmemory` by the plan.
        planned_bytes: u64,
    },
    /// Under pressure it takes other keys than planned.
    OtherPolicy {
        /// `maxmemory-policy` by the plan.
        planned: String,
        /// What is set.
        policy: String,
    },
}

/// What the server departs from the plan in; nothing when it runs as planned. For one node, as the plan is.
pub fn departures(plan: &Plan, probe: &Probe) -> Vec<Departure> {
    let (settings, planned_bytes) = (&plan.settings, plan.settings.maxmemory_bytes);
    let above = (probe.used_bytes > plan.predicted.peak_bytes)
        .then_some(Departure::AbovePeak { planned_bytes: plan.predicted.peak_bytes, used_bytes: probe.used_bytes });
    let limit = match probe.limit_bytes {
        None => Some(Departure::NoLimit { planned_bytes }),
        Some(limit_bytes) => {
            (limit_bytes < planned_bytes).then_some(Departure::SmallerLimit { planned_bytes, limit_bytes })
        }
    };
    let policy = (probe.policy != settings.maxmemory_policy)
        .then(|| Departure::OtherPolicy { planned: settings.maxmemory_policy.clone(), policy: probe.policy.clone() });
    above.into_iter().chain(limit).chain(policy).collect()
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AbovePeak { planned_bytes, used_bytes } => write!(
                f,
                "{used_bytes} bytes are used where the plan expects {planned_bytes} at the most: run `tonnage releases \
                 list`, or plan again"
            ),
            Self::SmallerLimit { planned_bytes, limit_bytes } => {
                write!(
                    f,
                    "maxmemory is {limit_bytes} where the plan counts on {planned_bytes}: raise it, or plan again"
                )
            }
            Self::NoLimit { planned_bytes } => {
                write!(f, "the server has no limit: set maxmemory to {planned_bytes}, as planned")
            }
            Self::OtherPolicy { planned, policy } => {
                write!(f, "maxmemory-policy is {policy}: set it to {planned}, as planned")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::fixture;
    use super::*;
    use crate::kv::Persistence;
    use crate::kv::memory::Server;

    #[test]
    fn what_runs_as_planned_departs_in_nothing_and_what_does_not_is_named() {
        let plan = fixture::plan();
        let mut probe = Probe {
            server: Server::REFERENCE,
            version: "Redis 7.0.15".to_owned(),
            used_bytes: plan.predicted.peak_bytes,
            client_bytes: 0,
            resident_bytes: 0,
            active_bytes: 0,
            limit_bytes: Some(plan.settings.maxmemory_bytes),
            policy: plan.settings.maxmemory_policy.clone(),
            keys: 0,
            expires: 0,
            clients: 1,
            replicas: 0,
            backlog_bytes: 0,
            backlog_used_bytes: 0,
            persistence: Persistence::default(),
            commands: BTreeSet::new(),
            unknown: Vec::new(),
        };
        assert_eq!(departures(&plan, &probe), []);
        probe.used_bytes += 1;
        probe.policy = "allkeys-lru".to_owned();
        probe.limit_bytes = Some(plan.settings.maxmemory_bytes - 1);
        let found: Vec<String> = departures(&plan, &probe).iter().map(ToString::to_string).collect();
        assert!(found[0].contains("at the most") && found[1].contains("raise it") && found[2].contains("volatile-lru"));
        probe.limit_bytes = None;
        assert!(departures(&plan, &probe).contains(&Departure::NoLimit { planned_bytes: 2 << 30 }));
    }
}
