//! A result list as bytes: item rows in the order of their rank, and their scores. Pure: no keys, no server.
//!
//! A row takes as many bits as the index has use for, a score about three and a half: scores are laid on 256 levels
//! between the best and the worst, and since they only fall, each is written in unary as the levels down from the one
//! before (the upper half of an Elias-Fano code). A hundred items of a million are 309 bytes, against 800 as `u32` and
//! `f32`. `docs/wire-format.md` draws it, and `docs/sizing.md` weighs it against general compressors.
//!
//! The one thing to know: ranks are exact, scores are not: they are off by up to a 510th of the list's range.

use twox_hash::XxHash3_64;

use super::StoreError;

/// Checksum `u32`, count `u16`, best and worst score `f32`.
const HEADER_BYTES: usize = 14;
const CHECKSUM_BYTES: usize = 4;
/// Steps from the best score to the worst.
const LEVELS: u32 = 255;
/// Most items of a list: what the count holds.
pub const MAX_ITEMS: usize = u16::MAX as usize;

/// One result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// The item's row in the index of the release.
    pub row: u32,
    /// Larger is better.
    pub score: f32,
}

/// Bytes of a list of `count` from an index of `items` rows. One whose scores are all alike is 32 bytes shorter.
pub fn list_bytes(count: usize, items: u32) -> usize {
    HEADER_BYTES + row_bytes(count, items) + (count + LEVELS as usize).div_ceil(8)
}

/// Packs a list, best first. `salt` is the release's, so that no list is read by another.
pub fn pack(list: &[Ranked], items: u32, salt: u64) -> Result<Vec<u8>, StoreError> {
    check(list, items)?;
    let (best, worst) = list.first().zip(list.last()).map_or((0.0, 0.0), |(first, last)| (first.score, last.score));
    let mut bytes = vec![0; CHECKSUM_BYTES];
    bytes.extend_from_slice(&(list.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&best.to_le_bytes());
    bytes.extend_from_slice(&worst.to_le_bytes());
    let mut rows = BitWriter::default();
    list.iter().for_each(|item| rows.push(item.row, width(items)));
    bytes.append(&mut rows.bytes);
    let (mut scores, mut level) = (BitWriter::default(), 0);
    for item in list {
        let down = level_of(item.score, best, worst);
        (level..down).for_each(|_| scores.push(0, 1));
        scores.push(1, 1);
        level = level.max(down);
    }
    bytes.append(&mut scores.bytes);
    let checksum = checksum(&bytes[CHECKSUM_BYTES..], salt);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

/// Reads a list back. Refuses anything but what [`pack`] made for this index and release.
pub fn unpack(bytes: &[u8], items: u32, salt: u64) -> Result<Vec<Ranked>, StoreError> {
    let malformed = |expected: &str| StoreError::corrupt("list", &expected, &bytes.len());
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(malformed("a header"));
    };
    let &[s0, s1, s2, s3, n0, n1, b0, b1, b2, b3, w0, w1, w2, w3] = header;
    let (expected, got) = (u32::from_le_bytes([s0, s1, s2, s3]), checksum(&bytes[CHECKSUM_BYTES..], salt));
    if expected != got {
        return Err(StoreError::corrupt("list checksum", &format_args!("{expected:08x}"), &format_args!("{got:08x}")));
    }
    let count = usize::from(u16::from_le_bytes([n0, n1]));
    let (best, worst) = (f32::from_le_bytes([b0, b1, b2, b3]), f32::from_le_bytes([w0, w1, w2, w3]));
    let Some((rows, scores)) = body.split_at_checked(row_bytes(count, items)) else {
        return Err(malformed("the rows of its items"));
    };
    if !(best.is_finite() && worst.is_finite() && best >= worst) {
        return Err(malformed("scores that fall"));
    }
    let (mut rows, mut scores) = (BitReader::of(rows), BitReader::of(scores));
    let mut list = Vec::with_capacity(count);
    let mut level = 0;
    for _ in 0..count {
        let row = rows.take(width(items)).filter(|&row| row < items).ok_or_else(|| malformed("rows of the index"))?;
        while scores.take(1).ok_or_else(|| malformed("a score for each item"))? == 0 {
            level += 1;
        }
        list.push(Ranked { row, score: score_of(level.min(LEVELS), best, worst) });
    }
    if level > LEVELS || !scores.is_spent() {
        return Err(malformed("no more than its scores"));
    }
    Ok(list)
}

fn check(list: &[Ranked], items: u32) -> Result<(), StoreError> {
    let bad =
        |what, expected: &str, got: usize| StoreError::BadSpec { what, expected: expected.to_owned(), got: got as u64 };
    if list.len() > MAX_ITEMS {
        return Err(bad("items of a list", "at most 65,535", list.len()));
    }
    if let Some(item) = list.iter().find(|item| item.row >= items) {
        return Err(bad("row of a list", "one of the index", item.row as usize));
    }
    if let Some(at) = list.iter().position(|item| !item.score.is_finite()) {
        return Err(bad("score of a list", "a finite number at every place", at));
    }
    if let Some(at) = list.windows(2).position(|pair| pair[0].score < pair[1].score) {
        return Err(bad("order of a list", "the best first; this place is below the next", at));
    }
    Ok(())
}

/// Bits of a row of an index of `items`.
fn width(items: u32) -> u32 {
    u32::BITS - items.saturating_sub(1).leading_zeros()
}

fn row_bytes(count: usize, items: u32) -> usize {
    (count * width(items) as usize).div_ceil(8)
}

/// Levels below the best. In 64 bits, so that the range of any two finite scores is finite.
fn level_of(score: f32, best: f32, worst: f32) -> u32 {
    let range = f64::from(best) - f64::from(worst);
    if range <= 0.0 {
        return 0;
    }
    ((f64::from(best) - f64::from(score)) / range * f64::from(LEVELS)).round() as u32
}

fn score_of(level: u32, best: f32, worst: f32) -> f32 {
    let (best, worst) = (f64::from(best), f64::from(worst));
    (best + (worst - best) * f64::from(level) / f64::from(LEVELS)) as f32
}

fn checksum(bytes: &[u8], salt: u64) -> u32 {
    XxHash3_64::oneshot_with_seed(salt, bytes) as u32
}

/// Bits from the lowest of each byte upwards.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits of the last byte that are taken.
    taken: u32,
}

