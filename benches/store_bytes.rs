//! What a user costs on a Redis server, measured and predicted, and how fast a release gets there: dense pages, of records
//! that are ready and of `f32` vectors that are encoded on the way, hashed pages, and for comparison one string key a user,
//! and one hash of floats a user as feature stores write it. Publishing predicts, watches, and reads everything back; the
//! comparisons are only written. Users a second are those until the last is written: reading back, and the second until
//! the server knows what its buffers take, come after it. Each layout gets a fresh `redis-server`; bytes are the growth of
//! `used_memory` once the release is active and the publisher's connections are closed, and what the memory model said
//! before the first write.
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
use tonnage::kv::memory::{Expiry, Keys, Names, Value, Values};
use tonnage::kv::{Kv, RedisKv, probe};
use tonnage::store::{Ids, PublishOptions, ReleaseSpec, Room, Users, activate, geometry, prepare};

const DIMENSIONS: [u32; 2] = [64, 128];
/// Different vectors to encode; all users' would be 256 MB.
const VECTORS: u32 = 10_000;
/// The tag of a page's slot; the string is given the same length.
const TAG_BYTES: usize = 2;
/// Header of a hashed page and fingerprint of a user: `docs/wire-format.md`.
const PAGE_HEADER: usize = 6;
const FINGERPRINT: usize = 5;

#[derive(Clone, Copy)]
enum Layout {
    Dense,
    Encoded,
    Hashed,
    Strings,
    /// As Feast writes an entity (`online_stores/redis.py`): a key of project and entity, a timestamp a view, and a
    /// 4-byte field for the feature, its floats as protobuf.
    FloatHashes,
}

const ENTITY_KEY: usize = 34;
const TIMESTAMP: (&str, usize) = ("_ts:user", 10);
const FIELD: &str = "emb0";
const PROTOBUF: usize = 6;

#[derive(Serialize)]
struct Row {
    layout: &'static str,
    dimensions: u32,
    users: u32,
    keys: u64,
    bytes_per_user: f64,
    predicted_per_user: f64,
    users_per_s: f64,
    activate_ms: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let users = if has("--bench") { 1_000_000 } else { 20_000 };
    let mut rows = Vec::new();
    for dim in DIMENSIONS {
        for layout in [Layout::Dense, Layout::Encoded, Layout::Hashed, Layout::Strings, Layout::FloatHashes] {
            rows.push(measure(layout, dim, users).await);
        }
    }
    if has("--json") {
        println!("{}", serde_json::to_string_pretty(&rows).unwrap());
        return;
    }
    println!("{users} users, redis-server on this machine; bytes a user");
    let head = ["keys", "measured", "predicted", "off by %", "users/s", "activate ms"];
    println!("{:<22}{:>5}{}", "layout", "dim", head.map(|name| format!("{name:>12}")).concat());
    for Row { layout, dimensions, keys, bytes_per_user, predicted_per_user, users_per_s, activate_ms, .. } in rows {
        let off = (predicted_per_user / bytes_per_user - 1.0) * 100.0;
        println!(
            "{layout:<22}{dimensions:>5}{keys:>12}{bytes_per_user:>12.2}{predicted_per_user:>12.2}{off:>12.3}\
             {users_per_s:>12.0}{activate_ms:>12.1}"
        );
    }
}

async fn measure(layout: Layout, dim: u32, users: u32) -> Row {
    let server = RedisServer::start(&[]);
    let found = probe(&server.connect().await).await.unwrap();
    let before = settled_bytes(&server);
    let mut keys = keys_of(layout, dim, users);
    let mut predicted = found.dataset();
    predicted.add(&keys);
    predicted.persist(&mut keys);
    let kv = server.connect().await;
    let (name, commands, took): Written = match layout {
        Layout::Dense | Layout::Encoded | Layout::Hashed => publish_pages(&kv, layout, dim, users).await,
        Layout::Strings => write_strings(&kv, dim, users).await,
        Layout::FloatHashes => write_hashes(&server, dim, users),
    };
    let begun = Instant::now();
    if !matches!(layout, Layout::Strings | Layout::FloatHashes) {
        activate(&kv, "tng", "bench").await.unwrap();
    }
    let activated = begun.elapsed();
    drop(kv);
    let used = settled_bytes(&server) - before;
    let predicted = predicted.rest_bytes() - found.used_bytes + found.first_use_bytes(commands);
    Row {
        layout: name,
        dimensions: dim,
        users,
        keys: field(&server.say("INFO keyspace").unwrap(), "db0:keys="),
        bytes_per_user: used as f64 / f64::from(users),
        predicted_per_user: predicted as f64 / f64::from(users),
        users_per_s: f64::from(users) / took.as_secs_f64(),
        activate_ms: activated.as_secs_f64() * 1e3,
    }
}

