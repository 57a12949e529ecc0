//! A store that something else wrote to, a server that is full or stops: refused with a reason, never a wrong vector.

use crate::support::RedisServer;
use crate::support::releases::{NS, Named, fingerprint, number, page_key, publish_as, publish_users, record, spec};
use tonnage::input::Id;
use tonnage::kv::{Kv, KvError, RedisKv, RedisOptions};
use tonnage::store::{Addressing, Ids, StoreError, UserVectors, Users, activate, current, publish, verify};

crate::on_every_home!(
    a_slot_of_another_release_is_refused,
    a_cut_or_lost_page_is_an_error_and_not_an_absent_user,
    a_page_in_the_place_of_another_is_refused,
);

async fn put<K: Kv>(kv: &K, key: &[u8], value: Vec<u8>) {
    kv.set_many(vec![(key.to_vec(), value)], None).await.unwrap();
}

async fn get<K: Kv>(kv: &K, key: &[u8]) -> Vec<u8> {
    kv.get_many(&[key.to_vec()]).await.unwrap().remove(0).unwrap()
}

async fn a_slot_of_another_release_is_refused<K: Kv + Clone>(kv: K) {
    let ours = publish_users(&kv, "ours", Named::Dense, 300).await;
    let theirs = publish_users(&kv, "theirs", Named::Dense, 300).await;
    let reader = UserVectors::open_release(kv.clone(), NS, "ours").await.unwrap();
    let (mine, other) = (get(&kv, &page_key(&ours, 0)).await, get(&kv, &page_key(&theirs, 0)).await);
    let mut mixed = mine.clone();
    mixed[5 * 12..6 * 12].copy_from_slice(&other[5 * 12..6 * 12]);
    mixed[7 * 12..8 * 12].fill(0);
    put(&kv, &page_key(&ours, 0), mixed).await;
    let got = reader.get(&[Id::U64(4), Id::U64(7)]).await.unwrap();
    assert_eq!(got, [Some(record(fingerprint("ours"), 4)), None]); // zeros are nobody
    let error = reader.get(&[Id::U64(4), Id::U64(5)]).await.unwrap_err();
    let (expected, got) = (ours.tag(), theirs.tag());
    assert!(matches!(error, StoreError::MixedRelease { expected: e, got: g } if (e, g) == (expected, got)), "{error}");
    assert!(matches!(verify(&kv, NS, &ours).await, Err(StoreError::Corrupt { .. })));
}

async fn a_cut_or_lost_page_is_an_error_and_not_an_absent_user<K: Kv + Clone>(kv: K) {
    for named in [Named::Dense, Named::Numbers] {
        let manifest = publish_users(&kv, &format!("{named:?}"), named, 1).await;
        let reader = UserVectors::open_release(kv.clone(), NS, &manifest.name).await.unwrap();
        let key = page_key(&manifest, 0);
        let id = [Id::U64(0)]; // row 0 is number 0 too
        let page = get(&kv, &key).await;
        assert_eq!(reader.get(&id).await.unwrap(), [Some(record(manifest.fingerprint, 0))]);
        for length in 1..page.len() {
            put(&kv, &key, page[..length].to_vec()).await;
            let error = reader.get(&id).await.unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{named:?} {length}: {error}");
        }
        kv.delete_many(&[key]).await.unwrap();
        let error = reader.get(&id).await.unwrap_err();
        assert!(matches!(error, StoreError::MissingPage { page: 0, .. }), "{named:?}: {error}");
    }
}

async fn a_page_in_the_place_of_another_is_refused<K: Kv + Clone>(kv: K) {
    let manifest = publish_users(&kv, "a", Named::Numbers, 3_000).await;
    let theirs = publish_users(&kv, "b", Named::Numbers, 3_000).await;
    let reader = UserVectors::open_release(kv.clone(), NS, "a").await.unwrap();
    let ids: Vec<_> = (0..3_000).map(|row| Id::U64(number(row))).collect();
    assert!(reader.get(&ids).await.unwrap().iter().all(Option::is_some));
    for other in [page_key(&manifest, 2), page_key(&theirs, 1)] {
        put(&kv, &page_key(&manifest, 1), get(&kv, &other).await).await;
        assert!(matches!(reader.get(&ids).await, Err(StoreError::Corrupt { .. })));
    }
}

#[tokio::test]
async fn every_flipped_byte_of_a_hashed_page_is_refused() {
    let (kv, _folder) = crate::support::embedded().await;
    let manifest = publish_users(&kv, "a", Named::Numbers, 5).await;
    let reader = UserVectors::open_release(kv.clone(), NS, "a").await.unwrap();
    let (key, id) = (page_key(&manifest, 0), [Id::U64(number(2))]);
    let page = get(&kv, &key).await;
    for at in 0..page.len() {
        let mut flipped = page.clone();
        flipped[at] ^= 1 << (at % 8);
        put(&kv, &key, flipped).await;
        assert!(matches!(reader.get(&id).await, Err(StoreError::Corrupt { .. })), "byte {at}");
    }
}

