//! `tonnage publish`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde::Serialize;

use super::out::{self, Output};
use super::{Usage, new_items, units};
use crate::catalog::Index;
use crate::codec::Codec;
use crate::engine::users::{Publication, Step, UserSource};
use crate::engine::{EngineError, items, users};
use crate::input::{Ids, Vectors};
use crate::kv::AnyKv;
use crate::plan::quality::ItemForm;
use crate::plan::{PlanFile, Publishing};
use crate::store::{
    Footprint, Listed, Manifest, PublishOptions, Room, State, Strategy, activate, activate_with_items, items_ns, list,
    lower_codecs,
};

/// Load user vectors into Redis or an embedded store as a release that belongs to an index, and activate it
///
/// Users without ids are numbered by row and packed densest. What the release will cost is predicted first, and one that
/// does not fit is refused before anything is written. Everything written is read back and compared before the release
/// is activated; until then readers see the release before it, and if anything goes wrong nothing of the new one stays.
///
/// With --items and --service it is new items that go to services that run: they are answered from then on, until the
/// next index is built with them. With --index, a service that serves another release refuses them.
///
/// With --item-pages it is the index's item vectors that are loaded, by row, for services that read vectors and do not
/// search. They go with the users' release of the same name: activated, retired and cleared up with it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The index that these users will search
    #[arg(long, value_name = "FILE", required_unless_present = "items")]
    index: Option<PathBuf>,
    /// User vectors, one a row
    #[arg(long, value_name = "FILE", required_unless_present_any = ["item_pages", "items"])]
    users: Option<PathBuf>,
    /// Ids, one a vector [default: a column of --users or --items, else for users row numbers]
    #[arg(long, value_name = "FILE", conflicts_with = "item_pages")]
    ids: Option<PathBuf>,
    #[command(flatten)]
    new: new_items::NewItems,
    /// Load the index's item vectors into pages, by row, instead of users
    #[arg(long, conflicts_with_all = ["users", "plan"])]
    item_pages: bool,
    /// Where users are kept: redis://host:port/db, redis-cluster://host:port, or the path of an embedded file
    #[arg(long, value_name = "STORE", required_unless_present = "items")]
    store: Option<String>,
    /// Prefix of every key
    #[arg(long, default_value = "tonnage")]
    namespace: String,
    /// A plan by `tonnage plan --out`: its codec, its maxmemory as the budget, and rolling where it says so and a release is
    /// active
    #[arg(long, value_name = "FILE", conflicts_with = "codec")]
    plan: Option<PathBuf>,
    /// How vectors are kept: f32, f16, int8 or int4
    #[arg(long, default_value = "int8")]
    codec: Codec,
    /// Name of the release [default: the index's]
    #[arg(long)]
    release: Option<String>,
    /// Publish beside the active release, and leave that as it is
    #[arg(long)]
    no_activate: bool,
    /// The most that the server may use in all: bytes, or with a unit (1.5GB, 512MiB). Its own maxmemory counts too, if
    /// it is smaller. In a cluster it is for each server by itself. For an embedded file it is the file's length, and only
    /// estimated
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    budget_bytes: Option<u64>,
    /// What to do when the release does not fit beside the active one; without, it is refused
    #[arg(long)]
    strategy: Option<Way>,
    /// With --strategy replace: accept that nobody has a vector until the new release is there
    #[arg(long)]
    allow_gap: bool,
    /// How long the release may wait to be activated before it goes away: seconds, or with a unit (90s, 30m, 24h, 2d).
    /// It also bounds how long the writing may take
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = units::time)]
    grace: Duration,
}

/// What is about a release in a store, and not about new items for services.
pub const NOT_WITH_ITEMS: [&str; 12] = [
    "users",
    "item_pages",
    "store",
    "namespace",
    "plan",
    "codec",
    "release",
    "no_activate",
    "budget_bytes",
    "strategy",
    "allow_gap",
    "grace",
];

/// Each says on standard error what it costs before it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    /// The next codec of fewer bytes that fits; costs quality
    LowerCodec,
    /// Into the pages of the active release, one after another; costs the way back, and meanwhile part of the users
    Rolling,
    /// Remove the active release first; costs the way back, and meanwhile all of the users
    Replace,
}

/// What is loaded.
enum Source<'a> {
    Users(UserSource<'a>, &'a Vectors),
    Items(&'a Index, Codec),
}

