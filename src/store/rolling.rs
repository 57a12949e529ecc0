//! A release that takes over the pages of the active one, one after another: for when two do not fit side by side.
//!
//! It keeps the keys and the addressing of the release it replaces, so each page is of one of the two, whole, and every
//! slot says of which by its tag. A reader of either finds a user only in the pages that are of its own release; one
//! that has both indexes opens both releases and finds everybody. Written over, a page costs no memory. But there is no
//! way back, and a roll that died has to be run again, or given up: until another release is whole part of the users
//! have no vector in either reader.

use super::footprint::Trajectory;
use super::guard::Watch;
use super::layout::Layout;
use super::ledger::{Entry, State, ledger, now_s, sharing, update};
use super::lifecycle::{RemoveOptions, remove_pages};
use super::publish::{Publishing, ReleaseSpec, Users};
use super::release::{self, Manifest};
use super::spread::On;
use super::{StoreError, keys};
use crate::kv::Kv;

/// The layout of a release in the pages of another.
pub(super) fn lay_out<'a, 'u>(
    ns: &str,
    spec: &ReleaseSpec,
    users: &'a Users<'u>,
    active: Option<&Manifest>,
) -> Result<Layout<'a, 'u>, StoreError> {
    let active = active.ok_or_else(|| StoreError::NoActiveRelease { ns: ns.to_owned() })?;
    let mut layout = Layout::new(spec, users, Some(active.addressing))?;
    layout.manifest.keys = active.keys().to_owned().into();
    let fullest = (0..layout.manifest.pages()).map(|page| layout.users_of(page)).max().unwrap_or(0);
    if fullest > u32::from(u16::MAX) {
        let expected = format!("at most {}, which a page can count; publish it beside", u16::MAX);
        return Err(StoreError::BadSpec { what: "users of a page", expected, got: fullest.into() });
    }
    let ours = layout.manifest.id == active.id;
    if !ours && !layout.manifest.can_take_over(active) {
        return Err(StoreError::CannotRoll { expected: active.describe(), got: layout.manifest.describe() });
    }
    Ok(layout)
}

/// Whether a roll to that release was begun and not ended.
pub(super) async fn is_under_way<K: Kv>(kv: &K, ns: &str, name: &str) -> Result<bool, StoreError> {
    Ok(ledger(kv, ns).await?.find(name).is_some_and(|entry| entry.state == State::Rolling))
}

/// Takes the pages over, and switches to the release. Doing it again after it died goes over all pages again.
pub(super) async fn run<K: Kv>(
    publishing: &mut Publishing<'_, '_, K>,
    active: &Manifest,
    progress: &mut (dyn FnMut(u32) + Send),
) -> Result<(), StoreError> {
    let begun = enter(publishing, active).await?;
    match take_over(publishing, active, begun.pages, progress).await {
        Ok(()) => Ok(()),
        Err(cause) => Err(stop(publishing, begun.again, cause).await),
    }
}

async fn take_over<K: Kv>(
    publishing: &mut Publishing<'_, '_, K>,
    active: &Manifest,
    most_pages: u32,
    progress: &mut (dyn FnMut(u32) + Send),
) -> Result<(), StoreError> {
    let (kv, ns) = (publishing.kv, publishing.ns);
    let (manifest, values) = (&publishing.layout.manifest, publishing.layout.values());
    let expected = |on: On<'_>| Trajectory::over(on, ns, manifest, values.clone(), active);
    let watch = Watch::begin(kv, publishing.room, expected).await?;
    // what is written over cannot be taken back, so the room is looked at once more before
    watch.check(kv, 0).await?;
    put_manifest(publishing).await?;
    publishing.write(&watch, None, progress).await?;
    let surplus = publishing.layout.manifest.pages()..most_pages;
    let (options, lease) = (RemoveOptions::default(), Some(&mut publishing.lease));
    remove_pages(kv, ns, active.keys(), surplus, &options, lease, &mut |_, _| ()).await?;
    publishing.verify().await?;
    publishing.layout.manifest.memory = watch.growth(kv).await?;
    put_manifest(publishing).await?;
    switch(publishing, active).await
}

