//! What is kept of a user beside the pages: what it costs a server, and that it goes when its time is over.

use std::time::Duration;

use crate::support::RedisServer;
use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::memory::{Expiry, Keys, Names};
use tonnage::kv::{Kv, KvError, RedisKv, probe};
use tonnage::store::{
    EventKind, Overlay, SeenOptions, SessionOptions, StoreError, StoredEvent, item_hash, overlay_bytes, overlay_key,
    put_overlays, record_all_events, record_events, seen_bytes, seen_key, session_bytes, session_key, sessions,
};

const NS: &str = "t";
const USERS: u64 = 2_000;
const DIM: usize = 64;
const HOUR: Duration = Duration::from_hours(1);

/// A server says what its clients' buffers take as of up to a second ago.
async fn used_bytes(kv: &RedisKv) -> f64 {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let stats = kv.stats().await.unwrap();
    (stats.used_bytes - stats.buffer_bytes) as f64
}

/// Names that are all of one length.
fn name(user: u64) -> String {
    format!("user-{user:06}")
}

fn events(user: u64, count: u64) -> Vec<StoredEvent> {
    let event = |at| StoredEvent { item: item_hash(Id::U64(user * 1_000 + at)), kind: EventKind::Click, at_s: at };
    (0..count).map(event).collect()
}

#[tokio::test]
async fn overlays_sessions_and_seen_items_cost_what_the_model_says() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    // commands are counted from their first use on
    let first = events(0, 1);
    record_events(&kv, NS, Id::Text("first"), &first, &SessionOptions::default()).await.unwrap();
    let overlay = Overlay::encode(1, Codec::Int8, &[0.5; DIM]).unwrap();
    put_overlays(&kv, NS, &[(Id::Text("first"), overlay.clone())], HOUR).await.unwrap();
    let mut dataset = probe(&kv).await.unwrap().dataset();
    let (before, predicted_before) = (used_bytes(&kv).await, dataset.rest_bytes() as f64);
    let seen = SeenOptions::default();
    let (clicks, history) = (20, 200);
    for user in 0..USERS {
        let (id, options) = (name(user), SessionOptions { most: clicks as usize, ..SessionOptions::default() });
        record_events(&kv, NS, Id::Text(&id), &events(user, history), &options).await.unwrap();
        put_overlays(&kv, NS, &[(Id::Text(&id), overlay.clone())], HOUR).await.unwrap();
    }
    let id = name(0);
    let keys = [
        (overlay_key(NS, Id::Text(&id)), overlay_bytes(Codec::Int8, DIM)),
        (session_key(NS, Id::Text(&id)), session_bytes(clicks as usize)),
        (seen_key(NS, Id::Text(&id)), seen_bytes(history as usize, &seen)),
    ];
    for (key, bytes) in &keys {
        dataset.add(&Keys::strings(Names::same(key.len(), USERS), *bytes, Expiry::Set));
        let value = kv.get_many(std::slice::from_ref(key)).await.unwrap().pop().flatten().unwrap();
        assert!(value.len().abs_diff(*bytes) <= 8, "{} for {bytes}", value.len());
    }
    let grown = used_bytes(&kv).await - before;
    let predicted = dataset.rest_bytes() as f64 - predicted_before;
    assert!((grown / predicted - 1.0).abs() < 0.03, "{grown} for {predicted}");
}

#[tokio::test]
async fn all_of_it_expires() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let user = Id::U64(7);
    let overlay = Overlay::encode(1, Codec::Int8, &[0.5; DIM]).unwrap();
    put_overlays(&kv, NS, &[(user, overlay)], HOUR).await.unwrap();
    record_events(&kv, NS, user, &events(1, 3), &SessionOptions::default()).await.unwrap();
    let seconds = |key: Vec<u8>| {
        let answer = server.say(&format!("TTL {}", String::from_utf8(key).unwrap())).unwrap();
        answer.trim().trim_start_matches(':').parse::<i64>().unwrap()
    };
    for (key, hours) in [(overlay_key(NS, user), 1), (session_key(NS, user), 4), (seen_key(NS, user), 90 * 24)] {
        let ttl = seconds(key);
        assert!(ttl > 3_600 * hours - 600 && ttl <= 3_600 * hours, "{ttl} s for {hours} h");
    }
}

#[tokio::test]
async fn a_user_whose_key_is_of_another_type_fails_alone() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    for key in [session_key(NS, Id::U64(3)), seen_key(NS, Id::U64(5))] {
        assert_eq!(server.say(&format!("HSET {} field value", String::from_utf8(key).unwrap())).unwrap(), ":1\r\n");
    }
    let all: Vec<Vec<StoredEvent>> = (0..8).map(|user| events(user, 2)).collect();
    let users: Vec<(Id, &[StoredEvent])> = (0..).map(Id::U64).zip(all.iter().map(Vec::as_slice)).collect();
    for turn in 1..=2 {
        let outcomes = record_all_events(&kv, NS, &users, &SessionOptions::default()).await;
        for (user, outcome) in (0..8).zip(outcomes) {
            let wrong_type = matches!(outcome, Err(StoreError::Kv(KvError::WrongType { .. })));
            assert_eq!(
                (wrong_type, outcome.is_ok()),
                if [3, 5].contains(&user) { (true, false) } else { (false, true) }
            );
        }
        for user in (0..8).filter(|user| *user != 3) {
            let key = session_key(NS, Id::U64(user));
            let value = kv.get_many(&[key]).await.unwrap().pop().flatten();
            let kept = value.map_or(0, |value| sessions(NS, Id::U64(user), &value).unwrap().len());
            assert_eq!(kept, if user == 5 { 0 } else { 2 * turn }, "of a user who fails nothing is written: {user}");
        }
    }
    let outcomes = record_all_events(&kv, "no:name", &users, &SessionOptions::default()).await;
    assert!(outcomes.len() == 8 && outcomes.iter().all(|one| matches!(one, Err(StoreError::BadName { .. }))));
}
