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
    let mut bytes = Vec::with_capacity(list_bytes(list.len(), items));
    bytes.extend_from_slice(&[0; CHECKSUM_BYTES]);
    bytes.extend_from_slice(&(list.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&best.to_le_bytes());
    bytes.extend_from_slice(&worst.to_le_bytes());
    let (mut rows, width) = (BitWriter::onto(bytes), width(items));
    list.iter().for_each(|item| rows.push(item.row, width));
    let (mut scores, mut level) = (BitWriter::onto(rows.done()), 0);
    for item in list {
        let down = level_of(item.score, best, worst);
        scores.push_unary(down.saturating_sub(level));
        level = level.max(down);
    }
    let mut bytes = scores.done();
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
    let (mut rows, mut scores, width) = (BitReader::of(rows), BitReader::of(scores), width(items));
    let mut list = Vec::with_capacity(count);
    let mut level = 0_u32;
    for _ in 0..count {
        let row = rows.take(width).filter(|&row| row < items).ok_or_else(|| malformed("rows of the index"))?;
        level = level.saturating_add(scores.take_unary().ok_or_else(|| malformed("a score for each item"))?);
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
    let level = (f64::from(best) - f64::from(score)) / range * f64::from(LEVELS);
    // `round`, which is a call where the processor's own instruction may not be assumed; it is never below 0
    level as u32 + u32::from(level.fract() >= 0.5)
}

fn score_of(level: u32, best: f32, worst: f32) -> f32 {
    let (best, worst) = (f64::from(best), f64::from(worst));
    (best + (worst - best) * f64::from(level) / f64::from(LEVELS)) as f32
}

fn checksum(bytes: &[u8], salt: u64) -> u32 {
    XxHash3_64::oneshot_with_seed(salt, bytes) as u32
}

/// Bits from the lowest of each byte upwards, appended to whole bytes.
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that are no whole word yet; above them zeros.
    pending: u64,
    /// How many they are: less than 32.
    taken: u32,
}

impl BitWriter {
    fn onto(bytes: Vec<u8>) -> Self {
        Self { bytes, pending: 0, taken: 0 }
    }

    /// At most 32 bits of a value that has no others.
    fn push(&mut self, value: u32, bits: u32) {
        self.pending |= u64::from(value) << self.taken;
        self.taken += bits;
        if self.taken >= u32::BITS {
            self.bytes.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= u32::BITS;
            self.taken -= u32::BITS;
        }
    }

    /// So many zeros, and a one.
    fn push_unary(&mut self, mut zeros: u32) {
        while zeros >= u32::BITS {
            self.push(0, u32::BITS);
            zeros -= u32::BITS;
        }
        self.push(1 << zeros, zeros + 1);
    }

    /// The bytes, the last one filled up with zeros.
    fn done(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&self.pending.to_le_bytes()[..self.taken.div_ceil(8) as usize]);
        self.bytes
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    /// The next bit.
    at: usize,
}

