//! Candidates that were found before: for the next page, a retry, the same request under a narrower filter.
//!
//! What is kept is the intermediate result, before pages, mix and diversity. The key is all that decides it: the release, what
//! changed since the build, the vector with the session in it, the effort, the filter, what was seen. So nothing has to
//! be invalidated: what is no longer true has another key. Of requests that miss the same key at the same time one
//! searches and the others wait for it.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use twox_hash::XxHash3_64;

use super::EngineError;
use super::quest::Candidates;

/// What an entry takes beside its candidates.
const ENTRY_BYTES: usize = 200;

/// 128 bits, so that no two requests are taken for one.
pub(super) type Key = (u64, u64);

/// The key of what `hash` puts in.
pub(super) fn key(put: impl Fn(&mut dyn Hasher)) -> Key {
    let half = |seed| {
        let mut hash = XxHash3_64::with_seed(seed);
        put(&mut hash);
        hash.finish()
    };
    (half(1), half(2))
}

/// Puts anything that can be hashed.
pub(super) fn put<T: Hash + ?Sized>(mut hash: &mut dyn Hasher, value: &T) {
    value.hash(&mut hash);
}

/// Candidates by key, within a budget; the oldest go first.
#[derive(Debug)]
pub(super) struct Cache {
    budget_bytes: usize,
    ttl: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Key, Entry>,
    order: VecDeque<Key>,
    bytes: usize,
}

#[derive(Debug)]
enum Entry {
    Ready { candidates: Arc<Candidates>, until: Instant },
    Flying(Arc<Flight>),
}

/// A search that is under way.
#[derive(Debug, Default)]
struct Flight {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Under,
    Landed(Arc<Candidates>),
    Failed,
}

impl Cache {
    /// Keeps candidates for about `ttl`: from four fifths to six fifths of it, so that those that were found together do
    /// not go together.
    pub fn new(budget_bytes: usize, ttl: Duration) -> Self {
        Self { budget_bytes, ttl, kept: Mutex::default() }
    }

