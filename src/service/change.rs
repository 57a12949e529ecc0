//! Routes that change something: what users did, what is available, what is new.
//!
//! The one thing to know: an answer means that it is kept. Events are in the store, availability and items in the journal.

use std::sync::Arc;
use std::time::Instant;

use axum::response::Response;
use tokio::time::timeout_at;

use super::answer::problem_of;
use super::body::{aside, look_through};
use super::pool::Refused;
use super::problem::Problem;
use super::routes::{Entered, json, parse};
use super::shape::{AvailabilityRequest, DeleteRequest, Done, EventsRequest, ItemsRequest, Recorded};
use crate::engine::EngineError;

/// What users did: into their sessions, and to what they have seen. Each user's events are kept by themselves; the answer
/// names those of whom some are not. When no user's are, it is a problem. When all are not kept in time, some may be.
#[utoipa::path(post, path = "/v1/events", tag = "change", request_body = EventsRequest,
    responses((status = 200, body = Recorded), (status = 503, description = "The store is away")))]
pub async fn events(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let (body, limits) = (entered.body().await?, app.config.limits);
    let _place = app.admit()?;
    let look = move |body: &[u8]| {
        let document: EventsRequest = parse(body)?;
        Ok((document.deadline_ms, document.by_user(&limits)?))
    };
    let (deadline_ms, events) = look_through(body, look).await?;
    let loaded = app.loaded()?;
    let deadline = entered.deadline(deadline_ms);
    // a timer may ring late: what is over already is not begun
    if deadline <= Instant::now() {
        return Err(app.no_time(Refused::Late));
    }
    let users = events.iter().map(|(user, events)| (user.to_string(), events.len())).collect();
    let outcomes = timeout_at(deadline.into(), loaded.engine.record_all(events)).await.map_err(|_| {
        tracing::warn!("events were not kept in time");
        Problem::store_away()
    })?;
    recorded(&entered, users, outcomes)
}

/// What became of so many events of each user.
fn recorded(
    entered: &Entered,
    users: Vec<(String, usize)>,
    outcomes: Vec<Result<(), EngineError>>,
) -> Result<Response, Problem> {
    let mut recorded = Recorded { request_id: entered.id.clone(), accepted: 0, not_kept: Vec::new() };
    let mut first = None;
    for ((user, events), outcome) in users.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => recorded.accepted += events,
            Err(error) => {
                first.get_or_insert(error);
                recorded.not_kept.push(user);
            }
        }
    }
    match first {
        Some(error) if recorded.accepted == 0 => return Err(problem_of(&error)),
        Some(error) => tracing::warn!(%error, users = recorded.not_kept.len(), "events of some users were not kept"),
        None => {}
    }
    Ok(json(serde_json::to_vec(&recorded).unwrap_or_default()))
}

/// Which items are available, from now on and after a restart. Ids that the index does not have are kept for the next.
#[utoipa::path(put, path = "/v1/items/availability", tag = "change", request_body = AvailabilityRequest,
    responses((status = 200, body = Done)))]
pub async fn availability(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let (body, limits) = (entered.body().await?, app.config.limits);
    let _place = app.admit()?;
    let items = look_through(body, move |body| parse::<AvailabilityRequest>(body)?.items(&limits)).await?;
    let (loaded, accepted) = (app.loaded()?, items.len());
    keep(move || loaded.engine.live().set_available(&items)).await?;
    Ok(done(&entered, accepted))
}

/// Items that the index does not have yet, or has otherwise: answered from now on, until the next index is built.
#[utoipa::path(put, path = "/v1/items", tag = "change", request_body = ItemsRequest,
    responses((status = 200, body = Done), (status = 409, description = "The vectors are of another release")))]
pub async fn add(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let (body, limits) = (entered.body().await?, app.config.limits);
    let _place = app.admit()?;
    let look = move |body: &[u8]| {
        let mut document: ItemsRequest = parse(body)?;
        Ok((document.take_release(&limits)?, document.items(&limits)?))
    };
    let (release, items) = look_through(body, look).await?;
    let (loaded, accepted) = (app.loaded()?, items.len());
    // what is checked is what takes them, whatever is loaded meanwhile
    ItemsRequest::check_release(release.as_deref(), loaded.manifest())?;
    keep(move || loaded.engine.add_items(items)).await?;
    Ok(done(&entered, accepted))
}

/// Items that are answered no more, until the next index is built.
#[utoipa::path(delete, path = "/v1/items", tag = "change", request_body = DeleteRequest,
    responses((status = 200, body = Done)))]
pub async fn remove(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let (body, limits) = (entered.body().await?, app.config.limits);
    let _place = app.admit()?;
    let items = look_through(body, move |body| parse::<DeleteRequest>(body)?.ids(&limits)).await?;
    let (loaded, accepted) = (app.loaded()?, items.len());
    keep(move || loaded.engine.delete_items(&items)).await?;
    Ok(done(&entered, accepted))
}

/// Makes a change, which waits for a disk.
async fn keep(change: impl FnOnce() -> Result<(), EngineError> + Send + 'static) -> Result<(), Problem> {
    aside(move || change().map_err(|error| problem_of(&error))).await
}

fn done(entered: &Entered, accepted: usize) -> Response {
    let done = Done { request_id: entered.id.clone(), accepted };
    json(serde_json::to_vec(&done).unwrap_or_default())
}
