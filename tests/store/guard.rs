//! A release that does not fit is refused before the first write; one for which the room goes meanwhile leaves nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::RedisServer;
use crate::support::releases::{NS, Named, fingerprint, number, publish_users, record, spec};
use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::{Kv, KvError, RedisKv, probe};
use tonnage::store::{
    Footprint, Ids, Manifest, PublishOptions, ReleaseSpec, Remedy, RemoveOptions, Room, StoreError, Strategy,
    UserVectors, Users, activate, current, list, prepare, release, retire, verify,
};

const USERS: u32 = 400_000;

fn wide(name: &str) -> ReleaseSpec {
    ReleaseSpec { dim: 64, ..spec(name) }
}

#[allow(clippy::unnecessary_wraps)] // the signature is the publisher's
fn fill(rows: &[u32], out: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let bytes = out.len() / rows.len();
    for (&row, out) in rows.iter().zip(out.chunks_exact_mut(bytes)) {
        out.iter_mut().zip(0u8..).for_each(|(byte, i)| *byte = (number(row + 1) >> (i % 57)) as u8);
    }
    Ok(())
}

async fn room(kv: &RedisKv, budget_bytes: Option<u64>) -> Room {
    Room { probe: Some(probe(kv).await.unwrap()), budget_bytes, ..Room::default() }
}

const DENSE: Users<'static> = Users { count: USERS, ids: Ids::Dense, encode: &fill };

async fn foresee(kv: &RedisKv, spec: &ReleaseSpec, users: &Users<'_>, options: &PublishOptions) -> Footprint {
    prepare(kv, NS, spec, users, options).await.unwrap().footprint().clone()
}

fn info(server: &RedisServer, section: &str, field: &str) -> u64 {
    let text = server.say(&format!("INFO {section}")).unwrap();
    let (_, rest) = text.split_once(&format!("{field}:")).unwrap();
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn id(row: u32) -> Id<'static> {
    Id::U64(number(row))
}

#[tokio::test]
async fn the_footprint_is_what_the_server_comes_to() {
    for listed in [false, true] {
        let server = RedisServer::start(&[]);
        let kv = server.connect().await;
        let ids = if listed { Ids::Listed(&id) } else { Ids::Dense };
        let users = Users { count: USERS, ids, encode: &fill };
        let options = PublishOptions { room: room(&kv, None).await, ..PublishOptions::default() };
        let predicted = foresee(&kv, &wide("a"), &users, &options).await;
        let manifest = prepare(&kv, NS, &wide("a"), &users, &options).await.unwrap().run(&mut |_| ()).await.unwrap();
        let peak = info(&server, "memory", "used_memory_peak");
        activate(&kv, NS, "a").await.unwrap();
        drop(kv);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let rest = info(&server, "memory", "used_memory");
        let error = |predicted: u64, got: u64| (predicted as f64 - got as f64) / got as f64;
        let growth = manifest.memory.unwrap();
        let (rest, peak) = (error(predicted.rest_bytes, rest), error(predicted.peak_bytes, peak));
        println!("listed {listed}: rest {:.3} %, peak {:.3} %, {growth:?}, {predicted:?}", rest * 100.0, peak * 100.0);
        assert!(rest.abs() < 0.005 && peak.abs() < 0.005, "listed {listed}: rest {rest}, peak {peak}");
        let grown = error(growth.predicted_bytes, growth.actual_bytes);
        assert!(grown.abs() < 0.02, "{growth:?}");
    }
}

fn keys(server: &RedisServer) -> String {
    server.say("DBSIZE").unwrap()
}

fn wrote(server: &RedisServer) -> bool {
    server.say("INFO commandstats").unwrap().contains("cmdstat_set:")
}

/// Publishes with that much room over the predicted peak, by the server's limit or by a budget.
async fn publish_within(share: f64, by_server: bool) -> (RedisServer, Result<Manifest, StoreError>) {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let options = PublishOptions { room: room(&kv, None).await, ..PublishOptions::default() };
    let peak = foresee(&kv, &wide("a"), &DENSE, &options).await.peak_bytes;
    let limit = (peak as f64 * share) as u64;
    let budget = if by_server { None } else { Some(limit) };
    if by_server {
        server.say(&format!("CONFIG SET maxmemory {limit}")).unwrap();
    }
    let options = PublishOptions { room: room(&kv, budget).await, ..PublishOptions::default() };
    let result = prepare(&kv, NS, &wide("a"), &DENSE, &options).await.unwrap().run(&mut |_| ()).await;
    (server, result)
}

