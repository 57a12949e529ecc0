//! The embedded home: one redb file, for a laptop, a test, or a service that needs no server.
//!
//! Three tables: `values` (key to bytes), `deadlines` (key to unix milliseconds, only for keys with a TTL) and
//! `by_deadline`, the same turned round, so that a write can sweep what has expired without looking at the rest.
//! An expired key is absent to every read at once; its bytes go at one of the next writes.
//!
//! Reads are done in place: they touch memory or one cached disk page. Writes end in an fsync, so they run on tokio's
//! blocking threads, and a `current_thread` runtime goes on serving meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use super::{KeyRange, Kv, KvError, KvStats, ttl_ms};

const VALUES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("values");
const DEADLINES: TableDefinition<&[u8], u64> = TableDefinition::new("deadlines");
const BY_DEADLINE: TableDefinition<(u64, &[u8]), ()> = TableDefinition::new("by_deadline");

/// redb's page cache. Its own default is 1 GiB, which is not a default for a tool about memory budgets; 64 MiB holds
/// the tree above a hundred million users' pages.
const CACHE_BYTES: usize = 64 << 20;

/// Expired keys one write removes at most, so that no single write pays for a night's expiries.
const SWEEP_KEYS: usize = 1_000;

/// An embedded store in one file. Cheap to clone: clones share the file.
#[derive(Clone)]
pub struct EmbeddedKv {
    db: Arc<Database>,
    path: Arc<str>,
}

impl EmbeddedKv {
    /// Opens the file, created when missing. It is read and checked in full, so that a damaged one is refused here and
    /// not by a panic later. One process at a time may have it open.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, KvError> {
        let file = path.as_ref().to_owned();
        let path: Arc<str> = file.to_string_lossy().into();
        let db = blocking(&path, move || {
            let db = Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(file)?;
            let tables = db.begin_write()?;
            Tables::open(&tables)?;
            tables.commit()?;
            Ok(db)
        })
        .await?;
        Ok(Self { db: Arc::new(db), path })
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, KvError> {
        let snapshot = self.db.begin_read().map_err(redb::Error::from);
        snapshot.and_then(|snapshot| work(&snapshot)).map_err(|e| trouble(&self.path, &e))
    }

    /// One transaction: all of `work`, durable on return, or nothing of it.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables, u64) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, KvError> {
        let db = Arc::clone(&self.db);
        blocking(&self.path, move || {
            let transaction = db.begin_write()?;
            let now = now_ms();
            let mut tables = Tables::open(&transaction)?;
            tables.sweep(now)?;
            let done = work(&mut tables, now)?;
            drop(tables);
            transaction.commit()?;
            Ok(done)
        })
        .await
    }
}

/// The three tables, kept in step.
struct Tables<'t> {
    values: Table<'t, &'static [u8], &'static [u8]>,
    deadlines: Table<'t, &'static [u8], u64>,
    by_deadline: Table<'t, (u64, &'static [u8]), ()>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            values: transaction.open_table(VALUES)?,
            deadlines: transaction.open_table(DEADLINES)?,
            by_deadline: transaction.open_table(BY_DEADLINE)?,
        })
    }

    fn live(&self, key: &[u8], now: u64) -> Result<Option<Vec<u8>>, redb::Error> {
        live(&self.values, &self.deadlines, key, now, <[u8]>::to_vec)
    }

    fn set(&mut self, key: &[u8], value: &[u8], deadline: Option<u64>) -> Result<(), redb::Error> {
        self.forget_deadline(key)?;
        self.values.insert(key, value)?;
        if let Some(at) = deadline {
            self.deadlines.insert(key, at)?;
            self.by_deadline.insert((at, key), ())?;
        }
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), redb::Error> {
        self.forget_deadline(key)?;
        self.values.remove(key)?;
        Ok(())
    }

    fn forget_deadline(&mut self, key: &[u8]) -> Result<(), redb::Error> {
        let old = self.deadlines.remove(key)?.map(|at| at.value());
        if let Some(at) = old {
            self.by_deadline.remove((at, key))?;
        }
        Ok(())
    }

    fn sweep(&mut self, now: u64) -> Result<(), redb::Error> {
        let past = (0, [].as_slice())..(now, [].as_slice());
        let mut expired = Vec::new();
        for entry in self.by_deadline.range(past)?.take(SWEEP_KEYS) {
            expired.push(entry?.0.value().1.to_vec());
        }
        for key in expired {
            self.remove(&key)?;
        }
        Ok(())
    }
}

