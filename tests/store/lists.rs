//! Users' lists are written and read by user and release, expire each in its own time, and go before any page does.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what was measured")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::RedisServer;
use crate::support::releases::{NS, Named, number, publish_users, texts};
use tonnage::input::Id;
use tonnage::kv::{Kv, KvError, RedisKv, probe};
use tonnage::store::{
    ListKind, ListOptions, ListSource, Lists, Manifest, Ranked, Room, StoreError, UserVectors, activate, verify,
};

crate::on_every_home!(
    lists_come_back_by_user_and_none_where_there_is_none,
    a_list_of_another_release_user_or_kind_is_not_answered,
    a_list_that_is_damaged_is_refused,
    a_later_list_takes_the_place_of_an_older_one,
    more_items_than_were_priced_are_refused,
);

/// Rows of the index.
const ITEMS: u32 = 1_000_000;
const MOST: usize = 100;

/// The list of a user at a place: of one item to a hundred, unless all are to be alike.
fn list_of(at: u32, items: usize) -> Vec<Ranked> {
    let row = |rank: u32| (number(at + rank) >> 40) as u32 % ITEMS;
    (0..items as u32).map(|rank| Ranked { row: row(rank), score: 1.0 / (1.0 + rank as f32) }).collect()
}

fn few(at: u32) -> Vec<Ranked> {
    list_of(at, 1 + at as usize % MOST)
}

/// Scores are kept on 256 levels, so rows are what is compared.
fn rows(list: &[Ranked]) -> Vec<u32> {
    list.iter().map(|item| item.row).collect()
}

fn id(at: u32) -> Id<'static> {
    Id::U64(u64::from(at))
}

#[allow(clippy::unnecessary_wraps)] // the signature is the writer's
fn whole(at: u32) -> Result<Vec<Ranked>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(list_of(at, MOST))
}

/// So many users' lists of a hundred items.
fn source(count: u32) -> ListSource<'static, 'static> {
    ListSource { count, id: &id, most_items: MOST, list: &whole }
}

async fn active<K: Kv>(kv: &K, name: &str) -> Manifest {
    let manifest = publish_users(kv, name, Named::Dense, 10_000).await;
    activate(kv, NS, name).await.unwrap();
    manifest
}

fn lists<K: Kv>(kv: K, release: &Manifest, options: ListOptions) -> Lists<K> {
    Lists::new(kv, NS, release, ITEMS, ListKind::Results, options).unwrap()
}

async fn room(kv: &RedisKv) -> Room {
    Room { probe: Some(probe(kv).await.unwrap()), ..Room::default() }
}

async fn lists_come_back_by_user_and_none_where_there_is_none<K: Kv + Clone>(kv: K) {
    let release = active(&kv, "a").await;
    let lists = lists(kv, &release, ListOptions::default());
    let names = texts(5_000);
    let by_name = |at: u32| Id::Text(&names[at as usize]);
    let source = ListSource { count: 5_000, id: &by_name, most_items: MOST, list: &|at| Ok(few(at)) };
    let mut told = Vec::new();
    let written = lists.write(&source, &Room::default(), &mut |done| told.push(done)).await.unwrap();
    assert_eq!((written.lists, told.last()), (5_000, Some(&5_000)));
    let places: Vec<u32> = (0..5_000).step_by(7).collect();
    let users: Vec<Id> = places.iter().map(|&at| by_name(at)).collect();
    for (&at, got) in places.iter().zip(lists.get(&users).await.unwrap()) {
        assert_eq!(rows(&got.unwrap()), rows(&few(at)), "user {at}");
    }
    let some = [Id::Text("nobody"), by_name(3), Id::U64(3)];
    let got = lists.get(&some).await.unwrap();
    assert_eq!(got.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
}

async fn a_list_of_another_release_user_or_kind_is_not_answered<K: Kv + Clone>(kv: K) {
    let (a, b) = (active(&kv, "a").await, active(&kv, "b").await);
    let [of_a, of_b] = [&a, &b].map(|release| lists(kv.clone(), release, ListOptions::default()));
    let candidates = Lists::new(kv.clone(), NS, &a, ITEMS, ListKind::Candidates, ListOptions::default()).unwrap();
    of_a.put(&[(id(1), &few(70))]).await.unwrap();
    assert!(of_a.get(&[id(1)]).await.unwrap()[0].is_some());
    for other in [of_b.get(&[id(1)]).await, candidates.get(&[id(1)]).await, of_a.get(&[id(2)]).await] {
        assert_eq!(other.unwrap(), [None]);
    }
    // not even where its bytes stand under the other's key
    let key = |release: &Manifest, user: u32| format!("{NS}:{}:l:{user}", release.id).into_bytes();
    let bytes = kv.get_many(&[key(&a, 1)]).await.unwrap().remove(0).unwrap();
    kv.set_many(vec![(key(&b, 1), bytes.clone()), (key(&a, 2), bytes)], None).await.unwrap();
    for other in [of_b.get(&[id(1)]).await, of_a.get(&[id(2)]).await] {
        assert!(matches!(other, Err(StoreError::Corrupt { .. })), "{other:?}");
    }
}

async fn a_list_that_is_damaged_is_refused<K: Kv + Clone>(kv: K) {
    let release = active(&kv, "a").await;
    let lists = lists(kv.clone(), &release, ListOptions::default());
    lists.put(&[(id(1), &few(70))]).await.unwrap();
    let key = format!("{NS}:{}:l:1", release.id).into_bytes();
    let mut bytes = kv.get_many(std::slice::from_ref(&key)).await.unwrap().remove(0).unwrap();
    bytes[20] ^= 1;
    kv.set_many(vec![(key, bytes)], None).await.unwrap();
    assert!(matches!(lists.get(&[id(1)]).await, Err(StoreError::Corrupt { .. })));
}

async fn a_later_list_takes_the_place_of_an_older_one<K: Kv + Clone>(kv: K) {
    let release = active(&kv, "a").await;
    let lists = lists(kv, &release, ListOptions::default());
    lists.put(&[(id(1), &few(70)), (id(2), &[])]).await.unwrap();
    lists.put(&[(id(1), &few(5))]).await.unwrap();
    let got = lists.get(&[id(1), id(2)]).await.unwrap();
    assert_eq!((rows(got[0].as_ref().unwrap()), got[1].as_deref()), (rows(&few(5)), Some(&[][..])));
}

async fn more_items_than_were_priced_are_refused<K: Kv + Clone>(kv: K) {
    let release = active(&kv, "a").await;
    let lists = lists(kv, &release, ListOptions::default());
    let source = ListSource { most_items: 50, ..source(10) };
    let error = lists.write(&source, &Room::default(), &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::BadSpec { got: 100, .. }), "{error}");
}

