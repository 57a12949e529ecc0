//! Where requests are computed: a few threads behind a queue that is kept short.
//!
//! The one thing to know: a job is refused when it comes, not after it has waited. How long the queue is, in time, is
//! known from what jobs have cost lately, so whoever would wait too long hears so at once; and long before that, jobs
//! are told to make less [`effort`](Pool::effort). What is kept short is a queue that stands: while threads had nothing to
//! do a moment ago, a burst is let in.
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
/// How many times the longest wait may be waited where threads had nothing to do a moment ago. When the store is slow, those
/// who wait for it are no queue; when it stood still, its answers come all at once, and there is time to work on them.
const BURST: u32 = 5;
/// For how long a burst is one.
const MOMENT: Duration = Duration::from_millis(100);
/// How fast effort comes back: from least to most in this time. A burst is seldom alone.
const RECOVERY: Duration = Duration::from_secs(2);
/// What a job is taken to cost before any has been seen.
const FIRST_GUESS_NS: f64 = 200_000.0;
/// What takes so many times the mean counts for no more.
const OUTLIER: f64 = 10.0;

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
    /// Requests that have a place in the queue, or are in work.
    pending: AtomicUsize,
    /// What a request costs.
    cost_ns: Mean,
    /// For how long a request has a place before it comes to take it: the store is asked meanwhile.
    away_ns: Mean,
    /// From 0 to 1, as the bits of an `f64`.
    effort: AtomicU64,
    started: Instant,
    /// Threads that have nothing to do, and when one last had, in nanoseconds after the start.
    idle: AtomicUsize,
    idle_ns: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(usize, Job)>,
    /// Of all jobs.
    requests: usize,
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
            cost_ns: Mean::new(FIRST_GUESS_NS),
            away_ns: Mean::new(FIRST_GUESS_NS),
            effort: AtomicU64::new(1.0_f64.to_bits()),
            started: Instant::now(),
            idle: AtomicUsize::new(0),
            idle_ns: AtomicU64::new(0),
        });
        let start = |number| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("answer-{number}"));
            thread.spawn(move || shared.work())
        };
        let threads = (0..workers).map(start).collect::<Result<_, _>>()?;
        Ok(Self { shared, threads })
    }

    /// A place in the queue for one request, taken before any work is done for it; refused when it would have to wait too
    /// long.
    pub fn reserve(&self) -> Result<Ticket, Refused> {
        let before = self.shared.pending.fetch_add(1, Relaxed);
        let ticket = Ticket { shared: Arc::clone(&self.shared), requests: 1, since: Instant::now() };
        if self.shared.is_full(before) { Err(Refused::Busy) } else { Ok(ticket) }
    }

    /// Refuses whoever would have to wait too long for a place that is taken now.
    pub fn look_for_room(&self) -> Result<(), Refused> {
        if self.shared.is_full(self.pending()) { Err(Refused::Busy) } else { Ok(()) }
    }

    /// How hard a request may be worked on now: 1 when there is little to do, 0 when the queue is nearly as long as it
    /// may be. Falls at once, comes back over two seconds.
    pub fn effort(&self) -> f64 {
        f64::from_bits(self.shared.effort.load(Relaxed))
    }

    /// How long a job that comes now has to wait, about.
    pub fn wait(&self) -> Duration {
        self.shared.wait(self.pending())
    }

    /// Requests that have a place in the queue, or are in work.
    pub fn pending(&self) -> usize {
        self.shared.pending.load(Relaxed)
    }
}

/// A place in the queue. It counts from when it was taken, so that of many who come at once those who are too many hear so
/// before anything is done for them; and it is given back wherever it is dropped.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    requests: usize,
    since: Instant,
}

/// A place in the queue, and until when its job has to be begun.
#[derive(Debug)]
pub struct Due {
    ticket: Ticket,
    deadline: Instant,
}

impl Ticket {
    /// Makes it one for so many requests, if they can be done by the deadline.
    pub fn due(mut self, requests: usize, deadline: Instant) -> Result<Due, Refused> {
        let more = requests.saturating_sub(self.requests);
        let others = self.shared.pending.fetch_add(more, Relaxed).saturating_sub(self.requests);
        self.requests += more;
        let now = Instant::now();
        // what requests cost is no reason to refuse one that nobody is before: nothing else would ever show that it is
        // wrong
        let needed = if others == 0 { Duration::ZERO } else { self.shared.wait(others) + self.shared.own(requests) };
        if now < deadline && needed <= deadline - now { Ok(Due { ticket: self, deadline }) } else { Err(Refused::Busy) }
    }
}

