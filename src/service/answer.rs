//! Routes that answer with items.
//!
//! The one thing to know: the store is waited for here, and everything is computed in the [`Pool`](super::pool::Pool),
//! writing the answer down included.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::response::Response;

use super::app::App;
use super::problem::{Kind, Problem};
use super::routes::{Entered, json, parse};
use super::shape::{
    Condition, ConditionValue, IdDocument, RecommendAnswer, RecommendRequest, ScoreRequestDocument,
    SimilarRequestDocument,
};
use super::shelf::Loaded;
use crate::catalog::CatalogError;
use crate::engine::{Answer, EngineError};

/// Items for one user, or for each of a batch.
///
/// A batch is an array of requests, and is answered with an array of answers in the same order, or with one problem that
/// names the first entry that cannot be answered.
#[utoipa::path(post, path = "/v1/recommend", tag = "recommend", request_body = RecommendRequest,
    responses((status = 200, body = RecommendAnswer)))]
pub async fn recommend(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let _place = app.admit()?;
    app.has_time(1, entered.deadline(None))?;
    let body = entered.body().await?;
    let is_batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let documents: Vec<RecommendRequest> = if is_batch { parse(&body)? } else { vec![parse(&body)?] };
    let most = app.config.limits.batch;
    if documents.len() > most {
        let detail = format!("expected at most {most} requests, got {}", documents.len());
        return Err(Problem::new(Kind::TooLarge, detail));
    }
    respond(entered, documents, is_batch).await
}

/// Items for one user, for `curl` and caches.
#[utoipa::path(get, path = "/v1/recommend/{user}", tag = "recommend",
    params(
        ("user" = String, Path, description = "Who asks"),
        ("k" = Option<usize>, Query, description = "Items wanted"),
        ("tag" = Option<Vec<String>>, Query, description = "Only items with this tag; given several times, any will do"),
        ("not_tag" = Option<Vec<String>>, Query, description = "No items with this tag"),
        ("segment" = Option<String>, Query, description = "The segment that answers when the user has no vector"),
        ("seen" = Option<bool>, Query, description = "Whether what the user has seen is left out"),
        ("explain" = Option<bool>, Query, description = "Whether to say what the ranking was made of"),
        ("deadline_ms" = Option<u64>, Query, description = "When the answer is worth nothing any more"),
    ),
    responses((status = 200, body = RecommendAnswer)))]
pub async fn recommend_user(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let _place = app.admit()?;
    app.has_time(1, entered.deadline(None))?;
    let user: Result<Path<String>, PathRejection> = Path::from_request_parts(&mut entered.parts, &()).await;
    let Path(user) = user.map_err(|error| Problem::invalid(error.body_text()))?;
    let pairs: Result<Query<Vec<(String, String)>>, QueryRejection> = Query::try_from_uri(&entered.parts.uri);
    let Query(pairs) = pairs.map_err(|error| Problem::invalid(error.body_text()))?;
    let document = of_query(user, pairs)?;
    respond(entered, vec![document], false).await
}

/// The request that a path and a query stand for.
fn of_query(user: String, pairs: Vec<(String, String)>) -> Result<RecommendRequest, Problem> {
    fn value<T: std::str::FromStr>(key: &str, text: &str) -> Result<Option<T>, Problem> {
        let parsed = text.parse().map_err(|_| Problem::invalid(format!("`{key}`: {text:?} is not a value of it")))?;
        Ok(Some(parsed))
    }
    let tag = |text| Condition { field: None, eq: Some(ConditionValue::Text(text)), within: None };
    let mut document = RecommendRequest { user_id: Some(IdDocument::Text(user)), ..RecommendRequest::default() };
    for (key, text) in pairs {
        match key.as_str() {
            "k" => document.k = value(&key, &text)?,
            "tag" => document.filter.any.push(tag(text)),
            "not_tag" => document.filter.none.push(tag(text)),
            "segment" => document.segment = Some(text),
            "seen" => document.exclude.seen = value(&key, &text)?,
            "explain" => document.explain = value(&key, &text)?.unwrap_or_default(),
            "deadline_ms" => document.deadline_ms = value(&key, &text)?,
            _ => {
                let known = "k, tag, not_tag, segment, seen, explain, deadline_ms";
                let got: String = key.chars().take(64).collect();
                return Err(Problem::invalid(format!("the query: expected {known}, got {got:?}")));
            }
        }
    }
    Ok(document)
}

