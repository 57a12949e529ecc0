//! What an index is, in a few words of JSON inside the file.

use serde::{Deserialize, Serialize};

use crate::codec::{Codec, Metric};

/// The facts that the other sections are read by. Unknown fields are refused: a file that says more than this program
/// understands is newer than it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// The release that this index belongs to.
    pub release: String,
    /// Number of items.
    pub items: u32,
    /// Dimensions of a vector.
    pub dim: u32,
    /// How items and users are compared.
    pub metric: Metric,
    /// The codec that the graph is walked by.
    pub codec: Codec,
    /// The codec that the final candidates are scored by, when there is one.
    pub finer: Option<Codec>,
    /// Links of a node in the upper layers; layer 0 has twice as many.
    pub m: u32,
    /// Nodes expanded when a node was inserted.
    pub ef_construction: u32,
    /// What levels and order were drawn from.
    pub seed: u64,
    /// Nodes of each layer above layer 0, lowest first.
    pub layers: Vec<u32>,
    /// Nodes that needed a link of their own to be reachable.
    pub repaired: u32,
    /// Whether ids are texts; `u64` otherwise.
    pub text_ids: bool,
    /// Number of tags.
    pub tags: u32,
}