/// What `take` makes of the value of `key`, unless there is none or its time is over.
fn live<T>(
    values: &impl ReadableTable<&'static [u8], &'static [u8]>,
    deadlines: &impl ReadableTable<&'static [u8], u64>,
    key: &[u8],
    now: u64,
    take: impl FnOnce(&[u8]) -> T,
) -> Result<Option<T>, redb::Error> {
    let Some(value) = values.get(key)? else {
        return Ok(None);
    };
    if deadlines.get(key)?.is_some_and(|at| at.value() <= now) {
        return Ok(None);
    }
    Ok(Some(take(value.value())))
}

impl Kv for EmbeddedKv {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        self.read(|snapshot| {
            let (values, deadlines) = (snapshot.open_table(VALUES)?, snapshot.open_table(DEADLINES)?);
            let now = now_ms();
            keys.iter().map(|key| live(&values, &deadlines, key, now, <[u8]>::to_vec)).collect()
        })
    }

    async fn get_ranges(&self, ranges: &[KeyRange]) -> Vec<Result<Vec<u8>, KvError>> {
        let found = self.read(|snapshot| {
            let (values, deadlines) = (snapshot.open_table(VALUES)?, snapshot.open_table(DEADLINES)?);
            let now = now_ms();
            let part = |range: &KeyRange| {
                let cut = |value: &[u8]| {
                    let end = (range.end as usize).min(value.len());
                    let start = (range.start as usize).min(end);
                    value[start..end].to_vec()
                };
                let found = live(&values, &deadlines, &range.key, now, cut).map_err(|e| trouble(&self.path, &e))?;
                Ok(found.unwrap_or_default())
            };
            Ok(ranges.iter().map(part).collect())
        });
        found.unwrap_or_else(|error| vec![Err(error); ranges.len()])
    }

    async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
        self.write(move |tables, now| {
            let deadline = ttl.map(|ttl| now.saturating_add(ttl_ms(ttl)));
            entries.iter().try_for_each(|(key, value)| tables.set(key, value, deadline))
        })
        .await
    }

    async fn set_expiring(&self, entries: Vec<(Vec<u8>, Vec<u8>, Duration)>) -> Result<(), KvError> {
        let set = |tables: &mut Tables, now: u64, (key, value, ttl): &(Vec<u8>, Vec<u8>, Duration)| {
            tables.set(key, value, Some(now.saturating_add(ttl_ms(*ttl))))
        };
        self.write(move |tables, now| entries.iter().try_for_each(|entry| set(tables, now, entry))).await
    }

    async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        let keys = keys.to_vec();
        self.write(move |tables, now| {
            let mut found = 0;
            for key in &keys {
                found += u64::from(tables.live(key, now)?.is_some());
                tables.remove(key)?;
            }
            Ok(found)
        })
        .await
    }

    async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        let keys = keys.to_vec();
        self.write(move |tables, now| {
            let mut found = 0;
            for key in &keys {
                if live(&tables.values, &tables.deadlines, key, now, |_| ())?.is_some() {
                    tables.forget_deadline(key)?;
                    found += 1;
                }
            }
            Ok(found)
        })
        .await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        let (key, expected, new) = (key.to_vec(), expected.map(<[u8]>::to_vec), new.to_vec());
        self.write(move |tables, now| {
            if tables.live(&key, now)? != expected {
                return Ok(false);
            }
            let deadline = ttl.map(|ttl| now.saturating_add(ttl_ms(ttl)));
            tables.set(&key, &new, deadline)?;
            Ok(true)
        })
        .await
    }

    async fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> Result<bool, KvError> {
        let (key, expected) = (key.to_vec(), expected.to_vec());
        self.write(move |tables, now| {
            let equal = tables.live(&key, now)?.as_ref() == Some(&expected);
            if equal {
                tables.remove(&key)?;
            }
            Ok(equal)
        })
        .await
    }

    async fn stats(&self) -> Result<KvStats, KvError> {
        let length = std::fs::metadata(&*self.path).map_err(|e| trouble(&self.path, &redb::Error::Io(e)))?.len();
        Ok(KvStats {
            version: "redb 4".to_owned(),
            used_bytes: length,
            buffer_bytes: 0,
            uncounted_bytes: 0,
            limit_bytes: None,
            eviction: None,
            cpu: None,
            shards: Vec::new(),
        })
    }
}

async fn blocking<T: Send + 'static>(
    path: &Arc<str>,
    work: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, KvError> {
    let ended = tokio::task::spawn_blocking(work).await;
    let result = ended.map_err(|e| KvError::File { path: path.to_string(), detail: e.to_string() })?;
    result.map_err(|e| trouble(path, &e))
}

fn trouble(path: &str, error: &redb::Error) -> KvError {
    KvError::File { path: path.to_owned(), detail: error.to_string() }
}

/// Wall clock: a deadline has to mean the same to the next process that opens the file.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
