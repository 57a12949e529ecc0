//! From what is asked for to an `ef`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Engine;
use super::request::Effort;
use crate::catalog::Profile;
use crate::kv::Kv;

/// Part of what is left of a deadline that the search may take; the rest is for ranking and for being wrong.
const SEARCH_SHARE: f64 = 0.7;
/// Searches of fewer rows say little of what a row takes.
const FEW: usize = 100;
/// What one search counts for: the last thirty or so decide.
const NEWEST: f32 = 1.0 / 32.0;

/// What scoring one row takes on this machine, all of a search counted: a running mean.
#[derive(Debug)]
pub(super) struct Speed {
    ns_per_distance: AtomicU32,
}

impl Default for Speed {
    /// 30 ns until something was measured: a slow machine's, so that the first deadlines are held rather than used up.
    fn default() -> Self {
        Self { ns_per_distance: AtomicU32::new(30_f32.to_bits()) }
    }
}

impl Speed {
    pub fn note(&self, distances: usize, took: Duration) {
        if distances < FEW {
            return;
        }
        let measured = took.as_nanos() as f32 / distances as f32;
        // of two that write at once one is lost, and not missed
        let before = self.ns_per_distance();
        self.ns_per_distance.store((before + (measured - before) * NEWEST).to_bits(), Ordering::Relaxed);
    }

    pub fn ns_per_distance(&self) -> f32 {
        f32::from_bits(self.ns_per_distance.load(Ordering::Relaxed))
    }
}

impl<K: Kv> Engine<K> {
    /// The `ef` that an effort comes to when `spent` of its request's time is over.
    pub fn ef(&self, effort: Effort, spent: Duration) -> usize {
        ef_of(effort, self.index().profile(), &self.speed, spent)
    }
}

/// The `ef` to search with, `spent` of the request's time being over.
pub(super) fn ef_of(effort: Effort, profile: &Profile, speed: &Speed, spent: Duration) -> usize {
    let measured = &profile.rungs;
    match effort {
        Effort::Default => profile.default_ef(),
        Effort::Ef(ef) => ef,
        Effort::Recall(recall) => {
            let most = measured.last().map_or_else(|| profile.default_ef(), |rung| rung.ef as usize);
            profile.ef_for(recall).map_or(most, |ef| ef as usize)
        }
        Effort::Deadline(deadline) => {
            let left = deadline.saturating_sub(spent).as_nanos() as f64 * SEARCH_SHARE;
            let affordable = left / f64::from(speed.ns_per_distance());
            let within = measured.iter().rev().find(|rung| rung.distances <= affordable);
            let least = measured.first().map_or_else(|| profile.default_ef(), |rung| rung.ef as usize);
            within.map_or(least, |rung| rung.ef as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Rung;

    fn profile() -> Profile {
        let rung = |ef: u32, recall: f64| Rung {
            ef,
            recall_at_10: recall,
            recall_at_100: recall,
            distances: f64::from(ef) * 10.0,
        };
        Profile { rungs: vec![rung(10, 0.8), rung(100, 0.95), rung(500, 0.992)], ..Profile::default() }
    }

    #[test]
    fn recall_picks_the_smallest_ef_that_reaches_it() {
        let of = |recall| ef_of(Effort::Recall(recall), &profile(), &Speed::default(), Duration::ZERO);
        assert_eq!([0.5, 0.9, 0.95, 0.99, 1.0].map(of), [10, 100, 100, 500, 500]);
        let empty = Profile::default();
        assert_eq!(ef_of(Effort::Recall(0.9), &empty, &Speed::default(), Duration::ZERO), empty.default_ef());
    }

    #[test]
    fn a_deadline_picks_what_there_is_time_for() {
        let speed = Speed::default();
        let of = |us| ef_of(Effort::Deadline(Duration::from_micros(us)), &profile(), &speed, Duration::from_micros(10));
        // 30 ns a row: the rungs take 3, 30 and 150 us, and 70 % of what is left is for them
        assert_eq!([0, 5, 20, 52, 54, 220, 230, 1_000_000].map(of), [10, 10, 10, 10, 100, 100, 500, 500]);
        (0..1_000).for_each(|_| speed.note(1_000, Duration::from_micros(3)));
        assert!((speed.ns_per_distance() - 3.0).abs() < 0.1, "{}", speed.ns_per_distance());
        assert_eq!(of(40), 500);
        speed.note(1, Duration::from_secs(1));
        assert!(speed.ns_per_distance() < 4.0, "one row says nothing");
    }
}
