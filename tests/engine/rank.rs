//! What an answer is made of: sources and places, limits by value, difference; items like an item; given items ranked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::support::embedded;
use crate::support::world::{DIM, ITEMS, RARE, USERS, World, rows, shape, tagged};
use tonnage::catalog::Index;
use tonnage::codec::{Codec, Metric};
use tonnage::engine::{
    Answer, Blend, Diversity, Effort, Engine, EngineError, EngineOptions, Event, ItemFilter, Live, MaxPer, Mix, Mmr,
    NewItem, OwnedId, Pace, Pin, Quota, Reason, Request, Rung, ScoreRequest, SimilarRequest, Source,
};
use tonnage::kv::EmbeddedKv;
use tonnage::store::EventKind;

async fn online(metric: Metric, codec: Codec) -> (World, Engine<EmbeddedKv>, tempfile::TempDir) {
    let (kv, folder) = embedded().await;
    let world = World::new(metric, codec);
    let engine = world.engine(&kv).await;
    (world, engine, folder)
}

fn item(row: u32) -> OwnedId {
    OwnedId::Text(format!("item-{row}").into())
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.items.iter().map(|item| item.id.to_string()).collect()
}

fn sources(answer: &Answer) -> Vec<Source> {
    answer.items.iter().map(|item| item.source).collect()
}

fn new_item(name: &str, vector: &[f32], tags: &[&str]) -> NewItem {
    let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
    NewItem { id: OwnedId::parse(name), tags, numbers: BTreeMap::new(), vector: vector.to_vec(), made_s: 0 }
}

#[tokio::test]
async fn quotas_are_met_and_items_say_where_they_are_from() {
    let (world, engine, _folder) = online(Metric::Dot, Codec::Int8).await;
    for at in 0..5 {
        let vector: Vec<f32> = world.items[at * DIM..][..DIM].iter().map(|x| x * 0.1).collect();
        engine.add_items(vec![new_item(&format!("new-{at}"), &vector, &[])]).unwrap();
    }
    let quota = |source, count| Quota { source, count };
    let quotas = vec![quota(Source::Session, 3), quota(Source::Popular, 4), quota(Source::New, 2)];
    let session = vec![Event { item: item(17), kind: EventKind::Click, age: Duration::ZERO }];
    let request = Request {
        mix: Mix { quotas, pins: vec![Pin { place: 0, item: item(200) }, Pin { place: 7, item: item(201) }] },
        session,
        seen: vec![item(399)],
        ..world.ask(3, &shape(20), &[])
    };
    let answer = engine.recommend_one(&request).await.unwrap();
    let of = |source| sources(&answer).iter().filter(|&&one| one == source).count();
    assert_eq!((answer.items.len(), of(Source::Pinned), of(Source::Session)), (20, 2, 3));
    assert_eq!((of(Source::Popular), of(Source::New), of(Source::Personal)), (4, 2, 9));
    assert_eq!((&answer.items[0].id, &answer.items[7].id), (&item(200), &item(201)));
    let got = ids(&answer);
    let unique: std::collections::HashSet<&String> = got.iter().collect();
    assert_eq!(unique.len(), 20);
    // the newest first, and popular items in their order
    let from = |source| answer.items.iter().filter(move |item| item.source == source).map(|item| item.id.to_string());
    assert_eq!(from(Source::New).collect::<Vec<_>>(), ["new-4", "new-3"]);
    let popular: Vec<String> = from(Source::Popular).collect();
    let order: Vec<u32> = popular.iter().map(|id| id[5..].parse().unwrap()).collect();
    assert!(order.is_sorted_by(|a, b| a > b) && !order.contains(&399), "{order:?}");
    // without a session its places are personal; a pin that is seen, hidden, unknown or denied gives its place away
    let pins = [(0, item(399)), (1, item(11)), (2, item(12)), (3, OwnedId::parse("none")), (4, item(200))];
    engine.live().set_available(&[(item(12), false)]).unwrap();
    let request = Request {
        mix: Mix { pins: pins.map(|(place, item)| Pin { place, item }).into(), ..request.mix.clone() },
        filter: ItemFilter { deny: vec![item(11)], ..ItemFilter::default() },
        session: Vec::new(),
        ..request
    };
    let answer = engine.recommend_one(&request).await.unwrap();
    let at = |place: usize| &answer.items[place];
    assert_eq!((answer.items.len(), at(4).source, &at(4).id), (20, Source::Pinned, &item(200)));
    assert!((0..4).all(|place| at(place).source == Source::Personal), "{:?}", sources(&answer));
    assert!([399, 11, 12].iter().all(|&row| !ids(&answer).contains(&item(row).to_string())));
    assert!(sources(&answer).iter().all(|&source| source != Source::Session));
}

