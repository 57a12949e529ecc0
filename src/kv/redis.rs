//! The Redis home: one server, core commands, explicit timeouts.
//!
//! Two multiplexed connections that reconnect by themselves: one for requests, with a short timeout, and one for bulk
//! writes, so that a load never stands before a request in the same queue. `WATCH` belongs to a connection, not to a
//! command, so [`compare_and_set`](Kv::compare_and_set) with an expected value opens one of its own.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use ::redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, InfoDict, Pipeline, RedisError, Value, cmd};

use super::{KeyRange, Kv, KvError, KvStats, ttl_ms};

/// About what a command and its framing weigh on the wire beside its key and value.
const COMMAND_BYTES: usize = 32;

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// For connecting and logging in, each try; a lost connection is tried twice. 1,000 ms: a SYN lost once is resent
    /// after a second, and a server that takes longer will not hold a latency goal anyway.
    pub connect_timeout_ms: u64,
    /// For the answer to one call. 250 ms: a healthy server's p99 for a hundred keys is under 1 ms, and whoever asked for
    /// a recommendation waits no longer. A request with a deadline of its own drops the future sooner.
    pub response_timeout_ms: u64,
    /// For the answer to one pipeline of a bulk write. 10,000 ms: a server may stand still for seconds while it forks
    /// or grows its key table, and a load that gives up then has to start again.
    pub bulk_timeout_ms: u64,
    /// A bulk write is split into pipelines once they reach this many bytes of commands; the answers of one are awaited
    /// before the next. 1 MiB: a hundred pages hide the round trip, and bytes in flight count against the server's
    /// `maxmemory`.
    pub bulk_bytes: usize,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { connect_timeout_ms: 1_000, response_timeout_ms: 250, bulk_timeout_ms: 10_000, bulk_bytes: 1 << 20 }
    }
}

/// A Redis (or Valkey) server. Cheap to clone: clones share the connections.
///
/// It belongs to the tokio runtime it was connected on.
#[derive(Clone)]
pub struct RedisKv {
    client: Arc<Client>,
    requests: ConnectionManager,
    bulk: ConnectionManager,
    options: RedisOptions,
    home: Arc<str>,
}

