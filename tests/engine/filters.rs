//! Filters of all kinds at once: an answer has `k` items or a reason, and both are judged by looking at every item.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::support::vectors::{self, write_npy};
use rayon::prelude::*;
use tempfile::TempDir;
use tonnage::catalog::{BuildSpec, Index, build};
use tonnage::codec::{Codec, Metric};
use tonnage::engine::users::{Publication, UserSource, publish};
use tonnage::engine::{
    Answer, Clause, Diversity, Effort, Engine, EngineError, EngineOptions, Event, ItemFilter, Live, LiveOptions,
    MaxPer, NewItem, NumberRange, OwnedId, Reason, Request, Rung,
};
use tonnage::input::{Ids, Numbers, Tags, Vectors};
use tonnage::kv::EmbeddedKv;
use tonnage::store::{EventKind, UserVectors, activate};

const ITEMS: u64 = 2_000;
const USERS: usize = 40;
const DIM: usize = 16;
/// Items added since the build; their ids follow those of the index.
const ADDED: u64 = 15;
const BATCH: usize = 500;

/// Whole numbers that are the same everywhere.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    fn ids(&mut self, count: u64) -> Vec<OwnedId> {
        (0..count).map(|_| OwnedId::U64(self.below(ITEMS + ADDED + 3))).collect()
    }
}

fn tags_of(item: u64) -> Vec<String> {
    let mixed = item.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let mut tags = vec![format!("brand:{}", mixed % 23), format!("color:{}", mixed / 23 % 4)];
    for (every, share) in [(2, "half"), (10, "tenth"), (100, "hundredth"), (1_000, "thousandth")] {
        if (mixed / 97).is_multiple_of(every) {
            tags.push(format!("share:{share}"));
        }
    }
    tags
}

/// A price that many have, a weight that few have alike, and a year that every third item has.
fn numbers_of(item: u64) -> BTreeMap<String, f64> {
    let mixed = item.wrapping_mul(0xd1b5_4a32_d192_ed03) >> 24;
    let numbers = [
        ("price", (mixed % 100) as f64 * 0.25 - 5.0),
        ("weight", (mixed % 1_000_003) as f64 * 1e-3),
        ("year", (1_950 + mixed % 80) as f64),
    ];
    let has = if item.is_multiple_of(3) { 3 } else { 2 };
    numbers[..has].iter().map(|&(field, number)| (field.to_owned(), number)).collect()
}

fn meets(tags: &[String], numbers: &BTreeMap<String, f64>, clause: &Clause) -> bool {
    match clause {
        Clause::Tag(tag) => tags.contains(tag),
        Clause::Range(NumberRange { field, min, max }) => numbers
            .get(field)
            .is_some_and(|number| !(min.is_some_and(|min| *number < min) || max.is_some_and(|max| *number > max))),
    }
}

/// What may be answered, by the book.
struct Judge {
    tags: HashMap<u64, Vec<String>>,
    numbers: HashMap<u64, BTreeMap<String, f64>>,
    hidden: HashSet<u64>,
    gone: HashSet<u64>,
    seen: HashMap<OwnedId, HashSet<u64>>,
}

/// Items, available ones, those that pass the filter, those that are not seen either.
struct Counted {
    stages: [usize; 4],
    left: Vec<u64>,
}

impl Judge {
    fn count(&self, request: &Request) -> Counted {
        let ItemFilter { all, any, none, allow, deny } = &request.filter;
        let mut stages = [0; 4];
        let mut left = Vec::new();
        let seen = request.user.as_ref().and_then(|user| self.seen.get(user)).filter(|_| request.exclude_seen);
        for item in (0..ITEMS + ADDED).filter(|item| !self.gone.contains(item)) {
            let (tags, id) = (&self.tags[&item], OwnedId::U64(item));
            let meets = |clause: &Clause| meets(tags, &self.numbers[&item], clause);
            let passes = all.iter().all(meets)
                && any.iter().all(|group| group.iter().any(meets))
                && !none.iter().any(meets)
                && allow.as_ref().is_none_or(|allow| allow.contains(&id))
                && !deny.contains(&id);
            let unseen = !request.seen.contains(&id) && !seen.is_some_and(|seen| seen.contains(&item));
            let through = [true, !self.hidden.contains(&item), passes, unseen];
            let reached = through.iter().take_while(|&&through| through).count();
            (0..reached).for_each(|stage| stages[stage] += 1);
            if reached == 4 {
                left.push(item);
            }
        }
        Counted { stages, left }
    }

