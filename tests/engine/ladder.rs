//! The ladder: which vector a request is ranked by, whatever the store has or does, and that the answer says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::double::{Between, Double};
use crate::support::world::{DIM, ITEMS, NS, USERS, World, rows, shape};
use crate::support::{RedisServer, embedded};
use tonnage::catalog::Index;
use tonnage::codec::{Codec, Metric};
use tonnage::engine::{
    Answer, Degraded, Engine, EngineError, EngineOptions, Event, ItemFilter, Live, NewItem, OwnedId, Reason, Request,
    Rung, ScoreRequest, Source,
};
use tonnage::input::Id;
use tonnage::kv::{EmbeddedKv, Kv, KvError};
use tonnage::store::{EventKind, Overlay, UserVectors, overlay_key, put_overlays, seen_key, segment_key, session_key};

/// What a store does instead of its work.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Well = 0,
    Failing = 1,
    Silent = 2,
}

/// The mood of a store, and how many reads requests have made of it.
#[derive(Clone, Default)]
struct Moods {
    mood: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl Moods {
    fn be(&self, mood: Mood) {
        self.mood.store(mood as usize, Ordering::Relaxed);
    }

    fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

impl Between for Moods {
    async fn before(&self) -> Result<(), KvError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        match self.mood.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(KvError::Refused { home: "here".into(), words: "LOADING".into() }),
            _ => std::future::pending().await,
        }
    }
}

type Moody = Double<EmbeddedKv, Moods>;

fn moody(kv: EmbeddedKv) -> Moody {
    Double { kv, between: Moods::default() }
}

/// A world whose store has moods, and the engine on it.
struct Stage {
    world: World,
    kv: Moody,
    engine: Engine<Moody>,
    _folder: tempfile::TempDir,
}

const HOUR: Duration = Duration::from_hours(1);

impl Stage {
    async fn new() -> Self {
        let (kv, folder) = embedded().await;
        let (world, kv) = (World::dot(), moody(kv));
        let engine = world.engine(&kv).await;
        kv.between.reads();
        Self { world, kv, engine, _folder: folder }
    }

    fn user(row: usize) -> OwnedId {
        OwnedId::Text(format!("user-{row}").into())
    }

    fn request(user: usize) -> Request {
        Request { user: Some(Self::user(user)), ..shape(10) }
    }

    async fn answer(&self, request: &Request) -> Answer {
        self.engine.recommend_one(request).await.unwrap()
    }

    fn vector(&self, user: usize) -> &[f32] {
        &self.world.users[user * DIM..][..DIM]
    }

    async fn damage(&self, key: Vec<u8>) {
        let mut value = self.kv.kv.get_many(std::slice::from_ref(&key)).await.unwrap().pop().flatten().unwrap();
        let middle = value.len() / 2;
        value[middle] ^= 1;
        self.kv.kv.set_many(vec![(key, value)], None).await.unwrap();
    }
}

fn event(row: u32, kind: EventKind) -> Event {
    Event { item: OwnedId::Text(format!("item-{row}").into()), kind, age: Duration::ZERO }
}

fn items(answer: &Answer) -> Vec<u32> {
    rows(answer)
}

#[tokio::test]
async fn each_rung_answers_when_those_above_it_are_not_there() {
    let stage = Stage::new().await;
    let stranger = |request: Request| Request { user: Some(OwnedId::parse("nobody")), ..request };
    // the user's page
    let page = stage.answer(&Stage::request(3)).await;
    assert_eq!((page.vector.rung, page.vector.age, &page.degraded), (Rung::Page, None, &vec![]));
    assert_eq!(page.items[0].source, Source::Personal);
    // over it, the vector of another user, as the fresher one
    stage.engine.put_overlay(&Stage::user(3), stage.vector(4), HOUR).await.unwrap();
    let overlay = stage.answer(&Stage::request(3)).await;
    assert_eq!(overlay.vector.rung, Rung::Overlay);
    assert!(overlay.vector.age.unwrap() < HOUR);
    assert_eq!(items(&overlay), items(&stage.answer(&Stage::request(4)).await));
    // no vector, but a session
    let session = vec![event(17, EventKind::Click), event(18, EventKind::Purchase)];
    let mean = stage.answer(&stranger(Request { session: session.clone(), ..shape(10) })).await;
    assert_eq!((mean.vector.rung, mean.items[0].source), (Rung::SessionMean, Source::Session));
    // no session, but a segment
    stage.engine.put_segment("new-users", stage.vector(5)).await.unwrap();
    let segment = Some("new-users".to_owned());
    let in_segment = stage.answer(&stranger(Request { segment: segment.clone(), ..shape(10) })).await;
    assert_eq!(in_segment.vector.rung, Rung::Segment);
    assert_eq!(items(&in_segment), items(&stage.answer(&Stage::request(5)).await));
    let both = stage.answer(&stranger(Request { segment, session, ..shape(10) })).await;
    assert_eq!(both.vector.rung, Rung::SessionMean, "a session is above a segment");
    // nothing
    let nothing = stage.answer(&stranger(shape(10))).await;
    assert_eq!((nothing.vector.rung, nothing.items[0].source), (Rung::Popularity, Source::Popular));
    assert_eq!(stage.answer(&shape(10)).await.items, nothing.items, "nobody is a stranger too");
    for answer in [page, overlay, mean, in_segment, both, nothing] {
        assert_eq!((answer.items.len(), answer.shortfall, answer.degraded), (10, None, vec![]));
    }
}

