//! What a request costs in each serving mode: a pure function of what its parts cost.
//!
//! | mode | a request | is computed |
//! |---|---|---|
//! | offline | reads a list | after training |
//! | real time | reads a vector and searches | now |
//! | hybrid | reads a list; if there is none, reads a vector and searches | for some then, for others now |

use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use super::problem::{Cost, Costs};
use super::{Cache, Entry};

/// How answers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Lists for all users are computed after training and read at the request.
    Offline,
    /// Vectors are kept, and every request searches.
    RealTime,
    /// Lists for some users, and a search for the rest.
    Hybrid,
}

/// What the steps of a request cost, each when it is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Steps {
    /// Reading a list or candidates.
    pub list: Cost,
    /// Looking for them in vain.
    pub missed: Cost,
    /// Reading the vector, and all that is done around the search: filters, ranks, the answer.
    pub vector: Cost,
    /// Searching with it.
    pub search: Cost,
    /// Writing what was found, where requests fill the cache.
    pub write: Cost,
}

impl Steps {
    /// With lists in this cache.
    pub fn of(costs: &Costs, search: Cost, cache: Cache) -> Self {
        let free = Cost::default();
        let (list, missed, write) = match cache {
            // a look into one's own memory costs nothing that could be measured beside a search
            Cache::None | Cache::Local { .. } => (free, free, free),
            Cache::Precomputed { entry, .. } => (costs.read(entry), costs.missed, free),
            Cache::Store { entry, .. } => (costs.read(entry), costs.missed, costs.write),
        };
        Self { list, missed, vector: costs.vector, search, write }
    }

    /// What each step adds to the mean request of which `hit_rate` find a list: looking, vectors, searches, writes. A
    /// hybrid request that finds none has looked: `hit_rate x list + (1 - hit_rate) x (missed + vector + search + write)`.
    /// Where no more than one in a hundred search, p99 is that of reading a list; and a list is written after the answer
    /// has gone out.
    pub fn parts(&self, mode: Mode, hit_rate: f64) -> [Cost; 4] {
        let missed = 1.0 - hit_rate.clamp(0.0, 1.0);
        let (found, misses, searches, slow) = match mode {
            Mode::Offline => (1.0, 0.0, 0.0, 0.0),
            Mode::RealTime => (0.0, 0.0, 1.0, 1.0),
            Mode::Hybrid => (1.0 - missed, missed, missed, if hit_rate <= 0.99 { 1.0 } else { 0.0 }),
        };
        let part = |step: &Cost, often: f64, slow: f64| Cost {
            client_us: step.client_us * often,
            server_us: step.server_us * often,
            idle_us: step.idle_us * often,
            p99_us: step.p99_us * slow,
        };
        [
            part(&self.list, found, if mode == Mode::RealTime { 0.0 } else { 1.0 - slow })
                + part(&self.missed, misses, if mode == Mode::Hybrid { slow } else { 0.0 }),
            part(&self.vector, searches, slow),
            part(&self.search, searches, slow),
            part(&self.write, searches, 0.0),
        ]
    }

    /// The mean request with all of it.
    pub fn request(&self, mode: Mode, hit_rate: f64) -> Cost {
        self.parts(mode, hit_rate).into_iter().sum()
    }
}

impl Costs {
    /// Reading what a cache keeps.
    fn read(&self, entry: Entry) -> Cost {
        match entry {
            Entry::Lists => self.list,
            Entry::Candidates => self.candidates,
        }
    }
}

impl Cost {
    /// Requests a second of one machine with so many cores and the store's server on it, as many in flight as it can use:
    /// what service and server take together, and what stays idle, is shared by the cores.
    pub fn requests_per_s(&self, cores: usize) -> f64 {
        1e6 * cores as f64 / (self.client_us + self.server_us + self.idle_us)
    }
}

impl Add for Cost {
    type Output = Self;
    /// One after the other. Of the times that one in a hundred takes the sum is an upper bound: both are rarely slow.
    fn add(self, other: Self) -> Self {
        Self {
            client_us: self.client_us + other.client_us,
            server_us: self.server_us + other.server_us,
            idle_us: self.idle_us + other.idle_us,
            p99_us: self.p99_us + other.p99_us,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(us: f64) -> Cost {
        Cost { client_us: us, server_us: us / 10.0, idle_us: us / 5.0, p99_us: 2.0 * us }
    }

    #[test]
    fn a_mode_costs_what_its_steps_do() {
        let steps =
            Steps { list: cost(10.0), missed: cost(15.0), vector: cost(20.0), search: cost(80.0), write: cost(5.0) };
        let client_us = |mode, hit_rate| steps.request(mode, hit_rate).client_us;
        assert_eq!(client_us(Mode::Offline, 0.3), 10.0);
        assert_eq!(client_us(Mode::Hybrid, 0.75), 0.75 * 10.0 + 0.25 * 120.0);
        assert_eq!(client_us(Mode::Hybrid, 0.0), 120.0);
        assert_eq!(client_us(Mode::Hybrid, 1.5), 10.0);
        let no_cache = Steps { write: Cost::default(), ..steps };
        assert_eq!(no_cache.request(Mode::RealTime, 0.3), cost(20.0) + cost(80.0));
        let p99_us = [0.5, 0.99, 0.991].map(|hit_rate| steps.request(Mode::Hybrid, hit_rate).p99_us);
        assert_eq!(p99_us, [230.0, 230.0, 20.0]);
    }

    #[test]
    fn what_is_looked_for_and_written_is_what_the_cache_keeps() {
        let costs =
            Costs { list: cost(1.0), candidates: cost(2.0), missed: cost(5.0), vector: cost(3.0), write: cost(4.0) };
        let steps = |cache| {
            let Steps { list, missed, write, .. } = Steps::of(&costs, cost(9.0), cache);
            (list.client_us, missed.client_us, write.client_us)
        };
        let entry = Entry::Candidates;
        assert_eq!(steps(Cache::None), (0.0, 0.0, 0.0));
        assert_eq!(steps(Cache::Local { entry, entries: 1, bytes: 1 }), (0.0, 0.0, 0.0));
        assert_eq!(steps(Cache::Precomputed { entry, users: 1 }), (2.0, 5.0, 0.0));
        assert_eq!(steps(Cache::Store { entry, ttl_s: 1.0, on_read: true }), (2.0, 5.0, 4.0));
        assert_eq!(steps(Cache::Store { entry: Entry::Lists, ttl_s: 1.0, on_read: true }), (1.0, 5.0, 4.0));
    }
}
