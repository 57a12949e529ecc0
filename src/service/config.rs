//! What a service is told: one document, every key of it known.
//!
//! The one thing to know: nothing here is read twice. A [`Config`] is put together by the caller (a file, then the
//! environment, then flags), checked as a whole by [`Config::check`], and what runs is what was checked.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::{MAX_K, MAX_LIST};
use crate::input::MAX_ID_BYTES;

/// A key that is shorter can be guessed.
const SHORTEST_KEY: usize = 16;

/// Everything a service is told. Each part has defaults; `index.path` and `store.address` have none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// Where indexes are.
    pub index: IndexPlace,
    /// Where users are.
    pub store: Store,
    /// Who may ask.
    pub keys: Keys,
    /// What may be asked for.
    pub limits: Limits,
    /// How requests are run.
    pub run: Run,
    /// How a new release is taken up.
    pub reload: Reload,
    /// How recall is watched.
    pub probe: Probe,
    /// What is written down.
    pub log: Log,
}

/// Where it listens, and how it stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Requests. `127.0.0.1:8080`: nobody else reaches a service that was started to be looked at. Another address is
    /// refused without keys.
    pub address: SocketAddr,
    /// Health, metrics and administration, on a thread of their own. `127.0.0.1:8081`.
    pub admin: SocketAddr,
    /// Connections at a time; more wait in the system's queue. 1,024: each is some 10 kB.
    pub connections: usize,
    /// For the head of a request to arrive. 5,000 ms: a client that takes longer holds a connection and nothing else.
    pub head_timeout_ms: u64,
    /// For the body to arrive. 5,000 ms.
    pub body_timeout_ms: u64,
    /// For the requests in flight when it is told to stop. 10,000 ms: what supervisors wait before they kill.
    pub drain_ms: u64,
    /// The certificate chain, PEM; with `tls_key` requests are served over TLS.
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8081)),
            connections: 1_024,
            head_timeout_ms: 5_000,
            body_timeout_ms: 5_000,
            drain_ms: 10_000,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

/// Where the index of a release is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IndexPlace {
    /// A file, or a folder of files `*.tng`, or a path with `{fingerprint}` (16 hex digits) or `{release}` in it. In any
    /// case the release's fingerprint decides: a file of another is not served.
    pub path: PathBuf,
    /// Whether to copy it into memory, in huge pages, instead of mapping it. `false`: mapped pages can be evicted, and
    /// are shared by two releases that are open at a time.
    pub resident: bool,
    /// A file that keeps what is changed through the service: availability, and items until the next build. Without it
    /// changes are forgotten with the process.
    pub journal: Option<PathBuf>,
}

/// Where users are kept, and how long they are waited for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `redis://[user:password@]host:port/db`, `redis-cluster://host:port`, or the path of an embedded file.
    pub address: String,
    /// Prefix of every key.
    pub namespace: String,
    /// For a connection. 500 ms.
    pub connect_timeout_ms: u64,
    /// For one answer. 50 ms: a healthy server's p99 is under 1 ms, and what comes later is answered without it. A
    /// server slower than this at all times is as good as away.
    pub timeout_ms: u64,
    /// Failures in a row after which it is left alone. 5.
    pub breaker_failures: u32,
    /// How long it is left alone before one request tries again. 500 ms: it is missed for that long at most.
    pub breaker_pause_ms: u64,
    /// Memory for the last known values of users, answered from while the store is away. 64 MiB: with 64 dimensions of
    /// `int8`, some 400,000 users.
    pub memory_bytes: usize,
    /// Whether a service whose store is away says that it is ready. `true`: it answers, with what it has, and taking all
    /// replicas out of rotation for an outage they can bear would make it one they cannot.
    pub ready_without: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            address: String::new(),
            namespace: "tonnage".to_owned(),
            connect_timeout_ms: 500,
            timeout_ms: 50,
            breaker_failures: 5,
            breaker_pause_ms: 500,
            memory_bytes: 64 << 20,
            ready_without: true,
        }
    }
}