#[tokio::test]
async fn whatever_the_store_has_of_all_users_of_a_batch_is_one_read() {
    let stage = Stage::new().await;
    stage.engine.put_overlay(&Stage::user(1), stage.vector(2), HOUR).await.unwrap();
    stage.engine.record(&Stage::user(2), &[event(9, EventKind::Click)]).await.unwrap();
    stage.kv.between.reads();
    let requests: Vec<Request> =
        (0..20).map(|user| Request { segment: Some("s".to_owned()), ..Stage::request(user) }).collect();
    let answers = stage.engine.recommend(&requests).await;
    assert_eq!(stage.kv.between.reads(), 1);
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.items.len() == 10)));
    stage.answer(&shape(10)).await;
    assert_eq!(stage.kv.between.reads(), 0, "of nobody there is nothing to read");
}

#[tokio::test]
async fn a_store_that_fails_or_is_silent_is_answered_from_memory_and_said() {
    let stage = Stage::new().await;
    let options = EngineOptions { store_timeout: Duration::from_millis(50), ..EngineOptions::default() };
    let open = async || {
        let index = Index::open(stage.engine.index().path()).unwrap();
        let users = UserVectors::open(stage.kv.clone(), NS).await.unwrap();
        Engine::open(index, users, options, Arc::new(Live::default())).unwrap()
    };
    let engine = open().await;
    let well = engine.recommend_one(&Stage::request(3)).await.unwrap();
    let other = engine.recommend_one(&Stage::request(4)).await.unwrap();
    for (mood, says) in [(Mood::Failing, Degraded::StoreFailed), (Mood::Silent, Degraded::StoreSlow)] {
        stage.kv.between.be(mood);
        // those whom this process has met, each by their own vector
        for (user, before) in [(3, &well), (4, &other)] {
            let answer = engine.recommend_one(&Stage::request(user)).await.unwrap();
            assert_eq!((answer.vector.rung, &answer.degraded), (Rung::LastKnown, &vec![says]), "{mood:?}");
            assert_eq!(answer.items, before.items);
        }
        // and those whom it has not
        let answer = engine.recommend_one(&Stage::request(50)).await.unwrap();
        assert_eq!((answer.vector.rung, answer.items.len()), (Rung::Popularity, 10));
        assert_eq!(answer.degraded, [says]);
        let session = vec![event(17, EventKind::Click)];
        let answer = engine.recommend_one(&Request { session, ..Stage::request(50) }).await.unwrap();
        assert_eq!((answer.vector.rung, answer.degraded), (Rung::SessionMean, vec![says]));
        let request = ScoreRequest {
            user: Some(Stage::user(3)),
            items: vec![OwnedId::parse("item-1")],
            ..ScoreRequest::default()
        };
        assert_eq!(engine.score(&request).await.unwrap().vector.rung, Rung::LastKnown);
        stage.kv.between.be(Mood::Well);
        let answer = engine.recommend_one(&Stage::request(3)).await.unwrap();
        assert_eq!((answer.vector.rung, answer.degraded), (Rung::Page, vec![]), "and back again");
    }
}

