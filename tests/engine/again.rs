//! What comes a second time: users of the same index, items between two pages, the same change; and slots gone bad.

use std::collections::HashSet;
use std::sync::Arc;

use crate::support::embedded;
use crate::support::world::{DIM, ITEMS, NS, USERS, World, open, rows, shape, tagged};
use tonnage::catalog::Index;
use tonnage::codec::Codec;
use tonnage::engine::users::{Publication, UserSource, publish};
use tonnage::engine::{
    Answer, Degraded, Diversity, Engine, EngineOptions, Live, LiveOptions, MaxPer, Mix, NewItem, OwnedId, Pin, Reason,
    Request, Rung, ScoreRequest, Source,
};
use tonnage::input::Id;
use tonnage::kv::{EmbeddedKv, Kv};
use tonnage::store::{RemoveOptions, UserVectors, activate, retire};

fn item(row: u32) -> OwnedId {
    OwnedId::Text(format!("item-{row}").into())
}

fn new_item(world: &World, row: usize, tags: &[&str]) -> NewItem {
    let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
    NewItem {
        id: item(row as u32),
        tags,
        numbers: std::collections::BTreeMap::new(),
        vector: world.items[row * DIM..][..DIM].to_vec(),
        made_s: 0,
    }
}

fn limited(count: usize) -> Diversity {
    Diversity { max_per: vec![MaxPer { field: String::new(), count }], mmr: None }
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.items.iter().map(|item| item.id.to_string()).collect()
}

#[tokio::test]
async fn users_published_again_for_the_same_index_are_no_previous_release() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let first = world.engine(&kv).await;
    world.engine_of(&kv, "index.tng", Codec::F16).await;
    let users = UserVectors::open(kv.clone(), NS).await.unwrap();
    let engine = first.succeed(Index::open(&world.path("index.tng")).unwrap(), users).unwrap();
    let answer = engine.recommend_one(&world.ask(3, &shape(5), &[])).await.unwrap();
    assert_eq!((answer.vector.rung, answer.degraded), (Rung::Page, vec![]));
}

#[tokio::test]
async fn a_name_published_again_in_another_codec_is_never_read_by_the_manifest_before() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let index = || Index::open(&world.path("index.tng")).unwrap();
    let users = open(&world.path("users.npy"));
    // dense: users are numbers, and a slot is found by where it stands
    let publish_as = async |name: &str, codec| {
        let index = index();
        let source = UserSource::new(&index, &users, None, codec).unwrap();
        publish(&kv, NS, &Publication::new(name), &source, &mut |_| ()).await.unwrap();
        activate(&kv, NS, name).await.unwrap();
        Engine::new(index, UserVectors::open(kv.clone(), NS).await.unwrap()).unwrap()
    };
    let ask = async |engine: &Engine<EmbeddedKv>, user: u64| {
        engine.recommend_one(&Request { user: Some(OwnedId::U64(user)), ..shape(5) }).await.unwrap()
    };
    let before = publish_as("same", Codec::Int8).await;
    let answered = ask(&before, 4).await;
    publish_as("other", Codec::Int8).await;
    retire(&kv, NS, "same", &RemoveOptions::default(), &mut |_, _| ()).await.unwrap();
    let after = publish_as("same", Codec::F16).await;
    for user in 0..USERS as u64 {
        let answer = ask(&before, user).await;
        assert_ne!(answer.vector.rung, Rung::Page, "user {user} was read from what is another codec's");
        assert_eq!(ask(&after, user).await.vector.rung, Rung::Page);
    }
    let again = ask(&after, 4).await;
    assert!(ids(&again).iter().filter(|id| ids(&answered).contains(id)).count() >= 4);
}

#[tokio::test]
async fn a_slot_that_cannot_be_decoded_is_said_and_the_ladder_goes_on() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let user = Id::Text("user-3");
    let key = engine.users().range(user).unwrap().key;
    let record = engine.users().get(&[user]).await.unwrap().pop().flatten().unwrap();
    let mut page = kv.get_many(std::slice::from_ref(&key)).await.unwrap().pop().flatten().unwrap();
    let at = page.windows(record.len()).position(|window| window == record).unwrap();
    page[at..][..record.len()].fill(0xFF); // a scale that is no number
    kv.set_many(vec![(key, page)], None).await.unwrap();
    let answer = engine.recommend_one(&world.ask(3, &shape(5), &[])).await.unwrap();
    let got = (answer.vector.rung, answer.items.len(), answer.degraded);
    assert_eq!(got, (Rung::Popularity, 5, vec![Degraded::PageUnusable]));
}

