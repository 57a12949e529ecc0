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

use super::page::{self, FINGERPRINT_BYTES, HEADER_BYTES, Place};
use super::release::{self, Addressing, FORMAT, Manifest};
use super::{StoreError, geometry, keys};
use crate::codec::Codec;
use crate::input::Id;
use crate::kv::Kv;

/// Pages gathered before a write. 4 MiB: some hundred pages, which amortises an fsync of the embedded home; the Redis
/// home splits it further.
const BATCH_BYTES: usize = 4 << 20;
/// Pages read back at a time: half a megabyte, which arrives within a request's timeout on any network.
const VERIFY_PAGES: u32 = 64;
/// Page names removed at a time after a failure.
const REMOVE_PAGES: u32 = 10_000;
/// Seeds tried before giving up; a second is needed once in 20,000 releases of a million users.
const SEEDS: u64 = 8;

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
/// A name that is taken is refused, unless by the same release: then that one is verified and returned. `progress` is
/// told how many users are written. Encoding runs on the calling task, so this belongs on a runtime of its own.
pub async fn publish<K: Kv>(
    kv: &K,
    ns: &str,
    spec: &ReleaseSpec,
    users: &Users<'_>,
    progress: &mut (dyn FnMut(u32) + Send),
) -> Result<Manifest, StoreError> {
    release::check_dim(spec.dim)?;
    let existing = release::find(kv, ns, &spec.name).await?;
    let (manifest, rows) = lay_out(spec, users)?;
    if let Some(existing) = existing {
        if existing.describe() != manifest.describe() {
            return Err(StoreError::ReleaseExists {
                name: existing.name.clone(),
                expected: manifest.describe(),
                got: existing.describe(),
            });
        }
        verify(kv, ns, &existing).await?;
        return Ok(existing);
    }
    let mut publishing = Publishing { kv, ns, spec, users, rows, manifest, written: 0 };
    match publishing.run(progress).await {
        Ok(()) => Ok(publishing.manifest),
        Err(cause) => Err(publishing.give_up(cause).await),
    }
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

/// The rows of each page.
enum Rows {
    /// Page by page in order.
    InOrder,
    /// `rows[starts[page]..starts[page + 1]]`, by ascending fingerprint.
    Grouped { starts: Vec<u32>, rows: Vec<u32> },
}

/// The manifest but for bytes and checksum, and which rows go where.
fn lay_out(spec: &ReleaseSpec, users: &Users<'_>) -> Result<(Manifest, Rows), StoreError> {
    if users.count == 0 {
        return Err(StoreError::BadSpec { what: "users", expected: "at least 1".to_owned(), got: 0 });
    }
    let slot_bytes = spec.codec.bytes_per_vector(spec.dim as usize) + page::TAG_BYTES;
    let (addressing, rows) = match users.ids {
        Ids::Dense => {
            let slots = geometry::dense_slots(slot_bytes);
            (Addressing::Dense { slots }, Rows::InOrder)
        }
        Ids::Listed(id) => {
            let mean = geometry::hashed_mean(HEADER_BYTES, FINGERPRINT_BYTES + slot_bytes);
            let pages = (f64::from(users.count) / mean).ceil() as u32;
            let (seed, rows) = group(users.count, id, pages)?;
            (Addressing::Hashed { pages, seed }, rows)
        }
    };
    let manifest = Manifest {
        format: FORMAT,
        name: spec.name.clone(),
        fingerprint: spec.fingerprint,
        id: release::id(&spec.name, spec.fingerprint),
        codec: spec.codec,
        dim: spec.dim,
        users: users.count,
        addressing,
        bytes: 0,
        checksum: 0,
    };
    Ok((manifest, rows))
}

/// Groups rows by page under the first seed that gives every user of a page a fingerprint of its own.
fn group<'a>(count: u32, id: &dyn Fn(u32) -> Id<'a>, pages: u32) -> Result<(u64, Rows), StoreError> {
    for seed in 0..SEEDS {
        let place = |row| Place::of(id(row), seed, pages);
        let (starts, mut rows) = by_page(count, pages, |row| place(row).page);
        let clash = starts.windows(2).find_map(|ends| {
            let rows = &mut rows[ends[0] as usize..ends[1] as usize];
            rows.sort_by_cached_key(|&row| place(row).fingerprint);
            let mut pairs = rows.windows(2);
            pairs.find(|pair| place(pair[0]) == place(pair[1])).map(|pair| (pair[0], pair[1]))
        });
        match clash {
            None => return Ok((seed, Rows::Grouped { starts, rows })),
            Some((first, second)) if id(first) == id(second) => {
                return Err(StoreError::DuplicateId { first, second });
            }
            Some(_) => {}
        }
    }
    Err(StoreError::NoSeed { tries: SEEDS })
}

