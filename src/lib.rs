//! Embedding retrieval inside the memory you have.
//!
//! A recommender's training ends with two matrices: item vectors and user vectors. Tonnage quantizes the items, links
//! them into a graph, measures what that costs in recall *on the users who will query it*, and writes one file that is
//! mapped and checked when opened. The users go into Redis, or a local file, packed into pages: as `int8` of 64
//! dimensions one costs Redis 69 to 80 bytes, and 152 under a key of its own (`docs/wire-format.md`). A request joins
//! the two: a user id becomes ranked items, under tags, without what the user has seen. A user vector is never scored
//! against the index of another release.
//!
//! Two words to know: a score is **larger for a better item, whatever the metric**; and everything that is read, be it
//! a trainer's file, an index or a store, is checked as if it were hostile: the answer is an error that says what was
//! expected, what was got and what to do.
//!
//! # The house
//!
//! Imports run downward only, from a larger rank to a smaller.
//!
//! | rank | folder | what |
//! |---|---|---|
//! | 0 | [`kernel`] | numbers: dot products on slices; scalar, AVX2, AVX-512 and NEON, picked once |
//! | 0 | [`mod@file`] | bytes on disk: header, sections, checksums, mapping, atomic writing |
//! | 0 | [`kv`] | bytes by key: Redis or an embedded file behind one trait |
//! | 1 | [`codec`] | vectors to bytes and back: `f32` `f16` `int8` `int4` |
//! | 1 | [`input`] | what training leaves: vectors, ids, tags, numbers, popularity, interactions |
//! | 2 | [`graph`] | HNSW: build, search, check |
//! | 2 | [`store`] | the user side by key: pages, releases, publish, activate, read |
//! | 3 | [`catalog`] | the item index: one file with ids, tags, numbers, codes, graph and measured quality |
//! | 4 | [`engine`] | one request: user id to ranked items of the same release |
//! | 5 | [`plan`] | budgets in, settings out: what codecs are worth, what the engine's requests cost |
//! | 5 | [`service`] | the engine behind HTTP: reload, overload, faults, metrics |
//! | 6 | [`cli`] | one file for each verb of the command |
//!
//! Data goes through it one way. Build: `input → codec → graph → catalog`. Publish: `input → codec → store → kv`.
//! Request: `engine → (store → kv) + (catalog → graph → kernel) → engine`.
//!
//! # An index, built and searched
//!
//! ```
//! use tonnage::catalog::{BuildSpec, QueryVector, build};
//! use tonnage::codec::{Codec, Metric};
//! use tonnage::graph::{BuildOptions, Filter, SearchOptions};
//! use tonnage::input::{Id, Vectors};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("items.npy");
//! # let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
//! # npy.extend(format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 2), }").bytes());
//! # npy.extend([1.0_f32, 0.0, 0.0, 1.0, 0.7, 0.7, -1.0, 0.0].iter().flat_map(|x| x.to_le_bytes()));
//! std::fs::write(&path, npy)?; // four items: (1, 0), (0, 1), (0.7, 0.7), (-1, 0)
//! let items = &Vectors::open(&path)?;
//! let spec = BuildSpec { release: "first", ..BuildSpec::new(items, Metric::Dot) };
//! let (index, _report) = build(&spec, &folder.path().join("items.tng"), &|_stage| ())?;
//! let (options, filter) = (SearchOptions { k: 2, ef: 16 }, Filter { bits: None, exclude: &[] });
//! let (hits, _stats) = index.search(QueryVector::Floats(&[0.1, 2.0]), options, filter)?;
//! assert_eq!([0, 1].map(|at| index.id(hits[at].node)), [Id::U64(1), Id::U64(2)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
pub mod catalog;
pub mod cli;
pub mod codec;
pub mod engine;
pub mod file;
pub mod graph;
pub mod input;
pub mod kernel;
pub mod kv;
pub mod plan;
pub mod service;
pub mod store;
