//! A request from user id to items, on both homes, judged by an exhaustive computation.

use crate::support::releases::{Named, publish_as, spec};
use crate::support::vectors::{numbers, write_npy};
use crate::support::world::{DIM, ITEMS, NS, RARE, USERS, World, open, rows, shape, tagged};
use tonnage::catalog::{CatalogError, Index};
use tonnage::codec::{Codec, Metric};
use tonnage::engine::users::{Publication, UserSource, publish};
use tonnage::engine::{Answer, Engine, EngineError, MAX_K, OwnedId, Reason, Request, Rung, Source};
use tonnage::kv::Kv;
use tonnage::store::{ReleaseSpec, UserVectors, activate};

crate::on_both_homes!(
    answers_are_those_of_an_exhaustive_computation,
    seen_items_never_come_back,
    a_user_who_has_seen_all_but_three_gets_three_and_the_reason,
    only_items_that_pass_the_tags_come,
    a_tag_that_no_item_has_is_refused_with_examples,
    a_stranger_gets_popular_items_under_the_same_rules,
    a_stranger_to_an_index_without_popularity_gets_nothing_and_the_reason,
    k_out_of_range_is_refused,
    more_than_there_is_gives_all_and_the_reason,
    users_of_another_index_are_refused,
    users_of_other_dimensions_are_refused,
    a_batch_answers_as_one_by_one,
    every_user_codec_is_served,
    scores_are_the_metrics_own,
    users_without_ids_are_their_row_numbers,
);

/// Whether the item of a row passes.
type Passes = fn(u32) -> bool;

async fn answers_are_those_of_an_exhaustive_computation<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let recall = world.recall(&engine).await;
    assert!(recall >= 0.95, "recall@10 is {recall}");
    for answer in world.answers(&engine, &shape(10), &[]).await {
        assert_eq!((answer.items.len(), answer.vector.rung, answer.shortfall), (10, Rung::Page, None));
        assert!(answer.distances > 0);
    }
}

async fn seen_items_never_come_back<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    for user in 0..20 {
        // the items that would come, and then hundreds of the best
        for many in [10, 300] {
            let seen = world.best(user, many, |_| true);
            let answer = engine.recommend_one(&world.ask(user, &shape(10), &seen)).await.unwrap();
            let got = rows(&answer);
            assert_eq!((got.len(), answer.shortfall), (10, None), "user {user}, {many} seen");
            assert!(got.iter().all(|row| !seen.contains(row)), "user {user}, {many} seen");
            let exact = world.best(user, 10, |row| !seen.contains(&row));
            assert!(got.iter().filter(|row| exact.contains(row)).count() >= 8, "user {user}, {many} seen");
        }
    }
}

async fn a_user_who_has_seen_all_but_three_gets_three_and_the_reason<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let left = [5, 77, 399];
    let seen: Vec<u32> = (0..ITEMS as u32).filter(|row| !left.contains(row)).collect();
    for (user, answer) in world.answers(&engine, &shape(10), &seen).await.iter().enumerate() {
        let mut got = rows(answer);
        got.sort_unstable();
        assert_eq!(got, left, "user {user}");
        let short = answer.shortfall.unwrap();
        assert_eq!((short.reason, short.unseen), (Reason::Seen, 3));
        let short = short.to_string();
        assert!(short.contains("3 of 10") && short.contains("397 of those are seen"), "{short}");
    }
}

async fn only_items_that_pass_the_tags_come<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let cases: [(Request, Passes); 5] = [
        (tagged(10, &["even"], &[]), |row| row % 2 == 0),
        (tagged(10, &[], &["even"]), |row| row % 2 == 1),
        (tagged(10, &["even", "rare"], &[]), |row| row % 2 == 0 || RARE.contains(&row)),
        (tagged(10, &["odd"], &["rare"]), |row| row % 2 == 1 && !RARE.contains(&row)),
        (tagged(2, &["rare"], &[]), |row| RARE.contains(&row)),
    ];
    for (shape, passes) in &cases {
        let mut hits = 0;
        for (user, answer) in world.answers(&engine, shape, &[]).await.iter().enumerate() {
            let got = rows(answer);
            assert!(got.iter().all(|&row| passes(row)), "{:?}: {got:?}", shape.filter);
            assert_eq!((got.len(), answer.shortfall), (shape.k, None), "{:?}", shape.filter);
            let exact = world.best(user, shape.k, passes);
            hits += got.iter().filter(|row| exact.contains(row)).count();
        }
        assert!(hits as f64 >= 0.95 * (shape.k * USERS) as f64, "{:?}: {hits} of {}", shape.filter, shape.k * USERS);
    }
    // more wanted than have the tag, and none left of them
    let answers = world.answers(&engine, &tagged(10, &["rare"], &[]), &RARE[..1]).await;
    assert_eq!(rows(&answers[0]), RARE[1..]);
    let short = answers[0].shortfall.unwrap();
    assert_eq!((short.reason, short.items, short.passing, short.unseen), (Reason::Filter, 400, 2, 1));
    let answers = world.answers(&engine, &tagged(10, &["even"], &["even"]), &[]).await;
    assert!(answers.iter().all(|answer| answer.items.is_empty() && answer.shortfall.is_some()));
}

