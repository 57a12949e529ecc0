//! What is asked for. Every field has a default that asks for nothing special: `Request { user, k, ..Request::default() }`.

use std::fmt;
use std::time::Duration;

use super::EngineError;
use super::filter::ItemFilter;
use crate::input::{Id, MAX_ID_BYTES};
use crate::store::EventKind;

/// More items than this are refused: nobody reads them, and each costs.
pub const MAX_K: usize = 10_000;
/// Events of a request, and ids in each of its lists, at the most.
pub const MAX_EVENTS: usize = 1_000;
/// Ids in each list of a request, and clauses of a filter, at the most.
pub const MAX_LIST: usize = 100_000;

/// Candidates that maximal marginal relevance chooses from at the most. Each item chosen is compared with all that are
/// left: of 64 dimensions 20 of 200 take 13 us, 1,000 of 2,000 4 ms. Farther down nothing is relevant enough to come for
/// more than being different.
pub const MAX_MMR_CANDIDATES: usize = 2_000;

/// An external id that a request or an answer owns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnedId {
    /// A whole number.
    U64(u64),
    /// Any other text.
    Text(Box<str>),
}

impl OwnedId {
    /// Text that spells a whole number is that number, as in [`Id::parse`].
    pub fn parse(text: &str) -> Self {
        Id::parse(text).into()
    }

    /// The same id, borrowed.
    pub fn as_id(&self) -> Id<'_> {
        match self {
            Self::U64(number) => Id::U64(*number),
            Self::Text(text) => Id::Text(text),
        }
    }
}

impl From<Id<'_>> for OwnedId {
    fn from(id: Id<'_>) -> Self {
        match id {
            Id::U64(number) => Self::U64(number),
            Id::Text(text) => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for OwnedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_id().fmt(f)
    }
}

/// One request for ranked items.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who asks; nobody known when `None`.
    pub user: Option<OwnedId>,
    /// The segment whose vector answers when the user has none.
    pub segment: Option<String>,
    /// Items wanted, 1 to [`MAX_K`]. 20: a page of a shop.
    pub k: usize,
    /// How hard to search.
    pub effort: Effort,
    /// What the user did just now, in any order. When empty, the session that the store has is taken.
    pub session: Vec<Event>,
    /// How the session moves the user's vector.
    pub blend: Blend,
    /// Which items may be answered.
    pub filter: ItemFilter,
    /// Whether items that the store knows as seen by the user are left out. True.
    pub exclude_seen: bool,
    /// More items that the user has seen.
    pub seen: Vec<OwnedId>,
    /// How much alike the items may be.
    pub diversity: Diversity,
    /// Which sources they come from.
    pub mix: Mix,
    /// [`Answer::next`](super::Answer::next) of the page before this one. The rest of the request must be the same.
    pub page: Option<String>,
    /// Whether [`Answer::explain`](super::Answer::explain) is wanted.
    pub explain: bool,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            user: None,
            segment: None,
            k: 20,
            effort: Effort::Default,
            session: Vec::new(),
            blend: Blend::default(),
            filter: ItemFilter::default(),
            exclude_seen: true,
            seen: Vec::new(),
            diversity: Diversity::default(),
            mix: Mix::default(),
            page: None,
            explain: false,
        }
    }
}

/// How hard to search.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Effort {
    /// As the index's profile says: recall@10 of 0.99 where it was measured.
    #[default]
    Default,
    /// This `ef` ([`crate::graph::SearchOptions::ef`]).
    Ef(usize),
    /// The smallest measured `ef` that reaches this recall@10, or the largest measured.
    Recall(f64),
    /// The most that this much time is enough for, the whole request counted, by what a row takes on this machine and by
    /// what a filter and excluded items add. It is aimed at, not enforced: an answer that comes late is an answer.
    Deadline(Duration),
}

/// Something that a user did with an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The item. Items that the index does not have are passed over.
    pub item: OwnedId,
    /// What was done.
    pub kind: EventKind,
    /// How long ago.
    pub age: Duration,
}

/// How recent events move a user's vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// What an event of each kind weighs, by [`EventKind::ALL`]; negative moves away from the item.
    pub weights: [f32; EventKind::ALL.len()],
    /// The time in which an event loses half its weight. 30 minutes: what analytics calls one visit.
    pub half_life: Duration,
    /// What the stored vector weighs against the events. 4: one purchase and two clicks, just made, go half the way.
    pub inertia: f32,
    /// The most of the way from the stored vector to the session that is gone, 0 to 1; 0 leaves the vector alone. 0.5:
    /// a visit should not outweigh what training learned of months.
    pub most_share: f32,
}