#[tokio::test]
async fn a_limit_three_percent_below_the_peak_is_refused_before_any_write() {
    for by_server in [true, false] {
        let (server, result) = publish_within(0.97, by_server).await;
        let error = result.unwrap_err();
        let StoreError::TooLarge { limit_bytes, peak_bytes, short_bytes, remedies, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(limit_bytes + short_bytes, *peak_bytes);
        assert!((0.025..0.035).contains(&(*short_bytes as f64 / *peak_bytes as f64)));
        assert!(remedies.iter().any(|remedy| matches!(remedy, Remedy::Codec { codec: Codec::Int4, .. })), "{error}");
        assert!(matches!(remedies.last(), Some(Remedy::Raise { limit_bytes }) if limit_bytes == peak_bytes), "{error}");
        assert!(keys(&server).starts_with(":0\r") && !wrote(&server), "{}", keys(&server));
    }
}

#[tokio::test]
async fn a_limit_one_percent_above_the_peak_is_enough() {
    for by_server in [true, false] {
        let (server, result) = publish_within(1.01, by_server).await;
        let manifest = result.unwrap();
        let kv = server.connect().await;
        activate(&kv, NS, "a").await.unwrap();
        verify(&kv, NS, &manifest).await.unwrap();
        assert!(wrote(&server));
    }
}

#[tokio::test]
async fn a_refusal_names_what_would_help() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    for name in ["a", "b"] {
        let options = PublishOptions::default();
        prepare(&kv, NS, &wide(name), &DENSE, &options).await.unwrap().run(&mut |_| ()).await.unwrap();
        activate(&kv, NS, name).await.unwrap();
    }
    let budget = room(&kv, None).await.probe.unwrap().used_bytes + (12 << 20);
    let options = PublishOptions { room: room(&kv, Some(budget)).await, ..PublishOptions::default() };
    let error = prepare(&kv, NS, &wide("c"), &DENSE, &options).await.unwrap().check().await.unwrap_err();
    let StoreError::TooLarge { remedies, .. } = &error else { panic!("{error}") };
    let has = |what: &dyn Fn(&Remedy) -> bool| remedies.iter().any(what);
    assert!(has(&|remedy| matches!(remedy, Remedy::Retire { name, .. } if name == "a")), "{error}");
    assert!(has(&|remedy| matches!(remedy, Remedy::Strategy { strategy: Strategy::Rolling, .. })), "{error}");
    assert!(has(&|remedy| matches!(remedy, Remedy::Strategy { strategy: Strategy::Replace, .. })), "{error}");
    assert!(!has(&|remedy| matches!(remedy, Remedy::Codec { .. })), "not even int4 fits: {error}");
    // the first does help: what it frees, and a little more, is what was missing
    let Remedy::Retire { name, frees_bytes } = &remedies[0] else { panic!("{error}") };
    let before = info(&server, "memory", "used_memory");
    retire(&kv, NS, name, &RemoveOptions::default(), &mut |_, _| ()).await.unwrap();
    let freed = before - info(&server, "memory", "used_memory");
    assert!((freed as f64 / *frees_bytes as f64 - 1.0).abs() < 0.01, "{freed} of {frees_bytes}");
    let options = PublishOptions { room: room(&kv, Some(budget)).await, ..PublishOptions::default() };
    prepare(&kv, NS, &wide("c"), &DENSE, &options).await.unwrap().run(&mut |_| ()).await.unwrap();
}

/// Reads random users of a release until told to stop; says how many it read.
async fn read_on(kv: RedisKv, stop: &AtomicBool) -> u64 {
    let reader = UserVectors::open(kv, NS).await.unwrap();
    let mut read = 0;
    while !stop.load(Ordering::Relaxed) {
        let rows: Vec<u32> = (0..20).map(|i| (number(read as u32 + i) >> 40) as u32 % 10_000).collect();
        let ids: Vec<Id> = rows.iter().map(|&row| Id::U64(u64::from(row))).collect();
        for (&row, got) in rows.iter().zip(reader.get(&ids).await.unwrap()) {
            assert_eq!(got, Some(record(fingerprint("active"), row)));
        }
        read += 20;
        tokio::task::yield_now().await;
    }
    read
}

