//! The built binary, as it is typed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod job;
mod plan;
mod ran;
mod readme;
mod store;
