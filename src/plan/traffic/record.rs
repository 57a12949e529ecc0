//! From requests to curves, in one pass and bounded memory.
//!
//! Users are sampled by the hash of their id: one whose hash is below a threshold is followed with every request, all
//! others with none, and the threshold falls as users come so that never more than [`SAMPLED_USERS`] are followed (SHARDS
//! with fixed size: Waldspurger, Park, Garthwaite, Ahmad, FAST '15). A followed request stands for as many as the
//! threshold leaves out, and a stack distance is scaled up likewise. Sampling may miss a very active user, or have one;
//! the number of requests that it is off by is known, and as in that paper they are taken for hits.
//!
//! TTLs need no scaling: what a cache with a TTL does for a user depends on his own requests alone. So every TTL of the
//! ladder is simulated, exactly, for every followed user.

use std::collections::{BinaryHeap, HashMap};
use std::path::Path;

use twox_hash::XxHash3_64;

use super::curve::{Basis, LruPoint, Traffic, TtlPoint};
use super::hot::Hot;
use super::kept::{self, Activity};
use super::stack::Stack;
use crate::input::{Id, InputError, read_accesses};

/// Users followed at most: 10 MB. The error of a hit rate falls with the root of it; at a quarter of this it was below
/// 0.01 on every trace of the paper.
pub const SAMPLED_USERS: usize = 1 << 15;

/// The TTLs that are tried, in seconds: those that people set.
pub const TTLS_S: [f64; 15] = [
    60.0,
    300.0,
    900.0,
    1_800.0,
    3_600.0,
    7_200.0,
    14_400.0,
    28_800.0,
    43_200.0,
    86_400.0,
    172_800.0,
    259_200.0,
    604_800.0,
    1_209_600.0,
    2_592_000.0,
];

/// Hot users that are named.
const NAMED: usize = 100;

/// Points of the LRU curve in each doubling of the size.
const PER_DOUBLING: f64 = 8.0;

/// Reads a log, as [`read_accesses`] does, into curves.
pub fn read_log(path: &Path) -> Result<Traffic, TrafficError> {
    let mut recorder = Recorder::new(SAMPLED_USERS);
    let late = read_accesses(path, |user, time_s| {
        recorder.push(user, time_s);
        Ok::<_, TrafficError>(())
    })?;
    let mut traffic = recorder.finish().ok_or_else(|| TrafficError::Short { path: path.display().to_string() })?;
    if let Basis::Log { late: counted, .. } = &mut traffic.basis {
        *counted = late;
    }
    Ok(traffic)
}

/// Why a log gives no curves.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The file.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Nothing can be told from it.
    #[error("{path}: expected requests that span a minute at least, got fewer; log a few days, or state an assumption")]
    Short {
        /// The file.
        path: String,
    },
}

/// Takes requests in the order of their times.
pub struct Recorder {
    limit: usize,
    /// Users with a hash below this are followed.
    threshold: u64,
    slots: HashMap<u64, u32>,
    /// Hashes followed, the largest on top: the next to go.
    hashes: BinaryHeap<(u64, u32)>,
    users: Vec<User>,
    free: Vec<u32>,
    stack: Stack,
    sums: Sums,
    activity: Activity,
    hot: Hot,
}

/// A followed user.
#[derive(Clone)]
struct User {
    last_s: f64,
    /// When the entry of a cache without refreshing was written, for each TTL.
    written_s: [f64; TTLS_S.len()],
}

/// What the curves are made of. Every followed request counts as `weight` of them.
#[derive(Default)]
struct Sums {
    requests: u64,
    first_s: f64,
    last_s: f64,
    /// Requests that the followed ones stand for.
    stood_for: f64,
    /// By `log2` of the entries that a cache needs for a hit.
    distances: Vec<f64>,
    on_read: [TtlSums; TTLS_S.len()],
    on_write: [TtlSums; TTLS_S.len()],
    /// Followed requests since residents were counted last.
    since_count: usize,
}

#[derive(Clone, Copy, Default)]
struct TtlSums {
    hits: f64,
    /// Seconds that entries lived, all together.
    lived_s: f64,
    peak: f64,
}

