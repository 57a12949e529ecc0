//! Who may write pages: one publisher a namespace, so that no two count on the same free memory.
//!
//! A key with a TTL that its holder renews. A publisher that died is over when the TTL is; one that was merely slow
//! finds that it lost the lease, and stops.

use std::time::{Duration, Instant};
use std::{process, time::SystemTime};

use super::{StoreError, keys, release};
use crate::kv::Kv;

/// Longer than a server may stand still before a bulk write is given up, and short enough to wait for.
const LONGEST: Duration = Duration::from_secs(15);

/// The right to write pages in a namespace.
pub(super) struct Lease<'k, K> {
    kv: &'k K,
    key: Vec<u8>,
    value: Vec<u8>,
    ttl: Duration,
    renewed: Instant,
}

impl<'k, K: Kv> Lease<'k, K> {
    /// Takes it, or says who has it. `grace` is how long what is written may last: the lease is an eighth of it, so that
    /// leavings never outlive their writer's lease by accident of a short grace, and at most 15 s.
    pub(super) async fn take(kv: &'k K, ns: &str, name: &str, grace: Duration) -> Result<Self, StoreError> {
        let ttl = (grace / 8).clamp(Duration::from_millis(1), LONGEST);
        let key = keys::lease(ns);
        // unique among publishers: process and moment
        let moment = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let value = format!("{name} {}-{moment:x}", process::id()).into_bytes();
        if kv.compare_and_set(&key, None, &value, Some(ttl)).await? {
            return Ok(Self { kv, key, value, ttl, renewed: Instant::now() });
        }
        let other = holder(kv, ns).await?.unwrap_or_else(|| "one that has just ended".to_owned());
        Err(StoreError::Busy { ns: ns.to_owned(), other, lease_s: ttl.as_secs_f64() })
    }

    /// How long it lasts without being renewed.
    pub(super) fn seconds(&self) -> f64 {
        self.ttl.as_secs_f64()
    }

    /// Renews it when a quarter of it is over. Fails when it was lost.
    pub(super) async fn renew(&mut self) -> Result<(), StoreError> {
        if self.renewed.elapsed() < self.ttl / 4 {
            return Ok(());
        }
        let now = Instant::now();
        if !self.kv.compare_and_set(&self.key, Some(&self.value), &self.value, Some(self.ttl)).await? {
            return Err(StoreError::LeaseLost { lease_s: self.seconds() });
        }
        self.renewed = now;
        Ok(())
    }

    /// Whether it is this publisher's still, for all that is known.
    pub(super) async fn is_held(&self) -> bool {
        release::get(self.kv, self.key.clone()).await.is_ok_and(|value| value.as_ref() == Some(&self.value))
    }

    /// Gives it back, if it is still this publisher's. What fails here expires.
    pub(super) async fn give_back(self) {
        let _ = self.kv.delete_if_equal(&self.key, &self.value).await;
    }
}

/// The name of the release that is being published.
pub(super) async fn holder<K: Kv>(kv: &K, ns: &str) -> Result<Option<String>, StoreError> {
    Ok(release::get(kv, keys::lease(ns)).await?.map(|value| name_in(&value)))
}

pub(super) fn name_in(value: &[u8]) -> String {
    String::from_utf8_lossy(value).split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::EmbeddedKv;

    #[tokio::test]
    async fn only_ones_own_lease_is_given_back() {
        let folder = tempfile::TempDir::new().unwrap();
        let kv = EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap();
        let take = |name: &'static str| Lease::take(&kv, "t", name, Duration::from_hours(1));
        let slow = take("slow").await.unwrap();
        assert!(matches!(take("other").await, Err(StoreError::Busy { .. })));
        // its time ran out, and another took over
        kv.delete_many(&[keys::lease("t")]).await.unwrap();
        assert!(!slow.is_held().await);
        let other = take("other").await.unwrap();
        assert!(other.is_held().await && !slow.is_held().await);
        slow.give_back().await;
        assert_eq!(holder(&kv, "t").await.unwrap().as_deref(), Some("other"));
        other.give_back().await;
        assert_eq!(holder(&kv, "t").await.unwrap(), None);
    }
}
