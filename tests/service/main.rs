//! The service, as its clients see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/items.rs"]
mod items;
#[path = "../support/mod.rs"]
mod support;

mod changes;
mod config;
mod faults;
mod hostile;
mod new_items;
mod overload;
mod reload;
mod routes;
mod stop;
mod tls;
