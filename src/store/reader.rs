//! Reading user vectors from one release.

use super::ledger::{self, Entry, State};
use super::page::{self, HashedPage, Place};
use super::release::{self, Addressing, Manifest};
use super::{StoreError, keys};
use crate::codec::Codec;
use crate::input::Id;
use crate::kv::{KeyRange, Kv};

/// No hashed page is longer: the users of one are a hundred on average, of 65,536 dimensions at the most.
const LONGEST_PAGE_BYTES: u32 = 64 << 20;

/// The user vectors of one release: pinned when opened, and read from no other, whatever is published or activated
/// meanwhile. Open it once and keep it; to follow the active release, compare [`manifest`](Self::manifest) with
/// [`current`](super::current) now and then, and open again.
#[derive(Clone, Debug)]
pub struct UserVectors<K> {
    kv: K,
    ns: String,
    manifest: Manifest,
}

impl<K: Kv> UserVectors<K> {
    /// Pins the active release.
    pub async fn open(kv: K, ns: &str) -> Result<Self, StoreError> {
        let manifest = release::current(&kv, ns).await?;
        Ok(Self { kv, ns: ns.to_owned(), manifest })
    }

    /// Pins the release of that name, active or not.
    pub async fn open_release(kv: K, ns: &str, name: &str) -> Result<Self, StoreError> {
        let manifest = release::release(&kv, ns, name).await?;
        Ok(Self { kv, ns: ns.to_owned(), manifest })
    }

    /// Nobody's, for an index whose release the store cannot be asked about, as while it is away: no id leads to a page.
    pub fn nobodys(kv: K, ns: &str, name: &str, fingerprint: u64, codec: Codec, dim: u32) -> Self {
        Self { kv, ns: ns.to_owned(), manifest: Manifest::of_nobody(name, fingerprint, codec, dim) }
    }