#[tokio::test]
async fn what_cannot_be_a_spread_is_refused() {
    let (kv, _folder) = crate::support::embedded().await;
    let release = active(&kv, "a").await;
    let options = ListOptions { jitter_percent: 101, ..ListOptions::default() };
    assert!(matches!(
        Lists::new(kv, NS, &release, ITEMS, ListKind::Results, options),
        Err(StoreError::BadSpec { got: 101, .. })
    ));
}

#[tokio::test]
async fn ttls_are_spread_as_stated() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let release = active(&kv, "a").await;
    let options = ListOptions { ttl: Duration::from_hours(10), jitter_percent: 20 };
    let lists = lists(kv.clone(), &release, options);
    let begun = std::time::Instant::now();
    lists.write(&source(2_000), &room(&kv).await, &mut |_| ()).await.unwrap();
    // ten hours less up to two: in tenths of them
    let mut tenths = [0; 10];
    for at in 0..2_000 {
        let left = server.say(&format!("PTTL {NS}:{}:l:{at}", release.id)).unwrap();
        let left_ms: u128 = left.trim_start_matches(':').trim_end().parse().unwrap();
        let stated_ms = lists.ttl_of(id(at)).as_millis();
        assert!(left_ms <= stated_ms && stated_ms <= left_ms + begun.elapsed().as_millis() + 2, "user {at}");
        assert!((28_800_000..=36_000_000).contains(&stated_ms));
        tenths[((stated_ms - 28_800_000) / 720_001) as usize] += 1;
    }
    // 200 each, give or take five standard deviations of 13.4
    assert!(tenths.iter().all(|tenth| (133..=267).contains(tenth)), "{tenths:?}");
    let other = Lists::new(kv, NS, &active(&server.connect().await, "b").await, ITEMS, ListKind::Results, options);
    assert_ne!(other.unwrap().ttl_of(id(7)), lists.ttl_of(id(7)));
}

#[tokio::test]
async fn the_price_is_what_the_server_comes_to() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let release = active(&kv, "a").await;
    let lists = lists(kv.clone(), &release, ListOptions::default());
    let room = room(&kv).await;
    let predicted = lists.footprints(&source(150_000), &room).await.unwrap().remove(0);
    let written = lists.write(&source(150_000), &room, &mut |_| ()).await.unwrap();
    let peak = server.info("used_memory_peak");
    drop((kv, lists));
    tokio::time::sleep(Duration::from_secs(2)).await; // connections and their buffers go
    let off = |predicted: u64, got: u64| predicted as f64 / got as f64 - 1.0;
    let (rest, peak) = (off(predicted.rest_bytes, server.info("used_memory")), off(predicted.peak_bytes, peak));
    eprintln!("rest {:+.3} %, peak {:+.3} %: {written:?}, {predicted:?}", rest * 100.0, peak * 100.0);
    assert!(rest.abs() < 0.005 && peak.abs() < 0.01, "{rest} {peak}");
    let growth = written.memory.unwrap();
    // looked at while the tables of 150,000 keys may still be moving: the old ones are 2 of 71 MB
    assert!((-0.05..0.02).contains(&off(growth.predicted_bytes, growth.actual_bytes)), "{growth:?}");
}

