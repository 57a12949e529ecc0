//! A cluster is asked at the right node, also while slots move from one node to another.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::items::Random;
use crate::support::RedisServer;
use crate::support::cluster::TestCluster;
use tonnage::kv::{AnyKv, ClusterKv, KeyRange, Kv, KvError, RedisOptions, SLOTS, slot_of};

fn refused<T>(result: Result<T, KvError>) -> KvError {
    match result {
        Ok(_) => panic!("it must be refused"),
        Err(error) => error,
    }
}

/// Keys of one slot.
fn tagged(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{{moving}}:{n}")).collect()
}

fn bytes(keys: &[String]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.as_bytes().to_vec()).collect()
}

async fn fill(kv: &ClusterKv, keys: &[String]) {
    kv.set_many(keys.iter().map(|key| (key.as_bytes().to_vec(), key.as_bytes().to_vec())).collect(), None)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_key_falls_to_the_slot_that_a_server_says() {
    let server = RedisServer::start(&["--cluster-enabled", "yes"]);
    let alphabet = b"abcXYZ019:._-{}{}";
    let mut random = Random(7);
    for _ in 0..300 {
        let length = 1 + random.below(24);
        let key: String = (0..length).map(|_| char::from(alphabet[random.below(alphabet.len())])).collect();
        server.expect(&format!("CLUSTER KEYSLOT {key}"), &format!(":{}\r\n", slot_of(key.as_bytes())));
    }
}

#[tokio::test]
async fn a_slot_that_has_moved_is_followed_and_then_known() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let keys = tagged(50);
    fill(&kv, &keys).await;
    let slot = slot_of(keys[0].as_bytes());
    let from = cluster.owner(slot);
    let to = (from + 1) % 3;
    let moving = cluster.begin_move(slot, to);
    moving.keys(&keys);
    moving.end(&cluster);
    let moved = || cluster.node(from).errors("MOVED");
    let before = moved();

    let others: Vec<_> = (0..50).map(|n| format!("other:{n}").into_bytes()).collect();
    let asked: Vec<_> = bytes(&keys).into_iter().zip(others).flat_map(|(key, other)| [key, other]).collect();
    for (n, got) in kv.get_many(&asked).await.unwrap().into_iter().enumerate() {
        assert_eq!(got, (n % 2 == 0).then(|| keys[n / 2].clone().into_bytes()));
    }
    assert_eq!(moved(), before + 50, "the old master was asked, and said where to");
    kv.get_many(&asked).await.unwrap();
    assert_eq!(moved(), before + 50, "and is not asked again");
    let shards = kv.shards().await.unwrap();
    let ranges = shards.iter().flat_map(|shard| &shard.slots);
    assert_eq!(ranges.map(|range| u32::from(range.last - range.first) + 1).sum::<u32>(), u32::from(SLOTS));
    let now = shards.iter().find(|shard| shard.slots.iter().any(|range| (range.first..=range.last).contains(&slot)));
    assert!(now.unwrap().home.contains(&cluster.node(to).port().to_string()));
}

#[tokio::test]
async fn every_call_follows_a_moved_slot() {
    let cluster = TestCluster::start();
    let keys = tagged(4);
    let slot = slot_of(keys[0].as_bytes());
    fill(&cluster.connect().await, &keys).await;
    // one client each, whose map is old
    let clients = [
        cluster.connect().await,
        cluster.connect().await,
        cluster.connect().await,
        cluster.connect().await,
        cluster.connect().await,
        cluster.connect().await,
    ];
    let from = cluster.owner(slot);
    let moving = cluster.begin_move(slot, (from + 1) % 3);
    moving.keys(&keys);
    moving.end(&cluster);
    let key = bytes(&keys);
    let [range, set, persist, swap, first, delete] = clients;
    let moved = cluster.node(from).errors("MOVED");
    let part = KeyRange { key: key[0].clone(), start: 1, end: 7 };
    assert_eq!(range.get_ranges(&[part]).await.pop().unwrap().unwrap(), b"moving");
    set.set_many(vec![(key[1].clone(), b"new".to_vec())], None).await.unwrap();
    assert_eq!(persist.persist_many(&key).await.unwrap(), 4);
    assert!(swap.compare_and_set(&key[1], Some(b"new"), b"newer", None).await.unwrap());
    assert!(first.compare_and_set(b"{moving}:4", None, b"first", None).await.unwrap());
    assert_eq!(delete.delete_many(&key).await.unwrap(), 4);
    assert!(cluster.node(from).errors("MOVED") >= moved + 6);
}

