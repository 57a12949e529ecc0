//! What a doctor says of a server's memory: holes among its keys are a finding, memory that it keeps for a while is not.

use std::time::{Duration, Instant};

use crate::support::RedisServer;
use tonnage::kv::{Kv, RedisKv, probe};
use tonnage::store::{Finding, Room, examine};

const KEYS: u32 = 400_000;

fn key(n: u32) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

async fn fragmented(kv: &RedisKv) -> bool {
    let room = Room { probe: Some(probe(kv).await.unwrap()), ..Room::default() };
    let checkup = examine(kv, "ns", &room).await.unwrap();
    checkup.findings.iter().any(|finding| matches!(finding, Finding::Fragmented { .. }))
}

/// The server looks at its allocator ten times a second.
async fn until(kv: &RedisKv, holes: bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while fragmented(kv).await != holes {
        assert!(Instant::now() < deadline, "the doctor never saw that there are holes: {holes}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn holes_among_keys_are_a_finding_and_memory_not_yet_returned_is_none() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    kv.set_many((0..KEYS).map(|n| (key(n), vec![0; 400])).collect(), None).await.unwrap();
    assert!(!fragmented(&kv).await);
    let holes: Vec<Vec<u8>> = (0..KEYS).filter(|n| n % 16 > 0).map(key).collect();
    kv.delete_many(&holes).await.unwrap();
    until(&kv, true).await;
    let rest: Vec<Vec<u8>> = (0..KEYS).filter(|n| n % 16 == 0).map(key).collect();
    kv.delete_many(&rest).await.unwrap();
    until(&kv, false).await;
}
