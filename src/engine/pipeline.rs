//! One request, once the store has answered: blend, search, mix, diversify, fill.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::EngineError;
use super::answer::{Answer, Degraded, Explain, Item, Origin, Reason, Rung, Timings, Weighed};
use super::blend::{Pull, blend, session_mean, weight};
use super::cache::{self, Cache};
use super::diversify::{Caps, mmr};
use super::effort::{Efforts, Load, Pace, Speed, ef_of};
use super::fill::{Chosen, Feed, Filling, Limits, fill, shortfall};
use super::filter::ItemFilter;
use super::mix::plan;
use super::quest::{Candidates, Found, Quest, Sought};
use super::request::{Blend, CANDIDATES_PER_ITEM, Effort, Event, Request, SimilarRequest, Source};
use super::resolve::{UserSide, UserVector};
use super::shelf::{Eligible, Scope, sorted};
use super::token;
use crate::catalog::QueryVector;
use crate::store::{EventKind, Seen, now_s};

/// What the stages of one request share.
pub(super) struct Run<'a> {
    pub scope: Scope<'a>,
    /// Of the other release that is loaded.
    pub others: Vec<Scope<'a>>,
    /// Whether it is the current release that answers, and not the one before.
    pub is_current: bool,
    pub efforts: Efforts,
    pub speed: &'a Speed,
    pub cache: &'a Cache,
    pub pace: Pace,
}

/// An event whose item there is.
#[derive(Clone, Copy, Debug)]
struct Happened {
    pick: u32,
    kind: EventKind,
    age: Duration,
}

/// What to rank by, and what led to it.
pub(super) struct Aim {
    rung: Rung,
    age: Option<Duration>,
    sought: Option<Sought>,
    session: Option<Sought>,
    listed: Vec<Found>,
    /// What of the store's could not be used.
    damaged: Vec<Degraded>,
    explain: Explain,
}

/// Picks that may not come, beside what the filter keeps out.
#[derive(Default)]
struct Barred {
    seen: Vec<u32>,
    /// On the pages before.
    shown: Vec<u32>,
    /// Both, and those that the filter denies.
    all: Vec<u32>,
}

