//! How many slots a page has: the count that costs the fewest bytes a user on a Redis server.
//!
//! A server charges every allocation at its allocator's size class, and a power of two is the worst number of slots:
//! 128 slots of 64 bytes and the string's own framing land just above the 8,192 class and pay for 10,240. So the count
//! is searched, not guessed, with the [memory model](crate::kv::memory) of one server, so that a release has the same
//! pages wherever it goes. Other servers differ by a few bytes a page, which moves the total by less than 1 % and the
//! best count hardly at all.

use crate::kv::memory::{Expiry, Keys, Names, Server, Value, Values};

use super::page;

/// Longest page. A GETRANGE costs the same from any page, a whole-page GET of 8 KiB takes one network round trip like
/// a small one (measured 16 us against 16 us), and beyond it the saving is under 0.5 %.
pub const MAX_PAGE_BYTES: usize = 8 << 10;

/// A page's key. With 48-bit release ids all keys of the usual namespaces fall in one size class, so the search need
/// not know the name.
const KEY_BYTES: usize = 30;

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

/// What the reference server pays for a page of `value_bytes`, with 12 for the bucket: 8 bytes, in a table that is
/// between half and quite full.
pub fn page_cost(value_bytes: usize) -> usize {
    Server::REFERENCE.key_bytes(KEY_BYTES, &Value::String(value_bytes), Expiry::None) + 12
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
    let values = Values::poisson(header_bytes, entry_bytes, mean);
    let page = Keys { names: Names::same(KEY_BYTES, 1), values, expiry: Expiry::None };
    (Server::REFERENCE.keys_bytes(&page) + 12.0) / mean
}

#[cfg(test)]
mod tests {
    use super::*;

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