fn keys(server: &RedisServer) -> String {
    server.say("DBSIZE").unwrap()
}

#[tokio::test]
async fn lists_that_do_not_fit_are_refused_before_any_write() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let release = active(&kv, "a").await;
    let lists = lists(kv.clone(), &release, ListOptions::default());
    let before = keys(&server);
    let peak = lists.footprints(&source(50_000), &room(&kv).await).await.unwrap()[0].peak_bytes;
    server.say(&format!("CONFIG SET maxmemory {}", peak * 97 / 100)).unwrap();
    let error = lists.write(&source(50_000), &room(&kv).await, &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }) && error.to_string().contains("a (lists)"), "{error}");
    assert_eq!(keys(&server), before);
    server.say(&format!("CONFIG SET maxmemory {}", peak * 101 / 100)).unwrap();
    lists.write(&source(50_000), &room(&kv).await, &mut |_| ()).await.unwrap();
}

/// Writes lists while the server's limit is set to `limit(used_memory)` half-way.
async fn write_while_the_limit_falls(limit: impl Fn(u64) -> u64 + Sync) -> StoreError {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let release = active(&kv, "a").await;
    let lists = lists(kv.clone(), &release, ListOptions::default());
    let (before, lowered) = (keys(&server), AtomicBool::new(false));
    let list = |at: u32| {
        if at > 50_000 && !lowered.swap(true, Ordering::Relaxed) {
            server.say(&format!("CONFIG SET maxmemory {}", limit(server.info("used_memory")))).unwrap();
        }
        whole(at)
    };
    let source = ListSource { count: 100_000, id: &id, most_items: MOST, list: &list };
    let error = lists.write(&source, &room(&kv).await, &mut |_| ()).await.unwrap_err();
    assert_eq!(keys(&server), before, "{error}");
    verify(&kv, NS, &release).await.unwrap();
    error
}

#[tokio::test]
async fn a_limit_that_is_lowered_gives_up_and_leaves_nothing() {
    let error = write_while_the_limit_falls(|used| used + (2 << 20)).await;
    assert!(matches!(error, StoreError::NoRoomLeft { .. }), "{error}");
    let error = write_while_the_limit_falls(|used| used - (1 << 20)).await;
    assert!(matches!(error, StoreError::Kv(KvError::OutOfMemory { .. }) | StoreError::NoRoomLeft { .. }), "{error}");
}

#[tokio::test]
async fn a_second_publisher_is_told() {
    let (kv, _folder) = crate::support::embedded().await;
    let release = active(&kv, "a").await;
    let lists = lists(kv.clone(), &release, ListOptions::default());
    kv.set_many(vec![(format!("{NS}:publisher").into_bytes(), b"other 1-1".to_vec())], None).await.unwrap();
    let error = lists.write(&source(10), &Room::default(), &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
}

#[tokio::test]
async fn a_full_server_evicts_lists_and_never_a_page() {
    for policy in ["volatile-lfu", "volatile-lru"] {
        let server = RedisServer::start(&["--maxmemory-policy", policy]);
        let kv = server.connect().await;
        let old = active(&kv, "a").await;
        let release = active(&kv, "b").await;
        let pages = u64::from(old.pages() + release.pages());
        server.say(&format!("CONFIG SET maxmemory {}", server.info("used_memory") + (8 << 20))).unwrap();
        // far more than fit, as a cache writes them: nothing is priced
        let lists = lists(kv.clone(), &release, ListOptions::default());
        for first in (0..60_000).step_by(1_000) {
            let made: Vec<(Id, Vec<Ranked>)> = (first..first + 1_000).map(|at| (id(at), list_of(at, MOST))).collect();
            let some: Vec<(Id, &[Ranked])> = made.iter().map(|(user, list)| (*user, &list[..])).collect();
            lists.put(&some).await.unwrap();
        }
        // a server goes on evicting for a moment
        let (evicted, there) = loop {
            let evicted = server.info("evicted_keys");
            let there: u64 = keys(&server).trim_start_matches(':').trim_end().parse().unwrap();
            if server.info("evicted_keys") == evicted {
                break (evicted, there);
            }
        };
        eprintln!("{policy}: {evicted} of 60,000 lists evicted, {there} keys left, {pages} pages");
        // every key that went was a list: pages, two manifests and the ledger are there
        assert!(evicted > 10_000, "{policy}: {evicted}");
        assert_eq!(there - pages - 3 + evicted, 60_000, "{policy}");
        for manifest in [&old, &release] {
            verify(&kv, NS, manifest).await.unwrap();
        }
        let reader = UserVectors::open(kv, NS).await.unwrap();
        assert!(reader.get(&[id(7)]).await.unwrap()[0].is_some());
    }
}
