//! Users' lists: results, or candidates to choose results from, made before they are asked for and kept for a while.
//!
//! Each is packed ([`pack_list`](super::pack_list)) under a key of its own, and belongs to one release: the key and the
//! checksum carry its id, the checksum the user as well, so a list of another release or user is never answered.
//!
//! The one thing to know: they are the only keys of a release that expire while it is active, and each user's expire at a
//! moment of their own. So a policy of the `volatile` kind evicts lists and never a page, and a night's lists do not
//! all go in the same second.

use std::time::Duration;

use twox_hash::XxHash3_64;

use super::flight::Flight;
use super::footprint::{Footprint, Trajectory};
use super::guard::{Room, Watch};
use super::lease::Lease;
use super::list::{Ranked, list_bytes, pack, unpack};
use super::release::{self, Growth, Manifest};
use super::spread::{Coming, On};
use super::strategy::Place;
use super::{StoreError, keys};
use crate::input::Id;
use crate::kv::memory::{Value, Values};
use crate::kv::{Kv, KvError};

/// Lists gathered before a write: as with pages, 1 MiB hides a round trip and hardly counts.
const BATCH_BYTES: usize = 1 << 20;
/// Lists removed in one call.
const REMOVE_LISTS: u32 = 1_000;

/// A list's key, its bytes, and how long it is kept.
type Entry = (Vec<u8>, Vec<u8>, Duration);

/// What a list is for. A user may have one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Answers, ready to be given.
    Results,
    /// More items than are asked for, to be filtered and cut when they are.
    Candidates,
}

/// How long lists are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// The longest that one is kept. A day: yesterday's go as the next night's are written.
    pub ttl: Duration,
    /// By how much of that a user's list may go earlier, evenly spread over users. 10 %: a day's lists go over 2.4 hours,
    /// and a list is kept for 95 % of the time on average.
    pub jitter_percent: u32,
}

impl Default for ListOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_hours(24), jitter_percent: 10 }
    }
}

/// One kind of lists of one release. Cheap to clone where the store is.
#[derive(Clone, Debug)]
pub struct Lists<K> {
    kv: K,
    ns: String,
    /// The release's id.
    id: String,
    /// The release's name.
    release: String,
    /// Rows of the index.
    items: u32,
    kind: ListKind,
    options: ListOptions,
}

/// Lists of many users, made as they are written.
pub struct ListSource<'a, 'u> {
    /// How many.
    pub count: u32,
    /// The users, each once.
    pub id: &'a (dyn Fn(u32) -> Id<'u> + Sync),
    /// The most items that a list has: what it is priced by.
    pub most_items: usize,
    /// Makes the list of one, best first.
    pub list: &'a MakeList<'a>,
}

/// Makes the list of the user at a place.
pub type MakeList<'a> = dyn Fn(u32) -> Result<Vec<Ranked>, Box<dyn std::error::Error + Send + Sync>> + Sync + 'a;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct WrittenLists {
    /// Lists.
    pub lists: u32,
    /// Their bytes, without keys and what the home adds.
    pub bytes: u64,
    /// By how much the server was to grow, and did; `None` for a file. Lists that took the place of older ones grow it
    /// by less.
    pub memory: Option<Growth>,
}

impl<K: Kv> Lists<K> {
    /// Those of that release, whose index has `items` rows.
    pub fn new(
        kv: K,
        ns: &str,
        release: &Manifest,
        items: u32,
        kind: ListKind,
        options: ListOptions,
    ) -> Result<Self, StoreError> {
        keys::check_ns(ns)?;
        if options.jitter_percent > 100 {
            let expected = "at most 100 percent".to_owned();
            return Err(StoreError::BadSpec { what: "jitter", expected, got: u64::from(options.jitter_percent) });
        }
        let (ns, id, release) = (ns.to_owned(), release.id.clone(), release.name.clone());
        Ok(Self { kv, ns, id, release, items, kind, options })
    }

