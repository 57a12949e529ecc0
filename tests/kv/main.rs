//! Homes of values: real servers and the embedded file, what they say of themselves and what their memory costs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod homes;
mod memory_grid;
mod probe;
mod trouble;
