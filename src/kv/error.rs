//! What can go wrong behind [`Kv`](super::Kv), with what to do about it.

/// A failure of a key-value home. `home` is its address, never with a password.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// No connection.
    #[error("cannot reach {home}: {detail}; check that it runs and that the address is right")]
    Unavailable {
        /// The server's address.
        home: String,
        /// What the connection said.
        detail: String,
    },
    /// Connected, or connecting, but no answer in time.
    #[error("{home} did not answer within {limit_ms} ms; check its load, or raise the timeout")]
    TimedOut {
        /// The server's address.
        home: String,
        /// The timeout that passed.
        limit_ms: u64,
    },
    /// The server is over `maxmemory`.
    #[error(
        "{home} has no memory for the write ({words}); raise maxmemory, retire an old release, or choose a smaller codec"
    )]
    OutOfMemory {
        /// The server's address.
        home: String,
        /// The server's own words.
        words: String,
    },
    /// The key holds something of another type than this program writes.
    #[error(
        "{home} refused a command: {words}; another program writes such keys: give one of the two its own namespace"
    )]
    WrongType {
        /// The server's address.
        home: String,
        /// The server's own words.
        words: String,
    },
    /// The server refused a command for another reason (login, rights, read-only replica, loading).
    #[error("{home} refused a command: {words}")]
    Refused {
        /// The server's address.
        home: String,
        /// The server's own words.
        words: String,
    },
    /// An answer that the protocol does not allow here.
    #[error("{home} answered {got} where {expected} was expected; is this a Redis server?")]
    WrongReply {
        /// The server's address.
        home: String,
        /// What the command answers.
        expected: &'static str,
        /// What came.
        got: String,
    },
    /// The embedded file cannot be opened, read or written.
    #[error(
        "embedded store {path}: {detail}; check the path, its rights, free disk, and that no other process has it open"
    )]
    File {
        /// The file.
        path: String,
        /// What redb said.
        detail: String,
    },
    /// Not an address.
    #[error(
        "{url} is not an address of a store: {why}; use redis://host:port/db, redis-cluster://host:port or a file path"
    )]
    BadUrl {
        /// The address as given, less any user and password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
}
