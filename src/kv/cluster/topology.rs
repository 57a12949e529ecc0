//! Who serves which slot, as a node of the cluster tells it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ::redis::Value;

use super::slots::{SLOTS, SlotRange};

/// A node's host and port, without login.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
}

impl Address {
    /// From `host:port` of a redirection. A host that the node does not know to name is the one that was `asked`.
    pub(super) fn parse(text: &str, asked: &Address) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self { host: known(host, asked), port: port.parse().ok().filter(|&port| port > 0)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Nodes that know no name for themselves say `?` or nothing, and mean the address they were reached at.
fn known(host: &str, asked: &Address) -> Arc<str> {
    if host.is_empty() || host == "?" { Arc::clone(&asked.host) } else { host.into() }
}

/// The master of every slot.
#[derive(Clone, Debug)]
pub(super) struct Topology {
    /// For each slot the index of its master, or [`NOBODY`].
    owners: Vec<u16>,
    masters: Vec<Address>,
    replicas: BTreeSet<Address>,
}

const NOBODY: u16 = u16::MAX;

impl Default for Topology {
    /// Nobody serves anything.
    fn default() -> Self {
        Self { owners: vec![NOBODY; usize::from(SLOTS)], masters: Vec::new(), replicas: BTreeSet::new() }
    }
}

impl Topology {
    /// From the reply to `CLUSTER SLOTS`: arrays of first slot, last slot, master, replicas; a node begins with host and
    /// port. `None` if it is anything else, or names a slot twice.
    pub(super) fn parse(reply: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = reply else { return None };
        let mut topology = Self::default();
        for range in ranges {
            let Value::Array(parts) = range else { return None };
            let [Value::Int(first), Value::Int(last), master, replicas @ ..] = parts.as_slice() else { return None };
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            let master = topology.master(node(master, asked)?)?;
            let slots = topology.owners.get_mut(first..=last)?;
            if slots.iter().any(|&owner| owner != NOBODY) {
                return None;
            }
            slots.fill(master);
            for replica in replicas {
                topology.replicas.insert(node(replica, asked)?);
            }
        }
        Some(topology)
    }

    /// The master of a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Address> {
        self.masters.get(usize::from(self.owners[usize::from(slot)]))
    }

    /// One slot has moved.
    pub(super) fn give(&mut self, slot: u16, to: Address) {
        if let Some(master) = self.master(to) {
            self.owners[usize::from(slot)] = master;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.masters.is_empty()
    }

    /// Masters that serve slots, and which.
    pub(super) fn shards(&self) -> Vec<(Address, Vec<SlotRange>)> {
        let mut shards: Vec<_> = self.masters.iter().map(|master| (master.clone(), Vec::new())).collect();
        for run in (0..SLOTS).collect::<Vec<_>>().chunk_by(|&a, &b| self.owners[a as usize] == self.owners[b as usize])
        {
            let (first, last) = (run[0], run[run.len() - 1]);
            if let Some((_, ranges)) = shards.get_mut(usize::from(self.owners[usize::from(first)])) {
                ranges.push(SlotRange { first, last });
            }
        }
        shards.retain(|(_, ranges)| !ranges.is_empty());
        shards
    }

    /// Every node: masters first.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Address> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The index of a master, added when new. No cluster has more masters than slots, and no reply makes us keep more.
    fn master(&mut self, address: Address) -> Option<u16> {
        let known = self.masters.iter().position(|master| *master == address);
        if known.is_none() && self.masters.len() < usize::from(SLOTS) {
            self.masters.push(address);
            return Some((self.masters.len() - 1) as u16);
        }
        known.map(|index| index as u16)
    }
}

fn node(value: &Value, asked: &Address) -> Option<Address> {
    let Value::Array(parts) = value else { return None };
    let [host, Value::Int(port), ..] = parts.as_slice() else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    let port = u16::try_from(*port).ok().filter(|&port| port > 0)?;
    Some(Address { host: known(host, asked), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked() -> Address {
        Address { host: "seed".into(), port: 7_000 }
    }

    fn node_of(host: &str, port: i64) -> Value {
        Value::Array(vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString(b"its-id".to_vec())])
    }

    fn range(first: i64, last: i64, nodes: &[Value]) -> Value {
        Value::Array([Value::Int(first), Value::Int(last)].iter().chain(nodes).cloned().collect())
    }

    fn parse(ranges: Vec<Value>) -> Option<Topology> {
        Topology::parse(&Value::Array(ranges), &asked())
    }

    #[test]
    fn every_slot_has_the_master_that_was_told() {
        let (a, b, c) = (node_of("10.0.0.1", 1), node_of("::1", 2), node_of("", 3));
        let ranges = vec![range(0, 99, &[a.clone(), c]), range(100, 100, &[b]), range(200, 16_383, &[a])];
        let mut topology = parse(ranges).unwrap();
        let owner = |topology: &Topology, slot| topology.owner(slot).map(ToString::to_string);
        let expected = [(0, "10.0.0.1:1"), (99, "10.0.0.1:1"), (100, "::1:2"), (16_383, "10.0.0.1:1")];
        for (slot, address) in expected {
            assert_eq!(owner(&topology, slot).as_deref(), Some(address));
        }
        assert_eq!(owner(&topology, 101), None);
        assert!(topology.nodes().any(|node| node.to_string() == "seed:3"), "no name is the name that was asked");
        topology.give(101, asked());
        topology.give(100, asked());
        let slots = |first, last| SlotRange { first, last };
        let shards = topology.shards();
        assert_eq!(shards.len(), 2, "a master without slots is none");
        assert_eq!(shards[0].1, [slots(0, 99), slots(200, 16_383)]);
        assert_eq!(shards[1], (asked(), vec![slots(100, 101)]));
    }

    #[test]
    fn a_reply_that_is_no_map_is_refused() {
        let a = || node_of("a", 1);
        let wrong = [
            vec![range(0, 16_384, &[a()])],
            vec![range(-1, 5, &[a()])],
            vec![range(7, 5, &[a()])],
            vec![range(0, i64::MAX, &[a()])],
            vec![range(0, 5, &[a()]), range(5, 9, &[a()])],
            vec![range(0, 5, &[])],
            vec![range(0, 5, &[node_of("a", 0)])],
            vec![range(0, 5, &[node_of("a", 65_536)])],
            vec![range(0, 5, &[a(), Value::Nil])],
            vec![Value::Okay],
        ];
        for ranges in wrong {
            assert!(parse(ranges.clone()).is_none(), "{ranges:?}");
        }
        assert!(Topology::parse(&Value::Okay, &asked()).is_none());
        assert!(parse(vec![]).unwrap().is_empty());
    }

    #[test]
    fn no_number_of_masters_is_too_many() {
        let mut topology = Topology::default();
        for port in 1..SLOTS + 100 {
            topology.give(port % SLOTS, Address { host: "a".into(), port });
        }
        assert_eq!(topology.nodes().count(), usize::from(SLOTS));
    }

    #[test]
    fn redirections_name_a_node() {
        let parse = |text| Address::parse(text, &asked()).map(|address| address.to_string());
        let good = [("10.0.0.1:6379", "10.0.0.1:6379"), ("::1:6379", "::1:6379"), (":1", "seed:1"), ("?:1", "seed:1")];
        for (text, address) in good {
            assert_eq!(parse(text).as_deref(), Some(address), "{text}");
        }
        for text in ["", "a", "a:", "a:0", "a:65536", "a:-1", "a:b"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_reply_makes_it_panic(
            ranges in proptest::collection::vec((-9_i64..20_000, -9_i64..20_000, ".{0,9}", -9_i64..70_000), 0..9),
        ) {
            let ranges = ranges.iter().map(|(first, last, host, port)| range(*first, *last, &[node_of(host, *port)]));
            let _ = parse(ranges.collect());
        }
    }
}
