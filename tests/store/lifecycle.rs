//! Releases listed, switched, rolled back, retired and cleared up, on both homes; and one publisher at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::releases::{DIM, NS, Named, SHORT_GRACE, page_key, publish_as, publish_users, record, spec};
use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::Kv;
use tonnage::store::{
    Ids, Manifest, ReleaseSpec, RemoveOptions, State, StoreError, UserVectors, Users, activate, current, gc, ledger,
    list, publish, retire, rollback, verify,
};

crate::on_both_homes!(
    every_release_is_listed_with_its_state,
    a_rollback_activates_the_release_before_and_a_second_one_comes_back,
    a_retired_release_is_gone_key_by_key_and_no_other_is_touched,
    what_is_active_is_not_retired,
    clearing_up_leaves_the_active_the_previous_and_those_that_wait,
    a_removal_that_died_half_way_is_ended_by_clearing_up,
    what_nobody_activated_in_time_is_cleared_up_even_when_half_activated,
    of_two_publishers_of_a_namespace_the_second_is_told,
    a_publisher_clears_up_after_one_that_died,
    a_publisher_that_lost_its_lease_stops,
    a_publisher_that_fails_without_its_lease_removes_nothing,
    a_release_of_an_earlier_version_is_read_activated_and_retired,
    an_aborted_first_publish_leaves_no_key,
    removing_keeps_to_its_pace,
);

const FAST: RemoveOptions = RemoveOptions { pages_per_s: 1_000_000 };

async fn is_there<K: Kv>(kv: &K, manifest: &Manifest) -> u64 {
    let keys: Vec<_> = (0..manifest.pages()).map(|page| page_key(manifest, page)).collect();
    kv.get_many(&keys).await.unwrap().iter().flatten().count() as u64
}

async fn states<K: Kv>(kv: &K) -> Vec<(String, State)> {
    let (listed, _) = list(kv, NS).await.unwrap();
    listed.into_iter().map(|listed| (listed.entry.name, listed.entry.state)).collect()
}

async fn go<K: Kv>(kv: &K, name: &str) -> Manifest {
    let manifest = publish_users(kv, name, Named::Dense, 3_000).await;
    activate(kv, NS, name).await.unwrap();
    manifest
}

fn named(states: &[(&str, State)]) -> Vec<(String, State)> {
    states.iter().map(|&(name, state)| (name.to_owned(), state)).collect()
}

async fn every_release_is_listed_with_its_state<K: Kv + Clone>(kv: K) {
    assert!(states(&kv).await.is_empty());
    for name in ["a", "b", "c"] {
        go(&kv, name).await;
    }
    let waiting = publish_users(&kv, "d", Named::Numbers, 500).await;
    let expected = [("a", State::Past), ("b", State::Previous), ("c", State::Active), ("d", State::Waiting)];
    let mut got = states(&kv).await;
    got.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(got, named(&expected));
    let (listed, publishing) = list(&kv, NS).await.unwrap();
    assert_eq!(publishing, None);
    let last = listed.into_iter().find(|listed| listed.entry.name == "d").unwrap();
    assert_eq!((last.entry.id(), last.entry.pages, last.entry.users), (waiting.id.clone(), waiting.pages(), 500));
    assert_eq!(last.manifest, Some(waiting));
    assert!(last.entry.published_s.is_some() && last.entry.activated_s.is_none());
}

async fn a_rollback_activates_the_release_before_and_a_second_one_comes_back<K: Kv + Clone>(kv: K) {
    assert!(matches!(rollback(&kv, NS).await, Err(StoreError::NoPrevious { .. })));
    go(&kv, "a").await;
    assert!(matches!(rollback(&kv, NS).await, Err(StoreError::NoPrevious { .. })));
    go(&kv, "b").await;
    for expected in ["a", "b", "a"] {
        assert_eq!(rollback(&kv, NS).await.unwrap().name, expected);
        assert_eq!(current(&kv, NS).await.unwrap().name, expected);
    }
    let reader = UserVectors::open(kv, NS).await.unwrap();
    assert_eq!(reader.get(&[Id::U64(7)]).await.unwrap(), [Some(record(spec("a").fingerprint, 7))]);
}

