//! Small values under a key of their own: overlay, session, seen. Each is sealed for its key, so that no value is taken
//! for another's, whatever mixed them up: the server, a proxy, or an answer that came late.

use twox_hash::XxHash3_64;

use super::StoreError;
use crate::input::Id;
use crate::kv::KeyRange;

/// No value is longer: the longest overlay has 65,536 dimensions.
const LONGEST_BYTES: u32 = 1 << 20;
/// Bytes before the body: checksum `u32`, format `u8`.
pub(super) const HEADER_BYTES: usize = 5;
/// The one format there is.
const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// A value for `key`.
pub(super) fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = vec![0; CHECKSUM_BYTES];
    value.push(FORMAT);
    value.extend_from_slice(body);
    let checksum = checksum(key, &value[CHECKSUM_BYTES..]);
    value[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    value
}

/// The body of what was found under `key`. Refuses anything but what [`seal`] made for it.
pub(super) fn open<'a>(what: &str, key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let Some((&found, rest)) = value.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(StoreError::corrupt(what, &"a checksum", &value.len()));
    };
    let (expected, got) = (u32::from_le_bytes(found), checksum(key, rest));
    if expected != got {
        let sums = (format!("{expected:08x}"), format!("{got:08x}"));
        return Err(StoreError::corrupt(format!("{what} checksum"), &sums.0, &sums.1));
    }
    match rest {
        [FORMAT, body @ ..] => Ok(body),
        rest => Err(StoreError::corrupt(format!("{what} format"), &FORMAT, &rest.first().copied().unwrap_or(0))),
    }
}

/// All of a small value, to be fetched together with others. No more is, whatever stands under the key.
pub fn whole(key: Vec<u8>) -> KeyRange {
    KeyRange { key, start: 0, end: LONGEST_BYTES }
}

/// An item in sessions and lists of seen items, whatever release: XXH3-64 of its id.
pub fn item_hash(id: Id<'_>) -> u64 {
    match id {
        Id::U64(id) => XxHash3_64::oneshot(&id.to_le_bytes()),
        // under the seed's complement, so that no text is taken for the number of the same bytes
        Id::Text(id) => XxHash3_64::oneshot_with_seed(!0, id.as_bytes()),
    }
}

fn checksum(key: &[u8], bytes: &[u8]) -> u32 {
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(key), bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_under_its_own_key_alone() {
        let value = seal(b"t:o:1", b"body");
        assert_eq!(open("overlay", b"t:o:1", &value).unwrap(), b"body");
        assert!(open("overlay", b"t:o:2", &value).is_err());
        for at in 0..value.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = value.clone();
                damaged[at] ^= flip;
                assert!(open("overlay", b"t:o:1", &damaged).is_err(), "byte {at}");
            }
            assert!(open("overlay", b"t:o:1", &value[..at]).is_err());
        }
    }

    #[test]
    fn a_later_format_is_refused() {
        let mut value = seal(b"k", b"body");
        value[CHECKSUM_BYTES] = 2;
        let sum = checksum(b"k", &value[CHECKSUM_BYTES..]);
        value[..CHECKSUM_BYTES].copy_from_slice(&sum.to_le_bytes());
        assert!(open("overlay", b"k", &value).unwrap_err().to_string().contains("format"));
    }
}
