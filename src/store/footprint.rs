//! What a release will cost the place that it goes to, before a key of it is written.
//!
//! On a server the memory model says it, part by part: at rest, which is active and with nobody connected, and at the
//! most on the way there, when every page carries a TTL, tables stand twice while they grow, and a batch is in flight.
//! For a file it is an estimate, and says so.
//!
//! The one thing to know: both are for a server that others leave as it is. What others write meanwhile comes on top;
//! the publisher watches that while it loads.

use serde::Serialize;

use super::geometry::Home;
use super::release::{Addressing, Manifest};
use super::spread::{Coming, On};
use super::{geometry, keys, page};
use crate::kv::memory::{Dataset, Expiry, Keys, Names, Server, Value, Values, backlog_bytes};

/// What the server holds of a pipeline of 1 MiB, or of replies as large: it reads as it goes, and the rest waits in the
/// socket. Measured on Redis 7.0: 350 kB.
const IN_FLIGHT_BYTES: u64 = 384 << 10;
/// A connection at work: 16 KiB to read, 16 KiB to write, and its struct (38.2 KB measured on Redis 7.0). The publisher
/// has two beside the one that probed, for bulk writes and for a compare-and-set.
const CLIENTS_BYTES: u64 = 2 * 38_200;
/// What a publisher takes of a server while it loads, beside the keys.
pub(crate) const PUBLISHER_BYTES: u64 = IN_FLIGHT_BYTES + CLIENTS_BYTES;
/// A page of an embedded file's tree.
const FILE_PAGE_BYTES: usize = 4 << 10;
/// The header of a file.
const FILE_HEADER_BYTES: u64 = 4 << 10;
/// What a file grows by once it is as long.
const FILE_REGION_BYTES: u64 = 4 << 30;
/// A ledger: about 300 bytes a release, and there are few.
const LEDGER_BYTES: usize = 2_000;
const LEASE_BYTES: usize = 64;

/// Bytes of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Which.
    pub part: &'static str,
    /// What stays.
    pub rest_bytes: u64,
    /// What is there at the most.
    pub peak_bytes: u64,
}

/// What a release costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// The shard of a cluster that this is about; `None` for a server or file by itself.
    pub shard: Option<String>,
    /// `used_memory`, or the file's length, before.
    pub before_bytes: u64,
    /// The same once the release is active, beside what was there before.
    pub rest_bytes: u64,
    /// The most that it will be on the way there.
    pub peak_bytes: u64,
    /// By what it grows.
    pub parts: Vec<Part>,
    /// Whether it is computed from how the server allocates (true) or estimated for a file (false).
    pub exact: bool,
}

/// Predicts `used_memory` on the way.
#[derive(Clone, Debug)]
pub(super) struct Trajectory {
    server: Server,
    start: Dataset,
    coming: Coming,
    values: Values,
    over: Option<Over>,
}

/// Pages that are written over: the first ones.
#[derive(Clone, Debug)]
struct Over {
    pages: u32,
    values: Values,
    expiry: Expiry,
}

impl Trajectory {
    /// New pages on the server as probed. In a cluster sizes are taken to be mixed alike on every shard.
    pub(super) fn new(on: On<'_>, ns: &str, manifest: &Manifest, values: Values) -> Self {
        Self::of(on, Coming::Pages(on.pages(ns, manifest)), values)
    }

    /// New keys on the server as probed.
    pub(super) fn of(on: On<'_>, coming: Coming, values: Values) -> Self {
        Self { server: on.probe.server, start: on.probe.dataset(), coming, values, over: None }
    }

    /// Pages that take the place of `old`'s as far as there are any, and further ones. Of hashed pages each grows or
    /// shrinks by its own users: what is expected is the mean.
    pub(super) fn over(on: On<'_>, ns: &str, manifest: &Manifest, values: Values, old: &Manifest) -> Self {
        // one that was rolled in itself was written without a TTL
        let expiry = if old.keys.is_some() { Expiry::None } else { Expiry::Removed };
        let over = Over { pages: old.pages(), values: expected_values(old), expiry };
        Self { over: Some(over), ..Self::new(on, ns, manifest, values) }
    }