/// Counting sort: where each page's rows begin, and the rows. Two looks at each id instead of 12 more bytes for it.
fn by_page(count: u32, pages: u32, page: impl Fn(u32) -> u32) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; pages as usize + 1];
    for row in 0..count {
        starts[page(row) as usize] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += *start;
        *start = sum; // the page's end, for now
    }
    let mut rows = vec![0; count as usize];
    for row in 0..count {
        let end = &mut starts[page(row) as usize];
        *end -= 1;
        rows[*end as usize] = row;
    }
    (starts, rows)
}

struct Publishing<'p, 'u, K> {
    kv: &'p K,
    ns: &'p str,
    spec: &'p ReleaseSpec,
    users: &'p Users<'u>,
    rows: Rows,
    manifest: Manifest,
    /// Pages that may have been written: those of every batch handed over.
    written: u32,
}

impl<K: Kv> Publishing<'_, '_, K> {
    async fn run(&mut self, progress: &mut (dyn FnMut(u32) + Send)) -> Result<(), StoreError> {
        let mut checksum = XxHash3_64::with_seed(0);
        let (mut batch, mut batch_bytes, mut done) = (Vec::new(), 0, 0);
        for page in 0..self.manifest.pages() {
            let (value, users) = self.page(page)?;
            checksum.write(&value);
            self.manifest.bytes += value.len() as u64;
            batch_bytes += value.len();
            done += users;
            batch.push((keys::page(self.ns, &self.manifest.id, page), value));
            if batch_bytes >= BATCH_BYTES || page + 1 == self.manifest.pages() {
                self.written = page + 1;
                self.kv.set_many(std::mem::take(&mut batch), Some(self.spec.grace)).await?;
                batch_bytes = 0;
                progress(done);
            }
        }
        self.manifest.checksum = checksum.finish();
        verify(self.kv, self.ns, &self.manifest).await?;
        self.announce().await
    }

    /// The bytes of a page and how many users it has.
    fn page(&self, page: u32) -> Result<(Vec<u8>, u32), StoreError> {
        let in_order: Vec<u32>;
        let rows = match (&self.rows, self.manifest.addressing) {
            (Rows::Grouped { starts, rows }, _) => {
                let page = page as usize;
                &rows[starts[page] as usize..starts[page + 1] as usize]
            }
            (Rows::InOrder, addressing) => {
                let slots = match addressing {
                    Addressing::Dense { slots } => slots,
                    Addressing::Hashed { .. } => 0,
                };
                let first = page * slots;
                in_order = (first..self.users.count.min(first.saturating_add(slots))).collect();
                &in_order
            }
        };
        let (record_bytes, tag) = (self.manifest.record_bytes(), self.manifest.tag());
        let mut records = vec![0; rows.len() * record_bytes];
        (self.users.encode)(rows, &mut records).map_err(StoreError::Source)?;
        let value = match (&self.users.ids, self.manifest.addressing) {
            (Ids::Listed(id), Addressing::Hashed { pages, seed }) => {
                let fingerprint = |&row: &u32| Place::of(id(row), seed, pages).fingerprint;
                let fingerprints: Vec<u64> = rows.iter().map(fingerprint).collect();
                let salt = self.manifest.salt(page);
                page::hashed_page(&fingerprints, &records, record_bytes, tag, salt)
            }
            _ => page::dense_page(&records, record_bytes, tag),
        };
        Ok((value, rows.len() as u32))
    }

    /// Writes the manifest, if no other release of that name came first.
    async fn announce(&self) -> Result<(), StoreError> {
        let (kv, name) = (self.kv, &self.manifest.name);
        let key = keys::manifest(self.ns, name);
        let value = self.manifest.encode()?;
        if kv.compare_and_set(&key, None, &value, Some(self.spec.grace)).await? {
            return Ok(());
        }
        let other = release::release(kv, self.ns, name).await?;
        if other == self.manifest {
            return Ok(());
        }
        Err(StoreError::ReleaseExists { name: name.clone(), expected: self.manifest.describe(), got: other.describe() })
    }

    /// Removes what was written. What cannot be removed expires.
    async fn give_up(&self, cause: StoreError) -> StoreError {
        for first in (0..self.written).step_by(REMOVE_PAGES as usize) {
            let pages = first..self.written.min(first.saturating_add(REMOVE_PAGES));
            let keys = self.manifest.page_keys(self.ns, pages);
            if self.kv.delete_many(&keys).await.is_err() {
                return StoreError::LeftBehind {
                    cause: Box::new(cause),
                    pages: self.written,
                    grace_s: self.spec.grace.as_secs(),
                };
            }
        }
        cause
    }
}
