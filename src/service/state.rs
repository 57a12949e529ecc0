//! Routes about the service itself: health, metrics, releases, capacity.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use super::routes::{Entered, json};
use super::shape::{Listed, ReleasesDocument};
use crate::kv::Kv;
use crate::store;

/// Whether the process answers at all.
#[utoipa::path(get, path = "/livez", tag = "health", responses((status = 200, description = "It does")))]
pub async fn livez(_entered: Entered) -> Result<Response, Problem> {
    Ok("alive\n".into_response())
}

/// Whether requests should be sent to it. It is ready, but degraded, while the store is away, unless
/// `store.ready_without` says otherwise.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, description = "They should"), (status = 503, description = "They should not")))]
pub async fn readyz(entered: Entered) -> Result<Response, Problem> {
    let (ready, words) = entered.app.readiness();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, format!("{words}\n")).into_response())
}

/// For Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "administration",
    responses((status = 200, description = "OpenMetrics text")))]
pub async fn metrics(entered: Entered) -> Result<Response, Problem> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], entered.app.metrics_text()).into_response())
}

/// What is served, and what the store has.
#[utoipa::path(get, path = "/v1/releases", tag = "state", responses((status = 200, body = ReleasesDocument)))]
pub async fn releases(entered: Entered) -> Result<Response, Problem> {
    let app = &entered.app;
    let serving = app.loaded()?.document();
    let previous = app.shelf.previous().map(|loaded| loaded.document());
    let listed = store::list(&app.store, &app.config.store.namespace).await.ok().map(|(listed, _)| listed);
    let row = |listed: store::Listed| Listed {
        name: listed.entry.name,
        fingerprint: format!("{:016x}", listed.entry.fingerprint),
        state: listed.entry.state.to_string(),
        users: listed.entry.users,
    };
    let store = listed.map(|listed| listed.into_iter().map(row).collect());
    Ok(json(serde_json::to_vec(&ReleasesDocument { serving, previous, store }).unwrap_or_default()))
}

/// What there is room for.
#[derive(Debug, Serialize, ToSchema)]
pub struct CapacityDocument {
    /// Items of the index.
    pub items: usize,
    /// Bytes of the index, mapped or resident.
    pub index_bytes: u64,
    /// Users that the release has vectors of.
    pub users: u32,
    /// Bytes of their pages, without keys and what the server adds.
    pub user_bytes: u64,
    /// Bytes that the store uses.
    pub store_used_bytes: u64,
    /// Bytes that it may use, when it is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_limit_bytes: Option<u64>,
    /// Its eviction policy, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_eviction: Option<String>,
    /// How long a request that comes now waits for a processor.
    pub wait_ms: f64,
    /// How hard searches are worked on, from 0 to 1.
    pub effort: f64,
}

/// What there is room for.
#[utoipa::path(get, path = "/v1/capacity", tag = "state",
    responses((status = 200, body = CapacityDocument), (status = 503, description = "The store is away")))]
pub async fn capacity(entered: Entered) -> Result<Response, Problem> {
    let app = &entered.app;
    let loaded = app.loaded()?;
    let stats = app.store.stats().await.map_err(|error| {
        tracing::warn!(%error, "the capacity of the store is not known");
        Problem::store_away()
    })?;
    let document = CapacityDocument {
        items: loaded.engine.index().len(),
        index_bytes: loaded.engine.index().bytes(),
        users: loaded.manifest().users,
        user_bytes: loaded.manifest().bytes,
        store_used_bytes: stats.used_bytes,
        store_limit_bytes: stats.limit_bytes,
        store_eviction: stats.eviction,
        wait_ms: app.pool.wait().as_secs_f64() * 1e3,
        effort: app.pool.effort(),
    };
    Ok(json(serde_json::to_vec(&document).unwrap_or_default()))
}