async fn a_tag_that_no_item_has_is_refused_with_examples<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    for shape in [tagged(10, &["evne"], &[]), tagged(10, &["even"], &["evne"])] {
        let error = engine.recommend_one(&world.ask(0, &shape, &[])).await.unwrap_err();
        assert!(matches!(error, EngineError::Catalog(CatalogError::UnknownTag { .. })), "{error}");
        let message = error.to_string();
        assert!(["\"evne\"", "3 tags", "even, odd, rare"].iter().all(|part| message.contains(part)), "{message}");
    }
}

async fn a_stranger_gets_popular_items_under_the_same_rules<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let nobody = || Some(OwnedId::parse("nobody"));
    let stranger = |shape: &Request, seen: &[u32]| Request { user: nobody(), ..world.ask(0, shape, seen) };
    let cases = [
        (shape(4), vec![], vec![399, 398, 397, 396]),
        (shape(4), vec![399, 397], vec![398, 396, 395, 394]),
        (tagged(3, &["even"], &[]), vec![398], vec![396, 394, 392]),
        (tagged(3, &[], &["odd"]), vec![], vec![398, 396, 394]),
        (tagged(3, &["rare"], &[]), vec![], vec![321, 123]),
    ];
    for (shape, seen, expected) in cases {
        let answer = engine.recommend_one(&stranger(&shape, &seen)).await.unwrap();
        assert_eq!(rows(&answer), expected);
        assert!(answer.items.iter().all(|item| item.source == Source::Popular));
        assert_eq!((answer.vector.rung, answer.distances), (Rung::Popularity, 0));
        assert_eq!(answer.shortfall.is_some(), expected.len() < shape.k);
    }
    // beside a user who is known
    let answers = engine.recommend(&[world.ask(1, &shape(5), &[]), stranger(&shape(5), &[])]).await;
    let rungs: Vec<Rung> = answers.into_iter().map(|answer| answer.unwrap().vector.rung).collect();
    assert_eq!(rungs, [Rung::Page, Rung::Popularity]);
}

async fn a_stranger_to_an_index_without_popularity_gets_nothing_and_the_reason<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    world.build("plain.tng", Codec::Int8, 1, false);
    let engine = world.engine_of(&kv, "plain.tng", Codec::Int8).await;
    let answer = engine.recommend_one(&Request { user: Some(OwnedId::U64(7)), ..shape(10) }).await.unwrap();
    assert!(answer.items.is_empty());
    assert_eq!(answer.shortfall.unwrap().reason, Reason::NoPopularity);
    assert!(answer.shortfall.unwrap().to_string().contains("--popularity"));
}

async fn k_out_of_range_is_refused<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    for k in [0, MAX_K + 1, usize::MAX] {
        let error = engine.recommend_one(&world.ask(0, &shape(k), &[])).await.unwrap_err();
        assert!(matches!(error, EngineError::K { got } if got == k));
        assert!(error.to_string().contains("1 to 10000"), "{error}");
    }
}

async fn more_than_there_is_gives_all_and_the_reason<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    for k in [ITEMS + 1, MAX_K] {
        let answer = engine.recommend_one(&world.ask(3, &shape(k), &[])).await.unwrap();
        assert_eq!(rows(&answer).len(), ITEMS);
        assert_eq!(answer.shortfall.unwrap().reason, Reason::Catalogue);
        assert!(answer.shortfall.unwrap().to_string().contains(&format!("{ITEMS} of {k}")));
    }
    let answer = engine.recommend_one(&world.ask(3, &shape(ITEMS), &[])).await.unwrap();
    assert_eq!((answer.items.len(), answer.shortfall), (ITEMS, None));
}

