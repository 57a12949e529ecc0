//! Indexes: built, opened, spoilt, held against what each must be; and what is read to build them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/forge.rs"]
mod forge;
#[path = "../support/items.rs"]
mod items;

mod build;
mod container;
mod golden;
mod hostile;
mod hostile_links;
mod input;
mod yardstick;
