//! From what is asked for to an `ef`.
//!
//! The one thing to know: a deadline is turned into rows before the search begins, so what makes a search longer must be
//! foreseen: a filter, excluded items, and whether rows are met on a walk or scanned, which takes a fraction of the time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::request::Effort;
use crate::catalog::{Index, Profile, Rung};
use crate::graph::{SearchOptions, SearchStats, Searcher};

/// Part of what is left of a deadline that the search may take; the rest is for ranking and for being wrong.
const SEARCH_SHARE: f64 = 0.7;
/// Searches of fewer rows say little of what a row takes.
const FEW: usize = 100;
/// What one search counts for: the last thirty or so decide.
const NEWEST: f32 = 1.0 / 32.0;

/// When requests came, and how hard they may be worked on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What deadlines count from.
    pub since: Instant,
    /// How much of its effort a request is worth now: 1 for all of it, 0 for the least that the recall floor allows.
    pub level: f64,
}

impl Pace {
    /// Of requests that came just now, on a machine with nothing else to do.
    pub fn now() -> Self {
        Self { since: Instant::now(), level: 1.0 }
    }
}

/// What a row takes on this machine, all of a search counted: running means, of rows met on walks and of rows scanned.
#[derive(Debug)]
pub(super) struct Speed {
    walked_ns: Mean,
    scanned_ns: Mean,
}

impl Default for Speed {
    /// 30 ns and 10 until something was measured: a slow machine's, so that the first deadlines are held rather than
    /// used up.
    fn default() -> Self {
        Self { walked_ns: Mean::of(30.0), scanned_ns: Mean::of(10.0) }
    }
}

impl Speed {
    /// Takes in what a search took. One that walked and then scanned says nothing of either.
    pub fn note(&self, stats: SearchStats, took: Duration) {
        if stats.distances < FEW {
            return;
        }
        let measured = took.as_nanos() as f32 / stats.distances as f32;
        if stats.scanned == 0 {
            self.walked_ns.learn(measured);
        } else if stats.scanned == stats.distances {
            self.scanned_ns.learn(measured);
        }
    }
}

/// A running mean, as the bits of an `f32`.
#[derive(Debug)]
struct Mean(AtomicU32);

impl Mean {
    fn of(value: f32) -> Self {
        Self(AtomicU32::new(value.to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from(f32::from_bits(self.0.load(Ordering::Relaxed)))
    }

    fn learn(&self, measured: f32) {
        // of two that write at once one is lost, and not missed
        let before = f32::from_bits(self.0.load(Ordering::Relaxed));
        self.0.store((before + (measured - before) * NEWEST).to_bits(), Ordering::Relaxed);
    }
}

/// What a search goes through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Candidates wanted.
    pub k: usize,
    /// Nodes that pass the filter.
    pub passing: usize,
    /// Added items that do.
    pub added: usize,
    /// Picks that may not come.
    pub excluded: usize,
}

impl Load {
    /// Nanoseconds that a search with the effort of a rung is expected to take.
    fn ns(self, rung: &Rung, searcher: &Searcher, profile: &Profile, speed: &Speed) -> f64 {
        let ef = rung.ef as usize;
        let nodes = match searcher.forecast(SearchOptions { k: self.k, ef }, self.passing, self.excluded) {
            // what the rung was measured to score, for so many more nodes
            Some(expanded) => {
                rung.distances * expanded as f64 / profile.tuning.expansions(ef) as f64 * speed.walked_ns.get()
            }
            None => self.passing as f64 * speed.scanned_ns.get(),
        };
        nodes + self.added as f64 * speed.scanned_ns.get()
    }
}

/// The `ef` to search an index with, `spent` of the request's time being over.
pub(super) fn ef_of(
    effort: Effort,
    (index, default): (&Index, usize),
    speed: &Speed,
    load: Load,
    spent: Duration,
) -> usize {
    let profile = index.profile();
    let measured = &profile.rungs;
    match effort {
        Effort::Default => default,
        Effort::Ef(ef) => ef,
        Effort::Recall(recall) => {
            let most = measured.last().map_or(default, |rung| rung.ef as usize);
            profile.ef_for(recall).map_or(most, |ef| ef as usize)
        }
        Effort::Deadline(deadline) => {
            let left = deadline.saturating_sub(spent).as_nanos() as f64 * SEARCH_SHARE;
            let searcher = index.searcher();
            let within = |rung: &&Rung| load.ns(rung, &searcher, profile, speed) <= left;
            let best = measured.iter().rev().find(within).or(measured.first());
            best.map_or(default, |rung| rung.ef as usize)
        }
    }
}

/// The efforts of searches that ask for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Efforts {
    /// When there is time.
    pub most: usize,
    /// When there is none.
    pub least: usize,
}

