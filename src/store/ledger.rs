//! The ledger: which release of a namespace is current, and what other releases there are, in one value.
//!
//! Everything that changes the state of a release goes through one compare-and-set of one key, so two commands that
//! would undo each other (activate it, remove it) cannot both succeed. The ledger names every release that may have
//! keys, from before its first page is written until its last is removed: that is what makes a scan unnecessary.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::release::{self, Manifest, hex64};
use super::{StoreError, keys};
use crate::kv::Kv;

/// Removed releases that the ledger remembers, the latest: enough to see what happened last week.
const REMEMBERED: usize = 8;
/// Half a kilobyte a release; a longer value is not read as a ledger.
const LONGEST: usize = 256 << 10;

/// Where a release is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its pages are being written, or their writer died. They carry a TTL.
    Loading,
    /// Takes over the pages of the current release, one after another.
    Rolling,
    /// Was rolled in by half, and given up. Its pages stand among those of the release that it was to take the place of,
    /// which lacks the users in them; they go with that one's.
    Abandoned,
    /// Published whole, not active; goes away when its grace is over.
    Waiting,
    /// Readers that open now get this one.
    Active,
    /// Was active before the active one; kept to go back to.
    Previous,
    /// Was active earlier still. [`gc`](super::gc) removes it.
    Past,
    /// Its pages are being removed, or whoever did so died.
    Retiring,
    /// Gone.
    Retired,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loading => "loading",
            Self::Rolling => "rolling",
            Self::Abandoned => "abandoned",
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Previous => "previous",
            Self::Past => "past",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        })
    }
}

/// A release in the ledger. Times are of the wall clock, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The release's name.
    pub name: String,
    /// Fingerprint of the trained model; with the name it gives the id.
    #[serde(with = "hex64")]
    pub fingerprint: u64,
    /// Where it is.
    pub state: State,
    /// The id in the names of its pages, which is that of an earlier release when it has taken over that one's.
    pub keys: String,
    /// Pages whose names may be taken.
    pub pages: u32,
    /// Users.
    pub users: u32,
    /// How long it may wait to be activated.
    pub grace_s: u64,
    /// When the publish began.
    pub begun_s: u64,
    /// When it was published whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_s: Option<u64>,
    /// When it was last activated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_s: Option<u64>,
    /// When its removal began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_s: Option<u64>,
}

impl Entry {
    pub(super) fn of(manifest: &Manifest, state: State, grace: Duration) -> Self {
        Self {
            name: manifest.name.clone(),
            fingerprint: manifest.fingerprint,
            state,
            keys: manifest.keys().to_owned(),
            pages: manifest.pages(),
            users: manifest.users,
            grace_s: grace.as_secs(),
            begun_s: now_s(),
            published_s: None,
            activated_s: None,
            retired_s: None,
        }
    }

    /// The release's id.
    pub fn id(&self) -> String {
        release::id(&self.name, self.fingerprint)
    }

    /// How long it has been in its state; `None` when an earlier version published it.
    pub fn age(&self) -> Option<Duration> {
        let since = match self.state {
            State::Loading | State::Rolling => Some(self.begun_s),
            State::Waiting => self.published_s,
            State::Active | State::Previous | State::Past => self.activated_s,
            State::Abandoned | State::Retiring | State::Retired => self.retired_s,
        };
        since.map(|at| Duration::from_secs(now_s().saturating_sub(at)))
    }

    fn is_sound(&self) -> bool {
        keys::check_name(&self.name).is_ok()
            && self.keys.len() == 12
            && self.keys.bytes().all(|c| c.is_ascii_hexdigit())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state == State::Retired
    }

    /// Whether it stands by half in the pages of another.
    pub(super) fn is_half(&self) -> bool {
        matches!(self.state, State::Rolling | State::Abandoned)
    }
}

/// Those that are not gone and have their pages under this id: more than one while a release rolls over another.
pub(super) fn sharing<'e>(
    releases: impl IntoIterator<Item = &'e Entry>,
    keys: &str,
) -> impl Iterator<Item = &'e Entry> {
    releases.into_iter().filter(move |entry| entry.keys == keys && !entry.is_gone())
}

