//! What comes out: the settings, what they are predicted to do, and why it is not another plan.

use serde::{Deserialize, Serialize};

use super::modes::Mode;
use super::quality::ItemForm;
use super::traffic::Basis;
use super::{Estimate, Floor};
use crate::codec::Codec;

/// The answer to a problem.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There is a plan.
    Fits {
        /// The best.
        plan: Box<Plan>,
        /// Every alternative to one of its settings, with what keeps it from being the plan.
        rejected: Vec<Rejected>,
    },
    /// Nothing fits.
    Nothing {
        /// Of each budget that no choice of settings can meet by itself, what is missing at least.
        hopeless: Vec<Violation>,
        /// Changes of the budgets that make a plan possible, the smallest first. Each has been tried.
        relaxations: Vec<Relaxation>,
    },
}

/// Settings and predictions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What to set.
    pub settings: Settings,
    /// What that does.
    pub predicted: Predicted,
    /// Where hit rates and numbers of active users come from.
    pub traffic: Basis,
}

/// What to set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How answers are made.
    pub mode: Mode,
    /// Where lists come from; none in real time.
    pub cache: Cache,
    /// How items are kept.
    pub items: ItemForm,
    /// How users are.
    pub users: Codec,
    /// The effort of a search.
    pub ef: u32,
    /// How users are found in pages; `None` where only lists are stored.
    pub pages: Option<Pages>,
    /// Users kept, the most deserving by the traffic's ranking.
    pub users_kept: u64,
    /// How the next release is loaded.
    pub publishing: Publishing,
    /// Nodes of the store, without replicas.
    pub shards: u32,
    /// Copies of each node.
    pub replicas: u32,
    /// Releases kept to roll back to.
    pub releases_kept: u32,
    /// `maxmemory` of each node.
    pub maxmemory_bytes: u64,
    /// `maxmemory-policy` of each node.
    pub maxmemory_policy: String,
}

/// How a user is found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pages {
    /// By row.
    Dense {
        /// Slots of a page.
        slots: u32,
    },
    /// By hash.
    Hashed {
        /// Users of a page, mean.
        mean_users: f64,
    },
}

/// What is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// Lists of results.
    Lists,
    /// Candidates, that answers of any filter and page are made of.
    Candidates,
}

/// Where lists or candidates come from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// There are none.
    None,
    /// Computed with each release for the most deserving users, and kept with it.
    Precomputed {
        /// What.
        entry: Entry,
        /// For how many.
        users: u64,
    },
    /// Written to the store after a search, with a TTL.
    Store {
        /// What.
        entry: Entry,
        /// The TTL.
        ttl_s: f64,
        /// Whether a read sets the TTL anew.
        on_read: bool,
    },
    /// Kept by the serving process, the least recently used leaving first.
    Local {
        /// What.
        entry: Entry,
        /// How many.
        entries: u64,
        /// Bytes of memory that they take.
        bytes: u64,
    },
}

/// How a release is loaded, the safest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Publishing {
    /// Beside the active release and all that are kept.
    Beside,
    /// The oldest kept release is retired first: while loading there is one less to roll back to.
    RetireFirst,
    /// Page by page in the place of the active one: nothing to roll back to.
    Rolling,
}

/// What a plan does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicted {
    /// Share of the best items that a user with a vector gets.
    pub recall: Estimate,
    /// The share of NDCG lost, upper bound.
    pub ranking_loss: Option<f64>,
    /// Share of requests by users who are kept.
    pub coverage: f64,
    /// Share of requests that a list or candidates answer.
    pub hit_rate: f64,
    /// How long ago an answer may have been computed, in seconds.
    pub freshness_s: f64,
    /// `used_memory` of the fullest node between publishes.
    pub rest_bytes: u64,
    /// The most that it reaches while a release is loaded.
    pub peak_bytes: u64,
    /// What `rest_bytes` consists of.
    pub components: Vec<Component>,
    /// Memory that a node's machine should have: `maxmemory`, which a server may grow to, fragmentation, and pages copied
    /// while it writes a snapshot.
    pub node_ram_bytes: u64,
    /// Memory of a serving machine: two indexes, since one is opened beside the other at a release, and the cache.
    pub local_ram_bytes: u64,
    /// Processor time of a request in the service, in microseconds.
    pub client_us: f64,
    /// The same in the store.
    pub server_us: f64,
    /// How long one request in a hundred takes, in milliseconds; an upper bound while cores are not busier than planned.
    pub p99_ms: f64,
    /// Requests per second that a busy core of the service answers.
    pub requests_per_s_per_core: f64,
    /// Cores for serving.
    pub serving_cores: u32,
    /// Cores for serving and for all nodes.
    pub cores: u32,
    /// Days until `peak_bytes` reaches the budget at the given growth; `None`: not within ten years, or not by growth,
    /// because only some users are kept.
    pub days_until_full: Option<u32>,
}