impl Default for Blend {
    fn default() -> Self {
        Self {
            weights: EventKind::ALL.map(EventKind::default_weight),
            half_life: Duration::from_mins(30),
            inertia: 4.0,
            most_share: 0.5,
        }
    }
}

/// How much alike the items of an answer may be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diversity {
    /// At the most so many items of each value of a field.
    pub max_per: Vec<MaxPer>,
    /// Maximal marginal relevance: 1 ranks by score alone, 0 by difference from what was chosen before.
    pub mmr: Option<Mmr>,
}

/// At the most `count` items of each tag `field:value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPer {
    /// The field, without `:`. Empty for the tags that have none.
    pub field: String,
    /// Items, at least 1.
    pub count: usize,
}

/// Carbonell and Goldstein, SIGIR 1998: each item next chosen is the best by
/// `lambda · relevance - (1 - lambda) · similarity to the most similar item chosen`, scores brought to 0..1, similarity
/// the cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mmr {
    /// 0 to 1.
    pub lambda: f32,
    /// Best items that are chosen from: more than `k`, or nothing can be chosen, and at most [`MAX_MMR_CANDIDATES`].
    pub candidates: usize,
}

/// Where an item came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Near the user's vector, however it was found.
    Personal,
    /// Near what the user did just now.
    Session,
    /// On the list of candidates that was made for the user before ([`crate::store::Lists`]), of the release that answers.
    List,
    /// Popular.
    Popular,
    /// Added since the index was built.
    New,
    /// Asked for by its id.
    Pinned,
}

/// Which sources the items of an answer come from. What no quota claims is [`Source::Personal`], or whatever answers
/// in its place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mix {
    /// So many items of a source, spread evenly over the answer, where it has them.
    pub quotas: Vec<Quota>,
    /// Items at fixed places.
    pub pins: Vec<Pin>,
}

/// So many items of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The source; not [`Source::Pinned`].
    pub source: Source,
    /// Items.
    pub count: usize,
}

/// An item at a fixed place. It must pass the filter like any other, or the place goes to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Place in the answer, from 0, below `k`.
    pub place: usize,
    /// The item.
    pub item: OwnedId,
}

/// Items like one item.
#[derive(Clone, Debug, PartialEq)]
pub struct SimilarRequest {
    /// Like this one, which is never among the answers.
    pub item: OwnedId,
    /// Items wanted, 1 to [`MAX_K`].
    pub k: usize,
    /// How hard to search.
    pub effort: Effort,
    /// Which items may be answered.
    pub filter: ItemFilter,
    /// How much alike they may be.
    pub diversity: Diversity,
}

/// Given items, ranked for a user.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreRequest {
    /// Who asks.
    pub user: Option<OwnedId>,
    /// The segment whose vector answers when the user has none.
    pub segment: Option<String>,
    /// What the user did just now ([`Request::session`]).
    pub session: Vec<Event>,
    /// How the session moves the user's vector.
    pub blend: Blend,
    /// The items. Each comes back once, if the index has it.
    pub items: Vec<OwnedId>,
}

pub(super) fn check(what: &'static str, ok: bool, expected: &str, got: impl fmt::Display) -> Result<(), EngineError> {
    if ok {
        return Ok(());
    }
    Err(EngineError::Request { what, expected: expected.to_owned(), got: got.to_string() })
}

fn check_k(k: usize) -> Result<(), EngineError> {
    if (1..=MAX_K).contains(&k) { Ok(()) } else { Err(EngineError::K { got: k }) }
}

pub(super) fn check_list(what: &'static str, len: usize, most: usize) -> Result<(), EngineError> {
    check(what, len <= most, &format!("at most {most}"), len)
}

/// They become keys of the store.
fn check_names(user: Option<&OwnedId>, segment: Option<&str>) -> Result<(), EngineError> {
    let user = if let Some(OwnedId::Text(text)) = user { Some(&**text) } else { None };
    for (what, text) in [("user", user), ("segment", segment)] {
        let len = text.map_or(1, str::len);
        check(what, (1..=MAX_ID_BYTES).contains(&len), "1 to 1024 bytes", len)?;
    }
    Ok(())
}

