//! Budgets in, settings out: what a model costs to serve, in bytes, in CPU and in quality, before it goes online.
//!
//! [`quality`] and [`cost`] measure, on the given vectors and on this machine; nothing in them is a constant from
//! elsewhere.

mod estimate;
pub mod heldout;
pub mod modes;
mod outcome;
mod problem;
pub mod quality;
pub mod traffic;

pub use estimate::{Estimate, Verdict};
pub use modes::Mode;
pub use outcome::{
    Cache, Change, Component, Constraint, Criterion, Entry, Outcome, Pages, Plan, Predicted, Publishing, Reason,
    Rejected, Relaxation, Settings, Violation,
};
pub use problem::{Budgets, Cost, Costs, Facts, Floor, Measured, PerUser, Point, Problem};
