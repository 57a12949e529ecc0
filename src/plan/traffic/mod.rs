//! Who asks when: what a cache of results would hit and hold, and which users are worth keeping.
//!
//! The curves come from a log of requests (`Recorder`), in one pass and bounded memory, or from a stated assumption
//! (`Traffic::assumed`). Which of the two is part of the value and goes with it into every output.

mod curve;

pub use curve::{Basis, KeptPoint, LruPoint, Traffic, TtlPoint};
