//! From a request to ranked items.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod again;
mod answers;
mod filters;
mod journal;
mod ladder;
mod listed;
mod live;
mod rank;
