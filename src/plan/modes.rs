//! What a request costs in each serving mode: a pure function of what its parts cost.
//!
//! | mode | a request | is computed |
//! |---|---|---|
//! | offline | reads a list | after training |
//! | real time | reads a vector and searches | now |
//! | hybrid | reads a list; if there is none, reads a vector and searches | for some then, for others now |

use std::iter::Sum;
use std::ops::{Add, Mul};

use serde::{Deserialize, Serialize};

use super::problem::Cost;

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

/// What the steps of a request cost, in one unit: processor time, or bytes, or anything that adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Steps<T> {
    /// Looking for a list, found or not.
    pub list: T,
    /// Reading the vector and searching with it; and writing the list, where requests fill the cache.
    pub rest: T,
}

impl<T: Copy + Default + Add<Output = T> + Mul<f64, Output = T>> Steps<T> {
    /// The mean cost of a request of which `hit_rate` find a list. A hybrid request that finds none has paid for looking:
    /// `list + (1 - hit_rate) x rest`, which is `hit_rate x list + (1 - hit_rate) x (list + rest)`.
    pub fn mean(self, mode: Mode, hit_rate: f64) -> T {
        match mode {
            Mode::Offline => self.list,
            Mode::RealTime => self.rest,
            Mode::Hybrid => self.list + self.rest * (1.0 - hit_rate.clamp(0.0, 1.0)),
        }
    }
}

impl Add for Cost {
    type Output = Self;
    /// One after the other. Of the times that one in a hundred takes the sum is an upper bound: both are rarely slow.
    fn add(self, other: Self) -> Self {
        Self {
            client_us: self.client_us + other.client_us,
            server_us: self.server_us + other.server_us,
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

    #[test]
    fn a_mode_costs_what_its_steps_do() {
        let steps = Steps { list: 10.0, rest: 100.0 };
        assert_eq!(steps.mean(Mode::Offline, 0.3), 10.0);
        assert_eq!(steps.mean(Mode::RealTime, 0.3), 100.0);
        assert_eq!(steps.mean(Mode::Hybrid, 0.75), 0.75 * 10.0 + 0.25 * 110.0);
        assert_eq!(steps.mean(Mode::Hybrid, 0.0), 110.0);
        assert_eq!(steps.mean(Mode::Hybrid, 1.5), 10.0);
    }
}
