//! What is answered.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::{Answer, Explain, Item, Source};

/// Ranked items.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecommendAnswer {
    /// What the logs call this request; also the header `X-Request-Id`.
    pub request_id: String,
    /// The items, best first but for what diversity and mix moved; none twice.
    pub items: Vec<RankedItem>,
    /// The release that answered.
    pub release: String,
    /// What they were ranked by.
    pub user_vector: UserVector,
    /// What was not as it should be, as `what:how`; empty on a good day.
    pub degraded: Vec<&'static str>,
    /// Items asked for.
    pub requested: usize,
    /// Items answered.
    pub returned: usize,
    /// Why there are fewer than asked for: a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same with the numbers that show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_detail: Option<String>,
    /// For `page` of the next request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The effort of the search; 0 when there was none.
    pub ef: usize,
    /// From the request's head to its answer.
    pub took_us: u64,
    /// What the ranking was made of, when that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<ExplainDocument>,
}

/// An item of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct RankedItem {
    /// Its id, as a text.
    pub id: String,
    /// Larger is better; 0 where nothing was compared.
    pub score: f32,
    /// From 1.
    pub rank: usize,
    /// Where it came from: `personal`, `session`, `list`, `popular`, `new` or `pinned`.
    pub source: &'static str,
}

/// What an answer was ranked by.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserVector {
    /// The rung of the ladder: `overlay`, `page`, `last_known`, `session_mean`, `segment`, `popularity` or `item`.
    pub origin: &'static str,
    /// How old the vector is, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<f64>,
}

/// What the ranking was made of.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplainDocument {
    /// The events that moved the vector.
    pub events: Vec<WeighedEvent>,
    /// The part of the way to the session that it was moved, 0 to 1.
    pub share: f32,
    /// By how much it turned, in degrees; for L2, how far it moved.
    pub drift: f32,
    /// Rows scored.
    pub distances: usize,
    /// The ranking before diversity and mix.
    pub candidates: Vec<RankedItem>,
}

/// An event as it weighed.
#[derive(Debug, Serialize, ToSchema)]
pub struct WeighedEvent {
    /// The item.
    pub item_id: String,
    /// What was done.
    pub event: &'static str,
    /// How long ago.
    pub age_s: f64,
    /// Its weight after decay.
    pub weight: f32,
}

/// What is served, and what the store has.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReleasesDocument {
    /// The release that answers.
    pub serving: ReleaseDocument,
    /// The one before, kept to go back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<ReleaseDocument>,
    /// Those of the store; left out while it is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Vec<Listed>>,
}

/// A release that is loaded.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReleaseDocument {
    /// Its name.
    pub name: String,
    /// The fingerprint of its index, 16 hex digits.
    pub fingerprint: String,
    /// Items.
    pub items: usize,
    /// Dimensions of a vector.
    pub dim: usize,
    /// Users that the store has vectors of.
    pub users: u32,
    /// Bytes of the index.
    pub index_bytes: u64,
    /// How long it has been loaded.
    pub loaded_s: u64,
}

/// A release of the store.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The fingerprint of the index that it belongs to.
    pub fingerprint: String,
    /// Where it is in its life.
    pub state: String,
    /// Users.
    pub users: u32,
}

/// The name of a source in answers.
fn name_of(source: Source) -> &'static str {
    match source {
        Source::Personal => "personal",
        Source::Session => "session",
        Source::List => "list",
        Source::Popular => "popular",
        Source::New => "new",
        Source::Pinned => "pinned",
    }
}

fn ranked(items: &[Item]) -> Vec<RankedItem> {
    let item = |(at, item): (usize, &Item)| RankedItem {
        id: item.id.to_string(),
        score: item.score,
        rank: at + 1,
        source: name_of(item.source),
    };
    items.iter().enumerate().map(item).collect()
}

impl RecommendAnswer {
    /// An answer as it is sent.
    pub fn of(answer: &Answer, request_id: &str) -> Self {
        Self {
            request_id: request_id.to_owned(),
            items: ranked(&answer.items),
            release: answer.release.clone(),
            user_vector: UserVector {
                origin: answer.vector.rung.name(),
                age_s: answer.vector.age.map(|age| age.as_secs_f64()),
            },
            degraded: answer.degraded.iter().map(|degraded| degraded.name()).collect(),
            requested: answer.requested,
            returned: answer.items.len(),
            reason: answer.shortfall.as_ref().map(|short| short.reason.name()),
            reason_detail: answer.shortfall.as_ref().map(ToString::to_string),
            next: answer.next.clone(),
            ef: answer.ef,
            took_us: 0,
            explain: answer.explain.as_deref().map(|explain| explained(explain, answer.distances)),
        }
    }
}

fn explained(explain: &Explain, distances: usize) -> ExplainDocument {
    let weighed = |event: &crate::engine::Weighed| WeighedEvent {
        item_id: event.item.to_string(),
        event: event.kind.name(),
        age_s: event.age.as_secs_f64(),
        weight: event.weight,
    };
    ExplainDocument {
        events: explain.events.iter().map(weighed).collect(),
        share: explain.share,
        drift: explain.drift,
        distances,
        candidates: ranked(&explain.candidates),
    }
}