    /// Growth of `used_memory` after the first `keys` keys: once tables have moved, and while they have not.
    pub(super) fn after(&self, keys: u32) -> (f64, f64) {
        let mut dataset = self.start.clone();
        let before = dataset.rest_bytes() as f64;
        dataset.add(&self.new_keys(keys));
        let changed = self.changed(keys);
        (dataset.rest_bytes() as f64 - before + changed, dataset.peak_bytes() as f64 - before + changed)
    }

    /// Of the first `keys`, those whose names are not taken.
    fn new_keys(&self, keys: u32) -> Keys {
        match &self.over {
            None => self.keys(keys, Expiry::Set),
            Some(over) => {
                let names = self.coming.names_from(over.pages.min(keys), keys);
                Keys { names, values: self.values.clone(), expiry: Expiry::None }
            }
        }
    }

    /// By how much those of the first `keys` that are written over grow.
    fn changed(&self, keys: u32) -> f64 {
        let Some(Over { pages, values, expiry }) = &self.over else { return 0.0 };
        let names = self.coming.names((*pages).min(keys));
        let new = Keys { names: names.clone(), values: self.values.clone(), expiry: Expiry::None };
        self.server.keys_bytes(&new) - self.server.keys_bytes(&Keys { names, values: values.clone(), expiry: *expiry })
    }

    /// By how much `used_memory` will have grown, in the end and at the most.
    pub(super) fn growth_and_peak(&self) -> (f64, f64) {
        self.after(self.coming.count())
    }

    fn keys(&self, keys: u32, expiry: Expiry) -> Keys {
        Keys { names: self.coming.names(keys), values: self.values.clone(), expiry }
    }
}

impl Footprint {
    /// Of a release in pages of its own.
    pub(super) fn on_server(on: On<'_>, ns: &str, manifest: &Manifest, trajectory: &Trajectory) -> Self {
        let server = &on.probe.server;
        let mut pages = trajectory.keys(manifest.pages(), Expiry::Set);
        let loading = server.keys_bytes(&pages);
        let mut dataset = trajectory.start.clone();
        let before = dataset.rest_bytes();
        dataset.add(&pages);
        let peak = dataset.peak_bytes();
        dataset.persist(&mut pages);
        let (rest, kept) = (dataset.rest_bytes(), server.keys_bytes(&pages));
        let bare = Keys { expiry: Expiry::None, ..pages.clone() };
        let bare = server.keys_bytes(&bare);
        let grown = |bytes: u64| bytes as f64 - before as f64;
        let parts = vec![
            part("pages", bare, bare),
            part("expiry of pages", kept - bare, loading - bare),
            part("tables", grown(rest) - kept, grown(peak) - loading),
            part("manifest, ledger, lease", small(server, ns, manifest, false), small(server, ns, manifest, true)),
            replication(on),
            part("in flight", 0.0, IN_FLIGHT_BYTES as f64 * trajectory.coming.share()),
            part("connections", 0.0, CLIENTS_BYTES as f64),
            first_use(on, &["set", "get", "unlink", "persist", "exists", "watch", "multi", "exec"]),
        ];
        Self::of(on.shard, on.probe.used_bytes, parts, true)
    }