    /// The lists of these users, `None` where there is none. One round trip for all of them.
    pub async fn get(&self, users: &[Id<'_>]) -> Result<Vec<Option<Vec<Ranked>>>, StoreError> {
        let keys: Vec<Vec<u8>> = users.iter().map(|&user| self.key(user)).collect();
        let found = self.kv.get_many(&keys).await?;
        let list = |(&user, value): (&Id, Option<Vec<u8>>)| {
            value.map(|value| unpack(&value, self.items, self.salt(user))).transpose()
        };
        users.iter().zip(found).map(list).collect()
    }

    /// Keeps the lists of some users, best first, in the place of those they had. Nothing is priced: this is for a cache,
    /// which a server that is full refuses, or evicts other lists for.
    pub async fn put(&self, lists: &[(Id<'_>, &[Ranked])]) -> Result<(), StoreError> {
        let entries: Result<Vec<_>, _> = lists.iter().map(|&(user, list)| self.entry(user, list)).collect();
        Ok(self.kv.set_expiring(entries?).await?)
    }

    /// How long a user's list is kept: [`ListOptions::ttl`] less up to the jitter. It is the same whenever it is written,
    /// and another in each release.
    pub fn ttl_of(&self, user: Id<'_>) -> Duration {
        // other bits than a server or a checksum looks at
        let place = (self.salt(user) >> 32) as f64 / f64::from(u32::MAX);
        let less_s = self.options.ttl.as_secs_f64() * place * f64::from(self.options.jitter_percent) / 100.0;
        self.options.ttl.saturating_sub(Duration::try_from_secs_f64(less_s).unwrap_or_default())
    }

    /// What writing these lists will cost every server, as if there were none of them yet.
    pub async fn footprints(&self, source: &ListSource<'_, '_>, room: &Room) -> Result<Vec<Footprint>, StoreError> {
        let footprint = |on| Footprint::of_lists(on, &self.ns, &self.expected(source, on));
        let footprints: Vec<_> = room.servers().map(footprint).collect();
        if !footprints.is_empty() {
            return Ok(footprints);
        }
        let Place { used_bytes, standing, .. } = Place::of(&self.kv, &self.ns, room).await?;
        let bytes = list_bytes(source.most_items, self.items);
        Ok(vec![Footprint::of_values_in_file(used_bytes, &standing, "lists", bytes, source.count)])
    }

    /// Writes many users' lists, in the place of those they had. Refused before the first write when they do not fit; given
    /// up, and what was written removed, when the room goes meanwhile. After any other failure what was written stays, as
    /// each list is whole by itself, and goes when its time is over.
    ///
    /// It is one of the publishers of the namespace, of which there is one at a time. `progress` is told how many lists
    /// are written. Two batches of 1 MiB are held: one is on its way while the next is made.
    pub async fn write(
        &self,
        source: &ListSource<'_, '_>,
        room: &Room,
        progress: &mut (dyn FnMut(u32) + Send),
    ) -> Result<WrittenLists, StoreError> {
        room.check(&format!("{} (lists)", self.release), &self.footprints(source, room).await?)?;
        let lease = Lease::take(&self.kv, &self.ns, &self.release, self.options.ttl).await?;
        let mut writing = Writing { lists: self, source, lease, made: 0, bytes: 0, flight: None };
        let result = match Watch::begin(&self.kv, room, |on| self.expected(source, on)).await {
            Ok(watch) => writing.all(&watch, progress).await,
            Err(error) => Err(error),
        };
        let result = match result {
            Err(cause) => Err(writing.give_up(cause).await),
            written => written,
        };
        writing.lease.give_back().await;
        result
    }

    fn expected(&self, source: &ListSource<'_, '_>, on: On<'_>) -> Trajectory {
        let coming = on.keys(source.count, |at| self.key((source.id)(at)));
        let value = Value::String(list_bytes(source.most_items, self.items));
        Trajectory::of(on, Coming::Mixed(coming), Values::same(value))
    }

    fn entry(&self, user: Id<'_>, list: &[Ranked]) -> Result<Entry, StoreError> {
        Ok((self.key(user), pack(list, self.items, self.salt(user))?, self.ttl_of(user)))
    }

    fn key(&self, user: Id<'_>) -> Vec<u8> {
        key(&self.ns, &self.id, self.kind, user)
    }

    fn salt(&self, user: Id<'_>) -> u64 {
        salt(&self.id, user)
    }
}

/// The key of a user's list, for reading it along with other things.
pub fn list_key(ns: &str, release: &Manifest, kind: ListKind, user: Id<'_>) -> Vec<u8> {
    key(ns, &release.id, kind, user)
}

/// The list that was found there. Refused when it is another user's, another release's or damaged.
pub fn list_of_user(release: &Manifest, items: u32, user: Id<'_>, value: &[u8]) -> Result<Vec<Ranked>, StoreError> {
    unpack(value, items, salt(&release.id, user))
}

fn key(ns: &str, release: &str, kind: ListKind, user: Id<'_>) -> Vec<u8> {
    let kind = match kind {
        ListKind::Results => 'l',
        ListKind::Candidates => 'c',
    };
    keys::list(ns, release, kind, user)
}

/// Text under the seed's complement, as in pages: no text is taken for the number of the same bytes.
fn salt(release: &str, user: Id<'_>) -> u64 {
    let release = release::id_bits(release);
    match user {
        Id::U64(user) => XxHash3_64::oneshot_with_seed(release, &user.to_le_bytes()),
        Id::Text(user) => XxHash3_64::oneshot_with_seed(!release, user.as_bytes()),
    }
}

/// Lists being written.
struct Writing<'w, 's, 'u, K> {
    lists: &'w Lists<K>,
    source: &'w ListSource<'s, 'u>,
    lease: Lease<'w, K>,
    /// Lists that may have been written: those of every batch handed over.
    made: u32,
    bytes: u64,
    flight: Option<Flight<'w, Result<(), KvError>>>,
}

impl<K: Kv> Writing<'_, '_, '_, K> {
    async fn all(&mut self, watch: &Watch, progress: &mut (dyn FnMut(u32) + Send)) -> Result<WrittenLists, StoreError> {
        let kv = &self.lists.kv;
        while self.made < self.source.count {
            let batch = self.batch()?;
            self.lease.renew().await?;
            self.land().await?;
            progress(self.made);
            self.made += batch.len() as u32;
            self.flight = Some(Flight::begin(kv.set_expiring(batch)).await);
            watch.check(kv, self.made).await?;
        }
        self.land().await?;
        progress(self.made);
        Ok(WrittenLists { lists: self.made, bytes: self.bytes, memory: watch.growth(kv).await? })
    }

    /// The next lists.
    fn batch(&mut self) -> Result<Vec<Entry>, StoreError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for at in self.made..self.source.count {
            let list = (self.source.list)(at).map_err(StoreError::Source)?;
            if list.len() > self.source.most_items {
                let expected = format!("at most the {} they are priced by", self.source.most_items);
                return Err(StoreError::BadSpec { what: "items of a list", expected, got: list.len() as u64 });
            }
            let entry = self.lists.entry((self.source.id)(at), &list)?;
            bytes += entry.0.len() + entry.1.len();
            self.bytes += entry.1.len() as u64;
            batch.push(entry);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Ok(batch)
    }

    /// Waits for the batch that is on its way.
    async fn land(&mut self) -> Result<(), StoreError> {
        match self.flight.take() {
            Some(flight) => Ok(flight.end().await?),
            None => Ok(()),
        }
    }

    /// Gives room back, if it was for want of that.
    async fn give_up(&mut self, cause: StoreError) -> StoreError {
        // so that nothing is written behind the removal
        let _ = self.land().await;
        let for_room = matches!(
            cause,
            StoreError::NoRoomLeft { .. } | StoreError::Drift { .. } | StoreError::Kv(KvError::OutOfMemory { .. })
        );
        if !for_room || self.remove().await.is_ok() {
            return cause;
        }
        let grace_s = self.lists.options.ttl.as_secs();
        StoreError::LeftBehind { cause: Box::new(cause), pages: self.made, grace_s }
    }

    async fn remove(&mut self) -> Result<(), StoreError> {
        for first in (0..self.made).step_by(REMOVE_LISTS as usize) {
            self.lease.renew().await?;
            let some = first..self.made.min(first.saturating_add(REMOVE_LISTS));
            let keys: Vec<Vec<u8>> = some.map(|at| self.lists.key((self.source.id)(at))).collect();
            self.lists.kv.delete_many(&keys).await?;
        }
        Ok(())
    }
}
