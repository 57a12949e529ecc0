//! Item vectors for other services: a release like the users', dense by row, under a namespace of its own.
//!
//! It is published, verified, activated and retired like any other; a reader needs the pointer, the manifest and one
//! `GETRANGE` an item. `tools/read_items.py` is such a reader, in thirty lines. A row is the item's in the index of the
//! release with the same fingerprint.

/// The namespace of the items that belong to the users in `ns`.
pub fn items_ns(ns: &str) -> String {
    format!("{ns}.items")
}
