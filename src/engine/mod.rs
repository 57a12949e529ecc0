//! One request to ranked items.
//!
//! An [`Engine`] joins an index with the user vectors of the same release, and refuses any others. A request goes
//! `resolve → blend → search → mix → diversify → fill`: one round trip fetches all that the store has of the user, recent
//! events move the vector, the index is searched under filters and without what was seen, other sources join in, and
//! either `k` items come or the answer says why not, with numbers.
//!
//! The one thing to know: whatever fails behind a request, it is answered. The vector is the first of the ladder that
//! there is ([`Rung`]), and what was not as it should be is named in [`Answer::degraded`].

mod added;
mod answer;
mod blend;
mod cache;
mod diversify;
mod effort;
mod error;
mod fields;
mod fill;
mod filter;
pub mod items;
mod journal;
mod known;
mod live;
mod lock;
mod lookup;
mod mask;
mod mix;
mod pipeline;
mod quest;
mod request;
mod resolve;
mod shelf;
mod token;
pub mod users;

pub use answer::{Answer, Degraded, Explain, Item, Origin, Reason, Rung, Shortfall, Timings, Weighed};
pub use effort::Pace;
pub use error::EngineError;
pub use filter::{Clause, ItemFilter, MAX_RANGES, NumberRange};
pub use live::{Live, LiveOptions, NewItem};
pub use request::{
    Blend, Diversity, Effort, Event, MAX_EVENTS, MAX_K, MAX_LIST, MAX_MMR_CANDIDATES, MaxPer, Mix, Mmr, OwnedId, Pin,
    Quota, Request, ScoreRequest, SimilarRequest, Source,
};

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::catalog::{CatalogError, Index};
use crate::codec::Codec;
use crate::kv::Kv;
use crate::store::{
    Overlay, SessionOptions, StoredEvent, UserVectors, item_hash, now_s, put_overlays, put_segments, record_all_events,
};
use cache::Cache;
use effort::{Efforts, Speed};
use known::Known;
use pipeline::Run;
use resolve::{Asking, Resolver, UserSide};
use shelf::{Scope, Shelf};

/// How an engine answers.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// The most that is waited for the store; then the ladder goes on without it. 100 ms: whoever waits for a page
    /// notices no more, and a healthy store takes 1 ms.
    pub store_timeout: Duration,
    /// For bitmaps of filters. 64 MiB: five hundred of a million items.
    pub masks_bytes: usize,
    /// For the last vectors of users, which answer when the store does not. 64 MiB: 300,000 users of 64-d int8.
    pub known_bytes: usize,
    /// For candidates that were found before, which serve the next page and requests alike. Nothing: it pays where users
    /// turn pages, and 32 MiB hold the candidates of 70,000 requests.
    pub cache_bytes: usize,
    /// How long they are kept, about. A minute: the next page is asked for by then.
    pub cache_ttl: Duration,
    /// The `ef` of searches that ask for no effort; 0 for the profile's, which is 0: it was measured on this very index.
    pub ef: usize,
    /// Recall@10 that no [`Pace`] lowers the effort below, by the profile. 0.95: what is lost by then shows to few.
    pub recall_floor: f64,
    /// What of sessions and seen items is kept in the store.
    pub session: SessionOptions,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            store_timeout: Duration::from_millis(100),
            masks_bytes: 64 << 20,
            known_bytes: 64 << 20,
            cache_bytes: 0,
            cache_ttl: Duration::from_mins(1),
            ef: 0,
            recall_floor: 0.95,
            session: SessionOptions::default(),
        }
    }
}

/// An index and the users of its release; and while users move from one release to the next, those of the one before.
#[derive(Debug)]
pub struct Engine<K> {
    options: EngineOptions,
    served: Arc<Served<K>>,
    previous: Option<Arc<Served<K>>>,
    known: Arc<Known>,
    speed: Arc<Speed>,
    cache: Arc<Cache>,
    live: Arc<Live>,
}

/// One release: its index and its users.
#[derive(Debug)]
struct Served<K> {
    shelf: Arc<Shelf>,
    users: UserVectors<K>,
    efforts: Efforts,
}

