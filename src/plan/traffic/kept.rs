//! Which users to keep when not all fit, and what share of the requests to come is theirs.
//!
//! Users are ranked by their requests, of which older ones may count less. How much less is tried out: users are ranked by
//! the first three quarters of the log, and what counts is their share of the last quarter, which the ranking has not
//! seen. So neither regulars who have left nor a crowd that came once is overrated.

use super::curve::KeptPoint;

/// Stretches of equal length that the log is cut into. The length doubles as the log goes on.
const BUCKETS: usize = 32;

/// Half-lives that are tried, as parts of the whole log: none is pure activity, the shortest nearly recency alone.
const HALF_LIVES: [Option<f64>; 3] = [None, Some(1.0 / 4.0), Some(1.0 / 16.0)];

/// Points of the curve in each doubling of the users.
const PER_DOUBLING: f64 = 4.0;

/// Requests by stretches of time, of every followed user and of all.
pub(super) struct Activity {
    bucket_s: f64,
    all: [u64; BUCKETS],
    users: Vec<[u32; BUCKETS]>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { bucket_s: 1.0, all: [0; BUCKETS], users: Vec::new() }
    }
}

impl Activity {
    /// A request of anyone, so long after the first; says which stretch it falls in.
    pub fn count_all(&mut self, since_s: f64) -> usize {
        while since_s >= self.bucket_s * BUCKETS as f64 {
            self.bucket_s *= 2.0;
            self.all = halved(&self.all);
            self.users.iter_mut().for_each(|counts| *counts = halved(counts));
        }
        let bucket = ((since_s / self.bucket_s) as usize).min(BUCKETS - 1);
        self.all[bucket] += 1;
        bucket
    }

    /// A followed user comes into this slot.
    pub fn come(&mut self, slot: u32) {
        let slot = slot as usize;
        if slot >= self.users.len() {
            self.users.resize(slot + 1, [0; BUCKETS]);
        }
        self.users[slot] = [0; BUCKETS];
    }

    /// A request of a followed user.
    pub fn count(&mut self, slot: u32, bucket: usize) {
        let count = &mut self.users[slot as usize][bucket];
        *count = count.saturating_add(1);
    }

    /// Stretches in use.
    fn length(&self) -> usize {
        self.all.iter().rposition(|&requests| requests > 0).map_or(0, |last| last + 1)
    }
}

/// Neighbours added together, in the first half.
fn halved<T: Copy + Default + std::ops::Add<Output = T>>(counts: &[T; BUCKETS]) -> [T; BUCKETS] {
    std::array::from_fn(|at| if at < BUCKETS / 2 { counts[2 * at] + counts[2 * at + 1] } else { T::default() })
}

/// The curve of the best half-life, with it in seconds. `followed` are hashes, rising, and slots of users, each of which stands for
/// `weight` users.
pub(super) fn curve(activity: &Activity, followed: &[(u64, u32)], weight: f64) -> (Vec<KeptPoint>, Option<f64>) {
    let tries = HALF_LIVES.map(|part| {
        let half_life = part.map(|part| part * activity.length() as f64);
        (ranked(activity, followed, half_life, weight), half_life.map(|buckets| buckets * activity.bucket_s))
    });
    let area = |points: &[KeptPoint]| points.iter().map(|point| point.requests).sum::<f64>();
    let best = tries.into_iter().reduce(|best, next| if area(&next.0) > area(&best.0) { next } else { best });
    best.unwrap_or_default()
}

fn ranked(activity: &Activity, followed: &[(u64, u32)], half_life: Option<f64>, weight: f64) -> Vec<KeptPoint> {
    let length = activity.length();
    let split = (length * 3).div_ceil(4).min(length.saturating_sub(1)).max(length.min(1));
    let decay = |bucket: usize| half_life.map_or(1.0, |h| (-((split - bucket) as f64) / h).exp2());
    let score = |slot: u32| -> f64 {
        let counts = &activity.users[slot as usize][..split];
        counts.iter().enumerate().map(|(bucket, &count)| f64::from(count) * decay(bucket)).sum()
    };
    let later =
        |slot: u32| -> u64 { activity.users[slot as usize][split..].iter().map(|&count| u64::from(count)).sum() };
    let mut order: Vec<(f64, u64)> = followed.iter().map(|&(_, slot)| (score(slot), later(slot))).collect();
    // equals stay in the order of their hashes
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let all = activity.all[split..].iter().sum::<u64>() as f64;
    // as for hit rates: what the sample is short of was asked by very active users, who come first
    let mut requests = all - order.iter().map(|&(_, later)| later as f64 * weight).sum::<f64>();
    let mut points = Vec::new();
    let mut next = 1.0_f64;
    for (at, &(score, later)) in order.iter().enumerate() {
        requests += later as f64 * weight;
        let known = score > 0.0 && order.get(at + 1).is_some_and(|&(next, _)| next > 0.0);
        let rank = (at + 1) as f64;
        if rank >= next || !known {
            let users = (rank * weight).round() as u64;
            points.push(KeptPoint { users, requests: (requests / all.max(1.0)).clamp(0.0, 1.0) });
            next = rank * (1.0 / PER_DOUBLING).exp2();
        }
        if !known {
            break; // who was not there before cannot be ranked
        }
    }
    points
}