impl RedisKv {
    /// Connects to `redis://[user:password@]host[:port][/db]`. Needs a tokio runtime with time and I/O enabled.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, KvError> {
        let client = Client::open(url).map_err(|e| KvError::BadUrl { url: without_login(url), why: e.to_string() })?;
        let info = client.get_connection_info();
        let home: Arc<str> = format!("redis://{}/{}", info.addr(), info.redis_settings().db()).into();
        let managed = |response_ms| {
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(Duration::from_millis(options.connect_timeout_ms)))
                .set_response_timeout(Some(Duration::from_millis(response_ms)))
                .set_number_of_retries(1);
            ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(|e| explain(&home, response_ms, e))
        };
        let kv = Self {
            requests: managed(options.response_timeout_ms)?,
            bulk: managed(options.bulk_timeout_ms)?,
            client: Arc::new(client.clone()),
            options: options.clone(),
            home: Arc::clone(&home),
        };
        // a wrong address or password is told here, not at the first request
        cmd("PING")
            .query_async::<Value>(&mut kv.requests.clone())
            .await
            .map_err(|e| explain(&home, options.connect_timeout_ms, e))?;
        Ok(kv)
    }

    fn explain(&self, error: RedisError) -> KvError {
        explain(&self.home, self.options.response_timeout_ms, error)
    }

    pub(super) fn wrong(&self, expected: &'static str, got: &Value) -> KvError {
        let mut got = format!("{got:?}");
        if got.len() > 60 {
            got = got.chars().take(60).chain("...".chars()).collect();
        }
        KvError::WrongReply { home: self.home.to_string(), expected, got }
    }

    /// The sum of replies that are each 0 or 1.
    fn count<'v>(&self, replies: impl Iterator<Item = &'v Value>) -> Result<u64, KvError> {
        let mut sum = 0;
        for reply in replies {
            match reply {
                Value::Int(n @ 0..=1) => sum += *n as u64,
                other => return Err(self.wrong("0 or 1", other)),
            }
        }
        Ok(sum)
    }

    /// One command that no trait method has.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, KvError> {
        command.query_async(&mut self.requests.clone()).await.map_err(|e| self.explain(e))
    }

    /// One round trip for requests: all the replies, or the first error among them.
    async fn ask(&self, pipeline: &mut Pipeline) -> Result<Vec<Value>, KvError> {
        run(&self.requests, pipeline).await.map_err(|e| self.explain(e))
    }

    /// As many round trips as the in-flight bound asks for. `add` puts the commands of one of `count` entries into a
    /// pipeline and says how many bytes they are.
    async fn load(
        &self,
        count: usize,
        add: impl Fn(&mut Pipeline, usize) -> usize + Send,
    ) -> Result<Vec<Value>, KvError> {
        let mut replies = Vec::with_capacity(count);
        let mut pipeline = Pipeline::new();
        let mut in_flight = 0;
        for entry in 0..count {
            in_flight += add(&mut pipeline, entry);
            if in_flight >= self.options.bulk_bytes || entry + 1 == count {
                let answered = run(&self.bulk, &mut pipeline)
                    .await
                    .map_err(|e| explain(&self.home, self.options.bulk_timeout_ms, e))?;
                replies.extend(answered);
                pipeline.clear();
                in_flight = 0;
            }
        }
        Ok(replies)
    }

    /// A connection that nothing else uses.
    async fn dedicated(&self) -> Result<MultiplexedConnection, KvError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(self.options.connect_timeout_ms)))
            .set_response_timeout(Some(Duration::from_millis(self.options.response_timeout_ms)));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|e| explain(&self.home, self.options.connect_timeout_ms, e))
    }

    async fn set_if_absent(&self, key: &[u8], new: &[u8], ttl: Option<Duration>) -> Result<bool, KvError> {
        let mut set = set(key, new, ttl);
        set.arg("NX");
        let reply = set.query_async::<Value>(&mut self.requests.clone()).await.map_err(|e| self.explain(e))?;
        match reply {
            Value::Okay => Ok(true),
            Value::Nil => Ok(false),
            other => Err(self.wrong("OK or nil", &other)),
        }
    }

    /// `WATCH`, look, `MULTI SET EXEC`. A refused `EXEC` means that someone else wrote in between, perhaps the same
    /// bytes: look again. Each turn means another writer's success, so it ends.
    async fn set_if_equal(
        &self,
        key: &[u8],
        expected: &[u8],
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        let mut own = self.dedicated().await?;
        loop {
            let mut look = Pipeline::new();
            look.cmd("WATCH").arg(key).ignore().cmd("GET").arg(key);
            let (found,): (Option<Vec<u8>>,) = look.query_async(&mut own).await.map_err(|e| self.explain(e))?;
            if found.as_deref() != Some(expected) {
                return Ok(false);
            }
            let mut write = Pipeline::new();
            write.atomic().add_command(set(key, new, ttl));
            let done: Option<Vec<Value>> = write.query_async(&mut own).await.map_err(|e| self.explain(e))?;
            if done.is_some() {
                return Ok(true);
            }
        }
    }
}