#[tokio::test]
async fn limits_by_value_are_held_and_filled_up_to_from_whatever_is_left() {
    let (world, engine, _folder) = online(Metric::Dot, Codec::Int8).await;
    let limited = |k, count| Request {
        diversity: Diversity { max_per: vec![MaxPer { field: String::new(), count }], mmr: None },
        ..shape(k)
    };
    for user in 0..USERS {
        // tags: even or odd, and two items are rare as well; the greedy choice by exact scores
        let answer = engine.recommend_one(&world.ask(user, &limited(10, 5), &[])).await.unwrap();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut greedy = Vec::new();
        for row in world.best(user, ITEMS, |_| true) {
            let mut tags = vec![if row % 2 == 0 { "even" } else { "odd" }];
            tags.extend(RARE.contains(&row).then_some("rare"));
            if greedy.len() < 10 && tags.iter().all(|tag| counts.get(tag).copied().unwrap_or(0) < 5) {
                tags.iter().for_each(|tag| *counts.entry(tag).or_default() += 1);
                greedy.push(row);
            }
        }
        let got = rows(&answer);
        assert_eq!((got.len(), answer.shortfall), (10, None));
        assert_eq!(got.iter().filter(|&&row| row % 2 == 0).count(), 5);
        assert!(got.iter().filter(|row| greedy.contains(row)).count() >= 8, "{got:?} for {greedy:?}");
        // far more than the candidates in hand hold: both values are filled and then there is an end
        let answer = engine.recommend_one(&world.ask(user, &limited(100, 30), &[])).await.unwrap();
        assert_eq!((answer.items.len(), answer.shortfall.unwrap().reason), (60, Reason::Diversity));
    }
    let answer = engine.recommend_one(&limited(100, 30)).await.unwrap();
    assert_eq!((answer.items.len(), answer.vector.rung), (60, Rung::Popularity));
    // a field that nothing has limits nothing
    let none = Diversity { max_per: vec![MaxPer { field: "brand".to_owned(), count: 1 }], mmr: None };
    let answer = engine.recommend_one(&Request { diversity: none, ..world.ask(1, &shape(10), &[]) }).await.unwrap();
    assert_eq!(ids(&answer), ids(&engine.recommend_one(&world.ask(1, &shape(10), &[])).await.unwrap()));
}

