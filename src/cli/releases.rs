//! `tonnage releases`

use clap::Subcommand;
use serde::Serialize;

use super::out::{self, Output};
use crate::kv::AnyKv;
use crate::store::{
    Entry, Listed, Manifest, RemoveOptions, Removed, State, StoreError, WithItems, activate_with_items, gc_with_items,
    items_ns, list, retire_with_items, rollback_with_items,
};

/// List the releases of a store, switch between them, remove them
///
/// The release that was active before the active one is kept to go back to, until it is retired or yet another is
/// activated and `gc` run. Removing goes by the names of keys, never by a scan, at a bounded rate. Items that were published
/// into pages go with the users' release of the same name.
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
    /// Remove a release that is not active, or give up one that was rolled in by half
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
    items: Vec<Line>,
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
    active: Option<&'a Manifest>,
    items: Option<&'a Manifest>,
}

/// What `retire --json` and `gc --json` print.
#[derive(Debug, Serialize)]
struct Cleared<'a> {
    store: &'a str,
    namespace: &'a str,
    removed: Vec<Removed>,
    items: Vec<Removed>,
    /// What is rolled in by half: it stays until someone decides.
    half: Vec<String>,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    super::runtime()?.block_on(async {
        match &args.action {
            Action::List(place) => show(place, out).await,
            Action::Activate { name, place } => {
                let active = activate_with_items(&place.open().await?, &place.namespace, name).await?;
                switched(place, &active, out)
            }
            Action::Rollback(place) => {
                let active = rollback_with_items(&place.open().await?, &place.namespace).await?;
                switched(place, &active, out)
            }
            Action::Retire { name, place, pace } => {
                let kv = place.open().await?;
                let bar = out::progress("removing", 0);
                let pages = &mut on(&bar);
                let removed = retire_with_items(&kv, &place.namespace, name, &pace.options(), pages).await?;
                bar.finish_and_clear();
                cleared(place, &kv, removed, out).await
            }
            Action::Gc { place, pace } => {
                let kv = place.open().await?;
                let bar = out::progress("removing", 0);
                let removed = gc_with_items(&kv, &place.namespace, &pace.options(), &mut on(&bar)).await?;
                bar.finish_and_clear();
                cleared(place, &kv, removed, out).await
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
    let kv = place.open().await?;
    let (listed, publishing) = list(&kv, &place.namespace).await?;
    let items = items_in(&kv, &place.namespace).await?;
    let active = listed.iter().find(|listed| listed.entry.state == State::Active);
    let report = List {
        store: place.store.clone(),
        namespace: place.namespace.clone(),
        active: active.map(|listed| listed.entry.name.clone()),
        publishing,
        releases: listed.into_iter().map(line).collect(),
        items: items.into_iter().map(line).collect(),
    };
    out.show(&report, || {
        let head = |of| ["release", "state", "since", of, "codec", "pages", "bytes", "id"];
        let users = match &report.releases[..] {
            [] => format!("namespace {} has no releases\n", report.namespace),
            releases => out::table(&head("users"), releases.iter().map(row)),
        };
        match &report.items[..] {
            [] => users,
            items => users + &out::table(&head("items"), items.iter().map(row)),
        }
    })
}

/// Items by release. A namespace whose name leaves no room for theirs has none.
async fn items_in(kv: &AnyKv, ns: &str) -> anyhow::Result<Vec<Listed>> {
    match list(kv, &items_ns(ns)).await {
        Err(StoreError::BadName { .. }) => Ok(Vec::new()),
        listed => Ok(listed?.0),
    }
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

fn switched(place: &Place, active: &WithItems<Option<Manifest>>, out: Output) -> anyhow::Result<()> {
    let (users, items) = (active.users.as_ref(), active.items.as_ref());
    let report = Activated { store: &place.store, namespace: &place.namespace, active: users, items };
    let line = |manifest: &Manifest, of: &str| {
        format!("release {} is active: {} {of} as {}\n", manifest.name, manifest.users, manifest.codec)
    };
    let of = |side: Option<&Manifest>, of| side.map_or_else(String::new, |manifest| line(manifest, of));
    out.show(&report, || of(users, "users") + &of(items, "items"))
}

async fn cleared(place: &Place, kv: &AnyKv, removed: WithItems<Vec<Removed>>, out: Output) -> anyhow::Result<()> {
    let (listed, publishing) = list(kv, &place.namespace).await?;
    let items = items_in(kv, &place.namespace).await?;
    let is_half = |listed: &&Listed| listed.entry.state == State::Rolling && publishing.is_none();
    let half = listed.iter().chain(&items).filter(is_half).map(|listed| listed.entry.name.clone()).collect();
    let WithItems { users, items } = removed;
    let report = Cleared { store: &place.store, namespace: &place.namespace, removed: users, items, half };
    out.show(&report, || {
        let gone = |Removed { name, was, pages }: &Removed, of: &str| match was {
            State::Rolling if *pages == 0 => format!(
                "release {name}{of} (rolling) is given up: users in its pages have no vector until another is active\n"
            ),
            _ => format!("release {name}{of} ({was}): {pages} pages removed\n"),
        };
        let users = report.removed.iter().map(|removed| gone(removed, ""));
        let items = report.items.iter().map(|removed| gone(removed, ", items"));
        let half = report.half.iter().map(|name| {
            format!(
                "release {name} is rolled in by half: run the same publish again to end it, or give it up with `tonnage \
                 releases retire {name}`\n"
            )
        });
        let text: String = users.chain(items).chain(half).collect();
        if text.is_empty() { "nothing to remove\n".to_owned() } else { text }
    })
}
