//! A master is killed while users are read and while a release is published: errors for a while, never a wrong vector.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what clients saw")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::cluster::{NODE_TIMEOUT, TestCluster};
use crate::support::releases::{NS, Named, fingerprint, page_key, publish_as, publish_users, record, spec};
use tonnage::input::Id;
use tonnage::kv::{ClusterKv, Kv, KvError, RedisOptions, SLOTS, slot_of};
use tonnage::store::{
    Addressing, Ids, Manifest, ReleaseSpec, StoreError, UserVectors, Users, activate, current, publish, verify,
};

const USERS: u32 = 200_000;

/// One read of one user: when it ended, how long it took, and what was wrong.
struct Read {
    at: Instant,
    took: Duration,
    error: Option<String>,
}

/// Somebody who reads users of the active release, on a thread and with a client of its own, as a service would: with
/// the default timeouts.
struct Reader {
    stop: Arc<AtomicBool>,
    reads: JoinHandle<Vec<Read>>,
}

impl Reader {
    /// Reads users of pages in `slots`, on the first master or not.
    fn start(url: String, first: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reads = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(keep_reading(&url, first, &stopped))
        });
        Self { stop, reads }
    }

    /// All that it read, if none of it was wrong.
    fn stop(self) -> Vec<Read> {
        self.stop.store(true, Ordering::Relaxed);
        self.reads.join().unwrap()
    }
}

