//! Releases on real servers and in the embedded file: written, switched, rolled over, removed, and killed meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod aside;
mod doctor;
mod file_bytes;
mod guard;
mod hostile;
mod items;
mod kill;
mod lifecycle;
mod lists;
mod pipelined;
mod release;
mod roll_stops;
mod rolling;