/// What is left of a roll that stopped: nothing, if it wrote no page, and else half a release.
async fn stop<K: Kv>(publishing: &mut Publishing<'_, '_, K>, again: bool, cause: StoreError) -> StoreError {
    let _ = publishing.land().await;
    let (kv, ns, pages) = (publishing.kv, publishing.ns, publishing.written);
    let manifest = &publishing.layout.manifest;
    if pages == 0 && !again && publishing.lease.is_held().await && forget(kv, ns, &manifest.name).await.is_ok() {
        return cause;
    }
    StoreError::HalfRolled { name: manifest.name.clone(), cause: Box::new(cause), pages, of: manifest.pages() }
}

async fn forget<K: Kv>(kv: &K, ns: &str, name: &str) -> Result<(), StoreError> {
    kv.delete_many(&[keys::manifest(ns, name)]).await?;
    update(kv, ns, |ledger| {
        ledger.remove(name);
        Ok(())
    })
    .await
}

/// A roll that has begun.
struct Begun {
    /// Pages whose names may be taken.
    pages: u32,
    /// Whether it had begun before, and pages of it may be there.
    again: bool,
}

/// Names it in the ledger.
async fn enter<K: Kv>(publishing: &Publishing<'_, '_, K>, active: &Manifest) -> Result<Begun, StoreError> {
    let Publishing { kv, ns, spec, layout, .. } = publishing;
    let name = &layout.manifest.name;
    update(*kv, ns, |ledger| {
        let wrong = |name: &String, state, remedy| Err(StoreError::WrongState { name: name.clone(), state, remedy });
        if ledger.current() != Some(&active.name) {
            return Err(StoreError::PointerMoved { ns: (*ns).to_owned(), name: name.clone() });
        }
        if let Some(other) = ledger.releases.iter().find(|entry| entry.state == State::Rolling && entry.name != *name) {
            let remedy = "run the same publish again, to its end, or give it up with `releases retire`";
            return wrong(&other.name, "rolled in by half", remedy);
        }
        let before = ledger.find(name);
        if before.is_some_and(|entry| !entry.is_half()) {
            return wrong(name, "there", "choose another name");
        }
        if before.is_some_and(|entry| entry.keys != active.keys()) {
            // those pages would not be known for what they are
            return wrong(name, "rolled in by half over another release", "clear up with `releases gc`");
        }
        let others = || sharing(&ledger.releases, active.keys()).filter(|entry| entry.name != *name);
        let tag = |entry: &Entry| release::tag(release::id_bits(&entry.id()));
        if others().any(|entry| tag(entry) == layout.manifest.tag()) {
            return wrong(name, "not to be told from one that was given up", "choose another name");
        }
        let again = before.is_some();
        let mut entry = Entry::of(&layout.manifest, State::Rolling, spec.grace);
        entry.pages =
            others().chain(before).map(|entry| entry.pages).chain([entry.pages, active.pages()]).max().unwrap_or(0);
        let begun = Begun { pages: entry.pages, again };
        ledger.put(entry);
        Ok(begun)
    })
    .await
}

/// Puts its manifest there, so that it can be read as far as it has come. Bytes and checksum follow.
async fn put_manifest<K: Kv>(publishing: &Publishing<'_, '_, K>) -> Result<(), StoreError> {
    let manifest = &publishing.layout.manifest;
    let key = keys::manifest(publishing.ns, &manifest.name);
    Ok(publishing.kv.set_many(vec![(key, manifest.encode()?)], None).await?)
}

/// The release is whole; the one before has no page left.
async fn switch<K: Kv>(publishing: &Publishing<'_, '_, K>, active: &Manifest) -> Result<(), StoreError> {
    let Publishing { kv, ns, layout, .. } = publishing;
    let manifest = &layout.manifest;
    update(*kv, ns, |ledger| {
        if ledger.current() != Some(&active.name) {
            return Err(StoreError::PointerMoved { ns: (*ns).to_owned(), name: manifest.name.clone() });
        }
        // its pages are another's now, and so are those of any that was given up half-way
        let is_theirs =
            |entry: &&mut Entry| entry.keys == active.keys() && entry.name != manifest.name && !entry.is_gone();
        for entry in ledger.releases.iter_mut().filter(is_theirs) {
            (entry.state, entry.retired_s, entry.pages) = (State::Retired, Some(now_s()), 0);
        }
        let mut entry = Entry::of(manifest, State::Active, publishing.spec.grace);
        (entry.published_s, entry.activated_s) = (Some(now_s()), Some(now_s()));
        ledger.put(entry);
        ledger.current = Some((manifest.id.clone(), manifest.name.clone()));
        Ok(())
    })
    .await?;
    kv.delete_many(&[keys::manifest(ns, &active.name)]).await?;
    Ok(())
}