impl Source<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Users(_, vectors) => vectors.rows(),
            Self::Items(index, _) => index.len(),
        }
    }

    /// One of them, and several.
    fn called(&self) -> (&'static str, &'static str) {
        match self {
            Self::Users(..) => ("a user", "users"),
            Self::Items(..) => ("an item", "items"),
        }
    }

    /// Where they are kept.
    fn namespace(&self, users: &str) -> String {
        match self {
            Self::Users(..) => users.to_owned(),
            Self::Items(..) => items_ns(users),
        }
    }

    async fn publish(
        &self,
        kv: &AnyKv,
        ns: &str,
        publication: &Publication<'_>,
        tell: &mut (dyn FnMut(Step<'_>) + Send),
    ) -> Result<Manifest, EngineError> {
        match self {
            Self::Users(source, _) => users::publish(kv, ns, publication, source, tell).await,
            Self::Items(index, codec) => items::publish(kv, ns, publication, index, *codec, tell).await,
        }
    }
}

/// What `publish --json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    store: &'a str,
    namespace: &'a str,
    /// "users" or "items".
    of: &'a str,
    active: bool,
    #[serde(flatten)]
    manifest: &'a Manifest,
    /// What it was to cost; `null` for a release that was there already.
    footprint: Option<Footprint>,
    bytes_per_user: f64,
    users_per_s: f64,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let replaces = args.strategy == Some(Way::Replace);
    ensure!(!args.allow_gap || replaces, Usage("--allow-gap belongs to --strategy replace".to_owned()));
    if let Some(path) = &args.new.items {
        return new_items::run(path, &args.new, args.index.as_deref(), args.ids.as_deref(), out);
    }
    let missing = || Usage("--index and --store are needed".to_owned());
    let index = Index::open(args.index.as_ref().ok_or_else(missing)?)?;
    let Some(path) = &args.users else {
        return load(args, &index, &Source::Items(&index, args.codec), None, out);
    };
    let users = Vectors::open(path)?;
    let (args, way) = planned(args, &index, &users)?;
    let ids = args.ids.as_deref().map(Ids::open).transpose()?;
    let source = UserSource::new(&index, &users, ids.as_ref(), args.codec)?;
    load(&args, &index, &Source::Users(source, &users), way, out)
}

fn load(args: &Args, index: &Index, source: &Source, way: Option<Publishing>, out: Output) -> anyhow::Result<()> {
    let replaces = args.strategy == Some(Way::Replace);
    let release = args.release.as_deref().unwrap_or(&index.meta().release);
    let (one, several) = source.called();
    let store = args.store.as_deref().unwrap_or_default();
    let started = Instant::now();
    let mut priced = None;
    let manifest = super::runtime()?.block_on(async {
        let kv = AnyKv::open(store).await?;
        let room = Room::of(&kv, args.budget_bytes).await?;
        for what in room.unknown() {
            out::warn(what);
        }
        let (listed, _) = list(&kv, &source.namespace(&args.namespace)).await?;
        if replaces {
            let gap = gap(&listed, source.rows());
            ensure!(args.allow_gap, Usage(format!("{gap}; if that is acceptable, add --allow-gap")));
            out::warn(&gap);
        }
        let strategy = match (args.strategy, way) {
            (None, Some(way)) => of_plan(way, &listed),
            (strategy, _) => strategy,
        };
        let takes_place = matches!(strategy, Some(Way::Rolling | Way::Replace));
        ensure!(
            !(args.no_activate && takes_place),
            Usage("--no-activate leaves the active release as it is: a release that takes its place cannot".to_owned())
        );
        let publication = Publication {
            grace: args.grace,
            options: PublishOptions { room, strategy: strategy.map_or(Strategy::Beside, Way::of_store) },
            fall: if strategy == Some(Way::LowerCodec) { lower_codecs(args.codec) } else { &[] },
            ..Publication::new(release)
        };
        let bar = out::progress("publishing", source.rows() as u64);
        let mut tell = |step: Step| match step {
            Step::Priced { codec, footprint, active } => {
                warn_of(args, strategy, index, source, codec, active);
                priced = Some(footprint.clone());
            }
            Step::Written(done) => bar.set_position(u64::from(done)),
        };
        let from = args.users.as_deref().unwrap_or(index.path());
        let published = source.publish(&kv, &args.namespace, &publication, &mut tell).await;
        let manifest = published.with_context(|| format!("publishing {}", from.display()))?;
        bar.finish_and_clear();
        match source {
            _ if args.no_activate => {}
            Source::Users(..) => drop(activate_with_items(&kv, &args.namespace, release).await?),
            Source::Items(..) => drop(activate(&kv, &items_ns(&args.namespace), release).await?),
        }
        anyhow::Ok(manifest)
    })?;
    let report = Report {
        store,
        namespace: &args.namespace,
        of: several,
        active: !args.no_activate,
        manifest: &manifest,
        footprint: priced,
        bytes_per_user: manifest.bytes as f64 / f64::from(manifest.users),
        users_per_s: f64::from(manifest.users) / started.elapsed().as_secs_f64(),
    };
    out.show(&report, || text(&report, one))
}

