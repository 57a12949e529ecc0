//! A release that does not fit one shard of a cluster is refused before the first write; each shard is watched by itself.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what was measured")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::RedisServer;
use crate::support::cluster::TestCluster;
use crate::support::releases::{NS, spec};
use tonnage::kv::{ClusterKv, SlotRange, slot_of};
use tonnage::store::{
    Addressing, Finding, Footprint, Ids, Manifest, PublishOptions, ReleaseSpec, Remedy, Room, Share, StoreError, Users,
    activate, examine, prepare, verify,
};

const USERS: u32 = 1_000_000;

fn wide(name: &str) -> ReleaseSpec {
    ReleaseSpec { dim: 64, ..spec(name) }
}

#[allow(clippy::unnecessary_wraps)] // the signature is the publisher's
fn fill(rows: &[u32], out: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let bytes = rows.iter().flat_map(|row| row.to_le_bytes()).cycle();
    out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
    Ok(())
}

async fn options(kv: &ClusterKv, budget_bytes: Option<u64>) -> PublishOptions {
    let room = Room { shards: kv.probe().await.unwrap(), budget_bytes, ..Room::default() };
    PublishOptions { room, ..PublishOptions::default() }
}

const MILLION: Users<'static> = Users { count: USERS, ids: Ids::Dense, encode: &fill };

async fn foresee(kv: &ClusterKv) -> Vec<Footprint> {
    let options = options(kv, None).await;
    prepare(kv, NS, &wide("a"), &MILLION, &options).await.unwrap().footprints().to_vec()
}

async fn publish(kv: &ClusterKv, budget_bytes: Option<u64>) -> Result<Manifest, StoreError> {
    let options = options(kv, budget_bytes).await;
    prepare(kv, NS, &wide("a"), &MILLION, &options).await?.run(&mut |_| ()).await
}

/// The same, with replicas that keep up however slow the machine: what they lag behind would stand in their master's
/// `used_memory_peak`, and no prediction can know it.
async fn publish_in_step(kv: &ClusterKv, cluster: &TestCluster) -> Manifest {
    let (options, spec) = (options(kv, None).await, wide("a"));
    let prepared = prepare(kv, NS, &spec, &MILLION, &options).await.unwrap();
    prepared.run(&mut |_| cluster.replicated()).await.unwrap()
}

fn limit(cluster: &TestCluster, limit_bytes: u64) {
    cluster.nodes().iter().for_each(|node| node.expect(&format!("CONFIG SET maxmemory {limit_bytes}"), "+OK"));
}

fn node<'c>(cluster: &'c TestCluster, home: &str) -> &'c RedisServer {
    let port = |node: &&RedisServer| home.contains(&format!(":{}/", node.port()));
    cluster.nodes().iter().find(port).unwrap()
}

fn is_untouched(cluster: &TestCluster) -> bool {
    let wrote = |node: &RedisServer| node.say("INFO commandstats").unwrap().contains("cmdstat_set:");
    cluster.nodes().iter().all(|node| node.say("DBSIZE").unwrap().starts_with(":0\r") && !wrote(node))
}

fn refused_by(result: Result<Manifest, StoreError>, shard: &Footprint, short: std::ops::Range<f64>) {
    let error = result.unwrap_err();
    let StoreError::TooLarge { shard: named, peak_bytes, short_bytes, remedies, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(named, &shard.shard, "{error}");
    assert!(error.to_string().contains(shard.shard.as_deref().unwrap()), "{error}");
    assert!(short.contains(&(*short_bytes as f64 / *peak_bytes as f64)), "{error}");
    assert!(matches!(remedies.last(), Some(Remedy::Raise { limit_bytes }) if limit_bytes >= peak_bytes), "{error}");
}

#[tokio::test]
async fn the_shard_with_least_room_decides_and_each_comes_to_what_was_predicted() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let shares = foresee(&kv).await;
    let fullest = shares.iter().max_by_key(|share| share.peak_bytes).unwrap();

    refused_by(publish(&kv, Some(fullest.peak_bytes * 97 / 100)).await, fullest, 0.025..0.035);
    limit(&cluster, fullest.peak_bytes * 97 / 100);
    refused_by(publish(&kv, None).await, fullest, 0.025..0.035);
    limit(&cluster, 0);
    // not the fullest, but the one with least room
    let least = shares.iter().min_by_key(|share| share.peak_bytes).unwrap();
    let home = least.shard.as_deref().unwrap();
    node(&cluster, home).expect(&format!("CONFIG SET maxmemory {}", least.peak_bytes * 9 / 10), "+OK");
    refused_by(publish(&kv, None).await, least, 0.09..0.11);
    assert!(is_untouched(&cluster), "a refused release wrote");

    limit(&cluster, fullest.peak_bytes * 101 / 100);
    let manifest = publish_in_step(&kv, &cluster).await;
    let peaks: Vec<u64> = shares.iter().map(|share| peak(&cluster, share)).collect();
    activate(&kv, NS, "a").await.unwrap();
    verify(&kv, NS, &manifest).await.unwrap();
    assert_eq!(cluster.keys(), pages_by_name(&kv, &manifest).await.iter().sum::<u64>() + 2);
    drop(kv);
    cluster.replicated();
    tokio::time::sleep(Duration::from_secs(2)).await; // connections and their buffers go
    for (share, peak) in shares.iter().zip(peaks) {
        let rest = node(&cluster, share.shard.as_deref().unwrap()).info("used_memory");
        let error = |predicted: u64, got: u64| (predicted as f64 - got as f64) / got as f64;
        let (off_rest, off_peak) = (error(share.rest_bytes, rest), error(share.peak_bytes, peak));
        eprintln!("rest {rest} {:+.3} %, peak {peak} {:+.3} %: {share:?}", off_rest * 100.0, off_peak * 100.0);
        assert!(off_rest.abs() < 0.01 && off_peak.abs() < 0.02, "{share:?}");
    }
    let growth = manifest.memory.unwrap();
    let off = growth.predicted_bytes as f64 / growth.actual_bytes as f64 - 1.0;
    eprintln!("{growth:?}: {:+.3} %", off * 100.0);
    assert!(off.abs() < 0.02, "{growth:?}"); // buffers are seen a moment late
}

