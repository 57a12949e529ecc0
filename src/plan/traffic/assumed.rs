//! Curves without a log, from an assumption that says so.

use super::TTLS_S;
use super::curve::{Basis, KeptPoint, LruPoint, Traffic, TtlPoint};

/// Ranks taken one by one; after them in groups that each reach a hundredth further.
const ALONE: u64 = 1000;
const WIDER: f64 = 1.01;
/// Users beyond any service, and whole numbers in `f64`.
const MOST: u64 = 1 << 53;

/// Users of about the same activity.
struct Group {
    users: f64,
    /// Requests per second of each.
    each: f64,
}

impl Traffic {
    /// Independent requests of `users` users with activities that fall as `rank^-exponent`, `requests_per_s` in all. An
    /// LRU cache is taken for one with the TTL that fills it (Che, Tung, Wang, IEEE JSAC 20, 2002).
    ///
    /// Real users come back sooner after a request than much later, so a cache hits more often than this says.
    pub fn assumed_zipf(users: u64, exponent: f64, requests_per_s: f64) -> Self {
        let exponent = if exponent.is_finite() { exponent.clamp(0.0, 4.0) } else { 1.0 };
        let rate = if requests_per_s.is_finite() { requests_per_s.max(f64::MIN_POSITIVE) } else { 1.0 };
        let users = users.clamp(1, MOST);
        let groups = groups(users, exponent, rate);
        let share = |f: &dyn Fn(f64) -> f64| groups.iter().map(|g| g.users * g.each / rate * f(g.each)).sum::<f64>();
        let entries = |f: &dyn Fn(f64) -> f64| groups.iter().map(|g| g.users * f(g.each)).sum::<f64>();
        let point = |ttl_s: f64, alive: &dyn Fn(f64) -> f64| {
            let resident = entries(alive);
            TtlPoint { ttl_s, hit_rate: share(alive), resident, resident_peak: resident }
        };
        // a request in the last `s` seconds; and an entry that was written in them, at the first request after its end
        let read = |s: f64| move |each: f64| -(-each * s).exp_m1();
        let written = |s: f64| move |each: f64| each * s / (1.0 + each * s);
        // from a tenth of the most active user's gap to where nearly all are in
        let ttls = (0..400).map(|at| 0.1 / groups[0].each * (f64::from(at) / 4.0).exp2());
        let sizes = ttls.map(|s| point(s, &read(s)));
        let lru = sizes.map(|p| LruPoint { entries: p.resident.round() as u64, hit_rate: p.hit_rate });
        let nearly = (users as f64 * 0.999) as u64;
        let mut full = false;
        let lru = lru.take_while(|point| !std::mem::replace(&mut full, point.entries >= nearly));
        let mut lru: Vec<LruPoint> = lru.filter(|point| point.entries > 0).collect();
        lru.dedup_by_key(|point| point.entries);
        Self {
            basis: Basis::AssumedZipf { exponent, users, requests_per_s: rate },
            users,
            requests_per_s: rate,
            ttl_on_read: TTLS_S.iter().map(|&s| point(s, &read(s))).collect(),
            ttl_on_write: TTLS_S.iter().map(|&s| point(s, &written(s))).collect(),
            lru,
            kept: kept(&groups, rate),
            kept_half_life_s: None,
            hot: Vec::new(),
        }
    }
}

/// Groups by falling activity. Weights of a group are those of its middle, found by integration.
fn groups(users: u64, exponent: f64, rate: f64) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut first = 1_u64;
    while first <= users {
        let end = if first < ALONE { first + 1 } else { ((first as f64 * WIDER) as u64).min(users) + 1 };
        let (from, to) = (first as f64 - 0.5, end as f64 - 0.5);
        let weight = if (exponent - 1.0).abs() < 1e-9 {
            (to / from).ln()
        } else {
            (to.powf(1.0 - exponent) - from.powf(1.0 - exponent)) / (1.0 - exponent)
        };
        let users = (end - first) as f64;
        let weight = if first < ALONE { (first as f64).powf(-exponent) } else { weight };
        groups.push(Group { users, each: weight / users });
        first = end;
    }
    let sum: f64 = groups.iter().map(|group| group.users * group.each).sum();
    groups.iter_mut().for_each(|group| group.each *= rate / sum);
    groups
}

fn kept(groups: &[Group], rate: f64) -> Vec<KeptPoint> {
    let (mut users, mut requests) = (0.0, 0.0);
    let point = |group: &Group| {
        users += group.users;
        requests += group.users * group.each / rate;
        KeptPoint { users: users as u64, requests: f64::min(requests, 1.0) }
    };
    groups.iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_zipfs_law() {
        let traffic = Traffic::assumed_zipf(50_000, 0.9, 20.0);
        let weights: Vec<f64> = (1..=50_000).map(|rank| f64::from(rank).powf(-0.9)).collect();
        let sum: f64 = weights.iter().sum();
        for users in [1_u64, 10, 999, 5_000, 20_000, 50_000] {
            let share = weights[..users as usize].iter().sum::<f64>() / sum;
            assert!((traffic.kept_share(users, 50_000) - share).abs() < 1e-3, "{users}");
        }
        // an hour on read, from the definition
        let hit: f64 = weights.iter().map(|w| w / sum * (1.0 - (-20.0 * w / sum * 3600.0).exp())).sum();
        let hour = traffic.ttl_on_read.iter().find(|point| point.ttl_s == 3600.0).unwrap();
        assert!((hour.hit_rate - hit).abs() < 1e-3, "{hour:?} {hit}");
    }

    #[test]
    fn curves_rise_and_absurd_numbers_do_no_harm() {
        for (users, exponent, rate) in [
            (0, 1.0, 1.0),
            (1, f64::NAN, f64::INFINITY),
            (u64::MAX, 0.0, 1e9),
            (1_000_000_000, 4.0, 0.0),
            (10, -3.0, -1.0),
        ] {
            let traffic = Traffic::assumed_zipf(users, exponent, rate);
            for points in [&traffic.ttl_on_read, &traffic.ttl_on_write] {
                assert!(
                    points.iter().all(|p| (0.0..=1.0 + 1e-9).contains(&p.hit_rate)),
                    "{users} {exponent}: {points:?}"
                );
                assert!(points.is_sorted_by_key(|p| (p.hit_rate, p.resident).0));
            }
            assert!(traffic.lru.is_sorted_by(|a, b| a.entries < b.entries && a.hit_rate <= b.hit_rate + 1e-9));
            assert!(traffic.kept.is_sorted_by(|a, b| a.requests <= b.requests));
        }
    }
}