/// The arguments with what the plan says, its way of loading, and warnings where the model is not as planned.
fn planned(args: &Args, index: &Index, users: &Vectors) -> anyhow::Result<(Args, Option<Publishing>)> {
    let mut args = args.clone();
    let Some(path) = &args.plan else { return Ok((args, None)) };
    let file = PlanFile::open(path)?;
    file.check(path, users.dim(), users.rows())?;
    let settings = &file.plan.settings;
    let found = ItemForm::new(index.meta().codec, index.meta().finer);
    if settings.items != found {
        let planned = settings.items;
        out::warn(&format!(
            "the plan keeps items as {planned}, and the index has {found}: build it so, or plan with it"
        ));
    }
    if settings.pages.is_none() {
        out::warn("the plan keeps lists only, and no vectors");
    }
    args.codec = settings.users;
    args.budget_bytes = args.budget_bytes.or(Some(settings.maxmemory_bytes));
    Ok((args, Some(settings.publishing)))
}

/// What a plan's way of loading comes to where these releases are. Removing one is left to whoever decides on rollbacks.
fn of_plan(way: Publishing, listed: &[Listed]) -> Option<Way> {
    let find = |state| listed.iter().find(|listed| listed.entry.state == state);
    match way {
        Publishing::Rolling => find(State::Active).map(|_| Way::Rolling),
        Publishing::RetireFirst => {
            if let Some(oldest) = find(State::Past).or_else(|| find(State::Previous)) {
                let name = &oldest.entry.name;
                out::warn(&format!("by the plan release {name} goes first: `tonnage releases retire {name}`"));
            }
            None
        }
        Publishing::Beside => None,
    }
}

impl Way {
    fn of_store(self) -> Strategy {
        match self {
            Self::LowerCodec => Strategy::Beside,
            Self::Rolling => Strategy::Rolling,
            Self::Replace => Strategy::Replace,
        }
    }
}

/// What replacing costs. It takes as long as the active release took, a user, if that is known.
fn gap(listed: &[Listed], users: usize) -> String {
    let active = listed.iter().find(|listed| listed.entry.state == State::Active);
    let Some(Listed { entry, .. }) = active else {
        return "there is no active release to replace".to_owned();
    };
    let took = entry.published_s.map(|at| at.saturating_sub(entry.begun_s) + 1);
    let time = took.map_or_else(
        || "for a time that is not known".to_owned(),
        |s| format!("for about {} s", (s as f64 * users as f64 / f64::from(entry.users.max(1))).ceil()),
    );
    format!("replacing {0} removes it first: {time} nobody has a vector, and there is no way back to it", entry.name)
}

/// What the strategy costs, before it begins.
fn warn_of(
    args: &Args,
    strategy: Option<Way>,
    index: &Index,
    source: &Source,
    codec: Codec,
    active: Option<&Manifest>,
) {
    if codec != args.codec {
        let agreement = |codec| match source {
            Source::Users(source, _) => source.agreement_at_10(index, codec).ok(),
            Source::Items(..) => None,
        };
        let lost = match (agreement(args.codec), agreement(codec)) {
            (Some(asked), Some(lower)) => {
                format!(
                    "; of the ten best items for exact users {lower:.3} stay, where {asked:.3} do with {}",
                    args.codec
                )
            }
            _ => String::new(),
        };
        out::warn(&format!("{} does not fit, {codec} does{lost}", args.codec));
    }
    if let (Some(Way::Rolling), Some(active)) = (strategy, active) {
        out::warn(&format!(
            "rolling over {0}: until it is done a reader has a vector only for the users in pages of its own release, \
             and there is no way back to {0}; if this stops, run it again",
            active.name
        ));
    }
}

fn text(report: &Report, one: &str) -> String {
    let Report { manifest, of, .. } = report;
    let memory = manifest.memory.map_or_else(String::new, |grown| {
        let (predicted, actual) = (out::bytes(grown.predicted_bytes), out::bytes(grown.actual_bytes));
        format!("the server grew by {actual}; {predicted} were predicted\n")
    });
    format!(
        "release {} {}: {} {of} as {}, {} in {} pages, {:.1} bytes {one}, {:.0} {of} a second\n{memory}",
        manifest.name,
        if report.active { "is active" } else { "is published, not active" },
        manifest.users,
        manifest.codec,
        out::bytes(manifest.bytes),
        manifest.pages(),
        report.bytes_per_user,
        report.users_per_s,
    )
}
