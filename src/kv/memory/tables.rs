//! The tables of a database: buckets that point at keys, and at keys with a TTL. They double when full, both sizes
//! standing while entries move, and shrink only when nearly empty: what they cost depends on what was there before.

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
    /// Bytes of the old buckets, if they may still be there.
    leaving: f64,
}

impl Table {
    pub fn of(role: Role, count: u64) -> Self {
        Self { role, count, sized_for: count, leaving: 0.0 }
    }

    /// Keys come. Both sizes stand until [`settle`](Self::settle).
    pub fn add(&mut self, server: &Server, keys: u64) {
        self.count += keys;
        if self.count <= self.sized_for {
            return;
        }
        let before = self.buckets(server);
        let from = self.sized_for;
        self.sized_for = self.count;
        let after = self.buckets(server);
        if after > before && from > 0 {
            // of several doublings only the last one's old buckets are left
            self.leaving = if server.cluster_slots.is_some() { before } else { after / 2.0 };
        }
    }

    /// Keys go. Buckets shrink once the fill is below the server's threshold.
    pub fn remove(&mut self, server: &Server, keys: u64) {
        self.count = self.count.saturating_sub(keys);
        // HASHTABLE_MIN_FILL: 10 % to Redis 7.2, an eighth since; MIN_FILL_PERCENT_SOFT of Valkey's hashtable.c: 13 %
        let threshold = match server.flavor {
            Flavor::Redis70 => 0.10,
            Flavor::Valkey81 | Flavor::Valkey91 => 0.13,
            _ => 0.125,
        };
        let full = self.capacity(server);
        if (self.count as f64) < threshold * full {
            self.sized_for = self.count;
        }
    }

    /// Entries have moved; the old buckets are gone.
    pub fn settle(&mut self) {
        self.leaving = 0.0;
    }

    pub fn leaving_bytes(&self) -> f64 {
        self.leaving
    }

    /// Buckets, and what hangs on them beside the keys.
    pub fn bytes(&self, server: &Server) -> f64 {
        self.buckets(server) + self.chains(server)
    }

    /// Keys that the buckets are made for, all slots together.
    fn capacity(&self, server: &Server) -> f64 {
        let slots = f64::from(per_slot(server).unwrap_or(1).max(1));
        let each = (self.sized_for as f64 / slots).ceil() as u64;
        let per_bucket = if sevens(server) { 7.0 } else { 1.0 };
        slots * buckets_for(server, each) as f64 * per_bucket
    }

    fn buckets(&self, server: &Server) -> f64 {
        let bytes = if sevens(server) { 64 } else { 8 };
        let array = |keys: usize| match keys {
            0 => 0.0,
            keys => server.size_class(bytes * buckets_for(server, keys as u64) as usize) as f64,
        };
        match per_slot(server) {
            None => array(self.sized_for as usize),
            Some(slots) => {
                let each = self.slot_struct(server) as f64;
                let slot = |(keys, p): (usize, f64)| if keys == 0 { 0.0 } else { p * (each + array(keys)) };
                f64::from(slots) * poisson(self.sized_for as f64 / f64::from(slots.max(1))).map(slot).sum::<f64>()
            }
        }
    }

    /// The struct of one slot's table (`kvstore.c`). Redis 8.2 keeps in the main one a histogram of key sizes, 2,400
    /// bytes (`kvstoreDictMetadata.keysizes_hist`).
    fn slot_struct(&self, server: &Server) -> usize {
        let bytes = match (server.flavor, self.role) {
            (Flavor::Redis80 | Flavor::Redis82 | Flavor::Redis86, Role::Keys) => 64 + 2_400,
            _ => 64,
        };
        server.size_class(bytes)
    }

    /// Redis 8.2 points at a key right from its bucket, and needs 16 bytes for each further one of the same bucket
    /// (`dictEntryNoValue`); Valkey 8.1 hangs a bucket of six more on one of seven that is full.
    fn chains(&self, server: &Server) -> f64 {
        let slots = per_slot(server).map_or(1.0, |slots| f64::from(slots.max(1)));
        let buckets = self.capacity(server) / if sevens(server) { 7.0 } else { 1.0 };
        if self.count == 0 || buckets <= 0.0 {
            return 0.0;
        }
        let load = self.count as f64 / buckets;
        match server.flavor {
            Flavor::Redis82 | Flavor::Redis86 => {
                let used = buckets * (1.0 - (-load).exp());
                server.size_class(16) as f64 * (self.count as f64 - used).max(0.0)
            }
            Flavor::Valkey81 | Flavor::Valkey91 if slots <= 1.0 => {
                let more = |(n, p): (usize, f64)| p * n.saturating_sub(7).div_ceil(6) as f64;
                server.size_class(64) as f64 * buckets * poisson(load).map(more).sum::<f64>()
            }
            _ => 0.0,
        }
    }
}

/// Slots with a table of their own.
fn per_slot(server: &Server) -> Option<u32> {
    server.cluster_slots.filter(|_| server.flavor != Flavor::Redis70)
}

fn sevens(server: &Server) -> bool {
    matches!(server.flavor, Flavor::Valkey81 | Flavor::Valkey91)
}

/// Buckets for so many keys that were only ever added: `dict.c:_dictExpandIfNeeded`, `hashtable.c:resize`.
fn buckets_for(server: &Server, keys: u64) -> u64 {
    if sevens(server) { keys.div_ceil(7).next_power_of_two() } else { keys.next_power_of_two().max(4) }
}
