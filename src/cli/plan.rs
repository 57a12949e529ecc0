//! `tonnage plan`

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;

use super::out::{self, Output};
use super::{Usage, units};
use crate::catalog::Index;
use crate::codec::Metric;
use crate::file::available_bytes;
use crate::input::{Ids, Vectors, check_rows};
use crate::kv::memory::Server;
use crate::kv::{AnyKv, Probe};
use crate::plan::cost::StoreCosts;
use crate::plan::heldout::{Case, read_cases};
use crate::plan::quality::sample_size;
use crate::plan::report::{ModeReport, ModeSpec, Model, Report, html, text};
use crate::plan::study::{Findings, Stage, StudySpec, TRIED_ITEMS, study};
use crate::plan::traffic::{Traffic, read_log};
use crate::plan::{Budgets, Cache, Cost, Entry, FORMAT, Facts, Floor, Mode, Outcome, PlanFile, Problem, Target, solve};

/// Items of a stored list: what ten pages of ten need.
const LIST_ITEMS: u32 = 100;
/// Items of a set of candidates: enough that filters which one in five passes leave a list.
const CANDIDATE_ITEMS: u32 = 500;
/// Connections of all serving machines to a node: two each of eight.
const CONNECTIONS: u32 = 16;

/// Characters of the namespace of `publish`.
const NAMESPACE_BYTES: u32 = 7;
/// TTL of lists in a hybrid that is only shown for comparison.
const HYBRID_TTL_S: f64 = 3600.0;

/// Turn budgets into settings: what fits in Redis and in memory, reaches the recall and carries the traffic
///
/// Codecs and searches are measured on the given vectors and this machine, the store on the given server (a small scratch
/// release is written to it and removed) or else on an embedded file. Nothing is published. When nothing fits, the
/// budgets that cannot be met are named, with the least changes that would do, and the exit code is 9.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Item vectors, one a row
    #[arg(long, value_name = "FILE")]
    items: PathBuf,
    /// Item ids, one a vector, as the index was built with
    #[arg(long, value_name = "FILE")]
    item_ids: Option<PathBuf>,
    /// User vectors, one a row
    #[arg(long, value_name = "FILE")]
    users: PathBuf,
    /// User ids, one a vector [default: a column of --users, else row numbers, which are packed densest]
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// The index that will be served [default: some are made for a try, of at most 50,000 items]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// How users and items are compared: dot, cosine or l2 [default: that of the index]
    #[arg(long, required_unless_present = "index")]
    metric: Option<Metric>,
    /// Interactions held out from training (columns user, item), to measure hit rate and NDCG by
    #[arg(long, value_name = "FILE")]
    heldout: Option<PathBuf>,
    /// Interactions that users have seen; these items do not count as answers
    #[arg(long, value_name = "FILE", requires = "heldout")]
    seen: Option<PathBuf>,
    /// Requests (columns user, time), to learn what caches would hit [default: an assumption, see --zipf]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Without a log: activity falls as rank^-EXPONENT. 0.8 is within the 0.64 to 0.83 that Breslau et al. found in six
    /// traces of web requests
    #[arg(long, default_value_t = 0.8, value_name = "EXPONENT", conflicts_with = "log",
          value_parser = units::within(0.0..=4.0))]
    zipf: f64,
    /// The server to plan for: it is probed, and reads and writes are timed on it
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// `maxmemory` of a node: bytes, or with a unit (2GiB, 512MB) [default: that of --store]
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    redis: Option<u64>,
    /// Memory of a serving machine for indexes and caches [default: what this machine has available]
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    ram: Option<u64>,
    /// Recall that must be reached, by the lower bound of what is measured. 0.95: of ten items one in two answers has
    /// another than it should
    #[arg(long, default_value_t = 0.95, value_name = "RECALL")]
    recall: f64,
    /// Instead of --recall: the share of NDCG on held-out interactions that may be lost
    #[arg(long, value_name = "SHARE", requires = "heldout", conflicts_with = "recall")]
    ranking_loss: Option<f64>,
    /// Items of an answer, no more than a stored list holds
    #[arg(long, short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_ITEMS)))]
    k: u32,
    /// Requests a second at the peak. 100: a shop with a million visits a day
    #[arg(long, default_value_t = 100.0, value_name = "N")]
    rps: f64,
    /// What one request in a hundred may take, in milliseconds, without the way to the caller. 50: half of what people
    /// take for at once
    #[arg(long, default_value_t = 50.0, value_name = "MS")]
    p99_ms: f64,
    /// How old an answer may be: seconds, or with a unit (15min, 24h) [default: as old as a release]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    freshness: Option<Duration>,
    /// From one release to the next. A day: most train at night
    #[arg(long, default_value = "1d", value_name = "TIME", value_parser = units::time)]
    release_every: Duration,
    /// Releases kept to go back to. 1: the last that worked
    #[arg(long, default_value_t = 1, value_name = "N")]
    releases_kept: u32,
    /// Least share of requests by users who are kept; others get what is popular. 0.9: no more than one in ten a stranger
    #[arg(long, default_value_t = 0.9, value_name = "SHARE")]
    coverage: f64,
    /// Nodes that the store may have; more than one make a cluster
    #[arg(long, default_value_t = 1, value_name = "N")]
    nodes: u32,
    /// Copies of each node
    #[arg(long, default_value_t = 0, value_name = "N")]
    replicas: u32,
    /// Cores for serving and for the store. 64: one large machine
    #[arg(long, default_value_t = 64, value_name = "N")]
    cores: u32,
    /// New users a year, in percent. 0: nothing is known
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = units::within(0.0..=10_000.0))]
    growth: f64,
    /// Where the plan goes, for `publish --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where the report goes as a page, one file that loads nothing
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Budgets that no plan meets; the report has said why.
#[derive(Debug, thiserror::Error)]
#[error("nothing fits the budgets; the report says what would help")]
pub struct NothingFits;

