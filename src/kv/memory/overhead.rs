//! What comes on top of keys: connections, replication, copies made while the server forks, and what the process takes
//! from the machine. The first two count against `maxmemory`; the last two want room beside it.
//!
//! These are measured and not counted out like keys, so they are rounded up.

/// A connection that was active within the last seconds: its struct, a query buffer and a reply buffer of 16 KiB each.
/// Measured on Redis 7.0.15: 38.2 KB. Valkey 8.1 and Redis 8.2 share query buffers and stay below.
const ACTIVE_CONNECTION: u64 = 39_000;
/// One that was idle for five seconds, when both buffers are given back (`clientsCronResizeQueryBuffer`). Measured: 2.3 KB.
const IDLE_CONNECTION: u64 = 2_400;
/// What the machine keeps in use beyond `used_memory` on a server that was loaded once: measured 1.07 to 1.10.
const FRESH: f64 = 1.10;
/// The same after releases have replaced each other with slots of another size, without defragmentation: measured 2.2 to
/// 3.2 of a small set, most of it the old one's pages; 1.5 is where operators are advised to act.
const CHURNED: f64 = 1.5;
/// New keys touch the tables and half-filled runs of pages only. Measured while 2,000 to 50,000 keys were added during a
/// fork: 8 to 9 % of `used_memory` on Redis 7.0, 10 to 15 % on 8.2.
const COPIED_BY_NEW_KEYS: f64 = 0.15;
/// Memory pages that one overwritten key touches: 2 % and 10 % of 24 MB of short strings overwritten copied 55 % and 90 %.
const PAGES_OF_AN_OVERWRITE: f64 = 1.6;
/// Memory is copied by this; transparent huge pages would make it 2 MiB, and are to be off.
const PAGE_BYTES: f64 = 4_096.0;

/// How keys are written while the server may fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Only keys that were not there, as a release beside the old one is.
    New,
    /// So many keys in place.
    InPlace {
        /// How many.
        keys: u64,
    },
}

/// What the past of a server has been, as far as fragmentation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// Loaded once, or always with pages of one size class.
    Fresh,
    /// Releases of different slot sizes have come and gone.
    Churned,
}

/// Bytes of connections, counted against `maxmemory`.
pub const fn connection_bytes(active: u64, idle: u64) -> u64 {
    active * ACTIVE_CONNECTION + idle * IDLE_CONNECTION
}

/// Bytes that replication may still come to use, counted against `maxmemory`, when `used_bytes` of a backlog of
/// `size_bytes` are in use: with a replica it fills up. Measured with the default of 1 MiB: 1.02 of it.
pub const fn backlog_bytes(size_bytes: u64, used_bytes: u64, replicas: u64) -> u64 {
    if replicas == 0 { 0 } else { (size_bytes + size_bytes / 50).saturating_sub(used_bytes) }
}

/// Bytes copied while a fork writes a snapshot or rewrites the log, in a server of `used_bytes`: `1 - exp(-touched)`
/// of its pages when keys are overwritten at random.
pub fn copied_bytes(used_bytes: u64, writes: Writes) -> u64 {
    let used = used_bytes as f64;
    let share = match writes {
        Writes::New => COPIED_BY_NEW_KEYS,
        Writes::InPlace { keys } => {
            let touched = PAGES_OF_AN_OVERWRITE * keys as f64 / (used / PAGE_BYTES).max(1.0);
            1.0 - (-touched).exp()
        }
    };
    (used * share).ceil() as u64
}

/// Memory that the process takes from the machine for `used_bytes`, without what a fork copies.
pub fn resident_bytes(used_bytes: u64, past: Past) -> u64 {
    let factor = match past {
        Past::Fresh => FRESH,
        Past::Churned => CHURNED,
    };
    (used_bytes as f64 * factor).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_as_many_as_were_measured() {
        // of 24 MB of short strings, 100,000 to 150,000 keys
        let used = 24 << 20;
        let share = |writes| copied_bytes(used, writes) as f64 / used as f64;
        assert!((share(Writes::InPlace { keys: 3_000 }) - 0.55).abs() < 0.05);
        assert!((share(Writes::InPlace { keys: 10_000 }) - 0.90).abs() < 0.05);
        assert!((0.08..0.151).contains(&share(Writes::New)));
        assert_eq!(copied_bytes(0, Writes::InPlace { keys: 5 }), 0);
    }

    #[test]
    fn a_backlog_is_counted_once() {
        assert_eq!(backlog_bytes(1 << 20, 0, 0), 0);
        assert!((1_066_208..1_080_000).contains(&backlog_bytes(1 << 20, 0, 1)));
        assert_eq!(backlog_bytes(1 << 20, 1_069_547, 2), 0);
    }
}
