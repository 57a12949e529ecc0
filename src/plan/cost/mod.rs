//! What a request costs in each serving mode, from a short measurement with the actual index and store.
//!
//! Whole requests are measured, as the engine serves them: one that a *list* answers, one in *real time*, and one that looks
//! for a list in vain and goes on in real time. Each is measured loaded, with every core as busy as it will be and many
//! requests in flight on each as a service would have them, for what it takes of service and server and what of the cores stays
//! idle; and alone, for how long one request waits. No number here is a constant: on another
//! machine, with another index, they are others.
//!
//! The one thing to know: real time is measured with one effort, and the search alone with that and with every other. So what
//! is told of a step is a difference: of a whole request less its search, or of two whole requests; and a mode's sum with
//! another effort is a whole request whose search was exchanged. Parts that were measured each for itself would not add up:
//! alone, a read pays for a wake-up by itself; in a crowd that is shared, but so are caches and memory.
//!
//! The store is measured by a small scratch release and some lists, 12 MiB or less, under a namespace of their own. They are
//! removed again; should that fail, all but the few bytes of the namespace's ledger expire by themselves.

mod scratch;
mod search;

use std::sync::Arc;

use serde::Serialize;

use scratch::Scratch;
pub use scratch::saturate;
use search::Searches;

use super::meter::Meter;
use super::{Cost, Costs};
use crate::catalog::{CatalogError, Index};
use crate::codec::{Codec, Metric};
use crate::engine::EngineError;
use crate::input::Vectors;
use crate::kv::{Kv, KvError};
use crate::store::{StoreError, list_bytes};

/// Requests in flight on each core while an operation is measured loaded. A service has as many of its own accord when it
/// is busy; a hundred cost the same each.
pub const IN_FLIGHT: usize = 32;

/// Users and lists are read in steps of this: a prime, so that all are, and none after its neighbour.
const STRIDE: usize = 1_000_003;

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
}

/// One operation on the store, or a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Op {
    /// What it takes, loaded, and how long one in a hundred takes alone.
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
    /// Cores that were kept busy, by the service's threads and by the store's server if it is on this machine.
    pub cores: usize,
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
    /// Looking for either in vain, before a search.
    pub missed: Op,
    /// Reading a vector, with all that may be kept of a user beside it, and making an answer of what the search finds.
    pub vector: Op,
    /// Writing a list with a TTL.
    pub write: Op,
}

impl StoreCosts {
    /// As the solver takes them.
    pub fn costs(&self) -> Costs {
        let Self { list, candidates, missed, vector, write, .. } = self;
        Costs {
            list: list.cost,
            candidates: candidates.cost,
            missed: missed.cost,
            vector: vector.cost,
            write: write.cost,
        }
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
    /// A request.
    #[error(transparent)]
    Engine(#[from] EngineError),
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

/// Measures requests that the store answers with lists and the index with searches; takes about seven seconds. `progress` is
/// told the part that is done, from 0 to 1.
///
/// Processor time is that of the whole process: nothing else should run in it meanwhile. The runtime should have a thread
/// for each core: they are all kept busy.
pub async fn store_costs<K: Kv + Clone + 'static>(
    kv: &K,
    spec: &CostSpec<'_>,
    index: Index,
    progress: &mut dyn FnMut(f64),
) -> Result<StoreCosts, CostError> {
    let stats = kv.stats().await?;
    let expected = 4 * scratch::BYTES as u64;
    if let Some(free) = stats.limit_bytes.map(|limit| limit.saturating_sub(stats.used_bytes)).filter(|&f| f < expected)
    {
        return Err(CostError::Full { expected, free });
    }
    let scratch = Arc::new(Scratch::write(kv, spec, index).await?);
    let measured = scratch.measure(progress).await;
    let removed = scratch.remove().await;
    // where both failed, the first says more
    let [list, candidates, real_time, missed, search, write] = measured?;
    removed?;
    Ok(StoreCosts {
        store: stats.version,
        server: stats.eviction.is_some(),
        by_processor: Meter::start().stop().cpu.is_some(),
        cores: cores(),
        codec: spec.codec,
        list_bytes: spec.bytes(spec.list_items),
        candidates_bytes: spec.bytes(spec.candidates_items),
        list,
        candidates,
        missed: missed.without(real_time),
        vector: real_time.without(search),
        write,
    })
}

/// Cores that a runtime's tasks are run on: one for each of its threads.
fn cores() -> usize {
    tokio::runtime::Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers())
}

/// Measures searches of an index with each of some efforts; takes a fifth of a second for each.
pub fn search_costs(
    index: &Index,
    spec: &CostSpec,
    efs: &[u32],
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<SearchCost>, CatalogError> {
    let mut searches = Searches::new(spec, 0)?;
    let one = |(at, &ef): (usize, &u32)| {
        searches.options.ef = ef as usize;
        let cost = SearchCost { ef, op: searches.measure(index)? };
        progress((at + 1) as f64 / efs.len() as f64);
        Ok(cost)
    };
    efs.iter().enumerate().map(one).collect()
}

impl Op {
    fn new(cost: Cost, mut alone_us: Vec<f64>) -> Self {
        let (p50_us, p99_us) = (quantile(&mut alone_us, 0.5), quantile(&mut alone_us, 0.99));
        Self { cost: Cost { p99_us, ..cost }, p50_us }
    }

    /// What is left of it when a part is not done. One in a hundred is as slow with the part's median taken away: the part
    /// is seldom slow itself just then.
    fn without(self, part: Self) -> Self {
        let left = |whole: f64, part: f64| (whole - part).max(0.0);
        let (whole, p50_us) = (self.cost, part.p50_us);
        let cost = Cost {
            client_us: left(whole.client_us, part.cost.client_us),
            server_us: left(whole.server_us, part.cost.server_us),
            idle_us: left(whole.idle_us, part.cost.idle_us),
            p99_us: left(whole.p99_us, p50_us),
        };
        Self { cost, p50_us: left(self.p50_us, p50_us) }
    }
}

/// The value that this part of them is not above; 0 of none.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    let at = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
    if values.is_empty() { 0.0 } else { *values.select_nth_unstable_by(at, f64::total_cmp).1 }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::catalog::{BuildSpec, build};
    use crate::kv::{EmbeddedKv, KeyRange, KvStats};

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

        async fn get_ranges(&self, ranges: &[KeyRange]) -> Vec<Result<Vec<u8>, KvError>> {
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
        let index = folder.path().join("items.tng");
        let index = build(&BuildSpec::new(users, metric), &index, &|_| ()).unwrap().0;
        let kv = Broken(EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap());
        let error = store_costs(&kv, &spec, index, &mut |_| ()).await.unwrap_err();
        assert!(matches!(error, CostError::Gone), "{error}");
    }
}
