//! What changes between two builds: which items are available, and items that were added, replaced or deleted.
//!
//! Changes are in force when the call returns, and are journalled first, so that they survive a restart, whichever way
//! the process ends. To be in force they have to be in the views that requests are answered from: the one who changes
//! something has these derived, and those who do so meanwhile wait and share the next turn, so that requests never wait. Availability belongs to an item's id and outlives releases. An added item's vector belongs to one
//! index; once the next is built with the item in it, the addition is not looked at any more, and is dropped when the
//! journal is next opened with [`Live::forget_others`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use super::EngineError;
use super::filter::Clause;
use super::journal::{Change, Journal};
use super::lock::Lock;
use super::request::{OwnedId, check, check_list};
use super::shelf::Shelf;
use crate::input::MAX_FIELDS;
use crate::store::{item_hash, now_s};

/// An item that the index does not have yet.
#[derive(Clone, Debug, PartialEq)]
pub struct NewItem {
    /// Its external id. An item of the index with this id is replaced.
    pub id: OwnedId,
    /// Its tags, any text.
    pub tags: Vec<String>,
    /// Its numbers, by field: finite, of at most [`MAX_FIELDS`] fields.
    pub numbers: BTreeMap<String, f64>,
    /// Its vector, as the trainer left it; in the form that is compared once it was taken in.
    pub vector: Vec<f32>,
    /// When it was added, in seconds since 1970; set when it is taken in.
    pub made_s: u64,
}

impl NewItem {
    /// Whether it meets a clause of a filter.
    pub(super) fn meets(&self, clause: &Clause) -> bool {
        match clause {
            Clause::Tag(tag) => self.tags.contains(tag),
            Clause::Range(range) => self.numbers.get(&range.field).is_some_and(|&number| range.holds(number)),
        }
    }

    /// Refuses numbers that no range could hold.
    pub(super) fn check_numbers(&self) -> Result<(), EngineError> {
        check_list("numbers of an added item", self.numbers.len(), MAX_FIELDS)?;
        match self.numbers.values().find(|number| !number.is_finite()) {
            Some(number) => check("a number of an added item", false, "a finite one", number),
            None => Ok(()),
        }
    }
}

/// How much may change between two builds.
#[derive(Clone, Copy, Debug)]
pub struct LiveOptions {
    /// Items added, of all releases. 50,000: each is scored by every request, and of 64 dimensions they take about as
    /// long as a search of a million.
    pub most_items: usize,
    /// Bytes of their vectors, ids, tags and numbers.
    pub most_bytes: usize,
    /// Items that are not available or were deleted. A million: with these and as many added as may be, a change is in
    /// force after 60 ms.
    pub most_hidden: usize,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self { most_items: 50_000, most_bytes: 64 << 20, most_hidden: 1_000_000 }
    }
}

/// What changed, shared by all engines of a process.
#[derive(Debug)]
pub struct Live {
    options: LiveOptions,
    version: AtomicU64,
    /// Held by whoever changes something, so that changes are written in the order that they are made in. Readers wait
    /// for the state alone, and not for the disk.
    journal: Mutex<Option<Journal>>,
    state: RwLock<State>,
    shown: Mutex<Shown>,
}

/// Who shows what changed. Held by whoever has the views derived.
#[derive(Debug, Default)]
struct Shown {
    shelves: Vec<Weak<Shelf>>,
    /// The version that all of them show.
    version: u64,
}

#[derive(Debug, Default)]
struct State {
    hidden: HashSet<u64>,
    /// By release and number, so that they come oldest first.
    added: BTreeMap<(u64, u64), Arc<NewItem>>,
    /// By release and hash.
    number_of: HashMap<(u64, u64), u64>,
    gone: HashMap<u64, HashSet<u64>>,
    bytes: usize,
    last: u64,
}

/// What changed for one release.
#[derive(Debug)]
pub(super) struct Changed {
    pub version: u64,
    pub hidden: HashSet<u64>,
    pub gone: HashSet<u64>,
    /// Oldest first.
    pub added: Vec<Arc<NewItem>>,
}