async fn a_retired_release_is_gone_key_by_key_and_no_other_is_touched<K: Kv + Clone>(kv: K) {
    let old = go(&kv, "a").await;
    let new = go(&kv, "b").await;
    let mut told = Vec::new();
    let removed = retire(&kv, NS, "a", &FAST, &mut |done, of| told.push((done, of))).await.unwrap();
    assert_eq!((removed.was, removed.pages), (State::Previous, u64::from(old.pages())));
    assert_eq!(told.last(), Some(&(old.pages(), old.pages())));
    assert_eq!(is_there(&kv, &old).await, 0);
    assert!(matches!(UserVectors::open_release(kv.clone(), NS, "a").await, Err(StoreError::NoRelease { .. })));
    verify(&kv, NS, &new).await.unwrap();
    assert!(matches!(retire(&kv, NS, "a", &FAST, &mut |_, _| ()).await, Err(StoreError::NoRelease { .. })));
    assert!(matches!(rollback(&kv, NS).await, Err(StoreError::NoPrevious { .. })));
    assert_eq!(states(&kv).await[0], ("a".to_owned(), State::Retired));
    // and its name is free
    publish_users(&kv, "a", Named::Texts, 10).await;
}

async fn what_is_active_is_not_retired<K: Kv + Clone>(kv: K) {
    let manifest = go(&kv, "a").await;
    let error = retire(&kv, NS, "a", &FAST, &mut |_, _| ()).await.unwrap_err();
    assert!(error.to_string().contains("activate another first"), "{error}");
    assert!(gc(&kv, NS, &FAST, &mut |_, _| ()).await.unwrap().is_empty());
    verify(&kv, NS, &manifest).await.unwrap();
}

async fn clearing_up_leaves_the_active_the_previous_and_those_that_wait<K: Kv + Clone>(kv: K) {
    let first = go(&kv, "a").await;
    let kept = [go(&kv, "b").await, go(&kv, "c").await, publish_users(&kv, "d", Named::Numbers, 500).await];
    let removed = gc(&kv, NS, &FAST, &mut |_, _| ()).await.unwrap();
    assert_eq!(removed.len(), 1);
    assert_eq!((&removed[0].name[..], removed[0].was), ("a", State::Past));
    assert_eq!(is_there(&kv, &first).await, 0);
    for manifest in kept {
        verify(&kv, NS, &manifest).await.unwrap();
    }
    assert!(gc(&kv, NS, &FAST, &mut |_, _| ()).await.unwrap().is_empty());
}

async fn a_removal_that_died_half_way_is_ended_by_clearing_up<K: Kv + Clone>(kv: K) {
    let old = go(&kv, "a").await;
    go(&kv, "b").await;
    {
        // at this pace it would take hours; it is dropped where it waits
        let slow = RemoveOptions { pages_per_s: 1 };
        let big = publish_users(&kv, "big", Named::Dense, 1_000_000).await;
        assert!(big.pages() > 1_000);
        let mut nothing = |_, _| ();
        let retiring = retire(&kv, NS, "big", &slow, &mut nothing);
        assert!(tokio::time::timeout(Duration::from_millis(1_500), retiring).await.is_err());
        let left = is_there(&kv, &big).await;
        assert!(left > 0 && left < u64::from(big.pages()), "{left}");
        let error = activate(&kv, NS, "big").await.unwrap_err();
        assert!(error.to_string().contains("being removed"), "{error}");
        let error = publish_as(&kv, &spec("big"), Named::Dense, 10).await.unwrap_err();
        assert!(error.to_string().contains("releases gc"), "{error}");
        let removed = gc(&kv, NS, &FAST, &mut |_, _| ()).await.unwrap();
        assert_eq!((removed[0].was, removed[0].pages), (State::Retiring, left));
        assert_eq!(is_there(&kv, &big).await, 0);
    }
    verify(&kv, NS, &old).await.unwrap();
}

