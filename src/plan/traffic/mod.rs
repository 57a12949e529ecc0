//! Who asks when: what a cache of results would hit and hold, and which users are worth keeping.
//!
//! The curves come from a log of requests ([`read_log`], [`Recorder`]), in one pass and bounded memory, or from a stated
//! assumption ([`Traffic::assumed_zipf`]). Which of the two is part of the value and goes with it into every output.

mod assumed;
mod curve;
mod hot;
mod kept;
mod record;
mod stack;

pub use curve::{Basis, KeptPoint, LruPoint, Traffic, TtlPoint};
pub use hot::HotUser;
pub use record::{Recorder, SAMPLED_USERS, TTLS_S, TrafficError, read_log};
