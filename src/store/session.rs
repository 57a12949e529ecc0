//! What a user did just now: recent events, under a key of their own that expires.
//!
//! Events name items by [`item_hash`](super::item_hash), 8 bytes whatever the id, so that a session outlives the release
//! it began under. Recording events also marks what the user has seen ([`Seen`]).

use std::future::Future;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::sealed::{HEADER_BYTES, open, seal, whole};
use super::seen::{Seen, SeenOptions, seen_key};
use super::{StoreError, keys, now_s};
use crate::input::Id;
use crate::kv::{KeyRange, Kv};

/// Bytes of one event: item `u64`, when `u32` seconds since 1970, kind `u8`.
const EVENT_BYTES: usize = 13;
/// More events than this are kept of nobody, so that a session is no longer than what is read of it.
const MOST_EVENTS: usize = 65_536;
/// A write is tried so often while others write the same key: more than a user has devices.
const TRIES: usize = 8;
/// Values that are written at a time. 16: to replace one takes a connection of its own.
const AT_ONCE: usize = 16;

/// What a user did with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// Looked at it in a list: the weakest sign, and it may come back.
    View = 0,
    /// Opened it.
    Click = 1,
    /// Said that they like it, or kept it.
    Like = 2,
    /// Put it into the cart.
    Cart = 3,
    /// Bought it, or used it to the end.
    Purchase = 4,
    /// Said that they do not want it.
    Dislike = 5,
}

impl EventKind {
    /// All kinds; the place of one is its number.
    pub const ALL: [Self; 6] = [Self::View, Self::Click, Self::Like, Self::Cart, Self::Purchase, Self::Dislike];

    /// The name in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Click => "click",
            Self::Like => "like",
            Self::Cart => "cart",
            Self::Purchase => "purchase",
            Self::Dislike => "dislike",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What an event of this kind weighs where nobody says otherwise: a click 1, and the others by how much more, or
    /// less, they tell.
    pub const fn default_weight(self) -> f32 {
        match self {
            Self::View => 0.1,
            Self::Click => 1.0,
            Self::Like | Self::Purchase => 2.0,
            Self::Cart => 1.5,
            Self::Dislike => -1.0,
        }
    }

    /// Whether the item counts as seen from then on.
    pub const fn is_seen(self) -> bool {
        !matches!(self, Self::View)
    }
}

/// An event as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// [`item_hash`](super::item_hash) of the item.
    pub item: u64,
    /// What was done.
    pub kind: EventKind,
    /// When, in seconds since 1970.
    pub at_s: u64,
}

/// What of sessions is kept.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// The latest events of a user, at most 65,536. 32: half an hour of quick clicking, and 429 bytes.
    pub most: usize,
    /// For how long after the last one. 4 hours: by then a half-life of 30 minutes has left 0.4 % of an event.
    pub ttl: Duration,
    /// What of seen items is kept.
    pub seen: SeenOptions,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { most: 32, ttl: Duration::from_hours(4), seen: SeenOptions::default() }
    }
}

/// The key of a user's session.
pub fn session_key(ns: &str, user: Id<'_>) -> Vec<u8> {
    keys::of_user(ns, 's', user)
}

/// Bytes of a session's value.
pub fn session_bytes(events: usize) -> usize {
    HEADER_BYTES + events * EVENT_BYTES
}

/// The events in a user's session, oldest first, from what was found under its key.
pub fn sessions(ns: &str, user: Id<'_>, value: &[u8]) -> Result<Vec<StoredEvent>, StoreError> {
    decode(&session_key(ns, user), value)
}

/// Adds events of a user to the session, and the items of those that say so to what the user has seen. Of events of one
/// user that are recorded at the same time none is lost.
pub async fn record_events<K: Kv>(
    kv: &K,
    ns: &str,
    user: Id<'_>,
    events: &[StoredEvent],
    options: &SessionOptions,
) -> Result<(), StoreError> {
    record_all_events(kv, ns, &[(user, events)], options).await.pop().unwrap_or(Ok(()))
}

