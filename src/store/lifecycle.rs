//! From published to gone: activate, roll back, retire, clear up.
//!
//! Each step is one change of the ledger by compare-and-set, before or after work on keys that are named by it. Killed
//! between the two, the ledger still names what is left, and [`gc`] ends it.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::ledger::{self, Entry, Ledger, State, now_s, update};
use super::release::{self, Manifest};
use super::{StoreError, keys, lease};
use crate::kv::{KeyRange, Kv, KvError};

/// Keys of one persist call: names of a third of a megabyte, and about 20 ms (measured).
const PERSIST_KEYS: u32 = 10_000;
/// Pages removed in one call. The server frees 8 KiB in about a microsecond, so a request waits a millisecond at most.
const REMOVE_PAGES: u32 = 1_000;

/// Pages looked for in one round trip: a byte of each, some 20 ms.
const LOOK_PAGES: u32 = 5_000;

/// How fast pages are removed.
#[derive(Clone, Debug)]
pub struct RemoveOptions {
    /// At most so many a second. 50,000: some 5 % of a server's time, and ten million users of 64 dimensions in two
    /// seconds.
    pub pages_per_s: u32,
}

impl Default for RemoveOptions {
    fn default() -> Self {
        Self { pages_per_s: 50_000 }
    }
}

/// A release that was removed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// In which state it was.
    pub was: State,
    /// Pages that were still there.
    pub pages: u64,
}

/// A release as it is listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What the ledger says.
    pub entry: Entry,
    /// Its manifest, when it is published whole and still there.
    pub manifest: Option<Manifest>,
}

/// Every release that the ledger knows, oldest first, and the name of the one being published. Two round trips.
pub async fn list<K: Kv>(kv: &K, ns: &str) -> Result<(Vec<Listed>, Option<String>), StoreError> {
    let ledger = ledger::ledger(kv, ns).await?;
    let mut names: Vec<Vec<u8>> = ledger.releases.iter().map(|entry| keys::manifest(ns, &entry.name)).collect();
    names.push(keys::lease(ns));
    let mut values = kv.get_many(&names).await?;
    let publishing = values.pop().flatten().map(|value| lease::name_in(&value));
    let mut listed = Vec::new();
    for (entry, value) in ledger.releases.into_iter().zip(values) {
        // a name may stand under a release that is gone and one that came after it
        let value = value.filter(|_| entry.state != State::Retired);
        let manifest = value.map(|value| Manifest::decode(&value, ns, &entry.name)).transpose()?;
        listed.push(Listed { entry, manifest });
    }
    Ok((listed, publishing))
}

/// Makes the release of that name the current one, and returns its manifest.
///
/// A published release carries a TTL until now; here it is taken off, the manifest's first, so that what stays for good
/// can always be named, and every page is seen to be there before the pointer moves. Then the pointer is switched, unless
/// someone else did so meanwhile, or began to remove the release. Doing it again does nothing.
pub async fn activate<K: Kv>(kv: &K, ns: &str, name: &str) -> Result<Manifest, StoreError> {
    let before = ledger::ledger(kv, ns).await?;
    can_be_activated(&before, name)?;
    let manifest = release::release(kv, ns, name).await?;
    if kv.persist_many(&[keys::manifest(ns, name)]).await? == 0 {
        return Err(StoreError::NoRelease { ns: ns.to_owned(), name: name.to_owned() });
    }
    for first in (0..manifest.pages()).step_by(PERSIST_KEYS as usize) {
        let pages = first..manifest.pages().min(first.saturating_add(PERSIST_KEYS));
        let page_keys = manifest.page_keys(ns, pages);
        if kv.persist_many(&page_keys).await? < page_keys.len() as u64 {
            let page = first + first_missing(kv, page_keys).await?;
            return Err(StoreError::MissingPage { release: manifest.name, page });
        }
    }
    update(kv, ns, |ledger| {
        can_be_activated(ledger, name)?;
        let already = ledger.current() == Some(name);
        if !already && ledger.current != before.current {
            return Err(StoreError::PointerMoved { ns: ns.to_owned(), name: name.to_owned() });
        }
        if !already {
            ledger.switch_to(&manifest);
        }
        Ok(())
    })
    .await?;
    Ok(manifest)
}

/// One that the ledger does not know was published by an earlier version; its manifest will tell. In the pages of one that
/// was rolled over by half, another's users stand.
fn can_be_activated(ledger: &Ledger, name: &str) -> Result<(), StoreError> {
    let refuse = |state, remedy| Err(StoreError::WrongState { name: name.to_owned(), state, remedy });
    let Some(entry) = ledger.find(name) else { return Ok(()) };
    let over = |other: &Entry| other.state == State::Rolling && other.keys == entry.keys;
    match entry.state {
        State::Rolling => refuse("being rolled in", "wait for its publisher, or run the same publish again"),
        State::Retiring => refuse("being removed", "publish it again under another name"),
        State::Active => Ok(()),
        _ if ledger.releases.iter().any(over) => refuse("rolled over by half", "publish it again under another name"),
        _ => Ok(()),
    }
}

