//! A release as its manifest says it.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::geometry::MAX_PAGE_BYTES;
use super::{ReleaseSpec, StoreError, keys, ledger, page};
use crate::codec::Codec;
use crate::kv::Kv;

/// The newest format of pages and manifest that this code reads, and the one it writes.
///
/// 2 has `keys` and `memory`, and the ledger behind the pointer.
pub const FORMAT: u32 = 2;

/// No manifest is near as long; a longer value is not read as one.
const LONGEST_MANIFEST: usize = 16 << 10;
/// Beyond any embedding, and small enough that no size of a record overflows.
const MOST_DIMENSIONS: u32 = 1 << 16;

/// How a user's id leads to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// Ids are rows: page `id / slots`, slot `id % slots`.
    Dense {
        /// Slots of every page but the last.
        slots: u32,
    },
    /// Any ids: the page comes from the high bits of the id's hash, the fingerprint from its low 40.
    Hashed {
        /// Pages, all of which exist.
        pages: u32,
        /// Seed of the hash, such that no two users of a page share a fingerprint.
        seed: u64,
    },
}

/// What a release is, as its own key says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] when written.
    pub format: u32,
    /// The release's name.
    pub name: String,
    /// Fingerprint of the trained model, the same in the index that belongs to these vectors.
    #[serde(with = "hex64")]
    pub fingerprint: u64,
    /// Stands in the page keys: 48 bits of hash of name and fingerprint, as 12 hex digits.
    pub id: String,
    /// How a vector became a record.
    pub codec: Codec,
    /// Dimensions of a vector.
    pub dim: u32,
    /// Users.
    pub users: u32,
    /// How to find one.
    pub addressing: Addressing,
    /// Bytes of all pages, without keys and what the home adds.
    pub bytes: u64,
    /// XXH3-64 over all pages, in order.
    #[serde(with = "hex64")]
    pub checksum: u64,
    /// The id in the pages' keys, when it is not its own: of dense pages one that says how they are laid out as well, or that of
    /// the release whose pages it has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// What loading it was to cost the server, and did; `None` when nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Growth>,
}

/// By how much `used_memory` grew while a release was written, its pages still with a TTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// As predicted before the first write.
    pub predicted_bytes: u64,
    /// As the server said afterwards, others' writes included.
    pub actual_bytes: u64,
}

impl Manifest {
    /// Of a release that nobody is known to be in.
    pub(super) fn of_nobody(name: &str, fingerprint: u64, codec: Codec, dim: u32) -> Self {
        Self {
            format: FORMAT,
            name: name.to_owned(),
            fingerprint,
            id: id(name, fingerprint),
            codec,
            dim,
            users: 0,
            addressing: Addressing::Dense { slots: 1 },
            bytes: 0,
            checksum: 0,
            keys: None,
            memory: None,
        }
    }

    /// Written behind every record: the low 16 bits of the id, 1 instead of 0. A slot of zeros is nobody's.
    pub fn tag(&self) -> u16 {
        tag(id_bits(&self.id))
    }

    /// Bytes of a record.
    pub fn record_bytes(&self) -> usize {
        self.codec.bytes_per_vector(self.dim as usize)
    }

    /// Pages, and one more than the number of the last.
    pub fn pages(&self) -> u32 {
        match self.addressing {
            Addressing::Dense { slots } => self.users.div_ceil(slots),
            Addressing::Hashed { pages, .. } => pages,
        }
    }

    pub(super) fn slot_bytes(&self) -> usize {
        self.record_bytes() + page::TAG_BYTES
    }

    /// Seeds a hashed page's checksum.
    pub(super) fn salt(&self, page: u32) -> u64 {
        salt(id_bits(&self.id), page)
    }

    /// The id in the pages' keys.
    pub fn keys(&self) -> &str {
        self.keys.as_deref().unwrap_or(&self.id)
    }

    pub(super) fn page_keys(&self, ns: &str, pages: Range<u32>) -> Vec<Vec<u8>> {
        pages.map(|page| keys::page(ns, self.keys(), page)).collect()
    }

    /// Whether it may stand in the pages of that release: a reader must be able to tell their slots apart, and to find
    /// the tag where it looks for it.
    pub(super) fn can_take_over(&self, other: &Self) -> bool {
        let alike = matches!(
            (self.addressing, other.addressing),
            (Addressing::Dense { .. }, Addressing::Dense { .. })
                | (Addressing::Hashed { .. }, Addressing::Hashed { .. })
        );
        alike && (self.codec, self.dim) == (other.codec, other.dim) && self.tag() != other.tag()
    }

    /// For a message: enough to see in what two releases of one name differ.
    pub(super) fn describe(&self) -> String {
        let Self { fingerprint, codec, dim, users, .. } = self;
        let ids = match self.addressing {
            Addressing::Dense { .. } => "dense",
            Addressing::Hashed { .. } => "hashed",
        };
        format!("fingerprint {fingerprint:016x}, {users} users, {ids} ids, {codec:?} x {dim}")
    }

