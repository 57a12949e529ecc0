//! How many slots a page has: the count that costs the fewest bytes a user where the page goes.
//!
//! A server charges every allocation at its allocator's size class, and a power of two is the worst number of slots:
//! 128 slots of 64 bytes and the string's own framing land just above the 8,192 class and pay for 10,240. So the count
//! is searched, not guessed, with the [memory model](crate::kv::memory) of the server. On all that have jemalloc it is the
//! same; glibc, whose classes are finer, has other pages, and an embedded file, whose are coarser, others again.

use crate::kv::memory::{Expiry, Keys, Names, Server, Value, Values};

use super::page;

/// Longest page. A GETRANGE costs the same from any page, a whole-page GET of 8 KiB takes one network round trip like
/// a small one (measured 16 us against 16 us), and beyond it the saving is under 0.5 %.
pub const MAX_PAGE_BYTES: usize = 8 << 10;

/// A page's key. With 48-bit release ids all keys of the usual namespaces fall in one size class, so the search need
/// not know the name.
const KEY_BYTES: usize = 30;

/// The embedded file's own page: a leaf of its tree has one, or so many as a power of two.
const FILE_PAGE_BYTES: usize = 4 << 10;
/// What a leaf has beside a page's bytes: 12 of redb's own, and the key, of a namespace of 32 characters at most and eight
/// digits.
const LEAF_BYTES: usize = 12 + 56;
/// A leaf's place in the branches above it: its key, number and checksum, in branches that are two thirds full.
const BRANCH_BYTES: usize = 90;

/// Where pages go, as far as their size is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// A server, taken to be alone: in a cluster a key has more beside it, and pages are the same.
    Server(Server),
    /// An embedded file.
    File,
}

impl Home {
    /// A server that was not looked at.
    pub const REFERENCE: Self = Self::Server(Server::REFERENCE);

    /// What a page of `value_bytes` takes. On a server with 12 for the bucket: 8 bytes, in a table that is between half
    /// and quite full.
    pub fn page_cost(self, value_bytes: usize) -> usize {
        match self {
            Self::Server(server) => alone(server).key_bytes(KEY_BYTES, &Value::String(value_bytes), Expiry::None) + 12,
            // by itself, as all are that are longer than half of a file's page; redb rounds those up that are longer than
            // one to a power of two of them
            Self::File => (value_bytes + LEAF_BYTES).next_power_of_two().max(FILE_PAGE_BYTES) + BRANCH_BYTES,
        }
    }

    /// The same of a page that may be any of these, in their shares.
    pub fn expected_cost(self, values: &Values) -> f64 {
        match self {
            Self::Server(server) => {
                let page = Keys { names: Names::same(KEY_BYTES, 1), values: values.clone(), expiry: Expiry::None };
                alone(server).keys_bytes(&page) + 12.0
            }
            Self::File => values.strings().map(|(bytes, share)| share * self.page_cost(bytes) as f64).sum(),
        }
    }
}

const fn alone(server: Server) -> Server {
    Server { cluster_slots: None, ..server }
}

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

/// Slots of a dense page of `slot_bytes` each: the fewest bytes a slot within [`MAX_PAGE_BYTES`]; at least one.
pub fn dense_slots(home: Home, slot_bytes: usize) -> u32 {
    let most = (MAX_PAGE_BYTES / slot_bytes.max(1)).max(1);
    let per_slot = |slots: usize| home.page_cost(slots * slot_bytes) as f64 / slots as f64;
    (1..=most).min_by(|&a, &b| per_slot(a).total_cmp(&per_slot(b))).unwrap_or(1) as u32
}

/// Users a hashed page should have on average. `entry_bytes` is a slot and its fingerprint.
///
/// Users fall into pages by hash, so a page's count is Poisson around its mean, and the cost is the expectation over
/// that: `E[page_cost(header + n * entry)] / mean`. The mean page stays within [`MAX_PAGE_BYTES`]; single pages may not.
pub fn hashed_mean(home: Home, header_bytes: usize, entry_bytes: usize) -> f64 {
    let most = (MAX_PAGE_BYTES - header_bytes) / entry_bytes.max(1);
    // eighths of a user: finer steps change the cost by less than a thousandth
    let means = (8..=(most * 8).max(8)).map(|eighths| eighths as f64 / 8.0);
    let cost = |mean| hashed_cost(home, header_bytes, entry_bytes, mean);
    means.min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(1.0)
}

