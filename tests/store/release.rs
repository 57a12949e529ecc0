//! The life of a release on every home: published, activated, read, succeeded, abandoned.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::releases::{
    NS, Named, SHORT_GRACE, fingerprint, number, page_key, publish_as, publish_users, record, spec, texts,
};
use tonnage::input::Id;
use tonnage::kv::{EmbeddedKv, Kv};
use tonnage::store::{Addressing, Ids, StoreError, UserVectors, Users, activate, current, publish, release, verify};

crate::on_every_home!(
    every_user_of_a_dense_release_is_read_back,
    every_user_of_a_hashed_release_is_read_back_by_number,
    every_user_of_a_hashed_release_is_read_back_by_text,
    a_release_of_one_user_is_a_release,
    nothing_is_active_before_the_first_activation,
    a_pinned_reader_keeps_its_release_when_another_is_activated,
    activating_twice_changes_nothing,
    publishing_the_same_again_verifies_and_writes_nothing,
    a_name_is_not_given_to_another_release,
    an_abandoned_publish_expires_by_itself,
    activation_takes_the_ttl_off,
    a_release_that_lost_a_page_is_not_activated,
    a_source_that_fails_leaves_nothing,
    two_users_with_one_id_are_refused_before_the_first_write,
    names_that_cannot_stand_in_a_key_are_refused,
    a_release_of_nothing_is_refused,
    progress_ends_at_all_users,
);

async fn every_user_of_a_dense_release_is_read_back<K: Kv + Clone>(kv: K) {
    let manifest = publish_users(&kv, "a", Named::Dense, 2_000).await;
    assert!(matches!(manifest.addressing, Addressing::Dense { slots } if slots < 2_000 && !slots.is_power_of_two()));
    activate(&kv, NS, "a").await.unwrap();
    let reader = UserVectors::open(kv, NS).await.unwrap();
    assert_eq!(reader.manifest(), &manifest);
    let ids: Vec<_> = (0..2_000).map(Id::U64).collect();
    let got = reader.get(&ids).await.unwrap();
    for (row, got) in (0..).zip(got) {
        assert_eq!(got, Some(record(manifest.fingerprint, row)), "row {row}");
    }
    let absent = [Id::U64(2_000), Id::U64(u64::MAX), Id::U64(1 << 32), Id::Text("0"), Id::U64(7)];
    let got = reader.get(&absent).await.unwrap();
    assert_eq!(got, [None, None, None, None, Some(record(manifest.fingerprint, 7))]);
    assert!(reader.get(&[]).await.unwrap().is_empty());
}

async fn hashed_users_are_read_back<K: Kv + Clone>(kv: K, named: Named) {
    let manifest = publish_users(&kv, "a", named, 3_000).await;
    assert!(matches!(manifest.addressing, Addressing::Hashed { pages, .. } if pages > 2));
    activate(&kv, NS, "a").await.unwrap();
    let reader = UserVectors::open(kv, NS).await.unwrap();
    let names = texts(6_000);
    let id = |row: u32| match named {
        Named::Texts => Id::Text(&names[row as usize]),
        _ => Id::U64(number(row)),
    };
    let ids: Vec<_> = (0..6_000).map(id).collect();
    for (row, got) in (0..).zip(reader.get(&ids).await.unwrap()) {
        let present = row < 3_000;
        assert_eq!(got, present.then(|| record(manifest.fingerprint, row)), "row {row}");
    }
}

async fn every_user_of_a_hashed_release_is_read_back_by_number<K: Kv + Clone>(kv: K) {
    hashed_users_are_read_back(kv, Named::Numbers).await;
}

async fn every_user_of_a_hashed_release_is_read_back_by_text<K: Kv + Clone>(kv: K) {
    hashed_users_are_read_back(kv, Named::Texts).await;
}

async fn a_release_of_one_user_is_a_release<K: Kv + Clone>(kv: K) {
    for (name, named, id) in [("d", Named::Dense, Id::U64(0)), ("h", Named::Texts, Id::Text("user-0"))] {
        publish_users(&kv, name, named, 1).await;
        activate(&kv, NS, name).await.unwrap();
        let reader = UserVectors::open(kv.clone(), NS).await.unwrap();
        let got = reader.get(&[id, Id::U64(1), Id::Text("")]).await.unwrap();
        assert_eq!(got, [Some(record(fingerprint(name), 0)), None, None]);
    }
}