#[tokio::test]
async fn keys_of_another_type_are_the_trouble_of_their_users_alone() {
    let server = RedisServer::start(&[]);
    let (world, kv) = (World::dot(), server.connect().await);
    let first = world.engine(&kv).await;
    let options = EngineOptions { store_timeout: Duration::from_mins(1), ..EngineOptions::default() };
    let (index, users) = (Index::open(first.index().path()).unwrap(), first.users().clone());
    let engine = Engine::open(index, users, options, Arc::new(Live::default())).unwrap();
    let own = |user: usize, key: fn(&str, Id) -> Vec<u8>| key(NS, Stage::user(user).as_id());
    let page = engine.users().range(Stage::user(0).as_id()).unwrap().key;
    for key in [own(1, overlay_key), own(2, session_key), own(3, seen_key), segment_key(NS, "odd")] {
        server.say(&format!("HSET {} field value", String::from_utf8(key).unwrap())).unwrap();
    }
    let requests: Vec<Request> = (0..USERS).map(Stage::request).collect();
    let segment = Request { segment: Some("odd".to_owned()), ..Stage::request(9) };
    let expected =
        [vec![], vec![Degraded::OverlayDamaged], vec![Degraded::SessionDamaged], vec![Degraded::SeenDamaged]];
    let batch: Vec<Request> = requests.iter().cloned().chain([segment]).collect();
    let well: Vec<Answer> = engine.recommend(&batch).await.into_iter().map(Result::unwrap).collect();
    for (user, answer) in well.iter().enumerate() {
        let says = if user == USERS {
            vec![Degraded::SegmentUnusable]
        } else {
            expected.get(user).cloned().unwrap_or_default()
        };
        assert_eq!((answer.vector.rung, &answer.degraded), (Rung::Page, &says), "{user}");
    }
    // a page takes its own users down, to what this process has seen of them, and nobody else
    server.say(&format!("DEL {}", String::from_utf8(page.clone()).unwrap())).unwrap();
    server.say(&format!("HSET {} field value", String::from_utf8(page.clone()).unwrap())).unwrap();
    engine.put_overlay(&Stage::user(0), &world.users[..DIM], HOUR).await.unwrap();
    let after: Vec<Answer> = engine.recommend(&requests).await.into_iter().map(Result::unwrap).collect();
    let mut lost = 0;
    for (user, (answer, well)) in after.iter().zip(&well).enumerate().skip(4) {
        if engine.users().range(Stage::user(user).as_id()).unwrap().key == page {
            assert_eq!(
                (answer.vector.rung, &answer.degraded),
                (Rung::LastKnown, &vec![Degraded::PageUnusable]),
                "{user}"
            );
            lost += 1;
        } else {
            assert_eq!((answer.vector.rung, &answer.degraded), (Rung::Page, &vec![]), "{user}");
        }
        assert_eq!(answer.items, well.items, "{user}");
    }
    assert!(lost > 0);
    assert_eq!((after[0].vector.rung, &after[0].degraded), (Rung::Overlay, &vec![]), "nobody asks for its page");
}

#[tokio::test]
async fn what_is_damaged_or_under_anothers_key_is_not_used_and_said() {
    let stage = Stage::new().await;
    let user = Stage::user(3);
    let well = stage.answer(&Stage::request(3)).await;
    stage.engine.put_overlay(&user, stage.vector(4), HOUR).await.unwrap();
    stage.engine.record(&user, &[event(9, EventKind::Click)]).await.unwrap();
    for key in [overlay_key(NS, user.as_id()), session_key(NS, user.as_id()), seen_key(NS, user.as_id())] {
        stage.damage(key).await;
    }
    let answer = stage.answer(&Stage::request(3)).await;
    assert_eq!(answer.degraded, [Degraded::OverlayDamaged, Degraded::SessionDamaged, Degraded::SeenDamaged]);
    assert_eq!((answer.vector.rung, &answer.items), (Rung::Page, &well.items));
    // the overlay of one user under the key of another
    stage.engine.put_overlay(&Stage::user(7), stage.vector(8), HOUR).await.unwrap();
    let stolen = stage.kv.kv.get_many(&[overlay_key(NS, Stage::user(7).as_id())]).await.unwrap().pop().flatten();
    let under = overlay_key(NS, Stage::user(3).as_id());
    stage.kv.kv.set_many(vec![(under, stolen.unwrap())], None).await.unwrap();
    let answer = stage.answer(&Stage::request(3)).await;
    assert_eq!((answer.vector.rung, answer.items), (Rung::Page, well.items));
    // an event repairs what is damaged
    stage.engine.record(&user, &[event(9, EventKind::Click)]).await.unwrap();
    assert_eq!(stage.answer(&Stage::request(3)).await.degraded, [Degraded::OverlayDamaged]);
}

