//! What each shard of a cluster will use is known from the names of the keys, before any is written.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what was measured")]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::cluster::TestCluster;
use crate::support::releases::{NS, fingerprint};
use tonnage::codec::Codec;
use tonnage::kv::memory::{Dataset, Expiry, Keys, Names};
use tonnage::kv::{Shard, probe, slot_of};
use tonnage::store::{Addressing, Ids, Manifest, ReleaseSpec, Users, activate, publish};

const USERS: u32 = 1_000_000;

/// `repl-backlog-size` unless configured otherwise; and the blocks that it is kept in (7.0 `replication.c`:
/// `feedReplicationBuffer`, at least `PROTO_REPLY_CHUNK_BYTES`), of which one is begun.
const BACKLOG_BYTES: u64 = (1 << 20) + (16 << 10);

/// The keys of a release of 64-d int8 in dense pages, and the lengths of their values.
fn pages(manifest: &Manifest) -> Vec<(Vec<u8>, usize)> {
    let Addressing::Dense { slots } = manifest.addressing else { panic!("a dense release") };
    let users = |page: u32| slots.min(USERS - page * slots) as usize;
    let key = |page| crate::support::releases::page_key(manifest, page);
    (0..USERS.div_ceil(slots)).map(|page| (key(page), users(page) * 68)).collect()
}

/// What falls to a shard: groups of keys of one length of name and value.
fn load_of(shard: &Shard, pages: &[(Vec<u8>, usize)]) -> Vec<Keys> {
    let mut groups = BTreeMap::new();
    for (key, bytes) in pages.iter().filter(|(key, _)| shard.slots.iter().any(|range| range.has(slot_of(key)))) {
        *groups.entry((key.len(), *bytes)).or_insert(0) += 1;
    }
    let keys = |((key, bytes), count)| Keys::strings(Names::same(key, count), bytes, Expiry::Set);
    groups.into_iter().map(keys).collect()
}

/// A shard before anything is written.
async fn empty(cluster: &TestCluster, shard: &Shard) -> (Dataset, u64) {
    let mut server = probe(&shard.server).await.unwrap().server;
    server.cluster_slots = Some(shard.slots.iter().map(|range| u32::from(range.last - range.first) + 1).sum());
    let node = cluster.nodes().iter().find(|node| shard.home.contains(&node.port().to_string())).unwrap();
    (Dataset::new(server, used(node), 0, 0), node.info("mem_total_replication_buffers"))
}

fn used(node: &crate::support::RedisServer) -> u64 {
    node.info("used_memory")
}

/// Prints predictions beside what the masters say, and returns the worst error.
fn compare(what: &str, cluster: &TestCluster, shards: &[Shard], predicted: &[u64]) -> f64 {
    let mut worst = 0f64;
    for (shard, &predicted) in shards.iter().zip(predicted) {
        let node = cluster.nodes().iter().find(|node| shard.home.contains(&node.port().to_string())).unwrap();
        let measured = used(node);
        let error = (predicted as f64 - measured as f64) / measured as f64;
        let buffers = node.info("mem_total_replication_buffers");
        eprintln!(
            "{what}: predicted {predicted}, used_memory {measured}, {:+.3} %; replication {buffers}",
            100.0 * error
        );
        worst = worst.max(error.abs());
    }
    worst
}

#[tokio::test]
async fn every_shard_uses_what_the_names_of_its_keys_say() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let shards = kv.shards().await.unwrap();
    let mut begun = Vec::new();
    for shard in &shards {
        begun.push(empty(&cluster, shard).await);
    }

    let name = "million";
    let spec = ReleaseSpec {
        name: name.to_owned(),
        fingerprint: fingerprint(name),
        codec: Codec::Int8,
        dim: 64,
        grace: ReleaseSpec::DEFAULT_GRACE,
    };
    let encode = |rows: &[u32], out: &mut [u8]| {
        let bytes = rows.iter().flat_map(|row| row.to_le_bytes()).cycle();
        out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
        Ok(())
    };
    let users = Users { count: USERS, ids: Ids::Dense, encode: &encode };
    let manifest = publish(&kv, NS, &spec, &users, &mut |_| ()).await.unwrap();

    let pages = pages(&manifest);
    let loads: Vec<_> = shards.iter().map(|shard| load_of(shard, &pages)).collect();
    let counts: Vec<u64> = loads.iter().map(|load| load.iter().map(Keys::count).sum()).collect();
    assert_eq!(counts.iter().sum::<u64>(), pages.len() as u64);
    let mean = pages.len() as f64 / loads.len() as f64;
    let most = *counts.iter().max().unwrap() as f64;
    eprintln!("{mean:.0} pages a shard, the largest {:+.2} %", 100.0 * (most / mean - 1.0));
    let backlog = |buffers: u64| BACKLOG_BYTES.saturating_sub(buffers);

    cluster.replicated();
    drop(kv);
    tokio::time::sleep(Duration::from_secs(1)).await; // connections and their buffers go
    let mut datasets = Vec::new();
    for ((dataset, buffers), load) in begun.iter().zip(&loads) {
        let mut dataset = dataset.clone();
        let groups = load.clone();
        groups.iter().for_each(|group| dataset.add(group));
        datasets.push((dataset, groups, backlog(*buffers)));
    }
    let predicted: Vec<_> = datasets.iter().map(|(dataset, _, backlog)| dataset.rest_bytes() + backlog).collect();
    let waiting = compare("published", &cluster, &shards, &predicted);

    activate(&cluster.connect().await, NS, name).await.unwrap();
    cluster.replicated();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (dataset, groups, _) in &mut datasets {
        groups.iter_mut().for_each(|group| dataset.persist(group));
    }
    let predicted: Vec<_> = datasets.iter().map(|(dataset, _, backlog)| dataset.rest_bytes() + backlog).collect();
    let active = compare("active", &cluster, &shards, &predicted);
    assert!(waiting <= 0.01 && active <= 0.01, "{waiting} {active}");
}
