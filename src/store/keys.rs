//! The names of keys. Every name of a release can be told from its manifest, so nothing ever has to be scanned for.

use super::StoreError;
use crate::input::Id;

/// Longest namespace and release name, in bytes. A page key of a namespace of up to 9 is at most 30 bytes long, and
/// with its header and NUL fits a 32-byte allocation.
const LONGEST_NS: usize = 32;
const LONGEST_NAME: usize = 64;

/// The ledger, which begins with the pointer: which release is current.
pub(super) fn pointer(ns: &str) -> Vec<u8> {
    format!("{ns}:current").into_bytes()
}

/// A release's manifest.
pub(super) fn manifest(ns: &str, name: &str) -> Vec<u8> {
    format!("{ns}:r:{name}").into_bytes()
}

/// Who is publishing.
pub(super) fn lease(ns: &str) -> Vec<u8> {
    format!("{ns}:publisher").into_bytes()
}

/// One page of the release with that id.
pub(super) fn page(ns: &str, id: &str, page: u32) -> Vec<u8> {
    format!("{ns}:{id}:{page}").into_bytes()
}

/// One user's list of a kind, of the release with that id.
pub(super) fn list(ns: &str, id: &str, kind: char, user: Id<'_>) -> Vec<u8> {
    format!("{ns}:{id}:{kind}:{user}").into_bytes()
}

pub(super) fn check_ns(ns: &str) -> Result<(), StoreError> {
    check("namespace", ns, LONGEST_NS)
}

pub(super) fn check_name(name: &str) -> Result<(), StoreError> {
    check("release name", name, LONGEST_NAME)
}

/// No `:` in a name, so that no two names make one key, and no braces, which a cluster reads as a hash tag.
fn check(what: &'static str, got: &str, longest: usize) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=longest).contains(&got.len()) && got.bytes().all(allowed) {
        return Ok(());
    }
    Err(StoreError::BadName { what, got: got.chars().take(2 * longest).collect(), longest })
}

/// What is kept of one user: `o` the overlay, `s` the session, `h` what was seen, by the user's id; `g` a segment's vector.
pub(super) fn of_user(ns: &str, kind: char, user: Id<'_>) -> Vec<u8> {
    format!("{ns}:{kind}:{user}").into_bytes()
}
