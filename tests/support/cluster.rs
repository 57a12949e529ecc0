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

    /// A client, with longer timeouts than the defaults: the test machine is busy.
    pub async fn connect(&self) -> ClusterKv {
        let patient =
            RedisOptions { connect_timeout_ms: 10_000, response_timeout_ms: 10_000, ..RedisOptions::default() };
        ClusterKv::connect(&self.url(), patient).await.unwrap()
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
