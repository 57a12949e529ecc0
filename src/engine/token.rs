//! The token of the next page: what the pages before have shown, so that nothing comes twice whatever changed meanwhile.
//!
//! It is good for one request of one release only, which it names: that one answers all pages, as long as it is loaded, and
//! when it is gone the token has expired. It holds no secret and is not signed: whoever forges one
//! leaves items out of their own answer.

use std::hash::{Hash, Hasher};

use twox_hash::XxHash3_64;

use super::EngineError;
use super::request::Request;
use super::shelf::{Scope, sorted};
use crate::store::item_hash;

const VERSION: u8 = 1;
/// Version, fingerprint, request, number of nodes.
const FIXED_BYTES: usize = 1 + 8 + 8 + 4;
const CHECKSUM_BYTES: usize = 4;
/// Items of all pages together. 2,000: nobody scrolls further, and the token is 11 kB by then.
pub(super) const MOST_SHOWN: usize = 2_000;
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The token of the page after these picks, ascending; `None` when there were too many already.
pub(super) fn write(scope: &Scope, request: &Request, shown: &[u32]) -> Option<String> {
    if shown.len() > MOST_SHOWN {
        return None;
    }
    let (nodes, added) = shown.split_at(shown.partition_point(|&pick| pick < scope.nodes()));
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&scope.shelf.index.fingerprint().to_le_bytes());
    bytes.extend_from_slice(&shape(request).to_le_bytes());
    bytes.extend_from_slice(&(nodes.len() as u32).to_le_bytes());
    nodes.iter().for_each(|node| bytes.extend_from_slice(&node.to_le_bytes()));
    // places of added items change, hashes do not
    added.iter().for_each(|&pick| bytes.extend_from_slice(&item_hash(scope.id(pick)).to_le_bytes()));
    bytes.extend_from_slice(&(XxHash3_64::oneshot(&bytes) as u32).to_le_bytes());
    Some(to_text(&bytes))
}

/// The fingerprint of the release that a token names, as far as that can be told.
pub(super) fn release_of(token: &str) -> Option<u64> {
    const BEGINNING: usize = 12; // nine bytes: version, fingerprint
    let bytes = from_text(token.get(..BEGINNING)?)?;
    let (&[version], fingerprint) = bytes.split_first_chunk()?;
    (version == VERSION).then(|| fingerprint.try_into().ok().map(u64::from_le_bytes)).flatten()
}

/// The picks of the pages before this one, ascending.
pub(super) fn read(scope: &Scope, request: &Request, token: &str) -> Result<Vec<u32>, EngineError> {
    let damaged = EngineError::Page { why: "is damaged" };
    let longest = (FIXED_BYTES + 8 * MOST_SHOWN + CHECKSUM_BYTES) * 4 / 3 + 4;
    let Some(bytes) = (token.len() <= longest).then(|| from_text(token)).flatten() else { return Err(damaged) };
    let Some((body, &sum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else { return Err(damaged) };
    if u32::from_le_bytes(sum) != XxHash3_64::oneshot(body) as u32 {
        return Err(damaged);
    }
    let Some((&[version, fixed @ ..], rest)) = body.split_first_chunk::<FIXED_BYTES>() else { return Err(damaged) };
    let (fixed, []) = fixed.as_chunks::<4>() else { return Err(damaged) };
    let [r0, r1, s0, s1, nodes] = [0, 1, 2, 3, 4].map(|at| u64::from(u32::from_le_bytes(fixed[at])));
    if version != VERSION {
        return Err(EngineError::Page { why: "is of another version of this program" });
    }
    if r0 | r1 << 32 != scope.shelf.index.fingerprint() {
        return Err(EngineError::PageExpired { release: r0 | r1 << 32 });
    }
    if s0 | s1 << 32 != shape(request) {
        return Err(EngineError::Page { why: "belongs to another request" });
    }
    let split = (nodes as usize).checked_mul(4).and_then(|len| rest.split_at_checked(len));
    let Some((nodes, added)) = split else { return Err(damaged) };
    let nodes = nodes.as_chunks::<4>().0.iter().map(|&node| u32::from_le_bytes(node));
    // an item that was shown and replaced since is the same item
    let now = |node| scope.find_hash(item_hash(scope.id(node))).unwrap_or(node);
    let nodes = nodes.filter(|&node| node < scope.nodes()).map(now);
    let hashes = added.as_chunks::<8>().0.iter().map(|&hash| u64::from_le_bytes(hash));
    Ok(sorted(nodes.chain(hashes.filter_map(|hash| scope.find_hash(hash))).collect()))
}

/// What the pages of one request have in common: all but what moves with time, and how much is said about it.
fn shape(request: &Request) -> u64 {
    let Request { user, segment, k, filter, exclude_seen, diversity, mix, .. } = request;
    let mut hash = XxHash3_64::new();
    (user, segment, k, filter, exclude_seen).hash(&mut hash);
    let limits: Vec<(&str, usize)> = diversity.max_per.iter().map(|max| (&*max.field, max.count)).collect();
    (limits, diversity.mmr.map(|mmr| (mmr.lambda.to_bits(), mmr.candidates))).hash(&mut hash);
    let quotas: Vec<_> = mix.quotas.iter().map(|quota| (quota.source, quota.count)).collect();
    let pins: Vec<_> = mix.pins.iter().map(|pin| (pin.place, &pin.item)).collect();
    (quotas, pins).hash(&mut hash);
    hash.finish()
}

/// Base64 for addresses (RFC 4648, section 5), without padding.
fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4 / 3 + 3);
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|at| u32::from(chunk.get(at).copied().unwrap_or(0)));
        let bits = a << 16 | b << 8 | c;
        let digit = |at: usize| char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]);
        (0..=chunk.len()).for_each(|at| text.push(digit(at)));
    }
    text
}

fn from_text(text: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| {
        Some(match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        })
    };
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            bits = bits << 6 | u32::from(chunk.get(at).map_or(Some(0), |&digit| value(digit))?);
        }
        let len = chunk.len().checked_sub(1).filter(|&len| len > 0)?;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=len]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_back_from_text(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = to_text(&bytes);
            prop_assert!(text.bytes().all(|digit| DIGITS.contains(&digit)));
            prop_assert_eq!(from_text(&text).unwrap(), bytes);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = from_text(&text);
        }
    }
}