    /// Of lists, which keep their TTL.
    pub(super) fn of_lists(on: On<'_>, ns: &str, trajectory: &Trajectory) -> Self {
        let server = &on.probe.server;
        let lists = trajectory.keys(trajectory.coming.count(), Expiry::Set);
        let kept = server.keys_bytes(&lists);
        let bare = server.keys_bytes(&Keys { expiry: Expiry::None, ..lists.clone() });
        let mut dataset = trajectory.start.clone();
        let before = dataset.rest_bytes() as f64;
        dataset.add(&lists);
        let [rest, peak] = [dataset.rest_bytes(), dataset.peak_bytes()].map(|bytes| bytes as f64 - before - kept);
        let parts = vec![
            part("lists", bare, bare),
            part("expiry of lists", kept - bare, kept - bare),
            part("tables", rest, peak),
            part("lease", 0.0, lease(server, ns)),
            replication(on),
            part("in flight", 0.0, IN_FLIGHT_BYTES as f64 * trajectory.coming.share()),
            part("connections", 0.0, CLIENTS_BYTES as f64),
            first_use(on, &["set", "get", "unlink", "watch", "multi", "exec"]),
        ];
        Self::of(on.shard, on.probe.used_bytes, parts, true)
    }

    /// Of a release that takes over the pages of another, one after another.
    pub(super) fn rolling(on: On<'_>, ns: &str, manifest: &Manifest, old: &Manifest, trajectory: &Trajectory) -> Self {
        let server = &on.probe.server;
        let (rest, peak) = trajectory.growth_and_peak();
        let grown = server.keys_bytes(&trajectory.new_keys(manifest.pages())) + trajectory.changed(manifest.pages());
        // pages that are left over go
        let left = on.pages(ns, old).names_from(manifest.pages().min(old.pages()), old.pages());
        let freed = server.keys_bytes(&Keys { names: left, values: expected_values(old), expiry: Expiry::Removed });
        let parts = vec![
            part("pages", grown - freed, grown),
            // each page stands twice for the moment in which it is written over
            part("page being written over", 0.0, Home::Server(*server).page_cost(geometry::MAX_PAGE_BYTES) as f64),
            part("tables", rest - grown, peak - grown),
            part("manifest, ledger, lease", small(server, ns, manifest, false), small(server, ns, manifest, true)),
            replication(on),
            part("in flight", 0.0, IN_FLIGHT_BYTES as f64 * trajectory.coming.share()),
            part("connections", 0.0, CLIENTS_BYTES as f64),
            first_use(on, &["set", "get", "unlink", "watch", "multi", "exec"]),
        ];
        Self::of(on.shard, on.probe.used_bytes, parts, true)
    }

    /// In an embedded file of `length` bytes that has these `others` in it. What else is in it does not show from
    /// outside, and is taken to be nothing.
    pub(super) fn in_file(length: u64, manifest: &Manifest, values: &Values, others: &[Manifest]) -> Self {
        Self::added_to_file(length, others, "pages", file_bytes(manifest, values))
    }

    /// Of so many values of a length in such a file, written in no order, at the most. Small ones share pages that are two
    /// thirds full, and a batch writes nearly all of those anew before the old ones are free.
    pub(super) fn of_values_in_file(
        length: u64,
        others: &[Manifest],
        part: &'static str,
        value_bytes: usize,
        count: u32,
    ) -> Self {
        let with_key = value_bytes + 64;
        let each = if with_key > FILE_PAGE_BYTES / 4 {
            with_key.next_power_of_two().max(FILE_PAGE_BYTES)
        } else {
            3 * with_key
        };
        Self::added_to_file(length, others, part, each as f64 * f64::from(count))
    }

    /// A file doubles whenever it is full.
    fn added_to_file(length: u64, others: &[Manifest], name: &'static str, bytes: f64) -> Self {
        let standing: f64 = others.iter().map(|other| file_bytes(other, &expected_values(other))).sum();
        let mut grown = length.max(FILE_HEADER_BYTES);
        while ((grown - FILE_HEADER_BYTES) as f64) < standing + bytes {
            grown += (grown - FILE_HEADER_BYTES).clamp(64 << 10, FILE_REGION_BYTES);
        }
        let part = |part, bytes| Part { part, rest_bytes: bytes, peak_bytes: bytes };
        // what goes where something was makes nothing longer
        let more = grown.saturating_sub(length);
        let own = (bytes.round() as u64).min(more);
        Self::of(None, length, vec![part(name, own), part("grown ahead", more - own)], false)
    }