    /// The value of the manifest's key: its checksum as 16 hex digits, a newline, and JSON.
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let json = serde_json::to_string(self)
            .map_err(|e| StoreError::corrupt("manifest", &"fields that JSON can hold", &e))?;
        let checksum = XxHash3_64::oneshot(json.as_bytes());
        Ok(format!("{checksum:016x}\n{json}").into_bytes())
    }

    pub(super) fn decode(value: &[u8], ns: &str, name: &str) -> Result<Self, StoreError> {
        let what = || format!("manifest of {name} in {ns}");
        let text =
            (value.len() <= LONGEST_MANIFEST).then(|| std::str::from_utf8(value).ok()?.split_once('\n')).flatten();
        let Some((sum, json)) = text else {
            return Err(StoreError::corrupt(what(), &"a checksum line and JSON", &value.len()));
        };
        let found = format!("{:016x}", XxHash3_64::oneshot(json.as_bytes()));
        if sum != found {
            return Err(StoreError::corrupt(what(), &found, &format_args!("{sum:?}")));
        }
        let malformed = |e: serde_json::Error| StoreError::corrupt(what(), &"a manifest", &e);
        // the version first: a later format may well have other fields
        let Version { format } = serde_json::from_str(json).map_err(malformed)?;
        if !(1..=FORMAT).contains(&format) {
            return Err(StoreError::Format { expected: FORMAT, got: format });
        }
        let manifest: Self = serde_json::from_str(json).map_err(malformed)?;
        if manifest.name != name || !manifest.is_sound() {
            return Err(StoreError::corrupt(what(), &"one that holds together", &json));
        }
        Ok(manifest)
    }

    fn is_sound(&self) -> bool {
        if !(1..=MOST_DIMENSIONS).contains(&self.dim) {
            return false;
        }
        let addressing = match self.addressing {
            // so that an offset in a page cannot overflow
            Addressing::Dense { slots } => {
                slots == 1
                    || (slots as usize)
                        .checked_mul(self.slot_bytes())
                        .is_some_and(|page| (1..=MAX_PAGE_BYTES).contains(&page))
            }
            Addressing::Hashed { pages, .. } => pages > 0,
        };
        let keys = self.keys();
        let keys = keys.len() == self.id.len() && keys.bytes().all(|digit| digit.is_ascii_hexdigit());
        addressing && keys && self.users > 0 && self.id == id(&self.name, self.fingerprint)
    }
}

/// The id that a release of this name and fingerprint has.
pub(super) fn id(name: &str, fingerprint: u64) -> String {
    let hash = XxHash3_64::oneshot_with_seed(fingerprint, name.as_bytes());
    format!("{:012x}", hash >> 16)
}

/// The id in the keys of dense pages. Where a slot is, and how long, stands nowhere in a page: when a name that was retired
/// is published again with another codec or other pages, whoever reads by the manifest before must not find them.
pub(super) fn dense_keys(spec: &ReleaseSpec, slots: u32) -> String {
    // no name has a space
    id(&format!("{} {} {slots}", spec.name, spec.codec), spec.fingerprint)
}

/// The id as a number.
pub(super) fn id_bits(id: &str) -> u64 {
    u64::from_str_radix(id, 16).unwrap_or(0)
}

pub(super) fn tag(id_bits: u64) -> u16 {
    (id_bits as u16).max(1)
}

pub(super) fn salt(id_bits: u64, page: u32) -> u64 {
    (id_bits << 16).wrapping_add(u64::from(page))
}

/// Refuses dimensions that no manifest may carry.
pub(super) fn check_dim(dim: u32) -> Result<(), StoreError> {
    if (1..=MOST_DIMENSIONS).contains(&dim) {
        return Ok(());
    }
    Err(StoreError::BadSpec { what: "dimensions", expected: format!("1 to {MOST_DIMENSIONS}"), got: u64::from(dim) })
}

/// The manifest of the release of that name, active or not.
pub async fn release<K: Kv>(kv: &K, ns: &str, name: &str) -> Result<Manifest, StoreError> {
    find(kv, ns, name).await?.ok_or_else(|| StoreError::NoRelease { ns: ns.to_owned(), name: name.to_owned() })
}

pub(super) async fn find<K: Kv>(kv: &K, ns: &str, name: &str) -> Result<Option<Manifest>, StoreError> {
    keys::check_ns(ns)?;
    keys::check_name(name)?;
    let value = get(kv, keys::manifest(ns, name)).await?;
    value.map(|value| Manifest::decode(&value, ns, name)).transpose()
}

/// The manifest of the active release.
pub async fn current<K: Kv>(kv: &K, ns: &str) -> Result<Manifest, StoreError> {
    let ledger = ledger::ledger(kv, ns).await?;
    let Some((id, name)) = ledger.current else {
        return Err(StoreError::NoActiveRelease { ns: ns.to_owned() });
    };
    let manifest = release(kv, ns, &name).await?;
    if manifest.id != id {
        return Err(StoreError::corrupt(format!("pointer of {ns}"), &manifest.id, &id));
    }
    Ok(manifest)
}

pub(super) async fn get<K: Kv>(kv: &K, key: Vec<u8>) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(kv.get_many(&[key]).await?.pop().flatten())
}

#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// JSON numbers stop being exact at 2^53 in most readers, so 64 bits are written as hex digits.
pub(super) mod hex64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref)] // the signature is serde's
    pub(in crate::store) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:016x}"))
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
