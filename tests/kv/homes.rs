//! What a `Kv` promises, asked of every home.

use std::time::Duration;

use tonnage::kv::{KeyRange, Kv};

crate::on_every_home!(
    a_value_comes_back_and_a_missing_one_does_not,
    ranges_are_cut_at_the_end_of_the_value,
    a_ttl_hides_the_value_when_it_is_over,
    a_plain_write_takes_an_older_ttl_off,
    persist_takes_the_ttl_off_and_counts_what_is_there,
    delete_says_how_many_were_there,
    compare_and_set_writes_only_on_the_expected_value,
    compare_and_set_carries_a_ttl,
    delete_if_equal_removes_only_the_expected_value,
    of_eight_concurrent_writers_exactly_one_wins,
    a_load_larger_than_the_in_flight_bound_arrives_whole,
    entries_may_expire_each_at_its_own_time,
    empty_calls_do_nothing,
    stats_know_the_bytes,
);

fn key(name: &str) -> Vec<u8> {
    name.as_bytes().to_vec()
}

async fn put<K: Kv>(kv: &K, name: &str, value: &[u8], ttl: Option<Duration>) {
    kv.set_many(vec![(key(name), value.to_vec())], ttl).await.unwrap();
}

async fn get<K: Kv>(kv: &K, name: &str) -> Option<Vec<u8>> {
    kv.get_many(&[key(name)]).await.unwrap().remove(0)
}

async fn a_value_comes_back_and_a_missing_one_does_not<K: Kv>(kv: K) {
    let bytes: Vec<u8> = (0..=255).collect();
    put(&kv, "b", &bytes, None).await;
    put(&kv, "\0\r\n", b"", None).await;
    let got = kv.get_many(&[key("b"), key("none"), key("\0\r\n"), key("b")]).await.unwrap();
    assert_eq!(got, [Some(bytes.clone()), None, Some(vec![]), Some(bytes)]);
}

async fn parts<K: Kv>(kv: &K, asked: &[KeyRange]) -> Vec<Vec<u8>> {
    kv.get_ranges(asked).await.into_iter().collect::<Result<_, _>>().unwrap()
}

async fn ranges_are_cut_at_the_end_of_the_value<K: Kv>(kv: K) {
    put(&kv, "page", b"0123456789", None).await;
    let range = |name: &str, start, end| KeyRange { key: key(name), start, end };
    let asked = [
        range("page", 2, 5),
        range("page", 8, 20),
        range("page", 10, 12),
        range("page", 900, u32::MAX),
        range("page", 0, 0),
        range("page", 5, 2),
        range("none", 0, 4),
        range("page", 0, 10),
    ];
    let got = parts(&kv, &asked).await;
    let expected: [&[u8]; 8] = [b"234", b"89", b"", b"", b"", b"", b"", b"0123456789"];
    assert_eq!(got, expected);
}

async fn a_ttl_hides_the_value_when_it_is_over<K: Kv>(kv: K) {
    put(&kv, "short", b"x", Some(Duration::from_millis(300))).await;
    put(&kv, "long", b"y", Some(Duration::from_secs(100))).await;
    assert_eq!(get(&kv, "short").await, Some(b"x".to_vec()));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(get(&kv, "short").await, None);
    let range = KeyRange { key: key("short"), start: 0, end: 1 };
    assert_eq!(parts(&kv, &[range]).await, [b""]);
    assert_eq!(kv.delete_many(&[key("short")]).await.unwrap(), 0);
    assert_eq!(get(&kv, "long").await, Some(b"y".to_vec()));
    assert!(kv.compare_and_set(b"short", None, b"again", None).await.unwrap());
}

async fn a_plain_write_takes_an_older_ttl_off<K: Kv>(kv: K) {
    put(&kv, "k", b"x", Some(Duration::from_millis(200))).await;
    put(&kv, "k", b"y", None).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&kv, "k").await, Some(b"y".to_vec()));
}

async fn persist_takes_the_ttl_off_and_counts_what_is_there<K: Kv>(kv: K) {
    put(&kv, "timed", b"x", Some(Duration::from_millis(300))).await;
    put(&kv, "plain", b"y", None).await;
    let keys = [key("timed"), key("none"), key("plain")];
    assert_eq!(kv.persist_many(&keys).await.unwrap(), 2);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(kv.persist_many(&keys).await.unwrap(), 2);
    assert_eq!(get(&kv, "timed").await, Some(b"x".to_vec()));
}

async fn delete_says_how_many_were_there<K: Kv>(kv: K) {
    put(&kv, "a", b"1", None).await;
    put(&kv, "b", b"2", Some(Duration::from_secs(100))).await;
    let keys = [key("a"), key("b"), key("c")];
    assert_eq!(kv.delete_many(&keys).await.unwrap(), 2);
    assert_eq!(kv.delete_many(&keys).await.unwrap(), 0);
    assert_eq!(kv.get_many(&keys).await.unwrap(), [None, None, None]);
}

