//! Reading user vectors from one release.

use super::page::{self, HashedPage, Place};
use super::release::{self, Addressing, Manifest};
use super::{StoreError, keys};
use crate::input::Id;
use crate::kv::{KeyRange, Kv};

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

    /// The pinned release.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The records of these users, `None` for a user the release does not have. One round trip for all of them.
    ///
    /// A hashed release takes an absent user for a present one with a chance of users per page in 2^40, about 1e-10.
    pub async fn get(&self, ids: &[Id<'_>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        match self.manifest.addressing {
            Addressing::Dense { slots } => self.get_dense(ids, slots).await,
            Addressing::Hashed { pages, seed } => {
                let places = ids.iter().map(|&id| Place::of(id, seed, pages)).collect();
                self.get_hashed(places).await
            }
        }
    }

    async fn get_dense(&self, ids: &[Id<'_>], slots: u32) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let users = self.manifest.users;
        let row = |id: &Id<'_>| match *id {
            Id::U64(id) => u32::try_from(id).ok().filter(|&row| row < users),
            Id::Text(_) => None,
        };
        let rows: Vec<Option<u32>> = ids.iter().map(row).collect();
        let slot_bytes = self.manifest.slot_bytes() as u32;
        let range = |row: u32| {
            let start = (row % slots) * slot_bytes;
            KeyRange { key: self.key(row / slots), start, end: start + slot_bytes }
        };
        let ranges: Vec<KeyRange> = rows.iter().flatten().map(|&row| range(row)).collect();
        let mut found = self.kv.get_ranges(&ranges).await?.into_iter();
        let record = |row: Option<u32>| {
            let (Some(row), Some(slot)) = (row, row.and_then(|_| found.next())) else {
                return Ok(None);
            };
            if slot.is_empty() {
                return Err(self.missing(row / slots));
            }
            self.record(&slot)
        };
        rows.into_iter().map(record).collect()
    }

    async fn get_hashed(&self, places: Vec<Place>) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let page_keys: Vec<Vec<u8>> = places.iter().map(|place| self.key(place.page)).collect();
        let found = self.kv.get_many(&page_keys).await?;
        let record = |(place, page): (Place, Option<Vec<u8>>)| {
            let page = page.ok_or_else(|| self.missing(place.page))?;
            let salt = self.manifest.salt(place.page);
            let page = HashedPage::open(&page, self.manifest.slot_bytes(), salt)?;
            page.slot(place.fingerprint).map_or(Ok(None), |slot| self.record(slot))
        };
        places.into_iter().zip(found).map(record).collect()
    }

    fn record(&self, slot: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let expected = self.manifest.slot_bytes();
        if slot.len() != expected {
            return Err(StoreError::corrupt("slot length", &expected, &slot.len()));
        }
        let record = page::record(slot, self.manifest.tag())?;
        Ok(record.map(<[u8]>::to_vec))
    }

    fn key(&self, page: u32) -> Vec<u8> {
        keys::page(&self.ns, &self.manifest.id, page)
    }

    fn missing(&self, page: u32) -> StoreError {
        StoreError::MissingPage { release: self.manifest.name.clone(), page }
    }
}
