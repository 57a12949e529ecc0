//! One request to ranked items.
//!
//! An [`Engine`] joins an index with the user vectors of the same release, and refuses any others. A request goes
//! `user id → vector from the store → search → items`: items the user has seen never come back, tags filter inside the
//! search, and when the user is not known the popular items answer. Either `k` items come, or the answer says why not.

mod error;
pub mod evaluate;
pub mod users;

pub use error::EngineError;

use rayon::prelude::*;

use crate::catalog::{Hit, Index, QueryVector, TagFilter};
use crate::codec::Codec;
use crate::graph::{Filter, SearchOptions};
use crate::input::Id;
use crate::kv::Kv;
use crate::store::{StoreError, UserVectors};

/// More items than this are refused: nobody reads them, and each costs.
pub const MAX_K: usize = 10_000;

/// An index and the users of its release.
#[derive(Debug)]
pub struct Engine<K> {
    index: Index,
    users: UserVectors<K>,
}

/// One user's part of a request.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub user: Id<'a>,
    /// Nodes that must not come back, ascending ([`Engine::seen`]).
    pub seen: Vec<u32>,
}

/// What is asked for, the same for all users of a request.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Items wanted, 1 to [`MAX_K`].
    pub k: usize,
    /// The effort ([`SearchOptions::ef`]); the index's own default when `None`.
    pub ef: Option<usize>,
    /// Which items may be answered.
    pub tags: TagFilter,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// The user's vector.
    Vector,
    /// The user is not known: the popular items.
    Popularity,
}

/// The items for one user.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Best first. The score of a popular item is 0: it was not compared with anything.
    pub items: Vec<Hit>,
    /// Where they came from.
    pub rung: Rung,
    /// Why there are fewer than asked for, when there are.
    pub short: Option<String>,
    /// Rows scored.
    pub distances: usize,
}

impl<K: Kv> Engine<K> {
    /// Joins an index with user vectors. Those of another release are refused, whatever their dimensions.
    pub fn new(index: Index, users: UserVectors<K>) -> Result<Self, EngineError> {
        let manifest = users.manifest();
        if manifest.fingerprint != index.fingerprint() {
            return Err(EngineError::MixedReleases {
                index: index.meta().release.clone(),
                expected: index.fingerprint(),
                users: manifest.name.clone(),
                got: manifest.fingerprint,
            });
        }
        if manifest.dim as usize != index.dim() {
            return Err(EngineError::Dimensions { expected: index.dim(), got: manifest.dim as usize });
        }
        Ok(Self { index, users })
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Nodes of item ids, as [`Ask::seen`] wants them. Ids that the index does not have are left out: they cannot come
    /// back anyway.
    pub fn seen<'a>(&self, items: impl IntoIterator<Item = Id<'a>>) -> Vec<u32> {
        let mut nodes: Vec<u32> = items.into_iter().filter_map(|id| self.index.find(id)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Answers for one or many users, in order, with one round trip to the store.
    pub async fn recommend(&self, asks: &[Ask<'_>], shape: &Shape) -> Result<Vec<Answer>, EngineError> {
        if !(1..=MAX_K).contains(&shape.k) {
            return Err(EngineError::K { got: shape.k });
        }
        let bits = if shape.tags.is_empty() { None } else { Some(self.index.bits(&shape.tags)?) };
        let bits = bits.as_ref().map(|(bits, passing)| (&bits[..], *passing));
        let ids: Vec<Id> = asks.iter().map(|ask| ask.user).collect();
        let records = match self.users.get(&ids).await {
            // removed to make room for its successor: until that is there, nobody is known
            Err(StoreError::Retired { .. }) => vec![None; ids.len()],
            records => records?,
        };
        let codec = self.users.manifest().codec;
        let answer = |(ask, record): (&Ask, &Option<Vec<u8>>)| match record {
            Some(record) => self.by_vector(codec, record, ask, shape, bits),
            None => Ok(self.by_popularity(ask, shape, bits)),
        };
        match asks {
            [ask] => Ok(vec![answer((ask, &records[0]))?]),
            _ => asks.par_iter().zip(&records).map(answer).collect(),
        }
    }

    fn by_vector(
        &self,
        codec: Codec,
        record: &[u8],
        ask: &Ask,
        shape: &Shape,
        bits: Option<(&[u64], usize)>,
    ) -> Result<Answer, EngineError> {
        let ef = shape.ef.unwrap_or_else(|| self.index.profile().default_ef());
        let options = SearchOptions { k: shape.k, ef };
        let filter = Filter { bits, exclude: &ask.seen };
        let (items, stats) = self.index.search(QueryVector::Record(codec, record), options, filter)?;
        let short = self.explain(&items, ask, shape, bits, "items");
        Ok(Answer { items, rung: Rung::Vector, short, distances: stats.distances })
    }

    fn by_popularity(&self, ask: &Ask, shape: &Shape, bits: Option<(&[u64], usize)>) -> Answer {
        let passes = |node: u32| bits.is_none_or(|(bits, _)| bits[node as usize / 64] >> (node % 64) & 1 == 1);
        let allowed = |node: &u32| passes(*node) && ask.seen.binary_search(node).is_err();
        let nodes = self.index.popular().iter().copied().filter(allowed).take(shape.k);
        let items: Vec<Hit> = nodes.map(|node| Hit { node, score: 0.0 }).collect();
        let what = if self.index.popular().is_empty() {
            "popular items (the index was built without --popularity)"
        } else {
            "popular items"
        };
        let short = self.explain(&items, ask, shape, bits, what);
        Answer { items, rung: Rung::Popularity, short, distances: 0 }
    }

    /// Why there are fewer items than asked for.
    fn explain(
        &self,
        items: &[Hit],
        ask: &Ask,
        shape: &Shape,
        bits: Option<(&[u64], usize)>,
        what: &str,
    ) -> Option<String> {
        let passing = bits.map_or(self.index.len(), |(_, passing)| passing);
        (items.len() < shape.k).then(|| {
            let (got, k, seen) = (items.len(), shape.k, ask.seen.len());
            format!(
                "{got} of {k}: no more {what} pass; {passing} of {} pass the tags, {seen} are seen",
                self.index.len()
            )
        })
    }
}
