//! From published to gone: activate, roll back, retire, clear up.
//!
//! Each step is one change of the ledger by compare-and-set, before or after work on keys that are named by it. Killed
//! between the two, the ledger still names what is left, and [`gc`] ends it.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::lease::{self, Lease};
use super::ledger::{self, Entry, Ledger, State, now_s, sharing, update};
use super::release::{self, Manifest};
use super::{StoreError, keys};
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
    match entry.state {
        State::Rolling => refuse("being rolled in", "wait for its publisher, or run the same publish again"),
        State::Abandoned => refuse("given up half-way", "publish it again under another name"),
        State::Retiring => refuse("being removed", "publish it again under another name"),
        State::Active => Ok(()),
        _ if sharing(&ledger.releases, &entry.keys).any(Entry::is_half) => {
            refuse("rolled over by half", "publish it again under another name")
        }
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
///
/// One that was rolled in by half, and whose publisher is gone, is given up: no page of it is removed while the release
/// that it was to take the place of is active, as all stand under that one's names; they go with it. Nor is that one
/// whole again: users in those pages have no vector until another release is active. If that one is not active either,
/// the pages of both are removed.
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
    let marked = mark(kv, ns, |ledger| {
        if let (None, Some(manifest)) = (ledger.find(name), &manifest) {
            ledger.put(Entry::of(manifest, State::Waiting, Duration::ZERO));
        }
        to_retire(ledger, ns, name, publishing.as_deref())
    })
    .await?;
    if marked.is_empty() {
        return give_up(kv, ns, name).await;
    }
    let mut retired = Removed { name: name.to_owned(), was: State::Waiting, pages: 0 };
    for (entry, was) in marked {
        let removed = remove(kv, ns, &entry, was, options, None, progress).await?;
        retired.pages += removed.pages;
        if removed.name == name {
            retired.was = removed.was;
        }
    }
    Ok(retired)
}

/// The release of that name, and those that share its pages; none, if it is one to be given up.
fn to_retire(ledger: &Ledger, ns: &str, name: &str, publishing: Option<&str>) -> Result<Vec<usize>, StoreError> {
    let entry = ledger.find(name);
    let entry = entry.ok_or_else(|| StoreError::NoRelease { ns: ns.to_owned(), name: name.to_owned() })?;
    let refuse = |state, remedy| Err(StoreError::WrongState { name: name.to_owned(), state, remedy });
    let is_at_work = |other: &Entry| {
        publishing == Some(&other.name) && matches!(other.state, State::Loading | State::Rolling | State::Abandoned)
    };
    if is_at_work(entry) {
        return refuse("being published", "stop its publisher");
    }
    if sharing(&ledger.releases, &entry.keys).any(is_at_work) {
        return refuse("being rolled over", "stop the publisher that does so");
    }
    let under_active = sharing(&ledger.releases, &entry.keys).any(|other| other.state == State::Active);
    match entry.state {
        State::Active => refuse("active", "activate another first"),
        State::Rolling if under_active => Ok(Vec::new()),
        State::Abandoned if under_active => refuse(
            "given up, and its pages stand among those of the active release",
            "publish another release and activate it, then retire this one",
        ),
        _ => Ok((0..ledger.releases.len())
            .filter(|&at| ledger.releases[at].keys == entry.keys && !ledger.releases[at].is_gone())
            .collect()),
    }
}

/// A release that stands by half in the pages of the active one is not to be ended any more.
async fn give_up<K: Kv>(kv: &K, ns: &str, name: &str) -> Result<Removed, StoreError> {
    let was = update(kv, ns, |ledger| {
        let entry = ledger.find_mut(name).filter(|entry| entry.is_half());
        let entry = entry.ok_or_else(|| StoreError::NoRelease { ns: ns.to_owned(), name: name.to_owned() })?;
        entry.retired_s = Some(now_s());
        Ok(std::mem::replace(&mut entry.state, State::Abandoned))
    })
    .await?;
    kv.delete_many(&[keys::manifest(ns, name)]).await?;
    Ok(Removed { name: name.to_owned(), was, pages: 0 })
}

/// Removes every release that is neither current, previous nor waiting: those that were active earlier, removals and
/// publishes that died half-way, and what nobody activated within its grace. What was rolled in by half stays while the
/// release whose pages it was to take is active: it can be ended by the same publish, or given up ([`retire`]). Returns
/// what it removed.
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
        old && (is_dead(entry, &known.releases, publishing) || left.contains(&entry))
    };
    remove_where(kv, ns, &chosen, options, None, progress).await
}

