//! An index as requests see it: with the way from hashes to nodes, the masks made so far, and what changed since it was
//! built.
//!
//! A *pick* is an item of either: a node of the index, or, from the number of nodes upwards, an item that was added.
//!
//! The one thing to know: no request derives a view, or waits for one. Whoever changes something has all views show it
//! before the call returns ([`Live`]); until then requests go on with the view that there is.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use super::EngineError;
use super::added::Added;
use super::fields::Fields;
use super::filter::{Clause, ItemFilter};
use super::live::Live;
use super::lookup::Lookup;
use super::mask::{ClauseKey, Mask, Masks, Passing, nodes_of};
use super::request::OwnedId;
use crate::catalog::{CatalogError, Index};
use crate::input::Id;
use crate::store::item_hash;

/// An index, and what was made of it.
#[derive(Debug)]
pub(super) struct Shelf {
    pub index: Index,
    lookup: Lookup,
    fields: OnceLock<Fields>,
    masks: Masks,
    view: ArcSwap<View>,
}

/// What may be answered at all, as of one version of [`Live`].
#[derive(Debug)]
pub(super) struct View {
    pub version: u64,
    /// Nodes that are there and available; all of them when `None`.
    pub nodes: Option<Mask>,
    /// Items that are there, available or not.
    pub items: usize,
    pub added: Added,
}

/// A shelf, and the view of it that one request keeps to.
#[derive(Clone, Debug)]
pub(super) struct Scope<'a> {
    pub shelf: &'a Shelf,
    pub view: Arc<View>,
}

/// What passes the filter of a request.
#[derive(Debug)]
pub(super) struct Eligible {
    /// All nodes when `None`.
    pub nodes: Option<Arc<Passing>>,
    /// The same of what was added.
    pub added: Mask,
    /// Picks that the filter denies, ascending; their bits may be set.
    pub denied: Vec<u32>,
}

impl Shelf {
    /// An index that shows what changes from now on.
    pub fn new(index: Index, masks_bytes: usize, live: &Live) -> Result<Arc<Self>, EngineError> {
        let (lookup, masks) = (Lookup::new(&index), Masks::new(masks_bytes));
        let view = ArcSwap::from_pointee(View::of(&index, &lookup, live)?);
        let shelf = Arc::new(Self { index, lookup, fields: OnceLock::new(), masks, view });
        live.show_on(&shelf)?;
        Ok(shelf)
    }

    /// The index as it may be answered from now.
    pub fn scope(&self) -> Scope<'_> {
        Scope { shelf: self, view: self.view.load_full() }
    }

    /// Shows what changed, unless it does already. One at a time.
    pub fn renew(&self, live: &Live) -> Result<(), EngineError> {
        if self.view.load().version < live.version() {
            self.view.store(Arc::new(View::of(&self.index, &self.lookup, live)?));
        }
        Ok(())
    }
    fn fields(&self) -> &Fields {
        self.fields.get_or_init(|| Fields::new(&self.index))
    }

    /// Bytes of the masks that are kept.
    pub fn masks_bytes(&self) -> usize {
        self.masks.bytes()
    }
}

impl View {
    fn of(index: &Index, lookup: &Lookup, live: &Live) -> Result<Self, EngineError> {
        let n = index.len();
        let change = live.of(index.fingerprint());
        let node = |hash: &u64| lookup.get(*hash);
        let mut mask = Mask::full(n);
        mask.remove(change.gone.iter().filter_map(node));
        mask.remove(change.added.iter().filter_map(|item| node(&item_hash(item.id.as_id()))));
        let items = mask.passing + change.added.len();
        mask.remove(change.hidden.iter().filter_map(node));
        let shown = change.added.into_iter().filter(|item| !change.hidden.contains(&item_hash(item.id.as_id())));
        let added = Added::new(index, shown.collect())?;
        Ok(Self { version: change.version, nodes: (mask.passing < n).then_some(mask), items, added })
    }
}

