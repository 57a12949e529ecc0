//! Slots and pages as bytes. Pure: no keys, no server.
//!
//! A slot is a record and the release's tag. A dense page is slots and nothing else. A hashed page begins with a
//! checksum, a count and the sorted fingerprints of its users, and then has their slots in that order.

use twox_hash::XxHash3_64;

use super::StoreError;
use crate::input::Id;

/// Bytes of a slot beyond its record: the tag.
pub(super) const TAG_BYTES: usize = 2;
/// Bytes before a hashed page's fingerprints: checksum `u32`, count `u16`.
pub(super) const HEADER_BYTES: usize = 6;
/// Bytes of a fingerprint. 40 bits: an absent user who falls on a page of 100 is taken for one of them once in
/// 2^40 / 100 = 11 thousand million lookups.
pub(super) const FINGERPRINT_BYTES: usize = 5;

const FINGERPRINT_MASK: u64 = (1 << 40) - 1;
const CHECKSUM_BYTES: usize = 4;

/// Where a user is, among `pages` hashed pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The page.
    pub page: u32,
    /// The low 40 bits of the hash; the page comes from the high ones.
    pub fingerprint: u64,
}

impl Place {
    pub(super) fn of(id: Id<'_>, seed: u64, pages: u32) -> Self {
        // text is hashed under the seed's complement, so that no text is taken for the number of the same bytes
        let hash = match id {
            Id::U64(id) => XxHash3_64::oneshot_with_seed(seed, &id.to_le_bytes()),
            Id::Text(id) => XxHash3_64::oneshot_with_seed(!seed, id.as_bytes()),
        };
        Self { page: ((u128::from(hash) * u128::from(pages)) >> 64) as u32, fingerprint: hash & FINGERPRINT_MASK }
    }
}

/// A dense page of these records.
pub(super) fn dense_page(records: &[u8], record_bytes: usize, tag: u16) -> Vec<u8> {
    let mut page = Vec::with_capacity(records.len() / record_bytes * (record_bytes + TAG_BYTES));
    push_slots(&mut page, records, record_bytes, tag);
    page
}

/// Lays records end to end into slots with `tag`.
fn push_slots(page: &mut Vec<u8>, records: &[u8], record_bytes: usize, tag: u16) {
    for record in records.chunks_exact(record_bytes) {
        page.extend_from_slice(record);
        page.extend_from_slice(&tag.to_le_bytes());
    }
}

/// The record of a slot, if `tag` wrote it; `None` for a slot of zeros, which is no user's.
pub(super) fn record(slot: &[u8], tag: u16) -> Result<Option<&[u8]>, StoreError> {
    let Some((record, &found)) = slot.split_last_chunk::<TAG_BYTES>() else {
        return Err(StoreError::corrupt("slot", &"a record and a tag", &slot.len()));
    };
    match u16::from_le_bytes(found) {
        0 => Ok(None),
        got if got == tag => Ok(Some(record)),
        got => Err(StoreError::MixedRelease { expected: tag, got }),
    }
}

/// The length of a hashed page of so many users.
pub(super) fn hashed_bytes(users: usize, slot_bytes: usize) -> usize {
    HEADER_BYTES + users * (FINGERPRINT_BYTES + slot_bytes)
}

/// A hashed page of users with these fingerprints, ascending, and these records, in that order. `salt` says which page
/// of which release it is, so that no page is taken for another.
pub(super) fn hashed_page(fingerprints: &[u64], records: &[u8], record_bytes: usize, tag: u16, salt: u64) -> Vec<u8> {
    let entry = FINGERPRINT_BYTES + record_bytes + TAG_BYTES;
    let mut page = Vec::with_capacity(HEADER_BYTES + fingerprints.len() * entry);
    page.extend_from_slice(&[0; CHECKSUM_BYTES]);
    page.extend_from_slice(&(fingerprints.len() as u16).to_le_bytes());
    for fingerprint in fingerprints {
        page.extend_from_slice(&fingerprint.to_le_bytes()[..FINGERPRINT_BYTES]);
    }
    push_slots(&mut page, records, record_bytes, tag);
    let checksum = checksum(&page[CHECKSUM_BYTES..], salt);
    page[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// A hashed page that was found whole.
#[derive(Debug)]
pub(super) struct HashedPage<'a> {
    fingerprints: &'a [[u8; FINGERPRINT_BYTES]],
    slots: &'a [u8],
    slot_bytes: usize,
}

impl<'a> HashedPage<'a> {
    /// Refuses anything but the bytes that [`hashed_page`] made for this `salt`.
    pub(super) fn open(page: &'a [u8], slot_bytes: usize, salt: u64) -> Result<Self, StoreError> {
        let cut = page
            .split_first_chunk::<CHECKSUM_BYTES>()
            .and_then(|(sum, rest)| Some((sum, rest, rest.split_first_chunk::<2>()?)));
        let Some((&sum, checked, (&count, body))) = cut else {
            return Err(StoreError::corrupt("hashed page", &"a header", &page.len()));
        };
        let (expected, got) = (u32::from_le_bytes(sum), checksum(checked, salt));
        if expected != got {
            return Err(StoreError::corrupt(
                "hashed page checksum",
                &format_args!("{expected:08x}"),
                &format_args!("{got:08x}"),
            ));
        }
        let count = usize::from(u16::from_le_bytes(count));
        let length = count * (FINGERPRINT_BYTES + slot_bytes);
        if body.len() != length {
            return Err(StoreError::corrupt("hashed page length", &length, &body.len()));
        }
        let (fingerprints, slots) = body.split_at(count * FINGERPRINT_BYTES);
        Ok(Self { fingerprints: fingerprints.as_chunks().0, slots, slot_bytes })
    }

    /// The slot of the user with that fingerprint.
    pub(super) fn slot(&self, fingerprint: u64) -> Option<&'a [u8]> {
        let value =
            |bytes: &[u8; FINGERPRINT_BYTES]| bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        let at = self.fingerprints.binary_search_by_key(&fingerprint, value).ok()?;
        self.slots.get(at * self.slot_bytes..(at + 1) * self.slot_bytes)
    }
}

