//! What can stand in the way of a call, what it means, and how long to go on.

use std::time::{Duration, Instant};

use ::redis::{ErrorKind, RedisError, ServerErrorKind};

use super::super::command::Lane;
use super::slots::SLOTS;
use super::topology::Address;
use super::{KvError, RedisOptions};

/// Redirections in a row before a call is given up. A key on its way needs two; more means that nodes contradict each
/// other, which settles within a few of their heartbeats or not at all.
const MOST_HOPS: u32 = 16;

/// How long a load waits before it tries again where a master does not answer: a tenth of a second is little in a
/// failover, which takes seconds.
const PAUSE: Duration = Duration::from_millis(100);

/// What stood in the way of a round.
#[derive(Default)]
pub(super) struct Trouble {
    /// A key is somewhere else.
    pub redirected: bool,
    /// And will stay there.
    pub map_is_old: bool,
    /// Something that may pass, the first of it.
    pub wait: Option<KvError>,
    /// Something that will not, or after which a second try might answer wrongly.
    pub end: Option<KvError>,
}

/// What an error of one command means for it.
pub(super) enum Verdict {
    /// Its slot is at another node.
    Moved(u16, Address),
    /// Its slot is being moved, and the key is there already or nowhere.
    Ask(Address),
    /// The server did nothing, and says that it may later.
    NotDone,
    /// No answer: it may have been done.
    Unknown,
    /// The server will not, ever.
    Refused,
}

impl Verdict {
    pub fn of(error: &RedisError, asked: &Address) -> Self {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
        let target = || {
            let (node, slot) = error.redirect_node()?;
            Some((slot, Address::parse(node, asked)?)).filter(|&(slot, _)| slot < SLOTS)
        };
        match error.kind() {
            ErrorKind::Server(Moved) => target().map_or(Self::Refused, |(slot, to)| Self::Moved(slot, to)),
            ErrorKind::Server(Ask) => target().map_or(Self::Refused, |(_, to)| Self::Ask(to)),
            ErrorKind::Server(ClusterDown | TryAgain | BusyLoading | MasterDown | ReadOnly) => Self::NotDone,
            // it was never sent
            ErrorKind::Io if error.is_connection_refusal() => Self::NotDone,
            ErrorKind::Io => Self::Unknown,
            _ => Self::Refused,
        }
    }
}

/// How often and how long a call goes on in the face of trouble.
pub(super) struct Patience {
    lane: Lane,
    hops: u32,
    waits: u32,
    total: Duration,
    until: Option<Instant>,
}

impl Patience {
    pub fn new(lane: Lane, options: &RedisOptions) -> Self {
        let total = Duration::from_millis(options.bulk_timeout_ms.saturating_mul(3));
        Self { lane, hops: 0, waits: 0, total, until: None }
    }

    /// Whether to go to another node once more.
    pub fn hops(&mut self) -> bool {
        self.hops += 1;
        self.hops <= MOST_HOPS
    }

    /// Whether to try again, when it is time to. A request does so once, at once. A load, until its time is over; it counts
    /// from the first trouble.
    pub async fn waits(&mut self) -> bool {
        self.waits += 1;
        match self.lane {
            Lane::Requests => self.waits <= 1,
            Lane::Bulk => {
                let now = Instant::now();
                let until = *self.until.get_or_insert_with(|| now.checked_add(self.total).unwrap_or(now));
                if now < until {
                    tokio::time::sleep(PAUSE).await;
                }
                now < until
            }
        }
    }
}
