//! Which key falls to which shard: arithmetic on names, without a server.
//!
//! Redis Cluster specification: the slot of a key is CRC16 (XMODEM: polynomial 0x1021, nothing reflected, starting from
//! 0) modulo 16,384, of the key or of its hash tag, the bytes between its first `{` and the next `}`. No namespace and no
//! release name may have braces, so the pages of a release spread over all shards; how evenly, only their names tell.

use std::collections::BTreeMap;

use super::super::memory::{Expiry, Keys, Names};

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// Slots `first..=last`, as servers name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotRange {
    /// First slot.
    pub first: u16,
    /// Last slot, which belongs to it.
    pub last: u16,
}

/// What falls to one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardLoad {
    /// Keys of each length of key and value, in bytes: what a server's memory depends on.
    pub keys: BTreeMap<(usize, usize), u64>,
}

impl ShardLoad {
    /// Keys of any length.
    pub fn count(&self) -> u64 {
        self.keys.values().sum()
    }

    /// The same for the memory model, if all values are strings.
    pub fn strings(&self, expiry: Expiry) -> Vec<Keys> {
        let group =
            |(&(key_bytes, value_bytes), &count)| Keys::strings(Names::same(key_bytes, count), value_bytes, expiry);
        self.keys.iter().map(group).collect()
    }
}

/// The slot of a key.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hashed_part(key)) % SLOTS
}

/// What each shard gets of keys and the lengths of their values. A key in a slot of no shard is counted nowhere.
pub fn shard_loads<K: AsRef<[u8]>>(
    keys: impl IntoIterator<Item = (K, usize)>,
    shards: &[Vec<SlotRange>],
) -> Vec<ShardLoad> {
    let mut owner = vec![None; usize::from(SLOTS)];
    for (shard, ranges) in shards.iter().enumerate() {
        for range in ranges {
            let slots = owner.iter_mut().take(usize::from(range.last) + 1).skip(usize::from(range.first));
            slots.for_each(|owner| *owner = Some(shard));
        }
    }
    let mut loads = vec![ShardLoad::default(); shards.len()];
    for (key, value_bytes) in keys {
        let key = key.as_ref();
        if let Some(shard) = owner[usize::from(slot_of(key))] {
            *loads[shard].keys.entry((key.len(), value_bytes)).or_default() += 1;
        }
    }
    loads
}

/// The hash tag, if there is one and it is not empty.
fn hashed_part(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&byte| byte == b'}').map(|close| &rest[..close])
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The remainder of each byte.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_has_the_check_value_of_its_standard() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn only_the_first_tag_counts_and_an_empty_one_does_not() {
        let parts: [(&[u8], &[u8]); 8] = [
            (b"{user1000}.following", b"user1000"),
            (b"foo{}{bar}", b"foo{}{bar}"),
            (b"foo{{bar}}zap", b"{bar"),
            (b"foo{bar}{zap}", b"bar"),
            (b"a}b{c", b"a}b{c"),
            (b"a}{c}", b"c"),
            (b"{", b"{"),
            (b"", b""),
        ];
        for (key, part) in parts {
            assert_eq!(hashed_part(key), part, "{}", String::from_utf8_lossy(key));
        }
    }

    /// Bit by bit, as the specification says it.
    fn slow_crc16(bytes: &[u8]) -> u16 {
        let mut crc = 0_u16;
        for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1))) {
            let carry = crc >> 15 ^ bit;
            crc = (crc << 1) ^ (carry * 0x1021);
        }
        crc
    }

    proptest! {
        #[test]
        fn the_table_does_what_the_bits_do(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(crc16(&bytes), slow_crc16(&bytes));
        }

        #[test]
        fn every_key_of_a_whole_cluster_falls_to_the_shard_of_its_slot(
            keys in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..30), 0_usize..3), 0..50),
            cut in 1..SLOTS,
        ) {
            let shards = [
                vec![SlotRange { first: cut, last: SLOTS - 1 }],
                vec![SlotRange { first: 0, last: cut - 1 }],
            ];
            let loads = shard_loads(keys.iter().cloned(), &shards);
            prop_assert_eq!(loads[0].count() + loads[1].count(), keys.len() as u64);
            for (key, value) in &keys {
                let alike = |other: &&(Vec<u8>, usize)| {
                    other.0.len() == key.len() && other.1 == *value && (slot_of(&other.0) < cut) == (slot_of(key) < cut)
                };
                let expected = keys.iter().filter(alike).count() as u64;
                let shard = usize::from(slot_of(key) < cut);
                prop_assert_eq!(loads[shard].keys.get(&(key.len(), *value)), Some(&expected));
            }
        }
    }

    #[test]
    fn a_slot_of_no_shard_is_counted_nowhere() {
        let slot = slot_of(b"k");
        let others = vec![SlotRange { first: slot + 1, last: u16::MAX }];
        assert_eq!(shard_loads([(b"k", 1)], &[others])[0].count(), 0);
        assert!(shard_loads([(b"k", 1)], &[]).is_empty());
    }
}