#[tokio::test]
async fn a_flipped_byte_of_a_dense_page_is_found_by_verify_and_a_flipped_tag_by_the_reader() {
    let (kv, _folder) = crate::support::embedded().await;
    let manifest = publish_users(&kv, "a", Named::Dense, 5).await;
    let reader = UserVectors::open_release(kv.clone(), NS, "a").await.unwrap();
    let key = page_key(&manifest, 0);
    let page = get(&kv, &key).await;
    for at in 0..page.len() {
        let mut flipped = page.clone();
        flipped[at] ^= 0x10;
        put(&kv, &key, flipped).await;
        assert!(verify(&kv, NS, &manifest).await.is_err(), "byte {at}");
        let got = reader.get(&[Id::U64(at as u64 / 12)]).await;
        assert_eq!(got.is_err(), at % 12 >= 10, "byte {at}");
    }
}

#[tokio::test]
async fn every_flipped_byte_of_a_manifest_or_pointer_is_refused() {
    let (kv, _folder) = crate::support::embedded().await;
    publish_users(&kv, "a", Named::Dense, 5).await;
    publish_users(&kv, "b", Named::Dense, 5).await;
    activate(&kv, NS, "a").await.unwrap();
    for key in [&b"t:r:a"[..], b"t:current"] {
        let value = get(&kv, key).await;
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut flipped = value.clone();
                flipped[at] ^= 1 << bit;
                put(&kv, key, flipped).await;
                let got = current(&kv, NS).await;
                assert!(got.is_err(), "byte {at} of {}: {got:?}", String::from_utf8_lossy(key));
            }
        }
        for length in 0..value.len() {
            put(&kv, key, value[..length].to_vec()).await;
            assert!(current(&kv, NS).await.is_err());
        }
        put(&kv, key, value).await;
        assert_eq!(current(&kv, NS).await.unwrap().name, "a");
    }
}

/// The manifest's JSON under a checksum that fits it: damage that someone made on purpose.
fn sealed(json: &str) -> Vec<u8> {
    let checksum = twox_hash::XxHash3_64::oneshot(json.as_bytes());
    format!("{checksum:016x}\n{json}").into_bytes()
}

#[tokio::test]
async fn a_forged_manifest_is_refused() {
    let (kv, _folder) = crate::support::embedded().await;
    let manifest = publish_users(&kv, "a", Named::Dense, 5).await;
    activate(&kv, NS, "a").await.unwrap();
    let Addressing::Dense { slots } = manifest.addressing else { panic!("it is dense") };
    let json = serde_json::to_string(&manifest).unwrap();
    let slots = format!(r#""slots":{slots}"#);
    let forgeries = [
        (r#""users":5"#, r#""users":0"#),
        (r#""users":5"#, r#""users":-1"#),
        (r#""users":5"#, r#""users":4294967296"#),
        (r#""dim":8"#, r#""dim":0"#),
        (r#""dim":8"#, r#""dim":4000000000"#),
        (&slots, r#""slots":0"#),
        (&slots, r#""slots":4294967295"#),
        (r#""codec":"int8""#, r#""codec":"int7""#),
        (r#""name":"a""#, r#""name":"b""#),
        (&manifest.id, "00000000000g"),
        (r#"{"dense""#, r#"{"sparse""#),
    ];
    for (from, to) in forgeries {
        let forged = json.replace(from, to);
        assert_ne!(forged, json);
        put(&kv, b"t:r:a", sealed(&forged)).await;
        let got = current(&kv, NS).await;
        assert!(matches!(got, Err(StoreError::Corrupt { .. })), "{to}: {got:?}");
    }
    put(&kv, b"t:r:a", sealed(&json.replace(r#""format":2"#, r#""format":3"#))).await;
    assert!(matches!(current(&kv, NS).await, Err(StoreError::Format { expected: 2, got: 3 })));
    // what holds together and is merely wrong finds no such page, or a slot of another size
    put(&kv, b"t:r:a", sealed(&json.replace(r#""dim":8"#, r#""dim":65536"#).replace(&slots, r#""slots":1"#))).await;
    let reader = UserVectors::open(kv.clone(), NS).await.unwrap();
    assert!(reader.get(&[Id::U64(4)]).await.is_err());
}

#[tokio::test]
async fn a_full_server_is_reported_and_left_as_it_was() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let before = kv.stats().await.unwrap().used_bytes;
    server.say(&format!("CONFIG SET maxmemory {}", before + (6 << 20))).unwrap();
    for named in [Named::Dense, Named::Numbers] {
        let error = publish_as(&kv, &spec("a"), named, 1_000_000).await.unwrap_err();
        assert!(matches!(error, StoreError::Kv(KvError::OutOfMemory { .. })), "{error}");
        assert!(server.say("DBSIZE").unwrap().starts_with(":0\r"), "{named:?}");
    }
    publish_users(&kv, "a", Named::Dense, 10_000).await; // and one that fits goes in
}

#[tokio::test]
async fn a_server_that_stops_during_a_publish_says_what_may_be_left() {
    let server = RedisServer::start(&[]);
    let quick = RedisOptions { bulk_timeout_ms: 300, ..RedisOptions::default() };
    let kv = RedisKv::connect(&server.url(), quick).await.unwrap();
    let encode = |rows: &[u32], _: &mut [u8]| {
        if rows[0] > 300_000 {
            server.pause();
        }
        Ok(())
    };
    let users = Users { count: 1_000_000, ids: Ids::Dense, encode: &encode };
    let error = publish(&kv, NS, &spec("a"), &users, &mut |_| ()).await.unwrap_err();
    server.resume();
    let text = error.to_string();
    assert!(matches!(error, StoreError::LeftBehind { pages: 1.., .. }), "{text}");
    assert!(text.contains("300 ms") && text.contains("expire by themselves in 86400 s"), "{text}");
}
