//! A small release and some lists, put into a store to be read for a while and removed again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use super::search::Searches;
use super::{BATCH, CostError, CostSpec, IN_FLIGHT, Op, STRIDE, cores};
use crate::catalog::Index;
use crate::input::Id;
use crate::kv::{KeyRange, Kv, KvStats};
use crate::plan::meter::Meter;
use crate::store::{
    self, Ranked, ReleaseSpec, UserVectors, Users, list_bytes, overlay_key, pack_list, seen_key, session_key,
    unpack_list,
};

/// How long each operation is measured, loaded. Half a second in ten parts: the processor's clock ticks every few
/// milliseconds.
const LOADED: Duration = Duration::from_millis(500);

/// Requests timed one by one.
const ALONE: usize = 2000;

/// Lists in the scratch release, and sets of candidates: more than a core's own caches hold, since users' lists are all
/// over a server's memory; at most 4 MiB of each.
const VALUES: usize = 16_384;
pub(super) const BYTES: usize = 4 << 20;

/// The most that is asked for of what is kept of a user beside the page.
const ASIDE_BYTES: u32 = 1 << 20;

/// What lists are packed with, as with a release's fingerprint.
const SALT: u64 = 1;

/// Longer than the measurement takes; what could not be removed is gone after it.
const TTL: Duration = Duration::from_mins(2);

/// One kind of request to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    List,
    Candidates,
    /// Of what is not there.
    Missed,
    Vector,
    /// [`BATCH`] vectors.
    Vectors,
    Write,
}

impl Request {
    pub const ALL: [Self; 6] = [Self::List, Self::Candidates, Self::Missed, Self::Vector, Self::Vectors, Self::Write];

    /// Whether a service searches next.
    fn is_searched_after(self) -> bool {
        matches!(self, Self::Missed | Self::Vector)
    }

    fn users(self) -> usize {
        if self == Self::Vectors { BATCH } else { 1 }
    }
}

/// What was put into the store.
pub(super) struct Scratch<K> {
    kv: K,
    ns: String,
    users: UserVectors<K>,
    count: usize,
    k: usize,
    items: u32,
    list: Vec<Ranked>,
    candidates: Vec<Ranked>,
    searches: Searches<Arc<Index>>,
}

impl<K: Kv + Clone + 'static> Scratch<K> {
    pub async fn write(kv: &K, spec: &CostSpec<'_>, searches: Searches<Arc<Index>>) -> Result<Self, CostError> {
        let records = &searches.records;
        // of no one else, should several measure at once
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ns = format!("tng-plan-{:x}-{:x}", std::process::id(), now.as_micros());
        let release = ReleaseSpec {
            name: "scratch".to_owned(),
            fingerprint: 1,
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
        let (list, candidates) = (ranked(spec, spec.list_items), ranked(spec, spec.candidates_items));
        let (kv, count, k, items) = (kv.clone(), records.len(), spec.k, spec.items);
        let scratch = Self { kv, ns, users, count, k, items, list, candidates, searches };
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
                best.truncate(self.k);
                std::hint::black_box(best);
            }
            Request::Missed => {
                let found = self.kv.get_many(&[self.key(kind, at)]).await?;
                std::hint::black_box(found);
            }
            Request::Vector => self.vector(Id::U64((at * STRIDE % self.count) as u64)).await?,
            Request::Vectors => {
                let id = |user: usize| Id::U64(((at * kind.users() + user) * STRIDE % self.count) as u64);
                let ids: Vec<Id> = (0..kind.users()).map(id).collect();
                let found = self.users.get(&ids).await?;
                if found.iter().any(Option::is_none) {
                    return Err(CostError::Gone);
                }
            }
            Request::Write => {
                let value = pack_list(&self.list, self.items, SALT)?;
                let entry = (self.key(Request::List, at * STRIDE % self.values(kind)), value);
                self.kv.set_many(vec![entry], Some(TTL)).await?;
            }
        }
        Ok(())
    }

    /// As a request reads it: with its page all that may be kept of the user beside it, which is not there.
    async fn vector(&self, id: Id<'_>) -> Result<(), CostError> {
        let aside = [overlay_key, session_key, seen_key].map(|key| key(&self.ns, id));
        let aside = aside.map(|key| KeyRange { key, start: 0, end: ASIDE_BYTES });
        let ranges: Vec<KeyRange> = aside.into_iter().chain(self.users.range(id)).collect();
        let values = self.kv.get_ranges(&ranges).await?;
        let page = values.last().ok_or(CostError::Gone)?;
        self.users.found(id, page)?.map(drop).ok_or(CostError::Gone)
    }

    /// Measures a kind of request, and returns what one user's part is.
    ///
    /// A vector is read and searched with, and then the next is. Reads that come one by one between searches take more
    /// than in a row: a server that is not busy wakes up for each, and a search leaves nothing else in the core's caches.
    /// So what is measured is both together, less the search by itself.
    pub async fn measure(self: &Arc<Self>, kind: Request) -> Result<Op, CostError> {
        let searching = kind.is_searched_after();
        let searching_us = if searching { self.searches.measure()?.cost.client_us } else { 0.0 };
        self.loaded(kind, searching, LOADED / 10).await?; // connections and caches warm up
        let served = |stats: KvStats| stats.cpu;
        let before = served(self.kv.stats().await?);
        let meter = Meter::start();
        let requests = self.loaded(kind, searching, LOADED).await?;
        let spent = meter.stop();
        let server = before
            .zip(served(self.kv.stats().await?))
            .map(|(before, after)| after.saturating_sub(before).as_secs_f64());
        let (mut alone, started) = (Vec::with_capacity(ALONE), Instant::now());
        while alone.len() < ALONE && (alone.is_empty() || started.elapsed() < 2 * LOADED) {
            let begun = Instant::now();
            self.request(kind, alone.len()).await?;
            alone.push(begun.elapsed().as_secs_f64() * 1e6 / kind.users() as f64);
        }
        let each = |seconds: f64| seconds * 1e6 / (requests * kind.users()).max(1) as f64;
        let client_us = each(spent.busy(cores()).as_secs_f64()) - searching_us;
        Ok(Op::new(client_us.max(0.0), server.map(each), alone))
    }

    /// Makes requests on every core, and says how many; `searching` with each vector that is read.
    async fn loaded(self: &Arc<Self>, kind: Request, searching: bool, length: Duration) -> Result<usize, CostError> {
        let scratch = Arc::clone(self);
        let request = move |at| {
            let scratch = Arc::clone(&scratch);
            async move {
                scratch.request(kind, at).await?;
                if searching {
                    scratch.searches.run(at)?;
                }
                Ok(())
            }
        };
        saturate(length, request).await
    }

    /// Everything by its name: see `docs/wire-format.md`.
    pub async fn remove(&self) -> Result<(), CostError> {
        let (ns, manifest) = (&self.ns, self.users.manifest());
        let pages = (0..manifest.pages()).map(|page| format!("{ns}:{}:{page}", manifest.id).into_bytes());
        let values = (0..VALUES).flat_map(|at| [self.key(Request::List, at), self.key(Request::Candidates, at)]);
        let others = [format!("{ns}:r:{}", manifest.name), format!("{ns}:current")].map(String::into_bytes);
        self.kv.delete_many(&pages.chain(values).chain(others).collect::<Vec<_>>()).await?;
        Ok(())
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