#[tokio::test]
async fn an_item_that_was_shown_and_replaced_does_not_come_on_the_next_page() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let request = world.ask(3, &shape(5), &[]);
    let first = engine.recommend_one(&request).await.unwrap();
    let replaced = rows(&first).iter().map(|&row| new_item(&world, row as usize, &[])).collect();
    engine.add_items(replaced).unwrap();
    let second = engine.recommend_one(&Request { page: first.next.clone(), ..request }).await.unwrap();
    let all: HashSet<String> = ids(&first).into_iter().chain(ids(&second)).collect();
    assert_eq!(all.len(), 10);
}

#[tokio::test]
async fn only_items_that_are_there_and_available_are_scored() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let engine = world.engine(&kv).await;
    engine.add_items(vec![new_item(&world, 4, &[])]).unwrap();
    engine.delete_items(&[item(1)]).unwrap();
    engine.live().set_available(&[(item(2), false), (item(4), false)]).unwrap();
    let user = Some(OwnedId::parse("user-3"));
    let request = ScoreRequest { user, items: [1, 2, 3, 4, 3].map(item).to_vec(), ..ScoreRequest::default() };
    assert_eq!(ids(&engine.score(&request).await.unwrap()), ["item-3"]);
}

#[tokio::test]
async fn pins_count_towards_limits_wherever_they_stand_and_a_repeated_tag_counts_once() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let pin = Pin { place: 2, item: item(6) };
    let request = Request {
        mix: Mix { pins: vec![pin], ..Mix::default() },
        diversity: limited(1),
        ..world.ask(3, &shape(4), &[])
    };
    let answer = engine.recommend_one(&request).await.unwrap();
    let is_even = |id: &String| id[5..].parse::<u32>().unwrap().is_multiple_of(2);
    assert!(answer.items.iter().any(|item| item.source == Source::Pinned));
    assert_eq!(ids(&answer).iter().filter(|id| is_even(id)).count(), 1, "the pinned one alone: {:?}", ids(&answer));
    engine.add_items(vec![NewItem { id: OwnedId::parse("own"), ..new_item(&world, 7, &["solo", "solo"]) }]).unwrap();
    let tags = tagged(1, &["solo"], &[]);
    let request = Request { diversity: limited(1), ..world.ask(3, &tags, &[]) };
    assert_eq!(ids(&engine.recommend_one(&request).await.unwrap()), ["own"]);
}

#[tokio::test]
async fn limits_hold_for_somebody_unknown_and_the_reason_is_the_right_one() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    let engine = world.engine(&kv).await;
    let asking = |k| Request { user: Some(OwnedId::parse("nobody")), diversity: limited(3), ..shape(k) };
    let answer = engine.recommend_one(&asking(6)).await.unwrap();
    assert_eq!((answer.items.len(), answer.shortfall.is_none()), (6, true));
    let answer = engine.recommend_one(&asking(ITEMS.min(50))).await.unwrap();
    assert_eq!((answer.items.len(), answer.shortfall.unwrap().reason), (6, Reason::Diversity));
    world.build("plain.tng", Codec::Int8, 1, false);
    let engine = world.engine_of(&kv, "plain.tng", Codec::Int8).await;
    let answer = engine.recommend_one(&asking(6)).await.unwrap();
    assert_eq!((answer.items.len(), answer.shortfall.unwrap().reason), (0, Reason::NoPopularity));
}

#[tokio::test]
async fn the_same_change_made_twice_takes_no_more_room() {
    let (kv, _folder) = embedded().await;
    let world = World::dot();
    world.engine(&kv).await;
    let few = LiveOptions { most_items: 2, most_hidden: 2, ..LiveOptions::default() };
    let live = Arc::new(Live::in_memory(few));
    let users = UserVectors::open(kv.clone(), NS).await.unwrap();
    let index = Index::open(&world.path("index.tng")).unwrap();
    let engine: Engine<EmbeddedKv> = Engine::open(index, users, EngineOptions::default(), live).unwrap();
    for _ in 0..3 {
        engine.live().set_available(&[(item(1), false), (item(2), false)]).unwrap();
        engine.add_items(vec![new_item(&world, 7, &[]), new_item(&world, 8, &[])]).unwrap();
    }
    assert_eq!(engine.live().added_items(), 2);
    engine.live().set_available(&[(item(3), false)]).unwrap_err();
    engine.add_items(vec![new_item(&world, 9, &[])]).unwrap_err();
}
