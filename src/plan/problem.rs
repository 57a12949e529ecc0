//! What a plan is made from: budgets, facts, measurements, traffic. Plain numbers with their units in their names.
//!
//! The one thing to know: nothing here has a hidden constant. What was measured is a field, what is assumed is a field
//! with a documented default, and the solver is a pure function of this struct.

use serde::{Deserialize, Serialize};

use super::quality::ItemForm;
use super::traffic::Traffic;
use super::{Entry, Estimate};
use crate::codec::Codec;
use crate::kv::memory::Server;

/// Everything that the solver looks at.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What may be spent, and what must be reached.
    pub budgets: Budgets,
    /// What is to be served.
    pub facts: Facts,
    /// What it costs and is worth, measured.
    pub measured: Measured,
    /// Who asks when.
    pub traffic: Traffic,
}

/// What may be spent, and what must be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budgets {
    /// `maxmemory` of one node of the store. A plan uses [`Budgets::store_bytes`] of it.
    pub maxmemory_bytes: u64,
    /// Bytes of memory on each serving machine, for indexes and a result cache.
    pub local_ram_bytes: u64,
    /// What the answers must be worth.
    pub floor: Floor,
    /// Least share of requests that must be answered from the user's own vector or list; the others get what is popular.
    /// 0.9: a plan that quietly treats more than one request in ten as a stranger's is not what was asked for.
    pub coverage: f64,
    /// Requests per second to be served at the peak, all machines together.
    pub requests_per_s: f64,
    /// Longest that one request in a hundred may take, without a network's way to the caller, in milliseconds.
    pub p99_ms: f64,
    /// How long ago an answer may have been computed, in seconds.
    pub freshness_s: f64,
    /// Cores for serving and for the nodes of the store, replicas included.
    pub cores: u32,
    /// Nodes that the store may have, without replicas. More than one makes a cluster.
    pub nodes: u32,
    /// Copies of each node that must be kept. Each has the bytes of its node, and a core.
    pub replicas: u32,
    /// Releases kept to roll back to, beside the active one.
    pub releases_kept: u32,
}

impl Default for Budgets {
    /// One node, 64 cores, nothing unlimited but freshness: half a gigabyte and a gigabyte are what the smallest managed
    /// server and the smallest machine have.
    fn default() -> Self {
        Self {
            maxmemory_bytes: 512 << 20,
            local_ram_bytes: 1 << 30,
            floor: Floor::default(),
            coverage: 0.9,
            requests_per_s: 100.0,
            p99_ms: 50.0,
            freshness_s: f64::MAX,
            cores: 64,
            nodes: 1,
            replicas: 0,
            releases_kept: 1,
        }
    }
}

impl Budgets {
    /// One part in so many of `maxmemory` stays free: what connections and their pipelines take for a moment, and the
    /// publisher's tolerance, which stops at 2 % over the prediction.
    const HEADROOM: u64 = 20;

    /// Bytes of `used_memory` that a plan may reach on a node: `maxmemory` without the headroom of 5 %.
    pub fn store_bytes(&self) -> u64 {
        self.maxmemory_bytes - self.maxmemory_bytes.div_ceil(Self::HEADROOM)
    }

    /// The least `maxmemory` of which a plan may use so many bytes: `store_bytes` turned round.
    pub(super) fn maxmemory_for(bytes: u64) -> u64 {
        bytes.saturating_add(bytes.div_ceil(Self::HEADROOM - 1))
    }
}

/// What answers must be worth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Floor {
    /// The lower bound of recall@k reaches this.
    Recall(f64),
    /// The share of NDCG@k lost against exact `f32`, by its upper bound, is at most this.
    RankingLoss(f64),
}

impl Default for Floor {
    /// Recall 0.95: of ten items shown at most one in two answers is another than it should be.
    fn default() -> Self {
        Self::Recall(0.95)
    }
}

