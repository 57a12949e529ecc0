//! What a [`Kv`] call is to a server: one command, or a pair, for each key, and what may come back.
//!
//! A single server and a cluster send the same commands and check the same replies; they differ in who is asked.

use std::future::Future;
use std::time::Duration;

use ::redis::{Cmd, ErrorKind, Pipeline, RedisError, Value, cmd};

use super::{KeyRange, Kv, KvError, KvStats, ttl_ms};

/// About what a command and its framing weigh on the wire beside its key and value.
const COMMAND_BYTES: usize = 32;

/// Which of a server's connections, and with it which timeout.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Somebody waits.
    Requests,
    /// A load.
    Bulk,
}

/// One key's part of a call.
#[derive(Clone, Copy)]
pub(super) enum Command<'a> {
    /// `GET`, and not MGET: that answers nil for a key of another type, and spans slots in a cluster.
    Get(&'a [u8]),
    /// `GETRANGE`.
    Range(&'a KeyRange),
    /// `SET`, with `PX` when it expires, with `NX` when it must not be there.
    Set { key: &'a [u8], value: &'a [u8], ttl: Option<Duration>, absent: bool },
    /// `UNLINK`.
    Unlink(&'a [u8]),
    /// `PERSIST` and `EXISTS`: PERSIST answers 0 both for a key without a TTL and for none at all; EXISTS, once the TTL
    /// is off, settles it.
    Persist(&'a [u8]),
}

impl<'a> Command<'a> {
    pub(super) fn key(&self) -> &'a [u8] {
        match *self {
            Self::Get(key) | Self::Unlink(key) | Self::Persist(key) | Self::Set { key, .. } => key,
            Self::Range(range) => &range.key,
        }
    }

    /// Bytes on the wire, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Set { key, value, .. } => COMMAND_BYTES + key.len() + value.len(),
            Self::Persist(key) => 2 * (COMMAND_BYTES + key.len()),
            _ => COMMAND_BYTES + self.key().len(),
        }
    }

    /// Whether doing it twice leaves what doing it once does, so that it can be repeated when an answer was lost. A
    /// repeated UNLINK may count too few.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Set { absent: true, .. })
    }

    /// Adds it to a pipeline; each command behind an `ASKING` if it goes to a node that a slot is being moved to.
    pub(super) fn add_to(&self, pipeline: &mut Pipeline, asking: bool) {
        let mut add = |command: Cmd| {
            if asking {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(command);
        };
        match *self {
            Self::Get(key) => add(one("GET", key)),
            Self::Range(KeyRange { key, start, end }) => {
                // GETRANGE takes the last byte, and -1 for the value's end: an empty range must not become 0..-1
                let (first, last) = if start < end { (*start, *end - 1) } else { (1, 0) };
                let mut range = one("GETRANGE", key);
                range.arg(first).arg(last);
                add(range);
            }
            Self::Set { key, value, ttl, absent } => {
                let mut set = set(key, value, ttl);
                if absent {
                    set.arg("NX");
                }
                add(set);
            }
            Self::Unlink(key) => add(unlink(key)),
            Self::Persist(key) => {
                add(one("PERSIST", key));
                add(one("EXISTS", key));
            }
        }
    }

    /// Replies that belong to it, as [`add_to`](Self::add_to) made it.
    pub(super) fn replies(&self, asking: bool) -> usize {
        let commands = if matches!(self, Self::Persist(_)) { 2 } else { 1 };
        if asking { 2 * commands } else { commands }
    }
}

fn one(name: &str, key: &[u8]) -> Cmd {
    let mut command = cmd(name);
    command.arg(key);
    command
}

/// `SET`, with the TTL in the same command.
pub(super) fn set(key: &[u8], value: &[u8], ttl: Option<Duration>) -> Cmd {
    let mut set = one("SET", key);
    set.arg(value);
    if let Some(ttl) = ttl {
        set.arg("PX").arg(ttl_ms(ttl));
    }
    set
}

pub(super) fn unlink(key: &[u8]) -> Cmd {
    one("UNLINK", key)
}

/// Whoever takes commands: one server, or a cluster of them. That makes a [`Kv`].
pub(super) trait Servers: Send + Sync {
    /// Its address, for messages.
    fn home(&self) -> &str;

