//! A small release and some lists, put into a store to be read for a while and removed again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use super::search::Searches;
use super::{CostError, CostSpec, IN_FLIGHT, Op, STRIDE, cores};
use crate::catalog::Index;
use crate::engine::{self, Effort, Engine, EngineOptions, OwnedId, Rung};
use crate::graph::SearchOptions;
use crate::input::Id;
use crate::kv::{Kv, KvStats};
use crate::plan::Cost;
use crate::plan::meter::Meter;
use crate::store::{self, Ranked, ReleaseSpec, UserVectors, Users, list_bytes, pack_list, unpack_list};

/// Each kind of request is measured loaded for so long, so many times, by turns with the others: they are compared with each
/// other, and a machine's speed changes. The processor's clock ticks every few milliseconds.
const SPAN: Duration = Duration::from_millis(150);
const SPANS: usize = 6;

/// Requests of a kind that are timed one by one, in a second at the most.
const ALONE: usize = 2000;
const ALONE_SPAN: Duration = Duration::from_secs(1);

/// The engine waits as long for the store: a slow one is measured, and not done without.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Lists in the scratch release, and sets of candidates: more than a core's own caches hold, since users' lists are all
/// over a server's memory; at most 4 MiB of each.
const VALUES: usize = 16_384;
pub(super) const BYTES: usize = 4 << 20;

/// What lists are packed with, as with a release's fingerprint.
const SALT: u64 = 1;

/// Longer than the measurement takes; what could not be removed is gone after it.
const TTL: Duration = Duration::from_mins(2);

/// What is measured: whole requests, and of what they do the search and the writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// One that a list answers.
    List,
    /// One that a set of candidates does.
    Candidates,
    /// One that is answered in real time.
    RealTime,
    /// One that is when no list was found.
    Missed,
    /// The search of those two.
    Search,
    Write,
}

impl Request {
    pub const ALL: [Self; 6] = [Self::List, Self::Candidates, Self::RealTime, Self::Missed, Self::Search, Self::Write];
}

/// What was put into the store, and an engine that serves it.
pub(super) struct Scratch<K> {
    kv: K,
    ns: String,
    engine: Engine<K>,
    searches: Searches,
    items: u32,
    list: Vec<Ranked>,
    candidates: Vec<Ranked>,
}

/// What a kind of request has taken so far.
#[derive(Default)]
struct Tally {
    requests: usize,
    client: Duration,
    server: Option<Duration>,
    idle: Duration,
}

