//! Routes that answer with items.
//!
//! The one thing to know: the store is waited for here, and everything is computed in the [`Pool`](super::pool::Pool),
//! writing the answer down included.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::response::Response;

use super::app::{App, Place};
use super::body::look_through;
use super::config::Limits;
use super::pool::{Due, Ticket};
use super::problem::{Kind, Problem};
use super::routes::{Entered, json, parse};
use super::shape::{
    Batch, Condition, ConditionValue, IdDocument, RecommendAnswer, RecommendRequest, ScoreRequestDocument,
    SimilarRequestDocument,
};
use super::shelf::Loaded;
use crate::catalog::CatalogError;
use crate::engine::{Answer, EngineError, NumberRange, Pace, Request};

/// Items for one user, or for each of a batch.
///
/// A batch is an array of requests, and is answered with an array of answers in the same order, or with one problem that
/// names the first entry that cannot be answered.
#[utoipa::path(post, path = "/v1/recommend", tag = "recommend", request_body = RecommendRequest,
    responses((status = 200, body = RecommendAnswer)))]
pub async fn recommend(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let limits = app.config.limits;
    let (body, _place, ticket) = body(&mut entered).await?;
    let asked = look_through(body, move |body| Asked::read(body, &limits)).await?;
    respond(entered, ticket, asked).await
}

/// The body of a request that is to be computed, and its places. When there are none it hears so before its body is kept;
/// who sends slowly takes none.
async fn body(entered: &mut Entered) -> Result<(Bytes, Place, Ticket), Problem> {
    if let Err(problem) = entered.app.look_for_room() {
        entered.pass_by().await;
        return Err(problem);
    }
    let body = entered.body().await?;
    let (place, ticket) = entered.app.reserve()?;
    Ok((body, place, ticket))
}

/// What one body asks for.
struct Asked {
    requests: Vec<Request>,
    /// The soonest of their deadlines.
    deadline_ms: Option<u64>,
    is_batch: bool,
}

impl Asked {
    fn read(body: &[u8], limits: &Limits) -> Result<Self, Problem> {
        let is_batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        if !is_batch {
            return Self::of(&[parse(body)?], limits, false);
        }
        let batch = Batch::read(body, limits.batch)?;
        if batch.count > limits.batch {
            let detail = format!("expected at most {} requests, got {}", limits.batch, batch.count);
            return Err(Problem::new(Kind::TooLarge, detail));
        }
        Self::of(&batch.kept, limits, true)
    }

    fn of(documents: &[RecommendRequest], limits: &Limits, is_batch: bool) -> Result<Self, Problem> {
        let request = |(at, document): (usize, &RecommendRequest)| {
            document.request(limits).map_err(|problem| of_entry(is_batch, at, problem))
        };
        let requests = documents.iter().enumerate().map(request).collect::<Result<_, _>>()?;
        let deadline_ms = documents.iter().filter_map(|document| document.deadline_ms).min();
        Ok(Self { requests, deadline_ms, is_batch })
    }
}

/// The problem of an entry, which is named where there are several.
fn of_entry(is_batch: bool, at: usize, mut problem: Problem) -> Problem {
    if is_batch {
        problem.detail = format!("request {at}: {}", problem.detail);
    }
    problem
}

/// Items for one user, for `curl` and caches.
#[utoipa::path(get, path = "/v1/recommend/{user}", tag = "recommend",
    params(
        ("user" = String, Path, description = "Who asks"),
        ("k" = Option<usize>, Query, description = "Items wanted"),
        ("tag" = Option<Vec<String>>, Query, description = "Only items with this tag; given several times, any will do"),
        ("not_tag" = Option<Vec<String>>, Query, description = "No items with this tag"),
        ("range" = Option<Vec<String>>, Query, description = "Only items with a number from min to max: field:min..max"),
        ("segment" = Option<String>, Query, description = "The segment that answers when the user has no vector"),
        ("seen" = Option<bool>, Query, description = "Whether what the user has seen is left out"),
        ("explain" = Option<bool>, Query, description = "Whether to say what the ranking was made of"),
        ("deadline_ms" = Option<u64>, Query, description = "When the answer is worth nothing any more"),
    ),
    responses((status = 200, body = RecommendAnswer)))]
