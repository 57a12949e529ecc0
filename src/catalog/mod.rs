//! The item index: one file with everything that is needed to answer for items.
//!
//! [`build()`] makes it from what training left; [`Index::open`] maps it, checks all that the search relies on, and
//! answers. The file carries the items' ids, tags, numbers and popularity, their codes and graph, and the *quality profile*:
//! recall and cost measured on the very file, for a ladder of `ef`, so that callers ask for a recall and not for an
//! `ef`. Items are numbered by *node*, the graph's insertion rank; nothing outside this file needs that number to mean
//! anything else, and ids lead to it and back.

mod build;
mod choose;
mod error;
mod ids;
mod index;
mod meta;
mod names;
mod numbers;
mod profile;
mod rows;
mod tags;
mod truth;
mod tune;
mod v1;
mod vectors;

pub use build::{BuildReport, BuildSpec, Stage, build};
pub use choose::{Candidate, choose};
pub use error::CatalogError;
pub use index::{Hit, Index, QueryVector, SectionBytes};
pub use meta::Meta;
pub use numbers::NumberField;
pub use profile::{Profile, QuerySource, Rung};
pub use truth::{recall, top_by_codec, top_of_queries, top_unseen};

/// The sections of an index file.
pub(crate) mod section {
    use crate::file::Tag;

    pub const META: Tag = Tag::new("meta");
    pub const CODES: Tag = Tag::new("codes");
    pub const SCALES: Tag = Tag::new("scales");
    pub const BIASES: Tag = Tag::new("biases");
    pub const FINER: Tag = Tag::new("finer");
    pub const LINKS: Tag = Tag::new("links");
    pub const STARTS: Tag = Tag::new("starts");
    /// Only in files of format 1.
    pub const UPPER: Tag = Tag::new("upper");
    pub const IDS: Tag = Tag::new("ids");
    pub const ID_TEXT: Tag = Tag::new("id-text");
    pub const ID_ORDER: Tag = Tag::new("id-order");
    pub const TAG_TEXT: Tag = Tag::new("tag-text");
    pub const TAG_ENDS: Tag = Tag::new("tag-ends");
    pub const TAG_ITEMS: Tag = Tag::new("tag-item");
    pub const NUMBER_TEXT: Tag = Tag::new("num-text");
    pub const NUMBER_ENDS: Tag = Tag::new("num-ends");
    pub const NUMBERS: Tag = Tag::new("num-val");
    pub const NUMBER_ITEMS: Tag = Tag::new("num-item");
    pub const POPULAR: Tag = Tag::new("popular");
    pub const PROFILE: Tag = Tag::new("profile");
}
