//! Whether the planner's prices are right: what it predicts of each serving mode, and what the mode does when it is run.
//!
//! A real `redis-server`, the bundled items and users, one thread with as many requests in flight as the planner assumes.
//! Predictions are sums of parts measured before; what is measured here is whole requests, by the clock of the wall.
//!
//! `cargo bench --bench modes [-- --json]`. Without `--bench` (as `cargo test` runs it) it only takes a look.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a report is its purpose; a failure may well be a panic

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde::Serialize;
use support::RedisServer;
use tonnage::catalog::{BuildSpec, build};
use tonnage::codec::{Codec, Metric};
use tonnage::engine::users::{Publication, UserSource, publish};
use tonnage::engine::{Effort, Engine, Request};
use tonnage::input::{Ids, Vectors};
use tonnage::kv::{Kv, RedisKv};
use tonnage::plan::cost::{CostSpec, IN_FLIGHT, SearchCost, StoreCosts, search_costs, store_costs};
use tonnage::plan::modes::Steps;
use tonnage::plan::{Cost, Mode};
use tonnage::store::{Ranked, UserVectors, activate, pack_list, unpack_list};

const NS: &str = "modes";
const K: usize = 10;
const LIST_ITEMS: u32 = 100;
/// What lists are packed with.
const SALT: u64 = 1;
/// Lists are kept for so many users in ten.
const WITH_LIST: usize = 7;
const STRIDE: usize = 1_000_003;

struct World {
    kv: RedisKv,
    engine: Engine<RedisKv>,
    user_ids: Ids,
    shape: Request,
    /// Of the index.
    items: u32,
}

