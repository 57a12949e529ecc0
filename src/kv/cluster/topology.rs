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
