//! Budgets in, settings out: what a model costs to serve, in bytes, in CPU and in quality, before it goes online.
//!
//! [`quality`] and [`cost`] measure, on the given vectors and on this machine; nothing in them is a constant from
//! elsewhere.

mod estimate;
pub mod heldout;
pub mod quality;

pub use estimate::{Estimate, Verdict};