fn checksum(bytes: &[u8], salt: u64) -> u32 {
    XxHash3_64::oneshot_with_seed(salt, bytes) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn page_of(users: &BTreeMap<u64, [u8; 3]>, salt: u64) -> Vec<u8> {
        let fingerprints: Vec<u64> = users.keys().copied().collect();
        let records: Vec<u8> = users.values().flatten().copied().collect();
        hashed_page(&fingerprints, &records, 3, 0xbeef, salt)
    }

    proptest! {
        #[test]
        fn every_user_of_a_page_is_found_and_no_other(
            users in proptest::collection::btree_map(0..=FINGERPRINT_MASK, any::<[u8; 3]>(), 0..200),
            others in proptest::collection::vec(0..=FINGERPRINT_MASK, 0..50),
            salt in any::<u64>(),
        ) {
            let bytes = page_of(&users, salt);
            let page = HashedPage::open(&bytes, 5, salt).unwrap();
            for fingerprint in users.keys().copied().chain(others) {
                let found = page.slot(fingerprint).map(|slot| record(slot, 0xbeef).unwrap().unwrap());
                prop_assert_eq!(found, users.get(&fingerprint).map(<[u8; 3]>::as_slice));
            }
        }

        #[test]
        fn no_bytes_make_a_page_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), slot in 0usize..40) {
            prop_assert!(HashedPage::open(&bytes, slot, 1).is_err());
            let _ = record(&bytes, 1);
        }

        #[test]
        fn bytes_that_pass_the_checksum_are_still_not_trusted(
            body in proptest::collection::vec(any::<u8>(), 2..300), slot in 0usize..40,
        ) {
            let mut bytes = checksum(&body, 1).to_le_bytes().to_vec();
            bytes.extend(body);
            if let Ok(page) = HashedPage::open(&bytes, slot, 1) {
                let _ = page.slot(7);
            }
        }

        #[test]
        fn any_flipped_byte_is_refused(
            users in proptest::collection::btree_map(0..=FINGERPRINT_MASK, any::<[u8; 3]>(), 0..20),
            at in any::<prop::sample::Index>(), flip in 1u8..,
        ) {
            let mut bytes = page_of(&users, 9);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(HashedPage::open(&bytes, 5, 9).is_err());
        }
    }

    #[test]
    fn a_page_is_not_taken_for_another_or_another_releases() {
        let bytes = page_of(&BTreeMap::from([(1, [1, 2, 3])]), 7);
        assert!(HashedPage::open(&bytes, 5, 7).is_ok());
        assert!(HashedPage::open(&bytes, 5, 8).is_err());
        assert!(HashedPage::open(&bytes, 6, 7).is_err());
        let slot = [1, 2, 3, 0xef, 0xbe];
        let error = record(&slot, 0xbeee).unwrap_err();
        assert!(matches!(error, StoreError::MixedRelease { expected: 0xbeee, got: 0xbeef }));
        assert_eq!(record(&[0; 5], 0xbeef).unwrap(), None);
    }

    #[test]
    fn a_number_and_the_text_of_its_bytes_are_two_users() {
        let number = Id::U64(u64::from_le_bytes(*b"user0001"));
        assert_ne!(Place::of(number, 0, 1 << 20), Place::of(Id::Text("user0001"), 0, 1 << 20));
    }
}