async fn respond(entered: Entered, documents: Vec<RecommendRequest>, is_batch: bool) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let limits = app.config.limits;
    let of_entry = move |at: usize, mut problem: Problem| {
        if is_batch {
            problem.detail = format!("request {at}: {}", problem.detail);
        }
        problem
    };
    let made = documents.iter().enumerate();
    let made = made.map(|(at, document)| document.request(&limits).map_err(|problem| of_entry(at, problem)));
    let mut requests = made.collect::<Result<Vec<_>, _>>()?;
    let soonest = documents.iter().filter_map(|document| document.deadline_ms).min();
    let deadline = entered.deadline(soonest);
    requests.iter().for_each(|request| app.recent.see(request));
    let loaded = app.loaded()?;
    let resolved = loaded.engine.resolve(&requests).await;
    let (share, told) = (requests.len(), entered.told());
    let job = move |app: &App, loaded: &Loaded| {
        let level = app.pool.effort();
        let eased: Vec<bool> = requests
            .iter_mut()
            .map(|request| {
                let (effort, eased) = loaded.efforts.at(request.effort, level);
                request.effort = effort;
                eased
            })
            .collect();
        let answers = loaded.engine.rank(&requests, resolved);
        let mut bytes = Vec::with_capacity(2_048 * answers.len());
        if is_batch {
            bytes.push(b'[');
        }
        for (at, answer) in answers.into_iter().enumerate() {
            let answer = answer.map_err(|error| of_entry(at, problem_of(&error)))?;
            if at > 0 {
                bytes.push(b',');
            }
            told.write(app, &answer, eased[at], &mut bytes);
        }
        if is_batch {
            bytes.push(b']');
        }
        Ok(bytes)
    };
    compute(app, loaded, share, deadline, job).await
}

/// Items like one item.
#[utoipa::path(post, path = "/v1/similar", tag = "recommend", request_body = SimilarRequestDocument,
    responses((status = 200, body = RecommendAnswer), (status = 422, description = "There is no such item")))]
pub async fn similar(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let _place = app.admit()?;
    app.has_time(1, entered.deadline(None))?;
    let document: SimilarRequestDocument = parse(&entered.body().await?)?;
    let mut request = document.request(&app.config.limits)?;
    let (deadline, told) = (entered.deadline(document.deadline_ms), entered.told());
    let loaded = app.loaded()?;
    let job = move |app: &App, loaded: &Loaded| {
        let eased;
        (request.effort, eased) = loaded.efforts.at(request.effort, app.pool.effort());
        let answer = loaded.engine.similar(&request).map_err(|error| problem_of(&error))?;
        let mut bytes = Vec::with_capacity(2_048);
        told.write(app, &answer, eased, &mut bytes);
        Ok(bytes)
    };
    compute(app, loaded, 1, deadline, job).await
}

/// Given items, ranked for a user.
#[utoipa::path(post, path = "/v1/score", tag = "recommend", request_body = ScoreRequestDocument,
    responses((status = 200, body = RecommendAnswer)))]
pub async fn score(mut entered: Entered) -> Result<Response, Problem> {
    let app = Arc::clone(&entered.app);
    let _place = app.admit()?;
    app.has_time(1, entered.deadline(None))?;
    let document: ScoreRequestDocument = parse(&entered.body().await?)?;
    let request = document.request(&app.config.limits)?;
    let (deadline, told) = (entered.deadline(document.deadline_ms), entered.told());
    let loaded = app.loaded()?;
    let resolved = loaded.engine.resolve_score(&request).await;
    let job = move |app: &App, loaded: &Loaded| {
        let answer = loaded.engine.rank_given(&request, resolved).map_err(|error| problem_of(&error))?;
        let mut bytes = Vec::with_capacity(2_048);
        told.write(app, &answer, false, &mut bytes);
        Ok(bytes)
    };
    compute(app, loaded, 1, deadline, job).await
}

/// Runs a job in the pool.
async fn compute(
    app: Arc<App>,
    loaded: Arc<Loaded>,
    requests: usize,
    deadline: Instant,
    job: impl FnOnce(&App, &Loaded) -> Result<Vec<u8>, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    let inside = Arc::clone(&app);
    let done = app.pool.run(requests, deadline, move || job(&inside, &loaded)).await;
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
    fn write(&self, app: &App, answer: &Answer, eased: bool, bytes: &mut Vec<u8>) {
        app.metrics.answered(answer);
        let mut document = RecommendAnswer::of(answer, &self.id);
        if eased {
            document.degraded.push("effort:lowered");
        }
        document.took_us = self.began.elapsed().as_micros() as u64;
        // writing to memory does not fail
        let _ = serde_json::to_writer(bytes, &document);
    }
}

/// What the client is told of an engine's error.
pub fn problem_of(error: &EngineError) -> Problem {
    let kind = match error {
        EngineError::Catalog(CatalogError::UnknownTag { .. }) => Kind::UnknownTag,
        EngineError::UnknownItem { .. } => Kind::UnknownItem,
        EngineError::Request { .. }
        | EngineError::K { .. }
        | EngineError::Page { .. }
        // of what was sent: what is stored was checked when it was opened
        | EngineError::Catalog(CatalogError::Dimensions { .. } | CatalogError::Query(_)) => Kind::InvalidRequest,
        EngineError::TooMany { .. } => Kind::TooLarge,
        EngineError::Store(_) => Kind::StoreUnavailable,
        _ => Kind::Internal,
    };
    if kind == Kind::Internal {
        tracing::error!(%error, "a request could not be answered");
    }
    Problem::new(kind, error.to_string())
}