#[tokio::test]
async fn relevance_and_difference_are_traded_as_asked() {
    let (world, engine, _folder) = online(Metric::Cosine, Codec::Int8).await;
    let answer = async |lambda: Option<f32>| {
        let mmr = lambda.map(|lambda| Mmr { lambda, candidates: 60 });
        let request = Request { diversity: Diversity { mmr, ..Diversity::default() }, ..world.ask(3, &shape(10), &[]) };
        engine.recommend_one(&request).await.unwrap()
    };
    let alike = |answer: &Answer| {
        let rows = rows(answer);
        let vector = |row: u32| &world.items[row as usize * DIM..][..DIM];
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        let cosine = |a: u32, b: u32| {
            let (a, b) = (vector(a), vector(b));
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let pairs = rows.iter().flat_map(|&a| rows.iter().filter(move |&&b| b != a).map(move |&b| (a, b)));
        pairs.map(|(a, b)| cosine(a, b)).sum::<f32>() / 90.0
    };
    let (plain, one, half) = (answer(None).await, answer(Some(1.0)).await, answer(Some(0.3)).await);
    assert_eq!(ids(&plain), ids(&one));
    assert_eq!(half.items[0], plain.items[0], "the best stays first");
    assert!(alike_or(&half, alike) < alike_or(&plain, alike) - 0.05);
    let sum = |answer: &Answer| answer.items.iter().map(|item| item.score).sum::<f32>();
    assert!(sum(&half) < sum(&plain));
    for (lambda, candidates) in [(0.5, 10), (0.5, 3), (1.5, 60), (f32::NAN, 60), (0.5, 2_001)] {
        let diversity = Diversity { mmr: Some(Mmr { lambda, candidates }), ..Diversity::default() };
        let error = engine.recommend_one(&Request { diversity, ..shape(10) }).await.unwrap_err();
        assert!(matches!(error, EngineError::Request { .. }), "{error}");
    }
}

/// As [`rows`], for an answer that difference has put out of order.
fn alike_or(answer: &Answer, alike: impl Fn(&Answer) -> f32) -> f32 {
    let mut ordered = answer.clone();
    ordered.items.sort_by(|a, b| b.score.total_cmp(&a.score));
    alike(&ordered)
}

#[tokio::test]
async fn items_like_an_item_are_those_that_score_best_by_its_vector() {
    for (metric, codec) in [(Metric::Dot, Codec::Int8), (Metric::Cosine, Codec::Int8), (Metric::L2, Codec::F32)] {
        let (world, engine, _folder) = online(metric, codec).await;
        let judge = World { users: world.items[..50 * DIM].to_vec(), ..World::new(metric, codec) };
        let mut hits = 0;
        for row in 0..50 {
            let request = SimilarRequest {
                item: item(row),
                k: 10,
                effort: Effort::Default,
                filter: ItemFilter::default(),
                diversity: Diversity::default(),
            };
            let answer = engine.similar(&request, Pace::now()).unwrap();
            let exact = judge.best(row as usize, 10, |other| other != row);
            let got = rows(&answer);
            assert!(!got.contains(&row) && got.len() == 10 && answer.vector.rung == Rung::Item);
            hits += got.iter().filter(|row| exact.contains(row)).count();
            let odd = ItemFilter { all: vec!["odd".into()], ..ItemFilter::default() };
            let answer =
                engine.similar(&SimilarRequest { filter: odd, k: 300, ..request.clone() }, Pace::now()).unwrap();
            let left = if row % 2 == 1 { 199 } else { 200 };
            assert!(rows(&answer).iter().all(|other| other % 2 == 1 && *other != row));
            assert_eq!((answer.items.len(), answer.shortfall.unwrap().reason), (left, Reason::Filter));
        }
        assert!(hits >= 475, "{metric}: {hits} of 500");
        let request = SimilarRequest {
            item: OwnedId::parse("nothing"),
            k: 10,
            effort: Effort::Default,
            filter: ItemFilter::default(),
            diversity: Diversity::default(),
        };
        assert!(matches!(engine.similar(&request, Pace::now()), Err(EngineError::UnknownItem { .. })));
    }
}

#[tokio::test]
async fn given_items_are_ranked_by_the_users_vector() {
    for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
        let (world, engine, _folder) = online(metric, Codec::F32).await;
        engine.add_items(vec![new_item("new", &world.items[5 * DIM..6 * DIM], &[])]).unwrap();
        for user in 0..20 {
            let given: Vec<u32> = (0..40).map(|at| (at * 7 + user as u32) % ITEMS as u32).collect();
            let mut items: Vec<OwnedId> = given.iter().map(|&row| item(row)).collect();
            items.extend([item(given[3]), OwnedId::parse("nothing")]);
            let user_id = Some(OwnedId::parse(&world.user_names[user]));
            let answer = engine.score(&ScoreRequest { user: user_id, items, ..ScoreRequest::default() }).await.unwrap();
            assert_eq!((answer.vector.rung, answer.requested), (Rung::Page, 42));
            let exact = world.best(user, ITEMS, |row| given.contains(&row));
            let got = rows(&answer);
            assert_eq!(got.len(), 40);
            for (item, row) in answer.items.iter().zip(&got) {
                let off = (f64::from(item.score) - world.score(user, *row as usize)).abs();
                assert!(off < 0.05 * (1.0 + world.score(user, *row as usize).abs()), "{metric}: {off}");
            }
            assert!(got.iter().zip(&exact).filter(|(a, b)| a == b).count() >= 30, "{got:?} for {exact:?}");
        }
        // what was added scores as the item that it is a copy of; nobody's items come as they were given
        let items = vec![OwnedId::parse("new"), item(5), item(6)];
        let user = Some(OwnedId::parse(&world.user_names[1]));
        let scored = ScoreRequest { user, items: items.clone(), ..ScoreRequest::default() };
        let answer = engine.score(&scored).await.unwrap();
        let score = |name: &str| answer.items.iter().find(|item| item.id.to_string() == name).unwrap().score;
        assert!((score("new") - score("item-5")).abs() < 1e-3);
        let answer = engine.score(&ScoreRequest { items, ..ScoreRequest::default() }).await.unwrap();
        assert_eq!(ids(&answer), ["new", "item-5", "item-6"]);
        assert_eq!((answer.vector.rung, answer.items[0].score), (Rung::Popularity, 0.0));
    }
}

