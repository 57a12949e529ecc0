//! What is answered. Names of enums are stable: they are what an API shows and what a metric counts by.

use std::fmt;
use std::time::Duration;

use super::request::{OwnedId, Source};
use crate::store::EventKind;

/// The items for one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Best first, but for what diversity and mix moved; no item twice.
    pub items: Vec<Item>,
    /// The release of the index that answered.
    pub release: String,
    /// What they were ranked by.
    pub vector: Origin,
    /// What was not as it should be. Empty on a good day.
    pub degraded: Vec<Degraded>,
    /// Items asked for.
    pub requested: usize,
    /// Why there are fewer than asked for, when there are.
    pub shortfall: Option<Shortfall>,
    /// The `ef` that was searched with; 0 when nothing was searched.
    pub ef: usize,
    /// Rows scored.
    pub distances: usize,
    /// Whether the candidates were in the cache.
    pub cached: bool,
    /// For [`Request::page`](super::Request::page) of the next page, when there may be one.
    pub next: Option<String>,
    /// Where the time went.
    pub timings: Timings,
    /// What the ranking was made of, when that was asked for.
    pub explain: Option<Box<Explain>>,
}

/// One item of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its external id.
    pub id: OwnedId,
    /// Its score by the index's metric; larger is better. 0 where nothing was compared.
    pub score: f32,
    /// Where it came from.
    pub source: Source,
}

/// What an answer was ranked by.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The first of the ladder that there was.
    pub rung: Rung,
    /// How old the vector is, where that is known.
    pub age: Option<Duration>,
}

/// The ladder, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// The user's own fresher vector.
    Overlay,
    /// The user's vector of the release.
    Page,
    /// The user's vector as this process saw it last: the store did not answer.
    LastKnown,
    /// No vector, but items that the user was just interested in: their mean.
    SessionMean,
    /// The vector of the user's segment.
    Segment,
    /// Nothing is known of the user: the popular items.
    Popularity,
    /// No user was asked about, but an item: its own vector.
    Item,
}

impl Rung {
    /// All of them, best first.
    pub const ALL: [Self; 7] =
        [Self::Overlay, Self::Page, Self::LastKnown, Self::SessionMean, Self::Segment, Self::Popularity, Self::Item];

    /// The name in answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Page => "page",
            Self::LastKnown => "last_known",
            Self::SessionMean => "session_mean",
            Self::Segment => "segment",
            Self::Popularity => "popularity",
            Self::Item => "item",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something that was not as it should be, and what was done instead is in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Degraded {
    /// The store could not be reached or refused: nothing was read, seen items may come back.
    StoreFailed,
    /// The store did not answer in time: as [`Degraded::StoreFailed`].
    StoreSlow,
    /// The overlay is of a release that is not loaded: it was not used.
    OverlayOfOtherRelease,
    /// The overlay is damaged: it was not used.
    OverlayDamaged,
    /// The page is gone, damaged or of a release that is not loaded: it was not used.
    PageUnusable,
    /// The release's pages were removed to make room: nobody has a vector.
    ReleaseRetired,
    /// The vector is of the previous release, and so is the index that answered.
    PreviousRelease,
    /// The segment's vector is damaged or of a release that is not loaded: it was not used.
    SegmentUnusable,
    /// The stored session is damaged: it was not used.
    SessionDamaged,
    /// The list of seen items is damaged: they may come back.
    SeenDamaged,
    /// The list made for the user is damaged: other sources took its places.
    ListDamaged,
    /// There was more to do than time: the search took less effort than was asked for.
    EffortLowered,
}

impl Degraded {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::StoreFailed,
        Self::StoreSlow,
        Self::OverlayOfOtherRelease,
        Self::OverlayDamaged,
        Self::PageUnusable,
        Self::ReleaseRetired,
        Self::PreviousRelease,
        Self::SegmentUnusable,
        Self::SessionDamaged,
        Self::SeenDamaged,
        Self::ListDamaged,
        Self::EffortLowered,
    ];

