//! What server this is: everything that the memory model and a budget need to know of it, and what could not be learned.

use std::collections::HashMap;

use ::redis::{Value, cmd};

use super::memory::{Allocator, Dataset, Flavor, Server};
use super::{KvError, RedisKv};

/// What a server says of itself, and what was found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// For the memory model.
    pub server: Server,
    /// As it names itself: "Redis 7.0.15".
    pub version: String,
    /// `used_memory`, with this connection.
    pub used_bytes: u64,
    /// Resident memory of the process, as it says.
    pub resident_bytes: u64,
    /// `maxmemory`; `None` when unlimited.
    pub limit_bytes: Option<u64>,
    /// `maxmemory_policy`.
    pub policy: String,
    /// Keys of the database that this connection is in.
    pub keys: u64,
    /// Those with a TTL.
    pub expires: u64,
    /// Connected clients, this one included.
    pub clients: u64,
    /// Connected replicas.
    pub replicas: u64,
    /// What could not be learned, each with what is assumed instead.
    pub unknown: Vec<String>,
}

impl Probe {
    /// The database as it is, for the model to add to.
    pub fn dataset(&self) -> Dataset {
        Dataset::new(self.server, self.used_bytes, self.keys, self.expires)
    }
}

/// Asks a server what it is.
pub async fn probe(kv: &RedisKv) -> Result<Probe, KvError> {
    let info = match kv.command(&cmd("INFO")).await? {
        Value::BulkString(text) => String::from_utf8_lossy(&text).into_owned(),
        Value::VerbatimString { text, .. } => text,
        other => return Err(kv.wrong("text from INFO", &other)),
    };
    let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
    let number = |name| fields.get(name).and_then(|value| value.parse::<u64>().ok());
    let redis_version = fields.get("redis_version").copied().unwrap_or_default();
    let valkey_version = fields.get("valkey_version").copied();
    let (flavor, note) = Flavor::of(redis_version, fields.get("server_name").copied(), valkey_version);
    let version = valkey_version.map_or(format!("Redis {redis_version}"), |version| format!("Valkey {version}"));
    Ok(Probe {
        server: Server { flavor, allocator: Allocator::JemallocQ16, cluster_slots: None },
        version,
        used_bytes: number("used_memory").ok_or_else(|| kv.wrong("used_memory in INFO", &Value::Nil))?,
        resident_bytes: number("used_memory_rss").unwrap_or(0),
        limit_bytes: number("maxmemory").filter(|&limit| limit > 0),
        policy: fields.get("maxmemory_policy").copied().unwrap_or_default().to_owned(),
        keys: 0,
        expires: 0,
        clients: number("connected_clients").unwrap_or(1),
        replicas: number("connected_slaves").unwrap_or(0),
        unknown: note.into_iter().collect(),
    })
}