async fn what_nobody_activated_in_time_is_cleared_up_even_when_half_activated<K: Kv + Clone>(kv: K) {
    let mut brief = spec("a");
    brief.grace = SHORT_GRACE;
    let manifest = publish_as(&kv, &brief, Named::Dense, 3_000).await.unwrap();
    // an activation that died in the middle
    let half: Vec<_> = (0..manifest.pages() / 2).map(|page| page_key(&manifest, page)).collect();
    kv.persist_many(&[format!("{NS}:r:a").into_bytes()]).await.unwrap();
    kv.persist_many(&half).await.unwrap();
    assert!(gc(&kv, NS, &FAST, &mut |_, _| ()).await.unwrap().is_empty());
    tokio::time::sleep(SHORT_GRACE + Duration::from_millis(1_100)).await;
    assert!(matches!(activate(&kv, NS, "a").await, Err(StoreError::MissingPage { .. })));
    let removed = gc(&kv, NS, &FAST, &mut |_, _| ()).await.unwrap();
    assert_eq!((removed[0].was, removed[0].pages), (State::Waiting, half.len() as u64));
    assert!(matches!(activate(&kv, NS, "a").await, Err(StoreError::NoRelease { .. })));
}

async fn of_two_publishers_of_a_namespace_the_second_is_told<K: Kv + Clone>(kv: K) {
    for other in ["b", "a"] {
        let (first, second) = (spec("a"), spec(other));
        let first = publish_as(&kv, &first, Named::Dense, 100_000);
        let second = publish_as(&kv, &second, Named::Dense, 100_000);
        let results = tokio::join!(first, second);
        let ((Ok(manifest), Err(error)) | (Err(error), Ok(manifest))) = results else { panic!("{results:?}") };
        assert!(matches!(error, StoreError::Busy { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{} is being published in t", manifest.name)), "{error}");
        verify(&kv, NS, &manifest).await.unwrap();
        retire(&kv, NS, &manifest.name, &FAST, &mut |_, _| ()).await.unwrap();
    }
    publish_users(&kv, "b", Named::Dense, 10).await; // now it is free
}

/// Encodes a page in a millisecond.
#[allow(clippy::unnecessary_wraps)] // the signature is the publisher's
fn slowly(_: &[u32], _: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}

async fn a_publisher_clears_up_after_one_that_died<K: Kv + Clone>(kv: K) {
    let mut brief = spec("dead");
    brief.grace = Duration::from_secs(4); // so that the lease is half a second
    let users = Users { count: 1_000_000, ids: Ids::Dense, encode: &slowly };
    let mut done = 0;
    let mut progress = |users| done = users;
    let publishing = publish(&kv, NS, &brief, &users, &mut progress);
    assert!(tokio::time::timeout(Duration::from_secs(1), publishing).await.is_err());
    assert!(done > 0);
    let entry = ledger(&kv, NS).await.unwrap().find("dead").unwrap().clone();
    let keys: Vec<_> = (0..entry.pages).map(|page| format!("{NS}:{}:{page}", entry.keys).into_bytes()).collect();
    assert_eq!(entry.state, State::Loading);
    let error = publish_as(&kv, &spec("b"), Named::Dense, 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    assert!(kv.get_many(&keys).await.unwrap().iter().any(Option::is_some));
    tokio::time::sleep(Duration::from_millis(600)).await;
    publish_users(&kv, "b", Named::Dense, 10).await;
    assert!(kv.get_many(&keys).await.unwrap().iter().all(Option::is_none));
    assert_eq!(states(&kv).await, named(&[("dead", State::Retired), ("b", State::Waiting)]));
}

async fn a_publisher_that_lost_its_lease_stops<K: Kv + Clone>(kv: K) {
    let mut brief = spec("a");
    brief.grace = Duration::from_secs(4);
    let users = Users { count: 1_000_000, ids: Ids::Dense, encode: &slowly };
    let thief = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let lease = vec![(format!("{NS}:publisher").into_bytes(), b"other 1-1".to_vec())];
        kv.set_many(lease, Some(Duration::from_mins(1))).await.unwrap();
    };
    let mut progress = |_| ();
    let (result, ()) = tokio::join!(publish(&kv, NS, &brief, &users, &mut progress), thief);
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::LeftBehind { .. }), "{error}");
    assert!(error.to_string().contains("others may publish"), "{error}");
    let (_, publishing) = list(&kv, NS).await.unwrap();
    assert_eq!(publishing.as_deref(), Some("other")); // which it has not taken away
}

async fn a_publisher_that_fails_without_its_lease_removes_nothing<K: Kv + Clone>(kv: K) {
    let mut brief = spec("a");
    brief.grace = Duration::from_secs(30); // the lease is not looked at again before it fails
    let stolen = AtomicBool::new(false);
    let encode = |rows: &[u32], out: &mut [u8]| {
        if stolen.load(Ordering::SeqCst) { Err("the disk is gone".into()) } else { slowly(rows, out) }
    };
    let users = Users { count: 1_000_000, ids: Ids::Dense, encode: &encode };
    let thief = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let lease = vec![(format!("{NS}:publisher").into_bytes(), b"a 1-1".to_vec())];
        kv.set_many(lease, Some(Duration::from_mins(1))).await.unwrap();
        stolen.store(true, Ordering::SeqCst);
    };
    let mut progress = |_| ();
    let (result, ()) = tokio::join!(publish(&kv, NS, &brief, &users, &mut progress), thief);
    let error = result.unwrap_err();
    assert!(matches!(error, StoreError::LeftBehind { pages: 1.., .. }), "{error}");
    let entry = ledger(&kv, NS).await.unwrap().find("a").unwrap().clone();
    let first = format!("{NS}:{}:0", entry.keys).into_bytes();
    assert!(kv.get_many(&[first]).await.unwrap()[0].is_some());
}