const fn record_bytes(dim: u32) -> usize {
    Codec::Int8.bytes_per_vector(dim as usize)
}

/// What the model is told: it knows neither the contents nor how many users each hashed page will have.
fn keys_of(layout: Layout, dim: u32, users: u32) -> Keys {
    let slot = record_bytes(dim) + TAG_BYTES;
    let prefix = "tng:0123456789ab:".len();
    let (names, values) = match layout {
        Layout::Dense | Layout::Encoded => {
            let slots = geometry::dense_slots(geometry::Home::REFERENCE, slot);
            let last = (users - 1) % slots + 1;
            let pages = users.div_ceil(slots);
            let page = |slots: u32| Value::String(slots as usize * slot);
            let values = Values::mixed([(page(slots), f64::from(pages - 1)), (page(last), 1.0)]);
            (Names::numbered(prefix, 0..u64::from(pages)), values)
        }
        Layout::Hashed => {
            let pages = (f64::from(users)
                / geometry::hashed_mean(geometry::Home::REFERENCE, PAGE_HEADER, FINGERPRINT + slot))
            .ceil();
            let values = Values::poisson(PAGE_HEADER, FINGERPRINT + slot, f64::from(users) / pages);
            (Names::numbered(prefix, 0..pages as u64), values)
        }
        Layout::Strings => (Names::numbered(2, 0..u64::from(users)), Values::same(Value::String(slot))),
        Layout::FloatHashes => {
            let fields = vec![(TIMESTAMP.0.len(), TIMESTAMP.1), (FIELD.len(), 4 * dim as usize + PROTOBUF)];
            (Names::same(ENTITY_KEY, u64::from(users)), Values::same(Value::Hash(fields)))
        }
    };
    let lasting = matches!(layout, Layout::Strings | Layout::FloatHashes);
    let expiry = if lasting { Expiry::None } else { Expiry::Set };
    Keys { names, values, expiry }
}

/// What was written, the commands it took (as far as a probe does not call them), and the time.
type Written = (&'static str, &'static [&'static str], Duration);

async fn publish_pages(kv: &RedisKv, layout: Layout, dim: u32, count: u32) -> Written {
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
        dim,
        grace: ReleaseSpec::DEFAULT_GRACE,
    };
    let fill = |rows: &[u32], out: &mut [u8]| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(record_bytes(dim))) {
            fill(row, out);
        }
        Ok(())
    };
    let vectors = numbers((VECTORS * dim) as usize, 1);
    let encode = |rows: &[u32], out: &mut [u8]| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(record_bytes(dim))) {
            let vector = &vectors[((row % VECTORS) * dim) as usize..][..dim as usize];
            record::encode(Codec::Int8, vector, out)?;
        }
        Ok(())
    };
    let users = Users { count, ids, encode: if matches!(layout, Layout::Encoded) { &encode } else { &fill } };
    let begun = Instant::now();
    let room = Room { probe: Some(probe(kv).await.unwrap()), ..Room::default() };
    let options = PublishOptions { room, ..PublishOptions::default() };
    let mut written = Duration::ZERO;
    let prepared = prepare(kv, "tng", &spec, &users, &options).await.unwrap();
    prepared.run(&mut |_| written = begun.elapsed()).await.unwrap();
    (name, &["set", "get", "persist", "exists"], written)
}

/// The usual way. Nothing is read back.
async fn write_strings(kv: &RedisKv, dim: u32, count: u32) -> Written {
    let begun = Instant::now();
    for first in (0..count).step_by(10_000) {
        let entry = |row: u32| {
            let mut value = vec![0; record_bytes(dim) + TAG_BYTES];
            fill(row, &mut value);
            (format!("u:{row}").into_bytes(), value)
        };
        let entries = (first..count.min(first + 10_000)).map(entry).collect();
        kv.set_many(entries, None).await.unwrap();
    }
    ("one string key a user", &["set"], begun.elapsed())
}

/// Nothing is read back.
fn write_hashes(server: &RedisServer, dim: u32, count: u32) -> Written {
    let begun = Instant::now();
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    for first in (0..count).step_by(1_000) {
        let mut pipeline = redis::pipe();
        for row in first..count.min(first + 1_000) {
            let mut floats = vec![0; 4 * dim as usize + PROTOBUF];
            fill(row, &mut floats);
            let key = format!("{row:0>ENTITY_KEY$}");
            pipeline.cmd("HSET").arg(key).arg(TIMESTAMP.0).arg(&floats[..TIMESTAMP.1]).arg(FIELD).arg(&floats).ignore();
        }
        pipeline.exec(&mut connection).unwrap();
    }
    ("f32 hash a user", &["hset"], begun.elapsed())
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