async fn compare_and_set_writes_only_on_the_expected_value<K: Kv>(kv: K) {
    assert!(!kv.compare_and_set(b"p", Some(b"old"), b"new", None).await.unwrap());
    assert!(kv.compare_and_set(b"p", None, b"one", None).await.unwrap());
    assert!(!kv.compare_and_set(b"p", None, b"two", None).await.unwrap());
    assert!(!kv.compare_and_set(b"p", Some(b"two"), b"three", None).await.unwrap());
    assert_eq!(get(&kv, "p").await, Some(b"one".to_vec()));
    assert!(kv.compare_and_set(b"p", Some(b"one"), b"two", None).await.unwrap());
    assert_eq!(get(&kv, "p").await, Some(b"two".to_vec()));
}

async fn compare_and_set_carries_a_ttl<K: Kv>(kv: K) {
    let soon = Some(Duration::from_millis(200));
    assert!(kv.compare_and_set(b"absent", None, b"x", soon).await.unwrap());
    put(&kv, "present", b"x", None).await;
    assert!(kv.compare_and_set(b"present", Some(b"x"), b"y", soon).await.unwrap());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(get(&kv, "absent").await, None);
    assert_eq!(get(&kv, "present").await, None);
}

async fn delete_if_equal_removes_only_the_expected_value<K: Kv>(kv: K) {
    assert!(!kv.delete_if_equal(b"p", b"mine").await.unwrap());
    put(&kv, "p", b"mine", Some(Duration::from_secs(100))).await;
    assert!(!kv.delete_if_equal(b"p", b"").await.unwrap());
    assert!(kv.delete_if_equal(b"p", b"mine").await.unwrap());
    assert_eq!(get(&kv, "p").await, None);
    put(&kv, "p", b"theirs", None).await;
    assert!(!kv.delete_if_equal(b"p", b"mine").await.unwrap());
    assert_eq!(get(&kv, "p").await, Some(b"theirs".to_vec()));
}

async fn of_eight_concurrent_writers_exactly_one_wins<K: Kv>(kv: K) {
    let mut old: Option<Vec<u8>> = None;
    for round in 0..20 {
        let new: Vec<Vec<u8>> = (0..8).map(|n| format!("{round}.{n}").into_bytes()).collect();
        let tries = new.iter().map(|new| kv.compare_and_set(b"p", old.as_deref(), new, None));
        let won = futures_util::future::try_join_all(tries).await.unwrap();
        assert_eq!(won.iter().filter(|&&won| won).count(), 1, "round {round}: {won:?}");
        let winner = won.iter().position(|&won| won).unwrap();
        assert_eq!(get(&kv, "p").await.as_ref(), Some(&new[winner]));
        old = Some(new[winner].clone());
    }
}

async fn a_load_larger_than_the_in_flight_bound_arrives_whole<K: Kv>(kv: K) {
    let value = |n: u32| vec![n as u8; 8_000 + n as usize];
    let entries = (0..700).map(|n| (key(&format!("p:{n}")), value(n))).collect();
    kv.set_many(entries, None).await.unwrap(); // 5.8 MB against a bound of 1 MiB
    let keys: Vec<_> = (0..700).map(|n| key(&format!("p:{n}"))).collect();
    for (n, got) in (0..).zip(kv.get_many(&keys).await.unwrap()) {
        assert_eq!(got, Some(value(n)));
    }
}

async fn entries_may_expire_each_at_its_own_time<K: Kv>(kv: K) {
    put(&kv, "soon", b"older", None).await;
    let entry = |name: &str, ttl| (key(name), name.as_bytes().to_vec(), ttl);
    let entries = vec![entry("soon", Duration::from_millis(300)), entry("late", Duration::from_secs(100))];
    kv.set_expiring(entries).await.unwrap();
    assert_eq!(get(&kv, "late").await, Some(b"late".to_vec()));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((get(&kv, "soon").await, get(&kv, "late").await), (None, Some(b"late".to_vec())));
}

async fn empty_calls_do_nothing<K: Kv>(kv: K) {
    assert!(kv.get_many(&[]).await.unwrap().is_empty());
    assert!(kv.get_ranges(&[]).await.is_empty());
    kv.set_many(vec![], None).await.unwrap();
    kv.set_expiring(vec![]).await.unwrap();
    assert_eq!(kv.delete_many(&[]).await.unwrap(), 0);
    assert_eq!(kv.persist_many(&[]).await.unwrap(), 0);
}

async fn stats_know_the_bytes<K: Kv>(kv: K) {
    let entries = (0..200).map(|n| (key(&format!("{n}")), vec![7; 8_000])).collect();
    kv.set_many(entries, None).await.unwrap();
    let stats = kv.stats().await.unwrap();
    assert!(stats.used_bytes >= 1_600_000, "{stats:?}");
    assert!(!stats.version.is_empty());
    assert_eq!(stats.limit_bytes, None);
}