impl Default for Live {
    fn default() -> Self {
        Self::in_memory(LiveOptions::default())
    }
}

impl Live {
    /// Without a journal: what changed is forgotten with the process.
    pub fn in_memory(options: LiveOptions) -> Self {
        Self {
            options,
            version: AtomicU64::new(1),
            journal: Mutex::default(),
            state: RwLock::default(),
            shown: Mutex::default(),
        }
    }

    /// With a journal, created when missing and replayed. A torn last write is dropped; then the journal is written anew
    /// with what still counts, as it is whenever it has become much longer than that. One that is damaged is refused and
    /// left as it is, and so is one that another process has open.
    pub fn open(path: &Path, options: LiveOptions) -> Result<Self, EngineError> {
        let lock = Lock::take(path)?;
        let mut state = State::default();
        Journal::read(path)?.into_iter().for_each(|change| state.apply(change));
        let journal = Journal::create(path, &state.snapshot(), lock)?;
        Ok(Self { journal: Mutex::new(Some(journal)), state: RwLock::new(state), ..Self::in_memory(options) })
    }

    /// Makes items available, or not. Ids that no index has are kept as well: the next may have them.
    pub fn set_available(&self, items: &[(OwnedId, bool)]) -> Result<(), EngineError> {
        let hashes = |part: &[(OwnedId, bool)]| {
            Change::Available(part.iter().map(|(id, available)| (item_hash(id.as_id()), *available)).collect())
        };
        self.change(items.chunks(Change::MOST_HASHES).map(hashes).collect())
    }

    /// Whether an item is available, as far as anyone said.
    pub fn is_available(&self, id: &OwnedId) -> bool {
        !self.read().hidden.contains(&item_hash(id.as_id()))
    }

    /// Items added, of all releases.
    pub fn added_items(&self) -> usize {
        self.read().added.len()
    }

    /// Drops what was added to or deleted from other releases than these, for good. Where there is nothing of theirs nothing
    /// changes: whatever was made of this version holds on.
    pub fn forget_others(&self, fingerprints: &[u64]) -> Result<(), EngineError> {
        if self.read().releases().all(|release| fingerprints.contains(&release)) {
            return Ok(());
        }
        self.change(vec![Change::Keep(fingerprints.to_vec())])
    }

    /// Takes in items for the index with that fingerprint, their vectors in the form that it compares.
    pub(super) fn add(&self, fingerprint: u64, items: Vec<NewItem>) -> Result<(), EngineError> {
        let made_s = now_s();
        let add = |item| Change::Add(fingerprint, Arc::new(NewItem { made_s, ..item }));
        self.change(items.into_iter().map(add).collect())
    }

    /// Takes items away from the index with that fingerprint, whether they were built in or added.
    pub(super) fn delete(&self, fingerprint: u64, items: &[OwnedId]) -> Result<(), EngineError> {
        let hashes =
            |part: &[OwnedId]| Change::Delete(fingerprint, part.iter().map(|id| item_hash(id.as_id())).collect());
        self.change(items.chunks(Change::MOST_HASHES).map(hashes).collect())
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// What changed for the index with that fingerprint.
    pub(super) fn of(&self, fingerprint: u64) -> Changed {
        let state = self.read();
        let added = state.added.range((fingerprint, 0)..=(fingerprint, u64::MAX)).map(|(_, item)| Arc::clone(item));
        Changed {
            // versions change under the same lock
            version: self.version(),
            hidden: state.hidden.clone(),
            gone: state.gone.get(&fingerprint).cloned().unwrap_or_default(),
            added: added.collect(),
        }
    }

    /// Has a shelf show what changes from now on, for as long as there is one.
    pub(super) fn show_on(&self, shelf: &Arc<Shelf>) -> Result<(), EngineError> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        // what changes from here on waits for its turn, and finds it
        shelf.renew(self)?;
        shown.shelves.push(Arc::downgrade(shelf));
        Ok(())
    }

