//! What to do when a release does not fit beside those that are there, and what each way costs in bytes.

use std::fmt;

use serde::Serialize;

use super::footprint::{self, Footprint, Trajectory};
use super::geometry::{self, Home};
use super::guard::Room;
use super::layout::Layout;
use super::ledger::State;
use super::lifecycle::{self, Listed};
use super::release::{Addressing, Manifest};
use super::spread::On;
use super::{StoreError, page};
use crate::codec::Codec;
use crate::kv::Kv;
use crate::kv::memory::{Expiry, Values};

/// How a release comes to stand in the place of the active one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Beside it: readers never wait, and there is a way back. Needs room for both.
    #[default]
    Beside,
    /// Into its pages, one after another: needs no more room than one of them. A reader of either release finds a user
    /// only in pages that are of it, and there is no way back.
    Rolling,
    /// After it: the active release is removed first. Until the new one is published nobody has a vector.
    Replace,
}

/// What would make a release fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "remedy")]
pub enum Remedy {
    /// A codec of fewer bytes.
    Codec {
        /// The codec.
        codec: Codec,
        /// The peak with it.
        peak_bytes: u64,
    },
    /// Removing a release.
    Retire {
        /// Its name.
        name: String,
        /// What it occupies.
        frees_bytes: u64,
    },
    /// Another strategy.
    Strategy {
        /// Which.
        strategy: Strategy,
        /// The peak with it.
        peak_bytes: u64,
    },
    /// A higher limit.
    Raise {
        /// To so much at least.
        limit_bytes: u64,
    },
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec { codec, peak_bytes } => write!(f, "--codec {codec} (peak {peak_bytes})"),
            Self::Retire { name, frees_bytes } => write!(f, "retire {name} (frees {frees_bytes})"),
            Self::Strategy { strategy, peak_bytes } => write!(f, "--strategy {strategy} (peak {peak_bytes})"),
            Self::Raise { limit_bytes } => write!(f, "raise maxmemory and the budget to {limit_bytes}"),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Beside => "beside",
            Self::Rolling => "rolling",
            Self::Replace => "replace",
        })
    }
}

/// Where a release goes.
pub(super) struct Place {
    /// What its pages are made for.
    pub home: Home,
    /// Bytes in use where nothing was probed: the length of a file.
    pub used_bytes: u64,
    /// What a file has in it.
    pub standing: Vec<Manifest>,
}

impl Place {
    /// Asks what was not probed: it may be a server as well.
    pub async fn of<K: Kv>(kv: &K, ns: &str, room: &Room) -> Result<Self, StoreError> {
        if let Some(on) = room.servers().next() {
            return Ok(Self { home: Home::Server(on.probe.server), used_bytes: 0, standing: Vec::new() });
        }
        let stats = kv.stats().await?;
        let is_file = stats.eviction.is_none();
        let listed = if is_file { lifecycle::list(kv, ns).await?.0 } else { Vec::new() };
        let standing = listed.into_iter().filter_map(|listed| listed.manifest).collect();
        let home = if is_file { Home::File } else { Home::REFERENCE };
        Ok(Self { home, used_bytes: stats.used_bytes, standing })
    }
}

/// The footprint of a release that goes where the strategy says, on every server: at least one.
pub(super) fn price(
    ns: &str,
    layout: &Layout<'_, '_>,
    room: &Room,
    strategy: Strategy,
    active: Option<&Manifest>,
    place: &Place,
) -> Vec<Footprint> {
    let (manifest, values) = (&layout.manifest, layout.values());
    let on_server = |on: On<'_>| match (strategy, active) {
        (Strategy::Rolling, Some(active)) => {
            let trajectory = Trajectory::over(on, ns, manifest, values.clone(), active);
            Footprint::rolling(on, ns, manifest, active, &trajectory)
        }
        (Strategy::Replace, Some(active)) => {
            // it goes first; its tables stay
            let freed = footprint::standing_bytes(on, ns, active, Expiry::Removed);
            beside(on, ns, manifest, &values).on_top_of(on.probe.used_bytes.saturating_sub(freed))
        }
        _ => beside(on, ns, manifest, &values),
    };
    let footprints: Vec<_> = room.servers().map(on_server).collect();
    if footprints.is_empty() {
        vec![Footprint::in_file(place.used_bytes, manifest, &values, &place.standing)]
    } else {
        footprints
    }
}

