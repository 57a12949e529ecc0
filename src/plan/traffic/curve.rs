//! The curves, and how they are read.

use serde::{Deserialize, Serialize};

use super::hot::HotUser;

/// Where curves come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// A log of requests.
    Log {
        /// Rows in it.
        requests: u64,
        /// From its first to its last.
        seconds: f64,
        /// Users whose requests the curves were made from: all, or a sample by hash.
        sampled_users: u64,
        /// Rows that were up to a minute late, and were taken for as late as the row before.
        late: u64,
    },
    /// An assumption: requests are independent, the `r`-th most active user makes a part of them that goes as
    /// `r^-exponent`, and nobody changes his habits.
    AssumedZipf {
        /// The exponent.
        exponent: f64,
        /// Users who ever ask.
        users: u64,
        /// Requests per second.
        requests_per_s: f64,
    },
}

/// A TTL, and what a cache with it does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtlPoint {
    /// The TTL.
    pub ttl_s: f64,
    /// Share of requests that find their user's entry.
    pub hit_rate: f64,
    /// Entries that have not expired, mean over the log.
    pub resident: f64,
    /// The most of them at any time looked at.
    pub resident_peak: f64,
}

/// A size of an LRU cache, and what it hits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LruPoint {
    /// Entries.
    pub entries: u64,
    /// Share of requests that find their user's.
    pub hit_rate: f64,
}

/// A share of users to keep, and the share of later requests that are theirs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptPoint {
    /// The most deserving of the users seen, as a number of users.
    pub users: u64,
    /// Share of requests that they make.
    pub requests: f64,
}

/// Who asks when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Where this comes from.
    pub basis: Basis,
    /// Users who ask at all.
    pub users: u64,
    /// Requests per second, mean.
    pub requests_per_s: f64,
    /// Caches whose entries live on when they are read, by rising TTL.
    pub ttl_on_read: Vec<TtlPoint>,
    /// Caches whose entries live for the TTL and no longer, by rising TTL.
    pub ttl_on_write: Vec<TtlPoint>,
    /// LRU caches, by rising size.
    pub lru: Vec<LruPoint>,
    /// Users to keep, by rising number.
    pub kept: Vec<KeptPoint>,
    /// How users were ranked for [`Self::kept`]: a request counts half when it is so many seconds old. `None`: requests
    /// count the same whenever they were.
    pub kept_half_life_s: Option<f64>,
    /// Users with the most requests, most first; empty without a log.
    pub hot: Vec<HotUser>,
}

impl Traffic {
    /// Share of requests that the `users` most deserving of `all` make, between points by straight lines. Users who were
    /// not seen cannot be ranked: each makes the same part of the requests that nobody who was seen makes.
    pub fn kept_share(&self, users: u64, all: u64) -> f64 {
        let seen = self.kept.last().map_or((0.0, 0.0), |last| (last.users as f64, last.requests));
        let (users, all) = (users as f64, all as f64);
        if users >= all {
            return 1.0;
        }
        let known = between(&self.kept, |point| (point.users as f64, point.requests), users);
        let strangers = if users > seen.0 { (users - seen.0) / (all - seen.0) } else { 0.0 };
        known + strangers * (1.0 - seen.1)
    }

    /// Share of requests that an LRU cache of so many entries hits.
    pub fn lru_hit_rate(&self, entries: u64) -> f64 {
        between(&self.lru, |point| (point.entries as f64, point.hit_rate), entries as f64)
    }

    /// Share of requests that a cache with this TTL hits.
    pub fn ttl_hit_rate(&self, ttl_s: f64, on_read: bool) -> f64 {
        let points = if on_read { &self.ttl_on_read } else { &self.ttl_on_write };
        between(points, |point| (point.ttl_s, point.hit_rate), ttl_s)
    }

    /// Entries at the most of a cache with this TTL, which a read sets anew or not. On read, it is the users with a request
    /// in so many seconds.
    pub fn resident_peak(&self, ttl_s: f64, on_read: bool) -> f64 {
        let points = if on_read { &self.ttl_on_read } else { &self.ttl_on_write };
        between(points, |point| (point.ttl_s, point.resident_peak), ttl_s)
    }
}

/// The value at `x` of the polygon from (0, 0) through points of rising `x`; level after the last.
fn between<T>(points: &[T], place: impl Fn(&T) -> (f64, f64), x: f64) -> f64 {
    let next = points.partition_point(|point| place(point).0 < x);
    let before = if next == 0 { (0.0, 0.0) } else { place(&points[next - 1]) };
    let Some(after) = points.get(next).map(place) else { return before.1 };
    let part = if after.0 > before.0 { (x - before.0) / (after.0 - before.0) } else { 1.0 };
    before.1 + part.max(0.0) * (after.1 - before.1)
}

#[cfg(test)]
mod tests {
    use super::between;

    #[test]
    fn values_lie_on_straight_lines_and_level_off() {
        let points = [(10.0, 0.5), (20.0, 0.7), (20.0, 0.8)];
        for (x, y) in [(-1.0, 0.0), (0.0, 0.0), (5.0, 0.25), (10.0, 0.5), (15.0, 0.6), (20.0, 0.7), (20.1, 0.8)] {
            assert!((between(&points, |&point| point, x) - y).abs() < 1e-12, "{x}");
        }
        assert_eq!(between(&[], |&point: &(f64, f64)| point, 3.0), 0.0);
    }
}