#[tokio::test]
async fn a_page_that_is_gone_is_said_and_the_ladder_goes_on() {
    let stage = Stage::new().await;
    let manifest = stage.engine.users().manifest().clone();
    let keys: Vec<Vec<u8>> =
        (0..manifest.pages()).map(|page| format!("{NS}:{}:{page}", manifest.keys()).into_bytes()).collect();
    let known = stage.answer(&Stage::request(3)).await;
    stage.kv.kv.delete_many(&keys).await.unwrap();
    let answer = stage.answer(&Stage::request(50)).await;
    assert_eq!((answer.vector.rung, answer.degraded), (Rung::Popularity, vec![Degraded::PageUnusable]));
    let answer = stage.answer(&Stage::request(3)).await;
    assert_eq!((answer.vector.rung, answer.items), (Rung::LastKnown, known.items), "this one it had met");
}

#[tokio::test]
async fn a_vector_of_another_release_is_never_scored_unless_its_index_is_loaded() {
    let (kv, _folder) = embedded().await;
    let (world, kv) = (World::dot(), moody(kv));
    let old = world.engine(&kv).await;
    let before = old.recommend_one(&Stage::request(3)).await.unwrap();
    // the next release: other vectors, so another index, and only the first half of the users so far
    world.build("next.tng", Codec::Int8, 7, true);
    let next = world.engine_of(&kv, "next.tng", Codec::Int8).await;
    assert_ne!(next.index().fingerprint(), old.index().fingerprint());
    let of_old = Overlay::encode(old.index().fingerprint(), Codec::Int8, &world.users[4 * DIM..][..DIM]).unwrap();
    put_overlays(&kv, NS, &[(Id::Text("user-3"), of_old)], HOUR).await.unwrap();
    // alone, it does not take the overlay
    let answer = next.recommend_one(&Stage::request(3)).await.unwrap();
    assert_eq!((answer.vector.rung, &answer.degraded), (Rung::Page, &vec![Degraded::OverlayOfOtherRelease]));
    // beside the one before, that one's index answers
    let users = UserVectors::open(kv.clone(), NS).await.unwrap();
    let both = old.succeed(Index::open(next.index().path()).unwrap(), users).unwrap();
    let answer = both.recommend_one(&Stage::request(3)).await.unwrap();
    assert_eq!((answer.vector.rung, &answer.degraded), (Rung::Overlay, &vec![Degraded::PreviousRelease]));
    assert_eq!(items(&answer), items(&old.recommend_one(&Stage::request(4)).await.unwrap()));
    assert_eq!(answer.items.len(), before.items.len());
    let answer = both.recommend_one(&Stage::request(5)).await.unwrap();
    assert_eq!((answer.vector.rung, answer.degraded), (Rung::Page, vec![]), "all others by the new one");
    let alone = both.without_previous().recommend_one(&Stage::request(3)).await.unwrap();
    assert_eq!(alone.degraded, [Degraded::OverlayOfOtherRelease]);
    // of this release by its fingerprint, of another by its length
    let short = Overlay::encode(next.index().fingerprint(), Codec::Int8, &[1.0; 8]).unwrap();
    put_overlays(&kv, NS, &[(Id::Text("user-3"), short)], HOUR).await.unwrap();
    assert_eq!(next.recommend_one(&Stage::request(3)).await.unwrap().degraded, [Degraded::OverlayDamaged]);
}

/// An engine of the first release, and one of the next, which has half of its users, and of the first beside it.
async fn half_of_them_gone<K: Kv + Clone>(world: &mut World, kv: &K) -> (Engine<K>, Engine<K>) {
    let old = world.engine(kv).await;
    world.build("next.tng", Codec::Int8, 7, true);
    world.user_names.truncate(USERS / 2);
    world.users.truncate(USERS / 2 * DIM);
    crate::support::vectors::write_npy(&world.path("users.npy"), &world.users, DIM);
    let next = world.engine_of(kv, "next.tng", Codec::Int8).await;
    let users = UserVectors::open(kv.clone(), NS).await.unwrap();
    let both = old.succeed(Index::open(next.index().path()).unwrap(), users).unwrap();
    (old, both)
}

