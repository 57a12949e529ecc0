//! What changes between two builds: availability, and items added, replaced and deleted; in force at once, and still
//! there after a restart, however the process ended.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::support::embedded;
use crate::support::world::{DIM, ITEMS, NS, World, rows, shape, tagged};
use tonnage::catalog::Index;
use tonnage::codec::{Codec, Metric};
use tonnage::engine::{
    Answer, Clause, Engine, EngineError, EngineOptions, ItemFilter, Live, LiveOptions, NewItem, OwnedId, Reason,
    Request,
};
use tonnage::kv::EmbeddedKv;
use tonnage::store::UserVectors;

pub struct Stage {
    pub world: World,
    kv: EmbeddedKv,
    index: PathBuf,
    /// Processes that were started over a journal.
    starts: AtomicUsize,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub async fn new(metric: Metric) -> Self {
        let (kv, folder) = embedded().await;
        let world = World::new(metric, Codec::Int8);
        let index = world.engine(&kv).await.index().path().to_owned();
        Self { world, kv, index, starts: AtomicUsize::new(0), _folder: folder }
    }

    /// The journal of the process that was started last.
    pub fn journal(&self) -> PathBuf {
        self.world.path(&format!("live-{}.journal", self.starts.load(Relaxed)))
    }

    /// What a process has that starts once the one before was killed: that one goes on here, and keeps its journal.
    fn live(&self) -> Live {
        let left = self.journal();
        self.starts.fetch_add(1, Relaxed);
        if left.exists() {
            fs::copy(left, self.journal()).unwrap();
        }
        Live::open(&self.journal(), LiveOptions::default()).unwrap()
    }

    /// An engine of it.
    async fn start(&self) -> Engine<EmbeddedKv> {
        self.start_with(self.live()).await
    }

    pub async fn start_with(&self, live: Live) -> Engine<EmbeddedKv> {
        let users = UserVectors::open(self.kv.clone(), NS).await.unwrap();
        let index = Index::open(&self.index).unwrap();
        Engine::open(index, users, EngineOptions::default(), Arc::new(live)).unwrap()
    }

    async fn all(&self, engine: &Engine<EmbeddedKv>) -> Answer {
        engine.recommend_one(&self.world.ask(3, &shape(2 * ITEMS), &[])).await.unwrap()
    }

    /// An item that scores for user 3 as `factor` of the best.
    pub fn new_item(&self, name: &str, factor: f32, tags: &[&str]) -> NewItem {
        let best = self.world.best(3, 1, |_| true)[0] as usize;
        let vector = self.world.items[best * DIM..][..DIM].iter().map(|x| x * factor).collect();
        NewItem {
            id: OwnedId::parse(name),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            numbers: BTreeMap::new(),
            vector,
            made_s: 0,
        }
    }
}

pub fn item(row: u32) -> OwnedId {
    OwnedId::Text(format!("item-{row}").into())
}

fn has(answer: &Answer, id: &str) -> bool {
    answer.items.iter().any(|item| item.id.to_string() == id)
}

#[tokio::test]
async fn what_is_not_available_does_not_come_until_it_is_again() {
    let stage = Stage::new(Metric::Dot).await;
    let engine = stage.start().await;
    let best = rows(&engine.recommend_one(&stage.world.ask(3, &shape(5), &[])).await.unwrap());
    let hidden: Vec<(OwnedId, bool)> = best[..3].iter().map(|&row| (item(row), false)).collect();
    engine.live().set_available(&hidden).unwrap();
    assert!(!engine.live().is_available(&item(best[0])) && engine.live().is_available(&item(best[4])));
    for engine in [engine, stage.start().await] {
        let answer = stage.all(&engine).await;
        assert_eq!((answer.items.len(), rows(&answer)[..2] == best[3..]), (ITEMS - 3, true));
        let short = answer.shortfall.unwrap();
        assert_eq!((short.reason, short.items, short.available), (Reason::Catalogue, ITEMS, ITEMS - 3));
        let request = Request { k: ITEMS, ..shape(1) };
        let popular = engine.recommend_one(&request).await.unwrap();
        assert_eq!((popular.items.len(), popular.shortfall.unwrap().reason), (ITEMS - 3, Reason::Unavailable));
        assert!(best[..3].iter().all(|&row| !has(&popular, &item(row).to_string())));
    }
    let engine = stage.start().await;
    engine.live().set_available(&[(item(best[0]), true), (OwnedId::parse("unheard of"), false)]).unwrap();
    for engine in [engine, stage.start().await] {
        assert_eq!(rows(&stage.all(&engine).await)[..3], [best[0], best[3], best[4]]);
        assert!(!engine.live().is_available(&OwnedId::parse("unheard of")), "the next index may have it");
    }
}

