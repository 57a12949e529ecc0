//! The tables of a database: buckets that point at keys, and at keys with a TTL. They double when full, both sizes
//! standing while entries move, and shrink only when nearly empty: what they cost depends on what was there before.
//!
//! Sources, by version tag: `dict.c`, `kvstore.c`, `server.c` of Redis; `hashtable.c` and `kvstore.c` of Valkey. Those
//! of clusters were also weighed: one node with all slots, 100,000 and 400,000 keys, on each of the flavors.

use super::keys::poisson;
use super::{Flavor, Server};

/// Main table or that of expiries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Keys,
    Expiries,
}

/// One table of a server, or in a cluster the tables of all its slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Table {
    role: Role,
    count: u64,
    /// The count that the buckets were last sized for.
    sized_for: u64,
    /// Bytes of old buckets that may still be there.
    leaving: f64,
    /// Bytes of the buckets, and with what hangs on them: a sum over slots in a cluster, which is asked for more often
    /// than it changes.
    array: f64,
    bytes: f64,
}

impl Table {
    /// A table of so many keys that were only ever added.
    pub fn of(server: &Server, role: Role, count: u64) -> Self {
        let mut table = Self { role, count, sized_for: count, leaving: 0.0, array: 0.0, bytes: 0.0 };
        table.array = table.array_bytes(server);
        table.bytes = table.all_bytes(server);
        table
    }

    /// Keys come. Both sizes stand until [`settle`](Self::settle).
    pub fn add(&mut self, server: &Server, keys: u64) {
        if keys == 0 {
            return;
        }
        self.count += keys;
        if self.count <= self.sized_for {
            self.bytes = self.all_bytes(server);
            return;
        }
        let old = self.array;
        self.sized_for = self.count;
        let new = self.array_bytes(server);
        (self.array, self.bytes) = (new, self.all_bytes(server));
        if new > old && old > 0.0 {
            // a table that doubles several times leaves the last half; of slots, those that did not just appear
            self.leaving = if table_slots(server).is_some() { old.min(new - old) } else { new / 2.0 };
        }
    }

    /// Keys go. Buckets shrink once they are nearly empty: under 10 % to Redis 7.2 (`HASHTABLE_MIN_FILL` 10), 12.5 %
    /// since (8), 13 % in Valkey's own tables (`MIN_FILL_PERCENT_SOFT`).
    pub fn remove(&mut self, server: &Server, keys: u64) {
        self.count = self.count.saturating_sub(keys);
        let least = match server.flavor {
            Flavor::Redis70 => 0.10,
            Flavor::Valkey81 | Flavor::Valkey91 => 0.13,
            _ => 0.125,
        };
        let slots = f64::from(table_slots(server).unwrap_or(1).max(1));
        let room = buckets(server, self.sized_for as f64 / slots) * bucket(server).keys as f64 * slots;
        if (self.count as f64) < least * room {
            self.sized_for = self.count;
            self.array = self.array_bytes(server);
        }
        self.bytes = self.all_bytes(server);
    }

    /// Entries have moved; old buckets are gone.
    pub fn settle(&mut self) {
        self.leaving = 0.0;
    }

    /// Buckets, and what hangs on them beside the keys.
    pub fn bytes(&self) -> f64 {
        self.bytes
    }

    pub fn leaving_bytes(&self) -> f64 {
        self.leaving
    }

    /// The table of a slot goes with its last key.
    fn all_bytes(&self, server: &Server) -> f64 {
        let (count, sized_for) = (self.count as f64, self.sized_for as f64);
        let table = |keys, sized_for| array_bytes(server, sized_for) + chain_bytes(server, keys, sized_for);
        let Some(slots) = table_slots(server) else {
            return table(count, sized_for);
        };
        let (each, room) = (self.slot_bytes(server) as f64, sized_for / count.max(1.0));
        over_slots(slots, self.count, |keys| each + table(keys, keys * room))
    }

    /// Buckets alone.
    fn array_bytes(&self, server: &Server) -> f64 {
        match table_slots(server) {
            None => array_bytes(server, self.sized_for as f64),
            Some(slots) => over_slots(slots, self.sized_for, |keys| array_bytes(server, keys)),
        }
    }

