//! Lists of candidates that were made for users before, as one more source of an answer.

use std::collections::HashSet;

use crate::support::embedded;
use crate::support::world::{NS, World, rows, shape};
use tonnage::codec::Codec;
use tonnage::engine::{Answer, Degraded, Engine, Mix, OwnedId, Quota, Request, Source};
use tonnage::input::Id;
use tonnage::kv::{EmbeddedKv, Kv};
use tonnage::store::{ListKind, ListOptions, Lists, Ranked, UserVectors, list_key};

/// Items of the list, by their rows in the trainer's files.
const LISTED: [u32; 6] = [11, 12, 13, 14, 15, 16];

fn lists(engine: &Engine<EmbeddedKv>) -> Lists<EmbeddedKv> {
    let (users, items) = (engine.users(), engine.index().len() as u32);
    let options = ListOptions::default();
    Lists::new(users.kv().clone(), NS, users.manifest(), items, ListKind::Candidates, options).unwrap()
}

async fn put(engine: &Engine<EmbeddedKv>, user: &str) {
    let node = |&row: &u32| engine.index().find(Id::Text(&format!("item-{row}"))).unwrap();
    let ranked = |(at, row)| Ranked { row: node(row), score: 9.0 - at as f32 };
    let list: Vec<Ranked> = LISTED.iter().enumerate().map(ranked).collect();
    lists(engine).put(&[(Id::Text(user), &list)]).await.unwrap();
}

fn asking(world: &World, user: usize, seen: &[u32]) -> Request {
    let quotas = vec![Quota { source: Source::List, count: 4 }];
    Request { mix: Mix { quotas, ..Mix::default() }, ..world.ask(user, &shape(10), seen) }
}

fn listed(answer: &Answer) -> Vec<String> {
    let items = answer.items.iter().filter(|item| item.source == Source::List);
    items.map(|item| item.id.to_string()).collect()
}

#[tokio::test]
async fn places_come_from_the_users_list_in_its_order_and_others_fill_what_it_lacks() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let engine = world.engine(&kv).await;
    put(&engine, "user-3").await;
    let answer = engine.recommend_one(&asking(&world, 3, &[12])).await.unwrap();
    let all: HashSet<String> = answer.items.iter().map(|item| item.id.to_string()).collect();
    assert_eq!((all.len(), &answer.degraded), (10, &Vec::new()));
    // an item that ranks among the best by itself may come as such: what is left of the list keeps its order
    let expected: Vec<String> = [11, 13, 14, 15, 16].map(|row| format!("item-{row}")).to_vec();
    let places: Vec<usize> =
        listed(&answer).iter().map(|id| expected.iter().position(|known| known == id).unwrap()).collect();
    assert!(places.len() == 4 && places.is_sorted(), "{places:?}");
    // nobody else's list is read, and without a quota nobody's
    let answer = engine.recommend_one(&asking(&world, 4, &[])).await.unwrap();
    assert_eq!((answer.items.len(), listed(&answer), answer.degraded), (10, vec![], vec![]));
    let answer = engine.recommend_one(&world.ask(3, &shape(10), &[])).await.unwrap();
    assert_eq!((rows(&answer).len(), listed(&answer)), (10, vec![]));
}

#[tokio::test]
async fn a_list_that_is_damaged_or_anothers_is_said_and_not_used() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let engine = world.engine(&kv).await;
    put(&engine, "user-3").await;
    let key = |user| list_key(NS, engine.users().manifest(), ListKind::Candidates, Id::Text(user));
    let list = kv.get_many(&[key("user-3")]).await.unwrap().pop().flatten().unwrap();
    let mut damaged = list.clone();
    damaged[9] ^= 1;
    kv.set_many(vec![(key("user-4"), list), (key("user-3"), damaged)], None).await.unwrap();
    for user in [3, 4] {
        let answer = engine.recommend_one(&asking(&world, user, &[])).await.unwrap();
        let got = (answer.items.len(), listed(&answer), answer.degraded);
        assert_eq!(got, (10, vec![], vec![Degraded::ListDamaged]), "user {user}");
    }
}

#[tokio::test]
async fn a_list_never_meets_the_index_of_another_release() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let first = world.engine(&kv).await;
    put(&first, "user-3").await;
    world.build("next.tng", Codec::Int8, 2, true);
    let next = world.engine_of(&kv, "next.tng", Codec::Int8).await;
    let users = UserVectors::open(kv.clone(), NS).await.unwrap();
    let engine = first.succeed(tonnage::catalog::Index::open(&world.path("next.tng")).unwrap(), users).unwrap();
    // the old release's list is under another key
    let answer = engine.recommend_one(&asking(&world, 3, &[])).await.unwrap();
    assert_eq!((answer.release.as_str(), listed(&answer), answer.degraded), ("monday", vec![], vec![]));
    // a user whose vector only the old release has is answered by the old index, and the new list names other items there
    put(&next, "newcomer").await;
    let vector = vec![0.5; first.index().dim()];
    first.put_overlay(&OwnedId::parse("newcomer"), &vector, std::time::Duration::from_hours(1)).await.unwrap();
    let request = Request { user: Some(OwnedId::parse("newcomer")), ..asking(&world, 3, &[]) };
    let answer = engine.recommend_one(&request).await.unwrap();
    assert_eq!((answer.degraded.as_slice(), listed(&answer)), (&[Degraded::PreviousRelease][..], vec![]));
    assert_eq!(answer.items.len(), 10);
}
