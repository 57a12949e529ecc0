//! Why an index could not be built, opened or asked.

use std::path::PathBuf;

use crate::codec::CodecError;
use crate::file::FileError;
use crate::input::InputError;

/// Every message says what was expected, what was got and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// The container.
    #[error(transparent)]
    File(#[from] FileError),
    /// What training left.
    #[error(transparent)]
    Input(#[from] InputError),
    /// A vector that the codec cannot hold.
    #[error("{}: row {row}: {source}", path.display())]
    Vector {
        /// The file of vectors.
        path: PathBuf,
        /// Row in that file, from 0.
        row: u32,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A query that cannot be scored.
    #[error("the query: {0}")]
    Query(#[from] CodecError),
    /// A query of other dimensions than the items.
    #[error("expected a query of {expected} dimensions, got {got}: user and item vectors must come from one model")]
    Dimensions {
        /// The items'.
        expected: usize,
        /// The query's.
        got: usize,
    },
    /// A setting outside its range.
    #[error("{what} is {got}: expected {expected}")]
    Setting {
        /// Which.
        what: &'static str,
        /// What would do.
        expected: String,
        /// What was given.
        got: String,
    },
    /// The container is whole, and what it holds makes no index.
    #[error("{}: malformed: {what}: build it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The rule it breaks.
        what: String,
    },
    /// A tag that no item has.
    #[error("no item has the tag {got:?}; there are {count} tags, the most used {examples}")]
    UnknownTag {
        /// What was asked for.
        got: String,
        /// How many tags there are.
        count: usize,
        /// Some of them.
        examples: String,
    },
    /// A field that no item has a number of.
    #[error("no item has a number {got:?}; there are {count} fields of numbers, the most used {examples}")]
    UnknownField {
        /// What was asked for.
        got: String,
        /// How many fields there are.
        count: usize,
        /// Some of them.
        examples: String,
    },
    /// No codec is good enough.
    #[error("no codec reaches recall@10 {floor}: the best, {best}, reaches {recall:.4}; lower the floor")]
    Floor {
        /// What was asked for.
        floor: f64,
        /// The best there is.
        best: String,
        /// What it reaches.
        recall: f64,
    },
}
