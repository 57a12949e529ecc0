//! Whether the planner's prices are right: what it predicts of each serving mode, and what the mode does when it is run.
//!
//! A real `redis-server`, the bundled items and users, and a service with a thread for each core of this machine, all of
//! them as busy as they can be. What is measured is whole requests of every other user, by the clock of the wall; predictions
//! are made from a sample of the rest, and for real time from one effort, the first of those shown. Both are taken in
//! turns, so that a change of the machine's speed changes both, and what is said of each is the median.
//!
//! Where others use the machine at the time, the cores that they took are counted off: the prediction is of those left.
//!
//! `cargo bench --bench modes [-- --json]`. Without `--bench` (as `cargo test` runs it) it only takes a look.
#![allow(clippy::print_stdout, clippy::unwrap_used)] // a report is its purpose; a failure may well be a panic

#[path = "../tests/support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use support::RedisServer;
use tonnage::catalog::{BuildSpec, Index, build};
use tonnage::codec::{Codec, Metric};
use tonnage::engine::users::{Publication, UserSource, publish};
use tonnage::engine::{Effort, Engine, Request};
use tonnage::input::{Id, Vectors};
use tonnage::kv::{Kv, RedisKv};
use tonnage::plan::cost::{CostSpec, IN_FLIGHT, Op, SearchCost, StoreCosts, saturate, search_costs, store_costs};
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
const MODES: [Mode; 3] = [Mode::Offline, Mode::RealTime, Mode::Hybrid];

struct World {
    kv: RedisKv,
    engine: Engine<RedisKv>,
    users: usize,
    /// Of the index.
    items: u32,
}

/// One mode in one round.
#[derive(Clone, Copy, Serialize)]
struct Row {
    mode: Mode,
    ef: u32,
    /// Of all cores, were there nobody else.
    predicted_rps: f64,
    /// By the wall.
    measured_rps: f64,
    /// Cores that others took meanwhile.
    others: f64,
    /// Processor time of a request, predicted and measured, of service and server.
    predicted_us: [f64; 2],
    measured_us: [f64; 2],
}

impl Row {
    /// The prediction for the cores that were left, against the wall, in per cent.
    fn error(&self) -> f64 {
        let left = 1.0 - self.others / cores();
        (self.predicted_rps * left / self.measured_rps - 1.0) * 100.0
    }
}

/// Bench and service are on all of them.
fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

#[tokio::main(flavor = "multi_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let (length, rounds) =
        if has("--bench") { (Duration::from_millis(700), 11) } else { (Duration::from_millis(50), 1) };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian");
    let items = Vectors::open(&data.join("items.npy")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [sampled, asking] = halves(&Vectors::open(&data.join("users.npy")).unwrap(), folder.path());
    let index = build(&BuildSpec::new(&items, Metric::Dot), &folder.path().join("modes.tng"), &|_| ()).unwrap().0;
    let path = index.path().to_owned();
    let efs = [index.profile().default_ef() as u32, 64, 128];
    let server = RedisServer::start(&[]);
    let world = Arc::new(World::new(index, &asking, server.connect().await).await);
    let spec = CostSpec {
        users: &sampled,
        metric: Metric::Dot,
        codec: Codec::Int8,
        dense: true,
        k: K,
        items: world.items,
        list_items: LIST_ITEMS,
        candidates_items: 5 * LIST_ITEMS,
    };
    let (mut rows, mut ops) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let again = Index::open(&path).unwrap();
        let store = store_costs(&world.kv, &spec, again, &mut |_| ()).await.unwrap();
        let searches = search_costs(world.engine.index(), &spec, &efs, &mut |_| ()).unwrap();
        for search in &searches {
            for mode in MODES {
                rows.push(compare(&world, &server, &store, search, mode, length).await);
            }
        }
        ops.push((store, searches));
    }
    if has("--json") {
        println!("{}", serde_json::to_string_pretty(&(rows, ops)).unwrap());
        return;
    }
    println!("{} items, {} cores with {IN_FLIGHT} in flight on each, {rounds} turns", items.rows(), cores());
    print_parts(&ops, &efs);
    print_modes(&rows, &efs);
}