#[tokio::test]
async fn users_that_only_the_release_before_has_are_answered_by_its_index() {
    let (kv, _folder) = embedded().await;
    let (mut world, kv) = (World::dot(), moody(kv));
    let (old, both) = half_of_them_gone(&mut world, &kv).await;
    kv.between.reads();
    let answer = both.recommend_one(&Stage::request(USERS - 1)).await.unwrap();
    assert_eq!(kv.between.reads(), 1);
    assert_eq!((answer.vector.rung, &answer.degraded), (Rung::Page, &vec![Degraded::PreviousRelease]));
    assert_eq!(answer.items, old.recommend_one(&Stage::request(USERS - 1)).await.unwrap().items);
    let answer = both.recommend_one(&Stage::request(1)).await.unwrap();
    assert_eq!((answer.vector.rung, answer.degraded), (Rung::Page, vec![]));
}

#[tokio::test]
async fn pages_are_all_of_the_release_that_gave_the_first_until_it_is_gone() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let old = world.engine(&kv).await;
    world.build("next.tng", Codec::Int8, 7, true);
    let next = world.engine_of(&kv, "next.tng", Codec::Int8).await;
    let users = UserVectors::open(kv.clone(), NS).await.unwrap();
    let both = old.succeed(Index::open(next.index().path()).unwrap(), users).unwrap();
    let nobody = Request { user: None, ..Stage::request(3) };
    for request in [Stage::request(3), nobody] {
        let first = old.recommend_one(&request).await.unwrap();
        let more = Request { page: first.next.clone(), ..request.clone() };
        let expected = old.recommend_one(&more).await.unwrap();
        assert!(items(&expected).iter().all(|row| !items(&first).contains(row)));
        // the user has a vector of the next release by now, and an overlay as well
        next.put_overlay(&Stage::user(3), &world.users[4 * DIM..][..DIM], HOUR).await.unwrap();
        let second = both.recommend_one(&more).await.unwrap();
        assert_eq!((second.items, second.vector.rung), (expected.items, expected.vector.rung));
        assert!(second.degraded.contains(&Degraded::PreviousRelease), "{:?}", second.degraded);
        let third = both.recommend_one(&Request { page: second.next, ..request.clone() }).await.unwrap();
        assert!(items(&third).iter().all(|row| !items(&first).contains(row)));
        // whoever begins now begins with the next release
        assert!(!both.recommend_one(&request).await.unwrap().degraded.contains(&Degraded::PreviousRelease));
        let alone = both.without_previous().recommend_one(&more).await.unwrap_err();
        assert!(matches!(alone, EngineError::PageExpired { .. }), "{alone}");
    }
}

#[tokio::test]
async fn a_tag_that_either_release_knows_is_known_to_all_users() {
    let (kv, _folder) = embedded().await;
    let mut world = World::dot();
    let (old, both) = half_of_them_gone(&mut world, &kv).await;
    let fresh = NewItem {
        id: OwnedId::parse("fresh"),
        tags: vec!["new".to_owned()],
        numbers: std::collections::BTreeMap::new(),
        vector: world.items[..DIM].to_vec(),
        made_s: 0,
    };
    both.add_items(vec![fresh]).unwrap();
    // users at home in the release before, and in this one
    for user in [USERS - 1, 1] {
        let of = async |engine: &Engine<_>, tag: &str| {
            let filter = ItemFilter { all: vec![tag.into()], ..ItemFilter::default() };
            engine.recommend_one(&Request { filter, ..Stage::request(user) }).await
        };
        let unknown = of(&both, "nonsense").await.unwrap_err();
        assert!(unknown.to_string().contains("nonsense"), "{unknown}");
        let answer = of(&both, "new").await.unwrap();
        assert_eq!(answer.items.len(), usize::from(user == 1), "{:?}", answer.degraded);
        assert_eq!(answer.shortfall.unwrap().reason, Reason::Filter);
        // what was found for the filter is not remembered as known
        assert!(of(&old, "new").await.is_err());
    }
}

