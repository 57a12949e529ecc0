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

use super::flight::Flight;
use super::footprint::{Footprint, Trajectory};
use super::guard::{Room, Watch};
use super::layout::Layout;
use super::lease::Lease;
use super::ledger::{Entry, Ledger, State, now_s, update};
use super::lifecycle::{RemoveOptions, remove_pages, remove_where};
use super::release::{self, Manifest};
use super::spread::On;
use super::strategy::{self, Place, Strategy};
use super::{StoreError, keys, lifecycle, rolling};
use crate::codec::Codec;
use crate::input::Id;
use crate::kv::{Kv, KvError};

/// Pages gathered before a write. 1 MiB: a hundred pages, which hide a round trip and amortise an fsync of the embedded
/// home, and few enough that what is in flight hardly counts.
const BATCH_BYTES: usize = 1 << 20;
/// Pages read back at a time: half a megabyte, which arrives within a request's timeout on any network.
const VERIFY_PAGES: u32 = 64;

/// Pages and their keys.
type Batch = Vec<(Vec<u8>, Vec<u8>)>;
/// Pages as they are read.
type Pages = Vec<Option<Vec<u8>>>;

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
    /// The row is the id. Publishing holds two batches of pages, 1 MiB each: one is on its way while the next is made.
    Dense,
    /// Any ids, each once. Publishing also holds 4 bytes a user and 4 a page, to group rows by page.
    Listed(&'a (dyn Fn(u32) -> Id<'a> + Sync)),
}

/// How to publish.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// The room there is. By default nothing is known of it, and nothing refused before the store itself does.
    pub room: Room,
    /// How the release comes to stand in the place of the active one. Beside it by default: the only way that costs
    /// nothing but room.
    pub strategy: Strategy,
}

/// Publishes a release whole, or leaves nothing of it, and returns its manifest. It is not active yet.
///
/// This is [`prepare`] and [`Prepared::run`] with the default options.
pub async fn publish<K: Kv>(
    kv: &K,
    ns: &str,
    spec: &ReleaseSpec,
    users: &Users<'_>,
    progress: &mut (dyn FnMut(u32) + Send),
) -> Result<Manifest, StoreError> {
    prepare(kv, ns, spec, users, &PublishOptions::default()).await?.run(progress).await
}

/// A release laid out and priced. No key of it is written.
pub struct Prepared<'a, 'u, K> {
    kv: &'a K,
    ns: &'a str,
    spec: &'a ReleaseSpec,
    options: &'a PublishOptions,
    layout: Layout<'a, 'u>,
    /// On every server.
    footprints: Vec<Footprint>,
    /// The active release.
    active: Option<Manifest>,
    existing: Option<Manifest>,
}

/// Lays a release out and says what it will cost.
pub async fn prepare<'a, 'u, K: Kv>(
    kv: &'a K,
    ns: &'a str,
    spec: &'a ReleaseSpec,
    users: &'a Users<'u>,
    options: &'a PublishOptions,
) -> Result<Prepared<'a, 'u, K>, StoreError> {
    let existing = release::find(kv, ns, &spec.name).await?;
    let active = match release::current(kv, ns).await {
        Ok(manifest) => Some(manifest),
        // one whose manifest was lost, with a server that failed, is no more active than none
        Err(StoreError::NoActiveRelease { .. } | StoreError::NoRelease { .. }) => None,
        Err(error) => return Err(error),
    };
    let place = Place::of(kv, ns, &options.room).await?;
    let layout = match options.strategy {
        Strategy::Rolling => rolling::lay_out(ns, spec, users, active.as_ref())?,
        Strategy::Beside | Strategy::Replace => Layout::at(place.home, spec, users, None)?,
    };
    let footprints = strategy::price(ns, &layout, &options.room, options.strategy, active.as_ref(), &place);
    Ok(Prepared { kv, ns, spec, options, layout, footprints, active, existing })
}

