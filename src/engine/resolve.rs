//! From a user's id to everything that the store has of them, in one round trip.
//!
//! Overlay, page slot of each loaded release, session, what was seen and the segment's vector, of all users of a batch, are
//! one call. Nothing here is an error: what cannot be had is said in `degraded`, and the ladder goes on.

use std::time::Duration;

use tokio::time::Instant;

use super::answer::{Degraded, Rung};
use super::known::Known;
use super::request::OwnedId;
use crate::codec::Codec;
use crate::kv::{KeyRange, Kv, KvError};
use crate::store::{
    ListKind, Manifest, Overlay, Ranked, Seen, StoreError, StoredEvent, UserVectors, list_key, list_of_user,
    overlay_key, seen_key, segment_key, session_key, sessions, whole,
};

/// Why a page that there should be was not read: what is remembered stands in.
const PAGE_TROUBLE: [Degraded; 4] =
    [Degraded::PageUnusable, Degraded::ReleaseRetired, Degraded::StoreSlow, Degraded::StoreFailed];

/// A user's vector, and where it is at home.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UserVector {
    /// Of the index that it can be scored by.
    pub fingerprint: u64,
    pub codec: Codec,
    pub record: Vec<u8>,
    pub rung: Rung,
    /// When it was made, in seconds since 1970, where that is known.
    pub made_s: Option<u64>,
}

/// What the store has of one user.
#[derive(Clone, Debug, Default)]
pub(super) struct UserSide {
    pub vector: Option<UserVector>,
    pub segment: Option<UserVector>,
    pub session: Vec<StoredEvent>,
    pub seen: Seen,
    /// Nodes of the current release, best first.
    pub listed: Vec<Ranked>,
    pub degraded: Vec<Degraded>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asking<'a> {
    pub user: Option<&'a OwnedId>,
    pub segment: Option<&'a str>,
    /// Whether the user's list is wanted.
    pub list: bool,
    /// The only release whose vectors will do, by its fingerprint: of an answer whose pages before it gave.
    pub only: Option<u64>,
}

impl Asking<'_> {
    /// Whether vectors of a release will do.
    fn takes(&self, manifest: &Manifest) -> bool {
        self.only.is_none_or(|only| only == manifest.fingerprint)
    }
}

/// The releases that are loaded, the current one first, and how they are read.
pub(super) struct Resolver<'a, K> {
    pub releases: &'a [&'a UserVectors<K>],
    /// Items of the current one's index.
    pub items: u32,
    pub known: &'a Known,
    pub timeout: Duration,
}

/// Values in the order that they are asked for, each with an outcome of its own.
struct Values<'a>(std::slice::Iter<'a, Result<Vec<u8>, KvError>>);

impl<'a> Values<'a> {
    fn next(&mut self) -> Result<&'a [u8], &'a KvError> {
        self.0.next().map_or(Ok(&[]), |value| value.as_ref().map(Vec::as_slice))
    }

    /// The next, if there is one. That it cannot be had is said, as `damaged` where that is the key's own fault.
    fn present(&mut self, damaged: Degraded, degraded: &mut Vec<Degraded>) -> Option<&'a [u8]> {
        // a key that is not there has no bytes
        let value = self.next().map_err(|error| say(why(error, damaged), degraded)).ok()?;
        (!value.is_empty()).then_some(value)
    }
}

