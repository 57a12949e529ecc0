//! Any home, chosen by an address on a command line.

use std::path::Path;
use std::time::Duration;

use super::cluster::SCHEME;
use super::{ClusterKv, EmbeddedKv, KeyRange, Kv, KvError, KvStats, Probe, ProbedShard, RedisKv, RedisOptions, probe};

/// A home picked at run time. Cheap to clone: clones share connections or the file.
#[derive(Clone)]
pub enum AnyKv {
    /// A Redis server.
    Redis(RedisKv),
    /// A Redis Cluster.
    Cluster(ClusterKv),
    /// A file.
    Embedded(EmbeddedKv),
}

impl AnyKv {
    /// [`open_with`](Self::open_with) the patience of whoever typed a command: an answer is waited for as long as a bulk
    /// write's, because giving up would mean to begin again.
    pub async fn open(address: &str) -> Result<Self, KvError> {
        let options = RedisOptions::default();
        Self::open_with(address, RedisOptions { response_timeout_ms: options.bulk_timeout_ms, ..options }).await
    }

    /// `redis://[user:password@]host[:port][/db]` connects to a server, and to the whole cluster if the server says that
    /// it is a node of one; `redis-cluster://[user:password@]host[:port]` insists on a cluster. Anything without `://` is
    /// the path of an embedded file, created when missing.
    pub async fn open_with(address: &str, options: RedisOptions) -> Result<Self, KvError> {
        let Some((_, rest)) = address.split_once("://") else {
            return Ok(Self::Embedded(EmbeddedKv::open(address).await?));
        };
        if !address.starts_with(SCHEME) {
            let kv = RedisKv::connect(address, options.clone()).await?;
            if !kv.is_of_cluster().await {
                return Ok(Self::Redis(kv));
            }
        }
        let address = format!("{SCHEME}{rest}");
        Ok(Self::Cluster(ClusterKv::connect(&address, options).await?))
    }

    /// What server it is. `None` for a file, and for a cluster, whose shards are asked one by one.
    pub async fn probe(&self) -> Result<Option<Probe>, KvError> {
        match self {
            Self::Redis(kv) => Ok(Some(probe(kv).await?)),
            Self::Cluster(_) | Self::Embedded(_) => Ok(None),
        }
    }

    /// What each shard of a cluster is; of anything else there is none.
    pub async fn probe_shards(&self) -> Result<Vec<ProbedShard>, KvError> {
        match self {
            Self::Cluster(kv) => kv.probe().await,
            Self::Redis(_) | Self::Embedded(_) => Ok(Vec::new()),
        }
    }

    /// The same for those who only read: an embedded file that is missing is refused, not created.
    pub async fn open_existing(address: &str) -> Result<Self, KvError> {
        if !address.contains("://") && !Path::new(address).exists() {
            return Err(KvError::File { path: address.to_owned(), detail: "there is no such file".to_owned() });
        }
        Self::open(address).await
    }
}

/// The same call on whichever home it is.
macro_rules! any {
    ($self:ident, $kv:ident => $call:expr) => {
        match $self {
            AnyKv::Redis($kv) => $call.await,
            AnyKv::Cluster($kv) => $call.await,
            AnyKv::Embedded($kv) => $call.await,
        }
    };
}

impl Kv for AnyKv {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        any!(self, kv => kv.get_many(keys))
    }

    async fn get_ranges(&self, ranges: &[KeyRange]) -> Vec<Result<Vec<u8>, KvError>> {
        any!(self, kv => kv.get_ranges(ranges))
    }

    async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
        any!(self, kv => kv.set_many(entries, ttl))
    }

    async fn set_expiring(&self, entries: Vec<(Vec<u8>, Vec<u8>, Duration)>) -> Result<(), KvError> {
        any!(self, kv => kv.set_expiring(entries))
    }

    async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        any!(self, kv => kv.delete_many(keys))
    }

    async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        any!(self, kv => kv.persist_many(keys))
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        any!(self, kv => kv.compare_and_set(key, expected, new, ttl))
    }

    async fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> Result<bool, KvError> {
        any!(self, kv => kv.delete_if_equal(key, expected))
    }

    async fn stats(&self) -> Result<KvStats, KvError> {
        any!(self, kv => kv.stats())
    }
}
