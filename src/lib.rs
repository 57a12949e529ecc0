//! Embedding retrieval inside the memory you have.
pub mod catalog;
pub mod cli;
pub mod codec;
pub mod engine;
pub mod file;
pub mod graph;
pub mod input;
pub mod kernel;
pub mod kv;
pub mod store;