/// Publishes beside an active release, while the server's limit is set to `limit(used_memory)` half-way.
async fn publish_while_the_limit_falls(limit: impl Fn(u64) -> u64 + Sync) -> StoreError {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    publish_users(&kv, "active", Named::Dense, 10_000).await;
    activate(&kv, NS, "active").await.unwrap();
    let before = keys(&server);
    let (lowered, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let encode = |rows: &[u32], out: &mut [u8]| {
        if rows[0] > USERS / 2 && !lowered.swap(true, Ordering::Relaxed) {
            let used = info(&server, "memory", "used_memory");
            server.say(&format!("CONFIG SET maxmemory {}", limit(used))).unwrap();
        }
        fill(rows, out)
    };
    let users = Users { count: USERS, ids: Ids::Dense, encode: &encode };
    let options = PublishOptions { room: room(&kv, None).await, ..PublishOptions::default() };
    let publishing = async {
        let result = prepare(&kv, NS, &wide("b"), &users, &options).await.unwrap().run(&mut |_| ()).await;
        stop.store(true, Ordering::Relaxed);
        result.unwrap_err()
    };
    let (error, read) = tokio::join!(publishing, read_on(kv.clone(), &stop));
    assert!(lowered.load(Ordering::Relaxed) && read > 100, "{read}");
    assert_eq!(keys(&server), before, "{error}");
    assert_eq!(current(&kv, NS).await.unwrap().name, "active");
    assert!(matches!(release(&kv, NS, "b").await, Err(StoreError::NoRelease { .. })));
    let (listed, publishing) = list(&kv, NS).await.unwrap();
    assert_eq!((listed.len(), publishing), (1, None));
    let id = format!("{:012x}", twox_hash::XxHash3_64::oneshot_with_seed(fingerprint("b"), b"b") >> 16);
    let pages: Vec<_> = (0..USERS / 100).map(|page| format!("{NS}:{id}:{page}").into_bytes()).collect();
    assert!(kv.get_many(&pages).await.unwrap().iter().all(Option::is_none));
    error
}

#[tokio::test]
async fn a_limit_that_is_lowered_aborts_before_the_server_is_full() {
    let error = publish_while_the_limit_falls(|used| used + (4 << 20)).await;
    assert!(matches!(error, StoreError::NoRoomLeft { .. }), "{error}");
}

#[tokio::test]
async fn a_limit_that_is_lowered_below_what_is_used_aborts_too() {
    let error = publish_while_the_limit_falls(|used| used - (2 << 20)).await;
    assert!(matches!(error, StoreError::Kv(KvError::OutOfMemory { .. })), "{error}");
}

#[tokio::test]
async fn another_writer_is_noticed() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let wrote = AtomicU64::new(0);
    let encode = |rows: &[u32], out: &mut [u8]| {
        if rows[0] > USERS / 2 && wrote.fetch_add(1, Ordering::Relaxed) == 0 {
            server.say("SETRANGE other 8000000 x").unwrap();
        }
        fill(rows, out)
    };
    let users = Users { count: USERS, ids: Ids::Dense, encode: &encode };
    let options = PublishOptions { room: room(&kv, None).await, ..PublishOptions::default() };
    let error = prepare(&kv, NS, &wide("b"), &users, &options).await.unwrap().run(&mut |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::Drift { .. }), "{error}");
    assert!(keys(&server).starts_with(":1\r"), "{}", keys(&server));
}

#[tokio::test]
async fn a_replication_backlog_that_fills_is_foreseen_and_no_drift() {
    let server = RedisServer::start(&["--repl-backlog-size", "4mb", "--repl-diskless-sync-delay", "0"]);
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &server.port().to_string()]);
    replica.wait_for("INFO replication", "master_link_status:up");
    server.wait_for("INFO replication", "state=online");
    let kv = server.connect().await;
    let options = PublishOptions { room: room(&kv, None).await, ..PublishOptions::default() };
    let users = Users { count: 150_000, ids: Ids::Dense, encode: &fill };
    let before = server.info("mem_replication_backlog");
    let spec = wide("a");
    let prepared = prepare(&kv, NS, &spec, &users, &options).await.unwrap();
    let predicted = prepared.footprint().clone();
    let growth = prepared.run(&mut |_| ()).await.unwrap().memory.unwrap();
    // far more than is tolerated of a release of ten megabytes
    let backlog = server.info("mem_replication_backlog") - before;
    assert!(backlog > 3 << 20, "{backlog}");
    activate(&kv, NS, "a").await.unwrap();
    drop(kv);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rest = server.info("used_memory");
    let error = predicted.rest_bytes as f64 / rest as f64 - 1.0;
    println!("rest {rest}, {:.3} %, {growth:?}, {predicted:?}", error * 100.0);
    assert!(error.abs() < 0.01, "{error}");
    let grown = growth.predicted_bytes as f64 / growth.actual_bytes as f64 - 1.0;
    assert!(grown.abs() < 0.02, "{growth:?}");
}