async fn a_release_of_an_earlier_version_is_read_activated_and_retired<K: Kv + Clone>(kv: K) {
    let mut manifests = Vec::new();
    for name in ["a", "b"] {
        let mut manifest = publish_users(&kv, name, Named::Dense, 3_000).await;
        let of = |manifest: &Manifest| (0..manifest.pages()).map(|page| page_key(manifest, page)).collect::<Vec<_>>();
        let (keys, pages) = (of(&manifest), kv.get_many(&of(&manifest)).await.unwrap());
        kv.delete_many(&keys).await.unwrap();
        manifest.keys = None; // its pages stood under its own id
        let pages = of(&manifest).into_iter().zip(pages.into_iter().map(Option::unwrap)).collect();
        kv.set_many(pages, None).await.unwrap();
        let Manifest { fingerprint, id, bytes, checksum, .. } = &manifest;
        let json = format!(
            r#"{{"format":1,"name":"{name}","fingerprint":"{fingerprint:016x}","id":"{id}","codec":"int8","dim":{DIM},"users":3000,"addressing":{},"bytes":{bytes},"checksum":"{checksum:016x}"}}"#,
            serde_json::to_string(&manifest.addressing).unwrap()
        );
        let sum = twox_hash::XxHash3_64::oneshot(json.as_bytes());
        let key = format!("{NS}:r:{name}").into_bytes();
        kv.set_many(vec![(key, format!("{sum:016x}\n{json}").into_bytes())], None).await.unwrap();
        manifests.push(manifest);
    }
    let pointer = format!("{} a", manifests[0].id).into_bytes();
    kv.set_many(vec![(format!("{NS}:current").into_bytes(), pointer)], None).await.unwrap();
    assert_eq!((current(&kv, NS).await.unwrap().format, manifests[0].codec), (1, Codec::Int8));
    assert_eq!(states(&kv).await, named(&[("a", State::Active)]));
    let reader = UserVectors::open(kv.clone(), NS).await.unwrap();
    assert_eq!(reader.get(&[Id::U64(7)]).await.unwrap(), [Some(record(spec("a").fingerprint, 7))]);
    activate(&kv, NS, "b").await.unwrap();
    assert_eq!(states(&kv).await, named(&[("a", State::Previous), ("b", State::Active)]));
    assert_eq!(rollback(&kv, NS).await.unwrap().name, "a");
    retire(&kv, NS, "b", &FAST, &mut |_, _| ()).await.unwrap();
    assert_eq!((is_there(&kv, &manifests[0]).await, is_there(&kv, &manifests[1]).await), (5, 0));
}