    fn check(&self, request: &Request, answer: &Answer) -> &'static str {
        let Counted { stages: [items, available, passing, unseen], left } = self.count(request);
        let got: Vec<u64> = answer.items.iter().map(|item| item.id.to_string().parse().unwrap()).collect();
        let unique: HashSet<u64> = got.iter().copied().collect();
        assert_eq!(unique.len(), got.len(), "an item came twice: {request:?}");
        assert!(unique.iter().all(|item| left.contains(item)), "one that may not come: {got:?} for {request:?}");
        let mut most = left.len();
        if let [MaxPer { count, .. }] = &request.diversity.max_per[..] {
            let brand = |item: &u64| self.tags[item][0].clone();
            let mut brands: HashMap<String, usize> = HashMap::new();
            left.iter().for_each(|item| *brands.entry(brand(item)).or_default() += 1);
            most = brands.values().map(|&items| items.min(*count)).sum();
            let mut came: HashMap<String, usize> = HashMap::new();
            got.iter().for_each(|item| *came.entry(brand(item)).or_default() += 1);
            assert!(came.values().all(|came| came <= count), "{came:?} for {request:?}");
        }
        assert_eq!(got.len(), most.min(request.k), "{:?} for {request:?}", answer.shortfall);
        let Some(short) = answer.shortfall else {
            assert_eq!(got.len(), request.k);
            return "full";
        };
        assert!(got.len() < request.k);
        assert_eq!((short.requested, short.returned), (request.k, got.len()));
        assert_eq!([short.items, short.available, short.passing, short.unseen], [items, available, passing, unseen]);
        let counted = [Reason::Catalogue, Reason::Unavailable, Reason::Filter, Reason::Seen];
        let first = [items, available, passing, unseen].iter().position(|&count| count < request.k);
        match first {
            Some(stage) => assert_eq!(short.reason, counted[stage], "{request:?}"),
            None => assert_eq!(short.reason, Reason::Diversity, "{request:?}"),
        }
        short.reason.name()
    }
}

/// About an item, so that numbers that items have are at the ends; what it leaves goes from all to nothing.
fn range(draw: &mut Draw) -> Clause {
    let fields = ["price", "weight", "year"];
    let numbers = numbers_of(3 * draw.below(ITEMS / 3));
    let field = *draw.one(&fields);
    let (one, other) = (numbers[field], numbers_of(3 * draw.below(ITEMS / 3))[field]);
    let (min, max) = match draw.below(6) {
        0 => (None, Some(one)),
        1 => (Some(one), None),
        2 => (Some(one), Some(one)),
        3 => (Some(one.next_up()), Some(one.next_up() + 3.0)),
        _ => (Some(one.min(other)), Some(one.max(other))),
    };
    Clause::Range(NumberRange { field: field.to_owned(), min, max })
}

fn request(draw: &mut Draw) -> Request {
    let shares = ["half", "tenth", "hundredth", "thousandth"].map(|share| format!("share:{share}"));
    let (brands, colors): (Vec<String>, Vec<String>) =
        ((0..23).map(|at| format!("brand:{at}")).collect(), (0..4).map(|at| format!("color:{at}")).collect());
    let mut filter = ItemFilter::default();
    if draw.below(2) == 0 {
        filter.all.push(draw.one(&shares).as_str().into());
    }
    if draw.below(4) == 0 {
        filter.all.push(range(draw));
    }
    if draw.below(3) == 0 {
        let mut group: Vec<Clause> = (0..=draw.below(5)).map(|_| draw.one(&brands).as_str().into()).collect();
        if draw.below(3) == 0 {
            group.push(range(draw));
        }
        filter.any.push(group);
    }
    if draw.below(3) == 0 {
        filter.any.push((0..=draw.below(2)).map(|_| draw.one(&colors).as_str().into()).collect());
    }
    if draw.below(3) == 0 {
        filter.none.push(draw.one(&brands).as_str().into());
    }
    if draw.below(6) == 0 {
        filter.none.push(range(draw));
    }
    if draw.below(8) == 0 {
        let count = draw.below(60);
        filter.allow = Some(draw.ids(count));
    }
    if draw.below(4) == 0 {
        let count = draw.below(10);
        filter.deny = draw.ids(count);
    }
    let users = USERS as u64 + 10; // some of them strangers
    let max_per = if draw.below(6) == 0 {
        vec![MaxPer { field: "brand".to_owned(), count: 1 + draw.below(3) as usize }]
    } else {
        Vec::new()
    };
    let (seen, k) = (draw.below(4) * draw.below(20), 1 + draw.below(30) as usize);
    Request {
        user: Some(OwnedId::U64(draw.below(users))),
        k: if draw.below(200) == 0 { ITEMS as usize + k } else { k },
        effort: Effort::Ef(10 + draw.below(100) as usize),
        filter,
        exclude_seen: draw.below(5) > 0,
        seen: draw.ids(seen),
        diversity: Diversity { max_per, mmr: None },
        ..Request::default()
    }
}

