//! Whether a release fits: asked before the first write, and again with every batch.
//!
//! Before: the predicted peak against the smaller of the server's `maxmemory` and the caller's budget. Meanwhile: what
//! the server uses against what was predicted for that many pages, so that a model that is wrong, a limit that was
//! lowered, or another writer stops the load while there is still room, and not at the first refused write.

use super::footprint::{Footprint, Trajectory};
use super::layout::Layout;
use super::{Growth, StoreError};
use crate::kv::{Kv, KvStats, Probe};

/// Beyond this share of the expected total the prediction does not describe what happens.
const DRIFT: f64 = 0.02;
/// Buffers and small writes of others on a server that is nearly empty are no drift.
const NOISE_BYTES: f64 = (1 << 20) as f64;

/// The room that a release may use.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// What is known of the server; without it nothing is predicted exactly, as for a file.
    pub probe: Option<Probe>,
    /// The most that the server may use in all, or the file be long, in bytes. The server's own limit counts too, if
    /// it is smaller.
    pub budget_bytes: Option<u64>,
}

impl Room {
    /// The smaller limit of the two.
    pub fn limit_bytes(&self) -> Option<u64> {
        let own = self.probe.as_ref().and_then(|probe| probe.limit_bytes);
        own.into_iter().chain(self.budget_bytes).min()
    }

    /// Refuses a footprint that is larger.
    pub(super) fn check(&self, name: &str, footprint: &Footprint) -> Result<(), StoreError> {
        let Some(limit_bytes) = self.limit_bytes().filter(|&limit| limit < footprint.peak_bytes) else {
            return Ok(());
        };
        Err(StoreError::TooLarge {
            name: name.to_owned(),
            limit_bytes,
            peak_bytes: footprint.peak_bytes,
            short_bytes: footprint.peak_bytes - limit_bytes,
            remedies: Vec::new(),
        })
    }
}

/// Watches a load.
pub(super) struct Watch {
    trajectory: Option<Trajectory>,
    budget_bytes: Option<u64>,
    start: KvStats,
    /// By how much it will have grown.
    grown_bytes: f64,
}

impl Watch {
    /// Of new pages.
    pub(super) async fn begin<K: Kv>(
        kv: &K,
        room: &Room,
        ns: &str,
        layout: &Layout<'_, '_>,
    ) -> Result<Self, StoreError> {
        let mut watch = Self::of_nothing(kv, room).await?;
        let trajectory = room.probe.as_ref().map(|probe| Trajectory::new(probe, ns, &layout.manifest, layout.values()));
        watch.grown_bytes = trajectory.as_ref().map_or(0.0, |trajectory| trajectory.after(layout.manifest.pages()).0);
        watch.trajectory = trajectory;
        Ok(watch)
    }

    /// Of pages that take the place of others: what they grow by is in no pages' order.
    pub(super) async fn of_nothing<K: Kv>(kv: &K, room: &Room) -> Result<Self, StoreError> {
        Ok(Self { trajectory: None, budget_bytes: room.budget_bytes, start: kv.stats().await?, grown_bytes: 0.0 })
    }

    /// Compares with what was predicted for the first `pages` pages. Clients' buffers are no drift, nor is less memory
    /// than predicted: that is others' keys going, and if it is the release's own, it is found when they are read back.
    pub(super) async fn check<K: Kv>(&self, kv: &K, pages: u32) -> Result<(), StoreError> {
        let Some(trajectory) = &self.trajectory else { return Ok(()) };
        let stats = kv.stats().await?;
        let (settled, growing) = trajectory.after(pages);
        let limit = stats.limit_bytes.into_iter().chain(self.budget_bytes).min();
        let projected = stats.used_bytes as f64 + (self.grown_bytes - settled).max(0.0);
        if let Some(limit_bytes) = limit.filter(|&limit| projected > limit as f64) {
            return Err(StoreError::NoRoomLeft { limit_bytes, projected_bytes: projected as u64 });
        }
        let start_bytes = self.start.used_bytes as f64;
        let allowed = (DRIFT * (start_bytes + self.grown_bytes)).max(NOISE_BYTES);
        let buffers = stats.client_bytes.saturating_sub(self.start.client_bytes) as f64;
        let (expected, got) = (start_bytes + growing, stats.used_bytes as f64 - buffers);
        if got - expected > allowed {
            return Err(StoreError::Drift {
                expected_bytes: expected as u64,
                got_bytes: got as u64,
                allowed_bytes: allowed as u64,
            });
        }
        Ok(())
    }

    /// By how much the server was to grow, and did.
    pub(super) async fn growth<K: Kv>(&self, kv: &K) -> Result<Option<Growth>, StoreError> {
        if self.trajectory.is_none() {
            return Ok(None);
        }
        let actual_bytes = kv.stats().await?.used_bytes.saturating_sub(self.start.used_bytes);
        Ok(Some(Growth { predicted_bytes: self.grown_bytes.round() as u64, actual_bytes }))
    }
}