async fn nothing_is_active_before_the_first_activation<K: Kv + Clone>(kv: K) {
    assert!(matches!(current(&kv, NS).await, Err(StoreError::NoActiveRelease { .. })));
    assert!(matches!(activate(&kv, NS, "a").await, Err(StoreError::NoRelease { .. })));
    let manifest = publish_users(&kv, "a", Named::Dense, 10).await;
    assert!(matches!(UserVectors::open(kv.clone(), NS).await, Err(StoreError::NoActiveRelease { .. })));
    assert_eq!(release(&kv, NS, "a").await.unwrap(), manifest);
    // but it can be looked at by name
    let reader = UserVectors::open_release(kv, NS, "a").await.unwrap();
    assert!(reader.get(&[Id::U64(3)]).await.unwrap()[0].is_some());
}

async fn a_pinned_reader_keeps_its_release_when_another_is_activated<K: Kv + Clone>(kv: K) {
    publish_users(&kv, "monday", Named::Dense, 500).await;
    activate(&kv, NS, "monday").await.unwrap();
    let pinned = UserVectors::open(kv.clone(), NS).await.unwrap();
    publish_users(&kv, "tuesday", Named::Numbers, 700).await;
    assert_eq!(current(&kv, NS).await.unwrap().name, "monday");
    activate(&kv, NS, "tuesday").await.unwrap();
    assert_eq!(current(&kv, NS).await.unwrap().name, "tuesday");
    let fresh = UserVectors::open(kv.clone(), NS).await.unwrap();
    let old = pinned.get(&[Id::U64(42)]).await.unwrap();
    let new = fresh.get(&[Id::U64(number(42))]).await.unwrap();
    assert_eq!(old, [Some(record(fingerprint("monday"), 42))]);
    assert_eq!(new, [Some(record(fingerprint("tuesday"), 42))]);
    // and back
    activate(&kv, NS, "monday").await.unwrap();
    assert_eq!(current(&kv, NS).await.unwrap().name, "monday");
}

async fn activating_twice_changes_nothing<K: Kv + Clone>(kv: K) {
    publish_users(&kv, "a", Named::Dense, 10).await;
    let first = activate(&kv, NS, "a").await.unwrap();
    assert_eq!(activate(&kv, NS, "a").await.unwrap(), first);
}

async fn publishing_the_same_again_verifies_and_writes_nothing<K: Kv + Clone>(kv: K) {
    for named in [Named::Dense, Named::Texts] {
        let name = if named == Named::Dense { "d" } else { "t" };
        let first = publish_users(&kv, name, named, 300).await;
        assert_eq!(publish_users(&kv, name, named, 300).await, first);
        kv.delete_many(&[page_key(&first, 0)]).await.unwrap();
        let again = publish_as(&kv, &spec(name), named, 300).await;
        assert!(matches!(again, Err(StoreError::MissingPage { page: 0, .. })), "{again:?}");
    }
}