#[tokio::test]
async fn people_like_a_person_come_from_an_index_of_users() {
    // users as items, and as the users who ask
    let world = World::new(Metric::Cosine, Codec::Int8);
    let people = World { items: world.users.clone(), item_names: world.user_names.clone(), ..world };
    let (kv, _folder) = embedded().await;
    crate::support::vectors::write_npy(&people.path("people.npy"), &people.users, DIM);
    let vectors = tonnage::input::Vectors::open(&people.path("people.npy")).unwrap();
    let ids = tonnage::input::Ids::Text(people.user_names.iter().collect());
    let spec =
        tonnage::catalog::BuildSpec { ids: Some(&ids), ..tonnage::catalog::BuildSpec::new(&vectors, Metric::Cosine) };
    tonnage::catalog::build(&spec, &people.path("people.tng"), &|_| ()).unwrap();
    let engine = people.engine_of(&kv, "people.tng", Codec::Int8).await;
    let request = Request { seen: vec![OwnedId::parse("user-3")], ..people.ask(3, &shape(5), &[]) };
    let near = engine.recommend_one(&request).await.unwrap();
    let like = SimilarRequest {
        item: OwnedId::parse("user-3"),
        k: 5,
        effort: Effort::Default,
        filter: ItemFilter::default(),
        diversity: Diversity::default(),
    };
    let alike = engine.similar(&like, Pace::now()).unwrap();
    assert_eq!(near.items.len(), 5);
    assert!(self::ids(&near).iter().filter(|id| self::ids(&alike).contains(id)).count() >= 4);
    assert!(!self::ids(&near).contains(&"user-3".to_owned()));
}

