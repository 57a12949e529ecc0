//! The cluster home: many servers, each asked only for the slots it serves.
//!
//! A call is grouped by the masters of its keys, and each gets its part as one pipeline, all at the same time. The
//! cluster client of the redis crate is not used: it refuses a pipeline whose keys are of different slots, and one
//! command at a time is no way to read a hundred users. Its connections, protocol and errors are.
//!
//! The one thing to know: the map of slots is a guess that servers correct. A key that has moved is answered with where
//! to (`MOVED`, for good; `ASK`, while its slot is on its way), the answer is followed, and the map is read again. Only
//! masters are asked. What happens when one dies: see [`ClusterKv`].

mod shared;
pub mod slots;
mod topology;
mod trouble;

use std::collections::BTreeSet;
use std::sync::Arc;

use ::redis::{Cmd, RedisError, Value};
use futures_util::future::{join_all, try_join_all};

pub(super) use self::shared::SCHEME;
use self::shared::Shared;
use self::slots::{SlotRange, slot_of};
use self::topology::Address;
use self::trouble::{Patience, Trouble, Verdict};
use super::command::{Command, Lane, Servers};
use super::node::Node;
use super::{Kv, KvError, KvStats, Probe, RedisKv, RedisOptions, probe};

/// A Redis (or Valkey) Cluster. Cheap to clone: clones share connections and the map of slots.
///
/// It belongs to the tokio runtime it was connected on. When a master is lost, reads of its slots fail until its replica
/// has taken over: after one retry, or after a timeout, for whoever asks has no time to wait. Ranges of other slots that
/// are read in the same call are answered. (Unless
/// `cluster-require-full-coverage` is `no`, servers refuse all other slots too, in the moment between the loss being
/// noticed and the election.) Loads, which are [`set_many`](Kv::set_many), [`persist_many`](Kv::persist_many) and
/// [`delete_many`](Kv::delete_many), try again for three times [`RedisOptions::bulk_timeout_ms`], longer than a failover
/// under the default `cluster-node-timeout` of 15 s; a deletion whose answer was lost and is repeated may count too few.
/// [`compare_and_set`](Kv::compare_and_set) and [`delete_if_equal`](Kv::delete_if_equal) are tried again only where a
/// server says that it did nothing.
///
/// Replication is asynchronous: what a master confirmed just before it died may be gone. Whoever needs to know reads it
/// back, as `publish` and `activate` do.
#[derive(Clone)]
pub struct ClusterKv {
    shared: Arc<Shared>,
}

/// One master of a cluster and its slots.
#[derive(Clone)]
pub struct Shard {
    /// Its address.
    pub home: String,
    /// The slots it serves, ascending.
    pub slots: Vec<SlotRange>,
    /// To ask it about itself. It refuses keys of other slots.
    pub server: RedisKv,
}

/// A shard, and what server it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbedShard {
    /// Its master's address.
    pub home: String,
    /// The slots it serves, ascending.
    pub slots: Vec<SlotRange>,
    /// What the master says of itself.
    pub probe: Probe,
}