/// An index with tags, and what changed since.
async fn online(kv: EmbeddedKv, folder: &TempDir) -> (Engine<EmbeddedKv>, Judge) {
    let path = |name: &str| folder.path().join(name);
    write_npy(&path("items.npy"), &vectors::numbers(ITEMS as usize * DIM, 1), DIM);
    write_npy(&path("users.npy"), &vectors::numbers(USERS * DIM, 2), DIM);
    let (items, users) = (Vectors::open(&path("items.npy")).unwrap(), Vectors::open(&path("users.npy")).unwrap());
    let ids = Ids::U64((0..ITEMS).collect());
    let mut names: Vec<String> = (0..ITEMS).flat_map(tags_of).collect();
    names.sort_unstable();
    names.dedup();
    let having = |name: &String| (0..ITEMS as u32).filter(|&item| tags_of(u64::from(item)).contains(name)).collect();
    let tags = Tags { rows: names.iter().map(having).collect(), names };
    let fields = ["price", "weight", "year"].map(str::to_owned);
    let number =
        |field: &String| (0..ITEMS).filter_map(|item| Some((item as u32, *numbers_of(item).get(field)?))).collect();
    let numbers = Numbers { values: fields.iter().map(number).collect(), fields: fields.to_vec() };
    let popularity: Vec<f32> = (0..ITEMS).map(|item| item as f32).collect();
    let spec = BuildSpec {
        ids: Some(&ids),
        tags: Some(&tags),
        numbers: Some(&numbers),
        popularity: Some(&popularity),
        users: Some(&users),
        ..BuildSpec::new(&items, Metric::Dot)
    };
    let index = build(&spec, &path("index.tng"), &|_| ()).unwrap().0;
    let source = UserSource::new(&index, &users, None, Codec::Int8).unwrap();
    publish(&kv, "f", &Publication::new("monday"), &source, &mut |_| ()).await.unwrap();
    activate(&kv, "f", "monday").await.unwrap();
    let users = UserVectors::open(kv, "f").await.unwrap();
    let live = Arc::new(Live::in_memory(LiveOptions::default()));
    let engine = Engine::open(index, users, EngineOptions::default(), live).unwrap();
    let mut judge = Judge {
        tags: (0..ITEMS + ADDED).map(|item| (item, tags_of(item))).collect(),
        numbers: (0..ITEMS + ADDED).map(|item| (item, numbers_of(item))).collect(),
        hidden: HashSet::new(),
        gone: HashSet::new(),
        seen: HashMap::new(),
    };
    change(&engine, &mut judge).await;
    (engine, judge)
}

