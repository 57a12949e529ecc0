//! A release that takes over the pages of the active one, one after another: for when two do not fit side by side.
//!
//! It keeps the keys and the addressing of the release it replaces, so each page is of one of the two, whole, and every
//! slot says of which by its tag. A reader of either finds a user only in the pages that are of its own release; one
//! that has both indexes opens both releases and finds everybody. Written over, a page costs no memory. But there is no
//! way back, and a roll that died has to be run again: until then part of the users have no vector in either reader.

use super::guard::Watch;
use super::layout::Layout;
use super::ledger::{Entry, State, ledger, now_s, update};
use super::lifecycle::{RemoveOptions, remove_pages};
use super::publish::{Publishing, ReleaseSpec, Users};
use super::release::Manifest;
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
    enter(publishing, active).await?;
    // what pages that take others' place grow by is in no pages' order
    publishing.write(&Watch::default(), None, progress).await?;
    let (kv, ns) = (publishing.kv, publishing.ns);
    let surplus = publishing.layout.manifest.pages()..active.pages();
    remove_pages(kv, ns, active.keys(), surplus, &RemoveOptions::default(), &mut |_, _| ()).await?;
    publishing.verify().await?;
    put_manifest(publishing).await?;
    switch(publishing, active).await
}

/// Names it in the ledger, and puts its manifest there, so that it can be read as far as it has come. Bytes and checksum
/// follow.
async fn enter<K: Kv>(publishing: &Publishing<'_, '_, K>, active: &Manifest) -> Result<(), StoreError> {
    let Publishing { kv, ns, spec, layout, .. } = publishing;
    let name = &layout.manifest.name;
    update(*kv, ns, |ledger| {
        if ledger.current() != Some(&active.name) {
            return Err(StoreError::PointerMoved { ns: (*ns).to_owned(), name: name.clone() });
        }
        if let Some(other) = ledger.releases.iter().find(|entry| entry.state == State::Rolling && entry.name != *name) {
            let remedy = "run the publish that was rolling it in again, to its end";
            return Err(StoreError::WrongState { name: other.name.clone(), state: "rolled in by half", remedy });
        }
        if ledger.find(name).is_some_and(|entry| entry.state != State::Rolling) {
            return Err(StoreError::WrongState { name: name.clone(), state: "there", remedy: "choose another name" });
        }
        let mut entry = Entry::of(&layout.manifest, State::Rolling, spec.grace);
        entry.pages = entry.pages.max(active.pages());
        ledger.put(entry);
        Ok(())
    })
    .await?;
    put_manifest(publishing).await
}

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
        if let Some(entry) = ledger.find_mut(&active.name) {
            // its pages are another's now
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