impl Recorder {
    /// Follows at most `limit` users; [`SAMPLED_USERS`] unless there is a reason.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self {
            limit,
            threshold: u64::MAX,
            slots: HashMap::new(),
            hashes: BinaryHeap::new(),
            users: Vec::new(),
            free: Vec::new(),
            // one more, for the user who makes another leave
            stack: Stack::new(limit + 1),
            sums: Sums::default(),
            activity: Activity::default(),
            hot: Hot::default(),
        }
    }

    /// One request. A time that is not finite, or before that of the last request, is taken for that one.
    pub fn push(&mut self, user: Id<'_>, time_s: f64) {
        let first = self.sums.requests == 0;
        let time_s = if time_s.is_finite() { time_s } else { self.sums.last_s };
        let time_s = if first { time_s } else { time_s.max(self.sums.last_s) };
        if first {
            self.sums.first_s = time_s;
        }
        self.sums.requests += 1;
        self.sums.last_s = time_s;
        let bucket = self.activity.count_all(time_s - self.sums.first_s);
        let hash = hash(user);
        self.hot.count(hash, user);
        if hash < self.threshold {
            self.follow(hash, time_s, bucket);
        }
    }

    fn follow(&mut self, hash: u64, time_s: f64, bucket: usize) {
        let weight = self.weight();
        self.sums.stood_for += weight;
        let slot = if let Some(&slot) = self.slots.get(&hash) {
            self.again(slot, time_s, weight);
            slot
        } else {
            self.come(hash, time_s)
        };
        self.activity.count(slot, bucket);
        self.sums.since_count += 1;
        if self.sums.since_count >= self.limit {
            self.count_residents();
        }
        if self.slots.len() > self.limit {
            self.lower_threshold();
        }
    }

    /// A user who was there before.
    fn again(&mut self, slot: u32, time_s: f64, weight: f64) {
        let behind = self.stack.touch(slot).unwrap_or(0);
        self.sums.reuse(1.0 + f64::from(behind) * weight, weight);
        let user = &mut self.users[slot as usize];
        let gap_s = time_s - user.last_s;
        user.last_s = time_s;
        for (at, &ttl_s) in TTLS_S.iter().enumerate() {
            self.sums.on_read[at].add(gap_s < ttl_s, gap_s.min(ttl_s), weight);
            if time_s - user.written_s[at] < ttl_s {
                self.sums.on_write[at].hits += weight;
            } else {
                user.written_s[at] = time_s;
                self.sums.on_write[at].lived_s += ttl_s * weight;
            }
        }
    }

    fn come(&mut self, hash: u64, time_s: f64) -> u32 {
        let user = User { last_s: time_s, written_s: [time_s; TTLS_S.len()] };
        let slot = if let Some(slot) = self.free.pop() {
            self.users[slot as usize] = user;
            slot
        } else {
            self.users.push(user);
            self.users.len() as u32 - 1
        };
        self.slots.insert(hash, slot);
        self.hashes.push((hash, slot));
        self.stack.touch(slot);
        self.activity.come(slot);
        slot
    }

    /// The user with the largest hash is not followed any more, nor anyone with a larger one.
    fn lower_threshold(&mut self) {
        if let Some((hash, slot)) = self.hashes.pop() {
            self.threshold = hash;
            self.slots.remove(&hash);
            self.stack.leave(slot);
            self.free.push(slot);
        }
    }

    /// How many users, and how many requests, a followed one stands for.
    fn weight(&self) -> f64 {
        if self.threshold == u64::MAX { 1.0 } else { 2.0_f64.powi(64) / self.threshold as f64 }
    }

    /// Looks how many entries there are now.
    fn count_residents(&mut self) {
        let (now, weight) = (self.sums.last_s, self.weight());
        self.sums.since_count = 0;
        for (at, &ttl_s) in TTLS_S.iter().enumerate() {
            let count = |alive: &dyn Fn(&User) -> bool| {
                let followed = self.slots.values().filter(|&&slot| alive(&self.users[slot as usize]));
                followed.count() as f64 * weight
            };
            let read = count(&|user| now - user.last_s < ttl_s);
            let written = count(&|user| now - user.written_s[at] < ttl_s);
            self.sums.on_read[at].peak = self.sums.on_read[at].peak.max(read);
            self.sums.on_write[at].peak = self.sums.on_write[at].peak.max(written);
        }
    }

    /// The curves; `None` if the requests span less than the shortest TTL.
    pub fn finish(mut self) -> Option<Traffic> {
        let seconds = self.sums.last_s - self.sums.first_s;
        if seconds < TTLS_S[0] {
            return None;
        }
        self.count_residents();
        let weight = self.weight();
        let end = self.sums.last_s;
        // in the order of hashes, so that the same log gives the same last digit
        let mut followed: Vec<(u64, u32)> = self.slots.iter().map(|(&hash, &slot)| (hash, slot)).collect();
        followed.sort_unstable();
        for &(_, slot) in &followed {
            let user = &self.users[slot as usize];
            for (at, &ttl_s) in TTLS_S.iter().enumerate() {
                self.sums.on_read[at].lived_s += (end - user.last_s).min(ttl_s) * weight;
                self.sums.on_write[at].lived_s += (end - user.written_s[at]).min(ttl_s) * weight;
            }
        }
        let users = (self.slots.len() as f64 * weight).round() as u64;
        let (kept, kept_half_life_s) = kept::curve(&self.activity, &followed, weight);
        Some(Traffic {
            basis: Basis::Log {
                requests: self.sums.requests,
                seconds,
                sampled_users: self.slots.len() as u64,
                late: 0,
            },
            users,
            requests_per_s: self.sums.requests as f64 / seconds,
            ttl_on_read: self.sums.ttl_curve(&self.sums.on_read, seconds, users),
            ttl_on_write: self.sums.ttl_curve(&self.sums.on_write, seconds, users),
            lru: self.sums.lru_curve(users),
            kept,
            kept_half_life_s,
            hot: self.hot.top(NAMED),
        })
    }
}