#[tokio::test]
async fn recorded_events_move_the_vector_and_do_not_come_back() {
    let stage = Stage::new().await;
    let before = stage.answer(&Stage::request(3)).await;
    let best: Vec<u32> = items(&before);
    let events: Vec<Event> = best[..3].iter().map(|&row| event(row, EventKind::Click)).collect();
    stage.engine.record(&Stage::user(3), &events).await.unwrap();
    stage.engine.record(&Stage::user(3), &[event(best[3], EventKind::View)]).await.unwrap();
    let answer = stage.answer(&Request { k: ITEMS - 3, explain: true, ..Stage::request(3) }).await;
    let got = items(&answer);
    assert!(best[..3].iter().all(|row| !got.contains(row)), "what was clicked is seen");
    assert!(got.contains(&best[3]), "what was merely shown is not");
    let explain = answer.explain.unwrap();
    assert_eq!(explain.events.len(), 4);
    assert!(explain.share > 0.0 && explain.drift > 0.0 && explain.candidates.len() >= 10);
    // asked not to leave them out, they come, and first: the session pulls towards them
    let again = stage.answer(&Request { exclude_seen: false, ..Stage::request(3) }).await;
    assert!(best[..3].iter().all(|row| items(&again).contains(row)), "{:?} of {best:?}", items(&again));
    // events of the request stand in for those of the store
    let request = Request { session: vec![event(best[9], EventKind::Like)], explain: true, ..Stage::request(3) };
    assert_eq!(stage.answer(&request).await.explain.unwrap().events.len(), 1);
}

#[tokio::test]
async fn long_histories_never_come_back() {
    let stage = Stage::new().await;
    let mut left: Vec<u32> = (0..ITEMS as u32).collect();
    // all but twelve, by the best first: most of them are in the compact set of older ones
    let all = stage.world.best(3, ITEMS, |_| true);
    let (seen, rest) = all.split_at(ITEMS - 12);
    left.retain(|row| rest.contains(row));
    let events: Vec<Event> = seen.iter().map(|&row| event(row, EventKind::Purchase)).collect();
    for events in events.chunks(50) {
        stage.engine.record(&Stage::user(3), events).await.unwrap();
    }
    let answer = stage.answer(&Stage::request(3)).await;
    let got = items(&answer);
    assert!(got.iter().all(|row| left.contains(row)), "{got:?}");
    // of 12, hardly one may be taken for seen wrongly
    assert!(got.len() == 10, "{:?}", answer.shortfall);
    let answer = stage.answer(&Request { k: 20, ..Stage::request(3) }).await;
    let short = answer.shortfall.unwrap();
    assert_eq!((short.returned, short.unseen, short.passing), (answer.items.len(), answer.items.len(), ITEMS));
    assert!(short.unseen >= 11 && short.unseen <= 12);
}

#[tokio::test]
async fn events_that_are_recorded_at_once_are_all_kept() {
    let server = crate::support::RedisServer::start(&[]);
    let world = World::dot();
    let kv = server.connect().await;
    let engine = world.engine(&kv).await;
    let record = |row: u32| {
        let (engine, user) = (&engine, Stage::user(1));
        async move { engine.record(&user, &[event(row, EventKind::Click)]).await }
    };
    // in pairs, as two devices of one user
    for row in 0..8 {
        let (a, b) = tokio::join!(record(2 * row), record(2 * row + 1));
        a.unwrap();
        b.unwrap();
    }
    let request = Request { user: Some(Stage::user(1)), explain: true, ..shape(10) };
    let answer = engine.recommend_one(&request).await.unwrap();
    assert_eq!(answer.explain.as_ref().unwrap().events.len(), 16);
    assert!(rows(&answer).iter().all(|&row| row >= 16));
}

#[tokio::test]
async fn a_session_mean_is_judged_by_hand_for_every_metric() {
    for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
        let (kv, _folder) = embedded().await;
        let world = World::new(metric, Codec::F32);
        let engine = world.engine(&kv).await;
        let session = vec![event(17, EventKind::Click), event(18, EventKind::Purchase)];
        let answer = engine.recommend_one(&Request { session, ..shape(10) }).await.unwrap();
        let item = |row: usize| &world.items[row * DIM..][..DIM];
        let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        let scale = |row: usize| if metric == Metric::L2 { 1.0 } else { 1.0 / norm(item(row)) };
        let mean: Vec<f32> =
            item(17).iter().zip(item(18)).map(|(a, b)| (a * scale(17) + 2.0 * b * scale(18)) / 3.0).collect();
        let judge = World { users: mean, ..World::new(metric, Codec::F32) };
        let exact = judge.best(0, 10, |_| true);
        let hits = rows(&answer).iter().filter(|row| exact.contains(row)).count();
        assert!(hits >= 9, "{metric}: {hits} of 10");
    }
}
