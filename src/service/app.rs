//! What every request needs, in one place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use super::body::Bodies;
use super::breaker::Breaker;
use super::config::{Config, Run};
use super::metrics::Metrics;
use super::pool::{Pool, Refused, Ticket};
use super::problem::{Kind, Problem};
use super::run::ServiceError;
use super::shelf::{Loaded, Shelf, Store};
use crate::engine::{EngineOptions, Live, LiveOptions, Request};

/// Everything that is shared by requests.
pub struct App {
    /// What the service was told.
    pub config: Config,
    /// What it says of itself.
    pub metrics: Arc<Metrics>,
    /// What it serves.
    pub shelf: Shelf,
    /// Where it computes.
    pub pool: Pool,
    /// What stands before the store.
    pub breaker: Arc<Breaker>,
    /// The store, which may not have been reached yet.
    pub store: Store,
    /// The bodies of requests.
    pub bodies: Arc<Bodies>,
    /// Requests of late.
    pub recent: Recent,
    /// What changed since the index was built.
    pub live: Arc<Live>,
    /// Whether it is stopping.
    pub draining: Arc<AtomicBool>,
    in_flight: AtomicUsize,
    numbers: AtomicU64,
}

impl App {
    /// A service that serves nothing yet.
    pub fn new(config: Config) -> Result<Self, ServiceError> {
        let live = match &config.index.journal {
            Some(path) => Live::open(path, LiveOptions::default())?,
            None => Live::in_memory(LiveOptions::default()),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if config.run.threads == 0 { cores } else { config.run.threads };
        let pause = Duration::from_millis(config.store.breaker_pause_ms);
        let (metrics, breaker) = (Arc::default(), Arc::new(Breaker::new(config.store.breaker_failures, pause)));
        let (address, timeout) = (config.redacted().store.address, store_timeout(&config));
        let began = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            shelf: Shelf::default(),
            pool: Pool::start(threads, Duration::from_secs_f64(config.run.queue_ms / 1e3))?,
            store: Store::new(address, timeout, Arc::clone(&breaker), Arc::clone(&metrics)),
            metrics,
            breaker,
            bodies: Arc::new(Bodies::new(config.limits.bodies_bytes)),
            recent: Recent::new(config.reload.warm),
            live: Arc::new(live),
            draining: Arc::default(),
            in_flight: AtomicUsize::new(0),
            numbers: AtomicU64::new((began.as_nanos() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            config,
        })
    }

    /// How engines answer.
    pub fn engine_options(&self) -> EngineOptions {
        let store = &self.config.store;
        let store_timeout = store_timeout(&self.config);
        let Run { ef, recall_floor, cache_bytes, .. } = self.config.run;
        let known_bytes = store.memory_bytes;
        EngineOptions { store_timeout, known_bytes, cache_bytes, ef, recall_floor, ..EngineOptions::default() }
    }

    /// What is served, or that nothing is yet.
    pub fn loaded(&self) -> Result<Arc<Loaded>, Problem> {
        let none = || Problem::new(Kind::NotReady, "no release is loaded yet; see the logs of the service");
        self.shelf.current().ok_or_else(none)
    }

    /// Serves a release from now on.
    pub fn serve(&self, loaded: Arc<Loaded>) {
        let at = loaded.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.index_loaded.set(at.as_secs_f64());
        self.metrics.index_bytes.set(loaded.engine.index().bytes() as i64);
        self.metrics.index_items.set(loaded.engine.index().len() as i64);
        self.shelf.put(loaded);
    }

    /// Refuses a request that is to be computed when there is no place for it, before its body takes any.
    pub fn look_for_room(&self) -> Result<(), Problem> {
        let in_flight = self.in_flight.load(Relaxed);
        if in_flight >= self.config.run.in_flight {
            return Err(self.too_many(in_flight));
        }
        self.pool.look_for_room().map_err(|refused| self.no_time(refused))
    }

    fn too_many(&self, in_flight: usize) -> Problem {
        self.metrics.refused("in_flight");
        Problem::new(Kind::Overloaded, format!("{in_flight} requests are in flight"))
    }

    /// A place among the requests in flight, as long as what is returned lives.
    pub fn admit(self: &Arc<Self>) -> Result<Place, Problem> {
        let before = self.in_flight.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(self));
        if before >= self.config.run.in_flight {
            return Err(self.too_many(before));
        }
        Ok(place)
    }

    /// A place among the requests in flight and one in the queue, for a request that is to be computed.
    pub fn reserve(self: &Arc<Self>) -> Result<(Place, Ticket), Problem> {
        let place = self.admit()?;
        Ok((place, self.pool.reserve().map_err(|refused| self.no_time(refused))?))
    }

