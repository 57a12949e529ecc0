//! Writing a release: lay it out, write its pages, read them back, and only then say in a manifest that it is there.
//!
//! Pages and manifest are written with a TTL, the *grace*: a publish that died, or one that nobody ever activated, goes
//! away by itself. [`activate`](super::activate) takes the TTL off, so that an active release has none: an eviction
//! policy of the `volatile` kind then never takes a vector, and a page costs no expiry entry. The TTL is given with each
//! write, because `EXPIRE` allocates even on a full server.

use std::error::Error;
use std::hash::Hasher;
use std::time::Duration;

use twox_hash::XxHash3_64;

use super::layout::Layout;
use super::lease::Lease;
use super::ledger::{Entry, Ledger, State, now_s, update};
use super::lifecycle::{RemoveOptions, remove_pages, remove_where};
use super::release::{self, Manifest};
use super::{StoreError, keys};
use crate::codec::Codec;
use crate::input::Id;
use crate::kv::Kv;

/// Pages gathered before a write. 4 MiB: some hundred pages, which amortises an fsync of the embedded home; the Redis
/// home splits it further.
const BATCH_BYTES: usize = 4 << 20;
/// Pages read back at a time: half a megabyte, which arrives within a request's timeout on any network.
const VERIFY_PAGES: u32 = 64;

/// What is to be published.
#[derive(Clone, Debug)]
pub struct ReleaseSpec {
    /// 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub name: String,
    /// Fingerprint of the trained model.
    pub fingerprint: u64,
    /// How the records are encoded.
    pub codec: Codec,
    /// Dimensions of a vector.
    pub dim: u32,
    /// How long the release may wait to be activated; counted from each page's own write, so it also bounds how long
    /// the writing may take. [`DEFAULT_GRACE`](Self::DEFAULT_GRACE) unless there is a reason.
    pub grace: Duration,
}

impl ReleaseSpec {
    /// A day: longer than any load and than the morning someone takes to look at it, and gone before the second next
    /// nightly build.
    pub const DEFAULT_GRACE: Duration = Duration::from_hours(24);
}

/// Where the users of a release come from. Nothing is held but what `ids` needs: see [`Ids`].
pub struct Users<'a> {
    /// How many; rows are `0..count`.
    pub count: u32,
    /// Their ids.
    pub ids: Ids<'a>,
    /// Writes the records of these rows end to end. Called once for each page, with the rows in the order of the page.
    pub encode: &'a Encode<'a>,
}

/// Encodes rows into records.
pub type Encode<'a> = dyn Fn(&[u32], &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync>> + Sync + 'a;

/// How rows are called.
pub enum Ids<'a> {
    /// The row is the id. Publishing holds one batch of pages, 4 MiB.
    Dense,
    /// Any ids, each once. Publishing also holds 4 bytes a user and 4 a page, to group rows by page.
    Listed(&'a (dyn Fn(u32) -> Id<'a> + Sync)),
}

/// Publishes a release whole, or leaves nothing of it, and returns its manifest. It is not active yet.
///
/// A name that is taken is refused, unless by the same release: then that one is verified and returned. Of several
/// publishers of a namespace one goes on, the others are told. `progress` is told how many users are written. Encoding
/// runs on the calling task, so this belongs on a runtime of its own.
pub async fn publish<K: Kv>(
    kv: &K,
    ns: &str,
    spec: &ReleaseSpec,
    users: &Users<'_>,
    progress: &mut (dyn FnMut(u32) + Send),
) -> Result<Manifest, StoreError> {
    release::check_dim(spec.dim)?;
    let existing = release::find(kv, ns, &spec.name).await?;
    let layout = Layout::new(spec, users, None)?;
    if let Some(existing) = existing {
        return same_again(kv, ns, existing, &layout.manifest).await;
    }
    let lease = Lease::take(kv, ns, &spec.name, spec.grace).await?;
    let mut publishing = Publishing { kv, ns, spec, layout, lease, written: 0 };
    let result = publishing.run(progress).await;
    let result = match result {
        Ok(()) => Ok(publishing.layout.manifest.clone()),
        Err(cause) => Err(publishing.give_up(cause).await),
    };
    publishing.lease.give_back().await;
    result
}

async fn same_again<K: Kv>(kv: &K, ns: &str, existing: Manifest, wanted: &Manifest) -> Result<Manifest, StoreError> {
    if existing.describe() != wanted.describe() {
        return Err(StoreError::ReleaseExists {
            name: existing.name.clone(),
            expected: wanted.describe(),
            got: existing.describe(),
        });
    }
    verify(kv, ns, &existing).await?;
    // a publisher may have died between the manifest and the ledger
    update(kv, ns, |ledger| {
        if let Some(entry) = ledger.find_mut(&existing.name).filter(|entry| entry.state == State::Loading) {
            (entry.state, entry.published_s) = (State::Waiting, Some(now_s()));
        }
        Ok(())
    })
    .await?;
    Ok(existing)
}

/// Reads every page of a release back and compares it with what was written.
pub async fn verify<K: Kv>(kv: &K, ns: &str, manifest: &Manifest) -> Result<(), StoreError> {
    let (mut checksum, mut bytes) = (XxHash3_64::with_seed(0), 0);
    for first in (0..manifest.pages()).step_by(VERIFY_PAGES as usize) {
        let pages = first..manifest.pages().min(first.saturating_add(VERIFY_PAGES));
        let found = kv.get_many(&manifest.page_keys(ns, pages.clone())).await?;
        for (page, value) in pages.zip(found) {
            let value = value.ok_or_else(|| StoreError::MissingPage { release: manifest.name.clone(), page })?;
            checksum.write(&value);
            bytes += value.len() as u64;
        }
    }
    let what = |part| format!("{part} of the pages of {}", manifest.name);
    if bytes != manifest.bytes {
        return Err(StoreError::corrupt(what("bytes"), &manifest.bytes, &bytes));
    }
    let (expected, got) = (manifest.checksum, checksum.finish());
    if expected != got {
        return Err(StoreError::corrupt(
            what("checksum"),
            &format_args!("{expected:016x}"),
            &format_args!("{got:016x}"),
        ));
    }
    Ok(())
}

