//! One vector that is fresher than the release's: a user's overlay over the page, or a segment's default.
//!
//! It carries the fingerprint of the index that it belongs to, so that whoever reads it knows which index it can be
//! scored by, and when it was made.

use std::time::Duration;

use super::ledger::now_s;
use super::sealed::{HEADER_BYTES, open, seal};
use super::{StoreError, keys};
use crate::codec::{Codec, record};
use crate::input::Id;
use crate::kv::Kv;

/// Bytes of the body before the record: fingerprint `u64`, made `u32` seconds since 1970, codec `u8`.
const FIXED_BYTES: usize = 13;

/// A vector with where it belongs.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// [`Manifest::fingerprint`](super::Manifest::fingerprint) of its release.
    pub fingerprint: u64,
    /// When it was made, in seconds since 1970.
    pub made_s: u64,
    /// How it is encoded.
    pub codec: Codec,
    /// The encoded vector.
    pub record: Vec<u8>,
}

/// Bytes of an overlay's value.
pub fn overlay_bytes(codec: Codec, dim: usize) -> usize {
    HEADER_BYTES + FIXED_BYTES + codec.bytes_per_vector(dim)
}

impl Overlay {
    /// Encodes a vector in the form that is compared (unit length for cosine), made now.
    pub fn encode(fingerprint: u64, codec: Codec, vector: &[f32]) -> Result<Self, StoreError> {
        let mut bytes = vec![0; codec.bytes_per_vector(vector.len())];
        record::encode(codec, vector, &mut bytes).map_err(|e| StoreError::Source(Box::new(e)))?;
        Ok(Self { fingerprint, made_s: now_s(), codec, record: bytes })
    }

    fn seal(&self, key: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(FIXED_BYTES + self.record.len());
        body.extend_from_slice(&self.fingerprint.to_le_bytes());
        body.extend_from_slice(&(self.made_s as u32).to_le_bytes());
        body.push(number(self.codec));
        body.extend_from_slice(&self.record);
        seal(key, &body)
    }

    fn open(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let body = open("overlay", key, value)?;
        let Some((&[f0, f1, f2, f3, f4, f5, f6, f7, m0, m1, m2, m3, codec], record)) =
            body.split_first_chunk::<FIXED_BYTES>()
        else {
            return Err(StoreError::corrupt("overlay", &"a fingerprint, a time and a codec", &body.len()));
        };
        let codec = Codec::ALL.into_iter().find(|&known| number(known) == codec);
        Ok(Self {
            fingerprint: u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]),
            made_s: u64::from(u32::from_le_bytes([m0, m1, m2, m3])),
            codec: codec.ok_or_else(|| StoreError::corrupt("overlay codec", &"1 to 4", &body[FIXED_BYTES - 1]))?,
            record: record.to_vec(),
        })
    }

    /// What was found under [`overlay_key`] of a user.
    pub fn of_user(ns: &str, user: Id<'_>, value: &[u8]) -> Result<Self, StoreError> {
        Self::open(&overlay_key(ns, user), value)
    }

    /// What was found under [`segment_key`] of a segment.
    pub fn of_segment(ns: &str, segment: &str, value: &[u8]) -> Result<Self, StoreError> {
        Self::open(&segment_key(ns, segment), value)
    }
}

/// The key of a user's overlay.
pub fn overlay_key(ns: &str, user: Id<'_>) -> Vec<u8> {
    keys::of_user(ns, 'o', user)
}

/// The key of a segment's vector.
pub fn segment_key(ns: &str, segment: &str) -> Vec<u8> {
    keys::of_user(ns, 'g', Id::Text(segment))
}

/// Lays vectors over users' pages for as long as `ttl`.
pub async fn put_overlays<K: Kv>(
    kv: &K,
    ns: &str,
    overlays: &[(Id<'_>, Overlay)],
    ttl: Duration,
) -> Result<(), StoreError> {
    keys::check_ns(ns)?;
    let entry = |(user, overlay): &(Id, Overlay)| {
        let key = overlay_key(ns, *user);
        let value = overlay.seal(&key);
        (key, value)
    };
    Ok(kv.set_many(overlays.iter().map(entry).collect(), Some(ttl)).await?)
}

/// Sets the vectors of segments, for good.
pub async fn put_segments<K: Kv>(kv: &K, ns: &str, segments: &[(&str, Overlay)]) -> Result<(), StoreError> {
    keys::check_ns(ns)?;
    let entry = |(segment, vector): &(&str, Overlay)| {
        let key = segment_key(ns, segment);
        let value = vector.seal(&key);
        (key, value)
    };
    Ok(kv.set_many(segments.iter().map(entry).collect(), None).await?)
}

fn number(codec: Codec) -> u8 {
    match codec {
        Codec::F32 => 1,
        Codec::F16 => 2,
        Codec::Int8 => 3,
        Codec::Int4 => 4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_laid_over_comes_back(
            vector in prop::collection::vec(-1_f32..1.0, 1..100), fingerprint in any::<u64>(), user in any::<u64>(),
        ) {
            for codec in Codec::ALL {
                let overlay = Overlay::encode(fingerprint, codec, &vector).unwrap();
                let value = overlay.seal(&overlay_key("t", Id::U64(user)));
                prop_assert_eq!(value.len(), overlay_bytes(codec, vector.len()));
                prop_assert_eq!(&Overlay::of_user("t", Id::U64(user), &value).unwrap(), &overlay);
                prop_assert!(Overlay::of_user("t", Id::U64(user ^ 1), &value).is_err());
                prop_assert!(Overlay::of_user("u", Id::U64(user), &value).is_err());
                prop_assert!(Overlay::of_segment("t", &user.to_string(), &value).is_err());
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(Overlay::of_user("t", Id::U64(1), &bytes).is_err());
            let key = overlay_key("t", Id::U64(1));
            if let Ok(overlay) = Overlay::open(&key, &seal(&key, &bytes)) {
                prop_assert_eq!(overlay.record.len() + FIXED_BYTES, bytes.len());
            }
        }
    }
}