/// What the store had for requests, in their order.
#[derive(Debug)]
pub struct Resolved {
    users: Vec<UserSide>,
    resolve_ns: u64,
}

impl<K: Kv> Served<K> {
    fn new(index: Index, users: UserVectors<K>, options: &EngineOptions, live: &Live) -> Result<Self, EngineError> {
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
        let efforts = Efforts::of(index.profile(), options.ef, options.recall_floor);
        Ok(Self { shelf: Shelf::new(index, options.masks_bytes, live)?, users, efforts })
    }
}

impl<K: Kv> Engine<K> {
    /// Joins an index with user vectors. Those of another release are refused, whatever their dimensions.
    pub fn new(index: Index, users: UserVectors<K>) -> Result<Self, EngineError> {
        Self::open(index, users, EngineOptions::default(), Arc::default())
    }

    /// The same, with options, and with what changed since the build.
    pub fn open(
        index: Index,
        users: UserVectors<K>,
        options: EngineOptions,
        live: Arc<Live>,
    ) -> Result<Self, EngineError> {
        let served = Arc::new(Served::new(index, users, &options, &live)?);
        let known = Arc::new(Known::new(options.known_bytes));
        let cache = Arc::new(Cache::new(options.cache_bytes, options.cache_ttl));
        Ok(Self { options, served, previous: None, known, speed: Arc::default(), cache, live })
    }

    /// The engine of the next release. This one's index goes on answering for those whose vector is still of its release,
    /// and what this one has learned is kept.
    pub fn succeed(&self, index: Index, users: UserVectors<K>) -> Result<Self, EngineError> {
        let served = Arc::new(Served::new(index, users, &self.options, &self.live)?);
        Ok(Self {
            options: self.options,
            served,
            previous: Some(Arc::clone(&self.served)),
            known: Arc::clone(&self.known),
            speed: Arc::clone(&self.speed),
            cache: Arc::clone(&self.cache),
            live: Arc::clone(&self.live),
        })
    }

    /// The same engine without the release before. What both have learned is one.
    #[must_use]
    pub fn without_previous(&self) -> Self {
        Self {
            options: self.options,
            served: Arc::clone(&self.served),
            previous: None,
            known: Arc::clone(&self.known),
            speed: Arc::clone(&self.speed),
            cache: Arc::clone(&self.cache),
            live: Arc::clone(&self.live),
        }
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.served.shelf.index
    }

    /// The users.
    pub fn users(&self) -> &UserVectors<K> {
        &self.served.users
    }

    /// The index of the release before, while it is loaded.
    pub fn previous_index(&self) -> Option<&Index> {
        self.previous.as_ref().map(|previous| &previous.shelf.index)
    }

    /// What changed since the build.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The `ef` of a search that asks for no effort.
    pub fn default_ef(&self) -> usize {
        self.served.efforts.most
    }

    /// Bytes of bitmaps that are kept.
    pub fn masks_bytes(&self) -> usize {
        self.served.shelf.masks_bytes()
    }

    /// Bytes of candidates that are kept.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Answers requests, in order, with one round trip to the store. A request that cannot be meant is an error of its
    /// own; a store that fails is none: the answer comes from lower down the ladder and says so.
    pub async fn recommend(&self, requests: &[Request]) -> Vec<Result<Answer, EngineError>> {
        let pace = Pace::now();
        let resolved = self.resolve(requests).await;
        self.rank(requests, resolved, pace)
    }

    /// The first half of [`recommend`](Self::recommend): all that is waited for.
    pub async fn resolve(&self, requests: &[Request]) -> Resolved {
        let asking = |request| match Request::check(request) {
            Ok(()) => Asking {
                user: request.user.as_ref(),
                segment: request.segment.as_deref(),
                list: request.mix.wants_list(),
                only: request.page.as_deref().and_then(token::release_of),
            },
            Err(_) => Asking::default(), // is refused by the other half
        };
        self.resolve_all(&requests.iter().map(asking).collect::<Vec<_>>()).await
    }