fn peak(cluster: &TestCluster, share: &Footprint) -> u64 {
    node(cluster, share.shard.as_deref().unwrap()).info("used_memory_peak")
}

/// Pages of each shard, by the names of them all.
async fn pages_by_name(kv: &ClusterKv, manifest: &Manifest) -> Vec<u64> {
    let Addressing::Dense { slots } = manifest.addressing else { panic!("a dense release") };
    let names: Vec<_> =
        (0..USERS.div_ceil(slots)).map(|page| crate::support::releases::page_key(manifest, page)).collect();
    let shards = kv.shards().await.unwrap();
    let of = |slots: &[SlotRange]| {
        names.iter().filter(|name| slots.iter().any(|range| range.has(slot_of(name)))).count() as u64
    };
    shards.iter().map(|shard| of(&shard.slots)).collect()
}

#[tokio::test]
async fn a_doctor_tells_each_shard_by_itself() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let users = Users { count: 300_000, ids: Ids::Dense, encode: &fill };
    for name in ["a", "b"] {
        let (spec, options) = (wide(name), options(&kv, None).await);
        prepare(&kv, NS, &spec, &users, &options).await.unwrap().run(&mut |_| ()).await.unwrap();
        activate(&kv, NS, name).await.unwrap();
    }
    cluster.replicated();
    let checkup = examine(&kv, NS, &options(&kv, None).await.room).await.unwrap();
    assert_eq!((checkup.shards.len(), checkup.shares.len(), &checkup.findings[..]), (3, 0, &[][..]));
    let releases = |shares: &[Share]| -> u64 {
        shares.iter().filter(|share| share.part.starts_with("release")).map(|share| share.bytes).sum()
    };
    for shard in &checkup.shards {
        let used: u64 = shard.shares.iter().map(|share| share.bytes).sum();
        assert_eq!((used, shard.limit_bytes, shard.next_peak_bytes), (shard.used_bytes, None, None), "{shard:?}");
        let explained = releases(&shard.shares) as f64 / shard.used_bytes as f64;
        assert!((0.6..0.99).contains(&explained), "{shard:?}");
    }
    // what stands on the shards is what the releases cost in all
    let all: u64 = checkup.releases.iter().map(|release| release.predicted_bytes).sum();
    let shards: u64 = checkup.shards.iter().map(|shard| releases(&shard.shares)).sum();
    assert_eq!(shards, all);

    // the one with the least room is named
    let least = &checkup.shards[1];
    node(&cluster, &least.shard).expect(&format!("CONFIG SET maxmemory {}", least.used_bytes + (2 << 20)), "+OK");
    let checkup = examine(&kv, NS, &options(&kv, None).await.room).await.unwrap();
    let [Finding::NoHeadroom { shard, peak_bytes, limit_bytes }] = &checkup.findings[..] else { panic!("{checkup:?}") };
    assert_eq!((shard.as_ref(), *limit_bytes), (Some(&least.shard), least.used_bytes + (2 << 20)));
    assert_eq!(checkup.shards[1].next_peak_bytes, Some(*peak_bytes));
    assert!(checkup.findings[0].to_string().contains(&least.shard[..]), "{}", checkup.findings[0]);
}

#[tokio::test]
async fn what_a_lagging_replica_has_still_to_be_sent_is_no_reason_to_stop() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let fullest = foresee(&kv).await.iter().map(|share| share.peak_bytes).max().unwrap();
    limit(&cluster, fullest * 101 / 100);
    let (replica, others) = cluster.nodes().split_last().unwrap();
    replica.pause();
    let published = publish(&kv, None).await;
    let behind = others.iter().map(|node| node.info("mem_not_counted_for_evict")).max().unwrap();
    replica.resume();
    published.unwrap();
    assert!(behind > 10_000_000, "the replica lagged by no more than {behind} bytes");
}

#[tokio::test]
async fn another_writer_on_one_shard_is_noticed() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let wrote = AtomicBool::new(false);
    let other = |n: u32| format!("SETRANGE other:{n} 8000000 x");
    let encode = |rows: &[u32], out: &mut [u8]| {
        if rows[0] > 200_000 && !wrote.swap(true, Ordering::Relaxed) {
            // whichever name is of the second shard; it refuses all others
            (0..1_000).find(|&n| cluster.node(1).say(&other(n)).unwrap().starts_with(':')).unwrap();
        }
        fill(rows, out)
    };
    let users = Users { count: 400_000, ids: Ids::Dense, encode: &encode };
    let options = options(&kv, None).await;
    let error = prepare(&kv, NS, &wide("b"), &users, &options).await.unwrap().run(&mut |_| ()).await.unwrap_err();
    let StoreError::Drift { shard, .. } = &error else { panic!("{error}") };
    assert!(shard.as_ref().unwrap().contains(&format!(":{}/", cluster.node(1).port())), "{error}");
    assert_eq!(cluster.keys(), 1, "more is left than what the other wrote");
}
