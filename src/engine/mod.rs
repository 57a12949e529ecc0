//! One request to ranked items.
//!
//! An [`Engine`] joins an index with the user vectors of the same release, and refuses any others. A request goes
//! `user id → vector from the store → search → items`: items the user has seen never come back, tags filter inside the
//! search, and when the user is not known the popular items answer. Either `k` items come, or the answer says why not.

mod answer;
mod error;
pub mod evaluate;
pub mod items;
mod request;
pub mod users;

pub use answer::{Answer, Degraded, Explain, Item, Origin, Reason, Rung, Shortfall, Timings, Weighed};
pub use error::EngineError;
pub use request::{
    Blend, Diversity, Effort, Event, ItemFilter, MAX_EVENTS, MAX_K, MAX_LIST, MaxPer, Mix, Mmr, OwnedId, Pin, Quota,
    Request, ScoreRequest, SimilarRequest, Source,
};

use std::time::Instant;

use rayon::prelude::*;

use crate::catalog::{Index, QueryVector, TagFilter};
use crate::codec::Codec;
use crate::graph::{Filter, SearchOptions};
use crate::input::Id;
use crate::kv::Kv;
use crate::store::{StoreError, UserVectors};

/// An index and the users of its release.
#[derive(Debug)]
pub struct Engine<K> {
    index: Index,
    users: UserVectors<K>,
}

/// What the store had for requests, in their order.
#[derive(Debug)]
pub struct Resolved {
    records: Vec<Option<Vec<u8>>>,
    trouble: Option<Degraded>,
    resolve_ns: u64,
}

/// Which nodes may be answered to one request.
struct Eligible {
    bits: Option<(Vec<u64>, usize)>,
    /// Ascending.
    barred: Vec<u32>,
}