/// Expected bytes a user in hashed pages of `mean` users.
pub fn hashed_cost(home: Home, header_bytes: usize, entry_bytes: usize, mean: f64) -> f64 {
    let values = Values::poisson(header_bytes, entry_bytes, mean);
    home.expected_cost(&values) / mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::memory::{Allocator, Flavor};

    #[test]
    fn the_best_count_is_the_published_one() {
        // field measurements of Redis 7.0 pages, bytes a user: int4 64-d 36.4, int8 64-d 68.9, int8 128-d 133.4,
        // f32 128-d 551; each for slots of the size given
        for (slot, k, bytes) in [(36, 227, 36.4), (68, 120, 68.9), (132, 62, 133.4), (512, 15, 551.0)] {
            let slots = dense_slots(Home::REFERENCE, slot);
            assert_eq!(slots, k, "slot of {slot}");
            let cost = Home::REFERENCE.page_cost(slots as usize * slot) as f64 / f64::from(slots);
            assert!((cost - bytes).abs() < 0.01 * bytes, "slot of {slot}: {cost}");
        }
    }

    #[test]
    fn a_power_of_two_is_never_the_best_count() {
        for slot in [34, 64, 68, 128, 130, 256, 258, 512] {
            let best = dense_slots(Home::REFERENCE, slot) as usize;
            let power = (MAX_PAGE_BYTES / slot).next_power_of_two();
            let cost = |slots: usize| Home::REFERENCE.page_cost(slots * slot) as f64 / slots as f64;
            assert!(cost(best) < cost(power), "slot of {slot}");
        }
    }

    /// Bytes a user in pages made for the reference, and in those made for it, on a server: dense and hashed.
    fn bytes_a_user(home: Home, record: usize) -> [[f64; 2]; 2] {
        let (slot, entry) = (dense_user_bytes(record), hashed_user_bytes(record));
        let dense = |made_for| {
            let slots = dense_slots(made_for, slot) as usize;
            home.page_cost(slots * slot) as f64 / slots as f64
        };
        let hashed =
            |made_for| hashed_cost(home, HASHED_HEADER_BYTES, entry, hashed_mean(made_for, HASHED_HEADER_BYTES, entry));
        [[dense(Home::REFERENCE), dense(home)], [hashed(Home::REFERENCE), hashed(home)]]
    }

    #[test]
    fn all_of_jemalloc_have_the_same_pages_and_others_are_better_off_with_their_own() {
        let records = [32, 34, 64, 66, 98, 102, 128, 130, 194, 256, 258, 384, 386, 512, 514, 600, 800, 1024, 1200];
        let flavors = [Flavor::Redis70, Flavor::Redis82, Flavor::Valkey80, Flavor::Valkey81, Flavor::Valkey91];
        for (flavor, record) in flavors.into_iter().flat_map(|flavor| records.map(|record| (flavor, record))) {
            for allocator in [Allocator::JemallocQ8, Allocator::JemallocQ16, Allocator::Libc] {
                let home = Home::Server(Server { flavor, allocator, cluster_slots: Some(16_384) });
                for [as_reference, own] in bytes_a_user(home, record) {
                    let saved = 1.0 - own / as_reference;
                    let most = if allocator == Allocator::Libc { 0.015 } else { 0.0005 };
                    assert!((0.0..=most).contains(&saved), "{flavor:?} {allocator:?} {record}: {as_reference} {own}");
                }
            }
        }
        let in_file = records.map(|record| bytes_a_user(Home::File, record));
        assert!(in_file.as_flattened().iter().all(|[as_reference, own]| own <= as_reference));
        // two pages of a file, instead of four
        let [[as_reference, own], _] = bytes_a_user(Home::File, 66);
        assert!(own < 0.52 * as_reference, "{own} {as_reference}");
    }

    #[test]
    fn a_slot_larger_than_a_page_has_a_page_to_itself() {
        assert_eq!(dense_slots(Home::REFERENCE, 16_386), 1);
        assert!((hashed_mean(Home::REFERENCE, 6, 16_391) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn the_hashed_mean_beats_its_neighbours_and_a_full_page() {
        let mean = hashed_mean(Home::REFERENCE, 6, 73);
        let cost = hashed_cost(Home::REFERENCE, 6, 73, mean);
        assert!(cost < 80.0, "{cost} bytes a user at {mean}");
        for other in [mean - 4.0, mean + 4.0, 112.0, 64.0] {
            assert!(cost < hashed_cost(Home::REFERENCE, 6, 73, other), "{other}");
        }
    }
}
