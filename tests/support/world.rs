//! What a trainer left, an index made of it, and the answers that an exhaustive computation gives: for tests of the engine.

use std::path::Path;

use tempfile::TempDir;
use tonnage::catalog::{BuildSpec, Index, build};
use tonnage::codec::{Codec, Metric};
use tonnage::engine::users::{Publication, UserSource, publish};
use tonnage::engine::{Answer, Clause, Engine, ItemFilter, OwnedId, Request};
use tonnage::graph::BuildOptions;
use tonnage::input::{Ids, Tags, Vectors};
use tonnage::kv::Kv;
use tonnage::store::{UserVectors, activate};

use super::vectors::{numbers, write_npy};

/// Namespace of the users.
pub const NS: &str = "e";
/// How many there are.
pub const ITEMS: usize = 400;
pub const USERS: usize = 100;
pub const DIM: usize = 24;
/// Rows of the items with the tag `rare`: half a percent of them.
pub const RARE: [u32; 2] = [123, 321];

/// What a trainer left, and the index made of it.
pub struct World {
    pub folder: TempDir,
    pub metric: Metric,
    pub items: Vec<f32>,
    pub users: Vec<f32>,
    pub item_names: Vec<String>,
    pub user_names: Vec<String>,
}

impl World {
    pub fn new(metric: Metric, codec: Codec) -> Self {
        let world = Self {
            folder: TempDir::new().unwrap(),
            metric,
            items: numbers(ITEMS * DIM, 1),
            users: numbers(USERS * DIM, 2),
            item_names: (0..ITEMS).map(|row| format!("item-{row}")).collect(),
            user_names: (0..USERS).map(|row| format!("user-{row}")).collect(),
        };
        write_npy(&world.path("items.npy"), &world.items, DIM);
        write_npy(&world.path("users.npy"), &world.users, DIM);
        world.build("index.tng", codec, 1, true);
        world
    }

    pub fn dot() -> Self {
        Self::new(Metric::Dot, Codec::Int8)
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub fn build(&self, name: &str, codec: Codec, seed: u64, popularity: bool) {
        let (items, users) = (open(&self.path("items.npy")), open(&self.path("users.npy")));
        let ids = Ids::Text(self.item_names.iter().collect());
        let rows = |wanted: &dyn Fn(u32) -> bool| (0..ITEMS as u32).filter(|&row| wanted(row)).collect();
        let tags = Tags {
            names: ["even", "odd", "rare"].map(str::to_owned).to_vec(),
            rows: vec![rows(&|row| row % 2 == 0), rows(&|row| row % 2 == 1), RARE.to_vec()],
        };
        // the later the row, the more popular
        let popular: Vec<f32> = (0..ITEMS).map(|row| row as f32).collect();
        let spec = BuildSpec {
            ids: Some(&ids),
            tags: Some(&tags),
            popularity: popularity.then_some(&popular[..]),
            users: Some(&users),
            codec,
            finer: (codec == Codec::Int8).then_some(Codec::F16),
            graph: BuildOptions { seed, ..BuildOptions::new(self.metric) },
            release: "monday",
            ..BuildSpec::new(&items, self.metric)
        };
        build(&spec, &self.path(name), &|_| ()).unwrap();
    }

    /// Publishes the users for the index of that name and joins both.
    pub async fn engine_of<K: Kv + Clone>(&self, kv: &K, name: &str, codec: Codec) -> Engine<K> {
        let (index, users) = (Index::open(&self.path(name)).unwrap(), open(&self.path("users.npy")));
        let ids = Ids::Text(self.user_names.iter().collect());
        let source = UserSource::new(&index, &users, Some(&ids), codec).unwrap();
        let release = format!("{name}-{codec}");
        publish(kv, NS, &Publication::new(&release), &source, &mut |_| ()).await.unwrap();
        activate(kv, NS, &release).await.unwrap();
        Engine::new(index, UserVectors::open(kv.clone(), NS).await.unwrap()).unwrap()
    }

    pub async fn engine<K: Kv + Clone>(&self, kv: &K) -> Engine<K> {
        self.engine_of(kv, "index.tng", Codec::Int8).await
    }

    /// The score of an item for a user, in `f64`.
    pub fn score(&self, user: usize, item: usize) -> f64 {
        let (user, item) = (&self.users[user * DIM..][..DIM], &self.items[item * DIM..][..DIM]);
        let sum = |f: &dyn Fn(f64, f64) -> f64| user.iter().zip(item).map(|(&u, &i)| f(u.into(), i.into())).sum();
        match self.metric {
            Metric::Dot => sum(&|u, i| u * i),
            Metric::Cosine => {
                let norms: [f64; 2] = [sum(&|u, _| u * u), sum(&|_, i| i * i)];
                sum(&|u, i| u * i) / (norms[0] * norms[1]).sqrt()
            }
            Metric::L2 => -sum(&|u, i| (u - i) * (u - i)),
        }
    }

    /// Rows of the best `k` items that are allowed, every item scored.
    pub fn best(&self, user: usize, k: usize, allowed: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..ITEMS as u32).filter(|&row| allowed(row)).collect();
        rows.sort_by(|&a, &b| self.score(user, b as usize).total_cmp(&self.score(user, a as usize)));
        rows.truncate(k);
        rows
    }

    pub fn ask(&self, user: usize, shape: &Request, seen: &[u32]) -> Request {
        let seen = seen.iter().map(|&row| OwnedId::parse(&self.item_names[row as usize])).collect();
        Request { user: Some(OwnedId::parse(&self.user_names[user])), seen, ..shape.clone() }
    }

    /// Answers for every user, who has seen the items that `seen` says.
    pub async fn answers<K: Kv>(&self, engine: &Engine<K>, shape: &Request, seen: &[u32]) -> Vec<Answer> {
        let requests: Vec<Request> = (0..USERS).map(|user| self.ask(user, shape, seen)).collect();
        engine.recommend(&requests).await.into_iter().collect::<Result<_, _>>().unwrap()
    }

    /// Share of the exact answers that came, over all users.
    pub async fn recall<K: Kv>(&self, engine: &Engine<K>) -> f64 {
        let answers = self.answers(engine, &shape(10), &[]).await;
        let hits = answers.iter().enumerate().map(|(user, answer)| {
            let exact = self.best(user, 10, |_| true);
            rows(answer).iter().filter(|row| exact.contains(row)).count()
        });
        hits.sum::<usize>() as f64 / (10 * USERS) as f64
    }
}

pub fn open(path: &Path) -> Vectors {
    Vectors::open(path).unwrap()
}

pub fn shape(k: usize) -> Request {
    Request { k, ..Request::default() }
}

pub fn tagged(k: usize, any: &[&str], none: &[&str]) -> Request {
    let names = |names: &[&str]| names.iter().map(|&name| name.into()).collect::<Vec<Clause>>();
    let any = if any.is_empty() { Vec::new() } else { vec![names(any)] };
    Request { k, filter: ItemFilter { any, none: names(none), ..ItemFilter::default() }, ..Request::default() }
}

/// Rows of an answer's items in the trainer's files, by their ids; never one twice, and the best first.
pub fn rows(answer: &Answer) -> Vec<u32> {
    assert!(answer.items.is_sorted_by(|a, b| a.score >= b.score));
    let row = |id: String| id.strip_prefix("item-").unwrap().parse().unwrap();
    let rows: Vec<u32> = answer.items.iter().map(|item| row(item.id.to_string())).collect();
    let mut unique = rows.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), rows.len(), "an item came twice: {rows:?}");
    rows
}