#[tokio::test]
async fn a_slot_on_its_way_is_asked_at_both_ends() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let keys = tagged(60);
    fill(&kv, &keys).await;
    let slot = slot_of(keys[0].as_bytes());
    let from = cluster.owner(slot);
    let moving = cluster.begin_move(slot, (from + 1) % 3);
    moving.keys(&keys[..30]); // and there it stays for now
    let asks = cluster.node(from).errors("ASK");
    let all = bytes(&keys);

    let got = kv.get_many(&all).await.unwrap();
    assert!(got.iter().zip(&all).all(|(got, key)| got.as_ref() == Some(key)));
    assert_eq!(cluster.node(from).errors("ASK"), asks + 30, "every key that is over there was asked for here first");
    let ranges: Vec<_> = all.iter().map(|key| KeyRange { key: key.clone(), start: 9, end: 99 }).collect();
    for (n, got) in kv.get_ranges(&ranges).await.into_iter().enumerate() {
        assert_eq!(got.unwrap(), n.to_string().as_bytes());
    }
    // what is written anew is written over there, what is still here is written here
    let news = |n: usize| (all[n].clone(), b"new".to_vec());
    kv.set_many(vec![news(1), news(31), (b"{moving}:60".to_vec(), b"late".to_vec())], None).await.unwrap();
    for key in [&all[1], &all[31]] {
        assert!(!kv.compare_and_set(key, Some(b"old"), b"x", None).await.unwrap());
        assert!(kv.compare_and_set(key, Some(b"new"), b"newer", None).await.unwrap());
        assert!(!kv.compare_and_set(key, None, b"x", None).await.unwrap());
    }
    assert!(kv.compare_and_set(b"{moving}:61", None, b"later", None).await.unwrap());
    assert!(!kv.compare_and_set(b"{moving}:62", Some(b"none"), b"x", None).await.unwrap());
    assert_eq!(kv.persist_many(&all).await.unwrap(), 60);
    assert_eq!(kv.delete_many(&[all[2].clone(), all[32].clone(), b"{moving}:63".to_vec()]).await.unwrap(), 2);

    moving.keys(&keys[30..32]);
    moving.keys(&keys[33..]);
    moving.end(&cluster);
    let last = [all[1].clone(), all[31].clone(), b"{moving}:60".to_vec(), b"{moving}:61".to_vec(), all[2].clone()];
    let got = kv.get_many(&last).await.unwrap();
    let expected = [Some("newer"), Some("newer"), Some("late"), Some("later"), None];
    assert_eq!(got, expected.map(|value| value.map(|value| value.as_bytes().to_vec())));
}

#[tokio::test]
async fn slots_that_move_all_the_time_make_no_answer_wrong() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let keys = tagged(40);
    fill(&kv, &keys).await;
    let slot = slot_of(keys[0].as_bytes());
    let all = bytes(&keys);
    let reader = tokio::spawn(async move {
        let mut reads = 0;
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let got = kv.get_many(&all).await.unwrap();
            assert!(got.iter().zip(&all).all(|(got, key)| got.as_ref() == Some(key)));
            let written = all[reads % 40].clone();
            kv.set_many(vec![(written.clone(), written)], None).await.unwrap();
            reads += 1;
        }
        reads
    });
    let mut moves = 0;
    while !reader.is_finished() {
        let from = cluster.owner(slot);
        let moving = cluster.begin_move(slot, (from + 1) % 3);
        for some in keys.chunks(8) {
            moving.keys(some);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        moving.end(&cluster);
        moves += 1;
    }
    let reads = reader.await.unwrap();
    assert!(reads > 20 && moves > 3, "{reads} reads, {moves} moves");
}

#[tokio::test]
async fn the_fullest_master_limits_the_cluster_and_is_named() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    assert_eq!(kv.stats().await.unwrap().limit_bytes, None);
    cluster.node(0).expect("CONFIG SET maxmemory 100mb", "+OK");
    cluster.node(1).expect("CONFIG SET maxmemory 8mb", "+OK");
    let stats = kv.stats().await.unwrap();
    let room = 3 * (8 << 20) - stats.used_bytes.min(3 * (8 << 20));
    let limit = stats.limit_bytes.unwrap();
    assert!(limit > stats.used_bytes && limit - stats.used_bytes < room + (4 << 20), "{stats:?}");
    assert_eq!(stats.eviction.as_deref(), Some("noeviction"));
    let entries = (0..3_000u32).map(|n| (format!("full:{n}").into_bytes(), vec![1; 8_000])).collect();
    let error = refused(kv.set_many(entries, None).await);
    assert!(
        matches!(&error, KvError::OutOfMemory { home, .. }
        if home.contains(&cluster.node(1).port().to_string())),
        "{error}"
    );
}

