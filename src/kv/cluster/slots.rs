//! Which key falls to which slot: arithmetic on names, without a server.
//!
//! Redis Cluster specification: the slot of a key is CRC16 (XMODEM: polynomial 0x1021, nothing reflected, starting from
//! 0) modulo 16,384, of the key or of its hash tag, the bytes between its first `{` and the next `}`. No namespace and no
//! release name may have braces, so the pages of a release spread over all shards; how evenly, only their names tell.

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

impl SlotRange {
    /// Whether it has this slot.
    pub fn has(self, slot: u16) -> bool {
        (self.first..=self.last).contains(&slot)
    }
}

/// The slot of a key.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hashed_part(key)) % SLOTS
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
    }
}
