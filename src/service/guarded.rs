//! A store that is never waited for long: every call has a timeout, reads have one second try, and a breaker stands
//! before all of it.
//!
//! It is there from the start, and until the store was reached for the first time every call fails.
//!
//! The one thing to know: it is a [`Kv`] like the one inside it. Whoever reads through it sees a store that fails fast,
//! and needs to know nothing else.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::breaker::Breaker;
use super::metrics::{Call, Metrics};
use crate::kv::{KeyRange, Kv, KvError, KvStats};

/// Any home, guarded. Cheap to clone when the home is; clones share the breaker.
#[derive(Clone, Debug)]
pub struct Guarded<K> {
    kv: Arc<OnceLock<K>>,
    address: String,
    timeout: Duration,
    breaker: Arc<Breaker>,
    metrics: Arc<Metrics>,
}

impl<K: Kv> Guarded<K> {
    /// A guard with nothing behind it yet. `address` is for messages, and has no password in it.
    pub fn new(address: String, timeout: Duration, breaker: Arc<Breaker>, metrics: Arc<Metrics>) -> Self {
        Self { kv: Arc::default(), address, timeout, breaker, metrics }
    }

    /// Puts it before a home, once.
    pub fn reached(&self, kv: K) {
        let _ = self.kv.set(kv);
        self.breaker.succeeded();
    }

    /// Whether it was ever reached.
    pub fn is_reached(&self) -> bool {
        self.kv.get().is_some()
    }

    fn home(&self) -> Result<&K, KvError> {
        let away = || KvError::Unavailable { home: self.address.clone(), detail: "it was not reached yet".to_owned() };
        self.kv.get().ok_or_else(away)
    }

    /// A call that may be made twice: a connection that the server has closed is noticed by the first.
    async fn read<'a, T, F: Future<Output = Result<T, KvError>>>(
        &'a self,
        call: impl Fn(&'a K) -> F,
    ) -> Result<T, KvError> {
        let twice = async {
            let kv = self.home()?;
            match call(kv).await {
                Err(KvError::Unavailable { .. }) => call(kv).await,
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
            None | Some(KvError::OutOfMemory { .. } | KvError::WrongType { .. } | KvError::Refused { .. }) => {
                self.breaker.succeeded();
            }
            Some(_) => self.breaker.failed(),
        }
        outcome
    }
}

impl<K: Kv> Kv for Guarded<K> {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        self.read(|kv| kv.get_many(keys)).await
    }

    async fn get_ranges(&self, ranges: &[KeyRange]) -> Vec<Result<Vec<u8>, KvError>> {
        let read = async {
            let kv = self.home()?;
            let mut answers = kv.get_ranges(ranges).await;
            let is_away = |answer: &Result<_, _>| matches!(answer, Err(KvError::Unavailable { .. }));
            let away: Vec<usize> = (0..answers.len()).filter(|&at| is_away(&answers[at])).collect();
            if !away.is_empty() {
                let again: Vec<KeyRange> = away.iter().map(|&at| ranges[at].clone()).collect();
                for (at, answer) in away.into_iter().zip(kv.get_ranges(&again).await) {
                    answers[at] = answer;
                }
            }
            // a home that has answered anything is there
            match answers.iter().find_map(|answer| answer.as_ref().err()) {
                Some(error) if answers.iter().all(Result::is_err) => Err(error.clone()),
                Some(error) => {
                    self.metrics.store_failed(Call::Read, error);
                    Ok(answers)
                }
                None => Ok(answers),
            }
        };
        self.guard(Call::Read, read).await.unwrap_or_else(|error| vec![Err(error); ranges.len()])
    }

    async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
        self.guard(Call::Write, async { self.home()?.set_many(entries, ttl).await }).await
    }

    async fn set_expiring(&self, entries: Vec<(Vec<u8>, Vec<u8>, Duration)>) -> Result<(), KvError> {
        self.guard(Call::Write, async { self.home()?.set_expiring(entries).await }).await
    }

    async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        self.guard(Call::Write, async { self.home()?.delete_many(keys).await }).await
    }

    async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        self.guard(Call::Write, async { self.home()?.persist_many(keys).await }).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        self.guard(Call::Write, async { self.home()?.compare_and_set(key, expected, new, ttl).await }).await
    }

    async fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> Result<bool, KvError> {
        self.guard(Call::Write, async { self.home()?.delete_if_equal(key, expected).await }).await
    }

    async fn stats(&self) -> Result<KvStats, KvError> {
        self.read(K::stats).await
    }
}
