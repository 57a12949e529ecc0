//! What server this is: everything that the memory model and a budget have to know of it, and what could not be learned.
//!
//! It asks with `INFO`, `MEMORY MALLOC-STATS`, `CONFIG GET` and, in a cluster, `CLUSTER NODES`. Managed servers rename
//! or forbid all but the first; then the allocator is found by a small load that is weighed and removed again, and the
//! rest is said to be unknown.
//!
//! The one thing to know: what is not known is never an error. [`Probe::unknown`] says it in plain words, with what is
//! assumed instead, and the assumption is the more expensive one.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use ::redis::{Cmd, Value, cmd};

use super::memory::{Allocator, Dataset, Expiry, Flavor, Keys, Names, Server};
use super::{Kv, KvError, RedisKv};

/// What a server says of itself, and what was found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// For the memory model.
    pub server: Server,
    /// As it names itself: "Redis 7.0.15".
    pub version: String,
    /// `used_memory`, with this connection.
    pub used_bytes: u64,
    /// Part of it that belongs to clients' connections (`mem_clients_normal`); it lags behind by a moment.
    pub client_bytes: u64,
    /// Resident memory of the process.
    pub resident_bytes: u64,
    /// Part of it in memory pages that hold something (`allocator_active`). What is beyond them the allocator keeps for a
    /// while after a busy time; where it is libc's, which does not tell, it is all.
    pub active_bytes: u64,
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
    /// `repl_backlog_size`: what replication may come to use.
    pub backlog_bytes: u64,
    /// Part of it that is in use already.
    pub backlog_used_bytes: u64,
    /// What makes the server fork.
    pub persistence: Persistence,
    /// Commands that have been called since the server started, as `INFO commandstats` names them.
    pub commands: BTreeSet<String>,
    /// What could not be learned, each with what is assumed instead.
    pub unknown: Vec<String>,
}

/// What makes a server write its memory to disk, by a fork that copies each page written meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    /// `save` has a rule; `None` if that could not be asked.
    pub snapshots: Option<bool>,
    /// `appendonly`: it is rewritten by a fork.
    pub append_only: bool,
}

impl Persistence {
    /// Whether a fork may come while a release is written. A replica that attaches makes one in any case.
    pub fn forks(self) -> bool {
        self.append_only || self.snapshots.unwrap_or(true)
    }
}

impl Probe {
    /// The database as it is, for the model to add to.
    pub fn dataset(&self) -> Dataset {
        Dataset::new(self.server, self.used_bytes, self.keys, self.expires)
    }

    /// Bytes that the first call of each of these commands adds for good, as far as they have not been called yet.
    pub fn first_use_bytes(&self, commands: &[&str]) -> u64 {
        let new: BTreeSet<_> = commands.iter().filter(|&&command| !self.commands.contains(command)).collect();
        self.server.first_use_bytes() * new.len() as u64
    }
}

/// Asks a server what it is. In a cluster, this is about the one node.
pub async fn probe(kv: &RedisKv) -> Result<Probe, KvError> {
    let info = Info::of(kv, &[]).await?;
    let mut unknown = Vec::new();
    let (flavor, note) = Flavor::of(info.text("redis_version"), info.get("server_name"), info.get("valkey_version"));
    unknown.extend(note);
    let cluster_slots = match info.text("cluster_enabled") {
        "1" => Some(slots(kv, &mut unknown).await?),
        _ => None,
    };
    let snapshots = snapshots(kv, &mut unknown).await?;
    let mut server = Server { flavor, allocator: Allocator::JemallocQ16, cluster_slots };
    server.allocator = allocator(kv, server, &info, &mut unknown).await?;
    let commands = Info::of(kv, &["commandstats"]).await?.commands();
    // last, so that what was asked until now is in it
    let info = Info::of(kv, &[]).await?;
    let (keys, expires) = info.keyspace(kv.database());
    Ok(Probe {
        server,
        version: info.version(),
        used_bytes: info.number("used_memory").ok_or_else(|| kv.wrong("used_memory in INFO", &Value::Nil))?,
        client_bytes: info.number("mem_clients_normal").unwrap_or(0),
        resident_bytes: info.number("used_memory_rss").unwrap_or(0),
        active_bytes: info.number("allocator_active").or_else(|| info.number("used_memory_rss")).unwrap_or(0),
        limit_bytes: info.number("maxmemory").filter(|&limit| limit > 0),
        policy: info.text("maxmemory_policy").to_owned(),
        keys,
        expires,
        clients: info.number("connected_clients").unwrap_or(1),
        replicas: info.number("connected_slaves").unwrap_or(0),
        backlog_bytes: info.number("repl_backlog_size").unwrap_or(0),
        backlog_used_bytes: info.number("mem_replication_backlog").unwrap_or(0),
        persistence: Persistence { snapshots, append_only: info.text("aof_enabled") == "1" },
        commands,
        unknown,
    })
}