impl Run<'_> {
    /// The answer to a request.
    pub fn recommend(&self, request: &Request, resolved: &UserSide) -> Result<Answer, EngineError> {
        let begun = Instant::now();
        let aim = self.aim(request.blend, &request.session, resolved);
        let blended = Instant::now();
        let eligible = self.eligible(&request.filter)?;
        let barred = self.barred(request, resolved)?;
        let older = Some(&resolved.seen).filter(|seen| request.exclude_seen && seen.is_longer());
        let (ef, eased) = self.ef(request.effort, request.searched(), &eligible, &barred);
        let quest = self.quest(&eligible, &barred, older, ef);
        let mut ranking = self.rank(request, &quest, &aim, &barred)?;
        let otherwise = match aim.rung {
            Rung::Popularity if self.scope.shelf.index.popular().is_empty() => Reason::NoPopularity,
            _ if !request.diversity.max_per.is_empty() => Reason::Diversity,
            _ => Reason::Popularity,
        };
        let limits = Limits { seen: &barred.seen, shown: &barred.shown, otherwise };
        let mut answer = self.answer(&ranking.chosen, aim.rung, request.k);
        answer.vector.age = aim.age;
        answer.degraded = resolved.degraded.iter().chain(&aim.damaged).copied().collect();
        answer.shortfall = shortfall(&quest, limits, request.k, ranking.chosen.len());
        if aim.sought.is_some() {
            answer.ef = ef;
            answer.degraded.extend(eased);
        }
        answer.distances = ranking.distances;
        answer.cached = ranking.cached;
        if ranking.chosen.len() == request.k {
            let shown = barred.shown.iter().copied().chain(ranking.chosen.iter().map(|chosen| chosen.pick)).collect();
            answer.next = token::write(&self.scope, request, &sorted(shown));
        }
        answer.timings = Timings {
            resolve_ns: 0,
            blend_ns: (blended - begun).as_nanos() as u64,
            search_ns: (ranking.searched - blended).as_nanos() as u64,
            rank_ns: ranking.searched.elapsed().as_nanos() as u64,
        };
        if request.explain {
            let source = source_of(aim.rung);
            ranking.candidates.truncate(Explain::MOST);
            let item = |&(pick, score): &Found| self.item(&Chosen { pick, score, source });
            let candidates = ranking.candidates.iter().map(item).collect();
            answer.explain = Some(Box::new(Explain { candidates, ..aim.explain }));
        }
        Ok(answer)
    }

    /// Items like one item.
    pub fn similar(&self, request: &SimilarRequest) -> Result<Answer, EngineError> {
        let own = self.scope.find(&request.item);
        let own = own.ok_or_else(|| EngineError::UnknownItem { id: request.item.to_string() })?;
        let mut eligible = self.eligible(&request.filter)?;
        eligible.denied = sorted(eligible.denied.into_iter().chain([own]).collect());
        let barred = Barred { all: eligible.denied.clone(), ..Barred::default() };
        let (k, filter, diversity) = (request.k, request.filter.clone(), request.diversity.clone());
        let whole = Request { k, filter, diversity, ..Request::default() };
        let (ef, eased) = self.ef(request.effort, whole.searched(), &eligible, &barred);
        let quest = self.quest(&eligible, &barred, None, ef);
        let sought = Some(Sought { vector: self.vector(own), record: None });
        let (listed, damaged, explain) = (Vec::new(), Vec::new(), Explain::default());
        let aim = Aim { rung: Rung::Item, age: None, sought, session: None, listed, damaged, explain };
        let begun = Instant::now();
        let ranking = self.rank(&whole, &quest, &aim, &barred)?;
        let mut answer = self.answer(&ranking.chosen, Rung::Item, request.k);
        let limits = Limits { seen: &[], shown: &[], otherwise: Reason::Diversity };
        answer.shortfall = shortfall(&quest, limits, request.k, ranking.chosen.len());
        (answer.ef, answer.distances) = (ef, ranking.distances);
        answer.degraded.extend(eased);
        answer.timings.search_ns = (ranking.searched - begun).as_nanos() as u64;
        answer.timings.rank_ns = ranking.searched.elapsed().as_nanos() as u64;
        Ok(answer)
    }

    /// Given items by their scores; in the order given, scored 0, where there is nothing to score by.
    pub fn score(&self, picks: &[u32], asked: usize, aim: &Aim, resolved: &UserSide) -> Result<Answer, EngineError> {
        let mut found: Vec<Found> = picks.iter().map(|&pick| (pick, 0.0)).collect();
        if let Some(sought) = &aim.sought {
            let index = &self.scope.shelf.index;
            let (of_nodes, added): (Vec<u32>, Vec<u32>) = picks.iter().partition(|&&pick| pick < self.scope.nodes());
            let scores = index.scores(QueryVector::Floats(&sought.vector), &of_nodes)?;
            let added = added.iter().map(|&pick| (pick, index.score_of(&sought.vector, &self.vector(pick))));
            found = of_nodes.iter().copied().zip(scores).chain(added).collect();
            found.sort_by(super::quest::by_score);
        }
        let source = source_of(aim.rung);
        let chosen: Vec<Chosen> = found.iter().map(|&(pick, score)| Chosen { pick, score, source }).collect();
        let mut answer = self.answer(&chosen, aim.rung, asked);
        answer.vector.age = aim.age;
        answer.degraded = resolved.degraded.iter().chain(&aim.damaged).copied().collect();
        answer.distances = if aim.sought.is_some() { chosen.len() } else { 0 };
        Ok(answer)
    }

    /// The ladder, from what the store had: overlay, page or what is remembered, the session's mean, the segment.
    pub fn aim(&self, options: Blend, session: &[Event], resolved: &UserSide) -> Aim {
        let happened = self.happened(session, resolved);
        let metric = self.scope.shelf.index.meta().metric;
        let vectors: Vec<Vec<f32>> = happened.iter().map(|event| self.vector(event.pick)).collect();
        let pull = |(event, item): (&Happened, _)| Pull { kind: event.kind, age: event.age, item };
        let pulls: Vec<Pull> = happened.iter().zip(vectors.iter().map(Vec::as_slice)).map(pull).collect();
        let mean = session_mean(metric, self.scope.shelf.index.dim(), &pulls, &options);
        let session = mean.map(|vector| Sought { vector, record: None });
        let weighed = |event: &Happened| Weighed {
            item: self.scope.id(event.pick).into(),
            kind: event.kind,
            age: event.age,
            weight: weight(&options, event.kind, event.age),
        };
        let explain = Explain { events: happened.iter().map(weighed).collect(), ..Explain::default() };
        // nodes of an index that does not answer are other items
        let current = self.is_current.then_some(&resolved.listed);
        let listed = current.into_iter().flatten().map(|item| (item.row, item.score)).collect();
        let (rung, damaged) = (Rung::Popularity, Vec::new());
        let mut aim = Aim { rung, age: None, sought: None, session, listed, damaged, explain };
        if let Some(user) = &resolved.vector
            && let Some(stored) = self.stored(user, &mut aim.damaged)
        {
            let blended = blend(metric, &stored.vector, &pulls, &options);
            let explain = Explain { share: blended.share, drift: blended.drift, ..aim.explain };
            let moved = Sought { vector: blended.vector, record: None };
            let sought = Some(if blended.share > 0.0 { moved } else { stored });
            return Aim { rung: user.rung, age: age(user), sought, explain, ..aim };
        }
        if aim.session.is_some() {
            return Aim { rung: Rung::SessionMean, sought: aim.session.clone(), ..aim };
        }
        if let Some(segment) = &resolved.segment
            && let Some(stored) = self.stored(segment, &mut aim.damaged)
        {
            return Aim { rung: segment.rung, age: age(segment), sought: Some(stored), ..aim };
        }
        aim
    }

    /// A slot of a page has no checksum of its own: what cannot be decoded is said, and the ladder goes on.
    fn stored(&self, user: &UserVector, damaged: &mut Vec<Degraded>) -> Option<Sought> {
        let record = QueryVector::Record(user.codec, &user.record);
        let Ok(vector) = self.scope.shelf.index.compared(record) else {
            damaged.push(match user.rung {
                Rung::Overlay => Degraded::OverlayDamaged,
                Rung::Segment => Degraded::SegmentUnusable,
                _ => Degraded::PageUnusable,
            });
            return None;
        };
        Some(Sought { vector, record: Some((user.codec, user.record.clone())) })
    }

    /// The events of the request, or of the stored session, whose items there are.
    fn happened(&self, session: &[Event], resolved: &UserSide) -> Vec<Happened> {
        let now = now_s();
        let stored = resolved.session.iter().filter(|_| session.is_empty()).filter_map(|event| {
            let age = Duration::from_secs(now.saturating_sub(event.at_s));
            self.scope.find_hash(event.item).map(|pick| Happened { pick, kind: event.kind, age })
        });
        let given = session.iter().filter_map(|event| {
            self.scope.find(&event.item).map(|pick| Happened { pick, kind: event.kind, age: event.age })
        });
        given.chain(stored).collect()
    }

    fn vector(&self, pick: u32) -> Vec<f32> {
        let mut vector = vec![0.0; self.scope.shelf.index.dim()];
        self.scope.vector(pick, &mut vector);
        vector
    }

    /// The `ef` of a search, and whether it is less than was asked for. One that was named is never lowered.
    fn ef(&self, effort: Effort, k: usize, eligible: &Eligible, barred: &Barred) -> (usize, Option<Degraded>) {
        let nodes = self.scope.nodes() as usize;
        let passing = eligible.nodes.as_ref().map_or(nodes, |passing| passing.nodes.passing);
        let load = Load { k, passing, added: eligible.added.passing, excluded: barred.all.len() };
        let index = (&self.scope.shelf.index, self.efforts.most);
        let ef = ef_of(effort, index, self.speed, load, self.pace.since.elapsed());
        let eased = if let Effort::Ef(_) = effort { ef } else { self.efforts.eased(ef, self.pace.level) };
        (eased, (eased < ef).then_some(Degraded::EffortLowered))
    }

    fn quest<'a>(
        &'a self,
        eligible: &'a Eligible,
        barred: &'a Barred,
        older: Option<&'a Seen>,
        ef: usize,
    ) -> Quest<'a> {
        Quest { scope: &self.scope, eligible, barred: &barred.all, older, ef, speed: self.speed }
    }

    /// What passes a filter. What a tag or field means does not depend on the release that answers: one that any knows is
    /// known, and the others have no items of it.
    fn eligible(&self, filter: &ItemFilter) -> Result<Eligible, EngineError> {
        for clause in filter.clauses() {
            if let Err(error) = self.scope.knows(clause)
                && self.others.iter().all(|other| other.knows(clause).is_err())
            {
                return Err(error.into());
            }
        }
        self.scope.eligible(filter)
    }

    fn barred(&self, request: &Request, resolved: &UserSide) -> Result<Barred, EngineError> {
        let mut seen = self.scope.find_all(&request.seen);
        if request.exclude_seen {
            seen.extend(self.scope.find_hashes(resolved.seen.recent()).flatten());
            seen = sorted(seen);
        }
        let shown = match &request.page {
            Some(page) => token::read(&self.scope, request, page)?,
            None => Vec::new(),
        };
        let denied = self.scope.find_all(&request.filter.deny);
        let all = sorted(seen.iter().chain(&shown).chain(&denied).copied().collect());
        Ok(Barred { seen, shown, all })
    }

    fn item(&self, chosen: &Chosen) -> Item {
        Item { id: self.scope.id(chosen.pick).into(), score: chosen.score, source: chosen.source }
    }

    fn answer(&self, chosen: &[Chosen], rung: Rung, requested: usize) -> Answer {
        self.scope.ask_ids(chosen.iter().map(|chosen| chosen.pick));
        Answer {
            items: chosen.iter().map(|chosen| self.item(chosen)).collect(),
            release: self.scope.shelf.index.meta().release.clone(),
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
}

/// What came of ranking.
struct Ranking {
    chosen: Vec<Chosen>,
    candidates: Vec<Found>,
    distances: usize,
    cached: bool,
    /// When the searches were done.
    searched: Instant,
}

impl Run<'_> {
    fn rank(&self, request: &Request, quest: &Quest, aim: &Aim, barred: &Barred) -> Result<Ranking, EngineError> {
        let Request { k, diversity, mix, .. } = request;
        let pins = self.pins(request, quest);
        let (claimed, want) = (mix.claimed(), request.wanted());
        let (mut distances, mut cached) = (0, false);
        let mut popular = quest.popular();
        let mut first = match &aim.sought {
            Some(sought) => {
                let found;
                (found, distances, cached) = self.candidates(request, quest, sought, request.searched(), barred)?;
                found
            }
            None => popular.by_ref().take(want).collect(),
        };
        let candidates = if request.explain { first.clone() } else { Vec::new() };
        let others = Self::others(request, quest, aim, claimed, &mut distances)?;
        let searched = Instant::now();
        if let Some(options) = diversity.mmr.filter(|_| aim.sought.is_some()) {
            let end = first.len().min(options.candidates);
            let mut best: Vec<Found> = first.drain(..end).collect();
            mmr(&self.scope, options, *k, &mut best);
            first.splice(0..0, best);
        }
        let mut feeds = vec![Feed::new(source_of(aim.rung), first)];
        feeds.extend(others);
        // popularity does not know what was added
        if aim.sought.is_none() && feeds.iter().all(|feed| feed.source != Source::New) {
            feeds.push(Feed::new(Source::New, quest.newest().collect()));
        }
        let plan: Vec<Source> = plan(mix, *k)
            .into_iter()
            .map(|source| if source == Source::Personal { source_of(aim.rung) } else { source })
            .collect();
        let caps = Caps::new(&self.scope, &diversity.max_per);
        let filling = Filling { plan: &plan, pins: &pins, feeds, caps };
        let chosen = fill(filling, |caps: &Caps, used: &HashSet<u32>| {
            let Some(sought) = &aim.sought else { return Ok(popular.by_ref().take(want).collect()) };
            // what is not among these is kept out by a limit; without limits there is nothing more
            if caps.is_empty() {
                return Ok(Vec::new());
            }
            let narrowed = caps.narrow(quest.eligible);
            let barred = sorted(quest.barred.iter().chain(used).copied().collect());
            let Candidates { found, distances: more, .. } =
                quest.best_within(sought, want, Some(&narrowed), &barred)?;
            distances += more;
            Ok(found)
        })?;
        Ok(Ranking { chosen, candidates, distances, cached, searched })
    }

    /// The best `want`, rows scored for them, and whether they were in the cache.
    fn candidates(
        &self,
        request: &Request,
        quest: &Quest,
        sought: &Sought,
        want: usize,
        barred: &Barred,
    ) -> Result<(Vec<Found>, usize, bool), EngineError> {
        let search = |want: usize, barred: &[u32]| quest.best_within(sought, want, None, barred);
        if !self.cache.is_on() {
            let Candidates { found, distances, .. } = search(want, quest.barred)?;
            return Ok((found, distances, false));
        }
        let key = |filter: &ItemFilter, denied: &[u32]| {
            let index = &self.scope.shelf.index;
            cache::key(|hash| {
                cache::put(hash, &(index.fingerprint(), self.scope.view.version, quest.ef));
                sought.vector.iter().for_each(|x| cache::put(hash, &x.to_bits()));
                cache::put(hash, &(filter, denied, &barred.seen, quest.older, sought.record.is_some()));
            })
        };
        let new = |candidates: &Candidates| -> Vec<Found> {
            candidates.found.iter().copied().filter(|&(pick, _)| quest.allows(pick)).take(want).collect()
        };
        // what was found without a filter serves any filter that leaves enough of it
        if !request.filter.is_empty()
            && let Some(unfiltered) = self.cache.peek(key(&ItemFilter::default(), &[]))
        {
            let found = new(&unfiltered);
            if found.len() == want || unfiltered.complete {
                return Ok((found, 0, true));
            }
        }
        let enough = want + barred.shown.len();
        // a quarter of ef is scored by the finer codec anyway, and is the next page
        let deep = enough.max(quest.ef / 4);
        let denied = &quest.eligible.denied;
        let of_all_pages = sorted(barred.seen.iter().chain(denied).copied().collect());
        let (candidates, hit) = self.cache.get(key(&request.filter, denied), enough, || search(deep, &of_all_pages))?;
        Ok((new(&candidates), if hit { 0 } else { candidates.distances }, hit))
    }

    /// Pins that may come, none twice.
    fn pins(&self, request: &Request, quest: &Quest) -> Vec<(usize, u32)> {
        let mut pins: Vec<(usize, u32)> = Vec::new();
        for pin in &request.mix.pins {
            let pick = self.scope.find(&pin.item).filter(|&pick| quest.allows(pick));
            if let Some(pick) = pick.filter(|pick| pins.iter().all(|(_, other)| other != pick)) {
                pins.push((pin.place, pick));
            }
        }
        pins
    }

    /// What the sources of the quotas have.
    fn others(
        request: &Request,
        quest: &Quest,
        aim: &Aim,
        claimed: usize,
        distances: &mut usize,
    ) -> Result<Vec<Feed>, EngineError> {
        let own = source_of(aim.rung);
        let mut feeds = Vec::new();
        for quota in request.mix.quotas.iter().filter(|quota| quota.count > 0 && quota.source != own) {
            // so many that what other sources took, and limits pass over, leaves enough
            let want = (request.k + claimed).saturating_mul(CANDIDATES_PER_ITEM);
            let items = match (quota.source, &aim.session) {
                (Source::Popular, _) => quest.popular().take(want).collect(),
                (Source::New, _) => quest.newest().take(want).collect(),
                (Source::List, _) => {
                    aim.listed.iter().copied().filter(|&(pick, _)| quest.allows(pick)).take(want).collect()
                }
                (Source::Session, Some(mean)) => {
                    let found = quest.best(mean, request.k + claimed)?;
                    *distances += found.distances;
                    found.found
                }
                _ => Vec::new(),
            };
            feeds.push(Feed::new(quota.source, items));
        }
        Ok(feeds)
    }
}

/// What an item is that was ranked by this.
fn source_of(rung: Rung) -> Source {
    match rung {
        Rung::SessionMean => Source::Session,
        Rung::Popularity => Source::Popular,
        _ => Source::Personal,
    }
}

fn age(vector: &UserVector) -> Option<Duration> {
    vector.made_s.map(|made| Duration::from_secs(now_s().saturating_sub(made)))
}