    /// Has everybody show at least that version.
    fn show(&self, version: u64) -> Result<(), EngineError> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.version >= version {
            return Ok(()); // whoever had the turn before has shown it too
        }
        let now = self.version();
        shown.shelves.retain(|shelf| shelf.strong_count() > 0);
        shown.shelves.iter().filter_map(Weak::upgrade).try_for_each(|shelf| shelf.renew(self))?;
        shown.version = now;
        Ok(())
    }

    fn change(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let version = self.keep(changes)?;
        self.show(version)
    }

    /// Writes changes down and makes them; says which version that is.
    fn keep(&self, changes: Vec<Change>) -> Result<u64, EngineError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        self.read().check(&changes, &self.options)?;
        if let Some(journal) = &mut *journal {
            journal.append(&changes)?;
        }
        let version = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            changes.into_iter().for_each(|change| state.apply(change));
            self.version.fetch_add(1, Ordering::AcqRel) + 1
        };
        if let Some(journal) = journal.as_mut().filter(|journal| journal.is_long()) {
            // whoever reads goes on; whoever changes something waits, once in as many bytes as are written
            journal.compact(&self.read().snapshot());
        }
        Ok(version)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // each change is whole before the next line could panic
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, changes: &[Change], options: &LiveOptions) -> Result<(), EngineError> {
        let (mut items, mut bytes, mut hidden) = (self.added.len(), self.bytes, self.hidden_len());
        for change in changes {
            match change {
                Change::Add(release, item) => {
                    let replaced = self.added_as(*release, item_hash(item.id.as_id()));
                    items += usize::from(replaced.is_none());
                    bytes = (bytes + cost(item)).saturating_sub(replaced.map_or(0, cost));
                }
                Change::Available(hashes) => {
                    let is_new = |(hash, available): &&(u64, bool)| !available && !self.hidden.contains(hash);
                    hidden += hashes.iter().filter(is_new).count();
                }
                Change::Delete(release, hashes) => {
                    let gone = self.gone.get(release);
                    hidden += hashes.iter().filter(|&hash| gone.is_none_or(|gone| !gone.contains(hash))).count();
                }
                Change::Keep(_) => {}
            }
        }
        if changes.iter().any(|change| !change.fits()) {
            let expected = "tags and fields of at most 1,024 bytes, and 4 MiB together".to_owned();
            return Err(EngineError::Request { what: "an added item", expected, got: "more".to_owned() });
        }
        let full = |what, most, got| EngineError::TooMany { what, most, got };
        if items > options.most_items {
            return Err(full("items added since the build", options.most_items, items));
        }
        if bytes > options.most_bytes {
            return Err(full("bytes of items added since the build", options.most_bytes, bytes));
        }
        if hidden > options.most_hidden {
            return Err(full("items hidden or deleted since the build", options.most_hidden, hidden));
        }
        Ok(())
    }

    /// The releases that something was added to or deleted from, some more than once.
    fn releases(&self) -> impl Iterator<Item = u64> {
        self.number_of.keys().map(|&(release, _)| release).chain(self.gone.keys().copied())
    }

    fn added_as(&self, release: u64, hash: u64) -> Option<&NewItem> {
        let number = self.number_of.get(&(release, hash))?;
        self.added.get(&(release, *number)).map(Arc::as_ref)
    }

    fn hidden_len(&self) -> usize {
        self.hidden.len() + self.gone.values().map(HashSet::len).sum::<usize>()
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Available(hashes) => {
                for (hash, available) in hashes {
                    if available {
                        self.hidden.remove(&hash)
                    } else {
                        self.hidden.insert(hash)
                    };
                }
            }
            Change::Add(fingerprint, item) => {
                let hash = item_hash(item.id.as_id());
                self.drop_added(fingerprint, hash);
                self.last += 1;
                self.bytes += cost(&item);
                self.number_of.insert((fingerprint, hash), self.last);
                self.added.insert((fingerprint, self.last), item);
                if let Some(gone) = self.gone.get_mut(&fingerprint) {
                    gone.remove(&hash);
                }
            }
            Change::Delete(fingerprint, hashes) => {
                for hash in hashes {
                    self.drop_added(fingerprint, hash);
                    self.gone.entry(fingerprint).or_default().insert(hash);
                }
            }
            Change::Keep(fingerprints) => {
                let others: Vec<(u64, u64)> =
                    self.number_of.keys().filter(|(release, _)| !fingerprints.contains(release)).copied().collect();
                others.into_iter().for_each(|(release, hash)| self.drop_added(release, hash));
                self.gone.retain(|release, _| fingerprints.contains(release));
            }
        }
    }

    fn drop_added(&mut self, fingerprint: u64, hash: u64) {
        let number = self.number_of.remove(&(fingerprint, hash));
        if let Some(item) = number.and_then(|number| self.added.remove(&(fingerprint, number))) {
            self.bytes -= cost(&item);
        }
    }

    /// The changes that lead from nothing to this.
    fn snapshot(&self) -> Vec<Change> {
        let mut hidden: Vec<(u64, bool)> = self.hidden.iter().map(|&hash| (hash, false)).collect();
        hidden.sort_unstable();
        let mut changes: Vec<Change> =
            hidden.chunks(Change::MOST_HASHES).map(|hashes| Change::Available(hashes.to_vec())).collect();
        for (&release, gone) in &self.gone {
            let gone: Vec<u64> = gone.iter().copied().collect();
            changes.extend(gone.chunks(Change::MOST_HASHES).map(|hashes| Change::Delete(release, hashes.to_vec())));
        }
        changes.extend(self.added.iter().map(|(&(release, _), item)| Change::Add(release, Arc::clone(item))));
        changes
    }
}

