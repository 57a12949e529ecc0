//! Bytes by key: the one door to whatever keeps the users' side.
//!
//! [`Kv`] has three homes, a Redis server ([`RedisKv`]), a cluster of them ([`ClusterKv`]) and a file of our own
//! ([`EmbeddedKv`]), and everything above it is written once. It uses core Redis commands only (no Lua, no modules, no
//! `KEYS`), so that it runs on managed servers.
//!
//! The one thing to know: a method takes many keys because a round trip costs more than the work. One call is one trip
//! for reads, in a cluster one to each master at the same time; a write call that is larger than the in-flight bound is
//! split, and is then **not** atomic: after an error any part of it may have been written.

mod cluster;
mod command;
mod embedded;
mod error;
mod home;
pub mod memory;
mod node;
mod probe;
mod redis;

use std::future::Future;
use std::time::Duration;

pub use cluster::slots::{SLOTS, SlotRange, slot_of};
pub use cluster::{ClusterKv, ProbedShard, Shard};
pub use embedded::EmbeddedKv;
pub use error::KvError;
pub use home::AnyKv;
pub use probe::{Persistence, Probe, probe};
pub use redis::{RedisKv, RedisOptions};

/// A part of one value: bytes `start..end`, in bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The key.
    pub key: Vec<u8>,
    /// First byte.
    pub start: u32,
    /// One past the last byte. Bytes past the end of the value are simply not returned.
    pub end: u32,
}

/// What a home says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvStats {
    /// Server or library version, as it names itself.
    pub version: String,
    /// Redis: `used_memory`. Embedded: the length of the file.
    pub used_bytes: u64,
    /// Redis: the part of them that is buffers of clients, which come and go, and of replication, which fill up as keys
    /// are written (`mem_clients_normal`, `mem_clients_slaves`, `mem_replication_backlog`).
    pub buffer_bytes: u64,
    /// Redis: the part of them that does not count towards the limit (`mem_not_counted_for_evict`): what replicas that lag
    /// have still to be sent, beyond the backlog, and what waits for the append-only file.
    pub uncounted_bytes: u64,
    /// Redis: `maxmemory`; `None` when unlimited, and for a file.
    pub limit_bytes: Option<u64>,
    /// Redis: `maxmemory_policy`. `None` for a file, which never evicts.
    pub eviction: Option<String>,
    /// Redis: processor time that the thread which runs commands has taken so far, where the server tells (6.2 and
    /// later). `None` for a file: the work is the caller's own.
    pub cpu: Option<Duration>,
    /// Cluster: each master that serves slots, by its address. Otherwise empty.
    pub shards: Vec<(String, KvStats)>,
}

impl KvStats {
    /// Of that shard, if it is one; of everything for `None`.
    pub fn of(&self, shard: Option<&str>) -> Option<&Self> {
        let Some(home) = shard else { return Some(self) };
        self.shards.iter().find(|(other, _)| other == home).map(|(_, stats)| stats)
    }
}

/// Bytes by key. Methods take `&self` and may be called concurrently; answers come in the order of the keys.
pub trait Kv: Send + Sync {
    /// The values of `keys`, `None` where there is none.
    fn get_many(&self, keys: &[Vec<u8>]) -> impl Future<Output = Result<Vec<Option<Vec<u8>>>, KvError>> + Send;

    /// Parts of values, each with an outcome of its own: a server of a cluster that is lost, or a key of another type,
    /// takes nothing from the others. A missing key and a range past the end both give no bytes: a caller that must tell
    /// them apart has to know the value's length.
    fn get_ranges(&self, ranges: &[KeyRange]) -> impl Future<Output = Vec<Result<Vec<u8>, KvError>>> + Send;

    /// Writes every entry; with `ttl`, each expires that long after its own write. Without it, an older TTL is removed.
    /// Every reply is checked. The TTL is rounded down to a millisecond, and up to one.
    fn set_many(
        &self,
        entries: Vec<(Vec<u8>, Vec<u8>)>,
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<(), KvError>> + Send;

    /// As [`set_many`](Self::set_many), each entry with a TTL of its own.
    fn set_expiring(
        &self,
        entries: Vec<(Vec<u8>, Vec<u8>, Duration)>,
    ) -> impl Future<Output = Result<(), KvError>> + Send;

    /// Removes keys; says how many were there.
    fn delete_many(&self, keys: &[Vec<u8>]) -> impl Future<Output = Result<u64, KvError>> + Send;

    /// Takes the TTL off keys, for good; says how many are there. Fewer than `keys.len()` means that some are gone.
    fn persist_many(&self, keys: &[Vec<u8>]) -> impl Future<Output = Result<u64, KvError>> + Send;

    /// Writes `new` if the value is `expected` at that moment (`None`: if there is no value); says whether it did.
    /// Of concurrent calls that expect the same value exactly one succeeds.
    fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> impl Future<Output = Result<bool, KvError>> + Send;

    /// Removes the key if its value is `expected` at that moment; says whether it did. Never tried again where it may have
    /// been done, as [`delete_many`](Self::delete_many) is, so it cannot remove what came after.
    fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> impl Future<Output = Result<bool, KvError>> + Send;

    /// Bytes used, the limit, the version.
    fn stats(&self) -> impl Future<Output = Result<KvStats, KvError>> + Send;
}

/// A TTL in milliseconds; at least one, because 0 would mean "already expired" here and "invalid" to Redis.
fn ttl_ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 2).max(1)
}
