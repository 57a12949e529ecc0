//! `tonnage demo`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use super::out::{self, Output};
use crate::catalog::{self, BuildSpec, Index, SectionBytes, recall, top_by_codec, top_unseen};
use crate::codec::{Codec, Layout, Metric};
use crate::engine::users::{Publication, UserSource, publish};
use crate::engine::{Engine, Request};
use crate::input::{Id, Ids, Vectors, read_popularity, read_tags};
use crate::kv::{AnyKv, Kv};
use crate::plan::heldout::{Case, read_cases};
use crate::store::{Manifest, UserVectors, activate};

/// Run the whole job on bundled data: quantize, build, publish, recommend, and measure what it cost
///
/// The data is the package graph of Debian 12: a "user" is a package, its "items" are what it depends on, recommends,
/// suggests or enhances; vectors are factors of a matrix factorization, with one interaction of many users held out.
/// The store is an embedded file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundled data
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data/debian"))]
    data: PathBuf,
    /// Keep index and store in this folder [default: a temporary one, removed at the end]
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// Packages whose answers a person can judge.
const SHOWN: [&str; 4] = ["r-cran-ggplot2", "python3-matplotlib", "gnome-shell", "nginx-full"];
/// Users whose single requests are timed.
const TIMED: usize = 5000;
/// Users that codecs are compared on.
const COMPARED: usize = 1000;
const K: usize = 10;
const NAMESPACE: &str = "demo";

/// What `demo --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    items: usize,
    users: usize,
    dim: usize,
    recall_at_10: Recalls,
    ef: usize,
    distances: f64,
    repaired: u32,
    hit_rate_at_10: HitRates,
    held_out: usize,
    bytes_per_item: BTreeMap<String, f64>,
    bytes_per_user: f64,
    p50_us: f64,
    p99_us: f64,
    build_s: f64,
    publish_s: f64,
    recommendations: BTreeMap<String, Vec<String>>,
}

/// Against exact `f32`: each codec alone, every item scored, and the served index.
#[derive(Debug, Serialize)]
struct Recalls {
    f16: f64,
    int8: f64,
    int4: f64,
    served: f64,
}

/// On held-out interactions.
#[derive(Debug, Serialize)]
struct HitRates {
    exact: f64,
    served: f64,
}

/// The bundled data, opened.
struct Data {
    items: Vectors,
    users: Vectors,
    item_ids: Ids,
    user_ids: Ids,
    cases: Vec<Case>,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let folder = args.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(folder)?;
    let data = open(&args.data)?;
    let started = Instant::now();
    let index = build(&args.data, &data, &folder.join("debian.tng"))?;
    let build_s = started.elapsed().as_secs_f64();
    let report = super::runtime()?.block_on(async {
        let store = folder.join("users.redb");
        let kv = AnyKv::open(&store.to_string_lossy()).await?;
        let started = Instant::now();
        let manifest = load(&kv, &index, &data).await?;
        let publish_s = started.elapsed().as_secs_f64();
        let engine = Engine::new(index, UserVectors::open(kv, NAMESPACE).await?)?;
        measure(&engine, &data, &manifest, build_s, publish_s).await
    })?;
    out.show(&report, || text(&report))
}

fn open(folder: &Path) -> anyhow::Result<Data> {
    let (items, users) = (Vectors::open(&folder.join("items.npy"))?, Vectors::open(&folder.join("users.npy"))?);
    let item_ids = Ids::open(&folder.join("items.parquet"))?;
    let user_ids = Ids::open(&folder.join("users.txt"))?;
    let cases = cases(folder, &item_ids, &user_ids)?;
    Ok(Data { items, users, item_ids, user_ids, cases })
}

/// The held-out interactions of each user who has any, and what the user has seen.
fn cases(folder: &Path, item_ids: &Ids, user_ids: &Ids) -> anyhow::Result<Vec<Case>> {
    let (heldout, seen) = (folder.join("heldout.parquet"), folder.join("train.parquet"));
    Ok(read_cases(&heldout, Some(&seen), &user_ids.index(), &item_ids.index(), usize::MAX)?)
}