#[tokio::test]
async fn added_replaced_and_deleted_items_are_as_if_they_had_been_built_so() {
    for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
        let stage = Stage::new(metric).await;
        let engine = stage.start().await;
        let best = rows(&engine.recommend_one(&stage.world.ask(3, &shape(5), &[])).await.unwrap());
        let copy = NewItem {
            vector: stage.world.items[best[1] as usize * DIM..][..DIM].to_vec(),
            ..stage.new_item("copy", 1.0, &["even", "fresh"])
        };
        engine.add_items(vec![copy]).unwrap();
        engine.delete_items(&[item(best[0])]).unwrap();
        // the third is replaced by its opposite
        let opposite = stage.world.items[best[2] as usize * DIM..][..DIM].iter().map(|x| -x).collect();
        engine
            .add_items(vec![NewItem { id: item(best[2]), vector: opposite, ..stage.new_item("x", 1.0, &[]) }])
            .unwrap();
        for engine in [engine, stage.start().await] {
            let answer = stage.all(&engine).await;
            let ids: Vec<String> = answer.items.iter().map(|item| item.id.to_string()).collect();
            assert_eq!(ids.len(), ITEMS, "one more, one less");
            assert!(ids[..2].contains(&"copy".to_owned()) && ids[..2].contains(&item(best[1]).to_string()), "{ids:?}");
            let scores = [answer.items[0].score, answer.items[1].score];
            assert!((scores[0] - scores[1]).abs() <= 0.02 * scores[0].abs().max(0.5), "{metric}: {scores:?}");
            assert!(!ids.contains(&item(best[0]).to_string()));
            assert_eq!(ids.iter().filter(|&id| *id == item(best[2]).to_string()).count(), 1);
            let place = ids.iter().position(|id| *id == item(best[2]).to_string()).unwrap();
            assert!(place > ITEMS / 2, "{metric}: the opposite is at {place}");
            // its tags count, also one that the index has not heard of
            let fresh = engine.recommend_one(&stage.world.ask(3, &tagged(5, &["fresh"], &[]), &[])).await.unwrap();
            assert_eq!((fresh.items.len(), has(&fresh, "copy")), (1, true));
            let none =
                engine.recommend_one(&stage.world.ask(3, &tagged(ITEMS, &["even"], &["fresh"]), &[])).await.unwrap();
            assert!(!has(&none, "copy") && has(&none, "item-8") || best[..3].contains(&8));
            let allow = ItemFilter { allow: Some(vec![OwnedId::parse("copy"), item(5)]), ..ItemFilter::default() };
            let allowed =
                engine.recommend_one(&Request { filter: allow, ..stage.world.ask(3, &shape(5), &[]) }).await.unwrap();
            assert_eq!((allowed.items.len(), has(&allowed, "copy")), (2, true));
            let deny = ItemFilter { deny: vec![OwnedId::parse("copy")], ..ItemFilter::default() };
            let denied =
                engine.recommend_one(&Request { filter: deny, ..stage.world.ask(3, &shape(5), &[]) }).await.unwrap();
            assert!(!has(&denied, "copy"));
        }
        let engine = stage.start().await;
        engine.delete_items(&[OwnedId::parse("copy")]).unwrap();
        engine
            .add_items(vec![NewItem { vector: stage.world.items[..DIM].to_vec(), ..stage.new_item("x", 1.0, &[]) }])
            .unwrap();
        let answer = stage.all(&stage.start().await).await;
        assert!(!has(&answer, "copy") && has(&answer, "x"));
    }
}

#[tokio::test]
async fn numbers_of_added_items_are_ranged_over_and_come_back() {
    let stage = Stage::new(Metric::Dot).await;
    let engine = stage.start().await;
    let item = |name: &str, numbers: &[(&str, f64)]| NewItem {
        numbers: numbers.iter().map(|&(field, number)| (field.to_owned(), number)).collect(),
        ..stage.new_item(name, 1.0, &["even"])
    };
    let request = |range: &str| {
        let all = vec![Clause::Range(range.parse().unwrap()), "even".into()];
        Request { filter: ItemFilter { all, ..ItemFilter::default() }, ..stage.world.ask(3, &shape(5), &[]) }
    };
    let unknown = engine.recommend_one(&request("price:1..2")).await.unwrap_err().to_string();
    assert!(unknown.contains("\"price\"") && unknown.contains("0 fields"), "{unknown}");
    engine.add_items(vec![item("one", &[("price", 1.0)]), item("both", &[("price", 2.0), ("year", -1e300)])]).unwrap();
    engine.add_items(vec![item("none", &[])]).unwrap();
    for engine in [engine, stage.start().await] {
        let found = async |range: &str| {
            let answer = engine.recommend_one(&request(range)).await.unwrap();
            let passing = answer.shortfall.unwrap().passing;
            let mut ids: Vec<String> = answer.items.iter().map(|item| item.id.to_string()).collect();
            assert_eq!(ids.len(), passing);
            ids.sort();
            ids
        };
        assert_eq!(found("price:1..2").await, ["both", "one"]);
        assert_eq!(found("price:1.1..").await, ["both"]);
        assert_eq!(found("year:..0").await, ["both"]);
        assert_eq!(found("price:3..").await, [""; 0]);
    }
    let engine = stage.start().await;
    let many: Vec<(String, f64)> = (0..257).map(|at| (at.to_string(), 1.0)).collect();
    let many = NewItem { numbers: many.into_iter().collect(), ..stage.new_item("many", 1.0, &[]) };
    let long = "x".repeat(1_025);
    for wrong in
        [item("nan", &[("price", f64::NAN)]), item("inf", &[("a", f64::INFINITY)]), many, item("long", &[(&long, 1.0)])]
    {
        let error = engine.add_items(vec![wrong]).unwrap_err();
        assert!(matches!(error, EngineError::Request { .. }), "{error}");
    }
    assert_eq!(engine.live().added_items(), 3);
}