/// Every other user, and the rest: to predict from, and to ask.
fn halves(users: &Vectors, folder: &Path) -> [Vectors; 2] {
    let mut all = vec![0.0; users.rows() * users.dim()];
    users.read(0, &mut all).unwrap();
    [0, 1].map(|half| {
        let path = folder.join(format!("half-{half}.fvecs"));
        let mut bytes = Vec::with_capacity(all.len() * 3);
        for vector in all.chunks(users.dim()).skip(half).step_by(2) {
            bytes.extend((users.dim() as u32).to_le_bytes());
            bytes.extend(vector.iter().flat_map(|x| x.to_le_bytes()));
        }
        std::fs::write(&path, bytes).unwrap();
        Vectors::open(&path).unwrap()
    })
}

impl World {
    /// The users published, and lists for seven in ten of them.
    async fn new(index: Index, users: &Vectors, kv: RedisKv) -> Self {
        let source = UserSource::new(&index, users, None, Codec::Int8).unwrap();
        publish(&kv, NS, &Publication::new("modes"), &source, &mut |_| ()).await.unwrap();
        activate(&kv, NS, "modes").await.unwrap();
        let items = index.len() as u32;
        let best: Vec<Ranked> = (0..LIST_ITEMS).map(|row| Ranked { row, score: -(row as f32) }).collect();
        let list = pack_list(&best, items, SALT).unwrap();
        let lists = (0..users.rows()).filter(|user| user % 10 < WITH_LIST).map(|user| (list_key(user), list.clone()));
        kv.set_many(lists.collect(), None).await.unwrap();
        let engine = Engine::new(index, UserVectors::open(kv.clone(), NS).await.unwrap()).unwrap();
        Self { kv, engine, users: users.rows(), items }
    }
}

/// What the steps of a request cost, in the middle of all turns.
fn print_parts(turns: &[(StoreCosts, Vec<SearchCost>)], efs: &[u32]) {
    println!("{:<24}{:>12}{:>12}{:>12}{:>10}{:>10}", "microseconds", "service", "server", "idle", "p50", "p99");
    let names = ["list", "candidates", "look in vain", "all but the search", "write a list"].map(str::to_owned);
    let names = names.into_iter().chain(efs.iter().map(|ef| format!("search, ef {ef}")));
    let of_turn = |(store, searches): &(StoreCosts, Vec<SearchCost>)| {
        let StoreCosts { list, candidates, missed, vector, write, .. } = *store;
        let searched = searches.iter().map(|search| search.op);
        [list, candidates, missed, vector, write].into_iter().chain(searched).collect::<Vec<Op>>()
    };
    let turns: Vec<Vec<Op>> = turns.iter().map(of_turn).collect();
    for (at, name) in names.enumerate() {
        let middle = |value: fn(&Op) -> f64| median(turns.iter().map(|ops| value(&ops[at])));
        let [client_us, server_us] = [middle(|op| op.cost.client_us), middle(|op| op.cost.server_us)];
        let [idle_us, p50_us, p99_us] =
            [middle(|op| op.cost.idle_us), middle(|op| op.p50_us), middle(|op| op.cost.p99_us)];
        println!("{name:<24}{client_us:>12.2}{server_us:>12.2}{idle_us:>12.2}{p50_us:>10.1}{p99_us:>10.1}");
    }
}