/// Keys of those who may ask. Without any, everybody who reaches it may, and it can only be reached from this machine.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// May read.
    pub read: Vec<String>,
    /// May read and write: events, availability, items.
    pub write: Vec<String>,
    /// May do anything.
    pub admin: Vec<String>,
}

/// Without the password that may be in the address.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("address", &without_password(&self.address)).finish_non_exhaustive()
    }
}

/// How many there are.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, write, admin } = self;
        write!(f, "{} + {} + {} keys", read.len(), write.len(), admin.len())
    }
}

impl Keys {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty() && self.write.is_empty() && self.admin.is_empty()
    }
}

/// What a request may ask for; more is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Items. 1,000.
    pub k: usize,
    /// Candidates of a request that picks from more than it answers. 10,000.
    pub candidates: usize,
    /// Entries of any list: events, exclusions, items to score. 10,000.
    pub list: usize,
    /// Requests of a batch. 256.
    pub batch: usize,
    /// Bytes of a body. 1 MiB.
    pub body_bytes: usize,
    /// Bytes of all bodies that are here at a time; whoever sends more is refused. 64 MiB: thirty times what as many requests
    /// as may be in flight take when each excludes a thousand items.
    pub bodies_bytes: usize,
    /// Bytes of an id or a tag. 512.
    pub text_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (body_bytes, bodies_bytes) = (1 << 20, 64 << 20);
        Self { k: 1_000, candidates: 10_000, list: 10_000, batch: 256, body_bytes, bodies_bytes, text_bytes: 512 }
    }
}

/// How requests are run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Threads that answer requests; 0 for one a core. 0.
    pub threads: usize,
    /// Requests in flight at the most, those that wait for the store included: of thousands a second hundreds do, when it
    /// takes its time. 512.
    pub in_flight: usize,
    /// The longest that a request may have to wait for a processor; one that would is refused at once. In a burst, after
    /// which there is time, five times as much. 10 ms.
    pub queue_ms: f64,
    /// The deadline of a request that names none. 100 ms.
    pub deadline_ms: u64,
    /// The effort of a search; the index's own default when 0.
    pub ef: usize,
    /// Recall@10 that effort is never lowered below, by the index's profile. 0.95.
    pub recall_floor: f64,
    /// Memory for candidates that were found in the last minute: for the next page, and for the same request again. 0: it
    /// pays where users turn pages; 32 MiB hold those of some 70,000 requests.
    pub cache_bytes: usize,
}

impl Default for Run {
    fn default() -> Self {
        Self { threads: 0, in_flight: 512, queue_ms: 10.0, deadline_ms: 100, ef: 0, recall_floor: 0.95, cache_bytes: 0 }
    }
}

/// How a new release is taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reload {
    /// How often the store is asked which release is active. 2,000 ms.
    pub poll_ms: u64,
    /// Recent requests that a new index answers before anybody is served from it. 256.
    pub warm: usize,
}

impl Default for Reload {
    fn default() -> Self {
        Self { poll_ms: 2_000, warm: 256 }
    }
}

/// How recall is watched: now and then a search is answered exactly as well, and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probe {
    /// How often. 5,000 ms; 0 for never. An exact answer over a million items is some 20 ms of one core.
    pub every_ms: u64,
    /// Items compared. 20.
    pub k: usize,
}

impl Default for Probe {
    fn default() -> Self {
        Self { every_ms: 5_000, k: 20 }
    }
}

/// What is written down, to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The least that is worth a line. `info`.
    pub level: Level,
    /// One JSON document a line. `false`.
    pub json: bool,
    /// Requests that take longer are written down. 250 ms; 0 for none.
    pub slow_ms: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: Level::Info, json: false, slow_ms: 250 }
    }
}