/// Activates the release that was active before. Again, and the later one is back.
pub async fn rollback<K: Kv>(kv: &K, ns: &str) -> Result<Manifest, StoreError> {
    let ledger = ledger::ledger(kv, ns).await?;
    let previous = ledger.previous().ok_or_else(|| StoreError::NoPrevious { ns: ns.to_owned() })?;
    activate(kv, ns, &previous.name).await
}

/// Removes a release that is not current: its pages by their names, at a bounded rate. `progress` is told how many of
/// how many page names are done. Readers that have it pinned get errors from now on. Returns what was there.
pub async fn retire<K: Kv>(
    kv: &K,
    ns: &str,
    name: &str,
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<Removed, StoreError> {
    keys::check_name(name)?;
    let known = ledger::ledger(kv, ns).await?.find(name).is_some();
    let manifest = if known { None } else { Some(release::release(kv, ns, name).await?) };
    let publishing = lease::holder(kv, ns).await?;
    let entry = mark(kv, ns, |ledger| {
        if let (None, Some(manifest)) = (ledger.find(name), &manifest) {
            ledger.put(Entry::of(manifest, State::Waiting, Duration::ZERO));
        }
        let at = ledger.releases.iter().position(|entry| entry.name == name && !entry.is_gone());
        let at = at.ok_or_else(|| StoreError::NoRelease { ns: ns.to_owned(), name: name.to_owned() })?;
        let refuse = |state, remedy| Err(StoreError::WrongState { name: name.to_owned(), state, remedy });
        match ledger.releases[at].state {
            State::Active => refuse("active", "activate another first"),
            State::Rolling => refuse("being rolled in", "run the same publish again, then activate another"),
            State::Loading if publishing.as_deref() == Some(name) => refuse("being published", "stop its publisher"),
            _ => Ok(vec![at]),
        }
    })
    .await?;
    let mut removed = Vec::new();
    for (entry, was) in entry {
        removed.push(remove(kv, ns, &entry, was, options, progress).await?);
    }
    removed.pop().ok_or_else(|| StoreError::NoRelease { ns: ns.to_owned(), name: name.to_owned() })
}

/// Removes every release that is neither current, previous nor waiting: those that were active earlier, removals and
/// publishes that died half-way, and what nobody activated within its grace. Returns what it removed.
pub async fn gc<K: Kv>(
    kv: &K,
    ns: &str,
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<Vec<Removed>, StoreError> {
    // the ledger before the lease: a publisher takes the lease first, so what it adds later is in no ledger read before
    let known = ledger::ledger(kv, ns).await?;
    let publishing = lease::holder(kv, ns).await?.is_some();
    // what came back under a name that is gone: pages of a publisher that had been given up, and woke
    let mut left = Vec::new();
    for entry in known.releases.iter().filter(|entry| entry.is_gone() && !known.is_in_use(&entry.keys)) {
        if count_pages(kv, ns, entry).await? > 0 {
            left.push(entry);
        }
    }
    let chosen = |entry: &Entry| {
        let old = known.releases.contains(entry);
        old && (is_dead(entry, publishing) || left.contains(&entry))
    };
    remove_where(kv, ns, &chosen, options, progress).await
}

/// Removes every release that is chosen.
pub(super) async fn remove_where<K: Kv>(
    kv: &K,
    ns: &str,
    choose: &(dyn Fn(&Entry) -> bool + Sync),
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<Vec<Removed>, StoreError> {
    let places = |ledger: &Ledger| {
        let chosen = |entry: &Entry| choose(entry) && !(entry.is_gone() && ledger.is_in_use(&entry.keys));
        (0..ledger.releases.len()).filter(|&at| chosen(&ledger.releases[at])).collect()
    };
    let mut removed = Vec::new();
    for (entry, was) in mark(kv, ns, |ledger| Ok(places(ledger))).await? {
        removed.push(remove(kv, ns, &entry, was, options, progress).await?);
    }
    Ok(removed)
}

/// Whether no one will need it. A publisher that is at work may be at a release that is loading.
pub(super) fn is_dead(entry: &Entry, publishing: bool) -> bool {
    match entry.state {
        State::Loading => !publishing,
        State::Past | State::Retiring => true,
        State::Waiting => entry.published_s.is_none_or(|at| now_s() > at.saturating_add(entry.grace_s)),
        State::Rolling | State::Active | State::Previous | State::Retired => false,
    }
}

/// Removes the active release, and leaves none.
pub(super) async fn remove_active<K: Kv>(kv: &K, ns: &str, name: &str) -> Result<Removed, StoreError> {
    let moved = || StoreError::PointerMoved { ns: ns.to_owned(), name: name.to_owned() };
    let marked = mark(kv, ns, |ledger| {
        if ledger.current() != Some(name) {
            return Err(moved());
        }
        ledger.current = None;
        Ok(ledger.releases.iter().position(|entry| entry.state == State::Active).into_iter().collect())
    })
    .await?;
    let (entry, was) = marked.into_iter().next().ok_or_else(moved)?;
    // nobody reads it any more, and until it is gone nobody has anything to read
    let at_once = RemoveOptions { pages_per_s: u32::MAX };
    remove(kv, ns, &entry, was, &at_once, &mut |_, _| ()).await
}

/// Marks the releases at the places that `choose` gives as being removed: from here on none of them can be activated.
async fn mark<K: Kv>(
    kv: &K,
    ns: &str,
    choose: impl Fn(&mut Ledger) -> Result<Vec<usize>, StoreError>,
) -> Result<Vec<(Entry, State)>, StoreError> {
    let mut marked = Vec::new();
    let result = update(kv, ns, |ledger| {
        marked.clear();
        for at in choose(ledger)? {
            let entry = &mut ledger.releases[at];
            let was = std::mem::replace(&mut entry.state, State::Retiring);
            entry.retired_s = Some(now_s());
            marked.push((entry.clone(), was));
        }
        Ok(())
    })
    .await;
    match result {
        // A full server takes no mark, and is just where releases have to go. Nobody can activate one there either, as
        // that is a write too.
        Err(StoreError::Kv(KvError::OutOfMemory { .. })) => Ok(marked),
        result => result.map(|()| marked),
    }
}

async fn remove<K: Kv>(
    kv: &K,
    ns: &str,
    entry: &Entry,
    was: State,
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<Removed, StoreError> {
    // First, so that no one opens what is going away. Under the name of one that was gone already may stand another's.
    if was != State::Retired {
        kv.delete_many(&[keys::manifest(ns, &entry.name)]).await?;
    }
    let pages = remove_pages(kv, ns, &entry.keys, 0..entry.pages, options, progress).await?;
    update(kv, ns, |ledger| {
        // as it was left by the mark, or if a full server took none, by whatever was before it
        let ours =
            |found: &&mut Entry| found.keys == entry.keys && (found.state == State::Retiring || found.state == was);
        for entry in ledger.releases.iter_mut().filter(ours) {
            (entry.state, entry.retired_s) = (State::Retired, Some(now_s()));
        }
        if ledger.current.as_ref().is_some_and(|(id, _)| *id == entry.id()) {
            ledger.current = None;
        }
        Ok(())
    })
    .await?;
    Ok(Removed { name: entry.name.clone(), was, pages })
}

/// Removes these pages under `id`, no faster than the options say; says how many were there.
pub(super) async fn remove_pages<K: Kv>(
    kv: &K,
    ns: &str,
    id: &str,
    pages: Range<u32>,
    options: &RemoveOptions,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<u64, StoreError> {
    let (begun, count, mut found) = (Instant::now(), pages.len() as u32, 0);
    for first in pages.clone().step_by(REMOVE_PAGES as usize) {
        let end = pages.end.min(first.saturating_add(REMOVE_PAGES));
        let page_keys: Vec<Vec<u8>> = (first..end).map(|page| keys::page(ns, id, page)).collect();
        found += kv.delete_many(&page_keys).await?;
        let done = end - pages.start;
        progress(done, count);
        let due = Duration::from_secs_f64(f64::from(done) / f64::from(options.pages_per_s.max(1)));
        if end < pages.end {
            tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        }
    }
    Ok(found)
}

/// Every page has at least a byte, so the first key without one is the first page missing.
async fn first_missing<K: Kv>(kv: &K, page_keys: Vec<Vec<u8>>) -> Result<u32, StoreError> {
    let first_byte = |key| KeyRange { key, start: 0, end: 1 };
    let ranges: Vec<KeyRange> = page_keys.into_iter().map(first_byte).collect();
    let found = kv.get_ranges(&ranges).await?;
    Ok(found.iter().position(Vec::is_empty).unwrap_or(0) as u32)
}

/// How many of a release's pages are there.
pub(super) async fn count_pages<K: Kv>(kv: &K, ns: &str, entry: &Entry) -> Result<u64, StoreError> {
    let mut found = 0;
    for first in (0..entry.pages).step_by(LOOK_PAGES as usize) {
        let pages = first..entry.pages.min(first.saturating_add(LOOK_PAGES));
        let byte = |page| KeyRange { key: keys::page(ns, &entry.keys, page), start: 0, end: 1 };
        let ranges: Vec<KeyRange> = pages.map(byte).collect();
        found += kv.get_ranges(&ranges).await?.iter().filter(|bytes| !bytes.is_empty()).count() as u64;
    }
    Ok(found)
}