/// The same for several users, each once and with an outcome of their own: a key of another type, or a server of a
/// cluster that is lost, takes nothing from the others. All that there is of them is read in one trip, and written at
/// once. Of a user whose values cannot be read nothing is written; of one who fails later a part may be kept.
pub fn record_all_events<'k, K: Kv>(
    kv: &'k K,
    ns: &str,
    users: &[(Id<'_>, &[StoredEvent])],
    options: &SessionOptions,
) -> impl Future<Output = Vec<Result<(), StoreError>>> + Send + use<'k, K> {
    let options = *options;
    let all = users.iter().enumerate().flat_map(|(at, (user, events))| changes(ns, at, *user, events));
    let mut recording = Recording { left: all.collect(), outcomes: users.iter().map(|_| keys::check_ns(ns)).collect() };
    async move {
        for _ in 0..TRIES {
            recording.once(kv, options).await;
        }
        for Change { user, key, .. } in recording.left {
            let what = String::from_utf8_lossy(&key).into_owned();
            recording.outcomes[user] = Err(StoreError::Contended { what, tries: TRIES });
        }
        recording.outcomes
    }
}

/// Events of users on their way into the store.
struct Recording {
    /// Of users who have not failed.
    left: Vec<Change>,
    /// Of each user, as far as it is known.
    outcomes: Vec<Result<(), StoreError>>,
}

impl Recording {
    /// Reads what is to be replaced, and replaces it where nobody else was quicker.
    async fn once<K: Kv>(&mut self, kv: &K, options: SessionOptions) {
        self.left.retain(|change| self.outcomes[change.user].is_ok());
        if self.left.is_empty() {
            return;
        }
        let ranges: Vec<KeyRange> = self.left.iter().map(|change| whole(change.key.clone())).collect();
        let values = kv.get_ranges(&ranges).await;
        let mut read = Vec::with_capacity(values.len());
        for (change, value) in self.left.drain(..).zip(values) {
            match value {
                Ok(value) => read.push((change, value)),
                Err(error) => self.outcomes[change.user] = Err(error.into()),
            }
        }
        read.retain(|(change, _)| self.outcomes[change.user].is_ok());
        let writes = read.into_iter().map(|(change, found)| change.write(kv, found, options));
        for (user, written) in stream::iter(writes).buffered(AT_ONCE).collect::<Vec<_>>().await {
            match written {
                Ok(lost) => self.left.extend(lost),
                Err(error) => self.outcomes[user] = Err(error),
            }
        }
    }
}

/// A value that is to be replaced by itself and more.
struct Change {
    /// The place of its user among those whose events are recorded.
    user: usize,
    key: Vec<u8>,
    more: More,
}

enum More {
    Events(Vec<StoredEvent>),
    Seen(Vec<u64>),
}

/// What events of the user at that place change.
fn changes(ns: &str, at: usize, user: Id<'_>, events: &[StoredEvent]) -> impl Iterator<Item = Change> + use<> {
    let session = Change { user: at, key: session_key(ns, user), more: More::Events(events.to_vec()) };
    let items: Vec<u64> = events.iter().filter(|event| event.kind.is_seen()).map(|event| event.item).collect();
    let seen = (!items.is_empty()).then(|| Change { user: at, key: seen_key(ns, user), more: More::Seen(items) });
    std::iter::once(session).chain(seen)
}

impl Change {
    /// Replaces what was found, which has no bytes where nothing was; comes back when another was quicker.
    async fn write<K: Kv>(
        self,
        kv: &K,
        found: Vec<u8>,
        options: SessionOptions,
    ) -> (usize, Result<Option<Self>, StoreError>) {
        let found = (!found.is_empty()).then_some(&found[..]);
        let (new, ttl) = self.make(found, &options, now_s());
        let kept = kv.compare_and_set(&self.key, found, &new, Some(ttl)).await;
        (self.user, kept.map(|kept| (!kept).then_some(self)).map_err(StoreError::from))
    }