fn beside(on: On<'_>, ns: &str, manifest: &Manifest, values: &Values) -> Footprint {
    Footprint::on_server(on, ns, manifest, &Trajectory::new(on, ns, manifest, values.clone()))
}

/// What would make a refused release fit, the cheapest first: what costs nothing but a release that nobody reads, then
/// quality, then availability, then memory. In a cluster, bytes are those of the shard with least room.
pub(super) fn remedies(
    ns: &str,
    layout: &Layout<'_, '_>,
    room: &Room,
    footprints: &[Footprint],
    active: Option<&Manifest>,
    listed: &[Listed],
) -> Vec<Remedy> {
    let lacking = footprints.iter().filter(|footprint| room.short_bytes(footprint) > 0);
    let raise = Remedy::Raise { limit_bytes: lacking.map(|footprint| footprint.peak_bytes).max().unwrap_or(0) };
    let tightest = &footprints[room.tightest(footprints)];
    let Some(on) = room.servers().find(|on| on.shard == tightest.shard.as_deref()) else { return vec![raise] };
    let short = room.short_bytes(tightest);
    // the peak, if it is within the limit everywhere
    let fitting = |footprints: &[Footprint]| {
        let tightest = &footprints[room.tightest(footprints)];
        (room.short_bytes(tightest) == 0).then_some(tightest.peak_bytes)
    };
    let mut remedies: Vec<Remedy> = listed.iter().filter_map(|listed| retiring(on, ns, listed)).collect();
    // those that are enough alone, or all, if it takes more than one
    if remedies.iter().any(|remedy| remedy.frees_bytes() >= short) {
        remedies.retain(|remedy| remedy.frees_bytes() >= short);
    }
    let lower = lower_codecs(layout.manifest.codec).iter().find_map(|&codec| {
        let manifest = in_codec(&layout.manifest, codec, Home::Server(on.probe.server));
        let values = footprint::expected_values(&manifest);
        let footprints: Vec<_> = room.servers().map(|on| beside(on, ns, &manifest, &values)).collect();
        Some(Remedy::Codec { codec, peak_bytes: fitting(&footprints)? })
    });
    remedies.extend(lower);
    if let Some(active) = active {
        let place = Place { home: Home::Server(on.probe.server), used_bytes: 0, standing: Vec::new() };
        for strategy in [Strategy::Rolling, Strategy::Replace] {
            if strategy == Strategy::Rolling && !layout.manifest.can_take_over(active) {
                continue;
            }
            let peak_bytes = fitting(&price(ns, layout, room, strategy, Some(active), &place));
            remedies.extend(peak_bytes.map(|peak_bytes| Remedy::Strategy { strategy, peak_bytes }));
        }
    }
    remedies.push(raise);
    remedies
}

impl Remedy {
    fn frees_bytes(&self) -> u64 {
        match self {
            Self::Retire { frees_bytes, .. } => *frees_bytes,
            _ => 0,
        }
    }
}

fn retiring(on: On<'_>, ns: &str, listed: &Listed) -> Option<Remedy> {
    let expiry = match listed.entry.state {
        State::Previous | State::Past => Expiry::Removed,
        State::Waiting => Expiry::Set,
        _ => return None,
    };
    let frees_bytes = footprint::standing_bytes(on, ns, listed.manifest.as_ref()?, expiry);
    Some(Remedy::Retire { name: listed.entry.name.clone(), frees_bytes })
}

/// Codecs of fewer bytes, the next one first.
pub fn lower_codecs(codec: Codec) -> &'static [Codec] {
    const FALLING: [Codec; 4] = [Codec::F32, Codec::F16, Codec::Int8, Codec::Int4];
    let at = FALLING.iter().position(|&other| other == codec).unwrap_or(FALLING.len() - 1);
    &FALLING[at + 1..]
}

/// The manifest that the release would have in another codec.
fn in_codec(manifest: &Manifest, codec: Codec, home: Home) -> Manifest {
    let mut other = Manifest { codec, ..manifest.clone() };
    let slot_bytes = other.slot_bytes();
    other.addressing = match manifest.addressing {
        Addressing::Dense { .. } => Addressing::Dense { slots: geometry::dense_slots(home, slot_bytes) },
        Addressing::Hashed { seed, .. } => {
            let mean = geometry::hashed_mean(home, page::HEADER_BYTES, page::FINGERPRINT_BYTES + slot_bytes);
            Addressing::Hashed { pages: (f64::from(manifest.users) / mean).ceil() as u32, seed }
        }
    };
    other
}