async fn users_of_another_index_are_refused<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    world.build("other.tng", Codec::Int8, 2, true);
    world.engine_of(&kv, "other.tng", Codec::Int8).await;
    let index = Index::open(&world.path("index.tng")).unwrap();
    let fingerprint = format!("{:016x}", index.fingerprint());
    let error = Engine::new(index, UserVectors::open(kv, NS).await.unwrap()).err().unwrap();
    assert!(matches!(error, EngineError::MixedReleases { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(&fingerprint) && message.contains("publish the users for this index"), "{message}");
}

async fn users_of_other_dimensions_are_refused<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let index = Index::open(&world.path("index.tng")).unwrap();
    // when they are to be published
    write_npy(&world.path("short.npy"), &numbers(8 * 10, 3), 8);
    let users = open(&world.path("short.npy"));
    let error = UserSource::new(&index, &users, None, Codec::Int8).unwrap_err();
    assert!(matches!(error, CatalogError::Dimensions { expected: DIM, got: 8 }), "{error}");
    // when they are published for another index
    publish_as(&kv, &spec("other"), Named::Dense, 10).await.unwrap();
    let open =
        async |name: &str| UserVectors::open_release(kv.clone(), crate::support::releases::NS, name).await.unwrap();
    let error = Engine::new(Index::open(index.path()).unwrap(), open("other").await).err().unwrap();
    assert!(matches!(error, EngineError::MixedReleases { .. }), "{error}");
    // and when something has published them under this index's fingerprint
    let forged = ReleaseSpec { fingerprint: index.fingerprint(), ..spec("forged") };
    publish_as(&kv, &forged, Named::Dense, 10).await.unwrap();
    let error = Engine::new(index, open("forged").await).err().unwrap();
    assert!(matches!(error, EngineError::Dimensions { expected: DIM, got: 8 }), "{error}");
}

async fn a_batch_answers_as_one_by_one<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let seen = |user: usize| world.best(user, user * 3, |_| true);
    let shape = tagged(7, &["even"], &["rare"]);
    let mut requests: Vec<Request> = (0..USERS).map(|user| world.ask(user, &shape, &seen(user))).collect();
    requests.insert(50, Request { user: Some(OwnedId::parse("nobody")), ..shape.clone() });
    requests.push(requests[7].clone()); // the same user twice
    requests.push(Request { user: None, ..shape.clone() });
    requests.push(Request { k: 0, ..shape });
    let batch = engine.recommend(&requests).await;
    assert_eq!(batch.len(), requests.len());
    for (request, answer) in requests.iter().zip(&batch) {
        let alone = engine.recommend_one(request).await;
        match (answer, alone) {
            (Ok(answer), Ok(alone)) => assert_eq!(Answer { timings: answer.timings, ..alone }, *answer),
            (answer, alone) => assert!(answer.is_err() && alone.is_err() && request.k == 0),
        }
    }
    assert!(engine.recommend(&[]).await.is_empty());
}

async fn every_user_codec_is_served<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    for (codec, floor) in [(Codec::Int4, 0.75), (Codec::Int8, 0.95), (Codec::F16, 0.95), (Codec::F32, 0.95)] {
        let engine = world.engine_of(&kv, "index.tng", codec).await;
        let recall = world.recall(&engine).await;
        assert!(recall >= floor, "recall@10 of users as {codec} is {recall}");
    }
}

async fn scores_are_the_metrics_own<K: Kv + Clone>(kv: K) {
    for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
        for codec in [Codec::F32, Codec::Int8] {
            let world = World::new(metric, codec);
            let name = format!("{metric}-{codec}.tng");
            std::fs::rename(world.path("index.tng"), world.path(&name)).unwrap();
            let engine = world.engine_of(&kv, &name, Codec::F32).await;
            assert!(world.recall(&engine).await >= 0.95, "{metric}, {codec}");
            for (user, answer) in world.answers(&engine, &shape(10), &[]).await.iter().enumerate() {
                for (hit, row) in answer.items.iter().zip(rows(answer)) {
                    let exact = world.score(user, row as usize);
                    // f32 sums; the finer codes of int8 are halves, with 11 bits
                    let close = (1.0 + exact.abs()) * if codec == Codec::F32 { 1e-6 } else { 5e-4 };
                    let off = (f64::from(hit.score) - exact).abs();
                    assert!(off <= close, "{metric}, {codec}: {} for {exact}", hit.score);
                }
            }
        }
    }
}

async fn users_without_ids_are_their_row_numbers<K: Kv + Clone>(kv: K) {
    let world = World::dot();
    let index = Index::open(&world.path("index.tng")).unwrap();
    let users = open(&world.path("users.npy"));
    let source = UserSource::new(&index, &users, None, Codec::F32).unwrap();
    publish(&kv, NS, &Publication::new("rows"), &source, &mut |_| ()).await.unwrap();
    activate(&kv, NS, "rows").await.unwrap();
    let engine = Engine::new(index, UserVectors::open(kv, NS).await.unwrap()).unwrap();
    let request = |user: u64| Request { user: Some(OwnedId::U64(user)), ..shape(1) };
    let answer = engine.recommend_one(&request(42)).await.unwrap();
    assert_eq!(rows(&answer), world.best(42, 1, |_| true));
    assert_eq!(engine.recommend_one(&request(USERS as u64)).await.unwrap().vector.rung, Rung::Popularity);
}
