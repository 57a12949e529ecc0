//! What readers feel while 200,000 lists expire: all in one moment, as they were written (no jitter), spread by their
//! jitter, and not at all. A user's vector is asked for 4,000 times a second, whether the last answer is there or not, and
//! its time counts from when it was due, so that a server that stands still is seen by all who wait for it.
//!
//! `cargo bench --bench expiry`. Each case gets a fresh `redis-server`; the cases take turns, three times. Without `--bench`
//! (as `cargo test` runs it) there are fewer lists and one turn.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a report is its purpose; a failure may well be a panic

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::RedisServer;
use support::releases::{NS, Named, number, publish_users};
use tonnage::input::Id;
use tonnage::kv::{Kv, RedisKv};
use tonnage::store::{
    ListKind, ListOptions, ListSource, Lists, Ranked, Room, UserVectors, activate, current, list_bytes,
};

const USERS: u32 = 100_000;
const ITEMS: u32 = 1_000_000;
const MOST: usize = 100;
/// Between two requests.
const EVERY: Duration = Duration::from_micros(250);
/// How long lists are kept: longer than they take to be written.
const TTL: Duration = Duration::from_secs(12);

#[derive(Clone, Copy, PartialEq)]
enum Case {
    /// They stay.
    Never,
    /// In one moment.
    AtOnce,
    /// Each as long after its writing as the others.
    AsWritten,
    /// Spread over half of their time.
    Jittered,
}

/// Latencies while lists went, and how long that took.
struct Seen {
    sorted_us: Vec<f64>,
    took: Duration,
}

impl Seen {
    fn at(&self, part: f64) -> f64 {
        self.sorted_us[((self.sorted_us.len() as f64 * part) as usize).min(self.sorted_us.len() - 1)]
    }
}

fn list(at: u32) -> Vec<Ranked> {
    let row = |rank: u32| (number(at + rank) >> 40) as u32 % ITEMS;
    (0..MOST as u32).map(|rank| Ranked { row: row(rank), score: 1.0 / (1.0 + rank as f32) }).collect()
}

async fn write(kv: &RedisKv, case: Case, count: u32) {
    let release = current(kv, NS).await.unwrap();
    let jitter_percent = if case == Case::Jittered { 50 } else { 0 };
    let ttl = if case == Case::Never { TTL * 100 } else { TTL };
    let lists = Lists::new(kv.clone(), NS, &release, ITEMS, ListKind::Results, ListOptions { ttl, jitter_percent });
    if case != Case::AtOnce {
        let source = ListSource { count, id: &|at| Id::U64(u64::from(at)), most_items: MOST, list: &|at| Ok(list(at)) };
        lists.unwrap().write(&source, &Room::default(), &mut |_| ()).await.unwrap();
        return;
    }
    // as many bytes, all until the same moment
    let until = Instant::now() + TTL;
    for first in (0..count).step_by(2_000) {
        let left = until.saturating_duration_since(Instant::now());
        let key = |at: u32| format!("{NS}:{}:l:{at}", release.id).into_bytes();
        let entries =
            (first..count.min(first + 2_000)).map(|at| (key(at), vec![at as u8; list_bytes(MOST, ITEMS)], left));
        kv.set_expiring(entries.collect()).await.unwrap();
    }
}

fn keys(server: &RedisServer) -> u64 {
    server.say("DBSIZE").unwrap().trim_start_matches(':').trim_end().parse().unwrap()
}

/// A user's vector asked for again and again until `over`; latencies in microseconds.
async fn read_on(reader: &UserVectors<RedisKv>, over: &AtomicBool) -> Vec<f64> {
    let (begun, mut latencies_us) = (Instant::now(), Vec::new());
    for at in 0u32.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let due = begun + EVERY * at;
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        let user = Id::U64((number(at) >> 40) % u64::from(USERS));
        assert!(reader.get(&[user]).await.unwrap()[0].is_some());
        latencies_us.push(due.elapsed().as_secs_f64() * 1e6);
    }
    latencies_us
}

fn run(case: Case, count: u32) -> Seen {
    let server = RedisServer::start(&[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (reader, stay) = runtime.block_on(async {
        let kv = server.connect().await;
        publish_users(&kv, "a", Named::Dense, USERS).await;
        activate(&kv, NS, "a").await.unwrap();
        let stay = keys(&server);
        write(&kv, case, count).await;
        assert_eq!(keys(&server), stay + u64::from(count), "lists went before all were there: raise TTL");
        (UserVectors::open(kv, NS).await.unwrap(), stay)
    });
    while case != Case::Never && keys(&server) == stay + u64::from(count) {
        std::thread::sleep(Duration::from_millis(2));
    }
    let (begun, over) = (Instant::now(), AtomicBool::new(false));
    let is_over = || match case {
        Case::Never => begun.elapsed() > Duration::from_secs(5),
        _ => keys(&server) == stay,
    };
    let mut sorted_us = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over() {
                std::thread::sleep(Duration::from_millis(20));
            }
            over.store(true, Ordering::Relaxed);
        });
        runtime.block_on(read_on(&reader, &over))
    });
    let took = begun.elapsed();
    sorted_us.sort_by(f64::total_cmp);
    Seen { sorted_us, took }
}

fn main() {
    let whole = std::env::args().any(|argument| argument == "--bench");
    let (count, turns) = if whole { (200_000, 3) } else { (5_000, 1) };
    let cases = [
        (Case::Never, "none expires"),
        (Case::AtOnce, "all in one moment"),
        (Case::AsWritten, "as they were written"),
        (Case::Jittered, "spread by a jitter of 50 %"),
    ];
    println!(
        "{count} lists of {} bytes, {} s kept; a read every {} us",
        list_bytes(MOST, ITEMS),
        TTL.as_secs(),
        EVERY.as_micros()
    );
    for turn in 1..=turns {
        for (case, called) in cases {
            let seen = run(case, count);
            println!(
                "{turn}: {called:28} gone in {:6.2} s; {:6} reads, p50 {:7.0} us, p99 {:7.0} us, p99.9 {:7.0} us, most {:7.0} us",
                seen.took.as_secs_f64(),
                seen.sorted_us.len(),
                seen.at(0.5),
                seen.at(0.99),
                seen.at(0.999),
                seen.at(1.0),
            );
        }
    }
}
