//! A probe says what server it is, and of what it cannot learn it says so.

use crate::support::RedisServer;
use tonnage::kv::memory::{Allocator, Flavor};
use tonnage::kv::{Kv, KvError, Persistence, Probe, RedisKv, RedisOptions, probe};

async fn probed(server: &RedisServer) -> Probe {
    probe(&server.connect().await).await.unwrap()
}

#[tokio::test]
async fn the_distributions_redis_is_known() {
    let server = RedisServer::start(&["--maxmemory", "64mb", "--maxmemory-policy", "volatile-lfu"]);
    server.say("SET lasting 1").unwrap();
    server.say("SET passing 1 EX 1000").unwrap();
    let found = probed(&server).await;
    assert_eq!(found.unknown, Vec::<String>::new());
    assert!(found.version.starts_with("Redis 7.0."), "{}", found.version);
    assert_eq!(found.server.flavor, Flavor::Redis70);
    // the distribution links the system's jemalloc
    assert_eq!((found.server.allocator, found.server.cluster_slots), (Allocator::JemallocQ16, None));
    assert_eq!((found.limit_bytes, found.policy.as_str()), (Some(64 << 20), "volatile-lfu"));
    assert_eq!((found.keys, found.expires, found.replicas), (2, 1, 0));
    assert_eq!(found.persistence, Persistence { snapshots: Some(false), append_only: false });
    assert!(!found.persistence.forks());
    assert!((500_000..4_000_000).contains(&found.used_bytes), "{}", found.used_bytes);
    assert!(found.resident_bytes > found.used_bytes && found.clients >= 1 && found.backlog_bytes == 1 << 20);
    assert!(found.commands.contains("set") && found.commands.contains("config|get"), "{:?}", found.commands);
    assert_eq!(found.first_use_bytes(&["set", "config|get"]), 0);
    assert_eq!(found.first_use_bytes(&["set", "unlink"]), 24_688);
}

#[tokio::test]
async fn what_forks_is_known() {
    let server = RedisServer::start(&["--save", "60 1000", "--appendonly", "yes"]);
    let found = probed(&server).await;
    assert_eq!(found.persistence, Persistence { snapshots: Some(true), append_only: true });
    assert!(found.persistence.forks());
}

#[tokio::test]
async fn another_database_is_not_counted() {
    let server = RedisServer::start(&[]);
    server.say("SET a 1").unwrap();
    let other = RedisKv::connect(&server.url().replace("/0", "/3"), RedisOptions::default()).await.unwrap();
    assert_eq!(probe(&other).await.unwrap().keys, 0);
    other.set_many(vec![(b"b".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"1".to_vec())], None).await.unwrap();
    assert_eq!(probe(&other).await.unwrap().keys, 2);
    assert_eq!(probed(&server).await.keys, 1);
}

#[tokio::test]
async fn without_its_commands_a_small_load_is_weighed() {
    let blocked = ["--rename-command", "MEMORY", "", "--rename-command", "CONFIG", ""];
    for (program, allocator) in [("redis-server", Allocator::JemallocQ16), ("redis-8.2", Allocator::JemallocQ8)] {
        let server = RedisServer::start_other(program, &blocked);
        server.say("SET a 1").unwrap();
        let found = probed(&server).await;
        assert_eq!(found.server.allocator, allocator, "{program}: {:?}", found.unknown);
        // nothing of the load is left, and all that is unknown is whether the server forks
        assert_eq!((found.keys, found.expires), (1, 0));
        assert_eq!(found.unknown.len(), 1, "{:?}", found.unknown);
        assert!(found.unknown[0].starts_with("CONFIG GET was refused"), "{:?}", found.unknown);
        assert!(found.persistence.snapshots.is_none() && found.persistence.forks());
    }
}

#[tokio::test]
async fn a_load_is_not_weighed_where_there_is_no_room_for_it() {
    let server = RedisServer::start(&["--rename-command", "MEMORY", "", "--maxmemory", "3mb"]);
    let found = probed(&server).await;
    assert_eq!((found.server.allocator, found.keys), (Allocator::JemallocQ16, 0));
    assert!(found.unknown[0].contains("there is no room for"), "{:?}", found.unknown);
}

#[tokio::test]
async fn a_user_without_rights_learns_less_and_is_told() {
    let server = RedisServer::start(&[]);
    server.say("ACL SETUSER reader on >pw ~* +ping +info +get").unwrap();
    server.say("ACL SETUSER nobody on >pw ~* +ping").unwrap();
    let as_user = |name: &str| server.url().replace("redis://", &format!("redis://{name}:pw@"));
    let reader = RedisKv::connect(&as_user("reader"), RedisOptions::default()).await.unwrap();
    let found = probe(&reader).await.unwrap();
    assert_eq!(found.server.flavor, Flavor::Redis70);
    assert_eq!(found.unknown.len(), 2, "{:?}", found.unknown);
    assert!(found.unknown.iter().any(|what| what.contains("MEMORY MALLOC-STATS")), "{:?}", found.unknown);
    // without INFO there is nothing to go by
    let nobody = RedisKv::connect(&as_user("nobody"), RedisOptions::default()).await.unwrap();
    let error = probe(&nobody).await.unwrap_err();
    assert!(matches!(&error, KvError::Refused { words, .. } if words.contains("no permissions")), "{error}");
}

#[tokio::test]
async fn other_servers_are_known() {
    let known = [
        ("redis-8.2", "Redis 8.2.", Flavor::Redis82, Allocator::JemallocQ8),
        ("valkey-8.1", "Valkey 8.1.", Flavor::Valkey81, Allocator::Libc),
        ("valkey-9.1", "Valkey 9.1.", Flavor::Valkey91, Allocator::Libc),
    ];
    for (program, version, flavor, allocator) in known {
        let found = probed(&RedisServer::start_other(program, &[])).await;
        assert!(found.version.starts_with(version), "{}", found.version);
        assert_eq!((found.server.flavor, found.server.allocator), (flavor, allocator));
        assert_eq!(found.unknown, Vec::<String>::new());
    }
}
