//! What keys cost on a server, before they are written: Redis 7.0 to 8.6, Valkey 7.2 to 9.1, alone or in a cluster.
//!
//! `used_memory` is the sum of what the allocator gives for every request, so the model lists the requests: entries,
//! names, objects, values ([`Server::key_bytes`]), and the tables that point at them ([`Dataset`], which also knows how
//! tables grow and what stays of them). Nothing here talks to a server: a probe finds out which it is.
//!
//! The one thing to know: an answer is as good as the [`Server`] it is asked of. Version, allocator and cluster mode each
//! move a short key's bytes by a fifth, and none can be guessed from the others.

mod alloc;
mod dataset;
mod flavor;
mod keys;
mod object;
mod overhead;
mod tables;
#[cfg(test)]
mod tests;

pub use alloc::Allocator;
pub use dataset::{Dataset, Priced};
pub use flavor::Flavor;
pub use keys::{Expiry, Keys, Names, Values};
pub use object::Value;
pub use overhead::{Past, Writes, backlog_bytes, connection_bytes, copied_bytes, resident_bytes};

/// A server, as far as bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Version, by layout.
    pub flavor: Flavor,
    /// What rounds its requests up.
    pub allocator: Allocator,
    /// In a cluster, the hash slots that this node owns; keys are taken to fall evenly on them. `None` standalone.
    pub cluster_slots: Option<u32>,
}

impl Server {
    /// Redis 7.0 to 7.2 as distributions package it. Where something is decided once for every server (how many slots a
    /// page has), it is decided for this one: its entries are the most expensive, and its classes the widest.
    pub const REFERENCE: Self =
        Self { flavor: Flavor::Redis70, allocator: Allocator::JemallocQ16, cluster_slots: None };

    /// What the first call of a command since the server started adds for good: its latency histogram, 3,072 counts
    /// (`server.c:updateCommandLatencyHistogram`, since 7.0; measured 24,688 bytes).
    pub const fn first_use_bytes(&self) -> u64 {
        (self.size_class(3_072 * 8) + self.size_class(104)) as u64
    }

    const fn size_class(&self, bytes: usize) -> usize {
        self.allocator.size_class(bytes)
    }
}