async fn change(engine: &Engine<EmbeddedKv>, judge: &mut Judge) {
    let mut draw = Draw(7);
    judge.hidden = (0..150).map(|_| draw.below(ITEMS + ADDED)).collect();
    judge.gone = (0..40).map(|_| draw.below(ITEMS)).collect();
    let hidden: Vec<(OwnedId, bool)> = judge.hidden.iter().map(|&item| (OwnedId::U64(item), false)).collect();
    engine.live().set_available(&hidden).unwrap();
    engine.delete_items(&judge.gone.iter().map(|&item| OwnedId::U64(item)).collect::<Vec<_>>()).unwrap();
    let added_vectors = vectors::numbers(ADDED as usize * DIM, 3);
    let added = |item: u64| NewItem {
        id: OwnedId::U64(ITEMS + item),
        tags: tags_of(ITEMS + item),
        numbers: numbers_of(ITEMS + item),
        vector: added_vectors[item as usize * DIM..][..DIM].to_vec(),
        made_s: 0,
    };
    engine.add_items((0..ADDED).map(added).collect()).unwrap();
    for user in 0..USERS as u64 / 2 {
        // not so many that some are in the set that is sometimes wrong
        let seen: Vec<u64> = (0..draw.below(60)).map(|_| draw.below(ITEMS + ADDED)).collect();
        let event =
            |&item: &u64| Event { item: OwnedId::U64(item), kind: EventKind::Click, age: std::time::Duration::ZERO };
        engine.record(&OwnedId::U64(user), &seen.iter().map(event).collect::<Vec<_>>()).await.unwrap();
        judge.seen.insert(OwnedId::U64(user), seen.into_iter().collect());
    }
}

#[tokio::test]
async fn a_hundred_thousand_filtered_requests_get_k_items_or_a_reason_that_is_true() {
    let (kv, _store) = crate::support::embedded().await;
    let folder = TempDir::new().unwrap();
    let (engine, judge) = online(kv, &folder).await;
    let mut draw = Draw(1);
    let mut met: HashMap<&str, usize> = HashMap::new();
    let mut popular = 0;
    for _ in 0..100_000 / BATCH {
        let requests: Vec<Request> = (0..BATCH).map(|_| request(&mut draw)).collect();
        let answers: Vec<Answer> = engine.recommend(&requests).await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.degraded.is_empty()));
        popular += answers.iter().filter(|answer| answer.vector.rung == Rung::Popularity).count();
        let checked = requests.par_iter().zip(&answers).map(|(request, answer)| judge.check(request, answer));
        checked.collect::<Vec<_>>().into_iter().for_each(|what| *met.entry(what).or_default() += 1);
    }
    // a test that met nothing has shown nothing
    assert!(popular > 5_000 && met["full"] > 10_000, "{popular}, {met:?}");
    for reason in ["catalogue", "filter", "seen", "diversity"] {
        assert!(met.get(reason).is_some_and(|&count| count > 20), "{reason}: {met:?}");
    }
}

#[tokio::test]
async fn pages_go_through_all_that_passes_once_each_and_end_with_the_reason() {
    let (kv, _store) = crate::support::embedded().await;
    let folder = TempDir::new().unwrap();
    let (engine, judge) = online(kv, &folder).await;
    for (user, filter) in [
        (3, ItemFilter { all: vec!["share:tenth".into()], ..ItemFilter::default() }),
        (30, ItemFilter { any: vec![vec!["color:1".into()]], ..ItemFilter::default() }),
    ] {
        let mut page = Request { user: Some(OwnedId::U64(user)), k: 25, filter, ..Request::default() };
        let left: HashSet<u64> = judge.count(&page).left.into_iter().collect();
        let mut shown = HashSet::new();
        loop {
            let answer = engine.recommend_one(&page).await.unwrap();
            for item in &answer.items {
                assert!(shown.insert(item.id.to_string().parse::<u64>().unwrap()), "{} came twice", item.id);
            }
            // what happens between two pages does not bring back what was shown
            if shown.len() == 50 {
                engine
                    .add_items(vec![NewItem {
                        id: OwnedId::U64(ITEMS),
                        tags: tags_of(ITEMS),
                        numbers: numbers_of(ITEMS),
                        vector: vec![0.5; DIM],
                        made_s: 0,
                    }])
                    .unwrap();
            }
            let Some(next) = answer.next else {
                let short = answer.shortfall.unwrap();
                assert!(short.reason == Reason::Pages && short.unseen == left.len(), "{short:?}");
                break;
            };
            page.page = Some(next);
        }
        assert_eq!(shown, left);
    }
}