async fn an_aborted_first_publish_leaves_no_key<K: Kv + Clone>(kv: K) {
    let encode = |rows: &[u32], _: &mut [u8]| if rows[0] < 500_000 { Ok(()) } else { Err("no more".into()) };
    let users = Users { count: 1_000_000, ids: Ids::Dense, encode: &encode };
    let error = publish(&kv, NS, &spec("a"), &users, &mut |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::Source(_)), "{error}");
    let keys = ["current", "publisher", "r:a"].map(|key| format!("{NS}:{key}").into_bytes());
    assert_eq!(kv.get_many(&keys).await.unwrap(), [None, None, None]);
}

async fn removing_keeps_to_its_pace<K: Kv + Clone>(kv: K) {
    publish_users(&kv, "a", Named::Dense, 1_000_000).await; // 1,466 pages
    let begun = std::time::Instant::now();
    retire(&kv, NS, "a", &RemoveOptions { pages_per_s: 1_000 }, &mut |_, _| ()).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(950), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn no_other_publisher_enters_while_one_clears_up_for_longer_than_its_lease() {
    let server = crate::support::RedisServer::start(&[]);
    let kv = server.connect().await;
    // a page a user, so that there are many names, and hardly one of them was written
    let wide = |name: &str, grace_s| ReleaseSpec {
        codec: Codec::F32,
        dim: 2_048,
        grace: Duration::from_secs(grace_s),
        ..spec(name)
    };
    let dead = wide("dead", 4); // a lease of half a second
    let users = Users { count: 400_000, ids: Ids::Dense, encode: &slowly };
    let mut nothing = |_| ();
    let dying = publish(&kv, NS, &dead, &users, &mut nothing);
    assert!(tokio::time::timeout(Duration::from_secs(1), dying).await.is_err());
    tokio::time::sleep(Duration::from_millis(600)).await;

    let lease_s = 4;
    let brief = wide("a", 8 * lease_s);
    let done = AtomicBool::new(false);
    let clearing = async {
        // 400,000 names at 50,000 a second: twice as long as the lease
        let few = Users { count: 10, ids: Ids::Dense, encode: &slowly };
        let manifest = publish(&kv, NS, &brief, &few, &mut |_| ()).await;
        done.store(true, Ordering::SeqCst);
        manifest.unwrap()
    };
    let (begun, other) = (std::time::Instant::now(), server.connect().await);
    let trying = async {
        let mut told = Duration::ZERO;
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let at = begun.elapsed();
            let result = publish_as(&other, &spec("b"), Named::Dense, 10).await;
            if done.load(Ordering::SeqCst) {
                return told;
            }
            assert!(matches!(result, Err(StoreError::Busy { .. })), "{result:?} after {at:?}");
            told = at;
        }
    };
    let (manifest, told) = tokio::join!(clearing, trying);
    assert!(told > Duration::from_secs(lease_s + 1), "it was over after {told:?}");
    verify(&kv, NS, &manifest).await.unwrap();
}
