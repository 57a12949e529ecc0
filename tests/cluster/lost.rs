//! A master is lost for good: what it had is missed, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use crate::support::cluster::TestCluster;
use crate::support::vectors::{numbers, write_npy};
use crate::support::world::{DIM, NS, World, shape};
use tonnage::catalog::Index;
use tonnage::codec::Codec;
use tonnage::engine::{Answer, Degraded, Engine, EngineOptions, Live, OwnedId, Request, Rung};
use tonnage::kv::{ClusterKv, KeyRange, Kv, KvError, RedisOptions, SLOTS, slot_of};
use tonnage::store::{overlay_key, seen_key, session_key};

const USERS: usize = 2_000;

/// A cluster whose masters answer for their own slots whatever becomes of the others, which no replica takes over.
fn without_failover() -> TestCluster {
    let cluster = TestCluster::start();
    for node in cluster.nodes() {
        node.expect("CONFIG SET cluster-require-full-coverage no", "+OK");
        node.expect("CONFIG SET cluster-replica-no-failover yes", "+OK");
    }
    cluster
}

/// Whether a key is of the first master, which is the one that is lost.
fn is_lost(key: &[u8]) -> bool {
    slot_of(key) < SLOTS / 3
}

#[tokio::test]
async fn ranges_of_the_other_masters_are_answered() {
    let mut cluster = without_failover();
    let kv = cluster.connect().await;
    let keys: Vec<Vec<u8>> = (0..300).map(|n| format!("key:{n}").into_bytes()).collect();
    kv.set_many(keys.iter().map(|key| (key.clone(), key.clone())).collect(), None).await.unwrap();
    let ranges: Vec<KeyRange> = keys.iter().map(|key| KeyRange { key: key.clone(), start: 0, end: 99 }).collect();
    assert!(kv.get_ranges(&ranges).await.iter().all(Result::is_ok));
    cluster.kill(0);
    // at once, and when the others have noticed
    for _ in 0..2 {
        for (key, got) in keys.iter().zip(kv.get_ranges(&ranges).await) {
            match got {
                Ok(bytes) => assert!(bytes == *key && !is_lost(key)),
                Err(error) => assert!(matches!(error, KvError::Unavailable { .. }) && is_lost(key), "{error}"),
            }
        }
        assert!(kv.get_many(&keys).await.is_err(), "whoever needs all of them is told");
        cluster.node(1).wait_for("CLUSTER INFO", "cluster_slots_fail:5461");
    }
}

#[tokio::test]
async fn ranges_of_a_master_that_stands_still_are_late_and_no_others() {
    let cluster = without_failover();
    let options = RedisOptions { response_timeout_ms: 5_000, ..RedisOptions::default() };
    let kv = ClusterKv::connect(&cluster.url(), options).await.unwrap();
    let keys: Vec<Vec<u8>> = (0..30).map(|n| format!("key:{n}").into_bytes()).collect();
    kv.set_many(keys.iter().map(|key| (key.clone(), key.clone())).collect(), None).await.unwrap();
    let ranges: Vec<KeyRange> = keys.iter().map(|key| KeyRange { key: key.clone(), start: 0, end: 99 }).collect();
    assert!(kv.get_ranges(&ranges).await.iter().all(Result::is_ok));
    cluster.node(0).pause();
    for (key, got) in keys.iter().zip(kv.get_ranges(&ranges).await) {
        match got {
            Ok(bytes) => assert!(bytes == *key && !is_lost(key)),
            Err(error) => assert!(matches!(error, KvError::TimedOut { .. }) && is_lost(key), "{error}"),
        }
    }
}

#[tokio::test]
async fn only_users_whose_page_was_there_go_down_the_ladder() {
    let mut cluster = without_failover();
    let (kv, mut world) = (cluster.connect().await, World::dot());
    // more users, in pages on every master
    world.users = numbers(USERS * DIM, 2);
    world.user_names = (0..USERS).map(|row| format!("user-{row}")).collect();
    write_npy(&world.path("users.npy"), &world.users, DIM);
    let engine = patient(&world.engine_of(&kv, "index.tng", Codec::Int8).await);
    let request = |user: usize| Request { user: Some(id(user)), ..shape(10) };
    let page = |user: usize| is_lost(&engine.users().range(id(user).as_id()).unwrap().key);
    let recommend = async |users: &[usize]| -> Vec<Answer> {
        let requests: Vec<Request> = users.iter().map(|&user| request(user)).collect();
        engine.recommend(&requests).await.into_iter().map(Result::unwrap).collect()
    };
    let (lost, kept): (Vec<usize>, Vec<usize>) = (0..USERS).partition(|&user| page(user));
    let users = [&lost[..40], &kept[..80]].concat();
    // half of those that will be lost were met before
    let well = recommend(&users[20..]).await;
    cluster.kill(0);
    for (at, (&user, answer)) in users.iter().zip(recommend(&users).await).enumerate() {
        let others = [overlay_key, session_key, seen_key].iter().any(|key| is_lost(&key(NS, id(user).as_id())));
        let says = if page(user) || others { vec![Degraded::StoreFailed] } else { vec![] };
        let rung = match at {
            0..20 => Rung::Popularity,
            20..40 => Rung::LastKnown,
            _ => Rung::Page,
        };
        assert_eq!((answer.vector.rung, answer.degraded), (rung, says), "{user}");
        assert!(at < 20 || answer.items == well[at - 20].items, "{user}");
    }
}

fn id(user: usize) -> OwnedId {
    OwnedId::Text(format!("user-{user}").into())
}

/// The same engine, on however busy a machine.
fn patient(engine: &Engine<ClusterKv>) -> Engine<ClusterKv> {
    let options = EngineOptions { store_timeout: Duration::from_mins(1), ..EngineOptions::default() };
    let index = Index::open(engine.index().path()).unwrap();
    Engine::open(index, engine.users().clone(), options, Arc::new(Live::default())).unwrap()
}