impl BitWriter {
    fn push(&mut self, value: u32, bits: u32) {
        for bit in 0..bits {
            if self.taken.is_multiple_of(8) {
                self.bytes.push(0);
                self.taken = 0;
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << self.taken;
            }
            self.taken += 1;
        }
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, bits: u32) -> Option<u32> {
        let mut value = 0;
        for bit in 0..bits {
            let byte = self.bytes.get(self.at / 8)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    /// Whether nothing is left but the zeros that fill the last byte.
    fn is_spent(&self) -> bool {
        self.bytes.len() == self.at.div_ceil(8)
            && self.bytes.last().is_none_or(|last| self.at.is_multiple_of(8) || last >> (self.at % 8) == 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(rows: &[u32], mut scores: Vec<f32>) -> Vec<Ranked> {
        scores.sort_by(|a, b| b.total_cmp(a));
        rows.iter().zip(scores).map(|(&row, score)| Ranked { row, score }).collect()
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            items in 1u32..=u32::MAX, rows in proptest::collection::vec(any::<u32>(), 0..300),
            scores in proptest::collection::vec(-1e30f32..1e30, 300), salt in any::<u64>(),
        ) {
            let rows: Vec<u32> = rows.iter().map(|row| row % items).collect();
            let list = list(&rows, scores);
            let bytes = pack(&list, items, salt).unwrap();
            prop_assert!(bytes.len() <= list_bytes(list.len(), items));
            let back = unpack(&bytes, items, salt).unwrap();
            prop_assert_eq!(back.len(), list.len());
            let range = list.first().map_or(0.0, |first| f64::from(first.score) - f64::from(list[list.len() - 1].score));
            for (found, wanted) in back.iter().zip(&list) {
                prop_assert_eq!(found.row, wanted.row);
                let off = (f64::from(found.score) - f64::from(wanted.score)).abs();
                prop_assert!(off <= range / 509.9, "{} of {}", off, range);
            }
            prop_assert!(back.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }

        #[test]
        fn no_bytes_make_it_panic_and_none_are_taken_for_a_list(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), items in any::<u32>(),
        ) {
            prop_assert!(unpack(&bytes, items, 1).is_err());
        }

        #[test]
        fn bytes_that_pass_the_checksum_are_still_not_trusted(
            body in proptest::collection::vec(any::<u8>(), 0..200), items in any::<u32>(), count in 0u16..20,
        ) {
            let mut bytes = vec![0; CHECKSUM_BYTES];
            bytes.extend(count.to_le_bytes());
            bytes.extend([0, 0, 128, 63, 0, 0, 0, 0]); // from 1.0 to 0.0
            bytes.extend(body);
            let sum = checksum(&bytes[CHECKSUM_BYTES..], 1);
            bytes[..CHECKSUM_BYTES].copy_from_slice(&sum.to_le_bytes());
            if let Ok(list) = unpack(&bytes, items, 1) {
                prop_assert!(list.iter().all(|item| item.row < items && (0.0..=1.0).contains(&item.score)));
            }
        }

        #[test]
        fn any_flipped_byte_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = pack(&list(&[3, 1, 2], vec![3.0, 2.0, 1.0]), 10, 9).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(unpack(&bytes, 10, 9).is_err());
        }
    }

    #[test]
    fn a_list_is_as_long_as_it_says() {
        let rows: Vec<u32> = (0..100).map(|n| n * 9_999).collect();
        let scores = (0..100).map(|n| n as f32).collect();
        let bytes = pack(&list(&rows, scores), 1_000_000, 7).unwrap();
        assert_eq!((bytes.len(), list_bytes(100, 1_000_000)), (309, 309));
        assert_eq!(pack(&[], 1, 0).unwrap().len(), HEADER_BYTES);
        assert_eq!(unpack(&pack(&[], 1, 0).unwrap(), 1, 0).unwrap(), []);
    }

    #[test]
    fn lists_that_cannot_be_are_refused() {
        let one = |row, score| Ranked { row, score };
        let bad = [
            vec![one(10, 1.0)],
            vec![one(1, f32::NAN)],
            vec![one(1, 1.0), one(2, 2.0)],
            vec![one(0, 1.0); MAX_ITEMS + 1],
        ];
        for list in bad {
            assert!(matches!(pack(&list, 10, 1), Err(StoreError::BadSpec { .. })));
        }
        let other = pack(&[one(1, 1.0)], 10, 1).unwrap();
        assert!(unpack(&other, 10, 2).is_err());
    }
}
