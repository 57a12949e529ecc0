//! Filters as bitmaps: one bit a node, made once for each combination of clauses and kept while there is room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::filter::Clause;
use crate::catalog::{CatalogError, Index};

/// One bit a node, and how many are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    pub bits: Vec<u64>,
    pub passing: usize,
}

impl Mask {
    pub fn full(nodes: usize) -> Self {
        let mut bits = vec![u64::MAX; nodes.div_ceil(64)];
        if let Some(last) = bits.last_mut().filter(|_| !nodes.is_multiple_of(64)) {
            *last &= (1 << (nodes % 64)) - 1;
        }
        Self { bits, passing: nodes }
    }

    /// Of these nodes alone.
    pub fn of(nodes: usize, set: impl IntoIterator<Item = u32>) -> Self {
        let mut bits = vec![0; nodes.div_ceil(64)];
        for node in set {
            bits[node as usize / 64] |= 1 << (node % 64);
        }
        Self::counted(bits)
    }

    fn counted(bits: Vec<u64>) -> Self {
        let passing = bits.iter().map(|word| word.count_ones() as usize).sum();
        Self { bits, passing }
    }

    pub fn has(&self, node: u32) -> bool {
        self.bits.get(node as usize / 64).is_some_and(|word| word >> (node % 64) & 1 == 1)
    }

    pub fn and(&self, other: &Self) -> Self {
        Self::counted(self.bits.iter().zip(&other.bits).map(|(a, b)| a & b).collect())
    }

    /// Takes nodes out.
    pub fn remove(&mut self, nodes: impl IntoIterator<Item = u32>) {
        for node in nodes {
            let word = &mut self.bits[node as usize / 64];
            self.passing -= (*word >> (node % 64) & 1) as usize;
            *word &= !(1 << (node % 64));
        }
    }
}

/// Clauses: all of `all`, at least one of each of `any`, none of `none`. Sorted, so that alike filters are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ClauseKey {
    all: Vec<Clause>,
    any: Vec<Vec<Clause>>,
    none: Vec<Clause>,
}

impl ClauseKey {
    pub fn new(all: &[Clause], any: &[Vec<Clause>], none: &[Clause]) -> Self {
        let sorted = |clauses: &[Clause]| {
            let mut clauses = clauses.to_vec();
            clauses.sort_unstable();
            clauses.dedup();
            clauses
        };
        let mut any: Vec<Vec<Clause>> = any.iter().map(|group| sorted(group)).collect();
        any.sort_unstable();
        Self { all: sorted(all), any, none: sorted(none) }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.any.is_empty() && self.none.is_empty()
    }

    /// Bytes that it takes: a filter of thousands of tags is longer than many a bitmap.
    fn bytes(&self) -> usize {
        let text = |clause: &Clause| match clause {
            Clause::Tag(tag) => tag.capacity(),
            Clause::Range(range) => range.field.capacity(),
        };
        let list =
            |clauses: &Vec<Clause>| clauses.capacity() * size_of::<Clause>() + clauses.iter().map(text).sum::<usize>();
        let groups = self.any.capacity() * size_of::<Vec<Clause>>() + self.any.iter().map(list).sum::<usize>();
        list(&self.all) + groups + list(&self.none)
    }

    /// Whether an item passes that meets a clause when `meets` says so.
    pub fn passes(&self, meets: impl Fn(&Clause) -> bool) -> bool {
        self.all.iter().all(&meets)
            && self.any.iter().all(|group| group.iter().any(&meets))
            && !self.none.iter().any(&meets)
    }