    /// What becomes of what was found, and for how long. What is damaged is as good as gone, and what is yet to come, as after
    /// a clock was set back, happened now: it would outlive all that is new.
    fn make(&self, found: Option<&[u8]>, options: &SessionOptions, now_s: u64) -> (Vec<u8>, Duration) {
        match &self.more {
            More::Events(events) => {
                let mut all = found.and_then(|value| decode(&self.key, value).ok()).unwrap_or_default();
                all.extend_from_slice(events);
                all.iter_mut().for_each(|event| event.at_s = event.at_s.min(now_s));
                all.sort_by_key(|event| event.at_s);
                let surplus = all.len().saturating_sub(options.most.min(MOST_EVENTS));
                (encode(&self.key, &all[surplus..]), options.ttl)
            }
            More::Seen(items) => {
                let mut seen = found.and_then(|value| Seen::open(&self.key, value).ok()).unwrap_or_default();
                items.iter().for_each(|&item| seen.add(item, &options.seen));
                (seen.seal(&self.key), options.seen.ttl)
            }
        }
    }
}

fn encode(key: &[u8], events: &[StoredEvent]) -> Vec<u8> {
    let mut body = Vec::with_capacity(events.len() * EVENT_BYTES);
    for event in events {
        body.extend_from_slice(&event.item.to_le_bytes());
        body.extend_from_slice(&(event.at_s as u32).to_le_bytes());
        body.push(event.kind as u8);
    }
    seal(key, &body)
}

fn decode(key: &[u8], value: &[u8]) -> Result<Vec<StoredEvent>, StoreError> {
    let (events, rest) = open("session", key, value)?.as_chunks::<EVENT_BYTES>();
    let malformed = || StoreError::corrupt("session", &"whole events of known kinds", &value.len());
    if !rest.is_empty() {
        return Err(malformed());
    }
    let event = |&[i0, i1, i2, i3, i4, i5, i6, i7, t0, t1, t2, t3, kind]: &[u8; EVENT_BYTES]| {
        Some(StoredEvent {
            item: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            at_s: u64::from(u32::from_le_bytes([t0, t1, t2, t3])),
            kind: EventKind::ALL.get(usize::from(kind)).copied()?,
        })
    };
    events.iter().map(event).collect::<Option<_>>().ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn events_come_back_as_they_were(
            events in prop::collection::vec((any::<u64>(), 0_u64..1 << 32, 0_usize..6), 0..50),
        ) {
            let event = |&(item, at_s, kind): &_| StoredEvent { item, at_s, kind: EventKind::ALL[kind] };
            let events: Vec<StoredEvent> = events.iter().map(event).collect();
            let key = session_key("t", Id::U64(1));
            let value = encode(&key, &events);
            prop_assert_eq!(value.len(), session_bytes(events.len()));
            prop_assert_eq!(sessions("t", Id::U64(1), &value).unwrap(), events);
            prop_assert!(sessions("t", Id::U64(2), &value).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(decode(b"k", &bytes).is_err());
            if let Ok(events) = decode(b"k", &seal(b"k", &bytes)) {
                prop_assert_eq!(events.len() * EVENT_BYTES, bytes.len());
            }
        }
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nothing_new_out_of_a_session() {
        let event = |item, at_s| StoredEvent { item, at_s, kind: EventKind::Click };
        let key = session_key("t", Id::U64(1));
        let options = SessionOptions { most: 3, ..SessionOptions::default() };
        let stored = encode(&key, &[event(1, 90_000), event(2, 90_001), event(3, 90_002)]);
        // a day earlier, late reports among what is new
        let change = Change { user: 0, key: key.clone(), more: More::Events(vec![event(4, 3_600), event(5, 10)]) };
        let (kept, _) = change.make(Some(&stored), &options, 3_600);
        let kept = decode(&key, &kept).unwrap();
        assert_eq!(kept, [event(2, 3_600), event(3, 3_600), event(4, 3_600)]);
        // on time nothing is changed
        let (kept, _) = change.make(Some(&stored), &SessionOptions { most: 9, ..options }, 90_002);
        assert_eq!(decode(&key, &kept).unwrap().iter().map(|event| event.at_s).max(), Some(90_002));
    }

    #[test]
    fn kinds_are_told_by_name_and_by_number() {
        for (at, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!((kind as usize, EventKind::parse(kind.name())), (at, Some(kind)));
        }
        assert_eq!(EventKind::parse("clicked"), None);
    }
}
