//! `tonnage recommend`

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::out::{self, Output};
use crate::catalog::Index;
use crate::engine::{Answer, Clause, Effort, Engine, ItemFilter, NumberRange, OwnedId, Request, Rung};
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
    /// Only items with a number from MIN to MAX, both included, either of which may be left out; may be given several
    /// times, then all must hold
    #[arg(long, value_name = "FIELD:MIN..MAX")]
    range: Vec<NumberRange>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
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
    let tags = |names: &[String]| names.iter().map(|name| Clause::Tag(name.clone())).collect::<Vec<Clause>>();
    let any = if args.tag.is_empty() { Vec::new() } else { vec![tags(&args.tag)] };
    let all = args.range.iter().cloned().map(Clause::Range).collect();
    let shape = Request {
        k: args.k,
        effort: args.ef.map_or(Effort::Default, Effort::Ef),
        filter: ItemFilter { all, any, none: tags(&args.not_tag), ..ItemFilter::default() },
        ..Request::default()
    };
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
    shape: &Request,
    out: Output,
) -> anyhow::Result<()> {
    let user = Id::parse(user);
    let seen = seen.map(|path| read_seen(path, |id| id == user)).transpose()?.unwrap_or_default();
    let seen = seen.into_values().next().unwrap_or_default();
    let request = Request { user: Some(user.into()), seen, ..shape.clone() };
    let mut answers = engine.recommend(std::slice::from_ref(&request)).await;
    let Some(answer) = answers.pop() else { return Ok(()) }; // one request, one answer
    let line = line_of(&request, &answer?);
    out.show(&line, || {
        let rows = line.items.iter().map(|item| vec![item.id.clone(), format!("{:.4}", item.score)]);
        let from = if line.rung == Rung::Popularity { "; the user is not known, these are popular" } else { "" };
        let short = line.short.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let degraded = if line.degraded.is_empty() { String::new() } else { format!("; {}", line.degraded.join("; ")) };
        format!("for {}{from}{short}{degraded}\n{}", line.user, out::table(&["item", "score"], rows))
    })
}

async fn many<K: Kv>(engine: &Engine<K>, users: &Ids, seen: Option<&Path>, shape: &Request) -> anyhow::Result<()> {
    let index = users.index();
    let mut seen = seen.map(|path| read_seen(path, |id| index.find(id).is_some())).transpose()?.unwrap_or_default();
    let bar = out::progress("answering", users.len() as u64);
    let rows: Vec<usize> = (0..users.len()).collect();
    for rows in rows.chunks(BATCH) {
        let mut ask = |&row: &usize| {
            let user = users.get(row).into();
            let seen = seen.remove(&user).unwrap_or_default();
            Request { user: Some(user), seen, ..shape.clone() }
        };
        let requests: Vec<Request> = rows.iter().map(&mut ask).collect();
        for (request, answer) in requests.iter().zip(engine.recommend(&requests).await) {
            out::line(&serde_json::to_string(&line_of(request, &answer?))?)?;
        }
        bar.inc(rows.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

fn line_of(request: &Request, answer: &Answer) -> Line {
    let item = |item: &crate::engine::Item| Item { id: item.id.to_string(), score: item.score };
    Line {
        user: request.user.as_ref().map(ToString::to_string).unwrap_or_default(),
        rung: answer.vector.rung,
        items: answer.items.iter().map(item).collect(),
        short: answer.shortfall.map(|short| short.to_string()),
        degraded: answer.degraded.iter().map(|what| what.name()).collect(),
        distances: answer.distances,
    }
}

/// The items that each wanted user has seen.
fn read_seen(path: &Path, wanted: impl Fn(Id) -> bool) -> Result<HashMap<OwnedId, Vec<OwnedId>>, InputError> {
    let mut seen: HashMap<OwnedId, Vec<OwnedId>> = HashMap::new();
    read_interactions(path, |user, item| {
        if wanted(user) {
            seen.entry(user.into()).or_default().push(item.into());
        }
        Ok::<(), InputError>(())
    })?;
    Ok(seen)
}