    /// The other half: all that is computed, to be run where waiting for it holds nobody up.
    pub fn rank(&self, requests: &[Request], resolved: Resolved, pace: Pace) -> Vec<Result<Answer, EngineError>> {
        let Resolved { mut users, resolve_ns } = resolved;
        users.resize(requests.len(), UserSide::default());
        let answer = |(request, user): (&Request, &UserSide)| {
            request.check()?;
            let (home, mut degraded) = self.home(user, request.page.as_deref().and_then(token::release_of));
            let mut answer = self.run(home, pace).recommend(request, user)?;
            answer.timings.resolve_ns = resolve_ns;
            answer.degraded.append(&mut degraded);
            Ok(answer)
        };
        match requests {
            [request] => vec![answer((request, &users[0]))],
            _ => requests.par_iter().zip(&users).map(answer).collect(),
        }
    }

    /// Answers one request.
    pub async fn recommend_one(&self, request: &Request) -> Result<Answer, EngineError> {
        let mut answers = self.recommend(std::slice::from_ref(request)).await;
        answers.pop().unwrap_or(Err(EngineError::K { got: 0 }))
    }

    /// Items like one item.
    pub fn similar(&self, request: &SimilarRequest, pace: Pace) -> Result<Answer, EngineError> {
        request.check()?;
        self.run(&self.served, pace).similar(request)
    }

    /// Given items, ranked for a user; those that there are not, or that are not available, are left out. Without a vector they come in the order
    /// given, scored 0.
    pub async fn score(&self, request: &ScoreRequest) -> Result<Answer, EngineError> {
        let resolved = self.resolve_score(request).await;
        self.rank_given(request, resolved)
    }

    /// The first half of [`score`](Self::score): all that is waited for.
    pub async fn resolve_score(&self, request: &ScoreRequest) -> Resolved {
        let asking = match request.check() {
            Ok(()) => {
                let (user, segment) = (request.user.as_ref(), request.segment.as_deref());
                Asking { user, segment, ..Asking::default() }
            }
            Err(_) => Asking::default(), // is refused by the other half
        };
        self.resolve_all(&[asking]).await
    }

    /// The other half: all that is computed.
    pub fn rank_given(&self, request: &ScoreRequest, resolved: Resolved) -> Result<Answer, EngineError> {
        request.check()?;
        let Resolved { mut users, resolve_ns } = resolved;
        let user = users.pop().unwrap_or_default();
        let (home, mut degraded) = self.home(&user, None);
        let run = self.run(home, Pace::now());
        let aim = run.aim(request.blend, &request.session, &user);
        let mut met = HashSet::new();
        let there = run.scope.eligible(&ItemFilter::default())?;
        let picks = request.items.iter().filter_map(|id| run.scope.find(id));
        let picks = picks.filter(|&pick| there.has(&run.scope, pick) && met.insert(pick));
        let mut answer = run.score(&picks.collect::<Vec<u32>>(), request.items.len(), &aim, &user)?;
        answer.timings.resolve_ns = resolve_ns;
        answer.degraded.append(&mut degraded);
        Ok(answer)
    }

    /// Records what a user did: in the session, and what counts as seen.
    pub async fn record(&self, user: &OwnedId, events: &[Event]) -> Result<(), EngineError> {
        self.record_all(vec![(user.clone(), events.to_vec())]).await.pop().unwrap_or(Ok(()))
    }

    /// The same of several users, each once and with an outcome of their own.
    pub async fn record_all(&self, users: Vec<(OwnedId, Vec<Event>)>) -> Vec<Result<(), EngineError>> {
        let now = now_s();
        let stored = |event: &Event| StoredEvent {
            item: item_hash(event.item.as_id()),
            kind: event.kind,
            at_s: now.saturating_sub(event.age.as_secs()),
        };
        let of_user = |(user, events): (OwnedId, Vec<Event>)| (user, events.iter().map(stored).collect());
        let events: Vec<(OwnedId, Vec<StoredEvent>)> = users.into_iter().map(of_user).collect();
        let home = &self.served.users;
        let recorded = {
            let events: Vec<_> = events.iter().map(|(user, events)| (user.as_id(), events.as_slice())).collect();
            record_all_events(home.kv(), home.ns(), &events, &self.options.session)
        };
        recorded.await.into_iter().map(|outcome| Ok(outcome?)).collect()
    }

