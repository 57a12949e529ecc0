//! `tonnage publish --items --service`

use std::path::{Path, PathBuf};

use anyhow::Context;
use futures_util::future::join_all;
use serde::Serialize;

use super::out::{self, Output};
use super::{Usage, publish};
use crate::catalog::{CatalogError, Index};
use crate::input::{Ids, Vectors, check_rows, read_numbers, read_tags};
use crate::service::client::{Batch, ClientError, Remote, SentItem};

/// Rows that are read at a time: of 64 dimensions, 256 KiB.
const CHUNK_ROWS: usize = 1_000;

/// What goes to services, and to which.
#[derive(Clone, Debug, clap::Args)]
pub struct NewItems {
    /// New item vectors, one a row, for services that run instead of a store
    #[arg(long, value_name = "FILE", requires = "services", conflicts_with_all = publish::NOT_WITH_ITEMS)]
    pub items: Option<PathBuf>,
    /// A service that takes them: http://host:port, or https:// with --trust; may be given several times
    #[arg(long = "service", value_name = "URL", requires = "items")]
    services: Vec<String>,
    /// Tags of new items: a table with columns `id` and `tags`, or .csv with `id,tag`
    #[arg(long, value_name = "FILE", requires = "items")]
    tags: Option<PathBuf>,
    /// Numbers of new items: a table with columns `id`, `field` and `value`
    #[arg(long, value_name = "FILE", requires = "items")]
    numbers: Option<PathBuf>,
    /// A file with a key of the services that may write
    #[arg(long, value_name = "FILE", requires = "items")]
    key_file: Option<PathBuf>,
    /// Certificates to trust for https://, in PEM
    #[arg(long, value_name = "FILE", requires = "items")]
    trust: Option<PathBuf>,
}

/// Some service has not taken all of the items.
#[derive(Debug, thiserror::Error)]
#[error("{of} of {services} services have not taken all items: {why}")]
pub struct NotTaken {
    of: usize,
    services: usize,
    why: String,
}

/// What `publish --items --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    items: usize,
    /// Fingerprint of the release that the vectors are said to be of.
    release: Option<String>,
    services: Vec<OfService>,
}

#[derive(Debug, Serialize)]
struct OfService {
    service: String,
    taken: usize,
    error: Option<String>,
}

/// Where the items go, and how it went so far.
struct Taker {
    remote: Remote,
    taken: usize,
    error: Option<ClientError>,
}

/// New items, opened: tags and numbers by row.
struct Items<'a> {
    vectors: &'a Vectors,
    ids: &'a Ids,
    tags: Vec<Vec<&'a str>>,
    numbers: Vec<Vec<(&'a str, f64)>>,
}

/// Sends the items of `path`. With an index, services that serve another release refuse them.
pub fn run(path: &Path, args: &NewItems, index: Option<&Path>, ids: Option<&Path>, out: Output) -> anyhow::Result<()> {
    let vectors = Vectors::open(path)?;
    let own = ids.map(Ids::open).transpose()?;
    let no_ids = || Usage("new items need ids, by which they are told from the index's: give --ids".to_owned());
    let ids = own.as_ref().or(vectors.ids()).ok_or_else(no_ids)?;
    check_rows("item ids", vectors.rows(), ids.len())?;
    ids.check_unique()?;
    let tags = args.tags.as_deref().map(|path| read_tags(path, ids)).transpose()?.unwrap_or_default();
    let numbers = args.numbers.as_deref().map(|path| read_numbers(path, ids)).transpose()?.unwrap_or_default();
    let release = index.map(|path| release_of(path, &vectors)).transpose()?;
    let key = args.key_file.as_deref().map(read_key).transpose()?;
    let taker = |url: &String| {
        let remote = Remote::new(url, key.as_deref(), args.trust.as_deref())?;
        Ok(Taker { remote, taken: 0, error: None })
    };
    let mut takers = args.services.iter().map(taker).collect::<Result<Vec<_>, ClientError>>()?;
    let tagged = tags.names.iter().zip(&tags.rows);
    let tagged = tagged.flat_map(|(name, rows)| rows.iter().map(move |&row| (row, name.as_str())));
    let numbered = numbers.fields.iter().zip(&numbers.values);
    let numbered =
        numbered.flat_map(|(field, values)| values.iter().map(move |&(row, value)| (row, (field.as_str(), value))));
    let items = Items { vectors: &vectors, ids, tags: by_row(ids.len(), tagged), numbers: by_row(ids.len(), numbered) };
    super::runtime()?.block_on(send(&items, release.clone(), &mut takers))?;
    report(vectors.rows(), release, &takers, out)
}