/// A part of the bytes of the fullest node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// What it is.
    pub name: String,
    /// Between publishes.
    pub rest_bytes: u64,
    /// While a release is loaded.
    pub peak_bytes: u64,
}

/// A budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Constraint {
    /// [`Budgets::maxmemory_bytes`](super::Budgets::maxmemory_bytes), less the headroom.
    StoreBytes,
    /// [`Budgets::local_ram_bytes`](super::Budgets::local_ram_bytes).
    LocalRam,
    /// [`Budgets::floor`](super::Budgets::floor).
    Quality,
    /// [`Budgets::coverage`](super::Budgets::coverage).
    Coverage,
    /// [`Budgets::p99_ms`](super::Budgets::p99_ms).
    P99,
    /// [`Budgets::freshness_s`](super::Budgets::freshness_s).
    Freshness,
    /// [`Budgets::cores`](super::Budgets::cores).
    Cores,
    /// One node of the store runs commands on one core: the core's share that commands take, of what they may.
    NodeCpu,
    /// [`Budgets::releases_kept`](super::Budgets::releases_kept).
    ReleasesKept,
    /// [`Budgets::nodes`](super::Budgets::nodes).
    Nodes,
    /// [`Budgets::requests_per_s`](super::Budgets::requests_per_s). Never violated; it may be lowered where cores or nodes
    /// are too few.
    RequestsPerS,
    /// [`Budgets::replicas`](super::Budgets::replicas). The same.
    Replicas,
}

/// A budget that is not met.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// Which.
    pub constraint: Constraint,
    /// What it allows, in the unit of the field; of `maxmemory`, what a plan may use.
    pub allowed: f64,
    /// What would be needed.
    pub needed: f64,
}

impl Violation {
    /// How far off, as a share of what is allowed.
    pub fn excess(&self) -> f64 {
        let off = (self.needed - self.allowed).abs();
        if self.allowed.abs() > 0.0 { off / self.allowed.abs() } else { off }
    }
}

/// Why something is not the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Whatever the other settings: the nearest miss, by its worst budget.
    Violates(Vec<Violation>),
    /// It is possible, and worse by the first criterion in which they differ.
    Worse {
        /// The criterion.
        criterion: Criterion,
        /// The plan's.
        plan: f64,
        /// Its best.
        got: f64,
    },
}

/// What plans are compared by, in this order. the solver says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// Users kept: more.
    UsersKept,
    /// Way of publishing: the safer.
    Publishing,
    /// Whole cores, nodes included: fewer.
    Cores,
    /// Bytes of all nodes at the peak: fewer.
    StoreBytes,
    /// Bytes of a serving machine: fewer.
    LocalRam,
    /// Lower bound of recall: higher.
    Recall,
    /// p99: lower.
    P99,
    /// Processor time: less.
    Processor,
    /// Equal in all of it; the plan comes first in the order of enumeration.
    Order,
}

/// An alternative that is not the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejected {
    /// Which setting is another: "mode", "users", "items", ...
    pub setting: String,
    /// What it would be.
    pub alternative: String,
    /// Why not.
    pub reason: Reason,
}

/// A change of budgets that makes a plan possible, each as small as it can be given the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relaxation {
    /// What to change, and to what.
    pub changes: Vec<Change>,
    /// The sum of the changes, each as a share of what is given.
    pub relative: f64,
}

/// A change of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Which.
    pub constraint: Constraint,
    /// As it is.
    pub from: f64,
    /// As it should be.
    pub to: f64,
}

impl Floor {
    /// The number.
    pub fn value(self) -> f64 {
        match self {
            Self::Recall(floor) | Self::RankingLoss(floor) => floor,
        }
    }
}