#[tokio::test]
async fn more_effort_scores_more_rows_and_a_deadline_decides_by_time() {
    let (world, engine, _folder) = online(Metric::Dot, Codec::Int8).await;
    let ef = async |effort: Effort| {
        let request = Request { effort, ..world.ask(1, &shape(10), &[]) };
        engine.recommend_one(&request).await.unwrap().ef
    };
    let profile = engine.index().profile();
    let (least, most) = (profile.rungs[0].ef as usize, profile.rungs.last().unwrap().ef as usize);
    assert_eq!(ef(Effort::Default).await, profile.default_ef());
    assert_eq!(ef(Effort::Ef(33)).await, 33);
    assert_eq!(ef(Effort::Recall(1e-9)).await, least);
    assert_eq!(ef(Effort::Deadline(Duration::ZERO)).await, least);
    assert_eq!(ef(Effort::Deadline(Duration::from_hours(1))).await, most);
    for effort in [Effort::Ef(0), Effort::Recall(0.0), Effort::Recall(f64::NAN), Effort::Recall(1.1)] {
        let error = engine.recommend_one(&Request { effort, ..shape(3) }).await.unwrap_err();
        assert!(matches!(error, EngineError::Request { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_and_says_what_would_do() {
    let (_, engine, _folder) = online(Metric::Dot, Codec::Int8).await;
    let blend = |blend: Blend| Request { blend, ..shape(3) };
    let with_mix = |quotas: &[(Source, usize)], pins: &[usize]| {
        let quotas = quotas.iter().map(|&(source, count)| Quota { source, count }).collect();
        let pins = pins.iter().map(|&place| Pin { place, item: item(1) }).collect();
        Request { mix: Mix { quotas, pins }, ..shape(3) }
    };
    let max_per = |count| Diversity { max_per: vec![MaxPer { field: "f".to_owned(), count }], mmr: None };
    let bad = [
        blend(Blend { inertia: f32::NAN, ..Blend::default() }),
        blend(Blend { half_life: Duration::ZERO, ..Blend::default() }),
        blend(Blend { most_share: 1.5, ..Blend::default() }),
        blend(Blend { weights: [f32::INFINITY; 6], ..Blend::default() }),
        with_mix(&[(Source::Popular, 2), (Source::Popular, 1)], &[]),
        with_mix(&[(Source::Popular, 4)], &[]),
        with_mix(&[(Source::Popular, usize::MAX), (Source::New, usize::MAX)], &[]),
        with_mix(&[(Source::Pinned, 1)], &[]),
        with_mix(&[], &[3]),
        with_mix(&[], &[1, 1]),
        Request { diversity: max_per(0), ..shape(3) },
        Request { filter: ItemFilter { any: vec![vec![]], ..ItemFilter::default() }, ..shape(3) },
        Request { user: Some(OwnedId::Text("".into())), ..shape(3) },
        Request { user: Some(OwnedId::Text("x".repeat(2_000).into())), ..shape(3) },
        Request { segment: Some(String::new()), ..shape(3) },
    ];
    for request in bad {
        let error = engine.recommend_one(&request).await.unwrap_err();
        assert!(matches!(error, EngineError::Request { .. }), "{error}");
        assert!(error.to_string().contains("expected"), "{error}");
    }
    assert!(engine.recommend_one(&tagged(3, &["even"], &[])).await.is_ok());
}

#[tokio::test]
async fn what_was_found_before_serves_the_next_page_and_narrower_filters() {
    let (world, plain, _folder) = online(Metric::Dot, Codec::Int8).await;
    let options = EngineOptions { cache_bytes: 1 << 20, ..EngineOptions::default() };
    let open = || {
        let index = Index::open(plain.index().path()).unwrap();
        Engine::open(index, plain.users().clone(), options, Arc::new(Live::default())).unwrap()
    };
    let engine = open();
    let ask = async |engine: &Engine<EmbeddedKv>, request: &Request| engine.recommend_one(request).await.unwrap();
    let request = Request { effort: Effort::Ef(ITEMS), ..world.ask(3, &shape(10), &[]) };
    let first = ask(&engine, &request).await;
    assert!(!first.cached && first.distances > 0 && engine.cache_bytes() > 0);
    let again = ask(&engine, &request).await;
    assert_eq!((again.cached, again.distances, &again.items), (true, 0, &first.items));
    assert_eq!(again.items, ask(&plain, &request).await.items, "as without a cache");
    // the next pages, of which the first are there already
    let (mut page, mut unpaged) = (again, first.items.clone());
    for number in 2..=5 {
        let next = Request { page: page.next.clone(), ..request.clone() };
        page = ask(&engine, &next).await;
        assert!(page.cached, "page {number}");
        unpaged.extend(page.items.clone());
    }
    assert_eq!(unpaged, ask(&plain, &Request { k: 50, ..request.clone() }).await.items);
    // a filter that leaves enough of them
    let odd = Request { filter: tagged(1, &["odd"], &[]).filter, ..request.clone() };
    let answer = ask(&engine, &odd).await;
    assert_eq!((answer.cached, &answer.items), (true, &ask(&plain, &odd).await.items));
    // and one that does not
    let rare = Request { filter: tagged(1, &["rare"], &[]).filter, ..request.clone() };
    let answer = ask(&engine, &rare).await;
    assert_eq!((answer.cached, answer.items.len()), (false, 2));
    // whatever decides the candidates makes it another request
    engine
        .record(&OwnedId::parse("user-3"), &[Event { item: item(5), kind: EventKind::Click, age: Duration::ZERO }])
        .await
        .unwrap();
    assert!(!ask(&engine, &request).await.cached, "the session has moved");
    let seen = Request { seen: vec![item(7)], ..world.ask(4, &shape(10), &[]) };
    assert!(!ask(&engine, &seen).await.cached && ask(&engine, &seen).await.cached);
    assert!(!ask(&engine, &Request { seen: vec![item(8)], ..seen.clone() }).await.cached);
    assert!(!ask(&engine, &world.ask(5, &shape(10), &[])).await.cached, "another user");
    engine.live().set_available(&[(item(9), false)]).unwrap();
    assert!(!ask(&engine, &seen).await.cached, "an item is hidden");
}
