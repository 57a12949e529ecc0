//! `tonnage recommend`

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::out::{self, Output};
use crate::catalog::{Index, TagFilter};
use crate::engine::{Answer, Ask, Engine, Rung, Shape};
use crate::file::available_bytes;
use crate::input::{Id, Ids, InputError, read_interactions};
use crate::kv::{AnyKv, Kv};
use crate::store::UserVectors;

/// Users fetched in one round trip when a file of them is answered.
const BATCH: usize = 256;

/// Recommend items to one user, or to a file of users as JSON lines
///
/// The user's vector comes from the store's active release, which must be the one made for the index. A user that the
/// store does not know is answered with popular items, and the answer says so.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The index file
    #[arg(long, value_name = "FILE")]
    index: PathBuf,
    /// Where users are kept: redis://host:port/db, redis-cluster://host:port, or the path of an embedded file
    #[arg(long, value_name = "STORE")]
    store: String,
    /// Prefix of every key
    #[arg(long, default_value = "tonnage")]
    namespace: String,
    /// Who asks
    #[arg(long, value_name = "ID", required_unless_present = "users", conflicts_with = "users")]
    user: Option<String>,
    /// Ids of users, to answer all of them with one JSON document a line
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Items wanted
    #[arg(long, short, default_value_t = 10)]
    k: usize,
    /// Items visited; more finds better ones and takes longer [default: from the index's profile]
    #[arg(long)]
    ef: Option<usize>,
    /// Only items with this tag; may be given several times, then any of them will do
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// No items with this tag; may be given several times
    #[arg(long, value_name = "TAG")]
    not_tag: Vec<String>,
    /// Copy the index into memory, in huge pages, instead of mapping it
    #[arg(long)]
    resident: bool,
    /// Interactions (columns user, item): what a user has seen does not come back
    #[arg(long, value_name = "FILE")]
    seen: Option<PathBuf>,
}

/// What is printed for one user.
#[derive(Debug, Serialize)]
struct Line {
    user: String,
    rung: Rung,
    items: Vec<Item>,
    #[serde(skip_serializing_if = "Option::is_none")]
    short: Option<String>,
    distances: usize,
}

#[derive(Debug, Serialize)]
struct Item {
    id: String,
    score: f32,
}

pub fn run(args: &Args, out: Output) -> anyhow::Result<()> {
    let index = if args.resident { Index::open_resident(&args.index)? } else { Index::open(&args.index)? };
    if let Some(free) = available_bytes().filter(|&free| !args.resident && free < index.bytes()) {
        let (takes, free) = (out::bytes(index.bytes()), out::bytes(free));
        out::warn(&format!("the index takes {takes} of memory and {free} are free: searches will wait for the disk"));
    }
    let shape = Shape { k: args.k, ef: args.ef, tags: TagFilter { any: args.tag.clone(), none: args.not_tag.clone() } };
    super::runtime()?.block_on(async {
        let kv = AnyKv::open_existing(&args.store).await?;
        let engine = Engine::new(index, UserVectors::open(kv, &args.namespace).await?)?;
        match (&args.user, &args.users) {
            (Some(user), _) => one(&engine, user, args.seen.as_deref(), &shape, out).await,
            (None, Some(file)) => many(&engine, &Ids::open(file)?, args.seen.as_deref(), &shape).await,
            (None, None) => Ok(()), // refused by the parser
        }
    })
}

async fn one<K: Kv>(
    engine: &Engine<K>,
    user: &str,
    seen: Option<&Path>,
    shape: &Shape,
    out: Output,
) -> anyhow::Result<()> {
    let user = Id::parse(user);
    let seen = seen.map(|path| read_seen(engine, path, |id| id == user)).transpose()?.unwrap_or_default();
    let ask = Ask { user, seen: seen.into_values().next().unwrap_or_default() };
    let answers = engine.recommend(std::slice::from_ref(&ask), shape).await?;
    let line = line_of(engine, &ask, &answers[0]);
    out.show(&line, || {
        let rows = line.items.iter().map(|item| vec![item.id.clone(), format!("{:.4}", item.score)]);
        let from = if line.rung == Rung::Popularity { "; the user is not known, these are popular" } else { "" };
        let short = line.short.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        format!("for {}{from}{short}\n{}", line.user, out::table(&["item", "score"], rows))
    })
}

async fn many<K: Kv>(engine: &Engine<K>, users: &Ids, seen: Option<&Path>, shape: &Shape) -> anyhow::Result<()> {
    let index = users.index();
    let mut seen =
        seen.map(|path| read_seen(engine, path, |id| index.find(id).is_some())).transpose()?.unwrap_or_default();
    let bar = out::progress("answering", users.len() as u64);
    let rows: Vec<usize> = (0..users.len()).collect();
    for rows in rows.chunks(BATCH) {
        let mut ask = |&row: &usize| {
            let user = users.get(row);
            Ask { user, seen: seen.remove(&user.to_string()).unwrap_or_default() }
        };
        let asks: Vec<Ask> = rows.iter().map(&mut ask).collect();
        for (ask, answer) in asks.iter().zip(engine.recommend(&asks, shape).await?) {
            out::line(&serde_json::to_string(&line_of(engine, ask, &answer))?)?;
        }
        bar.inc(rows.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn line_of<K: Kv>(engine: &Engine<K>, ask: &Ask, answer: &Answer) -> Line {
    let item = |hit: &crate::catalog::Hit| Item { id: engine.index().id(hit.node).to_string(), score: hit.score };
    Line {
        user: ask.user.to_string(),
        rung: answer.rung,
        items: answer.items.iter().map(item).collect(),
        short: answer.short.clone(),
        distances: answer.distances,
    }
}

/// The nodes that each wanted user has seen, ascending.
fn read_seen<K: Kv>(
    engine: &Engine<K>,
    path: &Path,
    wanted: impl Fn(Id) -> bool,
) -> Result<HashMap<String, Vec<u32>>, InputError> {
    let mut seen: HashMap<String, Vec<u32>> = HashMap::new();
    read_interactions(path, |user, item| {
        if wanted(user)
            && let Some(node) = engine.index().find(item)
        {
            seen.entry(user.to_string()).or_default().push(node);
        }
        Ok::<(), InputError>(())
    })?;
    for nodes in seen.values_mut() {
        nodes.sort_unstable();
        nodes.dedup();
    }
    Ok(seen)
}