impl Request {
    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        check_k(self.k)?;
        check_names(self.user.as_ref(), self.segment.as_deref())?;
        self.effort.check()?;
        self.blend.check()?;
        self.filter.check()?;
        self.diversity.check(self.k)?;
        self.mix.check(self.k)?;
        check_list("events of the session", self.session.len(), MAX_EVENTS)?;
        check_list("seen items", self.seen.len(), MAX_LIST)
    }
}

/// Candidates that are looked through when there are limits by value, for each item wanted.
pub(super) const CANDIDATES_PER_ITEM: usize = 3;

impl Request {
    /// Candidates that are picked from.
    pub(super) fn wanted(&self) -> usize {
        let want = self.k + self.mix.claimed();
        if self.diversity.max_per.is_empty() { want } else { want.saturating_mul(CANDIDATES_PER_ITEM) }
    }

    /// Candidates that are searched for.
    pub(super) fn searched(&self) -> usize {
        self.diversity.mmr.map_or(0, |mmr| mmr.candidates).max(self.wanted())
    }
}

impl SimilarRequest {
    pub(super) fn check(&self) -> Result<(), EngineError> {
        check_k(self.k)?;
        self.effort.check()?;
        self.filter.check()?;
        self.diversity.check(self.k)
    }
}

impl ScoreRequest {
    pub(super) fn check(&self) -> Result<(), EngineError> {
        check_names(self.user.as_ref(), self.segment.as_deref())?;
        self.blend.check()?;
        check_list("events of the session", self.session.len(), MAX_EVENTS)?;
        check_list("items to score", self.items.len(), MAX_LIST)
    }
}

impl Effort {
    fn check(self) -> Result<(), EngineError> {
        match self {
            Self::Default | Self::Deadline(_) => Ok(()),
            Self::Ef(ef) => check("ef", (1..=MAX_K).contains(&ef), "1 to 10000", ef),
            Self::Recall(recall) => check("recall", recall > 0.0 && recall <= 1.0, "more than 0, at most 1", recall),
        }
    }
}

impl Blend {
    fn check(&self) -> Result<(), EngineError> {
        let weight = self.weights.iter().find(|weight| !(-1e3..=1e3).contains(*weight));
        check("weight of an event", weight.is_none(), "-1000 to 1000", weight.copied().unwrap_or_default())?;
        check("half-life", !self.half_life.is_zero(), "more than 0 s", "0 s")?;
        check("inertia", (0.0..=1e6).contains(&self.inertia), "0 to 1000000", self.inertia)?;
        check("most_share", (0.0..=1.0).contains(&self.most_share), "0 to 1", self.most_share)
    }
}

impl Diversity {
    fn check(&self, k: usize) -> Result<(), EngineError> {
        check_list("fields with a maximum", self.max_per.len(), 16)?;
        check("a maximum of a field", self.max_per.iter().all(|max| max.count > 0), "at least 1", 0)?;
        let Some(Mmr { lambda, candidates }) = self.mmr else { return Ok(()) };
        check("lambda of MMR", (0.0..=1.0).contains(&lambda), "0 to 1", lambda)?;
        let ok = candidates > k && candidates <= MAX_MMR_CANDIDATES;
        check("candidates of MMR", ok, "more than k, at most 2000", candidates)
    }
}

impl Mix {
    /// Whether the user's list is to be read.
    pub(super) fn wants_list(&self) -> bool {
        self.quotas.iter().any(|quota| quota.source == Source::List && quota.count > 0)
    }

    /// Places that others than the user's own items take.
    pub(super) fn claimed(&self) -> usize {
        self.quotas.iter().map(|quota| quota.count).sum::<usize>() + self.pins.len()
    }

    fn check(&self, k: usize) -> Result<(), EngineError> {
        let of = |wanted: Source| self.quotas.iter().filter(|quota| quota.source == wanted).count();
        let once = self.quotas.iter().all(|quota| quota.source != Source::Pinned && of(quota.source) == 1);
        check("quotas", once, "one a source, none for pinned items", "others")?;
        let sum = self.quotas.iter().fold(0_usize, |sum, quota| sum.saturating_add(quota.count));
        check("quotas", sum <= k, "no more than k together", sum)?;
        check_list("pins", self.pins.len(), k)?;
        let mut places: Vec<usize> = self.pins.iter().map(|pin| pin.place).collect();
        places.sort_unstable();
        let distinct = places.windows(2).all(|pair| pair[0] < pair[1]);
        check("places of pins", distinct && places.last().is_none_or(|&last| last < k), "different, below k", "others")
    }
}