pub async fn recommend_user(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let (_place, ticket) = app.reserve()?;
    let user: Result<Path<String>, PathRejection> = Path::from_request_parts(&mut entered.parts, &()).await;
    let Path(user) = user.map_err(|error| Problem::invalid(error.body_text()))?;
    let pairs: Result<Query<Vec<(String, String)>>, QueryRejection> = Query::try_from_uri(&entered.parts.uri);
    let Query(pairs) = pairs.map_err(|error| Problem::invalid(error.body_text()))?;
    let asked = Asked::of(&[of_query(user, pairs)?], &app.config.limits, false)?;
    respond(entered, ticket, asked).await
}

/// The request that a path and a query stand for.
fn of_query(user: String, pairs: Vec<(String, String)>) -> Result<RecommendRequest, Problem> {
    fn value<T: std::str::FromStr>(key: &str, text: &str) -> Result<Option<T>, Problem> {
        let parsed = text.parse().map_err(|_| Problem::invalid(format!("`{key}`: {text:?} is not a value of it")))?;
        Ok(Some(parsed))
    }
    let range = |text: &str| match text.parse() {
        Ok(NumberRange { field, min, max }) => Ok(Condition { field: Some(field), min, max, ..Condition::default() }),
        Err(error) => Err(problem_of(&error)),
    };
    let tag = |text| Condition { eq: Some(ConditionValue::Text(text)), ..Condition::default() };
    let mut document = RecommendRequest { user_id: Some(IdDocument::Text(user)), ..RecommendRequest::default() };
    for (key, text) in pairs {
        match key.as_str() {
            "k" => document.k = value(&key, &text)?,
            "tag" => document.filter.any.push(tag(text)),
            "not_tag" => document.filter.none.push(tag(text)),
            "range" => document.filter.all.push(range(&text)?),
            "segment" => document.segment = Some(text),
            "seen" => document.exclude.seen = value(&key, &text)?,
            "explain" => document.explain = value(&key, &text)?.unwrap_or_default(),
            "deadline_ms" => document.deadline_ms = value(&key, &text)?,
            _ => {
                let known = "k, tag, not_tag, range, segment, seen, explain, deadline_ms";
                let got: String = key.chars().take(64).collect();
                return Err(Problem::invalid(format!("the query: expected {known}, got {got:?}")));
            }
        }
    }
    Ok(document)
}

async fn respond(entered: Entered, ticket: Ticket, asked: Asked) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let Asked { requests, deadline_ms, is_batch } = asked;
    let due = ticket.due(requests.len(), entered.deadline(deadline_ms)).map_err(|refused| app.no_time(refused))?;
    let loaded = app.loaded()?;
    let resolved = loaded.engine.resolve(&requests).await;
    let told = entered.told();
    let job = move |app: &App, loaded: &Loaded| {
        let answers = loaded.engine.rank(&requests, resolved, told.pace(app));
        let mut bytes = Vec::with_capacity(2_048 * answers.len());
        if is_batch {
            bytes.push(b'[');
        }
        for (at, (answer, request)) in answers.into_iter().zip(&requests).enumerate() {
            let answer = answer.map_err(|error| of_entry(is_batch, at, problem_of(&error)))?;
            if at > 0 {
                bytes.push(b',');
            }
            told.write(app, &answer, &mut bytes);
            app.recent.see(request);
        }
        if is_batch {
            bytes.push(b']');
        }
        Ok(bytes)
    };
    compute(app, loaded, due, job).await
}

/// Items like one item.
#[utoipa::path(post, path = "/v1/similar", tag = "recommend", request_body = SimilarRequestDocument,
    responses((status = 200, body = RecommendAnswer), (status = 422, description = "There is no such item")))]
