//! The model against what servers were seen to use: growth of `used_memory` over 100,000 keys `u:{n}`, in bytes a key,
//! measured on the builds named. `tests/kv/memory_grid.rs` measures anew, on what is installed.

use super::Allocator::{JemallocQ8, JemallocQ16, Libc};
use super::Flavor::{Redis70, Redis74, Redis80, Redis82, Redis86, Valkey80, Valkey81, Valkey91};
use super::*;

const STANDALONE: [Server; 8] = [
    on(Redis70, JemallocQ8), // 7.0.15; 7.4.1 measures the same
    on(Redis80, JemallocQ16),
    on(Redis82, JemallocQ8),
    on(Valkey80, JemallocQ8),
    on(Valkey81, JemallocQ16),
    on(Valkey91, JemallocQ16),
    on(Redis86, Libc),
    on(Valkey91, Libc),
];

const fn on(flavor: Flavor, allocator: Allocator) -> Server {
    Server { flavor, allocator, cluster_slots: None }
}

fn strings(count: u64, bytes: usize, ttl: bool) -> Keys {
    Keys::strings(Names::numbered(2, 0..count), bytes, if ttl { Expiry::Set } else { Expiry::None })
}

fn bytes_per_key(server: &Server, keys: &Keys) -> f64 {
    server.group_bytes(keys) as f64 / keys.count() as f64
}

#[test]
fn string_keys_cost_what_was_measured() {
    let measured: [(usize, bool, [f64; 8]); 9] = [
        (32, false, [105.7, 121.7, 79.3, 98.5, 77.4, 77.4, 89.7, 69.8]),
        (32, true, [140.2, 164.2, 110.6, 133.0, 122.6, 90.8, 107.6, 99.5]),
        (68, false, [145.7, 153.7, 127.3, 138.5, 125.4, 109.4, 129.6, 117.6]),
        (68, true, [180.2, 196.2, 150.6, 173.0, 154.6, 138.6, 147.9, 131.5]),
        (132, false, [225.7, 233.7, 207.3, 218.5, 205.4, 205.4, 193.6, 189.7]),
        (132, true, [260.2, 276.2, 230.6, 253.0, 234.6, 234.6, 211.9, 205.3]),
        (256, false, [385.7, 393.7, 367.3, 378.5, 365.4, 365.4, 322.4, 317.7]),
        (512, false, [705.7, 713.7, 687.3, 698.5, 685.4, 685.4, 578.3, 573.8]),
        (512, true, [740.2, 756.2, 710.6, 733.0, 714.6, 714.6, 596.1, 589.3]),
    ];
    for (bytes, ttl, row) in measured {
        for (server, measured) in STANDALONE.iter().zip(row) {
            let predicted = bytes_per_key(server, &strings(100_000, bytes, ttl));
            let error = predicted / measured - 1.0;
            let bound = if server.allocator == Libc { 0.025 } else { 0.001 };
            assert!(error.abs() <= bound, "{server:?}, {bytes} bytes, ttl {ttl}: {predicted} for {measured}");
        }
    }
}

#[test]
fn debians_redis_costs_what_was_measured() {
    let measured = [
        (32, 121.7, 164.2),
        (44, 121.7, 164.2),
        (45, 137.7, 180.2),
        (64, 153.7, 196.2),
        (128, 233.7, 276.2),
        (132, 233.7, 276.2),
        (256, 393.7, 436.2),
        (512, 713.7, 756.2),
    ];
    for (bytes, lasting, expiring) in measured {
        for (ttl, measured) in [(false, lasting), (true, expiring)] {
            let predicted = bytes_per_key(&Server::REFERENCE, &strings(100_000, bytes, ttl));
            assert!((predicted - measured).abs() < 0.06, "{bytes} bytes, ttl {ttl}: {predicted} for {measured}");
        }
    }
}

/// One node that owns all slots, against the same server standalone; strings of 132 bytes. The servers of Valkey 8.1 and
/// 9.1 are built with glibc's malloc.
#[test]
fn a_cluster_adds_what_was_measured() {
    let measured = [
        (Redis70, JemallocQ16, [(100_000, 16.0, 16.0), (400_000, 16.0, 16.0)]),
        (Redis74, JemallocQ8, [(100_000, 12.7, 24.9), (400_000, 3.15, 6.27)]),
        (Redis82, JemallocQ8, [(100_000, 417.1, 428.5), (400_000, 105.2, 108.1)]),
        (Valkey80, JemallocQ8, [(100_000, 14.8, 29.5), (400_000, 3.80, 7.59)]),
        (Valkey81, Libc, [(100_000, 17.5, 34.3), (400_000, 4.84, 8.98)]),
        (Valkey91, Libc, [(100_000, 20.2, 40.9), (400_000, 5.52, 10.9)]),
    ];
    for (flavor, allocator, rows) in measured {
        for (count, lasting, expiring) in rows {
            for (ttl, measured) in [(false, lasting), (true, expiring)] {
                let alone = on(flavor, allocator);
                let node = Server { cluster_slots: Some(16_384), ..alone };
                let keys = strings(count, 132, ttl);
                let added = bytes_per_key(&node, &keys) - bytes_per_key(&alone, &keys);
                let whole = bytes_per_key(&node, &keys);
                let bound = if allocator == Libc { 0.01 } else { 0.005 };
                assert!((added - measured).abs() < bound * whole, "{node:?}, {count} keys, ttl {ttl}: {added}");
            }
        }
    }
}