    /// The struct of one slot's table. From Redis 8.0 the main one has a histogram of key sizes, 2,400 bytes
    /// (`kvstoreDictMetadata.keysizes_hist`).
    fn slot_bytes(&self, server: &Server) -> usize {
        let bytes = match (server.flavor, self.role) {
            (Flavor::Redis80 | Flavor::Redis82 | Flavor::Redis86, Role::Keys) => 64 + 2_400,
            (Flavor::Redis70 | Flavor::Redis74 | Flavor::Redis80 | Flavor::Redis82 | Flavor::Redis86, _) => 64,
            (Flavor::Valkey80 | Flavor::Valkey81, _) => 80,
            (Flavor::Valkey91, _) => 96,
        };
        server.size_class(bytes)
    }
}

/// Slots that have a table of their own: from Redis 7.4 and Valkey 8.0.
fn table_slots(server: &Server) -> Option<u32> {
    server.cluster_slots.filter(|_| server.flavor != Flavor::Redis70)
}

/// What a table is made of.
struct Bucket {
    bytes: usize,
    keys: u64,
}

fn bucket(server: &Server) -> Bucket {
    match server.flavor {
        // seven keys and a byte of the hash of each, in a cache line
        Flavor::Valkey81 | Flavor::Valkey91 => Bucket { bytes: 64, keys: 7 },
        _ => Bucket { bytes: 8, keys: 1 },
    }
}

/// Buckets for so many keys that were only ever added: a power of two, of Redis at least four. From Redis 7.4 and Valkey
/// 8.0 the clock doubles a table that is just full, too (`kvstoreTryResizeDicts`).
fn buckets(server: &Server, keys: f64) -> f64 {
    let keys = keys.ceil() as u64;
    let keys = if server.flavor == Flavor::Redis70 { keys } else { keys + 1 };
    let Bucket { keys: each, .. } = bucket(server);
    let least = if each == 1 { 4 } else { 1 };
    keys.div_ceil(each).next_power_of_two().max(least) as f64
}

/// The sum over slots that keys fall evenly on; of a slot without a key there is nothing.
fn over_slots(slots: u32, keys: u64, bytes: impl Fn(f64) -> f64) -> f64 {
    let mean = keys as f64 / f64::from(slots.max(1));
    let slot = |(keys, p): (usize, f64)| if keys == 0 { 0.0 } else { p * bytes(keys as f64) };
    f64::from(slots) * poisson(mean).map(slot).sum::<f64>()
}

/// The buckets of one table; without ever a key it has none.
fn array_bytes(server: &Server, sized_for: f64) -> f64 {
    if sized_for <= 0.0 {
        return 0.0;
    }
    server.size_class(bucket(server).bytes * buckets(server, sized_for) as usize) as f64
}

/// What hangs on the buckets of one table of `keys` keys.
fn chain_bytes(server: &Server, keys: f64, sized_for: f64) -> f64 {
    if keys <= 0.0 {
        return 0.0;
    }
    let buckets = buckets(server, sized_for);
    match server.flavor {
        // points at the key itself, and needs 16 bytes more for each further key of a bucket (`dictEntryNoValue`)
        Flavor::Redis82 | Flavor::Redis86 => {
            let filled = buckets * (1.0 - (1.0 - 1.0 / buckets).powf(keys));
            server.size_class(16) as f64 * (keys - filled).max(0.0)
        }
        Flavor::Valkey81 | Flavor::Valkey91 => server.size_class(64) as f64 * child_buckets(keys, buckets),
        _ => 0.0,
    }
}

/// Valkey hangs a bucket of six more keys on one of seven that is full: how many there are, with `keys` keys falling
/// evenly on the buckets.
fn child_buckets(keys: f64, buckets: f64) -> f64 {
    if buckets <= 1.0 {
        return ((keys - 7.0) / 6.0).ceil().max(0.0);
    }
    // the binomial distribution of one bucket's keys, from none upwards; past its mean the rest is soon nothing
    let odds = 1.0 / (buckets - 1.0);
    let (mut p, mut expected) = ((1.0 - 1.0 / buckets).powf(keys), 0.0);
    let mean = keys / buckets;
    for n in 0..=keys.min(200.0) as usize {
        if n > 7 && n as f64 > mean && p < 1e-20 {
            break;
        }
        expected += p * n.saturating_sub(7).div_ceil(6) as f64;
        p *= (keys - n as f64).max(0.0) / (n + 1) as f64 * odds;
    }
    buckets * expected
}
