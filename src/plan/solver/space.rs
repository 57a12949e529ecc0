//! What there is to choose, as short lists, and every combination of them in one fixed order.

use crate::codec::Codec;
use std::ops::ControlFlow;

use crate::plan::{Cache, Entry, Mode, Pages, Problem, Publishing};
use crate::store::geometry::{self, Home};

/// Shares of the users that may be kept, in percent. A twentieth is less than anyone can tell a stranger's share to.
pub const KEPT_PERCENT: [u64; 20] = [100, 95, 90, 85, 80, 75, 70, 65, 60, 55, 50, 45, 40, 35, 30, 25, 20, 15, 10, 5];

/// Shares of the kept users that lists may be computed for beforehand, in percent.
pub const PRECOMPUTED_PERCENT: [u64; 7] = [1, 2, 5, 10, 20, 50, 100];

/// Shares of all users that a serving process may cache, in thousandths.
pub const LOCAL_PERMILLE: [u64; 7] = [1, 5, 10, 50, 100, 500, 1000];

/// Nodes that a store may have.
pub const SHARDS: [u32; 12] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/// Bytes of an entry of a local cache beyond its content: hash table, links, allocation. An assumption: twice what
/// 48 bytes of key, pointers and length come to.
pub const LOCAL_ENTRY_BYTES: u64 = 96;

/// What of a choice decides the bytes of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stored {
    pub kept_percent: u64,
    pub users_kept: u64,
    pub releases_kept: u32,
    pub publishing: Publishing,
    /// Codec and pages; `None` where lists take the vectors' place.
    pub vectors: Option<(Codec, Pages)>,
    pub shards: u32,
    /// In the store; never local.
    pub cache: Cache,
}

/// A way to store and to answer, but for the point of measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub stored: Stored,
    pub mode: Mode,
    pub cache: Cache,
}

/// Calls `f` with every way to store, until it breaks off. `shards` are the numbers of nodes to try.
pub(super) fn for_each_stored<B>(
    problem: &Problem,
    ways: &Ways,
    shards: &[u32],
    mut f: impl FnMut(Stored) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let budgets = &problem.budgets;
    for kept_percent in KEPT_PERCENT {
        let users_kept = (problem.facts.users * kept_percent).div_ceil(100);
        for (releases_kept, publishing) in publishings(budgets.releases_kept) {
            // rows are numbers without gaps only when nobody is left out
            let dense = problem.facts.dense_ids && kept_percent == 100;
            let fit = |vectors: &&Option<_>| dense || !matches!(vectors, Some((_, Pages::Dense { .. })));
            for &vectors in ways.iter().filter(fit) {
                for cache in stored_caches(problem, users_kept, vectors.is_some()) {
                    for &shards in shards {
                        f(Stored { kept_percent, users_kept, releases_kept, publishing, vectors, shards, cache })?;
                    }
                }
            }
        }
    }
    ControlFlow::Continue(())
}

/// The ways to answer from what is stored.
pub(super) fn choices(problem: &Problem, stored: Stored) -> Vec<Choice> {
    let choice = |mode, cache| Choice { stored, mode, cache };
    match (stored.vectors, stored.cache) {
        (None, cache) => vec![choice(Mode::Offline, cache)],
        (Some(_), Cache::None) => {
            let local = local_caches(problem).map(|cache| choice(Mode::Hybrid, cache));
            std::iter::once(choice(Mode::RealTime, Cache::None)).chain(local).collect()
        }
        (Some(_), cache) => vec![choice(Mode::Hybrid, cache)],
    }
}

/// (releases kept, how the next is loaded). Fewer than asked for are there to tell what that would save.
fn publishings(most: u32) -> Vec<(u32, Publishing)> {
    let mut all = Vec::new();
    for kept in (0..=most).rev() {
        all.push((kept, Publishing::Beside));
        if kept > 0 {
            all.push((kept, Publishing::RetireFirst));
        }
    }
    all.push((0, Publishing::Rolling));
    all
}

/// Codecs that users may be kept in, each in both kinds of pages; and `None` for lists in the vectors' place. No budget
/// changes them, and the search for the best pages takes a while.
pub(super) type Ways = Vec<Option<(Codec, Pages)>>;

/// All that were measured.
pub(super) fn ways(problem: &Problem) -> Ways {
    let (mut all, home) = (vec![None], Home::Server(problem.facts.server));
    for codec in Codec::ALL {
        if !problem.measured.points.iter().any(|point| point.users == codec) {
            continue;
        }
        let record = codec.bytes_per_vector(problem.facts.dim as usize);
        let slots = geometry::dense_slots(home, geometry::dense_user_bytes(record));
        all.push(Some((codec, Pages::Dense { slots })));
        let (header, user) = (geometry::HASHED_HEADER_BYTES, geometry::hashed_user_bytes(record));
        let mean_users = geometry::hashed_mean(home, header, user);
        all.push(Some((codec, Pages::Hashed { mean_users })));
    }
    all
}

const ENTRIES: [Entry; 2] = [Entry::Lists, Entry::Candidates];

fn stored_caches(problem: &Problem, users_kept: u64, vectors: bool) -> Vec<Cache> {
    let precomputed = |users| ENTRIES.map(|entry| Cache::Precomputed { entry, users });
    if !vectors {
        return precomputed(users_kept).into();
    }
    let mut all = vec![Cache::None];
    all.extend(PRECOMPUTED_PERCENT.iter().flat_map(|percent| precomputed((users_kept * percent).div_ceil(100))));
    let traffic = &problem.traffic;
    for (points, on_read) in [(&traffic.ttl_on_write, false), (&traffic.ttl_on_read, true)] {
        let ttl = |ttl_s| ENTRIES.map(|entry| Cache::Store { entry, ttl_s, on_read });
        all.extend(points.iter().flat_map(|point| ttl(point.ttl_s)));
    }
    all
}

fn local_caches(problem: &Problem) -> impl Iterator<Item = Cache> {
    let facts = &problem.facts;
    LOCAL_PERMILLE.into_iter().flat_map(move |permille| {
        let entries = (facts.users * permille).div_ceil(1000);
        ENTRIES.map(|entry| {
            let bytes = entries * (u64::from(facts.entry_bytes(entry)) + LOCAL_ENTRY_BYTES);
            Cache::Local { entry, entries, bytes }
        })
    })
}
