//! What is asked for.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::config::Limits;
use super::super::problem::Problem;
use super::condition::ids;
use super::{FilterDocument, IdDocument, bounded, number, text, within};
use crate::engine::{
    Blend, Diversity, Effort, Event, MAX_MMR_CANDIDATES, MaxPer, Mix, Mmr, OwnedId, Pin, Quota, Request, ScoreRequest,
    SimilarRequest, Source,
};
use crate::store::EventKind;

/// A thousand years; nothing is older.
const LONGEST_S: f64 = 3.2e10;

/// Items for one user.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RecommendRequest {
    /// Who asks; nobody known when left out.
    pub user_id: Option<IdDocument>,
    /// The segment whose vector answers when the user has none.
    pub segment: Option<String>,
    /// Items wanted. 20.
    pub k: Option<usize>,
    /// When the answer is worth nothing any more: refused at once when it would be late. Without `recall` and `ef` the
    /// search takes as much effort as this is enough for.
    pub deadline_ms: Option<u64>,
    /// The recall@10 to search for, by the index's profile.
    pub recall: Option<f64>,
    /// The effort itself.
    pub ef: Option<usize>,
    /// What the user did just now. When left out, the session that the store has.
    pub session: Vec<EventDocument>,
    /// How the session moves the user's vector.
    pub blend: BlendDocument,
    /// What may not be answered.
    pub exclude: ExcludeDocument,
    /// What may.
    pub filter: FilterDocument,
    /// How much alike the items may be.
    pub diversity: DiversityDocument,
    /// Which sources they come from.
    pub mix: MixDocument,
    /// `next` of the answer before; the rest of the request must be the same.
    pub page: Option<String>,
    /// Whether to say what the ranking was made of.
    pub explain: bool,
    /// Whether the user agrees to be known. Otherwise nothing of theirs is read. True.
    pub consent: Option<bool>,
}

/// Something that a user did.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventDocument {
    /// With which item.
    pub item_id: IdDocument,
    /// `view`, `click`, `like`, `cart`, `purchase` or `dislike`.
    pub event: String,
    /// When, in seconds since 1970; now when left out.
    pub ts: Option<f64>,
}

/// How recent events move a user's vector.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BlendDocument {
    /// The most of the way to the session that is gone, 0 to 1.
    pub session_weight: Option<f64>,
    /// The time in which an event loses half its weight.
    pub half_life_s: Option<f64>,
    /// What the stored vector weighs against the events.
    pub inertia: Option<f64>,
    /// What events weigh, by name.
    pub weights: BTreeMap<String, f64>,
}

/// What may not be answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExcludeDocument {
    /// These items.
    pub items: Vec<IdDocument>,
    /// Whether also what the store knows as seen. True.
    pub seen: Option<bool>,
}

/// What may not be answered where nobody is asked for who could have seen it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ExcludeItemsDocument {
    /// These items.
    pub items: Vec<IdDocument>,
}

/// How much alike the items of an answer may be.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DiversityDocument {
    /// Maximal marginal relevance: 1 ranks by score alone, 0 by difference alone.
    pub mmr_lambda: Option<f64>,
    /// Best items that it chooses from, at most 2,000. Ten times `k`, as far as that goes.
    pub candidates: Option<usize>,
    /// At the most so many items of each value of a field.
    pub max_per: BTreeMap<String, usize>,
}

/// Which sources the items come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MixDocument {
    /// So many items of a source, where it has them.
    pub quotas: Vec<QuotaDocument>,
    /// Items at fixed places.
    pub pins: Vec<PinDocument>,
}

/// So many items of one source.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaDocument {
    /// `personal`, `session`, `list`, `popular` or `new`.
    pub source: String,
    /// Items.
    pub count: usize,
}

/// An item at a fixed place.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PinDocument {
    /// The place, from 1.
    pub rank: usize,
    /// The item.
    pub item_id: IdDocument,
}

/// Items like one item.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SimilarRequestDocument {
    /// Like this one.
    pub item_id: IdDocument,
    /// Items wanted. 20.
    pub k: Option<usize>,
    /// When the answer is worth nothing any more.
    pub deadline_ms: Option<u64>,
    /// The recall@10 to search for.
    pub recall: Option<f64>,
    /// The effort itself.
    pub ef: Option<usize>,
    /// What may not be answered.
    #[serde(default)]
    pub exclude: ExcludeItemsDocument,
    /// What may.
    #[serde(default)]
    pub filter: FilterDocument,
    /// How much alike the items may be.
    #[serde(default)]
    pub diversity: DiversityDocument,
}

