//! Releases on a real cluster of six nodes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/items.rs"]
mod items;
#[path = "../support/mod.rs"]
mod support;

mod failover;
mod guard;
mod lost;
mod memory;
mod routing;
