//! Whether a store is as it should be: what is there against what the ledger and the memory model say, and what would
//! go wrong next.
//!
//! It changes nothing: every key that it looks at is named by the ledger.

use std::fmt;

use serde::Serialize;

use super::StoreError;
use super::footprint::{Footprint, Trajectory, expected_values, standing_bytes};
use super::guard::Room;
use super::items::items_of;
use super::ledger::Ledger;
use super::ledger::{Entry, State};
use super::lifecycle::{Listed, count_pages, is_dead, list};
use super::release::{Growth, Manifest};
use super::spread::On;
use crate::kv::memory::{Expiry, Keys, Names, Value, Values};
use crate::kv::{Kv, Probe};

/// Memory pages beyond this many times what is used are fragmented; a fresh load has 1.1.
const FRAGMENTED: f64 = 1.5;
/// Less than this is the process itself, and no fragmentation.
const PROCESS_BYTES: u64 = 64 << 20;

/// A release as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Its name, and "(items)" if it is item vectors.
    pub name: String,
    /// Its state.
    pub state: State,
    /// Pages that it has by the ledger.
    pub pages: u32,
    /// Those that are there.
    pub found: u64,
    /// What they should cost the server, keys included; 0 for one that is not whole.
    pub predicted_bytes: u64,
    /// What loading it was to cost, and did.
    pub loaded: Option<Growth>,
}

/// Bytes of one kind on the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Which.
    pub part: String,
    /// As the memory model says, or the server itself.
    pub bytes: u64,
    /// Whether it is predicted; else the server said it.
    pub predicted: bool,
}

/// What one server of a cluster holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardShares {
    /// Its address.
    pub shard: String,
    /// `used_memory`.
    pub used_bytes: u64,
    /// The most that is allowed.
    pub limit_bytes: Option<u64>,
    /// By what it is used for.
    pub shares: Vec<Share>,
    /// The peak to which another release like the active one would bring it.
    pub next_peak_bytes: Option<u64>,
}

/// Something to be put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "finding")]
pub enum Finding {
    /// A policy that takes any key takes vectors.
    EvictsVectors {
        /// The policy.
        policy: String,
    },
    /// A release like the active one does not fit beside what is there.
    NoHeadroom {
        /// In a cluster, the shard.
        shard: Option<String>,
        /// The peak that it would come to.
        peak_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// Much more memory is taken than used.
    Fragmented {
        /// In a cluster, the shard.
        shard: Option<String>,
        /// In memory pages that hold something.
        active_bytes: u64,
        /// Used.
        used_bytes: u64,
    },
    /// A release that can be activated, or is active, has lost pages.
    PagesGone {
        /// The release.
        name: String,
        /// Pages that are not there.
        missing: u64,
    },
    /// Pages of a release that is dead.
    Leavings {
        /// The release.
        name: String,
        /// In which state it was left.
        state: State,
        /// Pages that are there.
        pages: u64,
    },
    /// A release was rolled in by half.
    HalfRolled {
        /// The release.
        name: String,
    },
    /// A release was rolled in by half, and given up: the active one lacks users.
    GivenUp {
        /// The release.
        name: String,
    },
    /// The active users have items, and those of another release are active.
    OtherItems {
        /// The active users' release.
        name: String,
    },
    /// Nothing is active.
    NothingActive,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EvictsVectors { policy } => {
                write!(
                    f,
                    "{policy} would evict vectors: set maxmemory-policy to noeviction, or to volatile-ttl or -lfu"
                )
            }
            Self::NoHeadroom { shard, peak_bytes, limit_bytes } => write!(
                f,
                "{}another release like the active one would come to {peak_bytes} bytes where {limit_bytes} are allowed: \
                 retire one, raise the limit, or publish with a strategy",
                on_shard(shard.as_ref())
            ),
            Self::Fragmented { shard, active_bytes, used_bytes } => write!(
                f,
                "{}{active_bytes} bytes are taken for {used_bytes} used: turn on activedefrag, or restart the server",
                on_shard(shard.as_ref())
            ),
            Self::PagesGone { name, missing } => {
                write!(
                    f,
                    "release {name} has lost {missing} pages, by eviction or by hand: publish it under a new name"
                )
            }
            Self::Leavings { name, state, pages } => {
                write!(f, "{pages} pages are left of release {name} ({state}): run `tonnage releases gc`")
            }
            Self::HalfRolled { name } => write!(
                f,
                "release {name} is rolled in by half: run the same publish again to end it, or give it up with `tonnage \
                 releases retire {name}`"
            ),
            Self::GivenUp { name } => write!(
                f,
                "release {name} was rolled in by half and given up: the active one has no vector for the users in its \
                 pages; publish another and activate it"
            ),
            Self::OtherItems { name } => write!(
                f,
                "release {name} has items, and other items are active: run `tonnage releases activate {name}`"
            ),
            Self::NothingActive => write!(f, "no release is active: activate one"),
        }
    }
}