pub async fn similar(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let limits = app.config.limits;
    let (body, _place, ticket) = body(&mut entered).await?;
    let look = move |body: &[u8]| {
        let document: SimilarRequestDocument = parse(body)?;
        Ok((document.request(&limits)?, document.deadline_ms))
    };
    let (request, deadline_ms) = look_through(body, look).await?;
    let due = ticket.due(1, entered.deadline(deadline_ms)).map_err(|refused| app.no_time(refused))?;
    let (loaded, told) = (app.loaded()?, entered.told());
    let job = move |app: &App, loaded: &Loaded| {
        let answer = loaded.engine.similar(&request, told.pace(app)).map_err(|error| problem_of(&error))?;
        let mut bytes = Vec::with_capacity(2_048);
        told.write(app, &answer, &mut bytes);
        Ok(bytes)
    };
    compute(app, loaded, due, job).await
}

/// Given items, ranked for a user.
#[utoipa::path(post, path = "/v1/score", tag = "recommend", request_body = ScoreRequestDocument,
    responses((status = 200, body = RecommendAnswer)))]
pub async fn score(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let limits = app.config.limits;
    let (body, _place, ticket) = body(&mut entered).await?;
    let look = move |body: &[u8]| {
        let document: ScoreRequestDocument = parse(body)?;
        Ok((document.request(&limits)?, document.deadline_ms))
    };
    let (request, deadline_ms) = look_through(body, look).await?;
    let due = ticket.due(1, entered.deadline(deadline_ms)).map_err(|refused| app.no_time(refused))?;
    let (loaded, told) = (app.loaded()?, entered.told());
    let resolved = loaded.engine.resolve_score(&request).await;
    let job = move |app: &App, loaded: &Loaded| {
        let answer = loaded.engine.rank_given(&request, resolved).map_err(|error| problem_of(&error))?;
        let mut bytes = Vec::with_capacity(2_048);
        told.write(app, &answer, &mut bytes);
        Ok(bytes)
    };
    compute(app, loaded, due, job).await
}

/// Runs a job in the pool.
async fn compute(
    app: Arc<App>,
    loaded: Arc<Loaded>,
    due: Due,
    job: impl FnOnce(&App, &Loaded) -> Result<Vec<u8>, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let (inside, span) = (Arc::clone(&app), tracing::Span::current());
    let done = due.run(move || span.in_scope(|| job(&inside, &loaded))).await;
    match done {
        Ok(bytes) => bytes.map(json),
        Err(refused) => Err(app.no_time(refused)),
    }
}

/// What an answer says of its request.
struct Told {
    id: String,
    began: Instant,
}

impl Entered {
    fn told(&self) -> Told {
        Told { id: self.id.clone(), began: self.began }
    }
}

impl Told {
    /// What the queue leaves to a request.
    fn pace(&self, app: &App) -> Pace {
        Pace { since: self.began, level: app.pool.effort() }
    }

    fn write(&self, app: &App, answer: &Answer, bytes: &mut Vec<u8>) {
        app.metrics.answered(answer);
        let mut document = RecommendAnswer::of(answer, &self.id);
        document.took_us = self.began.elapsed().as_micros() as u64;
        // writing to memory does not fail
        let _ = serde_json::to_writer(bytes, &document);
    }
}

/// What the client is told of an engine's error.
pub fn problem_of(error: &EngineError) -> Problem {
    let kind = match error {
        EngineError::Catalog(CatalogError::UnknownTag { .. } | CatalogError::UnknownField { .. }) => Kind::UnknownTag,
        EngineError::UnknownItem { .. } => Kind::UnknownItem,
        EngineError::PageExpired { .. } => Kind::PageExpired,
        EngineError::Request { .. }
        | EngineError::K { .. }
        | EngineError::Page { .. }
        // of what was sent: what is stored was checked when it was opened
        | EngineError::Catalog(CatalogError::Dimensions { .. } | CatalogError::Query(_)) => Kind::InvalidRequest,
        EngineError::TooMany { .. } => Kind::TooLarge,
        EngineError::Store(_) => Kind::StoreUnavailable,
        _ => Kind::Internal,
    };
    // what happened inside is for the logs: paths and addresses are in it
    match kind {
        Kind::Internal => {
            tracing::error!(%error, "a request could not be answered");
            Problem::internal()
        }
        Kind::StoreUnavailable => {
            tracing::warn!(%error, "the store did not do what a request needs");
            Problem::store_away()
        }
        _ => Problem::new(kind, error.to_string()),
    }
}