impl<K: Kv> Prepared<'_, '_, K> {
    /// What it will cost; in a cluster, the shard with least room.
    pub fn footprint(&self) -> &Footprint {
        &self.footprints[self.options.room.tightest(&self.footprints)]
    }

    /// What it will cost every server; of a cluster by the names that its pages will have.
    pub fn footprints(&self) -> &[Footprint] {
        &self.footprints
    }

    /// The release that is active now.
    pub fn active(&self) -> Option<&Manifest> {
        self.active.as_ref()
    }

    /// Refuses a release that does not fit, with what would help.
    pub async fn check(&self) -> Result<(), StoreError> {
        let name = &self.spec.name;
        let Err(refused) = self.options.room.check(name, &self.footprints) else { return Ok(()) };
        let (listed, _) = lifecycle::list(self.kv, self.ns).await?;
        let active = self.active.as_ref();
        let remedies = strategy::remedies(self.ns, &self.layout, &self.options.room, &self.footprints, active, &listed);
        Err(refused.with(remedies))
    }

    /// Publishes the release whole, or leaves nothing of it, and returns its manifest.
    ///
    /// A name that is taken is refused, unless by the same release: then that one is verified and returned. Of several
    /// publishers of a namespace one goes on, the others are told. `progress` is told how many users are written.
    /// Encoding runs on the calling task, so this belongs on a runtime of its own.
    ///
    /// A rolling release is active in the end; any other is not yet.
    pub async fn run(self, progress: &mut (dyn FnMut(u32) + Send)) -> Result<Manifest, StoreError> {
        if let Some(existing) = &self.existing
            && !rolling::is_under_way(self.kv, self.ns, &self.spec.name).await?
        {
            return same_again(self.kv, self.ns, existing.clone(), &self.layout.manifest).await;
        }
        self.check().await?;
        let lease = Lease::take(self.kv, self.ns, &self.spec.name, self.spec.grace).await?;
        let mut publishing = Publishing {
            kv: self.kv,
            ns: self.ns,
            spec: self.spec,
            room: &self.options.room,
            layout: self.layout,
            lease,
            written: 0,
            flight: None,
        };
        let result = match (self.options.strategy, &self.active) {
            (Strategy::Rolling, Some(active)) => rolling::run(&mut publishing, active, progress).await,
            (Strategy::Replace, Some(active)) => publishing.replace(&active.name, progress).await,
            _ => publishing.beside(&self.footprints, progress).await,
        };
        publishing.lease.give_back().await;
        result?;
        Ok(publishing.layout.manifest)
    }
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
    let mut reading = ReadBack::begin(kv, ns, manifest);
    while reading.next().await? {}
    reading.finish()
}

/// The pages of a release read back, in order. While one batch is compared the next is on its way.
struct ReadBack<'a, K> {
    kv: &'a K,
    ns: &'a str,
    manifest: &'a Manifest,
    checksum: XxHash3_64,
    bytes: u64,
    /// Pages asked for.
    asked: u32,
    /// The first page of those on their way.
    flight: Option<(u32, Flight<'a, Result<Pages, KvError>>)>,
}

impl<'a, K: Kv> ReadBack<'a, K> {
    fn begin(kv: &'a K, ns: &'a str, manifest: &'a Manifest) -> Self {
        Self { kv, ns, manifest, checksum: XxHash3_64::with_seed(0), bytes: 0, asked: 0, flight: None }
    }

    /// Reads some more; says whether there is more to read.
    async fn next(&mut self) -> Result<bool, StoreError> {
        let landed = match self.flight.take() {
            Some((first, flight)) => Some((first, flight.end().await?)),
            None => None,
        };
        let pages = self.asked..self.manifest.pages().min(self.asked.saturating_add(VERIFY_PAGES));
        if !pages.is_empty() {
            let (kv, keys) = (self.kv, self.manifest.page_keys(self.ns, pages.clone()));
            self.asked = pages.end;
            self.flight = Some((pages.start, Flight::begin(async move { kv.get_many(&keys).await }).await));
        }
        if let Some((first, values)) = landed {
            for (page, value) in (first..).zip(values) {
                let value =
                    value.ok_or_else(|| StoreError::MissingPage { release: self.manifest.name.clone(), page })?;
                self.checksum.write(&value);
                self.bytes += value.len() as u64;
            }
        }
        Ok(self.flight.is_some())
    }