fn on_shard(shard: Option<&String>) -> String {
    shard.map_or_else(String::new, |home| format!("shard {home}: "))
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checkup {
    /// Every release that the ledger knows and that is not gone, or should be and is not.
    pub releases: Vec<Standing>,
    /// `used_memory`, by what it is used for; empty for a file and for a cluster.
    pub shares: Vec<Share>,
    /// The peak to which another release like the active one, with its items, would bring the server.
    pub next_peak_bytes: Option<u64>,
    /// The same of each server of a cluster.
    pub shards: Vec<ShardShares>,
    /// What is to be put right.
    pub findings: Vec<Finding>,
    /// What is as it may be, but should be known.
    pub notes: Vec<String>,
}

/// Looks at everything that the ledgers of users and of items name, and at the servers.
pub async fn examine<K: Kv>(kv: &K, ns: &str, room: &Room) -> Result<Checkup, StoreError> {
    let mut checkup = Checkup {
        releases: Vec::new(),
        shares: Vec::new(),
        next_peak_bytes: None,
        shards: Vec::new(),
        findings: Vec::new(),
        notes: Vec::new(),
    };
    let mut holdings = vec![checkup.holding(kv, ns, "", room).await?];
    if let Some(items) = items_of(ns) {
        holdings.push(checkup.holding(kv, &items, " (items)", room).await?);
    }
    checkup.compare(&holdings);
    for on in room.servers() {
        checkup.server(on, room, &holdings);
    }
    Ok(checkup)
}

/// The releases of a namespace, as they were found.
struct Holding {
    ns: String,
    listed: Vec<Listed>,
    /// Those that have keys: their manifest, the expiry of their pages, which share of the pages is there, and the name
    /// by which they are shown.
    standing: Vec<(Manifest, Expiry, f64, String)>,
}

impl Holding {
    fn active(&self) -> Option<&Listed> {
        self.listed.iter().find(|listed| listed.entry.state == State::Active)
    }
}

impl Checkup {
    async fn holding<K: Kv>(&mut self, kv: &K, ns: &str, what: &str, room: &Room) -> Result<Holding, StoreError> {
        let (listed, publishing) = list(kv, ns).await?;
        let ledger = Ledger { current: None, releases: listed.iter().map(|listed| listed.entry.clone()).collect() };
        let mut standing = Vec::new();
        for Listed { entry, manifest } in &listed {
            if entry.is_gone() && ledger.is_in_use(&entry.keys) {
                continue; // what stands under its names is another's
            }
            let name = format!("{}{what}", entry.name);
            let found = count_pages(kv, ns, entry).await?;
            self.findings.extend(judge(entry, &ledger, name.clone(), found, publishing.is_some()));
            if entry.state == State::Past {
                self.notes.push(format!("release {name} is kept, though two came after it; gc removes it"));
            }
            if entry.state == State::Retired && found == 0 {
                continue;
            }
            let expiry = if entry.state == State::Waiting { Expiry::Set } else { Expiry::Removed };
            let predicted = |manifest| room.servers().map(|on| standing_bytes(on, ns, manifest, expiry)).sum();
            self.releases.push(Standing {
                name: name.clone(),
                state: entry.state,
                pages: entry.pages,
                found,
                predicted_bytes: manifest.as_ref().map_or(0, predicted),
                loaded: manifest.as_ref().and_then(|manifest| manifest.memory),
            });
            let there = found as f64 / f64::from(entry.pages.max(1));
            // of two that share pages, those are counted once
            let counted = !entry.is_half();
            standing.extend(manifest.clone().filter(|_| counted).map(|manifest| (manifest, expiry, there, name)));
        }
        if let Some(name) = publishing {
            self.notes.push(format!("release {name}{what} is being published"));
        }
        Ok(Holding { ns: ns.to_owned(), listed, standing })
    }

    /// Whether something is active, and users and items are of one release.
    fn compare(&mut self, holdings: &[Holding]) {
        let [users, items @ ..] = holdings else { return };
        let active_items = items.iter().find_map(Holding::active);
        let Some(active) = users.active() else {
            // items by themselves, for others to read, need no users
            if active_items.is_none() || !users.listed.is_empty() {
                self.findings.push(Finding::NothingActive);
            }
            return;
        };
        let name = &active.entry.name;
        let has_items = items.iter().flat_map(|items| &items.listed).any(|listed| {
            listed.entry.name == *name
                && listed.manifest.is_some()
                && listed.entry.fingerprint == active.entry.fingerprint
        });
        if has_items && active_items.is_none_or(|items| items.entry.name != *name) {
            self.findings.push(Finding::OtherItems { name: name.clone() });
        }
    }

    fn server(&mut self, on: On<'_>, room: &Room, holdings: &[Holding]) {
        let (shard, probe) = (on.shard.map(str::to_owned), on.probe);
        self.health(probe, shard.as_ref());
        let (shares, limit_bytes) = (shares_of(on, holdings), room.limit_bytes(on.shard));
        let next_peak_bytes = limit_bytes.and_then(|_| next_peak(on, holdings));
        if let (Some(peak_bytes), Some(limit_bytes)) = (next_peak_bytes, limit_bytes)
            && peak_bytes > limit_bytes
        {
            self.findings.push(Finding::NoHeadroom { shard: shard.clone(), peak_bytes, limit_bytes });
        }
        match shard {
            None => (self.shares, self.next_peak_bytes) = (shares, next_peak_bytes),
            Some(shard) => {
                let used_bytes = probe.used_bytes;
                self.shards.push(ShardShares { shard, used_bytes, limit_bytes, shares, next_peak_bytes });
            }
        }
    }

    /// What one server is set to and does; what several have in common is said once.
    fn health(&mut self, probe: &Probe, shard: Option<&String>) {
        let unlimited = "maxmemory is not set: the server grows until its machine is full".to_owned();
        for note in probe.unknown.iter().chain(probe.limit_bytes.is_none().then_some(&unlimited)) {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
        let evicts = Finding::EvictsVectors { policy: probe.policy.clone() };
        if probe.policy.starts_with("allkeys") && !self.findings.contains(&evicts) {
            self.findings.push(evicts);
        }
        let (active_bytes, used_bytes) = (probe.active_bytes, probe.used_bytes);
        if active_bytes as f64 > FRAGMENTED * used_bytes as f64 + PROCESS_BYTES as f64 {
            self.findings.push(Finding::Fragmented { shard: shard.cloned(), active_bytes, used_bytes });
        }
    }
}

/// What another release like the active one, users and items, would bring a server to.
fn next_peak(on: On<'_>, holdings: &[Holding]) -> Option<u64> {
    let mut peak = None;
    for holding in holdings {
        let Some(active) = holding.active().and_then(|active| active.manifest.as_ref()) else { continue };
        let trajectory = Trajectory::new(on, &holding.ns, active, expected_values(active));
        let footprint = Footprint::on_server(on, &holding.ns, active, &trajectory);
        // one after the other: the first rests while the second is loaded
        let before = peak.map_or(0, |(_, rest)| rest);
        peak = Some((footprint.peak_bytes + before, footprint.rest_bytes - footprint.before_bytes));
    }
    peak.map(|(peak, _)| peak)
}

/// What a server uses, by what it is used for.
fn shares_of(on: On<'_>, holdings: &[Holding]) -> Vec<Share> {
    let probe = on.probe;
    let share = |part: String, bytes, predicted| Share { part, bytes, predicted };
    let (mut shares, mut ours) = (Vec::new(), 0.0);
    for holding in holdings {
        for (manifest, expiry, there, name) in &holding.standing {
            ours += on.pages(&holding.ns, manifest).all_names().count() as f64 * there;
            let bytes = standing_bytes(on, &holding.ns, manifest, *expiry);
            shares.push(share(format!("release {name}"), bytes, true));
        }
    }
    shares.push(share(format!("tables of {} keys", probe.keys), tables_bytes(probe), true));
    shares.push(share(format!("{} connections", probe.clients), probe.client_bytes, false));
    shares.push(share("replication backlog".to_owned(), probe.backlog_used_bytes, false));
    let known: u64 = shares.iter().map(|share| share.bytes).sum();
    let others = probe.keys.saturating_sub(ours.round() as u64);
    let rest = probe.used_bytes.saturating_sub(known);
    shares.push(share(format!("the server itself and {others} other keys"), rest, false));
    shares
}

/// The buckets for all keys and all expiries that the server has.
fn tables_bytes(probe: &Probe) -> u64 {
    let of = |count, expiry| {
        let keys = Keys { names: Names::same(1, count), values: Values::same(Value::String(1)), expiry };
        probe.server.group_bytes(&keys).saturating_sub(probe.server.keys_bytes(&keys).round() as u64)
    };
    let both = of(probe.expires, Expiry::Set).saturating_sub(of(probe.expires, Expiry::None));
    of(probe.keys, Expiry::None) + both
}

fn judge(entry: &Entry, ledger: &Ledger, name: String, found: u64, publishing: bool) -> Option<Finding> {
    let missing = u64::from(entry.pages).saturating_sub(found);
    let left = |name| Finding::Leavings { name, state: entry.state, pages: found };
    match entry.state {
        State::Loading | State::Retiring | State::Waiting | State::Rolling | State::Abandoned
            if is_dead(entry, &ledger.releases, publishing) =>
        {
            Some(left(name))
        }
        State::Rolling => (!publishing).then_some(Finding::HalfRolled { name }),
        State::Abandoned => Some(Finding::GivenUp { name }),
        State::Retired => (found > 0).then(|| left(name)),
        State::Loading | State::Retiring => None,
        State::Active | State::Previous | State::Past | State::Waiting => {
            (missing > 0).then_some(Finding::PagesGone { name, missing })
        }
    }
}