/// How much is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    Off,
    /// What somebody has to look at.
    Error,
    /// What somebody may want to look at.
    Warn,
    /// Start, stop, and every change of release.
    Info,
    /// Every request.
    Debug,
}

/// A key with a value that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}, got {got}")]
pub struct ConfigError {
    /// Its path, as in `listen.address`.
    pub key: &'static str,
    /// What may be there.
    pub expected: String,
    /// What is there.
    pub got: String,
}

fn fault<T>(key: &'static str, expected: &str, got: impl fmt::Display) -> Result<T, ConfigError> {
    Err(ConfigError { key, expected: expected.to_owned(), got: format!("{got}") })
}

impl Config {
    /// Whether it holds together. Says the first thing that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.index.path.as_os_str().is_empty() {
            return fault("index.path", "a file, a folder, or a path with {fingerprint}", "nothing");
        }
        if self.store.address.is_empty() {
            return fault("store.address", "redis://host:port/db or the path of an embedded store", "nothing");
        }
        self.check_reach()?;
        self.check_numbers()
    }

    /// Whoever can be reached by others knows them.
    fn check_reach(&self) -> Result<(), ConfigError> {
        let Self { listen, keys, .. } = self;
        for (key, address) in [("listen.address", listen.address), ("listen.admin", listen.admin)] {
            if !address.ip().is_loopback() && keys.is_empty() {
                return fault(key, "a loopback address, or keys in [keys]", address);
            }
        }
        if !listen.admin.ip().is_loopback() && keys.admin.is_empty() {
            return fault("listen.admin", "a loopback address, or keys.admin", listen.admin);
        }
        if listen.tls_certificate.is_some() != listen.tls_key.is_some() {
            return fault("listen.tls_key", "both a certificate and its key, or neither", "one of them");
        }
        let mut all = keys.read.iter().chain(&keys.write).chain(&keys.admin);
        if all.any(|key| key.len() < SHORTEST_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return fault("keys", "16 visible ASCII characters or more each", "a key that is not");
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let Self { listen, store, limits, run, reload, probe, .. } = self;
        let (time_ms, count) = (1..=600_000, 1..=1_000_000);
        let numbers = [
            ("listen.connections", listen.connections as u64, count.clone()),
            ("listen.head_timeout_ms", listen.head_timeout_ms, time_ms.clone()),
            ("listen.body_timeout_ms", listen.body_timeout_ms, time_ms.clone()),
            ("listen.drain_ms", listen.drain_ms, time_ms.clone()),
            ("store.connect_timeout_ms", store.connect_timeout_ms, time_ms.clone()),
            ("store.timeout_ms", store.timeout_ms, time_ms.clone()),
            ("store.breaker_failures", u64::from(store.breaker_failures), count.clone()),
            ("store.breaker_pause_ms", store.breaker_pause_ms, time_ms.clone()),
            ("limits.k", limits.k as u64, 1..=MAX_K as u64),
            ("limits.candidates", limits.candidates as u64, 1..=MAX_K as u64),
            ("limits.list", limits.list as u64, 1..=MAX_LIST as u64),
            ("limits.batch", limits.batch as u64, 1..=10_000),
            ("limits.body_bytes", limits.body_bytes as u64, 1..=1 << 30),
            ("limits.bodies_bytes", limits.bodies_bytes as u64, limits.body_bytes as u64..=1 << 40),
            ("limits.text_bytes", limits.text_bytes as u64, 1..=MAX_ID_BYTES as u64),
            ("run.threads", run.threads as u64, 0..=1_024),
            ("run.in_flight", run.in_flight as u64, count),
            ("run.deadline_ms", run.deadline_ms, time_ms.clone()),
            ("run.ef", run.ef as u64, 0..=MAX_K as u64),
            ("run.cache_bytes", run.cache_bytes as u64, 0..=1 << 40),
            ("reload.poll_ms", reload.poll_ms, time_ms),
            ("reload.warm", reload.warm as u64, 0..=100_000),
            ("probe.every_ms", probe.every_ms, 0..=600_000),
            ("probe.k", probe.k as u64, 1..=1_000),
        ];
        for (key, value, range) in numbers {
            if !range.contains(&value) {
                return fault(key, &format!("{} to {}", range.start(), range.end()), value);
            }
        }
        if !(run.queue_ms > 0.0 && run.queue_ms <= 600_000.0) {
            return fault("run.queue_ms", "more than 0, to 600000", run.queue_ms);
        }
        if !(0.0..=1.0).contains(&run.recall_floor) {
            return fault("run.recall_floor", "0 to 1", run.recall_floor);
        }
        Ok(())
    }

    /// The same to be shown: keys, and the password of the store, are not in it.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        for keys in [&mut shown.keys.read, &mut shown.keys.write, &mut shown.keys.admin] {
            keys.iter_mut().for_each(|key| "<redacted>".clone_into(key));
        }
        shown.store.address = without_password(&shown.store.address);
        shown
    }
}