    /// The problem of a job that was not done.
    pub fn no_time(&self, refused: Refused) -> Problem {
        let (reason, detail) = match refused {
            Refused::Busy => ("busy", "it would have to wait too long for a processor"),
            Refused::Late => ("late", "its deadline was over before it was begun"),
            Refused::Lost => return Problem::internal(),
        };
        self.metrics.refused(reason);
        Problem::new(Kind::Overloaded, detail)
    }

    /// A number that no other request of this process has.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed)
    }

    /// Whether it should be asked, and what it lacks.
    pub fn readiness(&self) -> (bool, &'static str) {
        if self.draining.load(Relaxed) {
            return (false, "stopping");
        }
        let Some(loaded) = self.shelf.current() else { return (false, "nothing is loaded yet") };
        if self.breaker.is_open() || !self.store.is_reached() {
            return (self.config.store.ready_without, "degraded: the store is away");
        }
        if !loaded.is_published {
            return (self.config.store.ready_without, "degraded: the store has no release that can be served");
        }
        (true, "ready")
    }

    /// The metrics, with those read when they are asked for.
    pub fn metrics_text(&self) -> String {
        let metrics = &self.metrics;
        metrics.breaker_open.set(i64::from(self.breaker.is_open()));
        metrics.pending.set(self.pool.pending() as i64);
        metrics.in_flight.set(self.in_flight.load(Relaxed) as i64);
        metrics.effort.set(self.pool.effort());
        metrics.wait_seconds.set(self.pool.wait().as_secs_f64());
        metrics.body_bytes.set(self.bodies.held() as i64);
        metrics.added_items.set(self.live.added_items() as i64);
        if let Some(loaded) = self.shelf.current() {
            metrics.filter_bytes.set(loaded.engine.masks_bytes() as i64);
        }
        metrics.text()
    }
}

/// For a call that asks several servers: each is waited for as long as the configuration says, and a quarter more is for
/// the answers of the others, which are not to be lost with the one that hangs.
fn store_timeout(config: &Config) -> Duration {
    Duration::from_millis(config.store.timeout_ms) * 5 / 4
}

/// One of the requests in flight.
pub struct Place(Arc<App>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A sample of the requests of late: to warm an index by, and to watch recall.
#[derive(Debug)]
pub struct Recent {
    most: usize,
    seen: AtomicUsize,
    kept: Mutex<VecDeque<Request>>,
}

impl Recent {
    /// One request in so many is kept.
    const ONE_IN: usize = 16;
    /// Longer ones are not kept: what their lists take is no use to a new index.
    const LONGEST: usize = 256;

    fn new(most: usize) -> Self {
        Self { most: most.max(1), seen: AtomicUsize::new(0), kept: Mutex::default() }
    }

    /// Perhaps keeps a request that was answered; never waits.
    pub fn see(&self, request: &Request) {
        if self.seen.fetch_add(1, Relaxed).is_multiple_of(Self::ONE_IN)
            && entries(request) <= Self::LONGEST
            && let Ok(mut kept) = self.kept.try_lock()
        {
            if kept.len() >= self.most {
                kept.pop_front();
            }
            kept.push_back(request.clone());
        }
    }

    /// All that are kept, oldest first.
    pub fn all(&self) -> Vec<Request> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The newest that names a user.
    pub fn newest_of_a_user(&self) -> Option<Request> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|request| request.user.is_some()).cloned()
    }
}

/// Entries of all lists of a request.
fn entries(request: &Request) -> usize {
    let Request { filter, session, seen, diversity, mix, page, .. } = request;
    let tags = filter.all.len() + filter.any.iter().map(Vec::len).sum::<usize>() + filter.none.len();
    let items = filter.allow.as_ref().map_or(0, Vec::len) + filter.deny.len() + seen.len();
    // a page token names the items before
    let pages = page.as_ref().map_or(0, |page| page.len() / 5);
    tags + items + session.len() + diversity.max_per.len() + mix.quotas.len() + mix.pins.len() + pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{ItemFilter, OwnedId};

    #[test]
    fn what_is_kept_of_requests_is_one_in_sixteen_and_small() {
        let recent = Recent::new(3);
        let of = |user, deny| Request {
            user: Some(OwnedId::U64(user)),
            filter: ItemFilter { deny: vec![OwnedId::U64(0); deny], ..ItemFilter::default() },
            ..Request::default()
        };
        (0..160).for_each(|user| recent.see(&of(user, 0)));
        let users: Vec<_> = recent.all().into_iter().map(|request| request.user).collect();
        assert_eq!(users, [112, 128, 144].map(|user| Some(OwnedId::U64(user))));
        (0..32).for_each(|_| recent.see(&of(7, 10_000)));
        assert_eq!(recent.newest_of_a_user().unwrap().user, Some(OwnedId::U64(144)), "the large are not kept");
    }
}
