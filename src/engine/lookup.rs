//! From an item's hash to its node, in one look at memory.
//!
//! An index finds an id by binary search, which waits for memory twenty times; what a user has seen are hundreds of ids a
//! request. The table takes 10.7 bytes an item.

use rayon::prelude::*;

use crate::catalog::Index;
use crate::kernel;
use crate::store::item_hash;

const EMPTY: u64 = u64::MAX;

/// Hashes to nodes. A hash that no item has is taken for one with a chance of about 1e-9: of 64 bits, the upper choose the
/// place and the lower 32 are compared.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Low half of the hash, and the node; a power of two is not needed, since places come from a product.
    slots: Vec<u64>,
}

impl Lookup {
    pub fn new(index: &Index) -> Self {
        let hashes: Vec<u64> = (0..index.len() as u32).into_par_iter().map(|node| item_hash(index.id(node))).collect();
        Self::of(&hashes)
    }

    fn of(hashes: &[u64]) -> Self {
        let mut lookup = Self { slots: vec![EMPTY; hashes.len() * 4 / 3 + 1] };
        for (node, &hash) in hashes.iter().enumerate() {
            let mut at = lookup.place(hash);
            while lookup.slots[at] != EMPTY {
                at = lookup.after(at);
            }
            lookup.slots[at] = hash << 32 | node as u64;
        }
        lookup
    }

    fn place(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Asks for what finding this hash reads.
    pub fn ask(&self, hash: u64) {
        kernel::prefetch(&self.slots[self.place(hash)..][..1]);
    }

    /// The node of the item with this hash.
    pub fn get(&self, hash: u64) -> Option<u32> {
        let mut at = self.place(hash);
        loop {
            match self.slots[at] {
                EMPTY => return None,
                slot if (slot >> 32) as u32 == hash as u32 => return Some(slot as u32),
                _ => at = self.after(at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_finds_what_a_map_finds(hashes in prop::collection::hash_set(any::<u64>(), 0..500), strange in any::<[u64; 20]>()) {
            let hashes: Vec<u64> = hashes.into_iter().collect();
            let map: HashMap<u64, u32> = hashes.iter().copied().zip(0..).collect();
            let lookup = Lookup::of(&hashes);
            for hash in hashes.iter().chain(&strange) {
                prop_assert_eq!(lookup.get(*hash), map.get(hash).copied());
            }
        }
    }
}