    /// The name in answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StoreFailed => "store:failed",
            Self::StoreSlow => "store:slow",
            Self::OverlayOfOtherRelease => "overlay:other_release",
            Self::OverlayDamaged => "overlay:damaged",
            Self::PageUnusable => "page:unusable",
            Self::ReleaseRetired => "release:retired",
            Self::PreviousRelease => "release:previous",
            Self::SegmentUnusable => "segment:unusable",
            Self::SessionDamaged => "session:damaged",
            Self::SeenDamaged => "seen:damaged",
            Self::ListDamaged => "list:damaged",
            Self::EffortLowered => "effort:lowered",
        }
    }
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why there are fewer items than asked for: the first of these that left too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// There are no more items.
    Catalogue,
    /// No more are available.
    Unavailable,
    /// No more pass the filter.
    Filter,
    /// All others were seen.
    Seen,
    /// All others were on the pages before.
    Pages,
    /// The index has no list of popular items, and nothing is known of the user.
    NoPopularity,
    /// Nothing is known of the user, and no more popular items pass.
    Popularity,
    /// The limits of diversity allow no more.
    Diversity,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Catalogue,
        Self::Unavailable,
        Self::Filter,
        Self::Seen,
        Self::Pages,
        Self::NoPopularity,
        Self::Popularity,
        Self::Diversity,
    ];

    /// The name in answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Catalogue => "catalogue",
            Self::Unavailable => "unavailable",
            Self::Filter => "filter",
            Self::Seen => "seen",
            Self::Pages => "pages",
            Self::NoPopularity => "no_popularity",
            Self::Popularity => "popularity",
            Self::Diversity => "diversity",
        }
    }
}

/// Why there are fewer items than asked for, with the numbers that show it. Each counts what passes all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// What left too few.
    pub reason: Reason,
    /// Items asked for.
    pub requested: usize,
    /// Items answered.
    pub returned: usize,
    /// Items there are.
    pub items: usize,
    /// Of them available.
    pub available: usize,
    /// Of them passing the filter.
    pub passing: usize,
    /// Of them not seen.
    pub unseen: usize,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, requested, returned, items, available, passing, unseen } = self;
        write!(
            f,
            "{returned} of {requested} ({}): of {items} items {available} are available, {passing} of them pass the filter \
             and {} of those are seen",
            reason.name(),
            passing - unseen.min(passing),
        )?;
        match reason {
            Reason::NoPopularity => f.write_str("; the index was built without --popularity"),
            Reason::Popularity => f.write_str("; the others have no popularity"),
            Reason::Diversity => f.write_str("; the others are more of the same"),
            Reason::Pages => f.write_str("; the others were on the pages before"),
            _ => Ok(()),
        }
    }
}

/// Nanoseconds that the stages took. The first is shared by all requests of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// The store's round trip, and reading what came.
    pub resolve_ns: u64,
    /// Blending in the session.
    pub blend_ns: u64,
    /// Filters and search, of all sources.
    pub search_ns: u64,
    /// Mix, diversity and fill.
    pub rank_ns: u64,
}

/// What the ranking was made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explain {
    /// The events that moved the vector, as they weighed.
    pub events: Vec<Weighed>,
    /// Part of the way to the session that the vector was moved, 0 to 1.
    pub share: f32,
    /// By how much the vector turned, in degrees; for L2, how far it moved.
    pub drift: f32,
    /// The ranking before diversity and mix: the best candidates, at most [`Explain::MOST`].
    pub candidates: Vec<Item>,
}

impl Explain {
    /// Candidates shown.
    pub const MOST: usize = 100;
}

/// An event as it weighed.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighed {
    /// The item.
    pub item: OwnedId,
    /// What was done.
    pub kind: EventKind,
    /// How long ago.
    pub age: Duration,
    /// Its weight after decay.
    pub weight: f32,
}