impl Kv for RedisKv {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        // not MGET: it answers nil for a key of another type, and spans slots in a cluster
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.cmd("GET").arg(key);
        }
        let replies = self.ask(&mut pipeline).await?;
        let value = |reply| match reply {
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::Nil => Ok(None),
            other => Err(self.wrong("bytes or nil", &other)),
        };
        replies.into_iter().map(value).collect()
    }

    async fn get_ranges(&self, ranges: &[KeyRange]) -> Result<Vec<Vec<u8>>, KvError> {
        let mut pipeline = Pipeline::with_capacity(ranges.len());
        for KeyRange { key, start, end } in ranges {
            // GETRANGE takes the last byte, and -1 for the value's end: an empty range must not become 0..-1
            let (first, last) = if start < end { (*start, *end - 1) } else { (1, 0) };
            pipeline.cmd("GETRANGE").arg(key).arg(first).arg(last);
        }
        let replies = self.ask(&mut pipeline).await?;
        let bytes = |reply| match reply {
            Value::BulkString(bytes) => Ok(bytes),
            other => Err(self.wrong("bytes", &other)),
        };
        replies.into_iter().map(bytes).collect()
    }

    async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
        let add = |pipeline: &mut Pipeline, entry: usize| {
            let (key, value) = &entries[entry];
            pipeline.add_command(set(key, value, ttl));
            COMMAND_BYTES + key.len() + value.len()
        };
        for reply in self.load(entries.len(), add).await? {
            if reply != Value::Okay {
                return Err(self.wrong("OK", &reply));
            }
        }
        Ok(())
    }

    async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        let unlink = |pipeline: &mut Pipeline, entry: usize| {
            pipeline.cmd("UNLINK").arg(&keys[entry]);
            COMMAND_BYTES + keys[entry].len()
        };
        let replies = self.load(keys.len(), unlink).await?;
        self.count(replies.iter())
    }

    async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        // PERSIST answers 0 both for a key without a TTL and for none at all; EXISTS, once the TTL is off, settles it
        let pair = |pipeline: &mut Pipeline, entry: usize| {
            pipeline.cmd("PERSIST").arg(&keys[entry]);
            pipeline.cmd("EXISTS").arg(&keys[entry]);
            2 * (COMMAND_BYTES + keys[entry].len())
        };
        let replies = self.load(keys.len(), pair).await?;
        self.count(replies.iter().skip(1).step_by(2))
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        match expected {
            None => self.set_if_absent(key, new, ttl).await,
            Some(expected) => self.set_if_equal(key, expected, new, ttl).await,
        }
    }

    async fn stats(&self) -> Result<KvStats, KvError> {
        let info: InfoDict = cmd("INFO").query_async(&mut self.requests.clone()).await.map_err(|e| self.explain(e))?;
        let used_bytes = info.get("used_memory").ok_or_else(|| self.wrong("used_memory in INFO", &Value::Nil))?;
        Ok(KvStats {
            version: info.get("redis_version").unwrap_or_default(),
            used_bytes,
            limit_bytes: info.get("maxmemory").filter(|&limit: &u64| limit > 0),
            eviction: info.get("maxmemory_policy"),
        })
    }
}

fn set(key: &[u8], value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut set = cmd("SET");
    set.arg(key).arg(value);
    if let Some(ttl) = ttl {
        set.arg("PX").arg(ttl_ms(ttl));
    }
    set
}

async fn run(on: &ConnectionManager, pipeline: &mut Pipeline) -> Result<Vec<Value>, RedisError> {
    if pipeline.is_empty() {
        return Ok(Vec::new());
    }
    // each reply apart, so that an error is the server's own words and not a list of a thousand
    pipeline.ignore_errors();
    let replies: Vec<Result<Value, RedisError>> = pipeline.query_async(&mut on.clone()).await?;
    replies.into_iter().collect()
}

fn explain(home: &str, limit_ms: u64, error: RedisError) -> KvError {
    let home = home.to_owned();
    let words = error.to_string();
    if error.is_timeout() {
        return KvError::TimedOut { home, limit_ms };
    }
    match error.kind() {
        ErrorKind::Io => KvError::Unavailable { home, detail: words },
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            KvError::WrongReply { home, expected: "a reply of the Redis protocol", got: words }
        }
        _ => {
            // in a transaction the reason stands behind EXECABORT
            let reasons = error.into_server_errors().unwrap_or_default();
            if reasons.iter().any(|(_, reason)| reason.code() == "OOM") {
                KvError::OutOfMemory { home, words }
            } else {
                KvError::Refused { home, words }
            }
        }
    }
}

/// The address without `user:password@`, for an error message. What cannot be told apart is left out.
fn without_login(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    format!("{scheme}://{address}")
}
