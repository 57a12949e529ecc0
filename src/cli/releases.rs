//! `tonnage releases`

use clap::Subcommand;
use serde::Serialize;

use super::out::{self, Output};
use crate::kv::AnyKv;
use crate::store::{Entry, Listed, Manifest, RemoveOptions, Removed, State, activate, gc, list, retire, rollback};

/// List the releases of a store, switch between them, remove them
///
/// The release that was active before the active one is kept to go back to, until it is retired or yet another is
/// activated and `gc` run. Removing goes by the names of keys, never by a scan, at a bounded rate.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show every release, its state and its size
    List(Place),
    /// Make a release the active one; the one that was becomes the previous
    Activate {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// Activate the previous release; again, and the later one is back
    Rollback(Place),
    /// Remove a release that is not active
    Retire {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        pace: Pace,
    },
    /// Remove what is not active, previous or waiting: older releases, and what died half-way
    Gc {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        pace: Pace,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// Where users are kept: redis://host:port/db, redis-cluster://host:port, or the path of an embedded file
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Prefix of every key
    #[arg(long, default_value = "tonnage")]
    namespace: String,
}

#[derive(Debug, clap::Args)]
struct Pace {
    /// Pages removed a second at most; a server has some 8 KiB to free for each
    #[arg(long, value_name = "N", default_value_t = RemoveOptions::default().pages_per_s)]
    pages_per_s: u32,
}

/// What `list --json` prints.
#[derive(Debug, Serialize)]
struct List {
    store: String,
    namespace: String,
    active: Option<String>,
    publishing: Option<String>,
    releases: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    entry: Entry,
    id: String,
    manifest: Option<Manifest>,
}

/// What `activate --json` and `rollback --json` print.
#[derive(Debug, Serialize)]
struct Activated<'a> {
    store: &'a str,
    namespace: &'a str,
    active: &'a Manifest,
}

/// What `retire --json` and `gc --json` print.
#[derive(Debug, Serialize)]
struct Cleared<'a> {
    store: &'a str,
    namespace: &'a str,
    removed: Vec<Removed>,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        match &args.action {
            Action::List(place) => show(place, out).await,
            Action::Activate { name, place } => {
                let manifest = activate(&place.open().await?, &place.namespace, name).await?;
                switched(place, &manifest, out)
            }
            Action::Rollback(place) => {
                let manifest = rollback(&place.open().await?, &place.namespace).await?;
                switched(place, &manifest, out)
            }
            Action::Retire { name, place, pace } => {
                let kv = place.open().await?;
                let bar = out::progress("removing", 0);
                let removed = retire(&kv, &place.namespace, name, &pace.options(), &mut on(&bar)).await?;
                bar.finish_and_clear();
                cleared(place, vec![removed], out)
            }
            Action::Gc { place, pace } => {
                let kv = place.open().await?;
                let bar = out::progress("removing", 0);
                let removed = gc(&kv, &place.namespace, &pace.options(), &mut on(&bar)).await?;
                bar.finish_and_clear();
                cleared(place, removed, out)
            }
        }
    })
}

impl Place {
    async fn open(&self) -> anyhow::Result<AnyKv> {
        Ok(AnyKv::open_existing(&self.store).await?)
    }
}

impl Pace {
    fn options(&self) -> RemoveOptions {
        RemoveOptions { pages_per_s: self.pages_per_s }
    }
}

fn on(bar: &indicatif::ProgressBar) -> impl FnMut(u32, u32) + Send {
    |done, of| {
        bar.set_length(u64::from(of));
        bar.set_position(u64::from(done));
    }
}

async fn show(place: &Place, out: Output) -> anyhow::Result<()> {
    let (listed, publishing) = list(&place.open().await?, &place.namespace).await?;
    let active = listed.iter().find(|listed| listed.entry.state == State::Active);
    let report = List {
        store: place.store.clone(),
        namespace: place.namespace.clone(),
        active: active.map(|listed| listed.entry.name.clone()),
        publishing,
        releases: listed.into_iter().map(line).collect(),
    };
    out.show(&report, || {
        if report.releases.is_empty() {
            return format!("namespace {} has no releases\n", report.namespace);
        }
        let head = ["release", "state", "since", "users", "codec", "pages", "bytes", "id"];
        out::table(&head, report.releases.iter().map(row))
    })
}

fn line(Listed { entry, manifest }: Listed) -> Line {
    Line { id: entry.id(), entry, manifest }
}

fn row(line: &Line) -> Vec<String> {
    let Line { entry, id, manifest } = line;
    let unknown = || "-".to_owned();
    vec![
        entry.name.clone(),
        entry.state.to_string(),
        entry.age().map_or_else(unknown, out::age),
        entry.users.to_string(),
        manifest.as_ref().map_or_else(unknown, |manifest| manifest.codec.to_string()),
        entry.pages.to_string(),
        manifest.as_ref().map_or_else(unknown, |manifest| out::bytes(manifest.bytes)),
        id.clone(),
    ]
}

fn switched(place: &Place, active: &Manifest, out: Output) -> anyhow::Result<()> {
    let report = Activated { store: &place.store, namespace: &place.namespace, active };
    out.show(&report, || format!("release {} is active: {} users as {}\n", active.name, active.users, active.codec))
}

fn cleared(place: &Place, removed: Vec<Removed>, out: Output) -> anyhow::Result<()> {
    let report = Cleared { store: &place.store, namespace: &place.namespace, removed };
    out.show(&report, || {
        if report.removed.is_empty() {
            return "nothing to remove\n".to_owned();
        }
        let line = |Removed { name, was, pages }: &Removed| format!("release {name} ({was}): {pages} pages removed\n");
        report.removed.iter().map(line).collect()
    })
}