fn without_password(address: &str) -> String {
    match address.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://<redacted>@{host}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let mut config = Config::default();
        config.index.path = "index.tng".into();
        config.store.address = "redis://someone:secret@host:6379/0".to_owned();
        config
    }

    #[test]
    fn the_defaults_need_an_index_and_a_store_and_nothing_else() {
        assert_eq!(Config::default().check().unwrap_err().key, "index.path");
        assert_eq!(Config { store: Store::default(), ..config() }.check().unwrap_err().key, "store.address");
        config().check().unwrap();
    }

    #[test]
    fn a_service_that_others_reach_has_keys() {
        let mut open = config();
        open.listen.address = "0.0.0.0:8080".parse().unwrap();
        assert_eq!(open.check().unwrap_err().key, "listen.address");
        open.keys.read = vec!["0123456789abcdef".to_owned()];
        open.check().unwrap();
        open.listen.admin = "[::]:8081".parse().unwrap();
        assert_eq!(open.check().unwrap_err().key, "listen.admin");
        open.keys.admin = vec!["fedcba9876543210".to_owned()];
        open.check().unwrap();
        open.keys.write = vec!["short".to_owned()];
        assert_eq!(open.check().unwrap_err().key, "keys");
    }

    #[test]
    fn what_is_shown_has_no_secrets() {
        let mut secret = config();
        secret.keys.admin = vec!["fedcba9876543210".to_owned()];
        let shown = toml::to_string(&secret.redacted()).unwrap();
        for shown in [&shown, &format!("{secret:?}"), &format!("{secret:#?}")] {
            assert!(!shown.contains("secret") && !shown.contains("fedcba"), "{shown}");
        }
        assert!(shown.contains("redis://<redacted>@host:6379/0"), "{shown}");
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let mut wrong = config();
        wrong.run.recall_floor = f64::NAN;
        assert_eq!(wrong.check().unwrap_err().key, "run.recall_floor");
        wrong.run = Run { queue_ms: f64::INFINITY, ..Run::default() };
        assert_eq!(wrong.check().unwrap_err().key, "run.queue_ms");
        wrong.run = Run::default();
        wrong.limits.k = MAX_K + 1;
        assert_eq!(wrong.check().unwrap_err().to_string(), "limits.k: expected 1 to 10000, got 10001");
        // what the engine refuses in any case is promised to nobody
        wrong.limits = Limits { candidates: MAX_K + 1, ..Limits::default() };
        assert_eq!(wrong.check().unwrap_err().key, "limits.candidates");
        wrong.limits = Limits { list: MAX_LIST + 1, ..Limits::default() };
        assert_eq!(wrong.check().unwrap_err().key, "limits.list");
        wrong.limits = Limits { text_bytes: MAX_ID_BYTES + 1, ..Limits::default() };
        assert_eq!(wrong.check().unwrap_err().key, "limits.text_bytes");
    }
}