    /// The replies in the order of the commands, for a pair the second; each by itself may be an error. A load that ends
    /// with one may leave out what comes after it.
    fn send_each(
        &self,
        lane: Lane,
        commands: &[Command<'_>],
    ) -> impl Future<Output = Vec<Result<Value, KvError>>> + Send;

    /// All replies, or the first error.
    fn send(&self, lane: Lane, commands: &[Command<'_>]) -> impl Future<Output = Result<Vec<Value>, KvError>> + Send {
        async move { self.send_each(lane, commands).await.into_iter().collect() }
    }

    /// Does `write` if the value of `key` is `expected` at that moment; whether it did.
    fn if_equal(&self, key: &[u8], expected: &[u8], write: &Cmd) -> impl Future<Output = Result<bool, KvError>> + Send;

    /// [`Kv::stats`].
    fn describe(&self) -> impl Future<Output = Result<KvStats, KvError>> + Send;
}

impl<S: Servers> Kv for S {
    async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
        let commands: Vec<_> = keys.iter().map(|key| Command::Get(key)).collect();
        let value = |reply| match reply {
            Value::BulkString(bytes) => Ok(Some(bytes)),
            Value::Nil => Ok(None),
            other => Err(wrong(self.home(), "bytes or nil", &other)),
        };
        self.send(Lane::Requests, &commands).await?.into_iter().map(value).collect()
    }

    async fn get_ranges(&self, ranges: &[KeyRange]) -> Vec<Result<Vec<u8>, KvError>> {
        let commands: Vec<_> = ranges.iter().map(Command::Range).collect();
        let bytes = |reply| match reply {
            Ok(Value::BulkString(bytes)) => Ok(bytes),
            Ok(other) => Err(wrong(self.home(), "bytes", &other)),
            Err(error) => Err(error),
        };
        self.send_each(Lane::Requests, &commands).await.into_iter().map(bytes).collect()
    }

    async fn set_many(&self, entries: Vec<(Vec<u8>, Vec<u8>)>, ttl: Option<Duration>) -> Result<(), KvError> {
        let sets = entries.iter().map(|(key, value)| Command::Set { key, value, ttl, absent: false });
        write(self, &sets.collect::<Vec<_>>()).await
    }

    async fn set_expiring(&self, entries: Vec<(Vec<u8>, Vec<u8>, Duration)>) -> Result<(), KvError> {
        let sets = entries.iter().map(|(key, value, ttl)| Command::Set { key, value, ttl: Some(*ttl), absent: false });
        write(self, &sets.collect::<Vec<_>>()).await
    }

    async fn delete_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        let commands: Vec<_> = keys.iter().map(|key| Command::Unlink(key)).collect();
        count(self, &commands).await
    }

    async fn persist_many(&self, keys: &[Vec<u8>]) -> Result<u64, KvError> {
        let commands: Vec<_> = keys.iter().map(|key| Command::Persist(key)).collect();
        count(self, &commands).await
    }

    async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: &[u8],
        ttl: Option<Duration>,
    ) -> Result<bool, KvError> {
        if let Some(expected) = expected {
            return self.if_equal(key, expected, &set(key, new, ttl)).await;
        }
        let set = Command::Set { key, value: new, ttl, absent: true };
        match self.send(Lane::Requests, &[set]).await?.as_slice() {
            [Value::Okay] => Ok(true),
            [Value::Nil] => Ok(false),
            other => Err(wrong(self.home(), "OK or nil", other.first().unwrap_or(&Value::Nil))),
        }
    }

    async fn delete_if_equal(&self, key: &[u8], expected: &[u8]) -> Result<bool, KvError> {
        self.if_equal(key, expected, &unlink(key)).await
    }

    async fn stats(&self) -> Result<KvStats, KvError> {
        self.describe().await
    }
}

/// Commands that are each answered by OK.
async fn write(on: &impl Servers, commands: &[Command<'_>]) -> Result<(), KvError> {
    match on.send(Lane::Bulk, commands).await?.iter().find(|&reply| *reply != Value::Okay) {
        None => Ok(()),
        Some(other) => Err(wrong(on.home(), "OK", other)),
    }
}

/// The sum of replies that are each 0 or 1.
async fn count(on: &impl Servers, commands: &[Command<'_>]) -> Result<u64, KvError> {
    let mut sum = 0;
    for reply in on.send(Lane::Bulk, commands).await? {
        match reply {
            Value::Int(n @ 0..=1) => sum += n as u64,
            other => return Err(wrong(on.home(), "0 or 1", &other)),
        }
    }
    Ok(sum)
}

pub(super) fn wrong(home: &str, expected: &'static str, got: &Value) -> KvError {
    let mut got = format!("{got:?}");
    if got.len() > 60 {
        got = got.chars().take(60).chain("...".chars()).collect();
    }
    KvError::WrongReply { home: home.to_owned(), expected, got }
}

/// What an error of the client or of the server means to the caller.
pub(super) fn explain(home: &str, limit_ms: u64, error: RedisError) -> KvError {
    let home = home.to_owned();
    let words = error.to_string();
    if error.is_timeout() {
        return KvError::TimedOut { home, limit_ms };
    }
    match error.kind() {
        ErrorKind::Io => KvError::Unavailable { home, detail: words },
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            KvError::WrongReply { home, expected: "a reply of the Redis protocol", got: words }
        }
        _ => {
            // in a transaction the reason stands behind EXECABORT
            let reasons = error.into_server_errors().unwrap_or_default();
            let is = |code: &str| reasons.iter().any(|(_, reason)| reason.code() == code);
            if is("OOM") {
                KvError::OutOfMemory { home, words }
            } else if is("WRONGTYPE") {
                KvError::WrongType { home, words }
            } else {
                KvError::Refused { home, words }
            }
        }
    }
}
