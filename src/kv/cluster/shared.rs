//! What the clones of a [`ClusterKv`](super::ClusterKv) share: the map of slots and the connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{Client, ConnectionAddr, ConnectionInfo, cmd};
use futures_util::future::{FutureExt, select_ok};

use super::super::command::{self, Lane};
use super::super::node::Node;
use super::super::redis::without_login;
use super::topology::{Address, Topology};
use super::{KvError, RedisOptions};

/// The scheme of a cluster's address; the rest is as for one server.
pub(in crate::kv) const SCHEME: &str = "redis-cluster://";

/// The map is read again at most this often. Nodes tell each other ten times a second.
const REFRESH_EVERY: Duration = Duration::from_millis(100);

/// Nodes asked for the map at the same time, and the first answer taken: most of them are alive, and a dead one must not
/// cost a timeout.
const ASKED: usize = 5;

pub(super) struct Shared {
    /// How to log in; the address is another for each node.
    login: ConnectionInfo,
    pub(super) options: RedisOptions,
    pub(super) home: String,
    seed: Address,
    state: Mutex<State>,
    /// When the map was last asked for. Held while asking, so that a hundred requests that meet the same trouble ask once.
    asked_at: futures_util::lock::Mutex<Option<Instant>>,
}

struct State {
    topology: Arc<Topology>,
    nodes: BTreeMap<Address, Node>,
    /// Refreshes so far: each begins with other nodes.
    refreshes: usize,
}

impl Shared {
    pub(super) async fn connect(url: &str, options: RedisOptions) -> Result<Self, KvError> {
        let bad = |why: String| KvError::BadUrl { url: without_login(url), why };
        let rest = url.strip_prefix(SCHEME).ok_or_else(|| bad(format!("a cluster's begins with {SCHEME}")))?;
        let client = Client::open(format!("redis://{rest}")).map_err(|e| bad(e.to_string()))?;
        let login = client.get_connection_info().clone();
        let ConnectionAddr::Tcp(host, port) = login.addr() else {
            return Err(bad("expected host:port".to_owned()));
        };
        if login.redis_settings().db() != 0 {
            return Err(bad("a cluster has only database 0".to_owned()));
        }
        let seed = Address { host: host.as_str().into(), port: *port };
        let state = State { topology: Arc::default(), nodes: BTreeMap::new(), refreshes: 0 };
        let home = format!("{SCHEME}{seed}");
        let asked_at = futures_util::lock::Mutex::new(None);
        let shared = Self { login, options, home, seed, state: Mutex::new(state), asked_at };
        // a wrong address or password is told here, and in the words of the server that was named
        shared.node(&shared.seed)?.ping().await?;
        shared.refresh().await?;
        Ok(shared)
    }

    /// The map as it is now believed.
    pub(super) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.state().topology)
    }

    /// The connections to a node, made when it is first asked.
    pub(super) fn node(&self, address: &Address) -> Result<Node, KvError> {
        let mut state = self.state();
        if let Some(node) = state.nodes.get(address) {
            return Ok(node.clone());
        }
        let to = ConnectionAddr::Tcp(address.host.to_string(), address.port);
        let client = Client::open(self.login.clone().set_addr(to))
            .map_err(|e| command::explain(&self.home, self.options.connect_timeout_ms, e))?;
        // what fails is tried again after a look at the map, which may name another node by then
        let node = Node::new(client, self.options.clone(), 0)?;
        let most = 2 * state.topology.nodes().count();
        self.forget_strangers(&mut state, most);
        state.nodes.insert(address.clone(), node.clone());
        Ok(node)
    }

    /// One slot has moved.
    pub(super) fn give(&self, slot: u16, to: Address) {
        Arc::make_mut(&mut self.state().topology).give(slot, to);
    }

    /// Reads the map again, unless that was done a moment ago.
    pub(super) async fn refresh(&self) -> Result<(), KvError> {
        let mut asked_at = self.asked_at.lock().await;
        if asked_at.is_some_and(|at| at.elapsed() < REFRESH_EVERY) {
            return Ok(());
        }
        *asked_at = Some(Instant::now()); // in case that we are dropped while asking
        let answers = self.to_be_asked().into_iter().map(|address| self.ask(address).boxed());
        let (topology, _) = select_ok(answers).await?;
        let mut state = self.state();
        state.topology = Arc::new(topology);
        self.forget_strangers(&mut state, 0);
        *asked_at = Some(Instant::now());
        Ok(())
    }

    /// The same in the middle of a call: not longer than a request may take, and a failure is not the call's.
    pub(super) async fn refresh_soon(&self) {
        let limit = Duration::from_millis(self.options.response_timeout_ms);
        let _ = tokio::time::timeout(limit, self.refresh()).await;
    }

    pub(super) fn unserved(&self, slot: u16) -> KvError {
        KvError::Unavailable { home: self.home.clone(), detail: format!("no node serves slot {slot}") }
    }

    pub(super) fn astray(&self) -> KvError {
        KvError::Unavailable { home: self.home.clone(), detail: "its nodes send a key round in circles".to_owned() }
    }

    /// Some nodes, others each time, and the one we were given: its name may lead to new nodes when all others are gone.
    fn to_be_asked(&self) -> Vec<Address> {
        let mut state = self.state();
        let mut nodes: Vec<Address> = state.topology.nodes().filter(|&node| *node != self.seed).cloned().collect();
        if !nodes.is_empty() {
            let first = state.refreshes.wrapping_mul(ASKED) % nodes.len();
            nodes.rotate_left(first);
        }
        state.refreshes = state.refreshes.wrapping_add(1);
        nodes.truncate(ASKED);
        nodes.push(self.seed.clone());
        nodes
    }

    async fn ask(&self, address: Address) -> Result<Topology, KvError> {
        let node = self.node(&address)?;
        let mut slots = cmd("CLUSTER");
        slots.arg("SLOTS");
        let reply = node.ask(&slots).await.map_err(|e| node.explain(Lane::Requests, e))?;
        match Topology::parse(&reply, &address) {
            Some(topology) if topology.is_empty() => {
                let detail = "its cluster serves no slots yet".to_owned();
                Err(KvError::Unavailable { home: node.home().to_owned(), detail })
            }
            Some(topology) => Ok(topology),
            None => Err(command::wrong(node.home(), "the slots of a cluster", &reply)),
        }
    }

    /// Drops connections to nodes that the map does not know, once there are more than `most` in all.
    fn forget_strangers(&self, state: &mut State, most: usize) {
        if state.nodes.len() > most {
            let known: BTreeSet<&Address> = state.topology.nodes().chain([&self.seed]).collect();
            state.nodes.retain(|address, _| known.contains(address));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // nothing panics while it is held, and a map that is half changed would only be corrected by the servers
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