    fn finish(self) -> Result<(), StoreError> {
        let what = |part| format!("{part} of the pages of {}", self.manifest.name);
        if self.bytes != self.manifest.bytes {
            return Err(StoreError::corrupt(what("bytes"), &self.manifest.bytes, &self.bytes));
        }
        let (expected, got) = (self.manifest.checksum, self.checksum.finish());
        if expected != got {
            let [expected, got] = [expected, got].map(|sum| format!("{sum:016x}"));
            return Err(StoreError::corrupt(what("checksum"), &expected, &got));
        }
        Ok(())
    }
}

/// A release being written by the one publisher of its namespace.
pub(super) struct Publishing<'p, 'u, K> {
    pub kv: &'p K,
    pub ns: &'p str,
    pub spec: &'p ReleaseSpec,
    pub room: &'p Room,
    pub layout: Layout<'p, 'u>,
    pub lease: Lease<'p, K>,
    /// Pages that may have been written: those of every batch handed over.
    pub written: u32,
    flight: Option<Flight<'p, Result<(), KvError>>>,
}

impl<K: Kv> Publishing<'_, '_, K> {
    async fn beside(
        &mut self,
        footprints: &[Footprint],
        progress: &mut (dyn FnMut(u32) + Send),
    ) -> Result<(), StoreError> {
        self.sweep().await?;
        // another publisher may have ended since the look that was checked
        let stats = self.kv.stats().await?;
        let since = |footprint: &Footprint| {
            let used = stats.of(footprint.shard.as_deref()).map_or(0, |now| now.used_bytes);
            footprint.on_top_of(used.max(footprint.before_bytes))
        };
        if footprints.iter().all(|footprint| footprint.exact) {
            self.room.check(&self.spec.name, &footprints.iter().map(since).collect::<Vec<_>>())?;
        }
        self.load(progress).await
    }

    /// The active release is removed first, and from then on there is none.
    async fn replace(&mut self, active: &str, progress: &mut (dyn FnMut(u32) + Send)) -> Result<(), StoreError> {
        self.sweep().await?;
        // nobody reads it any more, and until it is gone nobody has anything to read
        let at_once = RemoveOptions { pages_per_s: u32::MAX };
        lifecycle::remove_active(self.kv, self.ns, active, &at_once, Some(&mut self.lease), &mut |_, _| ()).await?;
        self.load(progress).await
    }

    async fn load(&mut self, progress: &mut (dyn FnMut(u32) + Send)) -> Result<(), StoreError> {
        self.enter().await?;
        let result = self.write_all(progress).await;
        match result {
            Ok(()) => Ok(()),
            Err(cause) => Err(self.give_up(cause).await),
        }
    }

    async fn write_all(&mut self, progress: &mut (dyn FnMut(u32) + Send)) -> Result<(), StoreError> {
        let (ns, layout) = (self.ns, &self.layout);
        let expected = |on: On<'_>| Trajectory::new(on, ns, &layout.manifest, layout.values());
        let watch = Watch::begin(self.kv, self.room, expected).await?;
        let ttl = Some(self.spec.grace);
        self.write(&watch, ttl, progress).await?;
        self.verify().await?;
        self.layout.manifest.memory = watch.growth(self.kv).await?;
        self.announce().await
    }

    pub(super) async fn verify(&mut self) -> Result<(), StoreError> {
        let Self { kv, ns, layout, lease, .. } = self;
        let mut reading = ReadBack::begin(*kv, ns, &layout.manifest);
        while reading.next().await? {
            lease.renew().await?;
        }
        reading.finish()
    }