/// `INFO`, line by line.
struct Info {
    fields: HashMap<String, String>,
}

impl Info {
    async fn of(kv: &RedisKv, sections: &[&str]) -> Result<Self, KvError> {
        let text = text(kv, cmd("INFO").arg(sections)).await??;
        let field = |line: &str| line.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self { fields: text.lines().filter_map(field).collect() })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn version(&self) -> String {
        let redis = || format!("Redis {}", self.text("redis_version"));
        self.get("valkey_version").map_or_else(redis, |version| format!("Valkey {version}"))
    }

    /// Keys and expires of `db0:keys=3,expires=1,avg_ttl=0`; a database without keys has no such line.
    fn keyspace(&self, database: i64) -> (u64, u64) {
        let line = self.text(&format!("db{database}"));
        let part = |name| line.split(',').find_map(|part| part.strip_prefix(name)?.parse().ok()).unwrap_or(0);
        (part("keys="), part("expires="))
    }

    fn commands(&self) -> BTreeSet<String> {
        self.fields.keys().filter_map(|name| name.strip_prefix("cmdstat_")).map(str::to_owned).collect()
    }
}

/// The answer as text. A refusal is the inner error; trouble with the connection the outer.
async fn text(kv: &RedisKv, command: &Cmd) -> Result<Result<String, KvError>, KvError> {
    Ok(match kv.command(command).await {
        Ok(Value::BulkString(text)) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Ok(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => Ok(text),
        Ok(other) => Err(kv.wrong("text", &other)),
        Err(refused @ KvError::Refused { .. }) => Err(refused),
        Err(trouble) => return Err(trouble),
    })
}

async fn slots(kv: &RedisKv, unknown: &mut Vec<String>) -> Result<u32, KvError> {
    let found = match text(kv, cmd("CLUSTER").arg("NODES")).await? {
        Ok(nodes) => own_slots(&nodes),
        Err(_) => None,
    };
    Ok(found.unwrap_or_else(|| {
        unknown.push("CLUSTER NODES was refused: this node is taken to own all 16,384 slots".to_owned());
        16_384
    }))
}

/// Slots of the node called "myself", or if that is a replica, of its master: `id addr flags master ... 0-5460 5462`.
fn own_slots(nodes: &str) -> Option<u32> {
    let lines = || nodes.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|line| line.len() >= 8);
    let own = lines().find(|line| line[2].split(',').any(|flag| flag == "myself"))?;
    let owner = if own[3] == "-" { own } else { lines().find(|line| line[0] == own[3])? };
    let count = |part: &&str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        // a slot on its way is in brackets and is no number
        Some(last.parse::<u32>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    Some(owner[8..].iter().filter_map(count).sum())
}

async fn snapshots(kv: &RedisKv, unknown: &mut Vec<String>) -> Result<Option<bool>, KvError> {
    let rules = match kv.command(cmd("CONFIG").arg("GET").arg("save")).await {
        Ok(Value::Array(pair)) => match pair.get(1) {
            Some(Value::BulkString(rules)) => Some(!rules.is_empty()),
            _ => None,
        },
        Ok(_) | Err(KvError::Refused { .. }) => None,
        Err(trouble) => return Err(trouble),
    };
    if rules.is_none() {
        unknown.push("CONFIG GET was refused: the server is taken to fork for snapshots".to_owned());
    }
    Ok(rules)
}

async fn allocator(kv: &RedisKv, server: Server, info: &Info, unknown: &mut Vec<String>) -> Result<Allocator, KvError> {
    let name = info.text("mem_allocator");
    if name.starts_with("libc") {
        return Ok(Allocator::Libc);
    }
    if let Ok(stats) = text(kv, cmd("MEMORY").arg("MALLOC-STATS")).await?
        && let Some(allocator) = quantum(&stats)
    {
        return Ok(allocator);
    }
    Ok(calibrate(kv, server, info).await?.unwrap_or_else(|why| {
        unknown.push(format!(
            "MEMORY MALLOC-STATS was refused, and a small load did not tell the size classes of {name:?} ({why}): they \
             are taken to be 16 bytes apart"
        ));
        Allocator::JemallocQ16
    }))
}

/// From jemalloc's table of bins, whose rows begin with a class and its number: with a quantum of 8 there is one of 24.
fn quantum(stats: &str) -> Option<Allocator> {
    let (_, bins) = stats.split_once("\nbins:")?;
    let class = |line: &str| line.split_whitespace().next()?.parse::<usize>().ok();
    let classes: Vec<usize> = bins.lines().skip(1).map_while(class).collect();
    if !classes.starts_with(&[8, 16]) {
        return None;
    }
    Some(if classes.contains(&24) { Allocator::JemallocQ8 } else { Allocator::JemallocQ16 })
}

/// Keys of each load: some hundred kilobytes, ten times what the buffers of a busy connection come to.
const LOAD_KEYS: u64 = 4_000;
/// They go by themselves, should this process die.
const LOAD_TTL: Duration = Duration::from_mins(1);
/// For entries to move into a grown table, and for buffers to be given back.
const SETTLE: Duration = Duration::from_millis(300);
/// What a load may differ from its prediction, as a share; quanta are at least twice as far apart.
const LOAD_ERROR: f64 = 0.03;

/// Weighs three loads: one to warm the connection up, one that tells quanta apart, and one on which they agree, so that
/// it is seen whether the model holds here at all. Says why it found nothing.
async fn calibrate(kv: &RedisKv, server: Server, info: &Info) -> Result<Result<Allocator, String>, KvError> {
    if server.cluster_slots.is_some() {
        return Ok(Err("it is not tried in a cluster".to_owned()));
    }
    let candidates = [Allocator::JemallocQ8, Allocator::JemallocQ16].map(|allocator| Server { allocator, ..server });
    let apart = |&bytes: &usize| {
        let [narrow, wide] = candidates.map(|server| server.keys_bytes(&load_of(0, bytes)));
        ((wide - narrow) / narrow * 1e6) as u64
    };
    let telling = (1..64).max_by_key(apart).unwrap_or(20);
    let control = (64..192).min_by_key(apart).unwrap_or(128);
    let loads = [load_of(0, control), load_of(1, telling), load_of(2, control)];
    let (used, limit) = (info.number("used_memory").unwrap_or(0), info.number("maxmemory").unwrap_or(0));
    let needed: f64 = loads.iter().map(|load| 2.0 * candidates[1].keys_bytes(load)).sum();
    if limit > 0 && limit.saturating_sub(used) < needed as u64 {
        return Ok(Err(format!("there is no room for {needed:.0} bytes under maxmemory")));
    }
    let measured = weigh(kv, [control, telling, control]).await;
    let removed = remove_loads(kv).await;
    let [_, told, agreed] = match (measured, removed) {
        (Ok(measured), Ok(_)) => measured,
        (Err(KvError::Refused { words, .. } | KvError::OutOfMemory { words, .. }), _) => return Ok(Err(words)),
        (Err(trouble), _) | (_, Err(trouble)) => return Err(trouble),
    };
    let (keys, expires) = info.keyspace(kv.database());
    let error = |server: Server, which: usize, measured: f64| {
        let mut dataset = Dataset::new(server, used, keys, expires);
        let grown = loads.iter().map(|load| {
            let before = dataset.rest_bytes();
            dataset.add(load);
            (dataset.rest_bytes() - before) as f64
        });
        grown.collect::<Vec<f64>>().get(which).map_or(f64::MAX, |predicted| (measured / predicted - 1.0).abs())
    };
    let off = error(candidates[1], 2, agreed);
    if off > LOAD_ERROR {
        return Ok(Err(format!("it came out {:.0} % from what was predicted", off * 100.0)));
    }
    let errors = candidates.map(|server| error(server, 1, told));
    let best = usize::from(errors[1] < errors[0]);
    Ok(if errors[best] <= LOAD_ERROR { Ok(candidates[best].allocator) } else { Err("neither fits".to_owned()) })
}

fn load_name(load: u8, key: u64) -> Vec<u8> {
    format!("tonnage:probe:{load}:{key}").into_bytes()
}

fn load_of(load: u8, bytes: usize) -> Keys {
    let prefix = load_name(load, 0).len() - 1;
    Keys::strings(Names::numbered(prefix, 0..LOAD_KEYS), bytes, Expiry::Set)
}

/// Writes loads of these sizes of value, and says by how much each let `used_memory` grow.
async fn weigh(kv: &RedisKv, sizes: [usize; 3]) -> Result<[f64; 3], KvError> {
    let mut weights = [0.0; 3];
    let mut before = settled(kv).await?;
    for (load, (bytes, weight)) in sizes.into_iter().zip(&mut weights).enumerate() {
        let entries = (0..LOAD_KEYS).map(|key| (load_name(load as u8, key), vec![b'x'; bytes])).collect();
        kv.set_many(entries, Some(LOAD_TTL)).await?;
        let after = settled(kv).await?;
        *weight = after - before;
        before = after;
    }
    Ok(weights)
}

async fn settled(kv: &RedisKv) -> Result<f64, KvError> {
    tokio::time::sleep(SETTLE).await;
    Ok(Info::of(kv, &["memory"]).await?.number("used_memory").unwrap_or(0) as f64)
}

async fn remove_loads(kv: &RedisKv) -> Result<u64, KvError> {
    let keys: Vec<_> = (0..3).flat_map(|load| (0..LOAD_KEYS).map(move |key| load_name(load, key))).collect();
    kv.delete_many(&keys).await
}
