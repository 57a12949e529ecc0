//! Where requests are computed: a few threads behind a queue that is kept short.
//!
//! The one thing to know: a job is refused when it comes, not after it has waited. How long the queue is, in time, is
//! known from what jobs have cost lately, so whoever would wait too long hears so at once; and long before that, jobs
//! are told to make less [`effort`](Pool::effort).
//!
//! Computing is kept off the threads that talk to the network: there it would make every connection wait behind one
//! search, refusals too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Share of the longest wait at which effort begins to fall, and at which it is at its least.
const EASE: (f64, f64) = (0.25, 0.75);
/// How fast effort comes back: from least to most in this time. A burst is seldom alone.
const RECOVERY: Duration = Duration::from_secs(2);
/// What a job is taken to cost before any has been seen.
const FIRST_GUESS_NS: f64 = 200_000.0;

type Job = Box<dyn FnOnce() + Send>;

/// Threads and their queue.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    workers: usize,
    longest_wait: Duration,
    queue: Mutex<Queue>,
    filled: Condvar,
    /// Requests in the queue and in work.
    pending: AtomicUsize,
    /// Mean cost of a request in nanoseconds, as the bits of an `f64`, recent ones counting most.
    cost_ns: AtomicU64,
    /// From 0 to 1, as the bits of an `f64`.
    effort: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopping: bool,
    /// When effort was last looked at.
    eased: Option<Instant>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("jobs", &self.jobs.len()).finish_non_exhaustive()
    }
}

/// Why a job was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It would have had to wait longer than it may.
    Busy,
    /// Its deadline was over when its turn came.
    Late,
    /// It did not come back: the pool is stopping, or the job fell over.
    Lost,
}

impl Pool {
    /// Starts `workers` threads. A job that would wait longer than `longest_wait` is refused.
    pub fn start(workers: usize, longest_wait: Duration) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            workers,
            longest_wait,
            queue: Mutex::default(),
            filled: Condvar::new(),
            pending: AtomicUsize::new(0),
            cost_ns: AtomicU64::new(FIRST_GUESS_NS.to_bits()),
            effort: AtomicU64::new(1.0_f64.to_bits()),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("answer-{number}"));
            thread.spawn(move || shared.work())
        };
        let threads = (0..workers).map(start).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// Whether `requests` more would be taken up in time, for a look before any work is done for them.
    pub fn has_room(&self, requests: usize, deadline: Instant) -> bool {
        let wait = self.wait();
        // a batch may cost more than the longest wait by itself
        let own = Duration::from_secs_f64(self.cost_ns() * requests as f64 / 1e9);
        wait <= self.shared.longest_wait && Instant::now() + wait + own <= deadline
    }

    /// Does a job worth `requests` requests, or refuses it.
    pub async fn run<T: Send + 'static>(
        &self,
        requests: usize,
        deadline: Instant,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        if !self.has_room(requests, deadline) {
            return Err(Refused::Busy);
        }
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let pending = Pending::new(Arc::clone(&self.shared), requests);
        let job = move || {
            let pending = pending;
            // nobody waits any more: the client has gone
            if tell.is_closed() {
                return;
            }
            let began = Instant::now();
            if began > deadline {
                let _ = tell.send(Err(Refused::Late));
                return;
            }
            let result = job();
            shared.learn(began.elapsed().as_nanos() as f64 / requests.max(1) as f64);
            drop(pending);
            let _ = tell.send(Ok(result));
        };
        self.shared.put(Box::new(job))?;
        told.await.unwrap_or(Err(Refused::Lost))
    }

    /// How hard a request may be worked on now: 1 when there is little to do, 0 when the queue is nearly as long as it
    /// may be. Falls at once, comes back over two seconds.
    pub fn effort(&self) -> f64 {
        f64::from_bits(self.shared.effort.load(Relaxed))
    }

    /// How long a job that comes now has to wait, about.
    pub fn wait(&self) -> Duration {
        let ahead = self.shared.pending.load(Relaxed).saturating_sub(self.shared.workers - 1);
        Duration::from_secs_f64(self.cost_ns() * ahead as f64 / self.shared.workers as f64 / 1e9)
    }

    /// Requests in the queue and in work.
    pub fn pending(&self) -> usize {
        self.shared.pending.load(Relaxed)
    }

    fn cost_ns(&self) -> f64 {
        f64::from_bits(self.shared.cost_ns.load(Relaxed))
    }
}

