//! What a user has seen: the latest items exactly, older ones in a set that is a fifth as large and sometimes wrong.
//!
//! The one thing to know: the set of older items takes an item that was not seen for one that was at most once in a
//! thousand times ([`Seen::FALSE_POSITIVES`]), and never the other way round. It keeps 22 bits of each item's hash, of at
//! most 4,096 items, sorted, and what stands between two of them in Rice's code: 12.6 bits an item when it is full,
//! where a Bloom filter of the same promise takes 14.4. When one half is full the other is forgotten.

use std::time::Duration;

use super::sealed::{HEADER_BYTES, open, seal};
use super::{StoreError, keys};
use crate::input::Id;

/// Bits of an older item's hash.
const BITS: u32 = 22;
const UNIVERSE: u32 = 1 << BITS;
/// Items of each half of the older ones.
const HALF: usize = 2_048;
/// Bytes of the body before the items: three counts `u16`.
const COUNTS_BYTES: usize = 6;
/// More recent items than this are damage.
const MOST_RECENT: usize = 4_096;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct SeenOptions {
    /// The latest items, each in 8 bytes and exactly. 64, at most 4,096: what a user remembers having seen.
    pub recent: usize,
    /// For how long after the last one. 90 days: then it may be shown again.
    pub ttl: Duration,
}

impl Default for SeenOptions {
    fn default() -> Self {
        Self { recent: 64, ttl: Duration::from_hours(90 * 24) }
    }
}

/// What one user has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Hashes, oldest first.
    recent: Vec<u64>,
    /// Low bits of hashes, ascending: the half that is being filled, and the one before.
    older: [Vec<u32>; 2],
}

impl Seen {
    /// The chance at most that an item which was not seen is taken for one that was.
    pub const FALSE_POSITIVES: f64 = (2 * HALF) as f64 / UNIVERSE as f64;

    /// What was found under [`seen_key`] of a user.
    pub fn of_user(ns: &str, user: Id<'_>, value: &[u8]) -> Result<Self, StoreError> {
        Self::open(&seen_key(ns, user), value)
    }

    /// The latest items, exactly, oldest first, by [`item_hash`](super::item_hash).
    pub fn recent(&self) -> &[u64] {
        &self.recent
    }

    /// Whether there are older ones, for which [`has_older`](Self::has_older) has to be asked.
    pub fn is_longer(&self) -> bool {
        self.older.iter().any(|half| !half.is_empty())
    }

    /// Whether an item is among the older ones; wrongly yes at most once in a thousand.
    pub fn has_older(&self, item: u64) -> bool {
        self.older.iter().any(|half| half.binary_search(&low(item)).is_ok())
    }

    /// Adds an item.
    pub fn add(&mut self, item: u64, options: &SeenOptions) {
        self.recent.retain(|&other| other != item);
        self.recent.push(item);
        let surplus = self.recent.len().saturating_sub(options.recent.min(MOST_RECENT));
        for item in self.recent.drain(..surplus) {
            let [filling, before] = &mut self.older;
            if let Err(at) = filling.binary_search(&low(item)) {
                if filling.len() == HALF {
                    *before = std::mem::take(filling);
                    filling.push(low(item));
                } else {
                    filling.insert(at, low(item));
                }
            }
        }
    }

    pub(super) fn seal(&self, key: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(COUNTS_BYTES + 8 * self.recent.len());
        for count in [self.recent.len(), self.older[0].len(), self.older[1].len()] {
            body.extend_from_slice(&(count as u16).to_le_bytes());
        }
        self.recent.iter().for_each(|item| body.extend_from_slice(&item.to_le_bytes()));
        self.older.iter().for_each(|half| pack(half, &mut body));
        seal(key, &body)
    }

    pub(super) fn open(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let malformed = || StoreError::corrupt("seen items", &"as many as it says", &value.len());
        let body = open("seen items", key, value)?;
        let (&[r0, r1, f0, f1, b0, b1], rest) = body.split_first_chunk::<COUNTS_BYTES>().ok_or_else(malformed)?;
        let [recent, filling, before] =
            [[r0, r1], [f0, f1], [b0, b1]].map(|count| usize::from(u16::from_le_bytes(count)));
        let (recent, mut rest) = rest.split_at_checked(8 * recent).ok_or_else(malformed)?;
        let recent = recent.as_chunks::<8>().0.iter().map(|&item| u64::from_le_bytes(item)).collect();
        let mut half = |count: usize| {
            let fits = count <= HALF;
            fits.then(|| unpack(count, &mut rest)).flatten().ok_or_else(malformed)
        };
        let older = [half(filling)?, half(before)?];
        if rest.is_empty() { Ok(Self { recent, older }) } else { Err(malformed()) }
    }
}