impl Scope<'_> {
    /// Number of nodes, and the first pick that is none.
    pub fn nodes(&self) -> u32 {
        self.shelf.index.len() as u32
    }

    /// Items that may be answered.
    pub fn available(&self) -> usize {
        self.view.nodes.as_ref().map_or(self.shelf.index.len(), |mask| mask.passing) + self.view.added.len()
    }

    /// The pick of a hash, available or not; of an item that was replaced, the one in its place.
    pub fn find_hash(&self, hash: u64) -> Option<u32> {
        let added = self.view.added.find(hash).map(|place| self.nodes() + place);
        added.or_else(|| self.shelf.lookup.get(hash))
    }

    /// The pick of an id.
    pub fn find(&self, id: &OwnedId) -> Option<u32> {
        self.find_hash(item_hash(id.as_id())).filter(|&pick| self.id(pick) == id.as_id())
    }

    /// The picks of ids, ascending. They are hundreds, each somewhere else in memory: all are asked for before the first
    /// is waited for.
    pub fn find_all(&self, ids: &[OwnedId]) -> Vec<u32> {
        let hashes: Vec<u64> = ids.iter().map(|id| item_hash(id.as_id())).collect();
        let found: Vec<(u32, Id)> =
            self.find_hashes(&hashes).zip(ids).filter_map(|(pick, id)| Some((pick?, id.as_id()))).collect();
        self.ask_ids(found.iter().map(|&(pick, _)| pick));
        sorted(found.into_iter().filter(|&(pick, id)| self.id(pick) == id).map(|(pick, _)| pick).collect())
    }

    /// The picks of hashes, in their order.
    pub fn find_hashes<'h>(&'h self, hashes: &'h [u64]) -> impl Iterator<Item = Option<u32>> + 'h {
        hashes.iter().for_each(|&hash| self.shelf.lookup.ask(hash));
        hashes.iter().map(|&hash| self.find_hash(hash))
    }

    /// Asks for the ids of picks that are soon to be read.
    pub fn ask_ids(&self, picks: impl Iterator<Item = u32>) {
        picks.filter(|&pick| pick < self.nodes()).for_each(|node| self.shelf.index.ask_id(node));
    }

    pub fn id(&self, pick: u32) -> Id<'_> {
        match pick.checked_sub(self.nodes()) {
            Some(place) => self.view.added.item(place).id.as_id(),
            None => self.shelf.index.id(pick),
        }
    }

    /// The vector in the form that is compared.
    pub fn vector(&self, pick: u32, out: &mut [f32]) {
        match pick.checked_sub(self.nodes()) {
            Some(place) => out.copy_from_slice(&self.view.added.item(place).vector),
            None => self.shelf.index.vector(pick, out),
        }
    }

    /// Numbers of the tags.
    pub fn tags(&self, pick: u32) -> &[u32] {
        match pick.checked_sub(self.nodes()) {
            Some(place) => self.view.added.tags(place),
            None => self.shelf.fields().of(pick),
        }
    }

    /// The name of a tag of [`tags`](Self::tags).
    pub fn tag_name(&self, tag: u32) -> Cow<'_, str> {
        let count = self.shelf.index.tag_count();
        match (tag as usize).checked_sub(count) {
            Some(own) => self.view.added.names().get(own).map_or("", String::as_str).into(),
            None => self.shelf.index.tag(tag as usize).0.into(),
        }
    }

    /// Refuses a tag or field that no item has.
    pub fn knows(&self, clause: &Clause) -> Result<(), CatalogError> {
        match nodes_of(&self.shelf.index, clause) {
            Err(error) if !self.view.added.knows(clause) => Err(error),
            _ => Ok(()),
        }
    }

    /// What passes a filter whose tags and fields are [known](Self::knows).
    pub fn eligible(&self, filter: &ItemFilter) -> Result<Eligible, EngineError> {
        let key = ClauseKey::new(&filter.all, &filter.any, &filter.none);
        let mut nodes = None;
        let mut added = Mask::full(self.view.added.len());
        if !key.is_empty() || self.view.nodes.is_some() {
            let passing = self.shelf.masks.get((key, self.view.version), |key| {
                let met = key.compile(&self.shelf.index)?;
                let nodes = match &self.view.nodes {
                    Some(mask) => mask.and(&met),
                    None => met,
                };
                let place = |&place: &u32| key.passes(|clause| self.view.added.item(place).meets(clause));
                let len = self.view.added.len();
                Ok(Passing { nodes, added: Mask::of(len, (0..len as u32).filter(place)) })
            })?;
            added.clone_from(&passing.added);
            nodes = Some(passing);
        }
        if let Some(allow) = &filter.allow {
            let picks = self.find_all(allow);
            let end = picks.partition_point(|&pick| pick < self.nodes());
            let of_nodes = Mask::of(self.nodes() as usize, picks[..end].iter().copied());
            let of_nodes = nodes.map_or_else(|| of_nodes.clone(), |passing| passing.nodes.and(&of_nodes));
            let places = picks[end..].iter().map(|pick| pick - self.nodes());
            added = added.and(&Mask::of(self.view.added.len(), places));
            nodes = Some(Arc::new(Passing { nodes: of_nodes, added: Mask::full(0) }));
        }
        Ok(Eligible { nodes, added, denied: self.find_all(&filter.deny) })
    }
}

impl Eligible {
    /// Whether a pick passes.
    pub fn has(&self, scope: &Scope, pick: u32) -> bool {
        let set = match pick.checked_sub(scope.nodes()) {
            Some(place) => self.added.has(place),
            None => self.nodes.as_ref().is_none_or(|passing| passing.nodes.has(pick)),
        };
        set && self.denied.binary_search(&pick).is_err()
    }

    /// How many pass.
    pub fn count(&self, scope: &Scope) -> usize {
        let set = |pick: u32| match pick.checked_sub(scope.nodes()) {
            Some(place) => self.added.has(place),
            None => self.nodes.as_ref().is_none_or(|passing| passing.nodes.has(pick)),
        };
        let nodes = self.nodes.as_ref().map_or(scope.nodes() as usize, |passing| passing.nodes.passing);
        nodes + self.added.passing - self.denied.iter().filter(|&&pick| set(pick)).count()
    }
}

/// Ascending, each once.
pub(super) fn sorted(mut picks: Vec<u32>) -> Vec<u32> {
    picks.sort_unstable();
    picks.dedup();
    picks
}