    /// Whether anything is kept at all.
    pub fn is_on(&self) -> bool {
        self.budget_bytes > 0
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// At least `want` candidates if they are there.
    pub fn peek(&self, key: Key) -> Option<Arc<Candidates>> {
        match self.lock().entries.get(&key) {
            Some(Entry::Ready { candidates, until }) if *until > Instant::now() => Some(Arc::clone(candidates)),
            _ => None,
        }
    }

    /// At least `want` candidates, or all there are; and whether they were there.
    pub fn get(
        &self,
        key: Key,
        want: usize,
        find: impl Fn() -> Result<Candidates, EngineError>,
    ) -> Result<(Arc<Candidates>, bool), EngineError> {
        let enough = |candidates: &Candidates| candidates.complete || candidates.found.len() >= want;
        let mut kept = self.lock();
        match kept.entries.get(&key) {
            Some(Entry::Ready { candidates, until }) if *until > Instant::now() && enough(candidates) => {
                return Ok((Arc::clone(candidates), true));
            }
            Some(Entry::Flying(flight)) => {
                let flight = Arc::clone(flight);
                drop(kept);
                return match flight.wait().filter(|candidates| enough(candidates)) {
                    Some(candidates) => Ok((candidates, true)),
                    None => Ok((Arc::new(find()?), false)),
                };
            }
            _ => {}
        }
        kept.remove(key);
        let flight = Arc::new(Flight::default());
        kept.entries.insert(key, Entry::Flying(Arc::clone(&flight)));
        drop(kept);
        // lands on every way out, so that nobody waits for ever
        let mut pilot = Pilot { cache: self, key, flight, found: None };
        let candidates = Arc::new(find()?);
        pilot.found = Some(Arc::clone(&candidates));
        Ok((candidates, false))
    }

    fn land(&self, key: Key, found: Option<Arc<Candidates>>) {
        let mut kept = self.lock();
        kept.entries.remove(&key);
        let Some(candidates) = found else { return };
        let bytes = cost(&candidates);
        if bytes > self.budget_bytes {
            return;
        }
        let jitter = 0.8 + 0.4 * (key.1 >> 40) as f64 / (1_u64 << 24) as f64;
        let until = Instant::now() + self.ttl.mul_f64(jitter);
        kept.entries.insert(key, Entry::Ready { candidates, until });
        kept.order.push_back(key);
        kept.bytes += bytes;
        while kept.bytes > self.budget_bytes
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.forget(oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Removes a ready entry and its place in the order.
    fn remove(&mut self, key: Key) {
        if self.forget(key) {
            self.order.retain(|&other| other != key);
        }
    }

    fn forget(&mut self, key: Key) -> bool {
        if let Some(Entry::Ready { candidates, .. }) = self.entries.get(&key) {
            self.bytes -= cost(candidates);
            self.entries.remove(&key);
            return true;
        }
        false
    }
}

impl Flight {
    fn wait(&self) -> Option<Arc<Candidates>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                State::Landed(candidates) => return Some(Arc::clone(candidates)),
                State::Failed => return None,
                State::Under => state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Who searches.
struct Pilot<'a> {
    cache: &'a Cache,
    key: Key,
    flight: Arc<Flight>,
    found: Option<Arc<Candidates>>,
}

impl Drop for Pilot<'_> {
    fn drop(&mut self) {
        let found = self.found.take();
        self.cache.land(self.key, found.clone());
        let state = found.map_or(State::Failed, State::Landed);
        *self.flight.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.flight.wake.notify_all();
    }
}

fn cost(candidates: &Candidates) -> usize {
    ENTRY_BYTES + 8 * candidates.found.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn candidates(count: u32) -> Candidates {
        Candidates { found: (0..count).map(|at| (at, 0.0)).collect(), complete: false, distances: 1 }
    }

    fn of(number: u64) -> Key {
        key(|hash| put(hash, &number))
    }

    #[test]
    fn a_thousand_that_miss_at_once_make_one_search() {
        let (cache, searches, gate) = (Cache::new(1 << 20, MINUTE), AtomicUsize::new(0), Barrier::new(1_000));
        let ask = || {
            gate.wait();
            let find = || {
                searches.fetch_add(1, Ordering::Relaxed);
                // long enough for others to come, who all wait
                (0..100).for_each(|_| std::thread::yield_now());
                Ok(candidates(10))
            };
            assert_eq!(cache.get(of(1), 10, find).unwrap().0.found.len(), 10);
        };
        std::thread::scope(|scope| {
            for _ in 0..1_000 {
                std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, ask).unwrap();
            }
        });
        assert_eq!(searches.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_search_that_fails_or_panics_leaves_nobody_waiting() {
        let cache = Cache::new(1 << 20, MINUTE);
        assert!(cache.get(of(1), 1, || Err(EngineError::K { got: 0 })).is_err());
        let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cache.get(of(1), 1, || std::panic::resume_unwind(Box::new("on purpose")))
        }));
        assert!(panics.is_err());
        assert!(!cache.get(of(1), 1, || Ok(candidates(1))).unwrap().1);
        assert!(cache.get(of(1), 1, || Ok(candidates(1))).unwrap().1);
    }

    #[test]
    fn too_few_are_found_anew_and_all_there_are_suffice() {
        let cache = Cache::new(1 << 20, MINUTE);
        let get = |want, count, complete| {
            let (found, hit) = cache.get(of(1), want, || Ok(Candidates { complete, ..candidates(count) })).unwrap();
            (found.found.len(), hit)
        };
        assert_eq!([get(5, 8, false), get(8, 9, false), get(9, 20, false)], [(8, false), (8, true), (20, false)]);
        assert_eq!([get(30, 25, true), get(99, 0, false)], [(25, false), (25, true)]);
        assert_eq!(cache.peek(of(1)).unwrap().found.len(), 25);
        assert!(cache.peek(of(2)).is_none());
    }

    #[test]
    fn the_budget_is_kept_and_time_ends_all() {
        let cache = Cache::new(10 * (ENTRY_BYTES + 80), MINUTE);
        for round in 0..3 {
            for number in 0..20 {
                cache.get(of(number), 10, || Ok(candidates(10))).unwrap();
                assert!(cache.bytes() <= cache.budget_bytes, "round {round}");
            }
        }
        assert!(cache.peek(of(19)).is_some() && cache.peek(of(0)).is_none());
        assert_eq!(cache.bytes(), 10 * (ENTRY_BYTES + 80));
        cache.get(of(99), 10, || Ok(candidates(1_000_000))).unwrap();
        assert!(cache.peek(of(99)).is_none(), "what could never fit is not kept");
        let brief = Cache::new(1 << 20, Duration::ZERO);
        brief.get(of(1), 1, || Ok(candidates(1))).unwrap();
        assert!(!brief.get(of(1), 1, || Ok(candidates(1))).unwrap().1);
        assert_eq!(brief.bytes(), ENTRY_BYTES + 8);
    }
}