/// What training left, opened.
struct Inputs {
    items: Vectors,
    item_ids: Option<Ids>,
    users: Vectors,
    user_ids: Option<Ids>,
    index: Option<Index>,
    metric: Metric,
    cases: Vec<Case>,
    traffic: Option<Traffic>,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    // whatever maxmemory will be; said before minutes are spent
    budgets(args, 0).check().map_err(|error| Usage(error.to_string()))?;
    let inputs = open(args)?;
    ranking_can_be_measured(args, &inputs)?;
    let bars = Bars::default();
    // a thread for each core, as a service has: they are all kept busy while it is measured
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (findings, probe) = runtime.block_on(measure(args, &inputs, &bars))?;
    bars.finish();
    let report = decide(args, inputs, findings, probe.as_ref())?;
    if let (Some(path), Some(plan)) = (&args.out, report.plan()) {
        let Model { items, users, dim, metric, ref server, .. } = report.model;
        let target = Target { items, users, dim, metric, server: server.clone() };
        PlanFile { format: FORMAT, target, budgets: report.budgets, plan: plan.clone() }.write(path)?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, html(&report)).with_context(|| format!("writing {}", path.display()))?;
    }
    out.show(&report, || text(&report))?;
    if report.plan().is_none() { Err(NothingFits.into()) } else { Ok(()) }
}

fn open(args: &Args) -> anyhow::Result<Inputs> {
    let ids = |path: &Option<PathBuf>, vectors: &Vectors| {
        let ids = path.as_deref().map(Ids::open).transpose()?;
        if let (Some(ids), Some(path)) = (&ids, path) {
            check_rows(&format!("{} for {}", path.display(), vectors.path().display()), vectors.rows(), ids.len())?;
        }
        anyhow::Ok(ids)
    };
    let (items, users) = (Vectors::open(&args.items)?, Vectors::open(&args.users)?);
    let (item_ids, user_ids) = (ids(&args.item_ids, &items)?, ids(&args.ids, &users)?);
    let index = args.index.as_deref().map(Index::open).transpose()?;
    let of_index = index.as_ref().map(|index| index.meta().metric);
    let metric = match (args.metric, of_index) {
        (Some(asked), Some(found)) if asked != found => {
            return Err(Usage(format!("--metric is {asked} and the index was built for {found}")).into());
        }
        (asked, found) => asked.or(found).ok_or_else(|| Usage("--metric is needed without --index".to_owned()))?,
    };
    let cases = match &args.heldout {
        None => Vec::new(),
        Some(path) => {
            let (item_rows, user_rows) = (row_ids(&items), row_ids(&users));
            let known_items = item_ids.as_ref().or(items.ids()).unwrap_or(&item_rows);
            let known_users = user_ids.as_ref().or(users.ids()).unwrap_or(&user_rows);
            let most = sample_size(&items, users.rows());
            read_cases(path, args.seen.as_deref(), &known_users.index(), &known_items.index(), most)?
        }
    };
    let traffic = args.log.as_deref().map(read_log).transpose()?;
    Ok(Inputs { items, item_ids, users, user_ids, index, metric, cases, traffic })
}

/// Refuses a ceiling that nothing could be held against.
fn ranking_can_be_measured(args: &Args, inputs: &Inputs) -> Result<(), Usage> {
    let Some(heldout) = args.heldout.as_deref().filter(|_| args.ranking_loss.is_some()) else { return Ok(()) };
    if inputs.cases.is_empty() {
        return Err(Usage(format!(
            "--ranking-loss is measured on held-out interactions, and {} has none of a known user with a known item: are its \
             ids those of --users and --items?",
            heldout.display()
        )));
    }
    if inputs.index.is_none() && inputs.items.rows() > TRIED_ITEMS {
        return Err(Usage(format!(
            "--ranking-loss needs --index with more than {TRIED_ITEMS} items, got {}: indexes made for a try have only some of \
             the items, and held-out interactions are of all",
            inputs.items.rows()
        )));
    }
    Ok(())
}

