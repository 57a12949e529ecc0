//! Plans, held against what is measured, simulated or found by trying everything.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/judge.rs"]
mod judge;
#[path = "../support/mod.rs"]
mod support;

mod quality;
mod solver;
mod traffic;