fn build(folder: &Path, data: &Data, path: &Path) -> anyhow::Result<Index> {
    let facts = folder.join("items.parquet");
    let tags = read_tags(&facts, &data.item_ids)?;
    let popularity = read_popularity(&facts, &data.item_ids)?;
    let spec = BuildSpec {
        ids: Some(&data.item_ids),
        tags: Some(&tags),
        popularity: Some(&popularity),
        users: Some(&data.users),
        release: "demo",
        ..BuildSpec::new(&data.items, Metric::Dot)
    };
    Ok(catalog::build(&spec, path, &|_| ())?.0)
}

async fn load(kv: &AnyKv, index: &Index, data: &Data) -> anyhow::Result<Manifest> {
    let source = UserSource::new(index, &data.users, Some(&data.user_ids), Codec::Int8)?;
    publish(kv, NAMESPACE, &Publication::new("demo"), &source, &mut |_| ()).await?;
    Ok(activate(kv, NAMESPACE, "demo").await?)
}

async fn measure<S: Kv>(
    engine: &Engine<S>,
    data: &Data,
    manifest: &Manifest,
    build_s: f64,
    publish_s: f64,
) -> anyhow::Result<Report> {
    let index = engine.index();
    let profile = index.profile();
    let ef = profile.default_ef();
    let rung = profile.rungs.iter().find(|rung| rung.ef as usize == ef);
    let (p50_us, p99_us) = latencies(engine, data).await?;
    Ok(Report {
        items: data.items.rows(),
        users: data.users.rows(),
        dim: data.items.dim(),
        recall_at_10: recalls(data, rung.map_or(0.0, |rung| rung.recall_at_10))?,
        ef,
        distances: rung.map_or(0.0, |rung| rung.distances),
        repaired: index.meta().repaired,
        hit_rate_at_10: hit_rates(engine, data).await?,
        held_out: data.cases.iter().map(|case| case.wanted.len()).sum(),
        bytes_per_item: index
            .sections()
            .into_iter()
            .map(|SectionBytes { name, per_item, .. }| (name, per_item))
            .collect(),
        bytes_per_user: manifest.bytes as f64 / f64::from(manifest.users),
        p50_us,
        p99_us,
        build_s,
        publish_s,
        recommendations: recommendations(engine, data).await?,
    })
}

fn recalls(data: &Data, served: f64) -> anyhow::Result<Recalls> {
    let dim = data.items.dim();
    let rows: Vec<u32> = (0..COMPARED).map(|at| (at * data.users.rows() / COMPARED) as u32).collect();
    let mut queries = vec![0.0; rows.len() * dim];
    data.users.gather(&rows, &mut queries)?;
    let top = |codec| top_by_codec(&data.items, Layout { codec, dim }, Metric::Dot, &queries, K);
    let truth = top(Codec::F32)?;
    let of = |codec| anyhow::Ok(recall(&truth, top(codec)?.iter().map(Vec::as_slice), K));
    Ok(Recalls { f16: of(Codec::F16)?, int8: of(Codec::Int8)?, int4: of(Codec::Int4)?, served })
}

/// By exact `f32` scores over all items, and as the engine answers from store and index.
async fn hit_rates<S: Kv>(engine: &Engine<S>, data: &Data) -> anyhow::Result<HitRates> {
    let (mut exact, mut served, mut wanted) = (0, 0, 0);
    for cases in data.cases.chunks(1024) {
        let requests: Vec<Request> = cases.iter().map(|case| request(data, case)).collect();
        let answers = engine.recommend(&requests).await;
        for (case, (answer, best)) in cases.iter().zip(answers.into_iter().zip(best(data, cases)?)) {
            let items = answer?.items;
            let id = |item: &u32| data.item_ids.get(*item as usize);
            let is_served = |item: &&u32| items.iter().any(|served| served.id.as_id() == id(item));
            served += case.wanted.iter().filter(is_served).count();
            exact += best.iter().filter(|(row, _)| case.wanted.binary_search(row).is_ok()).count();
            wanted += case.wanted.len();
        }
    }
    let share = |hits: usize| hits as f64 / wanted.max(1) as f64;
    Ok(HitRates { exact: share(exact), served: share(served) })
}

