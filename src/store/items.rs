//! Item vectors for other services: a release like the users', dense by row, under a namespace of its own.
//!
//! It is published and verified like any other; a reader needs the pointer, the manifest and one `GETRANGE` an item.
//! `tools/read_items.py` is such a reader, in thirty lines. A row is the item's in the index of the release with the same
//! fingerprint.
//!
//! The one thing to know: items go with the users' release of the same name. Whoever activates, retires or clears up that
//! one does so with its items, by the functions here.

use super::ledger::{self, Entry, Ledger, State};
use super::lifecycle::{self, RemoveOptions, Removed};
use super::release::Manifest;
use super::{StoreError, keys};
use crate::kv::Kv;

/// The namespace of the items that belong to the users in `ns`.
pub fn items_ns(ns: &str) -> String {
    format!("{ns}.items")
}

/// The same, if there can be one: its name may be too long.
pub(super) fn items_of(ns: &str) -> Option<String> {
    Some(items_ns(ns)).filter(|items| keys::check_ns(items).is_ok())
}

/// What was done to a release, and to its items.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithItems<T> {
    /// Users' side.
    pub users: T,
    /// Items' side.
    pub items: T,
}

/// Makes the release of that name the current one, and its items the current ones; whichever of the two there is.
pub async fn activate_with_items<K: Kv>(
    kv: &K,
    ns: &str,
    name: &str,
) -> Result<WithItems<Option<Manifest>>, StoreError> {
    let side = Sides::read(kv, ns).await?;
    let items = side.items_ns.as_ref().filter(|_| side.items.find(name).is_some_and(is_whole));
    // one that no ledger knows was published by an earlier version, or is not there
    let has_users = side.users.find(name).is_some() || items.is_none();
    let users = if has_users { Some(lifecycle::activate(kv, ns, name).await?) } else { None };
    let items = match items {
        Some(items) => Some(lifecycle::activate(kv, items, name).await?),
        None => None,
    };
    Ok(WithItems { users, items })
}

/// Whether items can be activated: those that are being loaded, or whose time is over, are left where they are.
fn is_whole(entry: &Entry) -> bool {
    let there = matches!(entry.state, State::Waiting | State::Active | State::Previous | State::Past);
    there && (entry.state == State::Past || !lifecycle::is_dead(entry, [], false))
}

/// Activates the release that was active before, with its items; where there are only items, the items before.
pub async fn rollback_with_items<K: Kv>(kv: &K, ns: &str) -> Result<WithItems<Option<Manifest>>, StoreError> {
    let side = Sides::read(kv, ns).await?;
    let only_items = side.users.releases.iter().all(Entry::is_gone);
    let previous = if only_items { side.items.previous() } else { side.users.previous() };
    let previous = previous.ok_or_else(|| StoreError::NoPrevious { ns: ns.to_owned() })?;
    activate_with_items(kv, ns, &previous.name).await
}

/// Removes the release of that name, and its items, active or not. Items by themselves are removed when they are not
/// active.
pub async fn retire_with_items<K: Kv>(
    kv: &K,
    ns: &str,
    name: &str,
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<WithItems<Vec<Removed>>, StoreError> {
    let side = Sides::read(kv, ns).await?;
    let items = side.items_ns.as_ref().filter(|_| side.items.find(name).is_some());
    let mut removed = WithItems::<Vec<Removed>>::default();
    if side.users.find(name).is_some() || items.is_none() {
        removed.users.push(lifecycle::retire(kv, ns, name, options, progress).await?);
    }
    let Some(items) = items else { return Ok(removed) };
    // a release that was only given up still has its pages, and may yet be published again
    let users = ledger::ledger(kv, ns).await?;
    if users.find(name).is_none() {
        let orphaned = !removed.users.is_empty();
        removed.items.push(remove(kv, items, name, orphaned, &side.items, options, progress).await?);
    }
    Ok(removed)
}

/// Removes what nobody needs of either side: what [`gc`](super::gc) does, and items whose users' release was removed.
pub async fn gc_with_items<K: Kv>(
    kv: &K,
    ns: &str,
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<WithItems<Vec<Removed>>, StoreError> {
    let mut removed = WithItems { users: lifecycle::gc(kv, ns, options, progress).await?, items: Vec::new() };
    let Some(items_ns) = items_of(ns) else { return Ok(removed) };
    removed.items = lifecycle::gc(kv, &items_ns, options, progress).await?;
    let Sides { users, items, .. } = Sides::read(kv, ns).await?;
    // items that came after the removal are those of a release to come
    let is_orphan = |entry: &&Entry| {
        let before = |gone: &Entry| gone.retired_s.is_some_and(|at| entry.begun_s <= at);
        let gone = |other: &Entry| other.is_gone() && other.id() == entry.id() && before(other);
        !entry.is_gone() && users.find(&entry.name).is_none() && users.releases.iter().any(gone)
    };
    for orphan in items.releases.iter().filter(is_orphan) {
        removed.items.push(remove(kv, &items_ns, &orphan.name, true, &items, options, progress).await?);
    }
    Ok(removed)
}

/// Removes items; active ones only with their release.
async fn remove<K: Kv>(
    kv: &K,
    items_ns: &str,
    name: &str,
    orphaned: bool,
    ledger: &Ledger,
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<Removed, StoreError> {
    if orphaned && ledger.current() == Some(name) {
        let pages = lifecycle::remove_active(kv, items_ns, name, options, None, progress).await?;
        return Ok(Removed { name: name.to_owned(), was: State::Active, pages });
    }
    lifecycle::retire(kv, items_ns, name, options, progress).await
}

/// Both ledgers.
struct Sides {
    users: Ledger,
    items_ns: Option<String>,
    items: Ledger,
}

impl Sides {
    async fn read<K: Kv>(kv: &K, ns: &str) -> Result<Self, StoreError> {
        let users = ledger::ledger(kv, ns).await?;
        let items_ns = items_of(ns);
        let items = match &items_ns {
            Some(items) => ledger::ledger(kv, items).await?,
            None => Ledger::default(),
        };
        Ok(Self { users, items_ns, items })
    }
}
