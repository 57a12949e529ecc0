//! What to do when a release does not fit beside those that are there, and what each way costs in bytes.

use std::fmt;

use serde::Serialize;

use super::footprint::{self, Footprint, Trajectory};
use super::guard::Room;
use super::layout::Layout;
use super::ledger::State;
use super::lifecycle::Listed;
use super::release::{Addressing, Manifest};
use super::{geometry, page};
use crate::codec::Codec;
use crate::kv::Probe;
use crate::kv::memory::Expiry;

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

/// The footprint of a release that goes where the strategy says.
pub(super) fn price(
    ns: &str,
    layout: &Layout<'_, '_>,
    room: &Room,
    strategy: Strategy,
    active: Option<&Manifest>,
    file_bytes: u64,
) -> Footprint {
    let manifest = &layout.manifest;
    let Some(probe) = &room.probe else { return Footprint::in_file(file_bytes, manifest) };
    match (strategy, active) {
        (Strategy::Rolling, Some(active)) => Footprint::rolling(probe, ns, manifest, active, layout.values()),
        (Strategy::Replace, Some(active)) => replacing(probe, ns, manifest, layout, active),
        _ => Footprint::on_server(probe, ns, manifest, &Trajectory::new(probe, ns, manifest, layout.values())),
    }
}

/// The active release goes first. Its tables stay.
fn replacing(probe: &Probe, ns: &str, manifest: &Manifest, layout: &Layout<'_, '_>, active: &Manifest) -> Footprint {
    let trajectory = Trajectory::new(probe, ns, manifest, layout.values());
    let beside = Footprint::on_server(probe, ns, manifest, &trajectory);
    let freed = footprint::standing_bytes(&probe.server, ns, active, Expiry::Removed);
    beside.on_top_of(probe.used_bytes.saturating_sub(freed))
}

/// What would make a refused release fit, the cheapest first: what costs nothing but a release that nobody reads, then
/// quality, then availability, then memory.
pub(super) fn remedies(
    ns: &str,
    layout: &Layout<'_, '_>,
    room: &Room,
    footprint: &Footprint,
    active: Option<&Manifest>,
    listed: &[Listed],
) -> Vec<Remedy> {
    let raise = Remedy::Raise { limit_bytes: footprint.peak_bytes };
    let (Some(probe), Some(limit)) = (&room.probe, room.limit_bytes()) else { return vec![raise] };
    let short = footprint.peak_bytes.saturating_sub(limit);
    let mut remedies: Vec<Remedy> = listed.iter().filter_map(|listed| retiring(probe, ns, listed)).collect();
    // those that are enough alone, or all, if it takes more than one
    if remedies.iter().any(|remedy| remedy.frees_bytes() >= short) {
        remedies.retain(|remedy| remedy.frees_bytes() >= short);
    }
    let lower = lower_codecs(layout.manifest.codec).iter().map(|&codec| {
        let manifest = in_codec(&layout.manifest, codec);
        let values = footprint::expected_values(&manifest);
        let trajectory = Trajectory::new(probe, ns, &manifest, values);
        (codec, Footprint::on_server(probe, ns, &manifest, &trajectory).peak_bytes)
    });
    let fitting = lower.into_iter().find(|&(_, peak_bytes)| peak_bytes <= limit);
    remedies.extend(fitting.map(|(codec, peak_bytes)| Remedy::Codec { codec, peak_bytes }));
    if let Some(active) = active {
        for strategy in [Strategy::Rolling, Strategy::Replace] {
            if strategy == Strategy::Rolling && !layout.manifest.can_take_over(active) {
                continue;
            }
            let peak_bytes = price(ns, layout, room, strategy, Some(active), 0).peak_bytes;
            if peak_bytes <= limit {
                remedies.push(Remedy::Strategy { strategy, peak_bytes });
            }
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

fn retiring(probe: &Probe, ns: &str, listed: &Listed) -> Option<Remedy> {
    let expiry = match listed.entry.state {
        State::Previous | State::Past => Expiry::Removed,
        State::Waiting => Expiry::Set,
        _ => return None,
    };
    let frees_bytes = footprint::standing_bytes(&probe.server, ns, listed.manifest.as_ref()?, expiry);
    Some(Remedy::Retire { name: listed.entry.name.clone(), frees_bytes })
}

/// Codecs of fewer bytes, the next one first.
pub fn lower_codecs(codec: Codec) -> &'static [Codec] {
    const FALLING: [Codec; 4] = [Codec::F32, Codec::F16, Codec::Int8, Codec::Int4];
    let at = FALLING.iter().position(|&other| other == codec).unwrap_or(FALLING.len() - 1);
    &FALLING[at + 1..]
}

/// The manifest that the release would have in another codec.
fn in_codec(manifest: &Manifest, codec: Codec) -> Manifest {
    let mut other = Manifest { codec, ..manifest.clone() };
    let slot_bytes = other.slot_bytes();
    other.addressing = match manifest.addressing {
        Addressing::Dense { .. } => Addressing::Dense { slots: geometry::dense_slots(slot_bytes) },
        Addressing::Hashed { seed, .. } => {
            let mean = geometry::hashed_mean(page::HEADER_BYTES, page::FINGERPRINT_BYTES + slot_bytes);
            Addressing::Hashed { pages: (f64::from(manifest.users) / mean).ceil() as u32, seed }
        }
    };
    other
}