fn row_ids(vectors: &Vectors) -> Ids {
    Ids::U64((0..vectors.rows() as u64).collect())
}

/// Probes the store, or takes a file for it, and measures.
async fn measure(args: &Args, inputs: &Inputs, bars: &Bars) -> anyhow::Result<(Findings, Option<Probe>)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("plan.redb");
    let address = args.store.clone().unwrap_or_else(|| file.to_string_lossy().into_owned());
    let kv = AnyKv::open(&address).await?;
    let probe = kv.probe().await?;
    maxmemory(args, probe.as_ref())?; // said before minutes are spent
    let spec = StudySpec {
        items: &inputs.items,
        ids: inputs.item_ids.as_ref(),
        users: &inputs.users,
        dense_users: dense(inputs),
        metric: inputs.metric,
        index: inputs.index.as_ref(),
        cases: &inputs.cases,
        floor: floor(args),
        k: args.k as usize,
        list_items: LIST_ITEMS,
        candidates_items: CANDIDATE_ITEMS,
    };
    let findings = study(&kv, &spec, &mut |stage, part| bars.show(stage, part)).await?;
    Ok((findings, probe))
}

fn dense(inputs: &Inputs) -> bool {
    inputs.user_ids.is_none() && inputs.users.ids().is_none()
}

fn floor(args: &Args) -> Floor {
    args.ranking_loss.map_or(Floor::Recall(args.recall), Floor::RankingLoss)
}

/// `maxmemory` of a node.
fn maxmemory(args: &Args, probe: Option<&Probe>) -> Result<u64, Usage> {
    let of_server = probe.and_then(|probe| probe.limit_bytes);
    args.redis
        .or(of_server)
        .ok_or_else(|| Usage("--redis is needed: the bytes that a node of the store may use".to_owned()))
}

/// Solves, and gathers what is to be told.
fn decide(args: &Args, inputs: Inputs, findings: Findings, probe: Option<&Probe>) -> anyhow::Result<Report> {
    let maxmemory_bytes = maxmemory(args, probe)?;
    let assumptions = assumptions(args, &findings, probe);
    let model = Model {
        items: inputs.items.rows() as u64,
        users: inputs.users.rows() as u64,
        dim: inputs.items.dim() as u32,
        metric: inputs.metric,
        release_every_s: args.release_every.as_secs_f64(),
        users_asked: findings.users_asked as u32,
        users_held_out: inputs.cases.len() as u32,
        k: args.k,
        server: probe.map_or("Redis 7.0 (assumed)".to_owned(), |probe| probe.version.clone()),
    };
    let budgets = budgets(args, maxmemory_bytes);
    let facts = facts(args, &inputs, &findings.store, probe);
    let traffic = inputs.traffic.unwrap_or_else(|| Traffic::assumed_zipf(model.users, args.zipf, args.rps));
    let problem = Problem { budgets, facts, measured: findings.measured(), traffic };
    let outcome = solve(&problem).map_err(|error| Usage(error.to_string()))?;
    let modes = modes(&problem, &findings, &outcome);
    let Findings { exact, indexes, store, .. } = findings;
    Ok(Report { model, budgets, outcome, traffic: problem.traffic, exact, indexes, store, modes, assumptions })
}

fn budgets(args: &Args, maxmemory_bytes: u64) -> Budgets {
    Budgets {
        maxmemory_bytes,
        local_ram_bytes: args.ram.or_else(available_bytes).unwrap_or(Budgets::default().local_ram_bytes),
        floor: floor(args),
        coverage: args.coverage,
        requests_per_s: args.rps,
        p99_ms: args.p99_ms,
        freshness_s: args.freshness.unwrap_or(args.release_every).as_secs_f64(),
        cores: args.cores,
        nodes: args.nodes,
        replicas: args.replicas,
        releases_kept: args.releases_kept,
    }
}