    /// The mask of an index. No node has a tag or field that the index does not have: whoever asks for it knows it from
    /// elsewhere.
    pub fn compile(&self, index: &Index) -> Result<Mask, CatalogError> {
        let nodes = |clause: &Clause| match nodes_of(index, clause) {
            Err(CatalogError::UnknownTag { .. } | CatalogError::UnknownField { .. }) => Ok(&[][..]),
            found => found,
        };
        let n = index.len();
        let mut mask: Option<Mask> = None;
        let mut narrow = |group: Mask| {
            mask = Some(match mask.take() {
                Some(mask) => mask.and(&group),
                None => group,
            });
        };
        for clause in &self.all {
            narrow(Mask::of(n, nodes(clause)?.iter().copied()));
        }
        for group in &self.any {
            let mut bits = vec![0; n.div_ceil(64)];
            for clause in group {
                nodes(clause)?.iter().for_each(|&node| bits[node as usize / 64] |= 1 << (node % 64));
            }
            narrow(Mask::counted(bits));
        }
        let mut mask = mask.unwrap_or_else(|| Mask::full(n));
        for clause in &self.none {
            mask.remove(nodes(clause)?.iter().copied());
        }
        Ok(mask)
    }
}

/// The nodes that meet a clause: those of a tag, or those whose number is within a range, which stand together too.
pub(super) fn nodes_of<'a>(index: &'a Index, clause: &Clause) -> Result<&'a [u32], CatalogError> {
    match clause {
        Clause::Tag(tag) => index.find_tag(tag).map(|number| index.tag(number).1),
        Clause::Range(range) => {
            let (min, max) = range.ends();
            index.range(&range.field, min, max)
        }
    }
}

/// What passes of an index, and of what was added to it since.
#[derive(Debug)]
pub(super) struct Passing {
    pub nodes: Mask,
    pub added: Mask,
}

/// What masks were made for: clauses, and the version of what may be answered at all.
type Key = (ClauseKey, u64);

/// What a mask takes beside its bits and its key: an entry of the table, and three allocations.
const ENTRY_BYTES: usize = 256;

/// Masks made before, within a budget; the one longest unused goes first.
#[derive(Debug)]
pub(super) struct Masks {
    budget_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    masks: HashMap<Key, (Arc<Passing>, u64)>,
    bytes: usize,
    clock: u64,
}

impl Masks {
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, kept: Mutex::default() }
    }

    /// The mask for a key, made if need be.
    pub fn get(
        &self,
        key: Key,
        make: impl FnOnce(&ClauseKey) -> Result<Passing, CatalogError>,
    ) -> Result<Arc<Passing>, CatalogError> {
        if let Ok(mut kept) = self.kept.lock() {
            kept.clock += 1;
            let now = kept.clock;
            if let Some((mask, used)) = kept.masks.get_mut(&key) {
                *used = now;
                return Ok(Arc::clone(mask));
            }
        }
        let mask = Arc::new(make(&key.0)?);
        if let Ok(mut kept) = self.kept.lock() {
            kept.put(key, &mask, self.budget_bytes);
        }
        Ok(mask)
    }

    /// Bytes of the masks that are kept.
    pub fn bytes(&self) -> usize {
        self.kept.lock().map_or(0, |kept| kept.bytes)
    }
}