impl TtlSums {
    fn add(&mut self, hit: bool, lived_s: f64, weight: f64) {
        self.hits += if hit { weight } else { 0.0 };
        self.lived_s += lived_s * weight;
    }
}

impl Sums {
    /// A request that a cache of `entries` hits and no smaller one.
    fn reuse(&mut self, entries: f64, weight: f64) {
        let at = (entries.log2() * PER_DOUBLING).ceil() as usize;
        if at >= self.distances.len() {
            self.distances.resize(at + 1, 0.0);
        }
        self.distances[at] += weight;
    }

    /// Requests that the sample is short of, or has too many: those of very active users, which hit.
    fn missed(&self) -> f64 {
        self.requests as f64 - self.stood_for
    }

    fn hit_rate(&self, hits: f64) -> f64 {
        ((hits + self.missed()) / self.requests as f64).clamp(0.0, 1.0)
    }

    /// TTLs that the log is long enough to tell of.
    fn ttl_curve(&self, sums: &[TtlSums], seconds: f64, users: u64) -> Vec<TtlPoint> {
        let known = TTLS_S.iter().zip(sums).filter(|(ttl_s, _)| **ttl_s <= seconds);
        let point = |(&ttl_s, sums): (&f64, &TtlSums)| {
            let resident = (sums.lived_s / seconds).min(users as f64);
            let resident_peak = sums.peak.clamp(resident, users as f64);
            TtlPoint { ttl_s, hit_rate: self.hit_rate(sums.hits), resident, resident_peak }
        };
        known.map(point).collect()
    }

    fn lru_curve(&self, users: u64) -> Vec<LruPoint> {
        let mut hits = 0.0;
        let point = |(at, weight): (usize, &f64)| {
            hits += weight;
            let entries = (at as f64 / PER_DOUBLING).exp2() as u64;
            LruPoint { entries, hit_rate: self.hit_rate(hits) }
        };
        let mut points: Vec<LruPoint> = self.distances.iter().enumerate().map(point).collect();
        // several fall on one whole number of entries: the last has the hits of all
        points.reverse();
        points.dedup_by_key(|point| point.entries);
        points.reverse();
        let all = points.last().map_or(0.0, |last| last.hit_rate);
        if points.last().is_none_or(|last| last.entries < users) {
            points.push(LruPoint { entries: users, hit_rate: all });
        }
        points
    }
}

/// Numbers and texts are told apart by the seed.
fn hash(user: Id<'_>) -> u64 {
    match user {
        Id::U64(id) => XxHash3_64::oneshot_with_seed(0, &id.to_le_bytes()),
        Id::Text(id) => XxHash3_64::oneshot_with_seed(!0, id.as_bytes()),
    }
}
