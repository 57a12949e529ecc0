//! What a request costs in each serving mode, from a short measurement with the actual index and store.
//!
//! Three operations are measured and the modes are sums of them: reading a *list* of results, reading a user's *vector*,
//! and *searching* with it. Each is measured loaded, with many requests in flight on one thread as a service would have
//! them, for what it takes of a processor; and alone, for how long one request waits. No number here is a constant: on
//! another machine, with another index, they are others.
//!
//! The store is measured by a small scratch release and some lists, 2 MB or less, under a namespace of their own. They are
//! removed again; should that fail, all but the few bytes of the namespace's ledger expire by themselves.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::meter::Meter;
use super::{Cost, Costs};
use crate::catalog::{CatalogError, Index, QueryVector};
use crate::codec::{Codec, Metric, record};
use crate::graph::{Filter, SearchOptions};
use crate::input::{Id, Vectors};
use crate::kv::{Kv, KvError, KvStats};
use crate::store::{self, Ranked, ReleaseSpec, StoreError, UserVectors, Users, list_bytes, pack_list, unpack_list};

/// Requests in flight on one thread while an operation is measured loaded. A service has as many of its own accord when
/// it is busy; a hundred cost the same each.
pub const IN_FLIGHT: usize = 32;

/// Users fetched together where a batch is measured.
pub const BATCH: usize = 100;

/// How long each operation is measured, loaded. Half a second in ten parts: the processor's clock ticks every few
/// milliseconds.
const LOADED: Duration = Duration::from_millis(500);

/// How long searches with one effort are measured. A plan asks for a dozen efforts of three indexes.
const SEARCHES: Duration = Duration::from_millis(80);

/// Requests timed one by one.
const ALONE: usize = 2000;

/// Users and lists in the scratch release: more than a processor's nearest cache holds, and at most about 2 MB.
const SCRATCH_USERS: usize = 4096;
const SCRATCH_VALUES: usize = 1024;
const SCRATCH_BYTES: usize = 1 << 20;

/// Users and lists are read in steps of this: a prime, so that all are, and none after its neighbour.
const STRIDE: usize = 1_000_003;

/// What stands in the keys of lists and of candidates.
const LISTS: char = 'l';
const CANDIDATES: char = 'c';

/// What lists are packed with, as with a release's fingerprint.
const SALT: u64 = 1;

/// Longer than the measurement takes; what could not be removed is gone after it.
const SCRATCH_TTL: Duration = Duration::from_mins(2);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct CostSpec<'a> {
    /// Users that ask.
    pub users: &'a Vectors,
    /// How they are compared with items.
    pub metric: Metric,
    /// How they are kept.
    pub codec: Codec,
    /// Whether users are row numbers, and a read fetches one slot; a read of any other ids fetches a page.
    pub dense: bool,
    /// Items in an answer.
    pub k: usize,
    /// Items of the index.
    pub items: u32,
    /// Items of a stored list of results.
    pub list_items: u32,
    /// Items of a stored set of candidates.
    pub candidates_items: u32,
}

impl CostSpec<'_> {
    /// Bytes of a list of so many items, or of all if there are fewer.
    fn bytes(&self, items: u32) -> u32 {
        list_bytes(items.min(self.items) as usize, self.items) as u32
    }

    /// Such a list: rows all over the index, and scores that fall.
    fn ranked(&self, items: u32) -> Vec<Ranked> {
        let of = self.items.max(1) as usize;
        let item = |at: u32| Ranked { row: (at as usize * STRIDE % of) as u32, score: -(at as f32) };
        (0..items.min(self.items)).map(item).collect()
    }
}

/// One operation on the store, or a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Op {
    /// Processor time, loaded, and how long one in a hundred takes alone.
    #[serde(flatten)]
    pub cost: Cost,
    /// How long it takes alone, median, in microseconds.
    pub p50_us: f64,
}

/// What was measured of a store. What the server took is 0 where the store is a file, or a server that does not say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreCosts {
    /// What the store says it is.
    pub store: String,
    /// Whether it is a server of its own. Of a file, nothing is known of a server: there is no network in it.
    pub server: bool,
    /// Whether processor time was measured. Where the system does not tell it, `client_us` are times by the wall.
    pub by_processor: bool,
    /// How users were kept.
    pub codec: Codec,
    /// Bytes of a list.
    pub list_bytes: u32,
    /// Bytes of a set of candidates.
    pub candidates_bytes: u32,
    /// Reading a list.
    pub list: Op,
    /// Reading a set of candidates and taking the best of it.
    pub candidates: Op,
    /// Reading a vector.
    pub vector: Op,
    /// Reading a vector, [`BATCH`] together; a user's part.
    pub batched: Op,
    /// Writing a list with a TTL.
    pub write: Op,
}

