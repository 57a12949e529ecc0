//! Whether a release fits: asked before the first write, and again with every batch.
//!
//! Before: the predicted peak against the smaller of the server's `maxmemory` and the caller's budget. Meanwhile: what
//! the server uses against what was predicted for that many pages, so that a model that is wrong, a limit that was
//! lowered, or another writer stops the load while there is still room, and not at the first refused write.
//!
//! In a cluster all of that is asked of each shard, by the pages that will fall to it: the one with least room decides.

use std::collections::BTreeSet;
use std::time::Duration;

use super::footprint::{Footprint, Trajectory};
use super::spread::On;
use super::{Growth, StoreError};
use crate::kv::{AnyKv, Kv, KvError, KvStats, Probe, ProbedShard};

/// Beyond this share of the expected total the prediction does not describe what happens.
const DRIFT: f64 = 0.02;
/// Buffers and small writes of others on a server that is nearly empty are no drift.
const NOISE_BYTES: f64 = (1 << 20) as f64;
/// A server looks at the buffers of each client once a second: what it says of them is as old as that.
const BUFFERS_ARE_KNOWN_AFTER: Duration = Duration::from_millis(1_100);

/// The room that a release may use.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// What is known of the server; without it, or of a cluster its shards, nothing is predicted exactly, as for a file.
    pub probe: Option<Probe>,
    /// What is known of each shard of a cluster.
    pub shards: Vec<ProbedShard>,
    /// The most that the server may use in all, in a cluster each of them, or the file be long, in bytes. The server's
    /// own limit counts too, if it is smaller.
    pub budget_bytes: Option<u64>,
}

impl Room {
    /// What can be learned of a home.
    pub async fn of(kv: &AnyKv, budget_bytes: Option<u64>) -> Result<Self, KvError> {
        Ok(Self { probe: kv.probe().await?, shards: kv.probe_shards().await?, budget_bytes })
    }

    /// The smaller limit of the two, of the server by itself or of that shard.
    pub fn limit_bytes(&self, shard: Option<&str>) -> Option<u64> {
        let own = self.servers().find(|on| on.shard == shard).and_then(|on| on.probe.limit_bytes);
        own.into_iter().chain(self.budget_bytes).min()
    }

    /// What could not be learned of the servers, with what is assumed instead.
    pub fn unknown(&self) -> BTreeSet<&str> {
        self.servers().flat_map(|on| &on.probe.unknown).map(String::as_str).collect()
    }

    /// The server, or every shard. None for a file.
    pub(super) fn servers(&self) -> impl Iterator<Item = On<'_>> {
        self.probe.iter().map(On::alone).chain(self.shards.iter().map(On::shard))
    }

    /// What is missing for a footprint.
    pub(super) fn short_bytes(&self, footprint: &Footprint) -> u64 {
        let limit = self.limit_bytes(footprint.shard.as_deref());
        limit.map_or(0, |limit| footprint.peak_bytes.saturating_sub(limit))
    }

    /// Where the server with least room is among these; if nothing is limited, the fullest one.
    pub(super) fn tightest(&self, footprints: &[Footprint]) -> usize {
        let left = |footprint: &Footprint| {
            let limit = self.limit_bytes(footprint.shard.as_deref()).unwrap_or(u64::MAX);
            i128::from(limit) - i128::from(footprint.peak_bytes)
        };
        (0..footprints.len()).min_by_key(|&at| left(&footprints[at])).unwrap_or(0)
    }

    /// Refuses footprints of which one is larger.
    pub(super) fn check(&self, name: &str, footprints: &[Footprint]) -> Result<(), StoreError> {
        let footprint = &footprints[self.tightest(footprints)];
        let short_bytes = self.short_bytes(footprint);
        if short_bytes == 0 {
            return Ok(());
        }
        Err(StoreError::TooLarge {
            name: name.to_owned(),
            shard: footprint.shard.clone(),
            limit_bytes: footprint.peak_bytes - short_bytes,
            peak_bytes: footprint.peak_bytes,
            short_bytes,
            remedies: Vec::new(),
        })
    }
}

/// Watches a load. The default watches nothing.
#[derive(Default)]
pub(super) struct Watch {
    budget_bytes: Option<u64>,
    servers: Vec<Watched>,
}

/// One server that is watched.
struct Watched {
    shard: Option<String>,
    trajectory: Trajectory,
    start: KvStats,
    /// By how much it will have grown.
    grown_bytes: f64,
}