/// Which release is current, and what others there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Id and name of the current release.
    pub(super) current: Option<(String, String)>,
    /// By the order in which they began; no two that are not retired have one name.
    pub releases: Vec<Entry>,
}

impl Ledger {
    /// The current release's name.
    pub fn current(&self) -> Option<&str> {
        self.current.as_ref().map(|(_, name)| &name[..])
    }

    /// The release of that name, unless it is gone.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.releases.iter().find(|entry| entry.name == name && entry.state != State::Retired)
    }

    pub(super) fn find_mut(&mut self, name: &str) -> Option<&mut Entry> {
        self.releases.iter_mut().find(|entry| entry.name == name && entry.state != State::Retired)
    }

    /// Whether a release that is not gone has its pages under this id.
    pub(super) fn is_in_use(&self, keys: &str) -> bool {
        self.releases.iter().any(|entry| entry.keys == keys && !entry.is_gone())
    }

    /// The release to go back to.
    pub fn previous(&self) -> Option<&Entry> {
        self.releases.iter().find(|entry| entry.state == State::Previous)
    }

    /// Adds a release, in the place of one of that name that is not gone.
    pub(super) fn put(&mut self, entry: Entry) {
        self.releases.retain(|other| other.name != entry.name || other.state == State::Retired);
        self.releases.push(entry);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.releases.retain(|entry| entry.name != name || entry.state == State::Retired);
    }

    /// Makes a release current; the one that was becomes the previous.
    pub(super) fn switch_to(&mut self, manifest: &Manifest) {
        let known = self.find(&manifest.name).cloned();
        let mut active = known.unwrap_or_else(|| Entry::of(manifest, State::Waiting, Duration::ZERO));
        if active.state != State::Active {
            for entry in &mut self.releases {
                match entry.state {
                    State::Previous => entry.state = State::Past,
                    State::Active => entry.state = State::Previous,
                    _ => {}
                }
            }
        }
        active.state = State::Active;
        active.activated_s = Some(now_s());
        self.put(active);
        self.current = Some((manifest.id.clone(), manifest.name.clone()));
    }

    /// Forgets the oldest of those that are gone.
    fn prune(&mut self) {
        let gone = self.releases.iter().filter(|entry| entry.state == State::Retired).count();
        let mut surplus = gone.saturating_sub(REMEMBERED);
        self.releases.retain(|entry| {
            let drop = entry.state == State::Retired && surplus > 0;
            surplus -= usize::from(drop);
            !drop
        });
    }

    /// The value of its key: `id name` of the current release, a checksum of it and of what follows, and JSON.
    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let current = self.current.as_ref().map(|(id, name)| format!("{id} {name}")).unwrap_or_default();
        let json = serde_json::to_string(&self.releases)
            .map_err(|e| StoreError::corrupt("ledger", &"fields that JSON can hold", &e))?;
        let checksum = checksum(&current, &json);
        Ok(format!("{current}\n{checksum}\n{json}").into_bytes())
    }

    /// A value without a newline is a pointer of format 1: only what is current is known.
    fn decode(value: &[u8], ns: &str) -> Result<Self, StoreError> {
        let damaged = |expected: &str| {
            let got = String::from_utf8_lossy(&value[..value.len().min(200)]);
            StoreError::corrupt(format!("pointer of {ns}"), &expected, &format_args!("{got:?}"))
        };
        let text = (value.len() <= LONGEST).then(|| std::str::from_utf8(value).ok()).flatten();
        let text = text.ok_or_else(|| damaged("an id and a name"))?;
        let (line, rest) = text.split_once('\n').map_or((text, None), |(line, rest)| (line, Some(rest)));
        let releases = match rest {
            None => Vec::new(),
            Some(rest) => {
                let (sum, json) = rest.split_once('\n').ok_or_else(|| damaged("a checksum and a list"))?;
                if sum != checksum(line, json) {
                    return Err(damaged("a checksum that fits"));
                }
                let releases: Vec<Entry> = serde_json::from_str(json).map_err(|_| damaged("a list of releases"))?;
                if !releases.iter().all(Entry::is_sound) {
                    return Err(damaged("names that can stand in keys"));
                }
                releases
            }
        };
        let current = match line.split_once(' ') {
            Some((id, name)) if keys::check_name(name).is_ok() => Some((id.to_owned(), name.to_owned())),
            None if line.is_empty() && rest.is_some() => None,
            _ => return Err(damaged("an id and a name")),
        };
        Ok(Self { current, releases })
    }
}