impl Drop for Pool {
    /// Jobs in the queue are done first.
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.filled.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, job: Job) -> Result<(), Refused> {
        let mut queue = self.lock();
        if queue.stopping {
            return Err(Refused::Lost);
        }
        self.ease(&mut queue);
        queue.jobs.push_back(job);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let job = loop {
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None if queue.stopping => return,
                    None => queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            // a job that falls over takes its own answer with it and no thread
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    /// Sets the effort by how long the queue is.
    fn ease(&self, queue: &mut Queue) {
        let now = Instant::now();
        let since = queue.eased.replace(now).map_or(Duration::ZERO, |before| now - before);
        let cost_ns = f64::from_bits(self.cost_ns.load(Relaxed));
        let wait_ns = cost_ns * self.pending.load(Relaxed) as f64 / self.workers as f64;
        let filled = wait_ns / self.longest_wait.as_nanos() as f64;
        let allowed = ((EASE.1 - filled) / (EASE.1 - EASE.0)).clamp(0.0, 1.0);
        let effort = f64::from_bits(self.effort.load(Relaxed));
        let back = effort + since.as_secs_f64() / RECOVERY.as_secs_f64();
        self.effort.store(allowed.min(back).to_bits(), Relaxed);
    }

    /// Takes in what a request has cost: a fiftieth of the mean is the newest.
    fn learn(&self, cost_ns: f64) {
        let mean = f64::from_bits(self.cost_ns.load(Relaxed));
        self.cost_ns.store((mean + (cost_ns - mean) / 50.0).to_bits(), Relaxed);
    }
}

/// Counts requests as pending for as long as it lives.
struct Pending(Arc<Shared>, usize);

impl Pending {
    fn new(shared: Arc<Shared>, requests: usize) -> Self {
        shared.pending.fetch_add(requests, Relaxed);
        Self(shared, requests)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(self.1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    #[tokio::test]
    async fn jobs_are_done_and_answered() {
        let pool = Pool::start(2, Duration::from_mins(1)).unwrap();
        let all = (0..100).map(|number| pool.run(1, later(), move || number * number));
        let squares: Vec<_> = futures_util::future::join_all(all).await;
        assert_eq!(squares, (0..100).map(|number| Ok(number * number)).collect::<Vec<_>>());
        assert_eq!(pool.pending(), 0);
    }

    #[tokio::test]
    async fn a_long_queue_refuses_and_lowers_effort_before_it_does() {
        let pool = Arc::new(Pool::start(1, Duration::from_millis(10)).unwrap());
        let (release, held) = mpsc::channel::<()>();
        let first = Arc::clone(&pool);
        let stuck = tokio::spawn(async move { first.run(1, later(), move || held.recv().is_ok()).await });
        while pool.pending() == 0 {
            tokio::task::yield_now().await;
        }
        let (mut waiting, mut efforts) = (Vec::new(), Vec::new());
        let refused = loop {
            let mut next = Box::pin(pool.run(1, later(), || ()));
            match next.as_mut().now_or_never() {
                Some(answer) => break answer,
                None => waiting.push(next),
            }
            efforts.push(pool.effort());
            assert!(waiting.len() < 1_000, "never refused");
        };
        assert_eq!(refused, Err(Refused::Busy));
        assert!(efforts.is_sorted_by(|a, b| a >= b), "{efforts:?}");
        assert_eq!((efforts[0], *efforts.last().unwrap()), (1.0, 0.0));
        release.send(()).unwrap();
        assert_eq!(stuck.await.unwrap(), Ok(true));
        assert!(futures_util::future::join_all(waiting).await.iter().all(Result::is_ok));
        assert!(pool.run(1, later(), || ()).await.is_ok(), "there is room again");
    }

    #[tokio::test]
    async fn what_cannot_be_in_time_is_not_begun_and_what_falls_over_takes_nothing_with_it() {
        let pool = Pool::start(1, Duration::from_mins(1)).unwrap();
        assert_eq!(pool.run(1, Instant::now(), || ()).await, Err(Refused::Busy));
        assert_eq!(pool.run(1, later(), || std::panic::resume_unwind(Box::new(()))).await, Err::<(), _>(Refused::Lost));
        assert_eq!(pool.run(1, later(), || 7).await, Ok(7));
        assert_eq!(pool.pending(), 0);
    }
}
