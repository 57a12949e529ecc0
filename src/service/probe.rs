//! Watching recall: now and then a user of late is searched for as always and exactly as well, and the two compared.
//!
//! The one thing to know: it runs on a thread of its own and takes at most a fiftieth of one core, however large the
//! index is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::app::App;
use super::shelf::Loaded;
use crate::catalog::{CatalogError, QueryVector};
use crate::engine::OwnedId;
use crate::graph::{Filter, SearchOptions};

/// Probes that the metric is the mean of.
const WINDOW: usize = 100;
/// A probe is followed by a rest of so many times what it took.
const REST: u32 = 50;
/// Items scored before the store of scores is thinned.
const CHUNK: usize = 4_096;

/// Probes until the service ends.
pub async fn watch(app: Arc<App>) {
    let every = Duration::from_millis(app.config.probe.every_ms);
    if every.is_zero() {
        return;
    }
    let mut window = VecDeque::new();
    let mut rest = every;
    loop {
        tokio::time::sleep(rest).await;
        rest = every;
        let (Some(request), Some(loaded)) = (app.recent.newest_of_a_user(), app.shelf.current()) else { continue };
        let Some(user) = request.user else { continue };
        let Some(record) = record(&loaded, &user).await else { continue };
        let (k, began) = (app.config.probe.k, Instant::now());
        let probed = tokio::task::spawn_blocking(move || recall(&loaded, &record, k)).await;
        rest = every.max(began.elapsed() * REST);
        match probed {
            Ok(Ok(recall)) => {
                if window.len() == WINDOW {
                    window.pop_front();
                }
                window.push_back(recall);
                app.metrics.recall.set(window.iter().sum::<f64>() / window.len() as f64);
                app.metrics.probes.inc();
            }
            Ok(Err(error)) => tracing::warn!(%error, "recall could not be measured"),
            Err(error) => tracing::warn!(%error, "recall could not be measured"),
        }
    }
}

async fn record(loaded: &Loaded, user: &OwnedId) -> Option<Vec<u8>> {
    loaded.engine.users().get(&[user.as_id()]).await.ok()?.pop()?
}

/// Share of the exact `k` best that the search finds; an item that scores as well as the last of them counts.
fn recall(loaded: &Loaded, record: &[u8], k: usize) -> Result<f64, CatalogError> {
    let index = loaded.engine.index();
    let k = k.min(index.len());
    let query = QueryVector::Record(loaded.manifest().codec, record);
    let options = SearchOptions { k, ef: loaded.engine.default_ef() };
    let (hits, _) = index.search(query, options, Filter { bits: None, exclude: &[] })?;
    let found: Vec<u32> = hits.iter().map(|hit| hit.node).collect();
    let mut best: Vec<f32> = Vec::with_capacity(k + CHUNK);
    let (mut nodes, all) = (Vec::with_capacity(CHUNK), index.len() as u32);
    for first in (0..all).step_by(CHUNK) {
        nodes.clear();
        nodes.extend(first..all.min(first.saturating_add(CHUNK as u32)));
        best.extend(index.scores(query, &nodes)?);
        best.sort_unstable_by(|a, b| b.total_cmp(a));
        best.truncate(k);
    }
    let Some(&last) = best.last() else { return Ok(1.0) };
    let right = index.scores(query, &found)?.into_iter().filter(|&score| score >= last).count();
    Ok(right.min(k) as f64 / k as f64)
}