/// Given items, ranked for a user.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScoreRequestDocument {
    /// Who asks.
    pub user_id: Option<IdDocument>,
    /// The segment whose vector answers when the user has none.
    pub segment: Option<String>,
    /// The items.
    pub items: Vec<IdDocument>,
    /// When the answer is worth nothing any more.
    pub deadline_ms: Option<u64>,
    /// What the user did just now.
    #[serde(default)]
    pub session: Vec<EventDocument>,
    /// How the session moves the user's vector.
    #[serde(default)]
    pub blend: BlendDocument,
    /// Whether the user agrees to be known. True.
    pub consent: Option<bool>,
}

impl RecommendRequest {
    /// As the engine takes it.
    pub fn request(&self, limits: &Limits) -> Result<Request, Problem> {
        let k = within("k", self.k.unwrap_or(20), limits.k)?;
        let known = self.consent.unwrap_or(true);
        Ok(Request {
            user: user(self.user_id.as_ref().filter(|_| known), limits)?,
            segment: segment(self.segment.as_deref(), limits)?,
            k,
            effort: effort(self.ef, self.recall, self.deadline_ms, limits)?,
            session: events(&self.session, limits)?,
            blend: self.blend.blend()?,
            filter: self.filter.filter(&self.exclude.items, limits)?,
            exclude_seen: self.exclude.seen.unwrap_or(true),
            seen: Vec::new(),
            diversity: self.diversity.diversity(k, limits)?,
            mix: self.mix.mix(k, limits)?,
            // as long as the answer before made it: it names all items so far
            page: self.page.clone(),
            explain: self.explain,
        })
    }
}

impl SimilarRequestDocument {
    /// As the engine takes it.
    pub fn request(&self, limits: &Limits) -> Result<SimilarRequest, Problem> {
        let k = within("k", self.k.unwrap_or(20), limits.k)?;
        Ok(SimilarRequest {
            item: self.item_id.id("item_id", limits)?,
            k,
            effort: effort(self.ef, self.recall, self.deadline_ms, limits)?,
            filter: self.filter.filter(&self.exclude.items, limits)?,
            diversity: self.diversity.diversity(k, limits)?,
        })
    }
}

impl ScoreRequestDocument {
    /// As the engine takes it.
    pub fn request(&self, limits: &Limits) -> Result<ScoreRequest, Problem> {
        let known = self.consent.unwrap_or(true);
        Ok(ScoreRequest {
            user: user(self.user_id.as_ref().filter(|_| known), limits)?,
            segment: segment(self.segment.as_deref(), limits)?,
            session: events(&self.session, limits)?,
            blend: self.blend.blend()?,
            items: ids("items", &self.items, limits)?,
        })
    }
}

fn user(user: Option<&IdDocument>, limits: &Limits) -> Result<Option<OwnedId>, Problem> {
    user.map(|id| id.id("user_id", limits)).transpose()
}

fn segment(segment: Option<&str>, limits: &Limits) -> Result<Option<String>, Problem> {
    segment.map(|segment| text("segment", segment, limits).map(str::to_owned)).transpose()
}

fn effort(
    ef: Option<usize>,
    recall: Option<f64>,
    deadline_ms: Option<u64>,
    limits: &Limits,
) -> Result<Effort, Problem> {
    match (ef, recall, deadline_ms) {
        (None, None, None) => Ok(Effort::Default),
        (None, None, Some(ms)) => Ok(Effort::Deadline(Duration::from_millis(ms))),
        (Some(ef), None, _) => Ok(Effort::Ef(within("ef", ef, limits.candidates)?)),
        (None, Some(recall), _) => Ok(Effort::Recall(number("recall", recall, 0.01, 1.0)?)),
        (Some(_), Some(_), _) => Err(Problem::invalid("expected `ef` or `recall`, got both")),
    }
}