    /// The same on a server that uses more, or less, by now.
    pub(super) fn on_top_of(&self, before_bytes: u64) -> Self {
        Self::of(self.shard.as_deref(), before_bytes, self.parts.clone(), self.exact)
    }

    fn of(shard: Option<&str>, before_bytes: u64, parts: Vec<Part>, exact: bool) -> Self {
        let shard = shard.map(str::to_owned);
        let rest: u64 = parts.iter().map(|part| part.rest_bytes).sum();
        let peak: u64 = parts.iter().map(|part| part.peak_bytes).sum();
        Self { shard, before_bytes, rest_bytes: before_bytes + rest, peak_bytes: before_bytes + peak, parts, exact }
    }
}

/// What a release's pages take of an embedded file.
fn file_bytes(manifest: &Manifest, values: &Values) -> f64 {
    Home::File.expected_cost(values) * f64::from(manifest.pages())
}

/// What a release that is there costs a server at rest, without the tables.
pub(super) fn standing_bytes(on: On<'_>, ns: &str, manifest: &Manifest, expiry: Expiry) -> u64 {
    let server = &on.probe.server;
    let pages = Keys { names: on.pages(ns, manifest).all_names(), values: expected_values(manifest), expiry };
    (server.keys_bytes(&pages) + small(server, ns, manifest, false)).round() as u64
}

/// The sizes of a release's pages as its manifest tells them: exact for a dense one, expected for a hashed one.
pub(super) fn expected_values(manifest: &Manifest) -> Values {
    let slot = manifest.slot_bytes();
    match manifest.addressing {
        Addressing::Dense { slots } => {
            let (full, last) = (manifest.users / slots, manifest.users % slots);
            let page = |users: u32, count: u32| (Value::String(users as usize * slot), f64::from(count));
            Values::mixed([page(slots, full), page(last, u32::from(last > 0))])
        }
        Addressing::Hashed { pages, .. } => {
            let mean = f64::from(manifest.users) / f64::from(pages);
            Values::poisson(page::HEADER_BYTES, page::FINGERPRINT_BYTES + slot, mean)
        }
    }
}

fn part(part: &'static str, rest: f64, peak: f64) -> Part {
    Part { part, rest_bytes: rest.max(0.0).round() as u64, peak_bytes: peak.max(0.0).round() as u64 }
}

/// What replication keeps for replicas that lag: where there is one it fills up, and stays full.
fn replication(on: On<'_>) -> Part {
    let probe = on.probe;
    let bytes = backlog_bytes(probe.backlog_bytes, probe.backlog_used_bytes, probe.replicas);
    Part { part: "replication backlog", rest_bytes: bytes, peak_bytes: bytes }
}

/// The few keys beside the pages. In a cluster each is on one shard, and counted on all.
fn small(server: &Server, ns: &str, manifest: &Manifest, peak: bool) -> f64 {
    let value = manifest.encode().map_or(512, |value| value.len());
    let waiting = if peak { Expiry::Set } else { Expiry::Removed };
    let manifest = one(server, &keys::manifest(ns, &manifest.name), value, waiting);
    let ledger = one(server, &keys::pointer(ns), LEDGER_BYTES, Expiry::None);
    manifest + ledger + if peak { lease(server, ns) } else { 0.0 }
}

fn lease(server: &Server, ns: &str) -> f64 {
    one(server, &keys::lease(ns), LEASE_BYTES, Expiry::Set)
}

fn one(server: &Server, key: &[u8], bytes: usize, expiry: Expiry) -> f64 {
    server.keys_bytes(&Keys::strings(Names::same(key.len(), 1), bytes, expiry))
}

/// What the first call of each of these commands allocates for good.
fn first_use(on: On<'_>, commands: &[&str]) -> Part {
    let bytes = on.probe.first_use_bytes(commands);
    Part { part: "first use of commands", rest_bytes: bytes, peak_bytes: bytes }
}