impl Efforts {
    /// Those that a profile allows: `ef` if it is not 0, down to what reaches the recall floor. Where no recall was measured
    /// nothing can be promised, and nothing is lowered.
    pub fn of(profile: &Profile, ef: usize, recall_floor: f64) -> Self {
        let most = if ef > 0 { ef } else { profile.default_ef() };
        Self { most, least: profile.ef_for(recall_floor).map_or(most, |ef| most.min(ef as usize)) }
    }

    /// The part of an `ef` that is left at a level: all of it at 1, the least at 0. What is below the least is what was
    /// asked for.
    pub fn eased(self, ef: usize, level: f64) -> usize {
        let room = ef.saturating_sub(self.least) as f64;
        ef - (room * (1.0 - level.clamp(0.0, 1.0))).round() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{BuildSpec, Hit, QueryVector, build};
    use crate::codec::Metric;
    use crate::engine::mask::Mask;
    use crate::engine::shelf::sorted;
    use crate::graph::{BuildOptions, Filter};
    use crate::input::Vectors;

    const DIM: usize = 8;
    const N: usize = 60_000;

    fn vectors(count: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count * DIM).map(|_| next()).collect()
    }

    /// An index with few links: then walks pay with few rows as well.
    fn index(folder: &tempfile::TempDir) -> Index {
        let path = folder.path().join("items.fvecs");
        let mut bytes = Vec::new();
        for vector in vectors(N, 1).chunks(DIM) {
            bytes.extend((DIM as u32).to_le_bytes());
            bytes.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
        }
        std::fs::write(&path, bytes).unwrap();
        let items = Vectors::open(&path).unwrap();
        let graph = BuildOptions { m: 4, ef_construction: 24, ..BuildOptions::new(Metric::Cosine) };
        let spec = BuildSpec { graph, ..BuildSpec::new(&items, Metric::Cosine) };
        build(&spec, &folder.path().join("items.tng"), &|_| ()).unwrap().0
    }

    fn search(index: &Index, query: &[f32], (ef, k): (usize, usize), filter: Filter) -> (Vec<Hit>, SearchStats) {
        index.search(QueryVector::Floats(query), SearchOptions { k, ef }, filter).unwrap()
    }

