//! What is to be changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::config::Limits;
use super::super::problem::{Kind, Problem};
use super::condition::ids;
use super::request::{EventDocument, events};
use super::{IdDocument, bounded, number, text};
use crate::engine::{Event, NewItem, OwnedId};
use crate::store::Manifest;

/// The largest component of a vector: what `f16` holds.
const LARGEST: f64 = 65_504.0;

/// What users did.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// In any order, of any users.
    pub events: Vec<UserEvent>,
    /// By when they have to be kept.
    pub deadline_ms: Option<u64>,
}

/// Something that a user did.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserEvent {
    /// Who.
    pub user_id: IdDocument,
    /// With which item.
    pub item_id: IdDocument,
    /// `view`, `click`, `like`, `cart`, `purchase` or `dislike`.
    pub event: String,
    /// When, in seconds since 1970; now when left out.
    pub ts: Option<f64>,
}

/// Which items are available.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AvailabilityRequest {
    /// These are.
    pub available: Vec<IdDocument>,
    /// These are not.
    pub unavailable: Vec<IdDocument>,
}

/// Items to be added or replaced.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemsRequest {
    /// The release that the vectors are of: its name, or the 16 digits of its fingerprint. When it is not the one that is
    /// served nothing is taken; when left out the vectors are taken for that one's.
    pub release: Option<String>,
    /// The items.
    pub items: Vec<ItemDocument>,
}

/// An item that the index does not have.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ItemDocument {
    /// Its id.
    pub item_id: IdDocument,
    /// Its vector, as the trainer of the release that is served would leave it.
    pub vector: Vec<f64>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Its numbers, by field.
    #[serde(default)]
    pub numbers: BTreeMap<String, f64>,
}

/// Items to be taken away.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// Their ids.
    pub items: Vec<IdDocument>,
}

/// What a change did.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {
    /// What the logs call this request.
    pub request_id: String,
    /// Entries that were taken.
    pub accepted: usize,
}

/// What became of events.
#[derive(Debug, Serialize, ToSchema)]
pub struct Recorded {
    /// What the logs call this request.
    pub request_id: String,
    /// Events of users all of whose events are kept.
    pub accepted: usize,
    /// Ids, as texts, of the users of whom none are kept, or only a part: the store failed for them alone, and the logs
    /// say why. Left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub not_kept: Vec<String>,
}

impl EventsRequest {
    /// As the engine takes them.
    pub fn by_user(self, limits: &Limits) -> Result<Vec<(OwnedId, Vec<Event>)>, Problem> {
        bounded("events", &self.events, limits)?;
        let mut of_users: BTreeMap<OwnedId, Vec<EventDocument>> = BTreeMap::new();
        for UserEvent { user_id, item_id, event, ts } in self.events {
            let user = user_id.id("user_id", limits)?;
            of_users.entry(user).or_default().push(EventDocument { item_id, event, ts });
        }
        of_users.into_iter().map(|(user, of_user)| Ok((user, events(&of_user, limits)?))).collect()
    }
}

impl AvailabilityRequest {
    /// As the engine takes them. An item that is in both lists is not available.
    pub fn items(&self, limits: &Limits) -> Result<Vec<(OwnedId, bool)>, Problem> {
        let (on, off) = (ids("available", &self.available, limits)?, ids("unavailable", &self.unavailable, limits)?);
        Ok(on.into_iter().map(|id| (id, true)).chain(off.into_iter().map(|id| (id, false))).collect())
    }
}

impl ItemsRequest {
    /// The release that is named, taken out.
    pub fn take_release(&mut self, limits: &Limits) -> Result<Option<String>, Problem> {
        self.release.as_deref().map_or(Ok(()), |release| text("release", release, limits).map(drop))?;
        Ok(self.release.take())
    }

    /// Refuses vectors of another release than the one that is served.
    pub fn check_release(release: Option<&str>, served: &Manifest) -> Result<(), Problem> {
        let fingerprint = format!("{:016x}", served.fingerprint);
        match release {
            Some(release) if release != served.name && !release.eq_ignore_ascii_case(&fingerprint) => {
                let Manifest { name, .. } = served;
                let detail = format!(
                    "expected vectors of release {name:?} ({fingerprint}), which is served, got those of {release:?}; \
                     send these items' vectors of that release, or wait until yours is served"
                );
                Err(Problem::new(Kind::OtherRelease, detail))
            }
            _ => Ok(()),
        }
    }

    /// As the engine takes them; it looks at the number of dimensions.
    pub fn items(self, limits: &Limits) -> Result<Vec<NewItem>, Problem> {
        bounded("items", &self.items, limits)?;
        let item = |item: ItemDocument| {
            bounded("vector", &item.vector, limits)?;
            bounded("tags", &item.tags, limits)?;
            item.tags.iter().try_for_each(|tag| text("tags", tag, limits).map(drop))?;
            for (field, &value) in &item.numbers {
                text("numbers", field, limits)?;
                number("numbers", value, f64::MIN, f64::MAX)?;
            }
            let vector = item.vector.iter().map(|&x| Ok(number("vector", x, -LARGEST, LARGEST)? as f32));
            let vector = vector.collect::<Result<_, Problem>>()?;
            Ok(NewItem {
                id: item.item_id.id("item_id", limits)?,
                tags: item.tags,
                numbers: item.numbers,
                vector,
                made_s: 0,
            })
        };
        self.items.into_iter().map(item).collect()
    }
}

impl DeleteRequest {
    /// As the engine takes them.
    pub fn ids(&self, limits: &Limits) -> Result<Vec<OwnedId>, Problem> {
        ids("items", &self.items, limits)
    }
}