/// The key of what a user has seen.
pub fn seen_key(ns: &str, user: Id<'_>) -> Vec<u8> {
    keys::of_user(ns, 'h', user)
}

/// Bytes of the value, about, when a user has seen so many items.
pub fn seen_bytes(items: usize, options: &SeenOptions) -> usize {
    let recent = items.min(options.recent);
    let older = (items - recent).min(2 * HALF);
    let half = |count: usize| {
        let (low, mean) = (rice_bits(count), f64::from(UNIVERSE) / count.max(1) as f64);
        // gaps fall off geometrically, and so do the ones of their high parts
        let ones = 1.0 / ((f64::from(1_u32 << low) / mean).exp() - 1.0);
        (count as f64 * (f64::from(low) + 1.0 + ones) / 8.0).ceil() as usize
    };
    HEADER_BYTES + COUNTS_BYTES + 8 * recent + half(older.min(HALF)) + half(older.saturating_sub(HALF))
}

fn low(item: u64) -> u32 {
    item as u32 & (UNIVERSE - 1)
}

/// Low bits of a gap that are written as they are (R. F. Rice, JPL 79-22, 1979).
fn rice_bits(count: usize) -> u32 {
    (UNIVERSE / count.max(1) as u32).max(1).ilog2()
}

/// The gaps between ascending numbers, bits from the lowest of each byte upwards: each as ones, as many as its high part
/// counts, a zero, and its low bits.
fn pack(numbers: &[u32], out: &mut Vec<u8>) {
    let low_bits = rice_bits(numbers.len());
    let (mut window, mut filled, mut last) = (0_u64, 0_u32, 0_u32);
    let mut put = |value: u64, bits: u32| {
        window |= value << filled;
        filled += bits;
        while filled >= 8 {
            out.push(window as u8);
            window >>= 8;
            filled -= 8;
        }
    };
    for &number in numbers {
        let gap = number - last;
        last = number;
        (0..gap >> low_bits).for_each(|_| put(1, 1));
        put(0, 1);
        put(u64::from(gap & ((1 << low_bits) - 1)), low_bits);
    }
    if filled > 0 {
        out.push(window as u8);
    }
}

/// Reads `count` numbers and leaves what follows them; `None` when they are not there, or not ascending.
fn unpack(count: usize, bytes: &mut &[u8]) -> Option<Vec<u32>> {
    let low_bits = rice_bits(count);
    let (mut reader, mut last) = (BitReader { bytes, at: 0 }, 0_u32);
    let mut numbers = Vec::with_capacity(count);
    for at in 0..count {
        let high = reader.ones(UNIVERSE >> low_bits)?;
        let gap = high << low_bits | reader.take(low_bits)?;
        last = last.checked_add(gap).filter(|&number| number < UNIVERSE && (at == 0 || gap > 0))?;
        numbers.push(last);
    }
    *bytes = reader.finish()?;
    Some(numbers)
}