/// Removes every release that is chosen. A publisher that does so keeps its lease meanwhile.
pub(super) async fn remove_where<K: Kv>(
    kv: &K,
    ns: &str,
    choose: &(dyn Fn(&Entry) -> bool + Sync),
    options: &RemoveOptions,
    mut lease: Option<&mut Lease<'_, K>>,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<Vec<Removed>, StoreError> {
    let places = |ledger: &Ledger| {
        let chosen = |entry: &Entry| choose(entry) && !(entry.is_gone() && ledger.is_in_use(&entry.keys));
        (0..ledger.releases.len()).filter(|&at| chosen(&ledger.releases[at])).collect()
    };
    let mut removed = Vec::new();
    for (entry, was) in mark(kv, ns, |ledger| Ok(places(ledger))).await? {
        removed.push(remove(kv, ns, &entry, was, options, lease.as_deref_mut(), progress).await?);
    }
    Ok(removed)
}

/// Whether no one will need it. A publisher that is at work may be at a release that is loading, or rolls.
pub(super) fn is_dead<'e>(entry: &Entry, all: impl IntoIterator<Item = &'e Entry>, publishing: bool) -> bool {
    match entry.state {
        State::Loading => !publishing,
        State::Past | State::Retiring => true,
        State::Waiting => entry.published_s.is_none_or(|at| now_s() > at.saturating_add(entry.grace_s)),
        // two halves in the same pages, of which neither can be activated
        State::Rolling | State::Abandoned | State::Previous if !publishing => {
            let sharing: Vec<_> = sharing(all, &entry.keys).collect();
            let is_active = |entry: &&Entry| entry.state == State::Active;
            sharing.iter().any(|entry| entry.is_half()) && !sharing.iter().any(is_active)
        }
        State::Rolling | State::Abandoned | State::Active | State::Previous | State::Retired => false,
    }
}

/// Removes the active release and what stands by half in its pages, and leaves none.
pub(super) async fn remove_active<K: Kv>(
    kv: &K,
    ns: &str,
    name: &str,
    options: &RemoveOptions,
    mut lease: Option<&mut Lease<'_, K>>,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<u64, StoreError> {
    let moved = || StoreError::PointerMoved { ns: ns.to_owned(), name: name.to_owned() };
    let marked = mark(kv, ns, |ledger| {
        if ledger.current() != Some(name) {
            return Err(moved());
        }
        ledger.current = None;
        let active = ledger.find(name).map(|entry| entry.keys.clone()).ok_or_else(moved)?;
        let shares = |entry: &Entry| entry.keys == active && !entry.is_gone();
        Ok((0..ledger.releases.len()).filter(|&at| shares(&ledger.releases[at])).collect())
    })
    .await?;
    let mut pages = 0;
    for (entry, was) in marked {
        pages += remove(kv, ns, &entry, was, options, lease.as_deref_mut(), progress).await?.pages;
    }
    Ok(pages)
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
    lease: Option<&mut Lease<'_, K>>,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<Removed, StoreError> {
    // First, so that no one opens what is going away. Under the name of one that was gone already may stand another's.
    if was != State::Retired {
        kv.delete_many(&[keys::manifest(ns, &entry.name)]).await?;
    }
    let pages = remove_pages(kv, ns, &entry.keys, 0..entry.pages, options, lease, progress).await?;
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

/// Removes these pages under `id`, no faster than the options say; says how many were there. A publisher that does so
/// keeps its lease meanwhile, and stops when it was lost.
pub(super) async fn remove_pages<K: Kv>(
    kv: &K,
    ns: &str,
    id: &str,
    pages: Range<u32>,
    options: &RemoveOptions,
    mut lease: Option<&mut Lease<'_, K>>,
    progress: &mut (dyn FnMut(u32, u32) + Send),
) -> Result<u64, StoreError> {
    let (begun, count, mut found) = (Instant::now(), pages.len() as u32, 0);
    for first in pages.clone().step_by(REMOVE_PAGES as usize) {
        if let Some(lease) = &mut lease {
            lease.renew().await?;
        }
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
    let found = kv.get_ranges(&ranges).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(found.iter().position(Vec::is_empty).unwrap_or(0) as u32)
}

/// How many of a release's pages are there.
pub(super) async fn count_pages<K: Kv>(kv: &K, ns: &str, entry: &Entry) -> Result<u64, StoreError> {
    let mut found = 0;
    for first in (0..entry.pages).step_by(LOOK_PAGES as usize) {
        let pages = first..entry.pages.min(first.saturating_add(LOOK_PAGES));
        let byte = |page| KeyRange { key: keys::page(ns, &entry.keys, page), start: 0, end: 1 };
        let ranges: Vec<KeyRange> = pages.map(byte).collect();
        for bytes in kv.get_ranges(&ranges).await {
            found += u64::from(!bytes?.is_empty());
        }
    }
    Ok(found)
}