impl<K: Kv + Clone + 'static> Scratch<K> {
    pub async fn write(kv: &K, spec: &CostSpec<'_>, index: Index) -> Result<Self, CostError> {
        let searches = Searches::new(spec, index.profile().default_ef() as u32)?;
        let records = &searches.records;
        // of no one else, should several measure at once
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ns = format!("tng-plan-{:x}-{:x}", std::process::id(), now.as_micros());
        let release = ReleaseSpec {
            name: "scratch".to_owned(),
            fingerprint: index.fingerprint(),
            codec: spec.codec,
            dim: spec.users.dim() as u32,
            grace: TTL,
        };
        let encode = |rows: &[u32], out: &mut [u8]| {
            let records = rows.iter().map(|&row| &records[row as usize][..]);
            out.copy_from_slice(&records.collect::<Vec<_>>().concat());
            Ok(())
        };
        let id = |row| Id::U64(u64::from(row));
        let ids = if spec.dense { store::Ids::Dense } else { store::Ids::Listed(&id) };
        let users = Users { count: records.len() as u32, ids, encode: &encode };
        store::publish(kv, &ns, &release, &users, &mut |_| ()).await?;
        let users = UserVectors::open_release(kv.clone(), &ns, &release.name).await?;
        let options = EngineOptions { store_timeout: STORE_TIMEOUT, ..EngineOptions::default() };
        let engine = Engine::open(index, users, options, Arc::default())?;
        let (list, candidates) = (ranked(spec, spec.list_items), ranked(spec, spec.candidates_items));
        let (kv, items) = (kv.clone(), spec.items);
        let scratch = Self { kv, ns, engine, searches, items, list, candidates };
        for kind in [Request::List, Request::Candidates] {
            let value = pack_list(scratch.ranked(kind), items, SALT)?;
            let entries = (0..scratch.values(kind)).map(|at| (scratch.key(kind, at), value.clone())).collect();
            scratch.kv.set_many(entries, Some(TTL)).await?;
        }
        Ok(scratch)
    }

    fn ranked(&self, kind: Request) -> &[Ranked] {
        if kind == Request::Candidates { &self.candidates } else { &self.list }
    }

    /// How many lists, or sets of candidates, there are.
    fn values(&self, kind: Request) -> usize {
        (BYTES / list_bytes(self.ranked(kind).len(), self.items).max(1)).clamp(1, VALUES)
    }

    fn key(&self, kind: Request, at: usize) -> Vec<u8> {
        let kind = match kind {
            Request::Candidates => 'c',
            Request::Missed => 'm',
            _ => 'l',
        };
        format!("{}:{kind}:{at}", self.ns).into_bytes()
    }

    /// The `at`-th of many requests, each of which is for others than those before.
    async fn request(&self, kind: Request, at: usize) -> Result<(), CostError> {
        match kind {
            Request::List | Request::Candidates => {
                let found = self.kv.get_many(&[self.key(kind, at * STRIDE % self.values(kind))]).await?;
                let value = found.into_iter().next().flatten().ok_or(CostError::Gone)?;
                let mut best = unpack_list(&value, self.items, SALT)?;
                best.truncate(self.searches.options.k);
                std::hint::black_box(best);
            }
            Request::RealTime => self.answer(at).await?,
            Request::Missed => {
                let found = self.kv.get_many(&[self.key(kind, at)]).await?;
                std::hint::black_box(found);
                self.answer(at).await?;
            }
            Request::Search => self.searches.run(self.engine.index(), at)?,
            Request::Write => {
                let value = pack_list(&self.list, self.items, SALT)?;
                let entry = (self.key(Request::List, at * STRIDE % self.values(kind)), value);
                self.kv.set_many(vec![entry], Some(TTL)).await?;
            }
        }
        Ok(())
    }

    /// A request as the engine answers it, with all that may be kept of the user read beside the page, and not there.
    async fn answer(&self, at: usize) -> Result<(), CostError> {
        let user = OwnedId::U64((at * STRIDE % self.searches.records.len()) as u64);
        let SearchOptions { k, ef } = self.searches.options;
        let request = engine::Request { user: Some(user), k, effort: Effort::Ef(ef), ..engine::Request::default() };
        let answer = self.engine.recommend_one(&request).await?;
        if answer.vector.rung == Rung::Page { Ok(()) } else { Err(CostError::Gone) }
    }

    /// Measures all kinds of requests, in their order. `progress` is told the part that is done.
    pub async fn measure(
        self: &Arc<Self>,
        progress: &mut dyn FnMut(f64),
    ) -> Result<[Op; Request::ALL.len()], CostError> {
        for kind in Request::ALL {
            self.loaded(kind, SPAN / 3).await?; // connections and caches warm up
        }
        let mut tallies: [Tally; Request::ALL.len()] = Default::default();
        for span in 0..SPANS {
            for (tally, kind) in tallies.iter_mut().zip(Request::ALL) {
                self.tally(kind, tally).await?;
            }
            progress((span + 1) as f64 / (SPANS + 1) as f64);
        }
        let mut ops = [Op::default(); Request::ALL.len()];
        for ((op, tally), kind) in ops.iter_mut().zip(tallies).zip(Request::ALL) {
            *op = Op::new(tally.cost(), self.alone(kind).await?);
        }
        progress(1.0);
        Ok(ops)
    }

    /// One more span.
    async fn tally(self: &Arc<Self>, kind: Request, tally: &mut Tally) -> Result<(), CostError> {
        let served = |stats: KvStats| stats.cpu;
        let before = served(self.kv.stats().await?);
        let meter = Meter::start();
        let requests = self.loaded(kind, SPAN).await?;
        let spent = meter.stop();
        let took = before.zip(served(self.kv.stats().await?)).map(|(before, after)| after.saturating_sub(before));
        tally.requests += requests;
        tally.client += spent.busy(cores());
        tally.server = took.map(|took| tally.server.unwrap_or_default() + took);
        tally.idle += spent.idle;
        Ok(())
    }

    /// How long requests take one by one, in microseconds.
    async fn alone(&self, kind: Request) -> Result<Vec<f64>, CostError> {
        let (mut alone, started) = (Vec::with_capacity(ALONE), Instant::now());
        while alone.len() < ALONE && (alone.is_empty() || started.elapsed() < ALONE_SPAN) {
            let begun = Instant::now();
            self.request(kind, alone.len()).await?;
            alone.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(alone)
    }

    /// Makes requests on every core, and says how many.
    async fn loaded(self: &Arc<Self>, kind: Request, length: Duration) -> Result<usize, CostError> {
        let scratch = Arc::clone(self);
        let request = move |at| {
            let scratch = Arc::clone(&scratch);
            async move { scratch.request(kind, at).await }
        };
        saturate(length, request).await
    }

    /// Everything by its name: see `docs/wire-format.md`.
    pub async fn remove(&self) -> Result<(), CostError> {
        let (ns, manifest) = (&self.ns, self.engine.users().manifest());
        let pages = (0..manifest.pages()).map(|page| format!("{ns}:{}:{page}", manifest.keys()).into_bytes());
        let values = (0..VALUES).flat_map(|at| [self.key(Request::List, at), self.key(Request::Candidates, at)]);
        let others = [format!("{ns}:r:{}", manifest.name), format!("{ns}:current")].map(String::into_bytes);
        self.kv.delete_many(&pages.chain(values).chain(others).collect::<Vec<_>>()).await?;
        Ok(())
    }
}

impl Tally {
    fn cost(&self) -> Cost {
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / self.requests.max(1) as f64;
        Cost {
            client_us: each(self.client),
            server_us: self.server.map_or(0.0, each),
            idle_us: each(self.idle),
            p99_us: 0.0,
        }
    }
}

/// A list of so many items, or of all if there are fewer: rows all over the index, and scores that fall.
fn ranked(spec: &CostSpec<'_>, items: u32) -> Vec<Ranked> {
    let of = spec.items.max(1) as usize;
    let item = |at: u32| Ranked { row: (at as usize * STRIDE % of) as u32, score: -(at as f32) };
    (0..items.min(spec.items)).map(item).collect()
}

/// Makes requests for a while, [`IN_FLIGHT`] at a time for each core, and says how many. Each of those in flight
/// is a task of its own, as in a service each connection is.
pub async fn saturate<F, E>(length: Duration, request: impl Fn(usize) -> F + Clone + Send + 'static) -> Result<usize, E>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    let until = Instant::now() + length;
    let lanes = cores() * IN_FLIGHT;
    let mut tasks = JoinSet::new();
    for lane in 0..lanes {
        let request = request.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while Instant::now() < until {
                request(lane + done * lanes).await?;
                done += 1;
            }
            Ok(done)
        });
    }
    let mut requests = 0;
    while let Some(ended) = tasks.join_next().await {
        // a task that is not joined has panicked or its runtime is going: there is nothing to count
        requests += ended.unwrap_or(Ok(0))?;
    }
    Ok(requests)
}