#[derive(Serialize)]
struct Row {
    mode: Mode,
    ef: u32,
    predicted_rps: f64,
    measured_rps: f64,
    /// By the processor time of this process instead of the wall: what other processes take does not count.
    per_busy_core: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (length, rounds) = if has("--bench") { (Duration::from_secs(1), 5) } else { (Duration::from_millis(50), 1) };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian");
    let open = |name: &str| Vectors::open(&data.join(name)).unwrap();
    let (items, users) = (open("items.npy"), open("users.npy"));
    let item_ids = Ids::open(&data.join("items.parquet")).unwrap();
    let user_ids = Ids::open(&data.join("users.txt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let spec = BuildSpec { ids: Some(&item_ids), ..BuildSpec::new(&items, Metric::Dot) };
    let index = build(&spec, &folder.path().join("modes.tng"), &|_| ()).unwrap().0;
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let efs = [index.profile().default_ef() as u32, 128];
    let spec = CostSpec {
        users: &users,
        metric: Metric::Dot,
        codec: Codec::Int8,
        dense: false,
        k: K,
        items: items.rows() as u32,
        list_items: LIST_ITEMS,
        candidates_items: 5 * LIST_ITEMS,
    };
    let store = store_costs(&kv, &spec, &mut |_| ()).await.unwrap();
    let searches = search_costs(&index, &spec, &efs, &mut |_| ()).unwrap();
    let source = UserSource::new(&index, &users, Some(&user_ids), Codec::Int8).unwrap();
    publish(&kv, NS, &Publication::new("modes"), &source, &mut |_| ()).await.unwrap();
    activate(&kv, NS, "modes").await.unwrap();
    let best: Vec<Ranked> = (0..LIST_ITEMS).map(|row| Ranked { row, score: -(row as f32) }).collect();
    let list = pack_list(&best, items.rows() as u32, SALT).unwrap();
    let lists = (0..user_ids.len()).filter(|user| user % 10 < WITH_LIST).map(|user| (list_key(user), list.clone()));
    kv.set_many(lists.collect(), None).await.unwrap();
    let engine = Engine::new(index, UserVectors::open(kv.clone(), NS).await.unwrap()).unwrap();
    let shape = Request { k: K, ..Request::default() };
    let mut world = World { kv, engine, user_ids, shape, items: items.rows() as u32 };
    let mut rows = Vec::new();
    for search in &searches {
        world.shape.effort = Effort::Ef(search.ef as usize);
        for mode in [Mode::Offline, Mode::RealTime, Mode::Hybrid] {
            rows.push(compare(&world, &store, search, mode, length, rounds).await);
        }
    }
    if has("--json") {
        println!("{}", serde_json::to_string_pretty(&(rows, store, searches)).unwrap());
        return;
    }
    println!("{} items, {IN_FLIGHT} in flight on one thread, lists of {} bytes", items.rows(), store.list_bytes);
    println!("{:<24}{:>12}{:>12}{:>10}{:>10}", "microseconds", "service", "server", "p50", "p99");
    let mut ops = vec![
        ("read a list".to_owned(), store.list),
        ("read candidates".to_owned(), store.candidates),
        ("read a vector".to_owned(), store.vector),
        ("read a hundred, each".to_owned(), store.batched),
        ("write a list".to_owned(), store.write),
    ];
    ops.extend(searches.iter().map(|search| (format!("search, ef {}", search.ef), search.op)));
    for (name, op) in ops {
        let cost = op.cost;
        println!("{name:<24}{:>12.2}{:>12.2}{:>10.1}{:>10.1}", cost.client_us, cost.server_us, op.p50_us, cost.p99_us);
    }
    println!(
        "\n{:<12}{:>6}{:>14}{:>14}{:>9}{:>16}{:>9}",
        "mode", "ef", "predicted", "measured", "error", "per busy core", "error"
    );
    for Row { mode, ef, predicted_rps, measured_rps, per_busy_core } in rows {
        let mode = format!("{mode:?}");
        let error = |got: f64| format!("{:.1}%", (predicted_rps / got - 1.0) * 100.0);
        println!(
            "{mode:<12}{ef:>6}{predicted_rps:>14.0}{measured_rps:>14.0}{:>9}{per_busy_core:>16.0}{:>9}",
            error(measured_rps),
            error(per_busy_core)
        );
    }
}

fn list_key(user: usize) -> Vec<u8> {
    format!("{NS}:list:{user}").into_bytes()
}

/// The median round of a mode, against its prediction.
async fn compare(
    world: &World,
    store: &StoreCosts,
    search: &SearchCost,
    mode: Mode,
    length: Duration,
    rounds: usize,
) -> Row {
    run(world, mode, length / 4).await;
    let (mut measured, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (by_wall, by_processor) = run(world, mode, length).await;
        measured.push(by_wall);
        busy.push(by_processor);
    }
    measured.sort_by(f64::total_cmp);
    busy.sort_by(f64::total_cmp);
    let hit_rate = WITH_LIST as f64 / 10.0;
    let (list, vector, write) = (store.list.cost, store.vector.cost, Cost::default());
    let Cost { client_us, server_us, .. } =
        Steps { list, vector, search: search.op.cost, write }.request(mode, hit_rate);
    // one thread of the service and one of the server: the slower one is the limit
    let predicted_rps = 1e6 / client_us.max(server_us);
    Row { mode, ef: search.ef, predicted_rps, measured_rps: measured[rounds / 2], per_busy_core: busy[rounds / 2] }
}

/// Requests a second of a mode, run for a while: of the wall and of the processor.
async fn run(world: &World, mode: Mode, length: Duration) -> (f64, f64) {
    let (started, busy) = (Instant::now(), busy_s());
    let requests = stream::iter((0..).take_while(|_| started.elapsed() < length));
    let answers = requests.map(|at| request(world, mode, at)).buffer_unordered(IN_FLIGHT);
    let done = answers.fold(0, async |done, ()| done + 1).await;
    (f64::from(done) / started.elapsed().as_secs_f64(), f64::from(done) / (busy_s() - busy))
}

/// Processor time of this thread.
fn busy_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

async fn request(world: &World, mode: Mode, at: usize) {
    let user = at * STRIDE % world.user_ids.len();
    // offline means a list for everyone; here everyone is one of those who have one
    let owner = if mode == Mode::Offline { user / 10 * 10 + user % WITH_LIST } else { user };
    if mode != Mode::RealTime {
        let list = world.kv.get_many(&[list_key(owner)]).await.unwrap().pop().unwrap();
        if let Some(list) = list {
            let best = unpack_list(&list, world.items, SALT).unwrap();
            assert_eq!(std::hint::black_box(&best[..K]).len(), K);
            return;
        }
        assert!(mode == Mode::Hybrid && owner % 10 >= WITH_LIST, "user {owner} has no list");
    }
    let request = Request { user: Some(world.user_ids.get(user).into()), ..world.shape.clone() };
    let answer = world.engine.recommend_one(&request).await.unwrap();
    assert!(!answer.items.is_empty());
}