fn by_row<T>(rows: usize, pairs: impl Iterator<Item = (u32, T)>) -> Vec<Vec<T>> {
    let mut all: Vec<Vec<T>> = (0..rows).map(|_| Vec::new()).collect();
    pairs.for_each(|(row, value)| all[row as usize].push(value));
    all
}

/// The fingerprint of an index, if these vectors could be of it.
fn release_of(path: &Path, vectors: &Vectors) -> anyhow::Result<String> {
    let index = Index::open(path)?;
    if index.dim() != vectors.dim() {
        return Err(CatalogError::Dimensions { expected: index.dim(), got: vectors.dim() }.into());
    }
    Ok(format!("{:016x}", index.fingerprint()))
}

fn read_key(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the key in {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Sends everything to everybody, until nobody takes any more.
async fn send(items: &Items<'_>, release: Option<String>, takers: &mut [Taker]) -> anyhow::Result<()> {
    let (rows, dim) = (items.vectors.rows(), items.vectors.dim());
    let bar = out::progress("sending", rows as u64);
    let (mut batch, mut values) = (Batch::new(release), vec![0.0; CHUNK_ROWS.min(rows) * dim]);
    for first in (0..rows).step_by(CHUNK_ROWS) {
        let values = &mut values[..CHUNK_ROWS.min(rows - first) * dim];
        items.vectors.read(first, values)?;
        for (row, vector) in (first..).zip(values.chunks_exact(dim)) {
            let (tags, numbers) = (items.tags[row].clone(), items.numbers[row].clone());
            let item = SentItem { item_id: items.ids.get(row), vector, tags, numbers };
            if batch.push(&item)? {
                offer(&mut batch, takers).await?;
                bar.set_position(row as u64 + 1);
            }
        }
        if takers.iter().all(|taker| taker.error.is_some()) {
            break;
        }
    }
    offer(&mut batch, takers).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Sends a batch to all who have taken those before, at once.
async fn offer(batch: &mut Batch, takers: &mut [Taker]) -> anyhow::Result<()> {
    let Some(body) = batch.take()? else { return Ok(()) };
    let going_on = takers.iter_mut().filter(|taker| taker.error.is_none());
    join_all(going_on.map(async |taker| match taker.remote.put(&body).await {
        Ok(taken) => taker.taken += taken,
        Err(error) => taker.error = Some(error),
    }))
    .await;
    Ok(())
}

fn report(items: usize, release: Option<String>, takers: &[Taker], out: Output) -> anyhow::Result<()> {
    let taken = |Taker { remote, taken, error }: &Taker| OfService {
        service: remote.url().to_owned(),
        taken: *taken,
        error: error.as_ref().map(ToString::to_string),
    };
    let report = Report { items, release, services: takers.iter().map(taken).collect() };
    out.show(&report, || {
        let row = |one: &OfService| vec![one.service.clone(), one.taken.to_string(), items.to_string()];
        out::table(&["service", "taken", "of"], report.services.iter().map(row))
    })?;
    let errors: Vec<&str> = report.services.iter().filter_map(|one| one.error.as_deref()).collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(NotTaken { of: errors.len(), services: takers.len(), why: errors.join("; ") }.into())
}