impl<'a> BitReader<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next bits, with zeros above them, and how many: at least 57, or all that are left.
    fn peek(&self) -> (u64, u32) {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let skipped = (self.at % 8) as u32;
        if let Some(&word) = rest.first_chunk() {
            return (u64::from_le_bytes(word) >> skipped, u64::BITS - skipped);
        }
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        (u64::from_le_bytes(word) >> skipped, (8 * rest.len() as u32).saturating_sub(skipped))
    }

    /// A value of at most 32 bits.
    fn take(&mut self, bits: u32) -> Option<u32> {
        let (word, left) = self.peek();
        self.at += bits as usize;
        (bits <= left).then_some((word & ((1 << bits) - 1)) as u32)
    }

    /// The number of zeros before the next one, which is taken as well.
    fn take_unary(&mut self) -> Option<u32> {
        let mut zeros = 0_u32;
        loop {
            let (word, left) = self.peek();
            if word != 0 {
                let here = word.trailing_zeros();
                self.at += here as usize + 1;
                return zeros.checked_add(here);
            }
            if left == 0 {
                return None;
            }
            zeros = zeros.checked_add(left)?;
            self.at += left as usize;
        }
    }

    /// Whether nothing is left but the zeros that fill the last byte.
    fn is_spent(&self) -> bool {
        let (word, left) = self.peek();
        word == 0 && left < 8 && self.at <= 8 * self.bytes.len()
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

    /// The bits of a list's rows and scores, one after the other: slow, and as `docs/wire-format.md` says it.
    fn slow_bits(list: &[Ranked], items: u32) -> [Vec<bool>; 2] {
        let (mut rows, mut scores, mut level) = (Vec::new(), Vec::new(), 0);
        for item in list {
            rows.extend((0..width(items)).map(|bit| item.row >> bit & 1 == 1));
            let (best, worst) = (f64::from(list[0].score), f64::from(list[list.len() - 1].score));
            let down = (best - f64::from(item.score)) / (best - worst) * 255.0;
            let down = if best > worst { down.round() as usize } else { 0 };
            scores.extend(std::iter::repeat_n(false, down - level));
            scores.push(true);
            level = down;
        }
        [rows, scores]
    }

    fn slow_body(list: &[Ranked], items: u32) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().rev().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        slow_bits(list, items).iter().flat_map(|bits| bits.chunks(8).map(byte).collect::<Vec<u8>>()).collect()
    }

    /// Rows and levels, as far as the body is that of a list.
    fn slow_read(body: &[u8], items: u32, count: usize) -> Option<Vec<(u32, u32)>> {
        let (rows, scores) = body.split_at_checked(row_bytes(count, items))?;
        let bits = |bytes: &[u8]| bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)).collect();
        let (rows, mut scores): (Vec<u8>, Vec<u8>) = (bits(rows), bits(scores));
        let width = width(items) as usize;
        let row = |at: usize| (0..width).map(|bit| u32::from(rows[at * width + bit]) << bit).sum();
        let (mut list, mut level, mut last) = (Vec::new(), 0, 0);
        for at in 0..count {
            let zeros = scores[last..].iter().position(|&bit| bit == 1)?;
            level += zeros as u32;
            last += zeros + 1;
            list.push((row(at), level));
        }
        let padding = scores.split_off(last);
        let whole = padding.len() < 8 && padding.iter().all(|&bit| bit == 0);
        (whole && level <= LEVELS && list.iter().all(|&(row, _)| row < items)).then_some(list)
    }

    /// With a header from 1.0 to 0.0, and a right checksum.
    fn enveloped(body: &[u8], count: u16) -> Vec<u8> {
        let rest = [&count.to_le_bytes()[..], &[0, 0, 128, 63, 0, 0, 0, 0], body].concat();
        [&checksum(&rest, 1).to_le_bytes()[..], &rest].concat()
    }

    proptest! {
        #[test]
        fn word_by_word_makes_the_bytes_of_bit_by_bit(
            items in prop_oneof![1u32..40, 1u32..=u32::MAX], rows in proptest::collection::vec(any::<u32>(), 0..300),
            scores in prop_oneof![
                proptest::collection::vec(-1e30f32..1e30, 300), proptest::collection::vec(0.0f32..1.0, 300),
                proptest::collection::vec((0u8..3).prop_map(f32::from), 300),
            ],
        ) {
            let rows: Vec<u32> = rows.iter().map(|row| row % items).collect();
            let list = list(&rows, scores);
            prop_assert_eq!(&pack(&list, items, 7).unwrap()[HEADER_BYTES..], &slow_body(&list, items));
        }

        #[test]
        fn word_by_word_reads_what_bit_by_bit_does_and_refuses_the_same(
            rows in proptest::collection::vec(0u32..900, 0..60), cut in 0usize..4, flip in 0usize..800, items in 1u32..1000,
        ) {
            let scores = rows.iter().map(|&row| row as f32).collect();
            let mut body = slow_body(&list(&rows, scores), 1000);
            if let Some(byte) = body.get_mut(flip / 8) {
                *byte ^= 1 << (flip % 8);
            }
            body.truncate(body.len().saturating_sub(cut));
            for items in [items, 1000] {
                let found = unpack(&enveloped(&body, rows.len() as u16), items, 1).ok();
                let wanted = slow_read(&body, items, rows.len()).map(|list| {
                    list.into_iter().map(|(row, level)| Ranked { row, score: score_of(level, 1.0, 0.0) }).collect::<Vec<_>>()
                });
                prop_assert_eq!(found, wanted);
            }
        }

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
            if let Ok(list) = unpack(&enveloped(&body, count), items, 1) {
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