fn checksum(current: &str, json: &str) -> String {
    let seed = XxHash3_64::oneshot(current.as_bytes());
    format!("{:016x}", XxHash3_64::oneshot_with_seed(seed, json.as_bytes()))
}

/// What the namespace's ledger says; empty when there is none.
pub async fn ledger<K: Kv>(kv: &K, ns: &str) -> Result<Ledger, StoreError> {
    Ok(read(kv, ns).await?.0)
}

/// The ledger and the bytes it came from, to compare with when it is written.
pub(super) async fn read<K: Kv>(kv: &K, ns: &str) -> Result<(Ledger, Option<Vec<u8>>), StoreError> {
    keys::check_ns(ns)?;
    let Some(value) = release::get(kv, keys::pointer(ns)).await? else {
        return Ok((Ledger::default(), None));
    };
    let mut ledger = Ledger::decode(&value, ns)?;
    if let Some((id, name)) = ledger.current.clone()
        && ledger.find(&name).is_none()
    {
        // the pointer of an earlier version: what it points at is a release all the same
        let manifest = release::release(kv, ns, &name).await?;
        if manifest.id != id || manifest.format > 1 {
            return Err(StoreError::corrupt(format!("pointer of {ns}"), &manifest.id, &id));
        }
        ledger.put(Entry::of(&manifest, State::Active, Duration::ZERO));
    }
    Ok((ledger, Some(value)))
}

/// Writes a changed ledger, unless someone else wrote one meanwhile; says whether it did.
pub(super) async fn write<K: Kv>(
    kv: &K,
    ns: &str,
    before: Option<&[u8]>,
    mut ledger: Ledger,
) -> Result<bool, StoreError> {
    ledger.prune();
    let value = ledger.encode()?;
    if before == Some(&value[..]) {
        return Ok(true);
    }
    if value.len() > LONGEST.max(before.map_or(0, <[u8]>::len)) {
        return Err(StoreError::LedgerFull { ns: ns.to_owned(), longest: LONGEST });
    }
    if ledger != Ledger::default() {
        return Ok(kv.compare_and_set(&keys::pointer(ns), before, &value, None).await?);
    }
    // of nothing nothing stays
    let Some(before) = before else { return Ok(true) };
    Ok(kv.delete_if_equal(&keys::pointer(ns), before).await?)
}

/// Reads, changes and writes the ledger, again if someone else wrote in between: their success, so it ends.
pub(super) async fn update<K: Kv, T>(
    kv: &K,
    ns: &str,
    mut change: impl FnMut(&mut Ledger) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    loop {
        let (mut ledger, before) = read(kv, ns).await?;
        let done = change(&mut ledger)?;
        if write(kv, ns, before.as_deref(), ledger).await? {
            return Ok(done);
        }
    }
}

/// Wall clock: it has to mean the same to the next process.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::EmbeddedKv;

    #[tokio::test]
    async fn a_ledger_is_never_written_longer_than_it_is_read() {
        let folder = tempfile::TempDir::new().unwrap();
        let kv = EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap();
        let entry = |at: usize| Entry {
            name: format!("release-{at}"),
            fingerprint: 1,
            keys: format!("{at:012x}"),
            users: 1,
            pages: 1,
            state: State::Past,
            grace_s: 1,
            begun_s: 1,
            published_s: Some(1),
            activated_s: Some(1),
            retired_s: None,
        };
        let of = |count| Ledger { current: None, releases: (0..count).map(entry).collect() };
        assert!(write(&kv, "t", None, of(500)).await.unwrap());
        let (_, before) = read(&kv, "t").await.unwrap();
        let error = write(&kv, "t", before.as_deref(), of(5_000)).await.unwrap_err();
        assert!(matches!(error, StoreError::LedgerFull { longest: LONGEST, .. }), "{error}");
        assert_eq!(ledger(&kv, "t").await.unwrap().releases.len(), 500);
    }
}