struct Publishing<'p, 'u, K> {
    kv: &'p K,
    ns: &'p str,
    spec: &'p ReleaseSpec,
    layout: Layout<'p, 'u>,
    lease: Lease<'p, K>,
    /// Pages that may have been written: those of every batch handed over.
    written: u32,
}

impl<K: Kv> Publishing<'_, '_, K> {
    async fn run(&mut self, progress: &mut (dyn FnMut(u32) + Send)) -> Result<(), StoreError> {
        self.sweep().await?;
        self.enter().await?;
        self.write(progress).await?;
        self.lease.renew().await?;
        verify(self.kv, self.ns, &self.layout.manifest).await?;
        self.lease.renew().await?;
        self.announce().await
    }

    /// Removes what publishers left that died: this one has the lease, so whatever is loading is nobody's.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        let loading = |entry: &Entry| entry.state == State::Loading;
        remove_where(self.kv, self.ns, &loading, &RemoveOptions::default(), &mut |_, _| ()).await?;
        self.lease.renew().await
    }

    /// Names the release in the ledger, before its first page is written.
    async fn enter(&self) -> Result<(), StoreError> {
        update(self.kv, self.ns, |ledger| {
            self.may_enter(ledger)?;
            ledger.put(Entry::of(&self.layout.manifest, State::Loading, self.spec.grace));
            Ok(())
        })
        .await
    }

    fn may_enter(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let Manifest { name, id, .. } = &self.layout.manifest;
        let wrong = |state, remedy| Err(StoreError::WrongState { name: name.clone(), state, remedy });
        match ledger.find(name).map(|entry| entry.state) {
            Some(State::Retiring) => return wrong("being removed", "clear up with `releases gc`, then publish again"),
            Some(State::Rolling) => return wrong("being rolled in", "publish it with the same strategy as before"),
            // its manifest is gone, or it would have been found: nothing of it can be read
            Some(State::Active) => return wrong("active, but its manifest is gone", "publish under a new name"),
            _ => {}
        }
        if ledger.releases.iter().any(|entry| entry.keys == *id && entry.name != *name && !entry.is_gone()) {
            return wrong("one whose pages another release has taken over", "publish under a new name");
        }
        Ok(())
    }

    async fn write(&mut self, progress: &mut (dyn FnMut(u32) + Send)) -> Result<(), StoreError> {
        let mut checksum = XxHash3_64::with_seed(0);
        let (mut batch, mut batch_bytes, mut done) = (Vec::new(), 0, 0);
        for page in 0..self.layout.manifest.pages() {
            let value = self.layout.page(page)?;
            checksum.write(&value);
            self.layout.manifest.bytes += value.len() as u64;
            batch_bytes += value.len();
            done += self.layout.users_of(page);
            batch.push((keys::page(self.ns, self.layout.manifest.keys(), page), value));
            if batch_bytes >= BATCH_BYTES || page + 1 == self.layout.manifest.pages() {
                self.lease.renew().await?;
                self.written = page + 1;
                self.kv.set_many(std::mem::take(&mut batch), Some(self.spec.grace)).await?;
                batch_bytes = 0;
                progress(done);
            }
        }
        self.layout.manifest.checksum = checksum.finish();
        Ok(())
    }

    /// Writes the manifest, if no other release of that name came first, and says in the ledger that it is there.
    async fn announce(&self) -> Result<(), StoreError> {
        let (kv, name) = (self.kv, &self.layout.manifest.name);
        let key = keys::manifest(self.ns, name);
        let value = self.layout.manifest.encode()?;
        if !kv.compare_and_set(&key, None, &value, Some(self.spec.grace)).await? {
            let got = release::release(kv, self.ns, name).await?.describe();
            return Err(StoreError::ReleaseExists {
                name: name.clone(),
                expected: self.layout.manifest.describe(),
                got,
            });
        }
        update(kv, self.ns, |ledger| {
            let entry = ledger.find_mut(name).filter(|entry| entry.state == State::Loading);
            let entry = entry.ok_or(StoreError::LeaseLost { lease_s: self.lease.seconds() })?;
            (entry.state, entry.published_s) = (State::Waiting, Some(now_s()));
            Ok(())
        })
        .await
    }

    /// Removes what was written. What cannot be removed expires.
    async fn give_up(&self, cause: StoreError) -> StoreError {
        if matches!(cause, StoreError::LeaseLost { .. }) {
            // someone else may be writing under the very same names
            return self.left_behind(cause);
        }
        if self.clear().await.is_err() { self.left_behind(cause) } else { cause }
    }

    async fn clear(&self) -> Result<(), StoreError> {
        let (kv, ns, Manifest { name, .. }) = (self.kv, self.ns, &self.layout.manifest);
        let options = RemoveOptions::default();
        remove_pages(kv, ns, self.layout.manifest.keys(), self.written, &options, &mut |_, _| ()).await?;
        update(kv, ns, |ledger| {
            if ledger.find(name).is_some_and(|entry| entry.state == State::Loading) {
                ledger.remove(name);
            }
            Ok(())
        })
        .await
    }

    fn left_behind(&self, cause: StoreError) -> StoreError {
        let cause = Box::new(cause);
        StoreError::LeftBehind { cause, pages: self.written, grace_s: self.spec.grace.as_secs() }
    }
}
