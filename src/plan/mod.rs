//! Budgets in, settings out: what a model costs to serve, in bytes, in CPU and in quality, before it goes online.
//!
//! [`quality`] and [`cost`] measure, on the given vectors and on this machine; nothing in them is a constant from
//! elsewhere.

pub mod cost;
mod departure;
mod estimate;
mod file;
#[cfg(test)]
mod fixture;
pub mod heldout;
mod meter;
pub mod modes;
mod outcome;
mod problem;
pub mod quality;
pub mod report;
pub mod solver;
pub mod study;
pub mod traffic;

pub use departure::{Departure, departures};
pub use estimate::{Estimate, Verdict};
pub use file::{FORMAT, PlanFile, PlanFileError, Target};
pub use modes::Mode;
pub use outcome::{
    Cache, Change, Component, Constraint, Criterion, Entry, Outcome, Pages, Plan, Predicted, Publishing, Reason,
    Rejected, Relaxation, Settings, Violation,
};
pub use problem::{Budgets, Cost, Costs, Facts, Floor, Measured, PerUser, Point, Problem};
pub use solver::{ProblemError, solve};