    /// Removes what publishers left that died: this one has the lease, so whatever is loading is nobody's.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        let loading = |entry: &Entry| entry.state == State::Loading;
        let (options, lease) = (RemoveOptions::default(), Some(&mut self.lease));
        remove_where(self.kv, self.ns, &loading, &options, lease, &mut |_, _| ()).await?;
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
        let manifest = &self.layout.manifest;
        let Manifest { name, .. } = manifest;
        let wrong = |state, remedy| Err(StoreError::WrongState { name: name.clone(), state, remedy });
        match ledger.find(name).map(|entry| entry.state) {
            Some(State::Retiring) => return wrong("being removed", "clear up with `releases gc`, then publish again"),
            Some(State::Abandoned) => return wrong("given up half-way", "publish it under another name"),
            Some(State::Rolling) => return wrong("being rolled in", "publish it with the same strategy as before"),
            // its manifest is gone, or it would have been found: nothing of it can be read
            Some(State::Active) => return wrong("active, but its manifest is gone", "publish under a new name"),
            _ => {}
        }
        if ledger.releases.iter().any(|entry| entry.keys == manifest.keys() && entry.name != *name && !entry.is_gone())
        {
            return wrong("one whose pages another release has taken over", "publish under a new name");
        }
        Ok(())
    }

    /// Writes every page, and fills in bytes and checksum. While one batch is on its way the next is made.
    pub(super) async fn write(
        &mut self,
        watch: &Watch,
        ttl: Option<Duration>,
        progress: &mut (dyn FnMut(u32) + Send),
    ) -> Result<(), StoreError> {
        let (kv, pages) = (self.kv, self.layout.manifest.pages());
        let (mut checksum, mut done) = (XxHash3_64::with_seed(0), 0);
        while self.written < pages {
            let batch = self.batch(&mut checksum)?;
            self.lease.renew().await?;
            self.land().await?;
            progress(done);
            let first = self.written;
            self.written += batch.len() as u32;
            done += (first..self.written).map(|page| self.layout.users_of(page)).sum::<u32>();
            self.flight = Some(Flight::begin(kv.set_many(batch, ttl)).await);
            watch.check(kv, self.written).await?;
        }
        self.land().await?;
        progress(done);
        self.layout.manifest.checksum = checksum.finish();
        Ok(())
    }

    /// Waits for the batch that is on its way.
    pub(super) async fn land(&mut self) -> Result<(), StoreError> {
        match self.flight.take() {
            Some(flight) => Ok(flight.end().await?),
            None => Ok(()),
        }
    }

    /// The next pages.
    fn batch(&mut self, checksum: &mut XxHash3_64) -> Result<Batch, StoreError> {
        let manifest = &self.layout.manifest;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for page in self.written..manifest.pages() {
            let value = self.layout.page(page)?;
            checksum.write(&value);
            bytes += value.len();
            batch.push((keys::page(self.ns, manifest.keys(), page), value));
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        self.layout.manifest.bytes += bytes as u64;
        Ok(batch)
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
    async fn give_up(&mut self, cause: StoreError) -> StoreError {
        // so that nothing is written behind the removal
        let _ = self.land().await;
        // without the lease someone else may be writing under the very same names, or be done with it
        let alone = self.lease.is_held().await;
        if alone && self.clear().await.is_ok() { cause } else { self.left_behind(cause) }
    }

    async fn clear(&mut self) -> Result<(), StoreError> {
        let (kv, ns, manifest, pages) = (self.kv, self.ns, &self.layout.manifest, 0..self.written);
        let (name, options, lease) = (&manifest.name, RemoveOptions::default(), Some(&mut self.lease));
        remove_pages(kv, ns, manifest.keys(), pages, &options, lease, &mut |_, _| ()).await?;
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
