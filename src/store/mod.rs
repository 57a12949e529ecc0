//! The user side, kept by key: user vectors in pages, the releases they belong to, and how a reader finds them.
//!
//! A user's encoded vector lives in a fixed-size *slot* of a *page*, because on Redis a key of its own costs more than
//! the vector. A *release* is a set of pages under names of its own, its manifest, and one pointer that says which
//! release is current: [`publish()`] writes and verifies it, [`activate`] switches the pointer, and [`UserVectors`] reads
//! from the one release it was opened on, whatever the pointer does meanwhile.
//!
//! The one thing to know: everything read back is untrusted. A page, slot or manifest that is not exactly what the
//! pinned release wrote is an error, never a vector. `docs/wire-format.md` draws every byte.

mod doctor;
mod error;
mod flight;
mod footprint;
pub mod geometry;
mod guard;
mod items;
mod keys;
mod layout;
mod lease;
mod ledger;
mod lifecycle;
mod list;
mod lists;
mod overlay;
mod page;
mod publish;
mod reader;
mod release;
mod rolling;
mod sealed;
mod seen;
mod session;
mod spread;
mod strategy;

pub use doctor::{Checkup, Finding, ShardShares, Share, Standing, examine};
pub use error::StoreError;
pub(crate) use footprint::PUBLISHER_BYTES;
pub use footprint::{Footprint, Part};
pub use guard::Room;
pub use items::{WithItems, activate_with_items, gc_with_items, items_ns, retire_with_items, rollback_with_items};
pub(crate) use ledger::now_s;
pub use ledger::{Entry, Ledger, State, ledger};
pub use lifecycle::{Listed, RemoveOptions, Removed, activate, gc, list, retire, rollback};
pub use list::{Ranked, list_bytes, pack as pack_list, unpack as unpack_list};
pub use lists::{ListKind, ListOptions, ListSource, Lists, MakeList, WrittenLists, list_key, list_of_user};
pub use overlay::{Overlay, overlay_bytes, overlay_key, put_overlays, put_segments, segment_key};
pub use publish::{Encode, Ids, Prepared, PublishOptions, ReleaseSpec, Users, prepare, publish, verify};
pub use reader::UserVectors;
pub use release::{Addressing, FORMAT, Growth, Manifest, current, release};
pub use sealed::{item_hash, whole};
pub use seen::{Seen, SeenOptions, seen_bytes, seen_key};
pub use session::{
    EventKind, SessionOptions, StoredEvent, record_all_events, record_events, session_bytes, session_key, sessions,
};
pub use strategy::{Remedy, Strategy, lower_codecs};