impl StoreCosts {
    /// As the solver takes them.
    pub fn costs(&self) -> Costs {
        let Self { list, candidates, vector, write, .. } = self;
        Costs { list: list.cost, candidates: candidates.cost, vector: vector.cost, write: write.cost }
    }
}

/// What was measured of searching.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SearchCost {
    /// The effort.
    pub ef: u32,
    /// One search.
    pub op: Op,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The store.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The scratch release.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index or the users.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A store that is nearly full.
    #[error("the store has {free} bytes left and measuring takes {expected}: measure on another, or without one")]
    Full {
        /// What it takes, with room to spare.
        expected: u64,
        /// What is free.
        free: u64,
    },
    /// A scratch user that is not there any more.
    #[error("a scratch key was gone before it was read: does the store evict?")]
    Gone,
}

/// Measures reading and writing; takes about four seconds. `progress` is told the part that is done, from 0 to 1.
///
/// Processor time is that of the whole process: nothing else should run in it meanwhile, and the runtime should be that
/// of one thread.
pub async fn store_costs<K: Kv + Clone>(
    kv: &K,
    spec: &CostSpec<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<StoreCosts, CostError> {
    let stats = kv.stats().await?;
    let expected = 8 * SCRATCH_BYTES as u64;
    if let Some(free) = stats.limit_bytes.map(|limit| limit.saturating_sub(stats.used_bytes)).filter(|&f| f < expected)
    {
        return Err(CostError::Full { expected, free });
    }
    let records = records(spec)?;
    let scratch = Scratch::write(kv, spec, &records).await?;
    let measured = scratch.measure(spec, progress).await;
    let removed = scratch.remove().await;
    // where both failed, the first says more
    let [list, candidates, vector, batched, write] = measured?;
    removed?;
    Ok(StoreCosts {
        store: stats.version,
        server: stats.eviction.is_some(),
        by_processor: Meter::start().stop().cpu.is_some(),
        codec: spec.codec,
        list_bytes: spec.bytes(spec.list_items),
        candidates_bytes: spec.bytes(spec.candidates_items),
        list,
        candidates,
        vector,
        batched,
        write,
    })
}

/// Measures searches of an index with each of some efforts; takes a tenth of a second for each.
pub fn search_costs(
    index: &Index,
    spec: &CostSpec,
    efs: &[u32],
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<SearchCost>, CatalogError> {
    let records = records(spec)?;
    let one = |(at, &ef): (usize, &u32)| {
        let cost = SearchCost { ef, op: search(index, spec, ef, &records)? };
        progress((at + 1) as f64 / efs.len() as f64);
        Ok(cost)
    };
    efs.iter().enumerate().map(one).collect()
}

/// Records of users, evenly spread over the file.
fn records(spec: &CostSpec) -> Result<Vec<Vec<u8>>, CatalogError> {
    let dim = spec.users.dim();
    let bytes = spec.codec.bytes_per_vector(dim);
    let count = SCRATCH_USERS.min(spec.users.rows()).min((SCRATCH_BYTES / bytes).max(1));
    let rows: Vec<u32> = (0..count).map(|at| (at * spec.users.rows() / count) as u32).collect();
    let mut vectors = vec![0.0; count * dim];
    spec.users.gather(&rows, &mut vectors)?;
    let record = |vector: &mut [f32]| {
        spec.metric.prepare(vector);
        let mut record = vec![0; bytes];
        record::encode(spec.codec, vector, &mut record).map(|()| record)
    };
    Ok(vectors.chunks_mut(dim).map(record).collect::<Result<_, _>>()?)
}

/// What is put into the store to be read.
struct Scratch<'a, K> {
    kv: &'a K,
    ns: String,
    users: UserVectors<K>,
    count: usize,
}

impl<'a, K: Kv + Clone> Scratch<'a, K> {
    async fn write(kv: &'a K, spec: &CostSpec<'_>, records: &[Vec<u8>]) -> Result<Self, CostError> {
        // of no one else, should several measure at once
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ns = format!("tng-plan-{:x}-{:x}", std::process::id(), now.as_micros());
        let release = ReleaseSpec {
            name: "scratch".to_owned(),
            fingerprint: 1,
            codec: spec.codec,
            dim: spec.users.dim() as u32,
            grace: SCRATCH_TTL,
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
        let scratch = Self { kv, ns, users, count: records.len() };
        for (kind, items) in [(LISTS, spec.list_items), (CANDIDATES, spec.candidates_items)] {
            let value = pack_list(&spec.ranked(items), spec.items, SALT)?;
            let entries = (0..values(spec.bytes(items))).map(|at| (scratch.key(kind, at), value.clone())).collect();
            kv.set_many(entries, Some(SCRATCH_TTL)).await?;
        }
        Ok(scratch)
    }

    fn key(&self, kind: char, at: usize) -> Vec<u8> {
        format!("{}:{kind}:{at}", self.ns).into_bytes()
    }

    /// Lists, candidates, vectors, vectors together, writes.
    async fn measure(&self, spec: &CostSpec<'_>, progress: &mut dyn FnMut(f64)) -> Result<[Op; 5], CostError> {
        let (lists, candidates) = (values(spec.bytes(spec.list_items)), values(spec.bytes(spec.candidates_items)));
        let list = self.operation(1, |at| self.read(LISTS, at, lists, spec)).await?;
        progress(0.2);
        let candidates = self.operation(1, |at| self.read(CANDIDATES, at, candidates, spec)).await?;
        progress(0.4);
        let vector = self.operation(1, |at| self.read_vectors(at, 1)).await?;
        progress(0.6);
        let batched = self.operation(BATCH, |at| self.read_vectors(at, BATCH)).await?;
        progress(0.8);
        let best = spec.ranked(spec.list_items);
        let write = self.operation(1, |at| self.write_list(at, lists, spec, &best)).await?;
        progress(1.0);
        Ok([list, candidates, vector, batched, write])
    }

    /// Reads one of so many values, and takes the best `k` of it.
    async fn read(&self, kind: char, at: usize, of: usize, spec: &CostSpec<'_>) -> Result<(), CostError> {
        let found = self.kv.get_many(&[self.key(kind, at * STRIDE % of)]).await?;
        let value = found.into_iter().next().flatten().ok_or(CostError::Gone)?;
        let mut best = unpack_list(&value, spec.items, SALT)?;
        best.truncate(spec.k);
        std::hint::black_box(best);
        Ok(())
    }

    /// Packs and writes one of so many lists.
    async fn write_list(&self, at: usize, of: usize, spec: &CostSpec<'_>, best: &[Ranked]) -> Result<(), CostError> {
        let entry = (self.key(LISTS, at * STRIDE % of), pack_list(best, spec.items, SALT)?);
        Ok(self.kv.set_many(vec![entry], Some(SCRATCH_TTL)).await?)
    }

    /// Reads some users, all over the release.
    async fn read_vectors(&self, at: usize, users: usize) -> Result<(), CostError> {
        let id = |user: usize| Id::U64(((at * users + user) * STRIDE % self.count) as u64);
        let ids: Vec<Id> = (0..users).map(id).collect();
        let found = self.users.get(&ids).await?;
        found.iter().all(Option::is_some).then_some(()).ok_or(CostError::Gone)
    }

    /// Measures an operation for `users` users, and returns what one's part is.
    async fn operation<F: Future<Output = Result<(), CostError>>>(
        &self,
        users: usize,
        run: impl Fn(usize) -> F,
    ) -> Result<Op, CostError> {
        self.loaded(LOADED / 10, &run).await?; // connections and caches warm up
        let served = |stats: KvStats| stats.cpu;
        let before = served(self.kv.stats().await?);
        let meter = Meter::start();
        let requests = self.loaded(LOADED, &run).await?;
        let spent = meter.stop();
        let server = before
            .zip(served(self.kv.stats().await?))
            .map(|(before, after)| after.saturating_sub(before).as_secs_f64());
        let (mut alone, started) = (Vec::with_capacity(ALONE), Instant::now());
        while alone.len() < ALONE && (alone.is_empty() || started.elapsed() < 2 * LOADED) {
            let begun = Instant::now();
            run(alone.len()).await?;
            alone.push(begun.elapsed().as_secs_f64() * 1e6 / users as f64);
        }
        let each = |seconds: f64| seconds * 1e6 / (requests * users).max(1) as f64;
        Ok(Op::new(each(spent.busy().as_secs_f64()), server.map(each), alone))
    }

    /// Runs an operation over and over, [`IN_FLIGHT`] at a time, and says how often.
    async fn loaded<F: Future<Output = Result<(), CostError>>>(
        &self,
        length: Duration,
        run: &impl Fn(usize) -> F,
    ) -> Result<usize, CostError> {
        let until = Instant::now() + length;
        let requests = stream::iter((0..).take_while(|_| Instant::now() < until));
        let answers = requests.map(run).buffer_unordered(IN_FLIGHT);
        answers.try_fold(0, async |done, ()| Ok(done + 1)).await
    }

    /// Everything by its name: see `docs/wire-format.md`.
    async fn remove(&self) -> Result<(), CostError> {
        let (ns, manifest) = (&self.ns, self.users.manifest());
        let pages = (0..manifest.pages()).map(|page| format!("{ns}:{}:{page}", manifest.id).into_bytes());
        let values = (0..SCRATCH_VALUES).flat_map(|at| [self.key(LISTS, at), self.key(CANDIDATES, at)]);
        let others = [format!("{ns}:r:{}", manifest.name), format!("{ns}:current")].map(String::into_bytes);
        self.kv.delete_many(&pages.chain(values).chain(others).collect::<Vec<_>>()).await?;
        Ok(())
    }
}

/// Values of so many bytes that are written.
fn values(bytes: u32) -> usize {
    (SCRATCH_BYTES / bytes.max(1) as usize).clamp(1, SCRATCH_VALUES)
}

impl Op {
    fn new(client_us: f64, server_us: Option<f64>, mut alone_us: Vec<f64>) -> Self {
        let (p50_us, p99_us) = (quantile(&mut alone_us, 0.5), quantile(&mut alone_us, 0.99));
        Self { cost: Cost { client_us, server_us: server_us.unwrap_or(0.0), p99_us }, p50_us }
    }
}

/// One search after the other on one thread.
fn search(index: &Index, spec: &CostSpec, ef: u32, records: &[Vec<u8>]) -> Result<Op, CatalogError> {
    let options = SearchOptions { k: spec.k, ef: ef as usize };
    let one = |at: usize| {
        let vector = QueryVector::Record(spec.codec, &records[at * STRIDE % records.len()]);
        index.search(vector, options, Filter::default()).map(|found| drop(std::hint::black_box(found)))
    };
    (0..records.len().min(200)).try_for_each(one)?;
    let (mut alone, started, meter) = (Vec::new(), Instant::now(), Meter::start());
    while alone.is_empty() || started.elapsed() < SEARCHES {
        let begun = Instant::now();
        one(alone.len())?;
        alone.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let each = meter.stop().busy().as_secs_f64() * 1e6 / alone.len() as f64;
    Ok(Op::new(each, None, alone))
}

/// The value that this part of them is not above; 0 of none.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    let at = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(at, f64::total_cmp).1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{EmbeddedKv, KeyRange};

    /// A store that loses lists and will not remove them.
    #[derive(Clone)]
    struct Broken(EmbeddedKv);

    fn is_list(key: &[u8]) -> bool {
        key.windows(3).any(|part| part == b":l:")
    }

    impl Kv for Broken {
        async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
            if keys.iter().any(|key| is_list(key)) { Ok(vec![None; keys.len()]) } else { self.0.get_many(keys).await }
        }

        async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
            if keys.iter().any(|key| is_list(key)) {
                return Err(KvError::TimedOut { home: "a broken store".to_owned(), limit_ms: 1 });
            }
            self.0.delete_many(keys).await
        }

        async fn get_ranges(&self, ranges: &[KeyRange]) -> Result<Vec<Vec<u8>>, KvError> {
            self.0.get_ranges(ranges).await
        }

        async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
            self.0.set_many(entries, ttl).await
        }

        async fn set_expiring(&self, entries: Vec<(Vec<u8>, Vec<u8>, Duration)>) -> Result<(), KvError> {
            self.0.set_expiring(entries).await
        }

        async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
            self.0.persist_many(keys).await
        }

        async fn compare_and_set(
            &self,
            key: &[u8],
            expected: Option<&[u8]>,
            new: &[u8],
            ttl: Option<Duration>,
        ) -> Result<bool, KvError> {
            self.0.compare_and_set(key, expected, new, ttl).await
        }

        async fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> Result<bool, KvError> {
            self.0.delete_if_equal(key, expected).await
        }

        async fn stats(&self) -> Result<KvStats, KvError> {
            self.0.stats().await
        }
    }

    #[tokio::test]
    async fn what_stopped_the_measurement_is_said_though_its_keys_could_not_be_removed_either() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.fvecs");
        let user =
            |at: u8| [4_u32.to_le_bytes(), f32::from(at).to_le_bytes(), [0; 4], [0; 4], 1_f32.to_le_bytes()].concat();
        std::fs::write(&path, (0..10).flat_map(user).collect::<Vec<u8>>()).unwrap();
        let (users, metric) = (&Vectors::open(&path).unwrap(), Metric::Dot);
        let (items, list_items, candidates_items) = (1000, 100, 500);
        let spec =
            CostSpec { users, metric, codec: Codec::Int8, dense: true, k: 10, items, list_items, candidates_items };
        let kv = Broken(EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap());
        let error = store_costs(&kv, &spec, &mut |_| ()).await.unwrap_err();
        assert!(matches!(error, CostError::Gone), "{error}");
    }
}
