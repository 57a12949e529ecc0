//! What can go wrong with a release, with what to do about it.

use std::fmt::Display;

use super::strategy::Remedy;
use crate::kv::KvError;

/// A failure of the user side.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The home behind it.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A slot was written by another release than the pinned one.
    #[error(
        "a slot carries release tag {got:04x} where {expected:04x} was expected; something else writes under these keys: publish again under a new name"
    )]
    MixedRelease {
        /// Tag of the pinned release.
        expected: u16,
        /// Tag found.
        got: u16,
    },
    /// A page of the release is not there.
    #[error(
        "page {page} of release {release} is gone (expired before it was activated, evicted, or the release was retired); open the current release again, or publish under a new name"
    )]
    MissingPage {
        /// Release name.
        release: String,
        /// Page number; the first one missing.
        page: u32,
    },
    /// The pinned release was removed.
    #[error("release {name} was removed; open the current release")]
    Retired {
        /// Its name.
        name: String,
    },
    /// Bytes that no release wrote.
    #[error("{what}: expected {expected}, got {got}; the store is damaged: publish again under a new name")]
    Corrupt {
        /// The page, slot, manifest or pointer.
        what: String,
        /// What it should have been.
        expected: String,
        /// What it was.
        got: String,
    },
    /// Written by a later version of the format.
    #[error("release format {got} where {expected} is the newest known; use a newer tonnage")]
    Format {
        /// The newest this code reads.
        expected: u32,
        /// The manifest's.
        got: u32,
    },
    /// No pointer.
    #[error("namespace {ns} has no active release; publish one and activate it")]
    NoActiveRelease {
        /// The namespace.
        ns: String,
    },
    /// No manifest of that name.
    #[error("namespace {ns} has no release {name}; it was never published whole, or its time to be activated is over")]
    NoRelease {
        /// The namespace.
        ns: String,
        /// The release's name.
        name: String,
    },
    /// The name is taken.
    #[error("release {name} exists with {got} where {expected} was expected; choose another name")]
    ReleaseExists {
        /// The release's name.
        name: String,
        /// What was to be published.
        expected: String,
        /// What is there.
        got: String,
    },
    /// Someone else switched the pointer during an activation.
    #[error(
        "the active release of {ns} changed while {name} was being activated; look which is active, then try again"
    )]
    PointerMoved {
        /// The namespace.
        ns: String,
        /// The release that was not activated.
        name: String,
    },
    /// The release would not fit. Nothing was written.
    #[error(
        "release {name} would bring {} to {peak_bytes} bytes where {limit_bytes} are allowed, {short_bytes} too many; nothing was written. What would help: {}",
        called(shard.as_ref(), "the store"),
        list(remedies)
    )]
    TooLarge {
        /// The release's name.
        name: String,
        /// In a cluster, the shard with least room.
        shard: Option<String>,
        /// The most that is allowed.
        limit_bytes: u64,
        /// The most that it would come to.
        peak_bytes: u64,
        /// What is missing.
        short_bytes: u64,
        /// What would help, the cheapest first.
        remedies: Vec<Remedy>,
    },
    /// The room for the release went while it was being written.
    #[error(
        "{} would come to {projected_bytes} bytes where {limit_bytes} are allowed now: its limit was lowered, or others write; make room, then publish again",
        called(shard.as_ref(), "the server")
    )]
    NoRoomLeft {
        /// In a cluster, the shard.
        shard: Option<String>,
        /// The most that is allowed.
        limit_bytes: u64,
        /// What it would come to.
        projected_bytes: u64,
    },
    /// The server uses more than this release explains.
    #[error(
        "{} uses {got_bytes} bytes where {expected_bytes} were predicted, and {allowed_bytes} more are tolerated: others write, or the prediction does not hold here; look with `tonnage doctor`, then publish again",
        called(shard.as_ref(), "the server")
    )]
    Drift {
        /// In a cluster, the shard.
        shard: Option<String>,
        /// As predicted.
        expected_bytes: u64,
        /// As it is.
        got_bytes: u64,
        /// What is no drift yet.
        allowed_bytes: u64,
    },
    /// The release is in a state in which that cannot be done.
    #[error("release {name} is {state}: {remedy}")]
    WrongState {
        /// The release's name.
        name: String,
        /// Its state.
        state: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// More releases than a ledger can name.
    #[error("the ledger of {ns} would be longer than the {longest} bytes it may have: run `tonnage releases gc`")]
    LedgerFull {
        /// The namespace.
        ns: String,
        /// The most bytes.
        longest: usize,
    },
    /// The release cannot stand in the pages of the active one.
    #[error(
        "a release rolls into pages of the same codec, dimensions and kind of ids: expected {expected}, got {got}; publish it beside, or with --strategy replace"
    )]
    CannotRoll {
        /// The active release.
        expected: String,
        /// The one to be published.
        got: String,
    },
    /// Nothing to go back to.
    #[error("namespace {ns} has no previous release; publish one, or activate one by its name")]
    NoPrevious {
        /// The namespace.
        ns: String,
    },
    /// Someone else is publishing.
    #[error("{other} is being published in {ns}; wait for it, or, if its publisher died, {lease_s:.1} s")]
    Busy {
        /// The namespace.
        ns: String,
        /// The release being published.
        other: String,
        /// How long a dead publisher is taken for a living one.
        lease_s: f64,
    },
    /// Others wrote the same key again and again.
    #[error("{what} was changed by others each of the {tries} times that it was to be written; try again")]
    Contended {
        /// Whose key.
        what: String,
        /// Times tried.
        tries: usize,
    },
    /// This publisher was too slow, and no one knows who else published meanwhile.
    #[error("nothing was heard of this publisher for {lease_s:.1} s, so others may publish; start again")]
    LeaseLost {
        /// How long it may be silent.
        lease_s: f64,
    },
    /// A namespace or a release name that cannot stand in a key.
    #[error("{what} {got:?}: expected 1 to {longest} of A-Z a-z 0-9 . _ -")]
    BadName {
        /// "namespace" or "release name".
        what: &'static str,
        /// As given.
        got: String,
        /// Characters allowed.
        longest: usize,
    },
    /// A specification that cannot be published.
    #[error("{what}: expected {expected}, got {got}")]
    BadSpec {
        /// Which part.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// As given.
        got: u64,
    },
    /// Two rows with one id.
    #[error("rows {first} and {second} have the same user id; keep one of them")]
    DuplicateId {
        /// One row.
        first: u32,
        /// The other.
        second: u32,
    },
    /// Users that no seed tells apart. Not seen in practice: see the chance in `docs/wire-format.md`.
    #[error("no seed of {tries} gives every user of a page a fingerprint of its own; are the ids made to collide?")]
    NoSeed {
        /// Seeds tried.
        tries: u64,
    },
    /// The caller's records could not be had.
    #[error("the records of the release could not be read: {0}")]
    Source(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A roll stopped. The pages that it has taken are the new release's, all others the old one's.
    #[error(
        "{cause}; release {name} is rolled in by half, up to {pages} of {of} pages: run the same publish again to end it, or give it up with `tonnage releases retire {name}`"
    )]
    HalfRolled {
        /// The release.
        name: String,
        /// Why it stopped.
        cause: Box<StoreError>,
        /// Pages written at most.
        pages: u32,
        /// All pages.
        of: u32,
    },
    /// A publish failed and what it wrote could not be removed either.
    #[error(
        "{cause}; up to {pages} pages or lists it wrote could not be removed and expire by themselves in {grace_s} s"
    )]
    LeftBehind {
        /// Why the publish failed.
        cause: Box<StoreError>,
        /// Pages, or lists, written at most.
        pages: u32,
        /// Time until they are gone.
        grace_s: u64,
    },
}

fn called(shard: Option<&String>, alone: &str) -> String {
    shard.map_or_else(|| alone.to_owned(), |home| format!("shard {home}"))
}

fn list(remedies: &[Remedy]) -> String {
    remedies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or ")
}

impl StoreError {
    /// With what would help, when it is refused for want of room.
    pub(super) fn with(mut self, helps: Vec<Remedy>) -> Self {
        if let Self::TooLarge { remedies, .. } = &mut self {
            *remedies = helps;
        }
        self
    }

    /// A [`Corrupt`](Self::Corrupt) from anything that shows.
    pub(super) fn corrupt(what: impl Into<String>, expected: &dyn Display, got: &dyn Display) -> Self {
        Self::Corrupt { what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }
}