impl<K: Kv> Resolver<'_, K> {
    /// What the store has of all who ask, in order.
    pub async fn resolve(&self, asking: &[Asking<'_>]) -> Vec<UserSide> {
        let Some(first) = self.releases.first() else { return vec![UserSide::default(); asking.len()] };
        let ranges: Vec<KeyRange> = asking.iter().flat_map(|one| self.ranges(first.ns(), one)).collect();
        if ranges.is_empty() {
            return vec![UserSide::default(); asking.len()];
        }
        let Ok(values) = tokio::time::timeout(self.timeout, first.kv().get_ranges(&ranges)).await else {
            return self.without_store(asking);
        };
        let again_until = Instant::now() + self.timeout;
        let mut values = Values(values.iter());
        let mut all = Vec::with_capacity(asking.len());
        for one in asking {
            let (mut resolved, doubtful) = self.read(first.ns(), one, &mut values);
            for release in doubtful {
                self.settle(release, one, again_until, &mut resolved).await;
            }
            match (one.user, &resolved.vector) {
                (Some(user), Some(vector)) => self.known.put(user, vector),
                (Some(_), None) if resolved.degraded.iter().any(|trouble| PAGE_TROUBLE.contains(trouble)) => {
                    resolved.vector = self.remembered(one);
                }
                _ => {}
            }
            all.push(resolved);
        }
        all
    }

    fn ranges(&self, ns: &str, asking: &Asking) -> Vec<KeyRange> {
        let mut ranges = Vec::with_capacity(7);
        if let Some(user) = asking.user.map(OwnedId::as_id) {
            ranges.extend([overlay_key(ns, user), session_key(ns, user), seen_key(ns, user)].map(whole));
            ranges.extend(self.releases.iter().filter_map(|release| release.range(user)));
            let listed = self.releases.first().filter(|_| asking.list);
            ranges.extend(listed.map(|first| whole(list_key(ns, first.manifest(), ListKind::Candidates, user))));
        }
        ranges.extend(asking.segment.map(|segment| whole(segment_key(ns, segment))));
        ranges
    }

    /// Looks through the values of one who asks; the releases whose page has to be looked at again come with it.
    fn read(&self, ns: &str, asking: &Asking, values: &mut Values) -> (UserSide, Vec<usize>) {
        let (mut resolved, mut doubtful) = (UserSide::default(), Vec::new());
        if let Some(user) = asking.user.map(OwnedId::as_id) {
            let degraded = &mut resolved.degraded;
            let overlay = values
                .present(Degraded::OverlayDamaged, degraded)
                .and_then(|value| or_say(Overlay::of_user(ns, user, value), Degraded::OverlayDamaged, degraded));
            resolved.vector = overlay.and_then(|overlay| {
                self.loaded(asking, overlay, Rung::Overlay, Degraded::OverlayOfOtherRelease, degraded)
            });
            let session = values
                .present(Degraded::SessionDamaged, degraded)
                .and_then(|value| or_say(sessions(ns, user, value), Degraded::SessionDamaged, degraded));
            resolved.session = session.unwrap_or_default();
            let seen = values
                .present(Degraded::SeenDamaged, degraded)
                .and_then(|value| or_say(Seen::of_user(ns, user, value), Degraded::SeenDamaged, degraded));
            resolved.seen = seen.unwrap_or_default();
            for (at, release) in self.releases.iter().enumerate() {
                if release.range(user).is_none() {
                    continue;
                }
                let value = values.next();
                if resolved.vector.is_none() && asking.takes(release.manifest()) {
                    match value.map(|value| release.found(user, value)) {
                        Ok(Ok(record)) => resolved.vector = record.map(|record| page_vector(release, record)),
                        Ok(Err(_)) => doubtful.push(at),
                        Err(error) => say(why(error, Degraded::PageUnusable), &mut resolved.degraded),
                    }
                }
            }
            if let Some(first) = self.releases.first().filter(|_| asking.list) {
                let list = |value| list_of_user(first.manifest(), self.items, user, value);
                let degraded = &mut resolved.degraded;
                let listed = values
                    .present(Degraded::ListDamaged, degraded)
                    .and_then(|value| or_say(list(value), Degraded::ListDamaged, degraded));
                resolved.listed = listed.unwrap_or_default();
            }
        }
        if let Some(segment) = asking.segment {
            let degraded = &mut resolved.degraded;
            let vector = values
                .present(Degraded::SegmentUnusable, degraded)
                .and_then(|value| or_say(Overlay::of_segment(ns, segment, value), Degraded::SegmentUnusable, degraded));
            resolved.segment = vector
                .and_then(|vector| self.loaded(asking, vector, Rung::Segment, Degraded::SegmentUnusable, degraded));
        }
        (resolved, doubtful)
    }

    /// An overlay, if an index is loaded that it can be scored by.
    fn loaded(
        &self,
        asking: &Asking,
        overlay: Overlay,
        rung: Rung,
        otherwise: Degraded,
        degraded: &mut Vec<Degraded>,
    ) -> Option<UserVector> {
        let Overlay { fingerprint, made_s, codec, record } = overlay;
        let mut homes = self.releases.iter().map(|release| release.manifest()).filter(|home| asking.takes(home));
        let Some(home) = homes.find(|home| home.fingerprint == fingerprint) else {
            degraded.push(otherwise);
            return None;
        };
        if record.len() != codec.bytes_per_vector(home.dim as usize) {
            degraded.push(if rung == Rung::Overlay { Degraded::OverlayDamaged } else { otherwise });
            return None;
        }
        Some(UserVector { fingerprint, codec, record, rung, made_s: Some(made_s) })
    }

    /// Another look at a page that was not as it should be: a release may be rolling over it, or be gone for good.
    /// All who ask together wait no longer than one would.
    async fn settle(&self, at: usize, asking: &Asking<'_>, until: Instant, resolved: &mut UserSide) {
        let (Some(user), Some(release)) = (asking.user, self.releases.get(at)) else { return };
        let again = tokio::time::timeout_at(until, release.get(&[user.as_id()])).await;
        let trouble = match again {
            Ok(Ok(mut records)) => {
                if let (None, Some(Some(record))) = (&resolved.vector, records.pop()) {
                    resolved.vector = Some(page_vector(release, record));
                }
                return;
            }
            // removed to make room for its successor: until that is there, nobody is known
            Ok(Err(StoreError::Retired { .. })) => Degraded::ReleaseRetired,
            Ok(Err(_)) => Degraded::PageUnusable,
            Err(_) => Degraded::StoreSlow,
        };
        // that the previous release is gone is as it should be
        if at == 0 {
            resolved.degraded.push(trouble);
        }
    }

    fn without_store(&self, asking: &[Asking<'_>]) -> Vec<UserSide> {
        let degraded = || vec![Degraded::StoreSlow];
        let resolved = |one| UserSide { vector: self.remembered(one), degraded: degraded(), ..UserSide::default() };
        asking.iter().map(resolved).collect()
    }

    /// The vector that this process saw last, if its release is still loaded.
    fn remembered(&self, asking: &Asking) -> Option<UserVector> {
        let known = asking.user.and_then(|user| self.known.get(user))?;
        let mut homes = self.releases.iter().map(|release| release.manifest()).filter(|home| asking.takes(home));
        homes.any(|home| home.fingerprint == known.fingerprint).then_some(UserVector { rung: Rung::LastKnown, ..known })
    }
}

fn page_vector<K: Kv>(release: &UserVectors<K>, record: Vec<u8>) -> UserVector {
    let manifest = release.manifest();
    UserVector { fingerprint: manifest.fingerprint, codec: manifest.codec, record, rung: Rung::Page, made_s: None }
}

/// What it means that a value could not be had.
fn why(error: &KvError, damaged: Degraded) -> Degraded {
    match error {
        KvError::TimedOut { .. } => Degraded::StoreSlow,
        KvError::WrongType { .. } => damaged,
        _ => Degraded::StoreFailed,
    }
}

/// Says it once: a store that is away keeps every value.
fn say(trouble: Degraded, degraded: &mut Vec<Degraded>) {
    if !degraded.contains(&trouble) {
        degraded.push(trouble);
    }
}

fn or_say<T>(read: Result<T, StoreError>, trouble: Degraded, degraded: &mut Vec<Degraded>) -> Option<T> {
    read.map_err(|_| degraded.push(trouble)).ok()
}
