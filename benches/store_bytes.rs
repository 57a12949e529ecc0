//! What a user costs on a Redis server, and how fast a release gets there: dense pages, of records that are ready and of
//! `f32` vectors that are encoded on the way, hashed pages, and for comparison one string key a user. Publishing predicts,
//! watches, and reads everything back; the strings are only written. Each layout gets a fresh `redis-server`; bytes are the
//! growth of `used_memory` once the release is active and the publisher's connections are closed.
//!
//! `cargo bench --bench store_bytes [-- --json]`. Without `--bench` (as `cargo test` runs it) it takes fewer users.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a report is its purpose; a failure may well be a panic

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use serde::Serialize;
use support::RedisServer;
use support::releases::number;
use support::vectors::numbers;
use tonnage::codec::{Codec, record};
use tonnage::input::Id;
use tonnage::kv::{Kv, RedisKv, probe};
use tonnage::store::{Ids, PublishOptions, ReleaseSpec, Room, Users, activate, prepare};

const DIM: u32 = 64;
const RECORD_BYTES: usize = Codec::Int8.bytes_per_vector(DIM as usize);
/// Different vectors to encode; all users' would be 256 MB.
const VECTORS: u32 = 10_000;
/// The slot of a page has a tag of two bytes; the string is given the same length.
const STRING_BYTES: usize = RECORD_BYTES + 2;

#[derive(Clone, Copy)]
enum Layout {
    Dense,
    Encoded,
    Hashed,
    Strings,
}

#[derive(Serialize)]
struct Row {
    layout: &'static str,
    users: u32,
    keys: u64,
    bytes_per_user: f64,
    users_per_s: f64,
    activate_ms: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let users = if has("--bench") { 1_000_000 } else { 20_000 };
    let mut rows = Vec::new();
    for layout in [Layout::Dense, Layout::Encoded, Layout::Hashed, Layout::Strings] {
        rows.push(measure(layout, users).await);
    }
    if has("--json") {
        println!("{}", serde_json::to_string_pretty(&rows).unwrap());
        return;
    }
    println!("{users} users, {DIM}-d int8, redis-server on this machine");
    println!("{:<24}{:>10}{:>14}{:>14}{:>14}", "layout", "keys", "bytes/user", "users/s", "activate ms");
    for Row { layout, keys, bytes_per_user, users_per_s, activate_ms, .. } in rows {
        println!("{layout:<24}{keys:>10}{bytes_per_user:>14.2}{users_per_s:>14.0}{activate_ms:>14.1}");
    }
}

async fn measure(layout: Layout, users: u32) -> Row {
    let server = RedisServer::start(&[]);
    let before = settled_bytes(&server);
    let kv = server.connect().await;
    let (name, took) = match layout {
        Layout::Dense | Layout::Encoded | Layout::Hashed => publish_pages(&kv, layout, users).await,
        Layout::Strings => write_strings(&kv, users).await,
    };
    let begun = Instant::now();
    if !matches!(layout, Layout::Strings) {
        activate(&kv, "tng", "bench").await.unwrap();
    }
    let activated = begun.elapsed();
    drop(kv);
    let used = settled_bytes(&server) - before;
    Row {
        layout: name,
        users,
        keys: field(&server.say("INFO keyspace").unwrap(), "db0:keys="),
        bytes_per_user: used as f64 / f64::from(users),
        users_per_s: f64::from(users) / took.as_secs_f64(),
        activate_ms: activated.as_secs_f64() * 1e3,
    }
}

async fn publish_pages(kv: &RedisKv, layout: Layout, count: u32) -> (&'static str, Duration) {
    let id = |row| Id::U64(number(row));
    let (name, ids) = match layout {
        Layout::Encoded => ("dense pages, from f32", Ids::Dense),
        Layout::Hashed => ("hashed pages", Ids::Listed(&id)),
        _ => ("dense pages", Ids::Dense),
    };
    let spec = ReleaseSpec {
        name: "bench".to_owned(),
        fingerprint: 0x0123_4567_89ab_cdef,
        codec: Codec::Int8,
        dim: DIM,
        grace: ReleaseSpec::DEFAULT_GRACE,
    };
    let fill = |rows: &[u32], out: &mut [u8]| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(RECORD_BYTES)) {
            fill(row, out);
        }
        Ok(())
    };
    let vectors = numbers((VECTORS * DIM) as usize, 1);
    let encode = |rows: &[u32], out: &mut [u8]| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(RECORD_BYTES)) {
            let vector = &vectors[((row % VECTORS) * DIM) as usize..][..DIM as usize];
            record::encode(Codec::Int8, vector, out)?;
        }
        Ok(())
    };
    let users = Users { count, ids, encode: if matches!(layout, Layout::Encoded) { &encode } else { &fill } };
    let begun = Instant::now();
    let room = Room { probe: Some(probe(kv).await.unwrap()), budget_bytes: None };
    let options = PublishOptions { room, ..PublishOptions::default() };
    prepare(kv, "tng", &spec, &users, &options).await.unwrap().run(&mut |_| ()).await.unwrap();
    (name, begun.elapsed())
}

/// The usual way. Nothing is read back.
async fn write_strings(kv: &RedisKv, count: u32) -> (&'static str, Duration) {
    let begun = Instant::now();
    for first in (0..count).step_by(10_000) {
        let entry = |row: u32| {
            let mut value = vec![0; STRING_BYTES];
            fill(row, &mut value);
            (format!("u:{row}").into_bytes(), value)
        };
        let entries = (first..count.min(first + 10_000)).map(entry).collect();
        kv.set_many(entries, None).await.unwrap();
    }
    ("one string key a user", begun.elapsed())
}

/// Bytes that no server could compress, cheaply.
fn fill(row: u32, out: &mut [u8]) {
    let mut state = number(row + 1);
    for bytes in out.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).rotate_left(23);
        bytes.copy_from_slice(&state.to_le_bytes()[..bytes.len()]);
    }
}

/// `used_memory` once it stands still: buffers of closed connections and the emptied TTL table go within a second.
fn settled_bytes(server: &RedisServer) -> u64 {
    let mut last = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(500));
        let used = field(&server.say("INFO memory").unwrap(), "used_memory:");
        if used == last {
            break;
        }
        last = used;
    }
    last
}

fn field(info: &str, name: &str) -> u64 {
    let (_, rest) = info.split_once(name).unwrap();
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}