const USERS: u64 = 10_000_000;

/// [`USERS`], as computed from the same rules when they were first established.
#[test]
fn layouts_rank_as_published() {
    // payload, string, string with a TTL, slots of a page, page, page with a TTL
    let published = [
        (Server::REFERENCE, 36, 125.4, 170.8, 227, 36.4, 36.6),
        (Server::REFERENCE, 68, 157.4, 202.8, 120, 68.9, 69.3),
        (Server::REFERENCE, 132, 237.4, 282.8, 62, 133.4, 134.1),
        (Server::REFERENCE, 256, 397.4, 442.8, 31, 266.7, 268.2),
        (Server::REFERENCE, 512, 717.4, 762.8, 15, 551.0, 554.0),
        (on(Redis74, JemallocQ8), 68, 149.4, 186.8, 120, 68.8, 69.1),
        (on(Redis82, JemallocQ8), 36, 89.4, 114.7, 227, 36.3, 36.4),
        (on(Redis82, JemallocQ8), 68, 129.4, 154.7, 120, 68.7, 68.9),
        (on(Redis82, JemallocQ8), 132, 209.4, 234.7, 62, 132.9, 133.3),
        (on(Valkey91, JemallocQ8), 68, 110.9, 141.8, 120, 68.7, 68.8),
        (on(Valkey91, JemallocQ8), 132, 206.9, 229.8, 62, 132.9, 133.3),
    ];
    for (server, payload, string, string_ttl, slots, page, page_ttl) in published {
        for (ttl, string, page) in [(false, string, page), (true, string_ttl, page_ttl)] {
            let one_a_user = bytes_per_key(&server, &strings(USERS, payload, ttl));
            assert!((one_a_user / string - 1.0).abs() < 0.005, "{server:?}, {payload} bytes, {ttl}: {one_a_user}");
            let pages = strings(USERS.div_ceil(slots), slots as usize * payload, ttl);
            let a_user = server.group_bytes(&pages) as f64 / USERS as f64;
            assert!((a_user / page - 1.0).abs() < 0.005, "{server:?}, {payload} bytes in pages, {ttl}: {a_user}");
        }
    }
}

#[test]
fn a_grown_table_stands_twice_for_a_while() {
    // Redis 7.0: at key 131,073 used_memory jumped by 2,097,264 bytes, and came to rest 1,051,880 above
    let mut dataset = Dataset::new(Server::REFERENCE, 0, 0, 0);
    dataset.add(&strings(131_072, 0, false));
    let before = dataset.rest_bytes();
    dataset.add(&Keys::strings(Names::same(8, 1), 0, Expiry::None));
    let key = 32 + 16 + 32; // entry, name, object
    assert_eq!(dataset.peak_bytes() - before, 8 * 262_144 + key);
    assert_eq!(dataset.rest_bytes() - before, 8 * 131_072 + key);
}

#[test]
fn a_table_stays_large_until_it_is_nearly_empty() {
    let mut dataset = Dataset::new(Server::REFERENCE, 0, 0, 0);
    let (old, new) = (strings(120_000, 132, true), strings(120_000, 132, true));
    dataset.add(&old);
    let one = dataset.rest_bytes();
    dataset.add(&new);
    let both = dataset.rest_bytes();
    dataset.remove(&old);
    // measured on Redis 7.0: 273.0 bytes a key, 545.8 with both, 290.7 after the old ones were removed
    assert_eq!(dataset.rest_bytes() - one, 2 * 8 * (262_144 - 131_072));
    assert!(dataset.peak_bytes() >= both);
    dataset.remove(&strings(100_000, 132, true));
    let few = Dataset::new(Server::REFERENCE, 0, 20_000, 20_000);
    let tables = few.rest_bytes(); // of 20,000 keys: nothing but buckets
    assert_eq!(tables, 0);
    assert!(dataset.rest_bytes() < one / 5);
}

#[test]
fn a_ttl_that_is_taken_off_is_given_back_by_older_servers_only() {
    for server in STANDALONE {
        let mut dataset = Dataset::new(server, 0, 0, 0);
        let mut keys = strings(100_000, 132, true);
        dataset.add(&keys);
        let expiring = dataset.rest_bytes();
        dataset.persist(&mut keys);
        assert!(dataset.rest_bytes() < expiring, "{server:?}");
        let never = server.group_bytes(&strings(100_000, 132, false));
        let older = server.flavor <= Redis80 || server.flavor == Valkey80;
        assert_eq!(dataset.rest_bytes() == never, older, "{server:?}");
        dataset.remove(&keys);
        assert_eq!(dataset.rest_bytes(), 0, "{server:?}");
    }
}

#[test]
fn hashes_cost_what_was_measured() {
    // a Feast-style entity of 34 bytes: `_ts:view` and a 4-byte field of 518 bytes; bytes an entity
    let feast = Value::Hash(vec![(8, 10), (4, 518)]);
    let measured = [(Server::REFERENCE, 940.5), (on(Redis74, JemallocQ8), 900.5), (on(Redis82, JemallocQ8), 881.3)];
    for (server, bytes) in measured {
        let keys = Keys { names: Names::same(34, 100_000), values: Values::same(feast.clone()), expiry: Expiry::None };
        let predicted = bytes_per_key(&server, &keys);
        assert!((predicted / bytes - 1.0).abs() < 0.02, "{server:?}: {predicted} for {bytes}");
    }
}