async fn a_name_is_not_given_to_another_release<K: Kv + Clone>(kv: K) {
    let manifest = publish_users(&kv, "a", Named::Dense, 300).await;
    let other = spec("b").fingerprint;
    let mut taken = spec("a");
    taken.fingerprint = other;
    let error = publish_as(&kv, &taken, Named::Dense, 300).await.unwrap_err();
    assert!(matches!(&error, StoreError::ReleaseExists { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{other:016x}")), "{error}");
    // nor with the same fingerprint and other users
    let error = publish_as(&kv, &spec("a"), Named::Dense, 301).await.unwrap_err();
    assert!(error.to_string().contains("301 users"), "{error}");
    // nor with other ids
    let error = publish_as(&kv, &spec("a"), Named::Texts, 300).await.unwrap_err();
    assert!(matches!(&error, StoreError::ReleaseExists { .. }), "{error}");
    verify(&kv, NS, &manifest).await.unwrap();
}

async fn an_abandoned_publish_expires_by_itself<K: Kv + Clone>(kv: K) {
    let mut brief = spec("a");
    brief.grace = SHORT_GRACE;
    let manifest = publish_as(&kv, &brief, Named::Dense, 300).await.unwrap();
    verify(&kv, NS, &manifest).await.unwrap();
    tokio::time::sleep(SHORT_GRACE + Duration::from_millis(200)).await;
    assert!(matches!(activate(&kv, NS, "a").await, Err(StoreError::NoRelease { .. })));
    assert!(matches!(verify(&kv, NS, &manifest).await, Err(StoreError::MissingPage { .. })));
    // and the name is free again
    publish_users(&kv, "a", Named::Dense, 301).await;
}

async fn activation_takes_the_ttl_off<K: Kv + Clone>(kv: K) {
    let mut brief = spec("a");
    brief.grace = SHORT_GRACE;
    for named in [Named::Dense, Named::Numbers] {
        brief.name = format!("{named:?}");
        let manifest = publish_as(&kv, &brief, named, 3_000).await.unwrap();
        activate(&kv, NS, &brief.name).await.unwrap();
        tokio::time::sleep(SHORT_GRACE + Duration::from_millis(200)).await;
        verify(&kv, NS, &manifest).await.unwrap();
        assert_eq!(current(&kv, NS).await.unwrap(), manifest);
    }
}

async fn a_release_that_lost_a_page_is_not_activated<K: Kv + Clone>(kv: K) {
    publish_users(&kv, "whole", Named::Dense, 3_000).await;
    activate(&kv, NS, "whole").await.unwrap();
    let manifest = publish_users(&kv, "holed", Named::Numbers, 3_000).await;
    kv.delete_many(&[page_key(&manifest, 3)]).await.unwrap();
    let error = activate(&kv, NS, "holed").await.unwrap_err();
    assert!(matches!(error, StoreError::MissingPage { page: 3, .. }), "{error}");
    assert_eq!(current(&kv, NS).await.unwrap().name, "whole");
}

async fn a_source_that_fails_leaves_nothing<K: Kv + Clone>(kv: K) {
    let calls = AtomicU32::new(0);
    let encode = |_: &[u32], _: &mut [u8]| {
        if calls.fetch_add(1, Ordering::Relaxed) < 700 { Ok(()) } else { Err("the disk is gone".into()) }
    };
    let users = Users { count: 1_000_000, ids: Ids::Dense, encode: &encode };
    let error = publish(&kv, NS, &spec("a"), &users, &mut |_| ()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Source(_)) && error.to_string().contains("the disk is gone"), "{error}");
    // the first 4 MiB had been written
    let there = publish_users(&kv, "a", Named::Dense, 1).await;
    let keys: Vec<_> = (1..700).map(|page| page_key(&there, page)).collect();
    assert_eq!(kv.persist_many(&keys).await.unwrap(), 0);
}

async fn two_users_with_one_id_are_refused_before_the_first_write<K: Kv + Clone>(kv: K) {
    let id = |row: u32| Id::U64(u64::from(if row == 77 { 5 } else { row }));
    let encode = |_: &[u32], _: &mut [u8]| Err("not to be asked for".into());
    let users = Users { count: 500, ids: Ids::Listed(&id), encode: &encode };
    let error = publish(&kv, NS, &spec("a"), &users, &mut |_| ()).await.unwrap_err();
    assert!(
        matches!(error, StoreError::DuplicateId { first, second } if [first.min(second), first.max(second)] == [5, 77]),
        "{error}"
    );
}

async fn names_that_cannot_stand_in_a_key_are_refused<K: Kv + Clone>(kv: K) {
    for bad in ["", "a:b", "a b", "{a}", "ä", "a\n", &"x".repeat(65)] {
        let error = publish_as(&kv, &spec(bad), Named::Dense, 1).await.unwrap_err();
        assert!(matches!(error, StoreError::BadName { .. }), "{bad:?}: {error}");
        assert!(matches!(current(&kv, bad).await, Err(StoreError::BadName { .. })));
        assert!(matches!(activate(&kv, bad, "a").await, Err(StoreError::BadName { .. })));
    }
}

async fn a_release_of_nothing_is_refused<K: Kv + Clone>(kv: K) {
    let error = publish_as(&kv, &spec("a"), Named::Dense, 0).await.unwrap_err();
    assert!(matches!(error, StoreError::BadSpec { what: "users", .. }), "{error}");
    for dim in [0, 1 << 17] {
        let mut flat = spec("a");
        flat.dim = dim;
        let error = publish_as(&kv, &flat, Named::Dense, 1).await.unwrap_err();
        assert!(matches!(error, StoreError::BadSpec { what: "dimensions", .. }), "{error}");
    }
}

async fn progress_ends_at_all_users<K: Kv + Clone>(kv: K) {
    let mut seen = Vec::new();
    let encode = |_: &[u32], _: &mut [u8]| Ok(());
    let users = Users { count: 500_000, ids: Ids::Dense, encode: &encode };
    publish(&kv, NS, &spec("a"), &users, &mut |done| seen.push(done)).await.unwrap();
    assert!(seen.len() > 1 && seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.last(), Some(&500_000));
}

/// A service publishes in a task of its own, which goes from thread to thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_can_be_spawned() {
    let folder = tempfile::tempdir().unwrap();
    let kv = EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap();
    let published = tokio::spawn(async move {
        let encode = |rows: &[u32], out: &mut [u8]| {
            rows.iter().zip(out.chunks_exact_mut(10)).for_each(|(&row, out)| out.copy_from_slice(&record(1, row)));
            Ok(())
        };
        let users = Users { count: 100, ids: Ids::Dense, encode: &encode };
        publish(&kv, NS, &spec("a"), &users, &mut |_| ()).await
    });
    assert_eq!(published.await.unwrap().unwrap().users, 100);
}
