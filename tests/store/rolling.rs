//! A release that rolls over the active one's pages, or replaces it: what readers of either see, and what is left.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::releases::{NS, Named, fingerprint, page_key, publish_users, record, spec};
use crate::support::rolls::{USERS, a_roll_dies, id, look, publish_by, roll};
use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::Kv;
use tonnage::store::{
    ReleaseSpec, RemoveOptions, State, StoreError, Strategy, UserVectors, activate, current, gc, ledger, retire,
    rollback, verify,
};

crate::on_both_homes!(
    a_reader_of_either_release_finds_only_its_own_while_one_rolls_over_the_other,
    a_roll_of_hashed_pages_is_read_by_either_reader,
    a_roll_that_died_is_run_again_to_its_end,
    a_release_that_was_rolled_over_by_half_is_not_gone_back_to,
    a_shorter_and_a_longer_release_roll_too,
    what_cannot_be_told_apart_is_not_rolled,
    more_users_than_a_page_can_count_are_not_rolled_into_it,
    a_rolled_release_is_succeeded_and_retired_like_any_other,
    replacing_removes_the_active_release_first,
);

async fn rolls_under_readers<K: Kv + Clone>(kv: K, named: Named) {
    publish_users(&kv, "a", named, USERS).await;
    activate(&kv, NS, "a").await.unwrap();
    let done = AtomicBool::new(false);
    let rolling = async {
        let manifest = roll(&kv, "b", named, USERS).await.unwrap();
        done.store(true, Ordering::Relaxed);
        manifest
    };
    let reading = async {
        let old = UserVectors::open(kv.clone(), NS).await.unwrap();
        let new = loop {
            match UserVectors::open_release(kv.clone(), NS, "b").await {
                Ok(reader) => break reader,
                Err(StoreError::NoRelease { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let (mut at, mut both) = (0, 0);
        while !done.load(Ordering::Relaxed) {
            let ((old_has, old_lacks), (new_has, new_lacks)) =
                (look(&old, named, at).await, look(&new, named, at).await);
            both += u32::from(old_has > 0 && old_lacks > 0 && new_has > 0 && new_lacks > 0);
            at += 40;
            tokio::task::yield_now().await; // a file is read without waiting
        }
        assert!(both > 0, "the readers saw nothing of the roll in {at} looks");
        assert_eq!((look(&old, named, 0).await.0, look(&new, named, 0).await.1), (0, 0));
    };
    let (manifest, ()) = tokio::join!(rolling, reading);
    assert_eq!(current(&kv, NS).await.unwrap(), manifest);
    verify(&kv, NS, &manifest).await.unwrap();
    let reader = UserVectors::open(kv, NS).await.unwrap();
    for at in (0..4_000).step_by(40) {
        assert_eq!(look(&reader, named, at).await, (40, 0));
    }
}

async fn a_reader_of_either_release_finds_only_its_own_while_one_rolls_over_the_other<K: Kv + Clone>(kv: K) {
    rolls_under_readers(kv, Named::Dense).await;
}

async fn a_roll_of_hashed_pages_is_read_by_either_reader<K: Kv + Clone>(kv: K) {
    rolls_under_readers(kv, Named::Numbers).await;
}

async fn a_roll_that_died_is_run_again_to_its_end<K: Kv + Clone>(kv: K) {
    a_roll_dies(&kv).await;
    let old = UserVectors::open(kv.clone(), NS).await.unwrap();
    assert_eq!(
        (old.manifest().name.as_str(), ledger(&kv, NS).await.unwrap().find("b").unwrap().state),
        ("a", State::Rolling)
    );
    look(&old, Named::Dense, 0).await;
    let error = activate(&kv, NS, "b").await.unwrap_err();
    assert!(error.to_string().contains("run the same publish again"), "{error}");
    assert!(gc(&kv, NS, &RemoveOptions::default(), &mut |_, _| ()).await.unwrap().is_empty());
    let error = roll(&kv, "c", Named::Dense, USERS).await.unwrap_err();
    assert!(error.to_string().contains("rolled in by half"), "{error}");
    let manifest = roll(&kv, "b", Named::Dense, USERS).await.unwrap();
    verify(&kv, NS, &manifest).await.unwrap();
    assert_eq!(current(&kv, NS).await.unwrap().name, "b");
    assert_eq!(look(&UserVectors::open(kv, NS).await.unwrap(), Named::Dense, 0).await, (40, 0));
}

async fn a_release_that_was_rolled_over_by_half_is_not_gone_back_to<K: Kv + Clone>(kv: K) {
    a_roll_dies(&kv).await;
    publish_users(&kv, "c", Named::Dense, USERS).await;
    activate(&kv, NS, "c").await.unwrap();
    for error in [rollback(&kv, NS).await.unwrap_err(), activate(&kv, NS, "a").await.unwrap_err()] {
        assert!(error.to_string().contains("release a is rolled over by half"), "{error}");
    }
    assert_eq!(current(&kv, NS).await.unwrap().name, "c");
}

async fn a_shorter_and_a_longer_release_roll_too<K: Kv + Clone>(kv: K) {
    for named in [Named::Dense, Named::Numbers] {
        let name = |turn: &str| format!("{turn}{named:?}");
        let first = publish_users(&kv, &name("a"), named, 10_000).await;
        activate(&kv, NS, &name("a")).await.unwrap();
        let old = UserVectors::open(kv.clone(), NS).await.unwrap();
        let shorter = roll(&kv, &name("b"), named, 3_000).await.unwrap();
        assert_eq!(shorter.addressing, first.addressing);
        let ids: Vec<Id> = (0..10_000).map(|row| id(named, row)).collect();
        assert!(old.get(&ids).await.unwrap().iter().all(Option::is_none));
        let new = UserVectors::open(kv.clone(), NS).await.unwrap();
        for (row, got) in (0..).zip(new.get(&ids).await.unwrap()) {
            assert_eq!(got, (row < 3_000).then(|| record(shorter.fingerprint, row)), "row {row}");
        }
        let longer = roll(&kv, &name("c"), named, 20_000).await.unwrap();
        verify(&kv, NS, &longer).await.unwrap();
        assert!(new.get(&ids).await.unwrap().iter().all(Option::is_none));
        assert_eq!(longer.keys(), first.keys());
    }
}

async fn what_cannot_be_told_apart_is_not_rolled<K: Kv + Clone>(kv: K) {
    assert!(matches!(roll(&kv, "b", Named::Dense, 10).await, Err(StoreError::NoActiveRelease { .. })));
    let active = publish_users(&kv, "a", Named::Dense, 3_000).await;
    activate(&kv, NS, "a").await.unwrap();
    let int4 = ReleaseSpec { codec: Codec::Int4, ..spec("b") };
    let error = publish_by(&kv, &int4, Named::Dense, 3_000, Strategy::Rolling).await.unwrap_err();
    assert!(matches!(error, StoreError::CannotRoll { .. }), "{error}");
    let error = roll(&kv, "b", Named::Numbers, 3_000).await.unwrap_err();
    assert!(matches!(error, StoreError::CannotRoll { .. }), "{error}");
    // of another release, but with the same tag
    let twin = (0..u64::MAX).map(|f| ReleaseSpec { fingerprint: f, ..spec("b") }).find(|spec| {
        let id = twox_hash::XxHash3_64::oneshot_with_seed(spec.fingerprint, b"b") >> 16;
        (id as u16).max(1) == active.tag()
    });
    let error = publish_by(&kv, &twin.unwrap(), Named::Dense, 3_000, Strategy::Rolling).await.unwrap_err();
    assert!(matches!(error, StoreError::CannotRoll { .. }), "{error}");
    verify(&kv, NS, &active).await.unwrap();
}

async fn more_users_than_a_page_can_count_are_not_rolled_into_it<K: Kv + Clone>(kv: K) {
    publish_users(&kv, "a", Named::Numbers, 10).await; // one page
    activate(&kv, NS, "a").await.unwrap();
    let error = roll(&kv, "b", Named::Numbers, 70_000).await.unwrap_err();
    assert!(matches!(error, StoreError::BadSpec { got: 70_000, .. }), "{error}");
    let reader = UserVectors::open(kv, NS).await.unwrap();
    assert!(reader.get(&[id(Named::Numbers, 7)]).await.unwrap()[0].is_some());
}

async fn a_rolled_release_is_succeeded_and_retired_like_any_other<K: Kv + Clone>(kv: K) {
    let first = publish_users(&kv, "a", Named::Dense, 3_000).await;
    activate(&kv, NS, "a").await.unwrap();
    let rolled = roll(&kv, "b", Named::Dense, 3_000).await.unwrap();
    assert!(matches!(rollback(&kv, NS).await, Err(StoreError::NoPrevious { .. })));
    // its keys are the first one's, which therefore cannot be published again under it
    let error = publish_by(&kv, &spec("a"), Named::Dense, 3_000, Strategy::Beside).await.unwrap_err();
    assert!(error.to_string().contains("another release has taken over"), "{error}");
    let next = publish_users(&kv, "c", Named::Dense, 3_000).await;
    activate(&kv, NS, "c").await.unwrap();
    assert_eq!(rollback(&kv, NS).await.unwrap().name, "b");
    verify(&kv, NS, &rolled).await.unwrap();
    activate(&kv, NS, "c").await.unwrap();
    let removed = retire(&kv, NS, "b", &RemoveOptions::default(), &mut |_, _| ()).await.unwrap();
    assert_eq!(removed.pages, u64::from(first.pages()));
    assert_eq!(kv.get_many(&[page_key(&first, 0)]).await.unwrap(), [None]);
    verify(&kv, NS, &next).await.unwrap();
}

async fn replacing_removes_the_active_release_first<K: Kv + Clone>(kv: K) {
    let old = publish_users(&kv, "a", Named::Dense, 3_000).await;
    activate(&kv, NS, "a").await.unwrap();
    let pinned = UserVectors::open(kv.clone(), NS).await.unwrap();
    let new = publish_by(&kv, &spec("b"), Named::Numbers, 3_000, Strategy::Replace).await.unwrap();
    assert!(matches!(current(&kv, NS).await, Err(StoreError::NoActiveRelease { .. })));
    assert!(matches!(pinned.get(&[Id::U64(1)]).await, Err(StoreError::Retired { .. })));
    let keys: Vec<_> = (0..old.pages()).map(|page| page_key(&old, page)).collect();
    assert!(kv.get_many(&keys).await.unwrap().iter().all(Option::is_none));
    activate(&kv, NS, "b").await.unwrap();
    verify(&kv, NS, &new).await.unwrap();
    let reader = UserVectors::open(kv, NS).await.unwrap();
    assert_eq!(reader.get(&[id(Named::Numbers, 7)]).await.unwrap(), [Some(record(fingerprint("b"), 7))]);
}