impl Due {
    /// Does the job when its turn comes.
    pub async fn run<T: Send + 'static>(self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
        let Self { ticket, deadline } = self;
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&ticket.shared);
        let requests = ticket.requests;
        shared.away_ns.learn(ticket.since.elapsed());
        let job = move || {
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
            ticket.shared.cost_ns.learn(began.elapsed() / requests as u32);
            drop(ticket);
            let _ = tell.send(Ok(result));
        };
        shared.put(requests, Box::new(job))?;
        told.await.unwrap_or(Err(Refused::Lost))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.pending.fetch_sub(self.requests, Relaxed);
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

    fn put(&self, requests: usize, job: Job) -> Result<(), Refused> {
        let mut queue = self.lock();
        if queue.stopping {
            return Err(Refused::Lost);
        }
        queue.jobs.push_back((requests, job));
        queue.requests += requests;
        self.ease(&mut queue);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    fn work(&self) {
        loop {
            let mut queue = self.lock();
            let job = loop {
                match queue.jobs.pop_front() {
                    Some((requests, job)) => {
                        queue.requests -= requests;
                        break job;
                    }
                    None if queue.stopping => return,
                    None => {
                        self.idle.fetch_add(1, Relaxed);
                        queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                        self.idle_ns.store(self.now_ns(), Relaxed);
                        self.idle.fetch_sub(1, Relaxed);
                    }
                }
            };
            drop(queue);
            // a job that falls over takes its own answer with it and no thread
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    /// Whether one more with so many requests before it would have to wait too long.
    fn is_full(&self, before: usize) -> bool {
        let idle_ns = self.idle_ns.load(Relaxed);
        let is_burst = self.idle.load(Relaxed) > 0 || self.now_ns().saturating_sub(idle_ns) < MOMENT.as_nanos() as u64;
        self.wait(before) > self.longest_wait * if is_burst { BURST } else { 1 }
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// How long a job has to wait that has so many requests before it. All that have a place count, and those that are
    /// not there yet come while others are worked on: for that long, or as long as may be waited, nobody waits.
    fn wait(&self, before: usize) -> Duration {
        let away = self.away_ns.get().min(self.longest_wait.as_nanos() as f64);
        Duration::from_nanos((self.work_ns(before.saturating_sub(self.workers - 1)) - away).max(0.0) as u64)
    }

    /// What so many requests keep all threads busy for.
    fn work_ns(&self, requests: usize) -> f64 {
        requests as f64 * self.cost_ns.get() / self.workers as f64
    }

    /// What so many requests of one job take: a batch is worked on by all.
    fn own(&self, requests: usize) -> Duration {
        let rounds = requests as f64 / self.workers.min(requests.max(1)) as f64;
        Duration::from_nanos((rounds * self.cost_ns.get()) as u64)
    }

    /// Sets the effort by how long the queue is: by those who are there, as whoever waits for the store takes no time.
    fn ease(&self, queue: &mut Queue) {
        let now = Instant::now();
        let since = queue.eased.replace(now).map_or(Duration::ZERO, |before| now - before);
        let filled = self.work_ns(queue.requests) / self.longest_wait.as_nanos() as f64;
        let allowed = ((EASE.1 - filled) / (EASE.1 - EASE.0)).clamp(0.0, 1.0);
        let effort = f64::from_bits(self.effort.load(Relaxed));
        let back = effort + since.as_secs_f64() / RECOVERY.as_secs_f64();
        self.effort.store(allowed.min(back).to_bits(), Relaxed);
    }
}

/// A running mean in nanoseconds, as the bits of an `f64`: the newest counts for a fiftieth.
#[derive(Debug)]
struct Mean(AtomicU64);

impl Mean {
    fn new(ns: f64) -> Self {
        Self(AtomicU64::new(ns.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    /// Takes in one more. A single one that took ten times as long or more may be the machine's doing, which stood still;
    /// if it is not, there will be others.
    fn learn(&self, took: Duration) {
        let mean = self.get();
        let took = (took.as_nanos() as f64).min(OUTLIER * mean);
        // never so low that nothing could lift it again; of two that write at once one is lost, and not missed
        self.0.store((mean + (took - mean) / 50.0).max(1.0).to_bits(), Relaxed);
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

    async fn run<T: Send + 'static>(
        pool: &Pool,
        requests: usize,
        deadline: Instant,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        pool.reserve()?.due(requests, deadline)?.run(job).await
    }

    #[tokio::test]
    async fn jobs_are_done_and_answered() {
        let pool = Pool::start(2, Duration::from_mins(1)).unwrap();
        let all = (0..100).map(|number| run(&pool, 1, later(), move || number * number));
        let squares: Vec<_> = futures_util::future::join_all(all).await;
        assert_eq!(squares, (0..100).map(|number| Ok(number * number)).collect::<Vec<_>>());
        assert_eq!(pool.pending(), 0);
    }

    #[tokio::test]
    async fn a_long_queue_refuses_and_lowers_effort_before_it_does() {
        let pool = Arc::new(Pool::start(1, Duration::from_millis(10)).unwrap());
        let (release, held) = mpsc::channel::<()>();
        let first = Arc::clone(&pool);
        let stuck = tokio::spawn(async move { run(&first, 1, later(), move || held.recv().is_ok()).await });
        while pool.pending() == 0 {
            tokio::task::yield_now().await;
        }
        let (mut waiting, mut efforts) = (Vec::new(), Vec::new());
        let refused = loop {
            let mut next = Box::pin(run(&pool, 1, later(), || ()));
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
        assert!(run(&pool, 1, later(), || ()).await.is_ok(), "there is room again");
    }

    #[tokio::test]
    async fn a_burst_is_let_in_and_a_queue_that_stands_is_not() {
        let pool = Arc::new(Pool::start(1, Duration::from_millis(10)).unwrap());
        let room = || std::iter::from_fn(|| pool.reserve().ok()).take(1_000).collect::<Vec<_>>().len();
        while pool.shared.idle.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        let burst = room();
        let (release, held) = mpsc::channel::<()>();
        let busy = Arc::clone(&pool);
        let stuck = tokio::spawn(async move { run(&busy, 1, later(), move || held.recv().is_ok()).await });
        while pool.shared.idle.load(Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
        std::thread::sleep(2 * MOMENT);
        let standing = room();
        assert!(burst < 1_000 && burst > 4 * standing && standing > 10, "{burst} and {standing}");
        release.send(()).unwrap();
        assert_eq!(stuck.await.unwrap(), Ok(true));
    }

    #[tokio::test]
    async fn who_has_a_place_counts_before_any_job_is_there() {
        let pool = Pool::start(1, Duration::from_millis(10)).unwrap();
        let mut tickets: Vec<Ticket> = std::iter::from_fn(|| pool.reserve().ok()).take(1_000).collect();
        assert!(tickets.len() < 1_000 && pool.pending() == tickets.len(), "{} were let in", tickets.len());
        assert_eq!(pool.reserve().unwrap_err(), Refused::Busy);
        tickets.truncate(1);
        // a batch counts for what is in it
        let batch = pool.reserve().unwrap().due(500, later()).unwrap();
        assert_eq!((pool.pending(), pool.reserve().unwrap_err()), (501, Refused::Busy));
        drop((batch, tickets));
        assert_eq!(pool.pending(), 0);
    }

    #[tokio::test]
    async fn a_request_that_took_for_ever_keeps_nobody_out() {
        let pool = Pool::start(2, Duration::from_millis(10)).unwrap();
        // the machine stood still while a request was worked on, and once more
        (0..2).for_each(|_| pool.shared.cost_ns.learn(Duration::from_mins(10)));
        assert!(pool.shared.cost_ns.get() < 2.0 * FIRST_GUESS_NS);
        // even if it costs more than there is time for, an idle pool tries
        pool.shared.cost_ns.0.store(6e9_f64.to_bits(), Relaxed);
        let soon = || Instant::now() + Duration::from_secs(3);
        for _ in 0..600 {
            assert_eq!(run(&pool, 1, soon(), || ()).await, Ok(()));
        }
        assert!(pool.shared.cost_ns.get() < 1e9, "and learns what they cost");
    }

    #[tokio::test]
    async fn what_cannot_be_in_time_is_not_begun_and_what_falls_over_takes_nothing_with_it() {
        let pool = Pool::start(1, Duration::from_mins(1)).unwrap();
        assert_eq!(run(&pool, 1, Instant::now(), || ()).await, Err(Refused::Busy));
        let fallen = run(&pool, 1, later(), || std::panic::resume_unwind(Box::new(()))).await;
        assert_eq!(fallen, Err::<(), _>(Refused::Lost));
        assert_eq!(run(&pool, 1, later(), || 7).await, Ok(7));
        assert_eq!(pool.pending(), 0);
        // behind another, a batch that takes longer than its deadline is refused
        let _other = pool.reserve().unwrap();
        let batch = || pool.reserve().unwrap();
        let in_a_second = Instant::now() + Duration::from_secs(1);
        assert_eq!(batch().due(1_000_000, in_a_second).unwrap_err(), Refused::Busy);
        assert!(batch().due(1, in_a_second + Duration::from_mins(1)).is_ok());
    }
}