impl ClusterKv {
    /// Connects to the cluster of which `redis-cluster://[user:password@]host[:port]` is one node; the host may be a name
    /// of several addresses. Every node is logged in to alike. Needs a tokio runtime with time and I/O enabled.
    pub async fn connect(url: &str, options: RedisOptions) -> Result<Self, KvError> {
        let shared = Shared::connect(url, options).await?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Every master that serves slots, by address.
    pub async fn shards(&self) -> Result<Vec<Shard>, KvError> {
        self.shared.refresh().await?;
        let shard = |(address, slots)| {
            let node = self.shared.node(&address)?;
            Ok(Shard { home: node.home().to_owned(), slots, server: RedisKv::over(node) })
        };
        let shards: Result<Vec<_>, KvError> = self.shared.topology().shards().into_iter().map(shard).collect();
        let mut shards = shards?;
        shards.sort_by(|a, b| a.home.cmp(&b.home));
        Ok(shards)
    }

    /// Asks every shard what server it is.
    pub async fn probe(&self) -> Result<Vec<ProbedShard>, KvError> {
        let probed = self.shards().await?.into_iter().map(|Shard { home, slots, server }| async move {
            let probe = probe(&server).await?;
            Ok(ProbedShard { home, slots, probe })
        });
        try_join_all(probed).await
    }

    /// Commands by the node that is to be asked, and those that there is none for.
    fn group(&self, open: Vec<Open>, commands: &[Command<'_>]) -> (Vec<Group>, Vec<Open>) {
        let topology = self.shared.topology();
        let mut groups: Vec<Group> = Vec::new();
        let mut unserved = Vec::new();
        for one in open {
            let (index, slot) = (one.index, slot_of(commands[one.index].key()));
            let Some(address) = one.ask.as_ref().or_else(|| topology.owner(slot)) else {
                unserved.push(Open::after(index, self.shared.unserved(slot)));
                continue;
            };
            let asking = one.ask.is_some();
            if let Some(group) = groups.iter_mut().find(|group| group.asking == asking && group.address == *address) {
                group.indices.push(index);
                continue;
            }
            match self.shared.node(address) {
                Ok(node) => groups.push(Group { address: address.clone(), node, asking, indices: vec![index] }),
                Err(error) => unserved.push(Open::after(index, error)),
            }
        }
        (groups, unserved)
    }

    /// One round: every group at once. Fills `answers` and returns what is still open, and what stood in the way.
    async fn round(
        &self,
        lane: Lane,
        commands: &[Command<'_>],
        open: Vec<Open>,
        answers: &mut [Option<Result<Value, KvError>>],
    ) -> (Vec<Open>, Trouble) {
        let (groups, mut open) = self.group(open, commands);
        let mut trouble = Trouble { wait: open.first().and_then(|one| one.error.clone()), ..Trouble::default() };
        let sent = join_all(groups.iter().map(|group| group.send(lane, commands))).await;
        for (group, replies) in groups.iter().zip(sent) {
            let mut replies = replies.into_iter();
            for &index in &group.indices {
                match replies.next() {
                    Some(Ok(reply)) => answers[index] = Some(Ok(reply)),
                    Some(Err(error)) => match self.judge(&error, group, lane, commands[index], &mut trouble) {
                        Ok((ask, error)) => open.push(Open { index, ask, error }),
                        Err(error) => answers[index] = Some(Err(error)),
                    },
                    // not sent, because something before it went wrong
                    None => open.push(Open { index, ask: None, error: None }),
                }
            }
        }
        (open, trouble)
    }

    /// What to do about a command's error, written down in `trouble`: it stays open, with whom to ask instead and what
    /// stands in the way; or that was its answer.
    fn judge(
        &self,
        error: &RedisError,
        from: &Group,
        lane: Lane,
        command: Command<'_>,
        trouble: &mut Trouble,
    ) -> Result<(Option<Address>, Option<KvError>), KvError> {
        let explained = from.node.explain(lane, error.clone());
        // whoever has waited for as long as a request may take does not wait again
        let is_over = lane == Lane::Requests && error.is_timeout();
        match Verdict::of(error, &from.address) {
            Verdict::Ask(to) => {
                trouble.redirected = true;
                return Ok((Some(to), None));
            }
            Verdict::Moved(slot, to) => {
                (trouble.redirected, trouble.map_is_old) = (true, true);
                self.shared.give(slot, to);
                return Ok((None, None));
            }
            Verdict::NotDone => {}
            Verdict::Unknown if command.is_repeatable() && !is_over => {}
            Verdict::Unknown | Verdict::Refused => {
                trouble.end.get_or_insert_with(|| explained.clone());
                return Err(explained);
            }
        }
        trouble.wait.get_or_insert_with(|| explained.clone());
        Ok((None, Some(explained)))
    }

    /// The node that serves a key.
    fn owner(&self, key: &[u8]) -> Result<(Address, Node), KvError> {
        let slot = slot_of(key);
        let address = self.shared.topology().owner(slot).cloned().ok_or_else(|| self.shared.unserved(slot))?;
        let node = self.shared.node(&address)?;
        Ok((address, node))
    }
}

/// A command without an answer yet.
struct Open {
    index: usize,
    /// The node that its slot is being moved to, if the answer was `ASK`.
    ask: Option<Address>,
    /// What stood in the way, if it was not only somewhere else.
    error: Option<KvError>,
}

impl Open {
    fn after(index: usize, error: KvError) -> Self {
        Self { index, ask: None, error: Some(error) }
    }
}

/// Commands for one node.
struct Group {
    address: Address,
    node: Node,
    asking: bool,
    indices: Vec<usize>,
}

impl Group {
    async fn send(&self, lane: Lane, commands: &[Command<'_>]) -> Vec<Result<Value, RedisError>> {
        let own: Vec<_> = self.indices.iter().map(|&index| commands[index]).collect();
        self.node.send(lane, &own, self.asking).await
    }
}

/// Answers what has an error of its own by that; everything else too, if there is one for it.
fn give_up(open: &mut Vec<Open>, answers: &mut [Option<Result<Value, KvError>>], otherwise: Option<&KvError>) {
    open.retain(|one| {
        let error = one.error.as_ref().or(otherwise);
        if let Some(error) = error {
            answers[one.index] = Some(Err(error.clone()));
        }
        error.is_none()
    });
}

impl Servers for ClusterKv {
    fn home(&self) -> &str {
        &self.shared.home
    }

    async fn send_each(&self, lane: Lane, commands: &[Command<'_>]) -> Vec<Result<Value, KvError>> {
        let mut answers: Vec<Option<Result<Value, KvError>>> = commands.iter().map(|_| None).collect();
        let mut open: Vec<Open> = (0..commands.len()).map(|index| Open { index, ask: None, error: None }).collect();
        let mut patience = Patience::new(lane, &self.shared.options);
        while !open.is_empty() {
            let trouble;
            (open, trouble) = self.round(lane, commands, open, &mut answers).await;
            if trouble.map_is_old || trouble.wait.is_some() || trouble.end.is_some() {
                self.shared.refresh_soon().await;
            }
            // a load is done as a whole or not at all
            if let (Lane::Bulk, Some(error)) = (lane, trouble.end) {
                return vec![Err(error)];
            }
            if trouble.redirected && !patience.hops() {
                give_up(&mut open, &mut answers, Some(&self.shared.astray()));
            }
            if let Some(error) = trouble.wait
                && !patience.waits().await
            {
                if lane == Lane::Bulk {
                    return vec![Err(error)];
                }
                // what was only somewhere else goes on
                give_up(&mut open, &mut answers, None);
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(self.shared.astray()))).collect()
    }

    async fn if_equal(&self, key: &[u8], expected: &[u8], write: &Cmd) -> Result<bool, KvError> {
        let mut patience = Patience::new(Lane::Requests, &self.shared.options);
        let mut ask = None;
        loop {
            let (address, node) = match &ask {
                Some(address) => (Address::clone(address), self.shared.node(address)?),
                None => self.owner(key)?,
            };
            let error = match node.if_equal(key, expected, write, ask.is_some()).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let verdict = Verdict::of(&error, &address);
            let error = node.explain(Lane::Requests, error);
            ask = None;
            match verdict {
                Verdict::Ask(to) if patience.hops() => ask = Some(to),
                Verdict::Moved(slot, to) if patience.hops() => {
                    self.shared.give(slot, to);
                    self.shared.refresh_soon().await;
                }
                Verdict::NotDone => {
                    self.shared.refresh_soon().await;
                    if !patience.waits().await {
                        return Err(error);
                    }
                }
                Verdict::Unknown => {
                    self.shared.refresh_soon().await;
                    return Err(error);
                }
                Verdict::Ask(_) | Verdict::Moved(..) | Verdict::Refused => return Err(error),
            }
        }
    }

    /// The masters together. Keys spread evenly, so the first master that is full ends a load: the limit is what is used
    /// and, for every master, the smallest room that any of them has. Versions and policies are named each once.
    async fn describe(&self) -> Result<KvStats, KvError> {
        let shards = self.shards().await?;
        let masters = try_join_all(shards.iter().map(|shard| shard.server.stats())).await?;
        let used_bytes = masters.iter().map(|master| master.used_bytes).sum();
        let room = |master: &KvStats| Some(master.limit_bytes?.saturating_sub(master.used_bytes));
        let smallest = masters.iter().filter_map(room).min();
        let policies: BTreeSet<&str> = masters.iter().filter_map(|master| master.eviction.as_deref()).collect();
        let versions: BTreeSet<&str> = masters.iter().map(|master| master.version.as_str()).collect();
        let listed = |names: BTreeSet<&str>| names.into_iter().collect::<Vec<_>>().join(", ");
        Ok(KvStats {
            version: listed(versions),
            used_bytes,
            buffer_bytes: masters.iter().map(|master| master.buffer_bytes).sum(),
            uncounted_bytes: masters.iter().map(|master| master.uncounted_bytes).sum(),
            limit_bytes: smallest.map(|room| used_bytes + room * masters.len() as u64),
            eviction: (!policies.is_empty()).then(|| listed(policies)),
            cpu: masters.iter().map(|master| master.cpu).sum(),
            shards: shards.into_iter().map(|shard| shard.home).zip(masters.iter().cloned()).collect(),
        })
    }
}