/// Bits from the lowest of each byte upwards.
struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// The next bits, of which at least 57 are there unless the bytes end, and how many are.
    fn window(&self) -> (u64, u32) {
        let mut window = [0; 8];
        let rest = &self.bytes[self.at / 8..];
        let len = rest.len().min(8);
        window[..len].copy_from_slice(&rest[..len]);
        let skip = (self.at % 8) as u32;
        (u64::from_le_bytes(window) >> skip, 8 * len as u32 - skip.min(8 * len as u32))
    }

    /// How many ones there are before the next zero, which is passed over as well.
    fn ones(&mut self, most: u32) -> Option<u32> {
        let mut ones = 0;
        loop {
            let (window, len) = self.window();
            let run = window.trailing_ones().min(len);
            ones += run;
            if len == 0 || ones > most {
                return None;
            }
            self.at += run as usize;
            if run < len {
                self.at += 1;
                return Some(ones);
            }
        }
    }

    fn take(&mut self, bits: u32) -> Option<u32> {
        let (window, len) = self.window();
        self.at += bits as usize;
        (bits <= len).then_some(window as u32 & ((1 << bits) - 1))
    }

    /// What follows the last whole or begun byte; what is left of that must be zeros.
    fn finish(self) -> Option<&'a [u8]> {
        let (window, _) = self.window();
        let left = self.at.next_multiple_of(8) - self.at;
        (window & ((1 << left) - 1) == 0).then(|| &self.bytes[self.at.div_ceil(8)..])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::store::item_hash;

    fn seen(items: usize) -> Seen {
        let mut seen = Seen::default();
        (0..items as u64).for_each(|item| seen.add(item_hash(Id::U64(item)), &SeenOptions::default()));
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_seen_comes_back(items in prop::collection::vec(any::<u64>(), 0..700), recent in 0_usize..100) {
            let options = SeenOptions { recent, ..SeenOptions::default() };
            let mut seen = Seen::default();
            items.iter().for_each(|&item| seen.add(item, &options));
            let key = seen_key("t", Id::U64(1));
            let value = seen.seal(&key);
            prop_assert_eq!(&Seen::of_user("t", Id::U64(1), &value).unwrap(), &seen);
            prop_assert!(Seen::of_user("t", Id::U64(2), &value).is_err());
            // the latest in order and exactly, all others among the older
            let mut latest: Vec<u64> = Vec::new();
            for &item in &items {
                latest.retain(|&other| other != item);
                latest.push(item);
            }
            let older = latest.len().saturating_sub(recent);
            prop_assert_eq!(seen.recent(), &latest[older..]);
            prop_assert!(latest[..older].iter().all(|&item| seen.has_older(item)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Seen::open(b"k", &bytes);
            if let Ok(found) = Seen::open(b"k", &seal(b"k", &bytes)) {
                prop_assert_eq!(found.seal(b"k"), seal(b"k", &bytes));
            }
        }

        #[test]
        fn counts_that_pass_the_checksum_are_not_trusted(counts in any::<[u16; 3]>(), body in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes: Vec<u8> = counts.iter().flat_map(|count| (count % 300).to_le_bytes()).collect();
            bytes.extend(body);
            if let Ok(found) = Seen::open(b"k", &seal(b"k", &bytes)) {
                prop_assert!(found.older.iter().all(|half| half.is_sorted() && half.len() <= HALF));
            }
        }
    }

    #[test]
    fn one_in_a_thousand_at_most_is_taken_for_seen_when_the_set_is_full() {
        let full = seen(64 + 2 * HALF);
        assert!((0..2 * HALF as u64).all(|item| full.has_older(item_hash(Id::U64(item)))));
        let strangers = 1_000_000;
        let wrong = (0..strangers).filter(|item| full.has_older(item_hash(Id::U64(1 << 40 | item)))).count();
        let rate = wrong as f64 / strangers as f64;
        // a standard error of 0.003 %
        assert!(rate <= Seen::FALSE_POSITIVES + 1e-4 && Seen::FALSE_POSITIVES <= 1e-3, "{rate}");
        assert!(rate > 0.0, "a set of 22 bits an item is wrong sometimes");
    }

    #[test]
    fn a_full_half_makes_room_by_forgetting_the_oldest() {
        let all = seen(64 + 3 * HALF + 10);
        let has = |item: usize| all.has_older(item_hash(Id::U64(item as u64)));
        assert!((2 * HALF + 10..3 * HALF + 10).all(has), "at least the last two thousand are there");
        assert!((0..HALF - 20).filter(|&item| has(item)).count() < 20, "the first half was forgotten");
        assert!(all.older.iter().all(|half| half.len() <= HALF));
    }

    #[test]
    fn bytes_are_as_predicted() {
        for items in [0, 1, 64, 200, 1_000, 64 + HALF, 64 + 2 * HALF] {
            let bytes = seen(items).seal(b"k").len();
            let predicted = seen_bytes(items, &SeenOptions::default());
            assert!(bytes.abs_diff(predicted) <= 8 + predicted / 50, "{items}: {bytes} for {predicted}");
        }
        assert_eq!(seen(200).seal(b"k").len().div_ceil(10), 81, "about 805 bytes of 200 items");
    }

    #[test]
    fn items_are_told_apart_by_their_hashes() {
        let hashes: HashSet<u64> = (0..100_000).map(|item| item_hash(Id::U64(item))).collect();
        assert_eq!(hashes.len(), 100_000);
        assert_ne!(item_hash(Id::U64(0x0061)), item_hash(Id::Text("a")));
    }
}