/// Predicted and measured, in the middle of all turns.
fn print_modes(rows: &[Row], efs: &[u32]) {
    println!(
        "\n{:<12}{:>6}{:>12}{:>12}{:>8}{:>18}{:>18}{:>9}{:>18}",
        "mode", "ef", "predicted", "measured", "others", "us: service", "server", "error", "from .. to"
    );
    for &ef in efs {
        for mode in MODES {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.mode == mode && row.ef == ef).collect();
            let middle = |value: fn(&Row) -> f64| median(rows.iter().map(|row| value(row)));
            let errors = || rows.iter().map(|row| row.error());
            println!(
                "{:<12}{ef:>6}{:>12.0}{:>12.0}{:>8.2}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>8.1}%{:>8.1}%{:>8.1}%",
                format!("{mode:?}"),
                middle(|row| row.predicted_rps),
                middle(|row| row.measured_rps),
                middle(|row| row.others),
                middle(|row| row.predicted_us[0]),
                middle(|row| row.measured_us[0]),
                middle(|row| row.predicted_us[1]),
                middle(|row| row.measured_us[1]),
                median(errors()),
                errors().fold(f64::INFINITY, f64::min),
                errors().fold(f64::NEG_INFINITY, f64::max),
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn list_key(user: usize) -> Vec<u8> {
    format!("{NS}:list:{user}").into_bytes()
}

/// A mode, run for a while, against its prediction.
async fn compare(
    world: &Arc<World>,
    server: &RedisServer,
    store: &StoreCosts,
    search: &SearchCost,
    mode: Mode,
    length: Duration,
) -> Row {
    let shape = Request { k: K, effort: Effort::Ef(search.ef as usize), ..Request::default() };
    let run = async |length| {
        let (world, shape) = (Arc::clone(world), shape.clone());
        let one = move |at| {
            let (world, shape) = (Arc::clone(&world), shape.clone());
            async move {
                request(&world, &shape, mode, at).await;
                Ok::<(), Infallible>(())
            }
        };
        saturate(length, one).await.unwrap()
    };
    run(length / 4).await;
    let (started, before) = (Instant::now(), Busy::now(server));
    let done = run(length).await as f64;
    let (seconds, after) = (started.elapsed().as_secs_f64(), Busy::now(server));
    let [own_s, server_s, all_s] = [after.own - before.own, after.server - before.server, after.all - before.all];
    let (list, missed, vector) = (store.list.cost, store.missed.cost, store.vector.cost);
    let steps = Steps { list, missed, vector, search: search.op.cost, write: Cost::default() };
    let cost = steps.request(mode, WITH_LIST as f64 / 10.0);
    Row {
        mode,
        ef: search.ef,
        predicted_rps: cost.requests_per_s(store.cores),
        measured_rps: done / seconds,
        others: ((all_s - own_s - server_s) / seconds).max(0.0),
        predicted_us: [cost.client_us, cost.server_us],
        measured_us: [own_s, server_s].map(|s| s * 1e6 / done),
    }
}

/// Processor time so far, in seconds.
struct Busy {
    /// Of this process.
    own: f64,
    /// Of the server.
    server: f64,
    /// Of everyone.
    all: f64,
}

impl Busy {
    fn now(server: &RedisServer) -> Self {
        let of = |pid: String| {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let ns = |task: std::io::Result<std::fs::DirEntry>| {
                let text = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
                text.split_whitespace().next().map_or(0.0, |ns| ns.parse::<f64>().unwrap())
            };
            tasks.map(ns).sum::<f64>() / 1e9
        };
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let ticks: Vec<f64> =
            stat.lines().next().unwrap().split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        // all but idle and waiting for disks; a tick is a hundredth of a second
        let all = (ticks[..8].iter().sum::<f64>() - ticks[3] - ticks[4]) / 100.0;
        let info = server.say("INFO server").unwrap();
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap();
        Self { own: of("self".to_owned()), server: of(pid.to_owned()), all }
    }
}

async fn request(world: &World, shape: &Request, mode: Mode, at: usize) {
    let user = at * STRIDE % (world.users / 10 * 10);
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
    let request = Request { user: Some(Id::U64(user as u64).into()), ..shape.clone() };
    let answer = world.engine.recommend_one(&request).await.unwrap();
    assert!(!answer.items.is_empty());
}
