//! How many slots a page has: the count that costs the fewest bytes a user on a Redis server.
//!
//! A server charges every allocation at its allocator's size class, and a power of two is the worst number of slots:
//! 128 slots of 64 bytes and the string's own framing land just above the 8,192 class and pay for 10,240. So the count
//! is searched, not guessed. Sources: jemalloc's `SIZE_CLASSES` (four to a doubling, quantum 16 as distributions build
//! it), Redis 7.0 `sds.c:sdsReqType`, `object.c` and `dict.h`. Other servers differ by a few bytes a page, which moves
//! the total by less than 1 % and the best count hardly at all.

use super::page;

/// Longest page. A GETRANGE costs the same from any page, a whole-page GET of 8 KiB takes one network round trip like
/// a small one (measured 16 us against 16 us), and beyond it the saving is under 0.5 %.
pub const MAX_PAGE_BYTES: usize = 8 << 10;

/// Bytes of a page's key that its allocation has room for beside the header: with 48-bit release ids all keys of the
/// usual namespaces fall in the 32-byte class, so the search need not know the name.
const KEY_BYTES: usize = 32;

/// Bytes of a user in a dense page.
pub const fn dense_user_bytes(record_bytes: usize) -> usize {
    record_bytes + page::TAG_BYTES
}

/// Bytes of a user in a hashed page.
pub const fn hashed_user_bytes(record_bytes: usize) -> usize {
    page::FINGERPRINT_BYTES + dense_user_bytes(record_bytes)
}

/// Bytes of a hashed page before its users.
pub const HASHED_HEADER_BYTES: usize = page::HEADER_BYTES;

/// What jemalloc gives for a request of `bytes`.
pub fn size_class(bytes: usize) -> usize {
    match bytes {
        0..=8 => 8,
        9..=64 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(bytes.next_power_of_two() / 8),
    }
}

/// What a server pays for a page of `value_bytes`: dict entry (24 rounded to 32), key, object header (16), the string
/// with its header and closing NUL, and 12 for the bucket (8 bytes, in a table that is between half and quite full).
pub fn page_cost(value_bytes: usize) -> usize {
    let header = match value_bytes {
        0..32 => 1,
        32..256 => 3,
        256..65_536 => 5,
        _ => 9,
    };
    32 + KEY_BYTES + 16 + size_class(header + value_bytes + 1) + 12
}

/// Slots of a dense page of `slot_bytes` each: the fewest bytes a slot within [`MAX_PAGE_BYTES`]; at least one.
pub fn dense_slots(slot_bytes: usize) -> u32 {
    let most = (MAX_PAGE_BYTES / slot_bytes.max(1)).max(1);
    let per_slot = |slots: usize| page_cost(slots * slot_bytes) as f64 / slots as f64;
    (1..=most).min_by(|&a, &b| per_slot(a).total_cmp(&per_slot(b))).unwrap_or(1) as u32
}

/// Users a hashed page should have on average. `entry_bytes` is a slot and its fingerprint.
///
/// Users fall into pages by hash, so a page's count is Poisson around its mean, and the cost is the expectation over
/// that: `E[page_cost(header + n * entry)] / mean`. The mean page stays within [`MAX_PAGE_BYTES`]; single pages may not.
pub fn hashed_mean(header_bytes: usize, entry_bytes: usize) -> f64 {
    let most = (MAX_PAGE_BYTES - header_bytes) / entry_bytes.max(1);
    // eighths of a user: finer steps change the cost by less than a thousandth
    let means = (8..=(most * 8).max(8)).map(|eighths| eighths as f64 / 8.0);
    let cost = |mean| hashed_cost(header_bytes, entry_bytes, mean);
    means.min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(1.0)
}

/// Expected bytes a user in hashed pages of `mean` users.
pub fn hashed_cost(header_bytes: usize, entry_bytes: usize, mean: f64) -> f64 {
    // ten standard deviations around the mean leave out less than f64 can hold
    let reach = 10.0 * mean.sqrt() + 10.0;
    let first = (mean - reach).max(0.0) as usize;
    let mut p = (first as f64 * mean.ln() - mean - ln_factorial(first)).exp();
    let mut expected = 0.0;
    for n in first..=(mean + reach) as usize {
        expected += p * page_cost(header_bytes + n * entry_bytes) as f64;
        p *= mean / (n + 1) as f64;
    }
    expected / mean
}

fn ln_factorial(n: usize) -> f64 {
    (2..=n).map(|i| (i as f64).ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_jemallocs() {
        let classes = [
            (1, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (33, 48),
            (49, 64),
            (65, 80),
            (129, 160),
            (250, 256),
            (257, 320),
            (1_025, 1_280),
            (8_192, 8_192),
            (8_193, 10_240),
            (14_337, 16_384),
        ];
        for (asked, given) in classes {
            assert_eq!(size_class(asked), given, "{asked}");
        }
    }

    #[test]
    fn the_best_count_is_the_published_one() {
        // field measurements of Redis 7.0 pages, bytes a user: int4 64-d 36.4, int8 64-d 68.9, int8 128-d 133.4,
        // f32 128-d 551; each for slots of the size given
        for (slot, k, bytes) in [(36, 227, 36.4), (68, 120, 68.9), (132, 62, 133.4), (512, 15, 551.0)] {
            let slots = dense_slots(slot);
            assert_eq!(slots, k, "slot of {slot}");
            let cost = page_cost(slots as usize * slot) as f64 / f64::from(slots);
            assert!((cost - bytes).abs() < 0.01 * bytes, "slot of {slot}: {cost}");
        }
    }

    #[test]
    fn a_power_of_two_is_never_the_best_count() {
        for slot in [34, 64, 68, 128, 130, 256, 258, 512] {
            let best = dense_slots(slot) as usize;
            let power = (MAX_PAGE_BYTES / slot).next_power_of_two();
            let cost = |slots: usize| page_cost(slots * slot) as f64 / slots as f64;
            assert!(cost(best) < cost(power), "slot of {slot}");
        }
    }

    #[test]
    fn a_slot_larger_than_a_page_has_a_page_to_itself() {
        assert_eq!(dense_slots(16_386), 1);
        assert!((hashed_mean(6, 16_391) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_hashed_mean_beats_its_neighbours_and_a_full_page() {
        let mean = hashed_mean(6, 73);
        let cost = hashed_cost(6, 73, mean);
        assert!(cost < 80.0, "{cost} bytes a user at {mean}");
        for other in [mean - 4.0, mean + 4.0, 112.0, 64.0] {
            assert!(cost < hashed_cost(6, 73, other), "{other}");
        }
    }
}