impl Eligible {
    fn filter(&self) -> Filter<'_> {
        Filter { bits: self.bits.as_ref().map(|(bits, passing)| (&bits[..], *passing)), exclude: &self.barred }
    }

    fn passes(&self, node: u32) -> bool {
        self.bits.as_ref().is_none_or(|(bits, _)| bits[node as usize / 64] >> (node % 64) & 1 == 1)
    }
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

    /// Answers requests, in order, with one round trip to the store. A request that cannot be meant is an error of its
    /// own; a store that fails is none: the answer comes from lower down the ladder and says so.
    pub async fn recommend(&self, requests: &[Request]) -> Vec<Result<Answer, EngineError>> {
        let resolved = self.resolve(requests).await;
        self.rank(requests, resolved)
    }

    /// The first half of [`recommend`](Self::recommend): all that is waited for.
    pub async fn resolve(&self, requests: &[Request]) -> Resolved {
        self.resolve_users(requests.iter().map(|request| request.user.as_ref())).await
    }

    /// The other half: all that is computed, to be run where waiting for it holds nobody up.
    pub fn rank(&self, requests: &[Request], resolved: Resolved) -> Vec<Result<Answer, EngineError>> {
        let Resolved { mut records, trouble, resolve_ns } = resolved;
        records.resize(requests.len(), None);
        let answer = |(request, record): (&Request, &Option<Vec<u8>>)| {
            let mut answer = self.answer(request, record.as_deref())?;
            answer.timings.resolve_ns = resolve_ns;
            answer.degraded.extend(trouble);
            Ok(answer)
        };
        match requests {
            [request] => vec![answer((request, &records[0]))],
            _ => requests.par_iter().zip(&records).map(answer).collect(),
        }
    }

    async fn resolve_users(&self, users: impl Iterator<Item = Option<&OwnedId>>) -> Resolved {
        let started = Instant::now();
        let users: Vec<Option<&OwnedId>> = users.collect();
        let asking: Vec<Id> = users.iter().flatten().map(|id| id.as_id()).collect();
        let (found, trouble) = match self.users.get(&asking).await {
            Ok(found) => (found, None),
            // removed to make room for its successor: until that is there, nobody is known
            Err(StoreError::Retired { .. }) => (Vec::new(), Some(Degraded::ReleaseRetired)),
            Err(StoreError::Kv(_)) => (Vec::new(), Some(Degraded::StoreFailed)),
            Err(_) => (Vec::new(), Some(Degraded::PageUnusable)),
        };
        let mut found = found.into_iter();
        let records = users.iter().map(|user| user.and_then(|_| found.next().flatten())).collect();
        Resolved { records, trouble, resolve_ns: started.elapsed().as_nanos() as u64 }
    }

    /// Answers one request.
    pub async fn recommend_one(&self, request: &Request) -> Result<Answer, EngineError> {
        let mut answers = self.recommend(std::slice::from_ref(request)).await;
        answers.pop().unwrap_or(Err(EngineError::K { got: 0 }))
    }

    /// Items like one item.
    pub fn similar(&self, request: &SimilarRequest) -> Result<Answer, EngineError> {
        request.check()?;
        let own = self.index.find(request.item.as_id());
        let own = own.ok_or_else(|| EngineError::UnknownItem { id: request.item.to_string() })?;
        let mut vector = vec![0.0; self.index.dim()];
        self.index.vector(own, &mut vector);
        let whole = Request {
            k: request.k,
            effort: request.effort,
            filter: request.filter.clone(),
            diversity: request.diversity.clone(),
            seen: vec![request.item.clone()],
            ..Request::default()
        };
        let mut answer = self.search(&whole, QueryVector::Floats(&vector))?;
        answer.vector.rung = Rung::Item;
        Ok(answer)
    }

    /// Given items, ranked for a user. Without a vector they come in the order given, scored 0.
    pub async fn score(&self, request: &ScoreRequest) -> Result<Answer, EngineError> {
        let resolved = self.resolve_score(request).await;
        self.rank_given(request, resolved)
    }

    /// The first half of [`score`](Self::score): all that is waited for.
    pub async fn resolve_score(&self, request: &ScoreRequest) -> Resolved {
        self.resolve_users(std::iter::once(request.user.as_ref())).await
    }

    /// The other half: all that is computed.
    pub fn rank_given(&self, request: &ScoreRequest, resolved: Resolved) -> Result<Answer, EngineError> {
        request.check()?;
        let record = resolved.records.into_iter().next().flatten();
        let mut nodes: Vec<u32> = request.items.iter().filter_map(|id| self.index.find(id.as_id())).collect();
        let mut met = std::collections::HashSet::new();
        nodes.retain(|node| met.insert(*node));
        let scores = match &record {
            Some(record) => self.index.scores(QueryVector::Record(self.users.manifest().codec, record), &nodes)?,
            None => vec![0.0; nodes.len()],
        };
        let mut items: Vec<Item> = nodes.iter().zip(scores).map(|(&node, score)| self.item(node, score)).collect();
        items.sort_by(|a, b| b.score.total_cmp(&a.score));
        let rung = if record.is_some() { Rung::Page } else { Rung::Popularity };
        let mut answer = self.answer_of(items, rung, request.items.len());
        answer.timings.resolve_ns = resolved.resolve_ns;
        answer.degraded.extend(resolved.trouble);
        Ok(answer)
    }

    fn answer(&self, request: &Request, record: Option<&[u8]>) -> Result<Answer, EngineError> {
        request.check()?;
        let codec: Codec = self.users.manifest().codec;
        match record {
            Some(record) => self.search(request, QueryVector::Record(codec, record)),
            None => self.by_popularity(request),
        }
    }

    fn search(&self, request: &Request, vector: QueryVector) -> Result<Answer, EngineError> {
        let profile = self.index.profile();
        let ef = match request.effort {
            Effort::Ef(ef) => ef,
            Effort::Recall(recall) => profile.ef_for(recall).map_or_else(|| profile.default_ef(), |ef| ef as usize),
            Effort::Default | Effort::Deadline(_) => profile.default_ef(),
        };
        let eligible = self.eligible(request)?;
        let options = SearchOptions { k: request.k, ef };
        let (hits, stats) = self.index.search(vector, options, eligible.filter())?;
        let items = hits.into_iter().map(|hit| self.item(hit.node, hit.score)).collect();
        let mut answer = self.answer_of(items, Rung::Page, request.k);
        (answer.ef, answer.distances) = (ef, stats.distances);
        answer.shortfall = self.shortfall(request, &eligible, answer.items.len(), None);
        Ok(answer)
    }

    fn by_popularity(&self, request: &Request) -> Result<Answer, EngineError> {
        let eligible = self.eligible(request)?;
        let allowed = |node: &u32| eligible.passes(*node) && eligible.barred.binary_search(node).is_err();
        let nodes = self.index.popular().iter().copied().filter(allowed).take(request.k);
        let items = nodes.map(|node| Item { source: Source::Popular, ..self.item(node, 0.0) }).collect();
        let mut answer = self.answer_of(items, Rung::Popularity, request.k);
        let none = self.index.popular().is_empty();
        let reason = if none { Reason::NoPopularity } else { Reason::Popularity };
        answer.shortfall = self.shortfall(request, &eligible, answer.items.len(), Some(reason));
        Ok(answer)
    }

    fn item(&self, node: u32, score: f32) -> Item {
        Item { id: self.index.id(node).into(), score, source: Source::Personal }
    }

    fn answer_of(&self, items: Vec<Item>, rung: Rung, requested: usize) -> Answer {
        Answer {
            items,
            release: self.index.meta().release.clone(),
            vector: Origin { rung, age: None },
            degraded: Vec::new(),
            requested,
            shortfall: None,
            ef: 0,
            distances: 0,
            cached: false,
            next: None,
            timings: Timings::default(),
            explain: None,
        }
    }

    fn eligible(&self, request: &Request) -> Result<Eligible, EngineError> {
        let ItemFilter { all, any, none, allow, deny } = &request.filter;
        let n = self.index.len();
        let mut bits: Option<Vec<u64>> = None;
        let mut narrow = |any: Vec<String>, none: Vec<String>| {
            let (more, _) = self.index.bits(&TagFilter { any, none })?;
            match &mut bits {
                Some(bits) => bits.iter_mut().zip(more).for_each(|(bits, more)| *bits &= more),
                None => bits = Some(more),
            }
            Ok::<(), EngineError>(())
        };
        if !none.is_empty() {
            narrow(Vec::new(), none.clone())?;
        }
        all.iter().try_for_each(|tag| narrow(vec![tag.clone()], Vec::new()))?;
        any.iter().try_for_each(|group| narrow(group.clone(), Vec::new()))?;
        let nodes = |ids: &[OwnedId]| {
            let mut nodes: Vec<u32> = ids.iter().filter_map(|id| self.index.find(id.as_id())).collect();
            nodes.sort_unstable();
            nodes.dedup();
            nodes
        };
        if let Some(allow) = allow {
            let mut allowed = vec![0; n.div_ceil(64)];
            nodes(allow).iter().for_each(|&node| allowed[node as usize / 64] |= 1 << (node % 64));
            match &mut bits {
                Some(bits) => bits.iter_mut().zip(allowed).for_each(|(bits, more)| *bits &= more),
                None => bits = Some(allowed),
            }
        }
        for &node in &nodes(deny) {
            bits.get_or_insert_with(|| full(n))[node as usize / 64] &= !(1 << (node % 64));
        }
        let count = |bits: Vec<u64>| {
            let passing = bits.iter().map(|word| word.count_ones() as usize).sum();
            (bits, passing)
        };
        Ok(Eligible { bits: bits.map(count), barred: nodes(&request.seen) })
    }

    fn shortfall(
        &self,
        request: &Request,
        eligible: &Eligible,
        returned: usize,
        otherwise: Option<Reason>,
    ) -> Option<Shortfall> {
        let (items, requested) = (self.index.len(), request.k);
        let passing = eligible.bits.as_ref().map_or(items, |(_, passing)| *passing);
        let unseen = passing - eligible.barred.iter().filter(|&&node| eligible.passes(node)).count();
        let first = [(items, Reason::Catalogue), (passing, Reason::Filter), (unseen, Reason::Seen)];
        let reason = first.into_iter().find(|(count, _)| *count < requested).map(|(_, reason)| reason);
        let reason = reason.filter(|_| returned == unseen).or(otherwise).or(reason)?;
        let short = Shortfall { reason, requested, returned, items, available: items, passing, unseen };
        (returned < requested).then_some(short)
    }
}

/// A bit for each of `n` nodes.
fn full(n: usize) -> Vec<u64> {
    let mut bits = vec![u64::MAX; n.div_ceil(64)];
    if let Some(last) = bits.last_mut().filter(|_| !n.is_multiple_of(64)) {
        *last &= (1 << (n % 64)) - 1;
    }
    bits
}