#[tokio::test]
async fn a_token_of_another_request_or_release_is_refused() {
    let (kv, _store) = crate::support::embedded().await;
    let (kv2, _store2) = crate::support::embedded().await;
    let folder = TempDir::new().unwrap();
    let (engine, _) = online(kv, &folder).await;
    let request = Request { user: Some(OwnedId::U64(3)), ..Request::default() };
    let next = engine.recommend_one(&request).await.unwrap().next.unwrap();
    let continued = |request: &Request, page: &str| Request { page: Some(page.to_owned()), ..request.clone() };
    assert!(engine.recommend_one(&continued(&request, &next)).await.is_ok());
    let says = async |request: Request| engine.recommend_one(&request).await.unwrap_err().to_string();
    for other in [
        Request { user: Some(OwnedId::U64(4)), ..request.clone() },
        Request { k: 21, ..request.clone() },
        Request { exclude_seen: false, ..request.clone() },
        Request { filter: ItemFilter { none: vec!["color:1".into()], ..ItemFilter::default() }, ..request.clone() },
    ] {
        assert!(says(continued(&other, &next)).await.contains("another request"));
    }
    for at in 0..next.len() {
        let mut damaged = next.clone().into_bytes();
        damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        let answer = engine.recommend_one(&continued(&request, &damaged)).await;
        // the last digit has bits to spare
        assert!(answer.is_err() || at + 1 == next.len(), "digit {at}");
    }
    for nonsense in ["", "A", "AAAA", "äö", &"A".repeat(100_000)] {
        assert!(says(continued(&request, nonsense)).await.contains("damaged"), "{nonsense:.10}");
    }
    // the same items with another seed are another release
    let items = Vectors::open(&folder.path().join("items.npy")).unwrap();
    let users = Vectors::open(&folder.path().join("users.npy")).unwrap();
    let spec = BuildSpec { release: "tuesday", ..BuildSpec::new(&items, Metric::Dot) };
    let index = build(&spec, &folder.path().join("other.tng"), &|_| ()).unwrap().0;
    let source = UserSource::new(&index, &users, None, Codec::Int8).unwrap();
    publish(&kv2, "f", &Publication::new("tuesday"), &source, &mut |_| ()).await.unwrap();
    activate(&kv2, "f", "tuesday").await.unwrap();
    let other = Engine::new(Index::open(index.path()).unwrap(), UserVectors::open(kv2, "f").await.unwrap()).unwrap();
    let error = other.recommend_one(&continued(&request, &next)).await.unwrap_err();
    assert!(matches!(error, EngineError::PageExpired { .. }), "{error}");
}

#[tokio::test]
async fn recall_is_held_however_few_pass() {
    let (kv, _store) = crate::support::embedded().await;
    let folder = TempDir::new().unwrap();
    let (engine, judge) = online(kv, &folder).await;
    let (items, users) = (vectors::numbers(ITEMS as usize * DIM, 1), vectors::numbers(USERS * DIM, 2));
    let score = |user: usize, item: u64| -> f64 {
        let pair = users[user * DIM..][..DIM].iter().zip(&items[item as usize * DIM..][..DIM]);
        pair.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    for share in ["half", "tenth", "hundredth", "thousandth"] {
        let (mut hits, mut wanted) = (0, 0);
        // those who have neither a session nor seen anything
        for user in USERS / 2..USERS {
            let filter = ItemFilter { all: vec![format!("share:{share}").into()], ..ItemFilter::default() };
            let request = Request { user: Some(OwnedId::U64(user as u64)), k: 10, filter, ..Request::default() };
            let mut exact: Vec<u64> = judge.count(&request).left.into_iter().filter(|&item| item < ITEMS).collect();
            exact.sort_by(|&a, &b| score(user, b).total_cmp(&score(user, a)));
            exact.truncate(10);
            let answer = engine.recommend_one(&request).await.unwrap();
            let got = answer.items.iter().map(|item| item.id.to_string().parse::<u64>().unwrap());
            // what was added stands where it stands, and takes the place of the last
            let got: Vec<u64> = got.collect();
            let added = got.iter().filter(|&&item| item >= ITEMS).count();
            let last = exact.len().saturating_sub(if got.len() == 10 { added } else { 0 });
            wanted += last;
            hits += exact[..last].iter().filter(|item| got.contains(item)).count();
        }
        assert!(wanted > 0 && hits as f64 >= 0.95 * f64::from(wanted as u32), "{share}: {hits} of {wanted}");
    }
}