    /// Lays a fresher vector over a user's page, for as long as `ttl`: one that the trainer of this release would give
    /// them now.
    pub async fn put_overlay(&self, user: &OwnedId, vector: &[f32], ttl: Duration) -> Result<(), EngineError> {
        let (overlay, users) = (self.overlay(vector)?, &self.served.users);
        Ok(put_overlays(users.kv(), users.ns(), &[(user.as_id(), overlay)], ttl).await?)
    }

    /// Sets the vector that answers for users of a segment who have none.
    pub async fn put_segment(&self, segment: &str, vector: &[f32]) -> Result<(), EngineError> {
        let (overlay, users) = (self.overlay(vector)?, &self.served.users);
        Ok(put_segments(users.kv(), users.ns(), &[(segment, overlay)]).await?)
    }

    /// Adds items to the index, or replaces items of it, until the next is built. Their vectors are of this engine's
    /// release: what is of another cannot be told by its numbers.
    pub fn add_items(&self, items: Vec<NewItem>) -> Result<(), EngineError> {
        let compared = |item: NewItem| {
            item.check_numbers()?;
            let vector = self.index().compared(crate::catalog::QueryVector::Floats(&item.vector))?;
            // what `f32` holds, `int8` does as well
            Codec::Int8.check(&vector).map_err(CatalogError::Query)?;
            let tags = item.tags.into_iter().collect::<BTreeSet<String>>().into_iter().collect();
            Ok(NewItem { tags, vector, ..item })
        };
        let items = items.into_iter().map(compared).collect::<Result<Vec<_>, EngineError>>()?;
        self.live.add(self.index().fingerprint(), items)
    }

    /// Takes items away until the next index is built without them.
    pub fn delete_items(&self, items: &[OwnedId]) -> Result<(), EngineError> {
        self.live.delete(self.index().fingerprint(), items)
    }

    fn overlay(&self, vector: &[f32]) -> Result<Overlay, EngineError> {
        let vector = self.index().compared(crate::catalog::QueryVector::Floats(vector))?;
        Ok(Overlay::encode(self.index().fingerprint(), self.served.users.manifest().codec, &vector)?)
    }

    async fn resolve_all(&self, asking: &[Asking<'_>]) -> Resolved {
        let started = Instant::now();
        let releases = std::iter::once(&self.served).chain(&self.previous).map(|served| &served.users);
        let releases: Vec<&UserVectors<K>> = releases.collect();
        let (items, timeout) = (self.index().len() as u32, self.options.store_timeout);
        let resolver = Resolver { releases: &releases, items, known: &self.known, timeout };
        let users = resolver.resolve(asking).await;
        Resolved { users, resolve_ns: started.elapsed().as_nanos() as u64 }
    }

    /// The release whose index can score what was found, or that gave the pages before: then what was found is of it.
    fn home(&self, user: &UserSide, before: Option<u64>) -> (&Served<K>, Vec<Degraded>) {
        let vector = user.vector.as_ref().or(user.segment.as_ref());
        let wanted = vector.map(|vector| vector.fingerprint).or(before);
        let is_of = |served: &&Arc<Served<K>>| wanted == Some(served.shelf.index.fingerprint());
        // two releases may be of one index: users were published again
        match self.previous.as_ref().filter(|previous| !is_of(&&self.served) && is_of(previous)) {
            Some(previous) => (previous, vec![Degraded::PreviousRelease]),
            None => (&self.served, Vec::new()),
        }
    }

    fn run<'a>(&'a self, served: &'a Served<K>, pace: Pace) -> Run<'a> {
        let scope: Scope<'a> = served.shelf.scope();
        let is_current = std::ptr::eq(served, &raw const *self.served);
        let others = std::iter::once(&self.served).chain(&self.previous);
        let others = others.filter(|other| !std::ptr::eq(&raw const ***other, served));
        let others = others.map(|other| other.shelf.scope()).collect();
        Run { scope, others, is_current, efforts: served.efforts, speed: &self.speed, cache: &self.cache, pace }
    }
}
