//! Why a request could not be answered.

use super::MAX_K;
use crate::catalog::CatalogError;
use crate::store::StoreError;

/// Every message says what was expected, what was got and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The index.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Items and users of different models.
    #[error(
        "the index is release {index:?} ({expected:016x}), the users are release {users:?} made for {got:016x}: \
         their vectors cannot be compared; publish the users for this index, or open the index they were published for"
    )]
    MixedReleases {
        /// The index's release.
        index: String,
        /// Its fingerprint.
        expected: u64,
        /// The users' release.
        users: String,
        /// The fingerprint of the index that they were published for.
        got: u64,
    },
    /// Users of other dimensions than the items.
    #[error("the items have {expected} dimensions, the users {got}: publish users of the same model")]
    Dimensions {
        /// The items'.
        expected: usize,
        /// The users'.
        got: usize,
    },
    /// A part of a request that cannot be meant.
    #[error("{what}: expected {expected}, got {got}")]
    Request {
        /// Which.
        what: &'static str,
        /// What would do.
        expected: String,
        /// What was asked for.
        got: String,
    },
    /// An item that is asked about and not there.
    #[error("there is no item {id}; ask about one of the index")]
    UnknownItem {
        /// As asked for.
        id: String,
    },
    /// More than may change between two builds.
    #[error("{what}: {got} where {most} are the most; build the index again with them")]
    TooMany {
        /// Which.
        what: &'static str,
        /// The most.
        most: usize,
        /// What it would come to.
        got: usize,
    },
    /// The journal of changes since the build.
    #[error("journal {}: {source}; check the path, its rights and free disk", path.display())]
    Journal {
        /// The file.
        path: std::path::PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A journal that lost something that was acknowledged.
    #[error(
        "journal {}: what was written at byte {at} is damaged or gone, and from byte {next} on there is more that was \
         written later: changes that were acknowledged are lost; restore the file from a copy, or move it away to begin without any",
        path.display()
    )]
    JournalDamaged {
        /// The file, which is left as it is.
        path: std::path::PathBuf,
        /// Where the damage begins.
        at: usize,
        /// Where something is whole again.
        next: usize,
    },
    /// A journal that another has open.
    #[error("journal {}: {holder} has it open; stop that one, or give this one a journal of its own", path.display())]
    JournalInUse {
        /// The file.
        path: std::path::PathBuf,
        /// Who has it.
        holder: String,
    },
    /// A page token that does not continue this request.
    #[error("the page token {why}; ask for the first page again")]
    Page {
        /// What is wrong with it.
        why: &'static str,
    },
    /// A page token of a release that does not answer any more.
    #[error("the page token is of release {release:016x}, which is not served any more; ask for the first page again")]
    PageExpired {
        /// Its fingerprint.
        release: u64,
    },
    /// Too few or too many items asked for.
    #[error("k is {got}: expected 1 to {MAX_K}")]
    K {
        /// What was asked for.
        got: usize,
    },
}
