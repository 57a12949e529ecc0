//! One server: its two connections, what is sent over them, and what comes back.
//!
//! Two multiplexed connections that reconnect by themselves: one for requests, with a short timeout, and one for bulk
//! writes, so that a load never stands before a request in the same queue. `WATCH` belongs to a connection, not to a
//! command, so [`if_equal`](Node::if_equal) opens one of its own.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use ::redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, InfoDict, Pipeline, RedisError, Value, cmd};

use super::command::{self, Command, Lane};
use super::{KvError, KvStats, RedisOptions};

/// A server. Cheap to clone: clones share the connections.
#[derive(Clone)]
pub(super) struct Node(Arc<Inner>);

struct Inner {
    client: Client,
    requests: ConnectionManager,
    bulk: ConnectionManager,
    options: RedisOptions,
    home: String,
}

impl Node {
    /// Connects when first used. A connection that fails is tried `again` so often before what waits for it fails too.
    pub(super) fn new(client: Client, options: RedisOptions, again: usize) -> Result<Self, KvError> {
        let info = client.get_connection_info();
        let home = format!("redis://{}/{}", info.addr(), info.redis_settings().db());
        let managed = |response_ms| {
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(Duration::from_millis(options.connect_timeout_ms)))
                .set_response_timeout(Some(Duration::from_millis(response_ms)))
                .set_number_of_retries(again);
            ConnectionManager::new_lazy_with_config(client.clone(), config)
                .map_err(|e| command::explain(&home, response_ms, e))
        };
        let (requests, bulk) = (managed(options.response_timeout_ms)?, managed(options.bulk_timeout_ms)?);
        Ok(Self(Arc::new(Inner { client, requests, bulk, options, home })))
    }

    /// Its address, without user and password.
    pub(super) fn home(&self) -> &str {
        &self.0.home
    }

    /// The database that commands go to.
    pub(super) fn database(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }

    pub(super) fn explain(&self, lane: Lane, error: RedisError) -> KvError {
        let limit_ms = match lane {
            Lane::Requests => self.0.options.response_timeout_ms,
            Lane::Bulk => self.0.options.bulk_timeout_ms,
        };
        command::explain(&self.0.home, limit_ms, error)
    }

    /// A wrong address or password is told here, not at the first request.
    pub(super) async fn ping(&self) -> Result<(), KvError> {
        let reply = cmd("PING").query_async::<Value>(&mut self.0.requests.clone()).await;
        reply.map(|_| ()).map_err(|e| command::explain(self.home(), self.0.options.connect_timeout_ms, e))
    }

    /// Sends commands and answers them in order: for a pair of commands the reply to the second, or the first error.
    ///
    /// Requests are one round trip; a load is as many as the in-flight bound asks for. An answer may be an error, and a
    /// load ends with the pipeline in which one was that is no redirection: then there are fewer answers than commands.
    pub(super) async fn send(
        &self,
        lane: Lane,
        commands: &[Command<'_>],
        asking: bool,
    ) -> Vec<Result<Value, RedisError>> {
        let most_bytes = match lane {
            Lane::Requests => usize::MAX,
            Lane::Bulk => self.0.options.bulk_bytes,
        };
        let mut answers = Vec::with_capacity(commands.len());
        let mut rest = commands;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(within(rest, most_bytes));
            let answered = self.pipeline(lane, now, asking).await;
            let broken = answered.iter().any(|answer| matches!(answer, Err(e) if e.redirect_node().is_none()));
            answers.extend(answered);
            rest = if broken { &[] } else { later };
        }
        answers
    }

    async fn pipeline(&self, lane: Lane, commands: &[Command<'_>], asking: bool) -> Vec<Result<Value, RedisError>> {
        let mut pipeline = Pipeline::with_capacity(commands.iter().map(|command| command.replies(asking)).sum());
        commands.iter().for_each(|command| command.add_to(&mut pipeline, asking));
        // each reply apart, so that an error is the server's own words and not a list of a thousand
        pipeline.ignore_errors();
        let mut connection = match lane {
            Lane::Requests => self.0.requests.clone(),
            Lane::Bulk => self.0.bulk.clone(),
        };
        let replies: Vec<Result<Value, RedisError>> = match pipeline.query_async(&mut connection).await {
            Ok(replies) => replies,
            Err(lost) => return vec![Err(lost); commands.len()],
        };
        let mut replies = replies.into_iter();
        let answer = |command: &Command| {
            let own = replies.by_ref().take(command.replies(asking));
            own.reduce(Result::and).unwrap_or_else(|| Err(unexpected("no reply")))
        };
        commands.iter().map(answer).collect()
    }

    /// A single command for requests.
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.0.requests.clone()).await
    }

    /// `WATCH`, look, and `write` in `MULTI EXEC`: a `SET` or an `UNLINK` of that key. A refused `EXEC` means that someone
    /// else wrote in between, perhaps the same bytes: look again. Each turn means another writer's success, so it ends.
    pub(super) async fn if_equal(
        &self,
        key: &[u8],
        expected: &[u8],
        write: &Cmd,
        asking: bool,
    ) -> Result<bool, RedisError> {
        let mut own = self.dedicated().await?;
        loop {
            let mut look = Pipeline::new();
            ask_first(&mut look, asking).cmd("WATCH").arg(key);
            ask_first(&mut look, asking).cmd("GET").arg(key);
            match exchange(&look, &mut own).await? {
                Value::BulkString(found) if found == expected => {}
                Value::BulkString(_) | Value::Nil => return Ok(false),
                _ => return Err(unexpected("GET answers bytes or nil")),
            }
            let mut transaction = Pipeline::new();
            // an ASKING before MULTI holds until EXEC
            ask_first(&mut transaction, asking).cmd("MULTI");
            transaction.add_command(write.clone()).cmd("EXEC");
            match exchange(&transaction, &mut own).await? {
                Value::Array(done) if matches!(done[..], [Value::Okay | Value::Int(1)]) => return Ok(true),
                Value::Nil => {}
                _ => return Err(unexpected("EXEC answers OK, 1 or nil")),
            }
        }
    }

    /// A connection that nothing else uses.
    async fn dedicated(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(self.0.options.connect_timeout_ms)))
            .set_response_timeout(Some(Duration::from_millis(self.0.options.response_timeout_ms)));
        self.0.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Whether it is one node of a cluster. A server that will not say is taken for one by itself.
    pub(super) async fn is_of_cluster(&self) -> bool {
        let info: Result<InfoDict, RedisError> =
            cmd("INFO").arg("cluster").query_async(&mut self.0.requests.clone()).await;
        info.is_ok_and(|info| info.get("cluster_enabled") == Some(1))
    }

    pub(super) async fn stats(&self) -> Result<KvStats, KvError> {
        let info: InfoDict =
            cmd("INFO").query_async(&mut self.0.requests.clone()).await.map_err(|e| self.explain(Lane::Requests, e))?;
        let used_bytes =
            info.get("used_memory").ok_or_else(|| command::wrong(self.home(), "used_memory in INFO", &Value::Nil))?;
        let bytes = |field: &str| info.get::<u64>(field).unwrap_or(0);
        let buffers = ["mem_clients_normal", "mem_clients_slaves", "mem_replication_backlog"];
        Ok(KvStats {
            version: info.get("redis_version").unwrap_or_default(),
            used_bytes,
            buffer_bytes: buffers.into_iter().map(bytes).sum(),
            uncounted_bytes: bytes("mem_not_counted_for_evict"),
            limit_bytes: info.get("maxmemory").filter(|&limit: &u64| limit > 0),
            eviction: info.get("maxmemory_policy"),
            cpu: info
                .get::<f64>("used_cpu_user_main_thread")
                .zip(info.get::<f64>("used_cpu_sys_main_thread"))
                .and_then(|(user, system)| Duration::try_from_secs_f64(user + system).ok()),
            shards: Vec::new(),
        })
    }
}

/// How many of these commands are one pipeline: those that reach `most_bytes`, the one that does so included.
fn within(commands: &[Command<'_>], most_bytes: usize) -> usize {
    let mut in_flight = 0usize;
    let reached = commands.iter().position(|command| {
        in_flight = in_flight.saturating_add(command.bytes());
        in_flight >= most_bytes
    });
    reached.map_or(commands.len(), |last| last + 1)
}

fn ask_first(pipeline: &mut Pipeline, asking: bool) -> &mut Pipeline {
    if asking {
        pipeline.cmd("ASKING");
    }
    pipeline
}

/// The last reply, or the first error: in a transaction that names the reason, and the last is only `EXECABORT`.
async fn exchange(pipeline: &Pipeline, own: &mut MultiplexedConnection) -> Result<Value, RedisError> {
    let replies: Vec<Result<Value, RedisError>> = pipeline.clone().ignore_errors().query_async(own).await?;
    let mut last = Value::Nil;
    for reply in replies {
        last = reply?.extract_error()?;
    }
    Ok(last)
}

fn unexpected(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}
