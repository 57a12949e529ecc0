//! A Redis Cluster of one's own: three masters, a replica each, on free loopback ports. It dies with its value.

use std::time::{Duration, Instant};

use tonnage::kv::{ClusterKv, RedisOptions};

use super::RedisServer;

const MASTERS: usize = 3;

/// After how long without an answer the others take a node for dead. Redis' own default is 15 s, which no test waits for.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// Six nodes. The first three began as masters, the `i + 3`rd as the `i`th's replica.
pub struct TestCluster {
    nodes: Vec<RedisServer>,
}

impl TestCluster {
    /// Starts one and waits until every slot is served and every replica follows its master.
    pub fn start() -> Self {
        let timeout = NODE_TIMEOUT.as_millis().to_string();
        // a node listens on its port + 10,000 too; a port for which that is taken or too large does not come up, and then
        // `start` takes another
        let node = |_| {
            RedisServer::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                &timeout,
                "--repl-diskless-sync-delay",
                "0",
                "--loglevel",
                "warning",
            ])
        };
        let cluster = Self { nodes: (0..2 * MASTERS).map(node).collect() };
        cluster.form();
        cluster
    }

    fn form(&self) {
        for (i, node) in self.nodes.iter().enumerate() {
            node.expect(&format!("CLUSTER SET-CONFIG-EPOCH {}", i + 1), "+OK");
            if i < MASTERS {
                let (first, end) = (16_384 * i / MASTERS, 16_384 * (i + 1) / MASTERS);
                node.expect(&format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1), "+OK");
            }
            self.nodes[0].expect(&format!("CLUSTER MEET 127.0.0.1 {}", node.port()), "+OK");
        }
        self.wait_for_all("CLUSTER INFO", &format!("cluster_known_nodes:{}", 2 * MASTERS));
        for (replica, master) in self.nodes[MASTERS..].iter().zip(&self.nodes) {
            replica.expect(&format!("CLUSTER REPLICATE {}", master.id()), "+OK");
        }
        self.wait_for_all("CLUSTER INFO", "cluster_state:ok");
        for (i, node) in self.nodes.iter().enumerate() {
            node.wait_for("INFO replication", if i < MASTERS { "state=online" } else { "master_link_status:up" });
        }
    }

    fn wait_for_all(&self, command: &str, part: &str) {
        self.nodes.iter().for_each(|node| node.wait_for(command, part));
    }

    /// One of the nodes.
    pub fn node(&self, index: usize) -> &RedisServer {
        &self.nodes[index]
    }

    /// Every node.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The index of the node that serves a slot, as the nodes that live say it.
    pub fn owner(&self, slot: u16) -> usize {
        let serves = |node: &RedisServer| node.slots().iter().any(|&(first, last)| (first..=last).contains(&slot));
        self.nodes.iter().position(serves).unwrap()
    }

    /// The address of a node that began as a master.
    pub fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// The address of another.
    pub fn other_url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[1].port())
    }

    /// A client, with longer timeouts than the defaults: the test machine is busy.
    pub async fn connect(&self) -> ClusterKv {
        let patient =
            RedisOptions { connect_timeout_ms: 10_000, response_timeout_ms: 10_000, ..RedisOptions::default() };
        ClusterKv::connect(&self.url(), patient).await.unwrap()
    }

    /// Waits until every replica has all that its master has.
    pub fn replicated(&self) {
        for (replica, master) in self.nodes[MASTERS..].iter().zip(&self.nodes) {
            let offset = master.info("master_repl_offset");
            let until = Instant::now() + Duration::from_secs(30);
            while replica.info("slave_repl_offset") < offset {
                assert!(Instant::now() < until, "a replica did not catch up");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Keys of all masters that live.
    pub fn keys(&self) -> u64 {
        let masters = self.nodes.iter().filter(|node| !node.slots().is_empty());
        masters.map(|node| node.say("DBSIZE").unwrap()[1..].trim_end().parse::<u64>().unwrap()).sum()
    }

    /// Removes every key.
    pub fn clear(&self) {
        for node in self.nodes.iter().filter(|node| !node.slots().is_empty()) {
            node.expect("FLUSHALL", "+OK");
        }
    }

    /// Kills a node's process at once.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].process.kill().unwrap();
        self.nodes[index].process.wait().unwrap();
    }
}

impl RedisServer {
    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its name in the cluster.
    pub fn id(&self) -> String {
        self.say("CLUSTER MYID").unwrap().lines().nth(1).unwrap().to_owned()
    }

    /// What it says it serves itself, as `(first, last)`.
    pub fn slots(&self) -> Vec<(u16, u16)> {
        let nodes = self.say("CLUSTER NODES").unwrap_or_default();
        let myself = nodes.lines().find(|line| line.contains("myself,master")).unwrap_or_default();
        let ranges = myself.split_whitespace().skip(8).filter(|range| !range.starts_with('['));
        let range = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().unwrap(), last.parse().unwrap())
        };
        ranges.map(range).collect()
    }

    /// Says a command whose answer must begin so.
    pub fn expect(&self, command: &str, beginning: &str) {
        let answer = self.say(command).unwrap_or_default();
        assert!(answer.starts_with(beginning), "{command}: {answer}");
    }

    /// Says a command until its answer has that part.
    pub fn wait_for(&self, command: &str, part: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        let mut answer = String::new();
        while Instant::now() < until {
            answer = self.say(command).unwrap_or_default();
            if answer.contains(part) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{command} did not come to {part:?}: {answer}");
    }
}

/// A slot on its way from one node to another, as `redis-cli --cluster reshard` moves them.
pub struct Move<'a> {
    from: &'a RedisServer,
    to: &'a RedisServer,
    slot: u16,
}

impl TestCluster {
    /// Begins to move a slot to that node.
    pub fn begin_move(&self, slot: u16, to: usize) -> Move<'_> {
        let moving = Move { from: &self.nodes[self.owner(slot)], to: &self.nodes[to], slot };
        moving.to.expect(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", moving.from.id()), "+OK");
        moving.from.expect(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", moving.to.id()), "+OK");
        moving
    }
}

impl Move<'_> {
    /// Moves these keys over.
    pub fn keys(&self, keys: &[String]) {
        let (port, keys) = (self.to.port(), keys.join(" "));
        self.from.expect(&format!("MIGRATE 127.0.0.1 {port} \"\" 0 5000 KEYS {keys}"), "+OK");
    }

    /// Hands the slot over. The third master is told too, so that no test waits for gossip.
    pub fn end(self, cluster: &TestCluster) {
        let command = format!("CLUSTER SETSLOT {} NODE {}", self.slot, self.to.id());
        self.to.expect(&command, "+OK");
        for node in &cluster.nodes[..MASTERS] {
            node.expect(&command, "+OK");
        }
    }
}

impl RedisServer {
    /// A number of its INFO.
    pub fn info(&self, name: &str) -> u64 {
        let info = self.say("INFO").unwrap();
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name} in INFO")).parse().unwrap()
    }

    /// How often it has answered with an error of that name.
    pub fn errors(&self, name: &str) -> u64 {
        let stats = self.say("INFO errorstats").unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("errorstat_{name}:count=")));
        line.map_or(0, |count| count.parse().unwrap())
    }
}