fn facts(args: &Args, inputs: &Inputs, store: &StoreCosts, probe: Option<&Probe>) -> Facts {
    let (users, items) = (inputs.users.rows() as u64, inputs.items.rows() as u64);
    let ids = inputs.user_ids.as_ref().or(inputs.users.ids());
    let id_bytes = ids.map_or(0, |ids| ids.iter().map(|id| id.to_string().len()).sum::<usize>() / ids.len().max(1));
    // what a server holds already is another's, or a release that stays beside the new one
    let used = probe.map(|probe| probe.used_bytes);
    Facts {
        users,
        items,
        dim: inputs.items.dim() as u32,
        dense_ids: dense(inputs),
        id_bytes: id_bytes as u32,
        users_per_day: users as f64 * args.growth / 100.0 / 365.0,
        release_every_s: args.release_every.as_secs_f64(),
        list_bytes: store.list_bytes,
        candidates_bytes: store.candidates_bytes,
        varied_share: 0.0,
        per_user: Vec::new(),
        ns_bytes: NAMESPACE_BYTES,
        server: probe.map_or(Server::REFERENCE, |probe| probe.server),
        overhead_bytes: used.unwrap_or(0).max(Facts::overhead(CONNECTIONS, args.replicas)),
    }
}

/// What is not measured.
fn assumptions(args: &Args, findings: &Findings, probe: Option<&Probe>) -> Vec<String> {
    let mut all = findings.assumptions.clone();
    match probe {
        None => all.push(
            "no server was given (--store): bytes are those of Redis 7.0 as Debian builds it, and reading and writing were \
             timed on a file, without a network or a server's own work"
                .to_owned(),
        ),
        Some(probe) => {
            all.extend(probe.unknown.iter().cloned());
            if probe.keys > 0 {
                let (keys, used) = (probe.keys, out::bytes(probe.used_bytes));
                all.push(format!("the {keys} keys that the server holds now, {used} with all else, stay beside what is planned"));
            }
        }
    }
    if args.log.is_none() {
        all.push(format!(
            "no log was given (--log): {} requests a second, activity of users falling as rank^-{}, independent of each other",
            args.rps, args.zipf
        ));
    }
    all.push(format!(
        "lists hold {LIST_ITEMS} items, packed in {} bytes, and sets of candidates {CANDIDATE_ITEMS}, in {}",
        findings.store.list_bytes, findings.store.candidates_bytes
    ));
    all.push(
        "a user's list serves all his requests; no sessions, overlays or seen items are kept in the store".to_owned(),
    );
    all.push(format!("{CONNECTIONS} connections to a node"));
    all
}

/// The modes with the codec and effort of the plan, or of the last index tried.
fn modes(problem: &Problem, findings: &Findings, outcome: &Outcome) -> Vec<ModeReport> {
    let plan = match outcome {
        Outcome::Fits { plan, .. } => Some(plan),
        Outcome::Nothing { .. } => None,
    };
    let chosen = plan.and_then(|plan| findings.search(plan.settings.items, plan.settings.ef));
    let tried = findings.indexes.last().and_then(|index| index.searches.get(index.searches.len() / 2).copied());
    let search = chosen.or(tried).map_or(Cost::default(), |search| search.op.cost);
    let (entry, ttl_s, release_every_s) = (Entry::Lists, HYBRID_TTL_S, problem.facts.release_every_s);
    let usual = [
        (Mode::Offline, Cache::Precomputed { entry, users: problem.facts.users }, 1.0, release_every_s),
        (Mode::RealTime, Cache::None, 0.0, 0.0),
        (
            Mode::Hybrid,
            Cache::Store { entry, ttl_s, on_read: false },
            problem.traffic.ttl_hit_rate(ttl_s, false),
            ttl_s.min(release_every_s),
        ),
    ];
    let shown = |(mode, cache, hit_rate, freshness_s)| match plan.filter(|plan| plan.settings.mode == mode) {
        None => ModeSpec { mode, cache, hit_rate, freshness_s },
        Some(plan) => ModeSpec {
            mode,
            cache: plan.settings.cache,
            hit_rate: plan.predicted.hit_rate,
            freshness_s: plan.predicted.freshness_s,
        },
    };
    let (costs, rate, cores) = (&problem.measured.costs, problem.budgets.requests_per_s, findings.store.cores);
    usual.map(|mode| ModeReport::of(shown(mode), costs, search, rate, cores)).into()
}

/// One bar for the stage that runs.
#[derive(Default)]
struct Bars(Mutex<Option<(Stage, ProgressBar)>>);

/// Steps of a bar.
const WHOLE: u64 = 1000;

impl Bars {
    fn show(&self, stage: Stage, part: f64) {
        let Ok(mut current) = self.0.lock() else { return };
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            let what = match stage {
                Stage::Codecs => "codecs",
                Stage::Build => "building",
                Stage::Index => "searching",
                Stage::Store => "store",
            };
            *current = Some((stage, out::progress(what, WHOLE)));
        }
        if let Some((_, bar)) = &*current {
            bar.set_position((part * WHOLE as f64) as u64);
        }
    }

    fn finish(&self) {
        if let Ok(Some((_, bar))) = self.0.lock().map(|mut current| current.take()) {
            bar.finish_and_clear();
        }
    }
}
