//! The Redis home: one server, core commands, explicit timeouts.

use ::redis::{Client, Cmd, Value};

use super::command::{self, Command, Lane, Servers};
use super::node::Node;
use super::{KvError, KvStats};

/// How to talk to a server.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// For connecting and logging in, each try; a lost connection is tried twice, in a cluster with a look at the map of
    /// slots in between. 1,000 ms: a SYN lost once is resent
    /// after a second, and a server that takes longer will not hold a latency goal anyway.
    pub connect_timeout_ms: u64,
    /// For the answer to one call. 250 ms: a healthy server's p99 for a hundred keys is under 1 ms, and whoever asked for
    /// a recommendation waits no longer. A request with a deadline of its own drops the future sooner.
    pub response_timeout_ms: u64,
    /// For the answer to one pipeline of a bulk write. 10,000 ms: a server may stand still for seconds while it forks
    /// or grows its key table, and a load that gives up then has to start again. In a cluster a load also waits three
    /// times as long for a lost master's replica to take over.
    pub bulk_timeout_ms: u64,
    /// A bulk write is split into pipelines once they reach this many bytes of commands; the answers of one are awaited
    /// before the next. 1 MiB: a hundred pages hide the round trip, and bytes in flight count against the server's
    /// `maxmemory`. In a cluster it bounds each master's.
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
    node: Node,
}

impl RedisKv {
    /// Connects to `redis://[user:password@]host[:port][/db]`. Needs a tokio runtime with time and I/O enabled.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, KvError> {
        let client = Client::open(url).map_err(|e| KvError::BadUrl { url: without_login(url), why: e.to_string() })?;
        let node = Node::new(client, options, 1)?;
        node.ping().await?;
        Ok(Self { node })
    }

    /// One node of a cluster by itself.
    pub(super) fn over(node: Node) -> Self {
        Self { node }
    }

    /// The database that commands go to.
    pub(super) fn database(&self) -> i64 {
        self.node.database()
    }

    /// Whether it is one node of a Redis Cluster, which answers only for its own slots.
    pub(super) async fn is_of_cluster(&self) -> bool {
        self.node.is_of_cluster().await
    }

    /// One command that no trait method has.
    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, KvError> {
        self.node.ask(command).await.map_err(|e| self.node.explain(Lane::Requests, e))
    }

    pub(super) fn wrong(&self, expected: &'static str, got: &Value) -> KvError {
        command::wrong(self.node.home(), expected, got)
    }
}

impl Servers for RedisKv {
    fn home(&self) -> &str {
        self.node.home()
    }

    async fn send_each(&self, lane: Lane, commands: &[Command<'_>]) -> Vec<Result<Value, KvError>> {
        let answers = self.node.send(lane, commands, false).await;
        answers.into_iter().map(|answer| answer.map_err(|e| self.node.explain(lane, e))).collect()
    }

    async fn if_equal(&self, key: &[u8], expected: &[u8], write: &Cmd) -> Result<bool, KvError> {
        let done = self.node.if_equal(key, expected, write, false).await;
        done.map_err(|e| self.node.explain(Lane::Requests, e))
    }

    async fn describe(&self) -> Result<KvStats, KvError> {
        self.node.stats().await
    }
}

/// The address without `user:password@`, for an error message. What cannot be told apart is left out.
pub(super) fn without_login(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    format!("{scheme}://{address}")
}