/// What is to be served, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Users with a vector.
    pub users: u64,
    /// Items in the index.
    pub items: u64,
    /// Dimensions of a vector.
    pub dim: u32,
    /// Whether user ids are 0 to n-1.
    pub dense_ids: bool,
    /// Bytes of a user id where they are not dense, mean.
    pub id_bytes: u32,
    /// Users that come a day.
    pub users_per_day: f64,
    /// Seconds from one release to the next.
    pub release_every_s: f64,
    /// Bytes of a stored list of results.
    pub list_bytes: u32,
    /// Bytes of a stored set of candidates, from which answers of any filter and page are made.
    pub candidates_bytes: u32,
    /// Share of requests that a stored list cannot answer, because they have filters, pages or sessions of their own. A
    /// set of candidates can.
    pub varied_share: f64,
    /// What else is kept of each user under keys of its own: sessions, overlays, seen items.
    pub per_user: Vec<PerUser>,
    /// Characters of the namespace that stands in every key.
    pub ns_bytes: u32,
    /// The server, as it is standalone; where a plan takes more than one node they are planned as a cluster.
    pub server: Server,
    /// Bytes that a node uses before anything is stored: its start-up, connections, replication backlog, other tenants.
    pub overhead_bytes: u64,
}

impl Facts {
    /// Bytes of an empty server with `clients` connections, and with a replication backlog where there are replicas. In
    /// Redis 7.0: 0.9 MB at the start, 38 KB a busy connection, 1 MB `repl-backlog-size`.
    pub fn overhead(clients: u32, replicas: u32) -> u64 {
        1_000_000 + 38_200 * u64::from(clients) + if replicas > 0 { 1 << 20 } else { 0 }
    }

    /// Bytes of what a cache keeps for a user.
    pub fn entry_bytes(&self, entry: Entry) -> u32 {
        match entry {
            Entry::Lists => self.list_bytes,
            Entry::Candidates => self.candidates_bytes,
        }
    }
}

/// A key that a user has when he was there not long ago.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerUser {
    /// What it is: "sessions", "overlays", "seen".
    pub name: String,
    /// Bytes of its value, mean.
    pub value_bytes: u32,
    /// Its TTL, set anew at each request of the user; users without a request for as long have none. `None`: all have.
    pub ttl_s: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Ways to keep items and users, and to search.
    pub points: Vec<Point>,
    /// What reading and writing costs.
    pub costs: Costs,
}

/// One way to keep items and users and to search, measured. The same codecs at another effort are another point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// How items are kept.
    pub items: ItemForm,
    /// How users are.
    pub users: Codec,
    /// The effort of a search.
    pub ef: u32,
    /// Share of the best items that are found.
    pub recall: Estimate,
    /// Upper bound of the share of NDCG lost against exact `f32` on the same users, where interactions were given.
    pub ranking_loss: Option<f64>,
    /// Bytes of the index, an item's part of everything in the file.
    pub index_bytes_per_item: f64,
    /// A search with this effort.
    pub search: Cost,
}

/// What something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Processor time of the service, in microseconds.
    pub client_us: f64,
    /// Processor time of the store's server, in microseconds.
    pub server_us: f64,
    /// Time of the planning machine's cores that nobody uses, in microseconds, though many requests are in flight: they all
    /// wait for the store's one thread.
    pub idle_us: f64,
    /// How long one in a hundred takes alone, in microseconds.
    pub p99_us: f64,
}

/// Operations on the store, and what is done with a set of candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Reading a list.
    pub list: Cost,
    /// Reading a set of candidates and making an answer of it.
    pub candidates: Cost,
    /// Looking for either in vain, before a search.
    pub missed: Cost,
    /// Reading a user's vector, and all else that makes an answer of it but the search.
    pub vector: Cost,
    /// Writing a list or candidates after a search.
    pub write: Cost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_maxmemory_for_some_bytes_has_them_and_one_byte_less_does_not() {
        let usable = |maxmemory_bytes| Budgets { maxmemory_bytes, ..Budgets::default() }.store_bytes();
        for bytes in (1..1000).chain([1 << 20, 63_752_000, (1 << 40) + 7, u64::MAX / 2]) {
            let maxmemory = Budgets::maxmemory_for(bytes);
            assert!(usable(maxmemory) >= bytes && usable(maxmemory - 1) < bytes, "{bytes}: {maxmemory}");
        }
        assert_eq!((usable(0), usable(64 << 20)), (0, 63_753_420));
    }
}
