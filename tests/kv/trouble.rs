//! A home in trouble: full, silent, gone, locked, damaged, misaddressed. Always an error that says so, in bounded time.

use std::time::{Duration, Instant};

use crate::support::RedisServer;
use tonnage::kv::{AnyKv, EmbeddedKv, KeyRange, Kv, KvError, RedisKv, RedisOptions};

const QUICK: RedisOptions =
    RedisOptions { connect_timeout_ms: 400, response_timeout_ms: 200, bulk_timeout_ms: 300, bulk_bytes: 1 << 20 };

/// The error of something that must fail; most homes have no `Debug` of their own.
fn refused<T>(result: Result<T, KvError>) -> KvError {
    match result {
        Ok(_) => panic!("it must be refused"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_full_server_is_reported_in_its_own_words() {
    let server = RedisServer::start(&["--maxmemory", "4mb"]);
    let kv = server.connect().await;
    let entries: Vec<_> = (0..1_000u32).map(|n| (n.to_le_bytes().to_vec(), vec![1; 8_000])).collect();
    let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
    let error = refused(kv.set_many(entries, None).await);
    assert!(matches!(error, KvError::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("used memory > 'maxmemory'"), "{error}");
    server.say("CONFIG SET maxmemory 1mb").unwrap(); // the failed pipeline's own buffer may have been the excess
    let single = refused(kv.compare_and_set(b"p", None, b"x", None).await);
    assert!(matches!(single, KvError::OutOfMemory { .. }), "{single}");
    let swapped = refused(kv.compare_and_set(&keys[0], Some(&[1; 8_000]), b"x", None).await);
    assert!(matches!(swapped, KvError::OutOfMemory { .. }), "{swapped}");
    assert!(kv.delete_many(&keys).await.unwrap() > 100); // it can still be emptied
    let stats = kv.stats().await.unwrap();
    assert_eq!((stats.limit_bytes, stats.eviction.as_deref()), (Some(1 << 20), Some("noeviction")));
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_and_not_a_hang() {
    let server = RedisServer::start(&[]);
    let kv = RedisKv::connect(&server.url(), QUICK).await.unwrap();
    kv.set_many(vec![(b"k".to_vec(), b"v".to_vec())], None).await.unwrap();
    server.pause();
    let begun = Instant::now();
    let read = refused(kv.get_many(&[b"k".to_vec()]).await);
    let write = refused(kv.set_many(vec![(b"k".to_vec(), b"w".to_vec())], None).await);
    let swap = refused(kv.compare_and_set(b"k", Some(b"v"), b"w", None).await);
    let open = refused(RedisKv::connect(&server.url(), QUICK).await);
    let took = begun.elapsed();
    server.resume();
    for error in [read, write, swap, open] {
        assert!(matches!(error, KvError::TimedOut { .. }), "{error}");
    }
    assert!(took < Duration::from_secs(5), "{took:?}");
    // late answers to abandoned questions are not taken for answers to new ones
    for _ in 0..20 {
        let again = kv.get_many(&[b"none".to_vec(), b"k".to_vec()]).await;
        if let Ok(values) = again {
            assert_eq!(values[0], None);
            assert!(values[1].as_deref() == Some(b"v") || values[1].as_deref() == Some(b"w"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the connection did not recover");
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    let server = RedisServer::start(&[]);
    let kv = RedisKv::connect(&server.url(), QUICK).await.unwrap();
    let url = server.url();
    drop(server);
    let mut last = None;
    for _ in 0..3 {
        last = Some(refused(kv.get_many(&[b"k".to_vec()]).await));
    }
    let last = last.unwrap();
    assert!(matches!(last, KvError::Unavailable { .. }), "{last}");
    let refused = refused(RedisKv::connect(&url, QUICK).await);
    assert!(matches!(refused, KvError::Unavailable { .. }), "{refused}");
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_and_not_an_absent_one() {
    let server = RedisServer::start(&[]);
    server.say("HSET h field value").unwrap();
    let kv = server.connect().await;
    let error = refused(kv.get_many(&[b"h".to_vec()]).await);
    assert!(matches!(&error, KvError::WrongType { words, .. } if words.contains("WRONGTYPE")), "{error}");
    // of parts of values it is that one's alone
    kv.set_many(vec![(b"k".to_vec(), b"value".to_vec())], None).await.unwrap();
    let parts = ["k", "h", "none", "k"].map(|key| KeyRange { key: key.into(), start: 1, end: 3 });
    let mut got = kv.get_ranges(&parts).await;
    assert!(matches!(got.remove(1), Err(KvError::WrongType { .. })));
    assert_eq!(got.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [&b"al"[..], b"", b"al"]);
    // and the next question gets its own answer
    assert_eq!(kv.get_many(&[b"none".to_vec()]).await.unwrap(), [None]);
}

#[tokio::test]
async fn no_message_shows_a_password() {
    let server = RedisServer::start(&[]);
    server.say("CONFIG SET requirepass right").unwrap();
    let address = server.url().replace("redis://", "");
    let urls = [
        format!("redis://:hunter2@{address}"),
        "redis://me:hunter2@127.0.0.1:1/0".to_owned(),
        "redis://me:hunter2@127.0.0.1:port/0".to_owned(),
        "redis://me:hun@ter2@/x".to_owned(),
        "rediss://me:hunter2@127.0.0.1:1/0".to_owned(),
        "nonsense://me:hunter2@127.0.0.1".to_owned(),
    ];
    for url in urls {
        let error = refused(AnyKv::open(&url).await);
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("ter2"), "{shown}");
    }
    let ours = AnyKv::open(&format!("redis://:right@{address}")).await.unwrap();
    ours.stats().await.unwrap();
}

#[tokio::test]
async fn an_embedded_file_keeps_its_values_and_admits_one_process() {
    let (kv, folder) = crate::support::embedded().await;
    let path = folder.path().join("users.redb");
    kv.set_many(vec![(b"k".to_vec(), b"v".to_vec())], None).await.unwrap();
    let second = refused(EmbeddedKv::open(&path).await);
    assert!(matches!(second, KvError::File { .. }), "{second}");
    drop(kv);
    let AnyKv::Embedded(again) = AnyKv::open(path.to_str().unwrap()).await.unwrap() else {
        panic!("a path is an embedded store");
    };
    assert_eq!(again.get_many(&[b"k".to_vec()]).await.unwrap(), [Some(b"v".to_vec())]);
}

#[tokio::test]
async fn a_damaged_embedded_file_is_refused_or_right_but_never_a_panic() {
    let (kv, folder) = crate::support::embedded().await;
    let path = folder.path().join("users.redb");
    kv.set_many(vec![(b"k".to_vec(), vec![7; 3_000])], None).await.unwrap();
    drop(kv);
    let whole = std::fs::read(&path).unwrap();
    let mut refused = 0;
    let positions = (0..400).step_by(3).chain((400..whole.len()).step_by(whole.len() / 60));
    for at in positions {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        std::fs::write(&path, &bytes).unwrap();
        match EmbeddedKv::open(&path).await {
            Ok(kv) => match kv.get_many(&[b"k".to_vec()]).await {
                Ok(got) => assert_eq!(got, [Some(vec![7; 3_000])], "flipped byte {at}"),
                Err(_) => refused += 1,
            },
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 0);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(EmbeddedKv::open(&path).await.is_err());
}