    /// By counted rows: 30 ns for one met on a walk and 10 ns for one scanned, as is taken before any was measured.
    #[test]
    fn a_deadline_foresees_what_filters_and_exclusions_cost() {
        const SEEN: usize = 200;
        let folder = tempfile::tempdir().unwrap();
        let index = index(&folder);
        let (speed, queries) = (Speed::default(), vectors(20, 2));
        // what is nearest to each query has been seen
        let near = |query| {
            let hits = search(&index, query, (600, SEEN), Filter::default()).0;
            sorted(hits.iter().map(|hit| hit.node).collect())
        };
        let seen: Vec<Vec<u32>> = queries.chunks(DIM).map(near).collect();
        let tenth = Mask::of(N, (0..N as u32).filter(|node| node % 10 == 3));
        let plain = Load { k: 10, passing: N, added: 0, excluded: 0 };
        let filtered = (Load { passing: tenth.passing, ..plain }, Some((&tenth.bits[..], tenth.passing)));
        let excluding = (Load { excluded: SEEN, ..plain }, None);
        for (load, bits) in [filtered, excluding] {
            let work_ns = |ef: usize| {
                let ns = |(query, seen): (_, &Vec<u32>)| {
                    let exclude = if load.excluded > 0 { &seen[..] } else { &[] };
                    let stats = search(&index, query, (ef, 10), Filter { bits, exclude }).1;
                    (30 * stats.distances - 20 * stats.scanned) as f64
                };
                queries.chunks(DIM).zip(&seen).map(ns).sum::<f64>() / seen.len() as f64
            };
            let mut lowered = 0;
            for us in (10..400).step_by(10) {
                let deadline = Effort::Deadline(Duration::from_micros(us));
                let of = |load| ef_of(deadline, (&index, 64), &speed, load, Duration::ZERO);
                let (ef, otherwise, affordable) = (of(load), of(plain), us as f64 * 1e3 * SEARCH_SHARE);
                if ef > index.profile().rungs[0].ef as usize {
                    assert!(work_ns(ef) <= 1.1 * affordable, "{ef} takes {} of {affordable}", work_ns(ef));
                }
                lowered += usize::from(ef < otherwise && work_ns(otherwise) > affordable);
            }
            assert!(lowered >= 3, "lowered {lowered} times");
        }
    }

    #[test]
    fn recall_picks_the_smallest_ef_that_reaches_it_and_a_deadline_what_there_is_time_for() {
        let folder = tempfile::tempdir().unwrap();
        let (index, speed) = (index(&folder), Speed::default());
        let rungs = &index.profile().rungs;
        let load = Load { k: 10, passing: N, added: 0, excluded: 0 };
        let of = |effort, spent| ef_of(effort, (&index, 7), &speed, load, spent);
        for rung in rungs {
            let ef = of(Effort::Recall(rung.recall_at_10), Duration::ZERO);
            assert!(
                ef <= rung.ef as usize
                    && rungs.iter().all(|other| other.ef as usize >= ef || other.recall_at_10 < rung.recall_at_10)
            );
            // just enough, and just too little
            let ns = rung.distances * 30.0 / SEARCH_SHARE;
            let deadline = |share: f64| Effort::Deadline(Duration::from_nanos((ns * share) as u64 + 10_000));
            assert!(of(deadline(1.001), Duration::from_micros(10)) >= rung.ef as usize);
            assert!(of(deadline(0.999), Duration::from_micros(10)) < rung.ef as usize || rung.ef == rungs[0].ef);
        }
        let most = rungs.last().unwrap().ef as usize;
        assert_eq!((of(Effort::Recall(1.0), Duration::ZERO), of(Effort::Default, Duration::ZERO)), (most, 7));
    }

    #[test]
    fn rows_of_walks_and_of_scans_are_not_mixed_and_few_say_nothing() {
        let speed = Speed::default();
        let took = |distances, scanned, us| {
            let stats = SearchStats { distances, scanned, hops: 1 };
            (0..1_000).for_each(|_| speed.note(stats, Duration::from_micros(us)));
            [speed.walked_ns.get(), speed.scanned_ns.get()].map(|ns| ns.round() as u32)
        };
        assert_eq!(took(1_000, 0, 50), [50, 10]);
        assert_eq!(took(1_000, 1_000, 2), [50, 2]);
        assert_eq!(took(1_000, 700, 900), [50, 2], "one that did both says nothing of either");
        assert_eq!(took(1, 0, 1_000_000), [50, 2]);
    }

    #[test]
    fn easing_lowers_down_to_the_floor_and_never_raises() {
        let efforts = Efforts { most: 100, least: 40 };
        let at = |ef| [1.0, 0.99, 0.5, 0.0].map(|level| efforts.eased(ef, level));
        assert_eq!(at(100), [100, 99, 70, 40]);
        // more than would be taken by itself is lowered from there
        assert_eq!(at(500), [500, 495, 270, 40]);
        assert_eq!(at(40), [40; 4]);
        assert_eq!(at(10), [10; 4], "who asks for less than the floor gets that");
    }
}
