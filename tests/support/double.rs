//! A store with something in between: for faults and orders of events that a real one cannot be brought to.

use std::future::{Future, ready};
use std::time::Duration;

use tonnage::kv::{KeyRange, Kv, KvError, KvStats};

/// What happens to reads.
pub trait Between: Clone + Send + Sync {
    /// Before a read is made; an error is its answer.
    fn before(&self) -> impl Future<Output = Result<(), KvError>> + Send {
        ready(Ok(()))
    }

    /// When a read of ranges is answered, and before the reader has it.
    fn after(&self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}

/// A store, and what is in between.
#[derive(Clone)]
pub struct Double<K, B> {
    pub kv: K,
    pub between: B,
}

impl<K: Kv, B: Between> Kv for Double<K, B> {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        self.between.before().await?;
        self.kv.get_many(keys).await
    }

    async fn get_ranges(&self, ranges: &[KeyRange]) -> Vec<Result<Vec<u8>, KvError>> {
        if let Err(error) = self.between.before().await {
            return vec![Err(error); ranges.len()];
        }
        let found = self.kv.get_ranges(ranges).await;
        self.between.after().await;
        found
    }

    async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
        self.kv.set_many(entries, ttl).await
    }

    async fn set_expiring(&self, entries: Vec<(Vec<u8>, Vec<u8>, Duration)>) -> Result<(), KvError> {
        self.kv.set_expiring(entries).await
    }

    async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        self.kv.delete_many(keys).await
    }

    async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        self.kv.persist_many(keys).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        self.kv.compare_and_set(key, expected, new, ttl).await
    }

    async fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> Result<bool, KvError> {
        self.kv.delete_if_equal(key, expected).await
    }

    async fn stats(&self) -> Result<KvStats, KvError> {
        self.kv.stats().await
    }
}
