//! A store that is never waited for long: every call has a timeout, reads have one second try, and a breaker stands
//! before all of it.
//!
//! The one thing to know: it is a [`Kv`] like the one inside it. Whoever reads through it sees a store that fails fast,
//! and needs to know nothing else.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::breaker::Breaker;
use super::metrics::{Call, Metrics};
use crate::kv::{KeyRange, Kv, KvError, KvStats};

/// Any home, guarded. Cheap to clone when the home is; clones share the breaker.
#[derive(Clone, Debug)]
pub struct Guarded<K> {
    kv: K,
    address: String,
    timeout: Duration,
    breaker: Arc<Breaker>,
    metrics: Arc<Metrics>,
}

impl<K: Kv> Guarded<K> {
    /// Puts a guard before a home. `address` is for messages, and has no password in it.
    pub fn new(kv: K, address: String, timeout: Duration, breaker: Arc<Breaker>, metrics: Arc<Metrics>) -> Self {
        Self { kv, address, timeout, breaker, metrics }
    }

    /// A call that may be made twice: a connection that the server has closed is noticed by the first.
    async fn read<T, F: Future<Output = Result<T, KvError>>>(&self, call: impl Fn() -> F) -> Result<T, KvError> {
        let twice = async {
            match call().await {
                Err(KvError::Unavailable { .. }) => call().await,
                answered => answered,
            }
        };
        self.guard(Call::Read, twice).await
    }

    async fn guard<T>(&self, call: Call, work: impl Future<Output = Result<T, KvError>>) -> Result<T, KvError> {
        if !self.breaker.lets() {
            self.metrics.store_refused(call);
            let detail = "it has not answered lately and is left alone for a moment".to_owned();
            return Err(KvError::Unavailable { home: self.address.clone(), detail });
        }
        let began = Instant::now();
        let timed_out = |_| {
            let limit_ms = self.timeout.as_millis() as u64;
            Err(KvError::TimedOut { home: self.address.clone(), limit_ms })
        };
        let outcome = tokio::time::timeout(self.timeout, work).await.unwrap_or_else(timed_out);
        let error = outcome.as_ref().err();
        self.metrics.store_called(call, began.elapsed(), error);
        match error {
            // a server that refuses is there
            None | Some(KvError::OutOfMemory { .. } | KvError::Refused { .. }) => self.breaker.succeeded(),
            Some(_) => self.breaker.failed(),
        }
        outcome
    }
}

impl<K: Kv> Kv for Guarded<K> {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        self.read(|| self.kv.get_many(keys)).await
    }

    async fn get_ranges(&self, ranges: &[KeyRange]) -> Result<Vec<Vec<u8>>, KvError> {
        self.read(|| self.kv.get_ranges(ranges)).await
    }

    async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
        self.guard(Call::Write, self.kv.set_many(entries, ttl)).await
    }

    async fn set_expiring(&self, entries: Vec<(Vec<u8>, Vec<u8>, Duration)>) -> Result<(), KvError> {
        self.guard(Call::Write, self.kv.set_expiring(entries)).await
    }

    async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        self.guard(Call::Write, self.kv.delete_many(keys)).await
    }

    async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        self.guard(Call::Write, self.kv.persist_many(keys)).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        self.guard(Call::Write, self.kv.compare_and_set(key, expected, new, ttl)).await
    }

    async fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> Result<bool, KvError> {
        self.guard(Call::Write, self.kv.delete_if_equal(key, expected)).await
    }

    async fn stats(&self) -> Result<KvStats, KvError> {
        self.read(|| self.kv.stats()).await
    }
}