#[tokio::test]
async fn more_than_may_change_is_refused_and_changes_nothing() {
    let stage = Stage::new(Metric::Dot).await;
    let options = LiveOptions { most_items: 3, most_bytes: 2_000, most_hidden: 2 };
    let engine = stage.start_with(Live::open(&stage.journal(), options).unwrap()).await;
    let refused = |result: Result<(), EngineError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, EngineError::TooMany { .. }) && error.to_string().contains("build"), "{error}");
    };
    let items = |names: &[&str]| names.iter().map(|name| stage.new_item(name, 0.1, &[])).collect::<Vec<_>>();
    refused(engine.add_items(items(&["a", "b", "c", "d"])));
    assert_eq!(engine.live().added_items(), 0);
    engine.add_items(items(&["a", "b", "c"])).unwrap();
    refused(engine.add_items(items(&["d"])));
    let long = vec!["x".repeat(1_000), "y".repeat(1_000)];
    engine.delete_items(&[OwnedId::parse("a")]).unwrap();
    refused(engine.add_items(vec![NewItem { tags: long, ..stage.new_item("d", 0.1, &[]) }]));
    refused(engine.live().set_available(&[(item(1), false), (item(2), false)]));
    engine.live().set_available(&[(item(1), false)]).unwrap();
    assert_eq!(stage.start().await.live().added_items(), 2);
    // and what no index could score
    for vector in [vec![0.0; DIM - 1], vec![f32::NAN; DIM], vec![f32::INFINITY; DIM]] {
        let error = engine.add_items(vec![NewItem { vector, ..stage.new_item("e", 0.1, &[]) }]).unwrap_err();
        assert!(matches!(error, EngineError::Catalog(_)), "{error}");
    }
}

#[tokio::test]
async fn additions_belong_to_one_index_and_availability_to_all() {
    let stage = Stage::new(Metric::Dot).await;
    let engine = stage.start().await;
    engine.add_items(vec![stage.new_item("one", 1.0, &[])]).unwrap();
    engine.delete_items(&[item(3)]).unwrap();
    engine.live().set_available(&[(item(4), false)]).unwrap();
    stage.world.build("next.tng", Codec::Int8, 7, true);
    let next = stage.world.engine_of(&stage.kv, "next.tng", Codec::Int8).await;
    let users = UserVectors::open(stage.kv.clone(), NS).await.unwrap();
    let next = engine.succeed(Index::open(next.index().path()).unwrap(), users).unwrap();
    let answer = stage.all(&next).await;
    assert!(!has(&answer, "one") && has(&answer, "item-3") && !has(&answer, "item-4"));
    assert_eq!(next.live().added_items(), 1, "the one before still answers with it");
    next.live().forget_others(&[next.index().fingerprint()]).unwrap();
    assert_eq!(next.live().added_items(), 0);
    let again = stage.live();
    assert!(again.added_items() == 0 && !again.is_available(&item(4)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_changes_something_sees_it_at_once_whoever_else_does_so() {
    let stage = Arc::new(Stage::new(Metric::Dot).await);
    let engine = Arc::new(stage.start().await);
    let changes = (0..4_u32).map(|part| {
        let (stage, engine) = (Arc::clone(&stage), Arc::clone(&engine));
        tokio::spawn(async move {
            for turn in 0..20 {
                let (own, added) = (item(part * 100 + turn), format!("new-{part}-{turn}"));
                engine.live().set_available(&[(own.clone(), false)]).unwrap();
                assert!(!has(&stage.all(&engine).await, &own.to_string()), "{own}");
                engine.add_items(vec![stage.new_item(&added, 1.0, &[])]).unwrap();
                assert!(has(&stage.all(&engine).await, &added), "{added}");
                engine.live().set_available(&[(own.clone(), true)]).unwrap();
                assert!(has(&stage.all(&engine).await, &own.to_string()), "{own}");
            }
        })
    });
    for change in changes.collect::<Vec<_>>() {
        change.await.unwrap();
    }
    let answer = stage.all(&engine).await;
    assert_eq!((answer.items.len(), engine.live().added_items()), (ITEMS + 80, 80));
}