async fn keep_reading(url: &str, first: bool, stop: &AtomicBool) -> Vec<Read> {
    let kv = ClusterKv::connect(url, RedisOptions::default()).await.unwrap();
    let reader = UserVectors::open(kv, NS).await.unwrap();
    let release = reader.manifest().fingerprint;
    let mut reads = Vec::new();
    let mut row = 0;
    while !stop.load(Ordering::Relaxed) {
        row = (row + 7_919) % USERS;
        if is_on_first(reader.manifest(), row) != first {
            continue;
        }
        let begun = Instant::now();
        let error = match reader.get(&[Id::U64(u64::from(row))]).await {
            Ok(got) => {
                assert_eq!(got, [Some(record(release, row))], "row {row}");
                None
            }
            // nothing else: its pages had been replicated before the master died
            Err(StoreError::Kv(error)) => Some(kind(&error)),
            Err(other) => panic!("row {row}: {other}"),
        };
        let at = Instant::now();
        reads.push(Read { at, took: at - begun, error });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reads
}

fn kind(error: &KvError) -> String {
    match error {
        KvError::TimedOut { .. } => "timed out".to_owned(),
        KvError::Unavailable { detail, .. } => format!("unavailable: {detail}"),
        KvError::Refused { words, .. } => format!("refused: {words}"),
        other => other.to_string(),
    }
}

/// Whether the first master, which is the one that dies, has the page that a row is on.
fn is_on_first(manifest: &Manifest, row: u32) -> bool {
    let Addressing::Dense { slots } = manifest.addressing else { panic!("a dense release") };
    slot_of(&page_key(manifest, row / slots)) < SLOTS / 3
}

/// Prints what readers saw of some slots since then, and returns when their last error was.
fn report(name: &str, reads: &[Read], killed: Instant) -> Duration {
    let failed: Vec<_> = reads.iter().filter(|read| read.error.is_some()).collect();
    let since = |at: Instant| at.saturating_duration_since(killed);
    let last = failed.last().map_or(Duration::ZERO, |read| since(read.at));
    let slowest = reads.iter().map(|read| read.took).max().unwrap_or_default();
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    failed.iter().for_each(|read| *kinds.entry(read.error.as_deref().unwrap()).or_default() += 1);
    eprintln!(
        "{name}: {} reads, {} failed, from {:?} to {last:?} later; the slowest took {slowest:?}",
        reads.len(),
        failed.len(),
        failed.first().map(|read| since(read.at)),
    );
    kinds.iter().for_each(|(kind, count)| eprintln!("  {count} x {kind}"));
    last
}

async fn until_whole(kv: &ClusterKv, manifest: &Manifest) {
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(error) = verify(kv, NS, manifest).await {
        assert!(Instant::now() < until, "the cluster did not recover: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn reads_go_on_when_a_master_is_killed() {
    let mut cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let manifest = publish_users(&kv, "a", Named::Dense, USERS).await;
    activate(&kv, NS, "a").await.unwrap();
    cluster.replicated();
    // the node whose address they know is the one that dies
    let readers = [true, false].map(|first| Reader::start(cluster.url(), first));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let killed = Instant::now();
    cluster.kill(0);
    // a load has time: it waits for the replica, and tells nobody
    let keys: Vec<_> = (0..300).map(|n| format!("load:{n}").into_bytes()).collect();
    kv.set_many(keys.iter().map(|key| (key.clone(), key.clone())).collect(), None).await.unwrap();
    eprintln!("a load that began then was written {:?} after the kill", killed.elapsed());
    assert!(kv.get_many(&keys).await.unwrap().iter().zip(&keys).all(|(got, key)| got.as_ref() == Some(key)));
    until_whole(&kv, &manifest).await;
    eprintln!("every page was readable again {:?} after the kill", killed.elapsed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let [of_lost, of_others] = readers.map(Reader::stop);
    let last = report("slots of the killed master", &of_lost, killed);
    report("all other slots", &of_others, killed);
    assert!(of_lost.iter().any(|read| read.error.is_some()), "nothing was killed that was read");
    assert!(of_lost.iter().filter(|read| read.at > killed + last).count() > 50, "reads of its slots go on");
    // and the pointer is among what is still there
    assert_eq!(current(&kv, NS).await.unwrap(), manifest);
}

/// Publishes `users` users as `b` and kills the first master once so many are written.
async fn publish_through_a_kill(
    cluster: &mut TestCluster,
    kv: &ClusterKv,
    users: u32,
    kill_at: u32,
) -> (Instant, bool) {
    let spec: ReleaseSpec = spec("b");
    let encode = |rows: &[u32], out: &mut [u8]| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(10)) {
            out.copy_from_slice(&record(fingerprint("b"), row));
        }
        Ok(())
    };
    let keys_before = cluster.keys();
    let mut killed = None;
    let result = {
        let mut progress = |done| {
            if done >= kill_at && killed.is_none() {
                cluster.kill(0);
                killed = Some(Instant::now());
            }
        };
        let source = Users { count: users, ids: Ids::Dense, encode: &encode };
        publish(kv, NS, &spec, &source, &mut progress).await
    };
    let killed = killed.unwrap();
    let took = killed.elapsed();
    match &result {
        Ok(_) => eprintln!("killed at {kill_at} of {users} users: published {took:?} later"),
        Err(error) => eprintln!("killed at {kill_at} of {users} users: refused {took:?} later: {error}"),
    }
    if result.as_ref().is_err_and(|error| !matches!(error, StoreError::LeftBehind { .. })) {
        let left = cluster.keys().saturating_sub(keys_before);
        assert!(left < 5, "a publish that fails leaves no pages, but there are {left} keys");
    }
    (killed, result.is_ok())
}

async fn a_kill_while_publishing(users: u32, kill_at: u32) {
    let mut cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let active = publish_users(&kv, "a", Named::Dense, USERS).await;
    activate(&kv, NS, "a").await.unwrap();
    cluster.replicated();
    let readers = [true, false].map(|first| Reader::start(cluster.url(), first));

    let (killed, published) = publish_through_a_kill(&mut cluster, &kv, users, kill_at).await;
    // whatever came of it, the active release is the old one, and whole
    until_whole(&kv, &active).await;
    assert_eq!(current(&kv, NS).await.unwrap(), active);
    if !published {
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = publish_as(&kv, &spec("b"), Named::Dense, users).await {
            assert!(Instant::now() < until, "it cannot be repeated: {error}");
            eprintln!("again: {error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let manifest = activate(&kv, NS, "b").await.unwrap();
    verify(&kv, NS, &manifest).await.unwrap();
    let [of_lost, of_others] = readers.map(Reader::stop);
    report("meanwhile, of the killed master", &of_lost, killed);
    report("meanwhile, of the others", &of_others, killed);
}

#[tokio::test]
async fn a_publish_goes_on_when_a_master_is_killed_or_leaves_nothing() {
    a_kill_while_publishing(3_000_000, 1_000_000).await;
}

#[tokio::test]
async fn a_publish_that_is_killed_while_verified_leaves_nothing_and_can_be_repeated() {
    a_kill_while_publishing(1_500_000, 1_500_000).await;
}

#[tokio::test]
async fn a_master_that_stands_still_holds_up_only_its_own_users() {
    let cluster = TestCluster::start();
    cluster.nodes().iter().for_each(|node| node.expect("CONFIG SET cluster-require-full-coverage no", "+OK"));
    let kv = cluster.connect().await;
    let manifest = publish_users(&kv, "a", Named::Dense, USERS).await;
    activate(&kv, NS, "a").await.unwrap();
    cluster.replicated();
    let readers = [true, false].map(|first| Reader::start(cluster.url(), first));
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.node(0).pause();
    let stopped = Instant::now();
    until_whole(&ClusterKv::connect(&cluster.other_url(), RedisOptions::default()).await.unwrap(), &manifest).await;
    let taken_over = Instant::now();
    cluster.node(0).resume();
    tokio::time::sleep(Duration::from_secs(1)).await;
    until_whole(&kv, &manifest).await; // its own requests too find the way, from a map that says nothing of it all
    let [of_stopped, of_others] = readers.map(Reader::stop);
    report("slots of the master that stood still", &of_stopped, stopped);
    report("all other slots", &of_others, stopped);
    let answered = |reads: &[Read], from: Instant, to: Instant| {
        reads.iter().filter(|read| read.error.is_none() && from < read.at && read.at < to).count()
    };
    // before the others notice: nobody reads its users, and everybody else is read
    let (after, before) = (stopped + NODE_TIMEOUT / 8, stopped + NODE_TIMEOUT / 2);
    assert_eq!(answered(&of_stopped, after, before), 0);
    assert!(answered(&of_others, stopped, before) > 50);
    let refused = |read: &&Read| read.error.as_ref().is_some_and(|error| error.contains("ClusterDown"));
    assert_eq!(of_others.iter().filter(refused).count(), 0, "without full coverage, others are served throughout");
    assert!(answered(&of_stopped, taken_over, taken_over + Duration::from_secs(1)) > 50);
}

/// The worst that asynchronous replication can do: the replica that takes over has only a part of the active release.
#[tokio::test]
async fn a_replica_that_lagged_takes_over_without_a_wrong_vector() {
    let mut cluster = TestCluster::start();
    let kv = cluster.connect().await;
    publish_users(&kv, "a", Named::Dense, USERS).await;
    activate(&kv, NS, "a").await.unwrap();
    cluster.replicated();
    // 12 MB a master: more than what a replica that stands still finds in its socket when it goes on
    let users = 3_000_000;
    cluster.node(3).pause();
    let manifest = publish_users(&kv, "b", Named::Dense, users).await;
    let reader = UserVectors::open_release(kv.clone(), NS, "b").await.unwrap();
    let activated = activate(&kv, NS, "b").await;
    cluster.kill(0);
    cluster.node(3).resume();
    let keys: Vec<_> = (0..300).map(|n| format!("load:{n}").into_bytes()).collect();
    kv.set_many(keys.iter().map(|key| (key.clone(), key.clone())).collect(), None).await.unwrap(); // until it is over

    let (mut found, mut gone) = (0, 0);
    for row in (0..users).step_by(9_973) {
        match reader.get(&[Id::U64(u64::from(row))]).await {
            Ok(got) => {
                assert_eq!(got, [Some(record(manifest.fingerprint, row))], "row {row}");
                found += 1;
            }
            Err(StoreError::MissingPage { .. }) => {
                assert!(is_on_first(&manifest, row), "row {row} was not lost");
                gone += 1;
            }
            Err(other) => panic!("row {row}: {other}"),
        }
    }
    eprintln!("activation: {activated:?}; afterwards {found} users found, {gone} told to be gone, 0 wrong");
    assert!(found > 0 && gone > 0);
    // and it is not taken for whole by anybody who looks
    assert!(matches!(verify(&kv, NS, &manifest).await, Err(StoreError::MissingPage { .. })));
    assert!(activate(&kv, NS, "b").await.is_err());
    publish_users(&kv, "c", Named::Dense, USERS).await;
    activate(&kv, NS, "c").await.unwrap();
}