impl Watch {
    /// Of what is to come to each server.
    pub(super) async fn begin<K: Kv>(
        kv: &K,
        room: &Room,
        expected: impl Fn(On<'_>) -> Trajectory + Sync,
    ) -> Result<Self, StoreError> {
        let stats = kv.stats().await?;
        let watched = |on: On<'_>| {
            let trajectory = expected(on);
            let grown_bytes = trajectory.growth_and_peak().0;
            let start = stats.of(on.shard)?.clone();
            Some(Watched { shard: on.shard.map(str::to_owned), trajectory, start, grown_bytes })
        };
        Ok(Self { budget_bytes: room.budget_bytes, servers: room.servers().filter_map(watched).collect() })
    }

    /// Compares with what was predicted for the first `keys` keys. A shard whose master changed is not watched any more:
    /// its replica's memory was never looked at.
    pub(super) async fn check<K: Kv>(&self, kv: &K, keys: u32) -> Result<(), StoreError> {
        let Some(stats) = self.look(kv).await? else { return Ok(()) };
        let now = |server: &'_ Watched| {
            stats.of(server.shard.as_deref()).map(|now| server.check(now, self.budget_bytes, keys))
        };
        self.servers.iter().filter_map(now).collect()
    }

    /// By how much the servers were to grow, and did, buffers apart. For more than noise it waits until the servers know
    /// what the load has left in their buffers.
    pub(super) async fn growth<K: Kv>(&self, kv: &K) -> Result<Option<Growth>, StoreError> {
        if self.servers.iter().any(|server| server.grown_bytes > NOISE_BYTES) {
            tokio::time::sleep(BUFFERS_ARE_KNOWN_AFTER).await;
        }
        let Some(stats) = self.look(kv).await? else { return Ok(None) };
        let mut growth = Growth { predicted_bytes: 0, actual_bytes: 0 };
        for server in &self.servers {
            let Some(now) = stats.of(server.shard.as_deref()) else { return Ok(None) };
            growth.predicted_bytes += server.grown_bytes.round() as u64;
            growth.actual_bytes += server.without_buffers(now).saturating_sub(server.start.used_bytes);
        }
        Ok(Some(growth))
    }

    /// `None` where there is nothing to see: no server is watched, or a cluster has lost a master, and then the load waits
    /// for its replica.
    async fn look<K: Kv>(&self, kv: &K) -> Result<Option<KvStats>, StoreError> {
        let of_cluster = self.servers.iter().any(|server| server.shard.is_some());
        if self.servers.is_empty() {
            return Ok(None);
        }
        match kv.stats().await {
            Err(KvError::Unavailable { .. } | KvError::TimedOut { .. }) if of_cluster => Ok(None),
            stats => Ok(Some(stats?)),
        }
    }
}

impl Watched {
    /// What a lagging replica has still to be sent does not count towards a limit, as it does not for the server itself.
    /// Buffers of clients and of replication are no drift, nor is less memory than predicted: that is others' keys going,
    /// and if it is the release's own, it is found when they are read back.
    fn check(&self, now: &KvStats, budget_bytes: Option<u64>, keys: u32) -> Result<(), StoreError> {
        let (settled, growing) = self.trajectory.after(keys);
        let limit = now.limit_bytes.into_iter().chain(budget_bytes).min();
        let counted_bytes = now.used_bytes.saturating_sub(now.uncounted_bytes);
        let projected = counted_bytes as f64 + (self.grown_bytes - settled).max(0.0);
        let shard = self.shard.clone();
        if let Some(limit_bytes) = limit.filter(|&limit| projected > limit as f64) {
            return Err(StoreError::NoRoomLeft { shard, limit_bytes, projected_bytes: projected as u64 });
        }
        let start_bytes = self.start.used_bytes as f64;
        let allowed = (DRIFT * (start_bytes + self.grown_bytes)).max(NOISE_BYTES);
        let (expected, got) = (start_bytes + growing, self.without_buffers(now) as f64);
        if got - expected > allowed {
            return Err(StoreError::Drift {
                shard,
                expected_bytes: expected as u64,
                got_bytes: got as u64,
                allowed_bytes: allowed as u64,
            });
        }
        Ok(())
    }

    /// What is used now but for what buffers have grown by.
    fn without_buffers(&self, now: &KvStats) -> u64 {
        now.used_bytes.saturating_sub(now.buffer_bytes.saturating_sub(self.start.buffer_bytes))
    }
}