#[tokio::test]
async fn any_node_of_a_cluster_opens_it_and_no_other_server_does() {
    let cluster = TestCluster::start();
    for node in cluster.nodes() {
        // a plain address of a master or a replica, and a cluster's
        for scheme in ["redis", "redis-cluster"] {
            let kv = AnyKv::open(&format!("{scheme}://127.0.0.1:{}", node.port())).await.unwrap();
            assert!(matches!(kv, AnyKv::Cluster(_)), "{scheme}");
            assert_eq!(kv.get_many(&[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]).await.unwrap(), [None, None, None]);
        }
    }
    let port = cluster.node(0).port();
    let error = refused(AnyKv::open(&format!("redis-cluster://127.0.0.1:{port}/3")).await);
    assert!(matches!(&error, KvError::BadUrl { why, .. } if why.contains("database 0")), "{error}");
    let error = refused(AnyKv::open(&format!("redis-cluster://me:hunter2@127.0.0.1:{port}")).await);
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");

    // with a password every node wants it
    let ports: Vec<_> = cluster.nodes().iter().map(RedisServer::port).collect();
    cluster.nodes().iter().for_each(|node| node.expect("CONFIG SET requirepass hunter2", "+OK"));
    let error = refused(AnyKv::open(&format!("redis-cluster://127.0.0.1:{}", ports[1])).await);
    assert!(error.to_string().contains("NOAUTH"), "{error}");
    let kv = AnyKv::open(&format!("redis://:hunter2@127.0.0.1:{}", ports[1])).await.unwrap();
    let entries: Vec<_> = (0..100).map(|n| (format!("key:{n}").into_bytes(), vec![n])).collect();
    kv.set_many(entries, None).await.unwrap();
    assert!(kv.compare_and_set(b"key:5", Some(&[5]), b"x", None).await.unwrap());

    let alone = RedisServer::start(&[]);
    assert!(matches!(AnyKv::open(&alone.url()).await.unwrap(), AnyKv::Redis(_)));
    let error = refused(AnyKv::open(&format!("redis-cluster://127.0.0.1:{}", alone.port())).await);
    assert!(error.to_string().contains("cluster support disabled"), "{error}");
    let error = refused(ClusterKv::connect(&alone.url(), RedisOptions::default()).await);
    assert!(matches!(error, KvError::BadUrl { .. }), "{error}");
    let unformed = RedisServer::start(&["--cluster-enabled", "yes"]);
    let error = refused(AnyKv::open(&format!("redis-cluster://127.0.0.1:{}", unformed.port())).await);
    assert!(error.to_string().contains("serves no slots yet"), "{error}");
}

/// Pretends to be a cluster of one node that serves every slot, and answers each `GET` with what it is told to.
fn liar(mut answer: impl FnMut(u16) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        listener.set_nonblocking(true).unwrap();
        loop {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                connections.push(stream);
            }
            for stream in &mut connections {
                let mut bytes = [0; 4_096];
                let length = stream.read(&mut bytes).unwrap_or(0);
                let text = String::from_utf8_lossy(&bytes[..length]);
                for command in text.split('*').skip(1) {
                    let reply = match command.split("\r\n").nth(2) {
                        Some("CLUSTER") => {
                            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
                        }
                        Some("GET") => format!("{}\r\n", answer(port)),
                        _ => "+OK\r\n".to_owned(),
                    };
                    stream.write_all(reply.as_bytes()).unwrap();
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    format!("redis-cluster://127.0.0.1:{port}")
}

#[tokio::test]
async fn nodes_that_send_a_key_round_in_circles_are_left() {
    let mut next = 0;
    let lies: [(String, &str); 6] = [
        (liar(|port| format!("-MOVED 5 127.0.0.1:{port}")), "in circles"),
        (liar(|port| format!("-ASK 5 127.0.0.1:{port}")), "in circles"),
        (
            liar(move |_| {
                next += 1;
                format!("-MOVED {} 127.0.0.1:{next}", slot_of(b"a"))
            }),
            "refused",
        ),
        (liar(|port| format!("-MOVED 99999 127.0.0.1:{port}")), "refused a command"),
        (liar(|_| "-ASK".to_owned()), "refused a command"),
        (liar(|_| "-CLUSTERDOWN The cluster is down".to_owned()), "refused a command"),
    ];
    let begun = Instant::now();
    let patient = RedisOptions { response_timeout_ms: 5_000, ..RedisOptions::default() };
    for (url, part) in lies {
        let kv = ClusterKv::connect(&url, patient.clone()).await.unwrap();
        let error = refused(kv.get_many(&[b"a".to_vec(), b"b".to_vec()]).await);
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
}