impl Kept {
    fn put(&mut self, key: Key, mask: &Arc<Passing>, budget_bytes: usize) {
        let cost = |key: &Key, mask: &Passing| {
            ENTRY_BYTES + key.0.bytes() + 8 * (mask.nodes.bits.len() + mask.added.bits.len())
        };
        if cost(&key, mask) > budget_bytes {
            return;
        }
        // another may have made it meanwhile
        if let Some((key, (old, _))) = self.masks.remove_entry(&key) {
            self.bytes -= cost(&key, &old);
        }
        self.bytes += cost(&key, mask);
        self.masks.insert(key, (Arc::clone(mask), self.clock));
        while self.bytes > budget_bytes {
            let oldest = self.masks.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            let Some((key, (old, _))) = oldest.and_then(|key| self.masks.remove_entry(&key)) else { break };
            self.bytes -= cost(&key, &old);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_is_a_set(n in 1_usize..300, a in prop::collection::vec(any::<u32>(), 0..80), b in prop::collection::vec(any::<u32>(), 0..80)) {
            let within = |set: &[u32]| set.iter().map(|node| node % n as u32).collect::<std::collections::BTreeSet<u32>>();
            let (a, b) = (within(&a), within(&b));
            let both = Mask::of(n, a.iter().copied()).and(&Mask::of(n, b.iter().copied()));
            prop_assert_eq!(&both, &Mask::of(n, a.intersection(&b).copied()));
            let mut rest = Mask::full(n);
            rest.remove(a.iter().copied());
            rest.remove(a.iter().copied());
            prop_assert_eq!(rest.passing, n - a.len());
            prop_assert!((0..n as u32).all(|node| rest.has(node) != a.contains(&node)));
            prop_assert!(!rest.has(n as u32));
        }
    }

    #[test]
    fn masks_are_made_once_and_kept_within_their_budget() {
        let key_bytes = ClauseKey::new(&["a".into()], &[], &[]).bytes();
        let masks = Masks::new(3 * (ENTRY_BYTES + key_bytes + 8 * 2));
        let get = |tag: &str, version| {
            let mut made = false;
            let key = (ClauseKey::new(&[tag.into()], &[], &[]), version);
            let make = |_: &ClauseKey| {
                made = true;
                Ok(Passing { nodes: Mask::full(100), added: Mask::full(0) })
            };
            assert_eq!(masks.get(key, make).unwrap().nodes.passing, 100);
            assert!(masks.bytes() <= masks.budget_bytes);
            made
        };
        assert_eq!(["a", "b", "c", "a", "b"].map(|tag| get(tag, 1)), [true, true, true, false, false]);
        assert!(get("d", 1), "c goes, which was not used for longest");
        assert_eq!(["a", "b", "d", "c"].map(|tag| get(tag, 1)), [false, false, false, true]);
        assert!(get("a", 2), "of another version");
    }

    #[test]
    fn a_long_key_counts_as_much_as_a_long_mask() {
        let masks = Masks::new(10_000);
        let make = |_: &ClauseKey| Ok(Passing { nodes: Mask::full(100), added: Mask::full(0) });
        let tags =
            |len: usize, count: usize| (0..count).map(|at| Clause::Tag(format!("{at:0>len$}"))).collect::<Vec<_>>();
        for key in [
            ClauseKey::new(&tags(10_000, 1), &[], &[]),
            ClauseKey::new(&[], &[], &tags(10, 1_000)),
            ClauseKey::new(&[], &[tags(10, 500), tags(10, 400)], &[]),
            ClauseKey::new(&[], &vec![tags(1, 1); 400], &[]),
        ] {
            masks.get((key, 1), make).unwrap();
            assert_eq!(masks.bytes(), 0, "it would take more than there is");
        }
        (0..100).for_each(|at| drop(masks.get((ClauseKey::new(&tags(1_000 + at, 1), &[], &[]), 1), make).unwrap()));
        assert!((7_000..=10_000).contains(&masks.bytes()), "{}", masks.bytes());
    }

    #[test]
    fn filters_that_are_alike_are_equal() {
        let tags = |names: &[&str]| names.iter().map(|&name| name.into()).collect::<Vec<Clause>>();
        let range = |text: &str| Clause::Range(text.parse().unwrap());
        let any = [tags(&["x", "y"]), vec![tags(&["z"])[0].clone(), range("a:1..2")]];
        let turned = [vec![range("a:1..2"), tags(&["z"])[0].clone(), range("a:1..2")], tags(&["y", "x"])];
        let key = ClauseKey::new(&tags(&["b", "a"]), &any, &[]);
        assert_eq!(key, ClauseKey::new(&tags(&["a", "b", "a"]), &turned, &[]));
        assert_ne!(ClauseKey::new(&tags(&["a"]), &[], &[]), ClauseKey::new(&[], &[], &tags(&["a"])));
        let ranges =
            ["a:1..2", "a:1..", "a:..2", "a:1..3", "b:1..2"].map(|text| ClauseKey::new(&[range(text)], &[], &[]));
        assert!(ranges.iter().enumerate().all(|(at, key)| !ranges[..at].contains(key)));
    }
}
