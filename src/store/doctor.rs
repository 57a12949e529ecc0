//! Whether a store is as it should be: what is there against what the ledger and the memory model say, and what would
//! go wrong next.
//!
//! It changes nothing: every key that it looks at is named by the ledger.

use std::fmt;

use serde::Serialize;

use super::StoreError;
use super::footprint::{Footprint, Trajectory, expected_values, standing_bytes};
use super::guard::Room;
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
    /// Its name.
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
        /// The peak that it would come to.
        peak_bytes: u64,
        /// What is allowed.
        limit_bytes: u64,
    },
    /// Much more memory is taken than used.
    Fragmented {
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
            Self::NoHeadroom { peak_bytes, limit_bytes } => write!(
                f,
                "another release like the active one would come to {peak_bytes} bytes where {limit_bytes} are allowed: \
                 retire one, raise the limit, or publish with a strategy"
            ),
            Self::Fragmented { active_bytes, used_bytes } => write!(
                f,
                "{active_bytes} bytes are taken for {used_bytes} used: turn on activedefrag, or restart the server"
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
            Self::HalfRolled { name } => write!(f, "release {name} is rolled in by half: run the same publish again"),
            Self::NothingActive => write!(f, "no release is active: activate one"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checkup {
    /// Every release that the ledger knows and that is not gone, or should be and is not.
    pub releases: Vec<Standing>,
    /// `used_memory`, by what it is used for; empty for a file.
    pub shares: Vec<Share>,
    /// The peak to which another release like the active one would bring the server.
    pub next_peak_bytes: Option<u64>,
    /// What is to be put right.
    pub findings: Vec<Finding>,
    /// What is as it may be, but should be known.
    pub notes: Vec<String>,
}

/// Looks at everything that the ledger names, and at the server.
pub async fn examine<K: Kv>(kv: &K, ns: &str, room: &Room) -> Result<Checkup, StoreError> {
    let (listed, publishing) = list(kv, ns).await?;
    let mut checkup = Checkup {
        releases: Vec::new(),
        shares: Vec::new(),
        next_peak_bytes: None,
        findings: Vec::new(),
        notes: Vec::new(),
    };
    for Listed { entry, manifest } in &listed {
        let live = |other: &Listed| other.entry.keys == entry.keys && !other.entry.is_gone();
        if entry.is_gone() && listed.iter().any(live) {
            continue; // what stands under its names is another's
        }
        let found = count_pages(kv, ns, entry).await?;
        checkup.findings.extend(judge(entry, found, publishing.is_some()));
        if entry.state == State::Past {
            checkup.notes.push(format!("release {} is kept, though two came after it; gc removes it", entry.name));
        }
        if entry.state == State::Retired && found == 0 {
            continue;
        }
        let expiry = if entry.state == State::Waiting { Expiry::Set } else { Expiry::Removed };
        let predicted =
            |manifest| room.probe.as_ref().map(|probe| standing_bytes(On::alone(probe), ns, manifest, expiry));
        checkup.releases.push(Standing {
            name: entry.name.clone(),
            state: entry.state,
            pages: entry.pages,
            found,
            predicted_bytes: manifest.as_ref().and_then(predicted).unwrap_or(0),
            loaded: manifest.as_ref().and_then(|manifest| manifest.memory),
        });
    }
    let active = listed.iter().find(|listed| listed.entry.state == State::Active);
    if active.is_none() {
        checkup.findings.push(Finding::NothingActive);
    }
    if let Some(name) = publishing {
        checkup.notes.push(format!("release {name} is being published"));
    }
    for shard in &room.shards {
        checkup.health(&shard.probe);
    }
    if !room.shards.is_empty() {
        let note =
            "of a cluster's servers policy, limit and fragmentation are looked at; bytes by use and headroom are not";
        checkup.notes.push(note.to_owned());
    }
    if let Some(probe) = &room.probe {
        checkup.server(ns, probe, room, active.and_then(|listed| listed.manifest.as_ref()));
    }
    Ok(checkup)
}

impl Checkup {
    fn server(&mut self, ns: &str, probe: &Probe, room: &Room, active: Option<&Manifest>) {
        self.shares = self.shares_of(probe);
        self.health(probe);
        if let (Some(limit_bytes), Some(active)) = (room.limit_bytes(None), active) {
            let trajectory = Trajectory::new(On::alone(probe), ns, active, expected_values(active));
            let peak_bytes = Footprint::on_server(On::alone(probe), ns, active, &trajectory).peak_bytes;
            self.next_peak_bytes = Some(peak_bytes);
            if peak_bytes > limit_bytes {
                self.findings.push(Finding::NoHeadroom { peak_bytes, limit_bytes });
            }
        }
    }

    /// What one server is set to and does; what several have in common is said once.
    fn health(&mut self, probe: &Probe) {
        let unlimited = "maxmemory is not set: the server grows until its machine is full".to_owned();
        for note in probe.unknown.iter().chain(probe.limit_bytes.is_none().then_some(&unlimited)) {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
        if probe.policy.starts_with("allkeys") {
            self.find(Finding::EvictsVectors { policy: probe.policy.clone() });
        }
        let (active_bytes, used_bytes) = (probe.active_bytes, probe.used_bytes);
        if active_bytes as f64 > FRAGMENTED * used_bytes as f64 + PROCESS_BYTES as f64 {
            self.find(Finding::Fragmented { active_bytes, used_bytes });
        }
    }

    fn find(&mut self, finding: Finding) {
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn shares_of(&self, probe: &Probe) -> Vec<Share> {
        let share = |part: String, bytes, predicted| Share { part, bytes, predicted };
        let releases = self.releases.iter().filter(|release| release.predicted_bytes > 0);
        let mut shares: Vec<Share> =
            releases.map(|release| share(format!("release {}", release.name), release.predicted_bytes, true)).collect();
        shares.push(share(format!("tables of {} keys", probe.keys), tables_bytes(probe), true));
        shares.push(share(format!("{} connections", probe.clients), probe.client_bytes, false));
        shares.push(share("replication backlog".to_owned(), probe.backlog_used_bytes, false));
        let known: u64 = shares.iter().map(|share| share.bytes).sum();
        let ours: u64 = self.releases.iter().map(|release| release.found).sum();
        let others = probe.keys.saturating_sub(ours);
        let rest = probe.used_bytes.saturating_sub(known);
        shares.push(share(format!("the server itself and {others} other keys"), rest, false));
        shares
    }
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

fn judge(entry: &Entry, found: u64, publishing: bool) -> Option<Finding> {
    let name = entry.name.clone();
    let missing = u64::from(entry.pages).saturating_sub(found);
    match entry.state {
        State::Rolling => (!publishing).then_some(Finding::HalfRolled { name }),
        State::Retired => (found > 0).then_some(Finding::Leavings { name, state: entry.state, pages: found }),
        State::Loading | State::Retiring | State::Waiting if is_dead(entry, publishing) => {
            Some(Finding::Leavings { name, state: entry.state, pages: found })
        }
        State::Loading | State::Retiring => None,
        State::Active | State::Previous | State::Past | State::Waiting => {
            (missing > 0).then_some(Finding::PagesGone { name, missing })
        }
    }
}