/// Bytes of an item in memory, about: its vector is kept as floats and as codes.
fn cost(item: &NewItem) -> usize {
    let id = if let OwnedId::Text(text) = &item.id { text.len() } else { 8 };
    let numbers = item.numbers.keys().map(|field| 40 + field.len()).sum::<usize>();
    200 + id + numbers + item.tags.iter().map(|tag| 32 + tag.len()).sum::<usize>() + 5 * item.vector.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{BuildSpec, Index, build};
    use crate::codec::Metric;
    use crate::input::Vectors;

    /// Three items, `0` to `2`.
    fn index(folder: &Path) -> Index {
        let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        npy.extend(format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }").bytes());
        npy.extend([1.0_f32, 0.0, 0.0, 1.0, 0.5, 0.5].iter().flat_map(|x| x.to_le_bytes()));
        std::fs::write(folder.join("items.npy"), npy).unwrap();
        let items = &Vectors::open(&folder.join("items.npy")).unwrap();
        build(&BuildSpec::new(items, Metric::Dot), &folder.join("items.tng"), &|_| ()).unwrap().0
    }

    #[test]
    fn requests_go_on_with_the_view_they_have_and_a_change_waits_until_all_show_it() {
        let folder = tempfile::tempdir().unwrap();
        let live = Live::default();
        let shelves = [Shelf::new(index(folder.path()), 0, &live), Shelf::new(index(folder.path()), 0, &live)];
        let shelves = shelves.map(Result::unwrap);
        let available = || shelves.each_ref().map(|shelf| shelf.scope().available());
        let hide = |item| live.set_available(&[(OwnedId::U64(item), false)]);
        std::thread::scope(|scope| {
            // somebody has views derived, and it takes long
            let turn = live.shown.lock().unwrap();
            let changes = [0, 1].map(|item| scope.spawn(move || hide(item)));
            while live.version() < 3 {
                std::thread::yield_now();
            }
            assert_eq!(available(), [3, 3], "and did not wait for it");
            assert!(changes.iter().all(|change| !change.is_finished()));
            drop(turn);
            for change in changes {
                change.join().unwrap().unwrap();
            }
        });
        assert_eq!((available(), live.shown.lock().unwrap().version), ([1, 1], 3));
        // who comes later shows it from the first, and who goes is let go of
        let late = Shelf::new(index(folder.path()), 0, &live).unwrap();
        assert_eq!(late.scope().available(), 1);
        drop(shelves);
        // what was hidden is so in every release: there is nothing to forget
        live.forget_others(&[]).unwrap();
        assert_eq!(live.version(), 3);
        hide(2).unwrap();
        assert_eq!((late.scope().available(), live.shown.lock().unwrap().shelves.len()), (0, 1));
    }
}