/// Events as the engine takes them. Times to come are now.
pub(super) fn events(events: &[EventDocument], limits: &Limits) -> Result<Vec<Event>, Problem> {
    bounded("session", events, limits)?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let event = |event: &EventDocument| {
        let at = number("ts", event.ts.unwrap_or(now_s), 0.0, LONGEST_S)?;
        let age = Duration::from_secs_f64((now_s - at).max(0.0));
        Ok(Event { item: event.item_id.id("item_id", limits)?, kind: kind(&event.event)?, age })
    };
    events.iter().map(event).collect()
}

fn kind(name: &str) -> Result<EventKind, Problem> {
    EventKind::parse(name).ok_or_else(|| {
        let known = EventKind::ALL.map(EventKind::name).join(", ");
        Problem::invalid(format!("`event`: expected one of {known}, got {:?}", shortened(name)))
    })
}

/// Enough of a text to know it again.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

impl BlendDocument {
    fn blend(&self) -> Result<Blend, Problem> {
        let mut blend = Blend::default();
        if let Some(share) = self.session_weight {
            blend.most_share = number("blend.session_weight", share, 0.0, 1.0)? as f32;
        }
        if let Some(seconds) = self.half_life_s {
            blend.half_life = Duration::from_secs_f64(number("blend.half_life_s", seconds, 0.001, LONGEST_S)?);
        }
        if let Some(inertia) = self.inertia {
            blend.inertia = number("blend.inertia", inertia, 0.0, 1e6)? as f32;
        }
        for (name, &weight) in &self.weights {
            let place = EventKind::ALL.iter().position(|other| Ok(*other) == kind(name));
            let weight = number("blend.weights", weight, -1e3, 1e3)? as f32;
            match place.and_then(|place| blend.weights.get_mut(place)) {
                Some(slot) => *slot = weight,
                None => return Err(kind(name).err().unwrap_or_else(|| Problem::invalid("`blend.weights`"))),
            }
        }
        Ok(blend)
    }
}

impl DiversityDocument {
    fn diversity(&self, k: usize, limits: &Limits) -> Result<Diversity, Problem> {
        let mut diversity = Diversity::default();
        for (field, &count) in &self.max_per {
            let field = if field.is_empty() { "" } else { text("diversity.max_per", field, limits)? };
            let count = within("diversity.max_per", count, limits.candidates)?;
            diversity.max_per.push(MaxPer { field: field.to_owned(), count });
        }
        match (self.mmr_lambda, self.candidates) {
            (None, None) => {}
            (None, Some(_)) => {
                return Err(Problem::invalid("`diversity.candidates` is what `mmr_lambda` chooses from: give both"));
            }
            (Some(lambda), candidates) => {
                let lambda = number("diversity.mmr_lambda", lambda, 0.0, 1.0)? as f32;
                let candidates = candidates.unwrap_or((10 * k).min(MAX_MMR_CANDIDATES).min(limits.candidates));
                let candidates = within("diversity.candidates", candidates, limits.candidates)?;
                diversity.mmr = Some(Mmr { lambda, candidates });
            }
        }
        Ok(diversity)
    }
}

impl MixDocument {
    fn mix(&self, k: usize, limits: &Limits) -> Result<Mix, Problem> {
        bounded("mix.quotas", &self.quotas, limits)?;
        bounded("mix.pins", &self.pins, limits)?;
        let quota = |quota: &QuotaDocument| {
            let known = [
                ("personal", Source::Personal),
                ("session", Source::Session),
                ("list", Source::List),
                ("popular", Source::Popular),
                ("new", Source::New),
            ];
            let source = known.iter().find(|(name, _)| *name == quota.source).map(|(_, source)| *source);
            let source = source.ok_or_else(|| {
                let detail = "`mix.quotas`: expected personal, session, list, popular or new, got";
                Problem::invalid(format!("{detail} {:?}", shortened(&quota.source)))
            })?;
            Ok(Quota { source, count: within("mix.quotas", quota.count, k)? })
        };
        let pin = |pin: &PinDocument| {
            let place = within("mix.pins", pin.rank, k)? - 1;
            Ok(Pin { place, item: pin.item_id.id("mix.pins", limits)? })
        };
        let quotas = self.quotas.iter().map(quota).collect::<Result<_, Problem>>()?;
        Ok(Mix { quotas, pins: self.pins.iter().map(pin).collect::<Result<_, Problem>>()? })
    }
}