/// The best items by exact scores, with their rows: what a perfect index would answer.
fn best(data: &Data, cases: &[Case]) -> anyhow::Result<Vec<Vec<(u32, f32)>>> {
    let users: Vec<u32> = cases.iter().map(|case| case.user).collect();
    let seen: Vec<&[u32]> = cases.iter().map(|case| &case.seen[..]).collect();
    let dim = data.items.dim();
    let mut queries = vec![0.0; users.len() * dim];
    data.users.gather(&users, &mut queries)?;
    Ok(top_unseen(&data.items, Layout { codec: Codec::F32, dim }, Metric::Dot, &queries, &seen, K)?)
}

/// Median and 99th percentile of single requests, from user id to ranked item ids, in microseconds.
async fn latencies<S: Kv>(engine: &Engine<S>, data: &Data) -> anyhow::Result<(f64, f64)> {
    let mut times = Vec::with_capacity(TIMED);
    for case in data.cases.iter().take(TIMED) {
        let request = request(data, case);
        let started = Instant::now();
        let answer = engine.recommend_one(&request).await?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        std::hint::black_box(answer);
    }
    times.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    Ok((at(0.5), at(0.99)))
}

async fn recommendations<S: Kv>(engine: &Engine<S>, data: &Data) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let users = data.user_ids.index();
    let mut shown = BTreeMap::new();
    for name in SHOWN {
        let Some(row) = users.find(Id::parse(name)) else { continue };
        let seen = data.cases.iter().find(|case| case.user == row).map_or(&[][..], |case| &case.seen);
        let answer = engine.recommend_one(&request_of(data, Id::parse(name), seen)).await?;
        shown.insert(name.to_owned(), answer.items.iter().map(|item| item.id.to_string()).collect());
    }
    Ok(shown)
}

fn request(data: &Data, case: &Case) -> Request {
    request_of(data, data.user_ids.get(case.user as usize), &case.seen)
}

fn request_of(data: &Data, user: Id, seen: &[u32]) -> Request {
    let seen = seen.iter().map(|&row| data.item_ids.get(row as usize).into()).collect();
    Request { user: Some(user.into()), k: K, seen, ..Request::default() }
}

fn text(report: &Report) -> String {
    let mut text =
        format!("Debian 12 packages: {} items, {} users, {} dimensions\n\n", report.items, report.users, report.dim);
    for (package, items) in &report.recommendations {
        text.extend([package, "\n  ", &items.join(", "), "\n"]);
    }
    let rows = [
        ("recall@10 f16, every item scored", format!("{:.4}", report.recall_at_10.f16)),
        ("recall@10 int8, every item scored", format!("{:.4}", report.recall_at_10.int8)),
        ("recall@10 int4, every item scored", format!("{:.4}", report.recall_at_10.int4)),
        ("recall@10 of the served index", format!("{:.4}", report.recall_at_10.served)),
        ("  items visited (ef), items scored", format!("{}, {:.0}", report.ef, report.distances)),
        ("hit rate@10 on held-out interactions, exact", format!("{:.4}", report.hit_rate_at_10.exact)),
        ("hit rate@10 on held-out interactions, served", format!("{:.4}", report.hit_rate_at_10.served)),
        ("bytes a user in the store", format!("{:.1}", report.bytes_per_user)),
        ("recommend, median", format!("{:.0} us", report.p50_us)),
        ("recommend, 99th percentile", format!("{:.0} us", report.p99_us)),
        ("building the index, with its profile", format!("{:.1} s", report.build_s)),
        ("publishing the users", format!("{:.1} s", report.publish_s)),
    ];
    text.push('\n');
    text += &out::table(&["measured", ""], rows.map(|(what, value)| vec![what.to_owned(), value]));
    text.push('\n');
    let sections = report.bytes_per_item.iter().map(|(name, bytes)| vec![name.clone(), format!("{bytes:.1}")]);
    text + &out::table(&["section", "bytes/item"], sections)
}