    /// The pinned release.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The records of these users, `None` for a user the release does not have, or does not have any more or yet while
    /// another release rolls over its pages. One round trip for all of them, and another to learn of such a release when
    /// its slots are met; if the roll ended in between, they are read once more.
    ///
    /// A hashed release takes an absent user for a present one with a chance of users per page in 2^40, about 1e-10.
    pub async fn get(&self, ids: &[Id<'_>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let places: Vec<Option<At>> = ids.iter().map(|&id| self.place(id)).collect();
        let found = self.fetch(&places).await?;
        match self.records(&places, &found, &[]) {
            Err(error) => {
                let (kin, gone) = self.kin(&error).await?;
                match self.records(&places, &found, &kin) {
                    // what stood there may have been of one that was on its way out
                    Err(_) if gone => self.records(&places, &self.fetch(&places).await?, &kin),
                    records => records,
                }
            }
            records => records,
        }
    }

    /// What it reads from.
    pub fn kv(&self) -> &K {
        &self.kv
    }

    /// The namespace.
    pub fn ns(&self) -> &str {
        &self.ns
    }

    /// The bytes that a user's vector is in, to be fetched together with other keys; `None` for an id that cannot be of
    /// this release. [`found`](Self::found) looks them through.
    pub fn range(&self, id: Id<'_>) -> Option<KeyRange> {
        let At { page, in_page } = self.place(id)?;
        let (key, slot_bytes) = (self.key(page), self.manifest.slot_bytes() as u32);
        Some(match in_page {
            InPage::Slot(slot) => KeyRange { key, start: slot * slot_bytes, end: (slot + 1) * slot_bytes },
            InPage::Fingerprint(_) => KeyRange { key, start: 0, end: LONGEST_PAGE_BYTES },
        })
    }

    /// A user's record among the bytes that were found in [`range`](Self::range). An error may be the doing of a release
    /// that rolls over this one: only [`get`](Self::get) looks whether it is.
    pub fn found(&self, id: Id<'_>, bytes: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.place(id).map_or(Ok(None), |at| self.record(&at, bytes, &[]))
    }

    /// Where a user's slot is; `None` for an id that cannot be of this release.
    fn place(&self, id: Id<'_>) -> Option<At> {
        match (self.manifest.addressing, id) {
            (Addressing::Dense { slots }, Id::U64(id)) => {
                let row = u32::try_from(id).ok().filter(|&row| row < self.manifest.users)?;
                Some(At { page: row / slots, in_page: InPage::Slot(row % slots) })
            }
            (Addressing::Dense { .. }, Id::Text(_)) => None,
            (Addressing::Hashed { pages, seed }, id) => {
                let Place { page, fingerprint } = Place::of(id, seed, pages);
                Some(At { page, in_page: InPage::Fingerprint(fingerprint) })
            }
        }
    }

    /// The slots of a dense release, the pages of a hashed one; empty where there is none.
    async fn fetch(&self, places: &[Option<At>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let slot_bytes = self.manifest.slot_bytes() as u32;
        if matches!(self.manifest.addressing, Addressing::Hashed { .. }) {
            let pages: Vec<Vec<u8>> = places.iter().flatten().map(|at| self.key(at.page)).collect();
            let found = self.kv.get_many(&pages).await?;
            return Ok(found.into_iter().map(Option::unwrap_or_default).collect());
        }
        let range = |at: &At| {
            let start = if let InPage::Slot(slot) = at.in_page { slot * slot_bytes } else { 0 };
            KeyRange { key: self.key(at.page), start, end: start + slot_bytes }
        };
        let ranges: Vec<KeyRange> = places.iter().flatten().map(range).collect();
        Ok(self.kv.get_ranges(&ranges).await.into_iter().collect::<Result<_, _>>()?)
    }

    /// What was fetched, looked through. Slots and pages of `kin` are no user's, and no fault.
    fn records(
        &self,
        places: &[Option<At>],
        found: &[Vec<u8>],
        kin: &[Kin],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut found = found.iter();
        let record = |at: &Option<At>| {
            let (Some(at), Some(bytes)) = (at, at.and_then(|_| found.next())) else { return Ok(None) };
            self.record(at, bytes, kin)
        };
        places.iter().map(record).collect()
    }

    fn record(&self, at: &At, bytes: &[u8], kin: &[Kin]) -> Result<Option<Vec<u8>>, StoreError> {
        if bytes.is_empty() {
            // a shorter release that rolled over this one has removed the last pages
            return if kin.is_empty() { Err(self.missing(at.page)) } else { Ok(None) };
        }
        let expected = self.manifest.slot_bytes();
        let slot = match at.in_page {
            InPage::Slot(_) => bytes,
            InPage::Fingerprint(fingerprint) => match HashedPage::open(bytes, expected, self.manifest.salt(at.page)) {
                Ok(page) => match page.slot(fingerprint) {
                    Some(slot) => slot,
                    None => return Ok(None),
                },
                Err(_) if kin.iter().any(|kin| kin.has_written(bytes, expected, at.page)) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        if slot.len() != expected {
            return Err(StoreError::corrupt("slot length", &expected, &slot.len()));
        }
        match page::record(slot, self.manifest.tag()) {
            Err(StoreError::MixedRelease { got, .. }) if kin.iter().any(|kin| kin.tag == got) => Ok(None),
            record => Ok(record?.map(<[u8]>::to_vec)),
        }
    }

    /// The releases that stand in the same pages, when `error` may be their doing, and whether any stood there that is
    /// gone. And if this release is gone for good, that is the error.
    async fn kin(&self, error: &StoreError) -> Result<(Vec<Kin>, bool), StoreError> {
        if matches!(error, StoreError::Kv(_)) {
            return Ok((Vec::new(), false));
        }
        let Manifest { name, id, .. } = &self.manifest;
        let ledger = ledger::ledger(&self.kv, &self.ns).await?;
        let is_kin = |entry: &&Entry| entry.keys == self.manifest.keys() && entry.id() != *id;
        let (gone, there): (Vec<_>, Vec<_>) = ledger.releases.iter().filter(is_kin).partition(|entry| entry.is_gone());
        let kin: Vec<Kin> = there.iter().map(|entry| Kin::of(&entry.id())).collect();
        let ours = ledger.releases.iter().rev().find(|entry| entry.name == *name && entry.id() == *id);
        if kin.is_empty() && ours.is_some_and(|entry| matches!(entry.state, State::Retiring | State::Retired)) {
            return Err(StoreError::Retired { name: name.clone() });
        }
        Ok((kin, !gone.is_empty()))
    }

    fn key(&self, page: u32) -> Vec<u8> {
        keys::page(&self.ns, self.manifest.keys(), page)
    }

    fn missing(&self, page: u32) -> StoreError {
        StoreError::MissingPage { release: self.manifest.name.clone(), page }
    }
}

/// Where a user's slot is.
#[derive(Clone, Copy, Debug)]
struct At {
    page: u32,
    in_page: InPage,
}

#[derive(Clone, Copy, Debug)]
enum InPage {
    Slot(u32),
    Fingerprint(u64),
}

/// Another release in the same pages.
struct Kin {
    tag: u16,
    id_bits: u64,
}

impl Kin {
    fn of(id: &str) -> Self {
        let id_bits = release::id_bits(id);
        Self { tag: release::tag(id_bits), id_bits }
    }

    fn has_written(&self, page: &[u8], slot_bytes: usize, number: u32) -> bool {
        HashedPage::open(page, slot_bytes, release::salt(self.id_bits, number)).is_ok()
    }
}
