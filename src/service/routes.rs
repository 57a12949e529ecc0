//! Routes: who may take which, and what all of them have in common.
//!
//! The one thing to know: every request goes through [`enter`], which names it, looks at its key, times it and turns
//! whatever goes wrong into a problem. A handler sees only what was let through.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, header, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use serde::de::DeserializeOwned;
use tracing::Instrument;

use super::admin::Administration;
use super::app::App;
use super::body::Upload;
use super::keys::{self, Right};
use super::problem::{Kind, Problem};
use super::{admin, answer, change, openapi, state};

/// Longest request id that is taken from a client.
const LONGEST_ID: usize = 128;
/// The length of a `traceparent` of version 00; those of later versions begin with as much.
const TRACEPARENT: usize = 55;

/// A request that was let in.
pub struct Entered {
    /// What all requests share.
    pub app: Arc<App>,
    /// Its head.
    pub parts: Parts,
    /// Its name.
    pub id: String,
    /// When it came.
    pub began: Instant,
    body: Upload,
}

impl Entered {
    /// The deadline of a request that asks for this many milliseconds, or for none.
    pub fn deadline(&self, asked_ms: Option<u64>) -> Instant {
        // an hour is as good as none, and no addition overflows
        let ms = asked_ms.unwrap_or(self.app.config.run.deadline_ms).min(3_600_000);
        self.began + Duration::from_millis(ms)
    }

    /// Has no use for the body.
    pub async fn pass_by(&mut self) {
        self.body.pass_by().await;
    }

    /// The whole body, which is said to be JSON.
    pub async fn body(&mut self) -> Result<Bytes, Problem> {
        let kind = self.parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let kind = kind.map(|kind| kind.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii());
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json")) {
            return Err(Problem::new(Kind::UnsupportedMediaType, "send `Content-Type: application/json`"));
        }
        let body = self.body.whole().await;
        if body.as_ref().is_err_and(|problem| problem.kind == Kind::Overloaded) {
            self.app.metrics.refused("bodies");
        }
        body
    }
}

/// A JSON document, of which every field is known.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::invalid(error.to_string()))
}

/// A document as it is sent.
pub fn json(document: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// Runs a handler for a request that may be let in.
async fn enter<F: Future<Output = Result<Response, Problem>> + Send>(
    app: Arc<App>,
    route: &'static str,
    needed: Option<Right>,
    request: Request,
    handler: impl FnOnce(Entered) -> F + Send,
) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let id = id_of(&app, &parts);
    let allowed = needed.map_or(Ok(()), |right| keys::admit(&app.config.keys, &parts.headers, right));
    let limit = Duration::from_millis(app.config.listen.body_timeout_ms);
    let body = Upload::new(body, app.config.limits.body_bytes, limit, Arc::clone(&app.bodies));
    // whatever is logged on account of a request says which it was
    let span = tracing::error_span!("request", route, id, traceparent = traceparent(&parts));
    let (id_header, slow_ms) = (HeaderValue::from_str(&id), app.config.log.slow_ms);
    let entered = Entered { app: Arc::clone(&app), parts, id: id.clone(), began, body };
    let outcome = match allowed {
        Ok(()) => handler(entered).instrument(span.clone()).await,
        Err(problem) => Err(problem),
    };
    let mut response = outcome.unwrap_or_else(|problem| problem.response(&id));
    if let Ok(id) = id_header {
        response.headers_mut().insert("x-request-id", id);
    }
    if app.draining.load(Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (took, status) = (began.elapsed(), response.status().as_u16());
    app.metrics.done(route, status, took);
    let us = took.as_micros() as u64;
    let _in_span = span.enter();
    if slow_ms > 0 && took >= Duration::from_millis(slow_ms) {
        tracing::warn!(status, us, "slow");
    } else {
        tracing::debug!(status, us, "answered");
    }
    response
}

/// The part of a W3C trace that a request says it is, if it is well-formed: lower-case hex, no id of zeros alone.
fn traceparent(parts: &Parts) -> Option<&str> {
    let given = parts.headers.get("traceparent")?.to_str().ok()?;
    let (known, later) = given.split_at_checked(TRACEPARENT)?;
    let mut fields = known.split('-');
    let mut field = |len: usize| {
        let hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        fields.next().filter(|field| field.len() == len && field.bytes().all(hex))
    };
    let (version, trace, parent, _flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    let is_sound = version != "ff" && [trace, parent].iter().all(|id| id.bytes().any(|digit| digit != b'0'));
    let fits = later.is_empty() || version != "00" && later.starts_with('-');
    (is_sound && fits).then_some(known)
}

/// The name that the client gave the request, if it is one that can be shown; otherwise one of ours.
fn id_of(app: &App, parts: &Parts) -> String {
    let given = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let shown = |id: &&str| (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(shown).map_or_else(|| format!("{:016x}", app.next_number()), str::to_owned)
}

/// One route: its metrics name, the right it needs, its handler.
macro_rules! route {
    ($app:expr, $method:ident, $name:literal, $right:expr, $handler:expr) => {{
        let app = Arc::clone($app);
        $method(move |request: Request| enter(app, $name, $right, request, $handler))
    }};
}

/// What clients are let to.
pub fn public(app: &Arc<App>) -> Router {
    let (read, write) = (Some(Right::Read), Some(Right::Write));
    let items =
        route!(app, put, "items", write, change::add).merge(route!(app, delete, "items", write, change::remove));
    let routes = Router::new()
        .route("/v1/recommend", route!(app, post, "recommend", read, answer::recommend))
        .route("/v1/recommend/{user}", route!(app, get, "recommend_user", read, answer::recommend_user))
        .route("/v1/similar", route!(app, post, "similar", read, answer::similar))
        .route("/v1/score", route!(app, post, "score", read, answer::score))
        .route("/v1/events", route!(app, post, "events", write, change::events))
        .route("/v1/items/availability", route!(app, put, "availability", write, change::availability))
        .route("/v1/items", items)
        .route("/v1/releases", route!(app, get, "releases", read, state::releases))
        .route("/v1/capacity", route!(app, get, "capacity", read, state::capacity))
        .route("/livez", route!(app, get, "livez", None, state::livez))
        .route("/readyz", route!(app, get, "readyz", None, state::readyz))
        .route("/openapi.json", route!(app, get, "openapi", None, openapi::document));
    with_fallbacks(routes, app)
}

/// What is answered on the port of administration.
pub fn administration(app: &Arc<App>, orders: &Administration) -> Router {
    let admin = Some(Right::Admin);
    let (reload, back) = (orders.clone(), orders.clone());
    let routes = Router::new()
        .route("/livez", route!(app, get, "livez", None, state::livez))
        .route("/readyz", route!(app, get, "readyz", None, state::readyz))
        .route("/metrics", route!(app, get, "metrics", Some(Right::Read), state::metrics))
        .route("/v1/admin/reload", route!(app, post, "reload", admin, |entered| admin::reload(reload, entered)))
        .route("/v1/admin/rollback", route!(app, post, "rollback", admin, |entered| admin::roll_back(back, entered)));
    with_fallbacks(routes, app)
}

fn with_fallbacks(routes: Router, app: &Arc<App>) -> Router {
    let refuse = |kind, detail: &'static str| {
        let app = Arc::clone(app);
        move |request: Request| {
            let app = Arc::clone(&app);
            async move { enter(app, "none", None, request, |_| async move { Err(Problem::new(kind, detail)) }).await }
        }
    };
    routes
        .method_not_allowed_fallback(refuse(Kind::MethodNotAllowed, "see /openapi.json for the methods of each route"))
        .fallback(refuse(Kind::NotFound, "see /openapi.json for the routes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_taken_when_it_is_one() {
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let of = |given: &str| {
            let (parts, ()) =
                axum::http::Request::builder().header("traceparent", given).body(()).unwrap().into_parts();
            traceparent(&parts).map(str::to_owned)
        };
        let sound = format!("00-{trace}-{parent}-01");
        assert_eq!((sound.len(), of(&sound)), (TRACEPARENT, Some(sound.clone())));
        let later = format!("cc-{trace}-{parent}-01");
        // what comes after is another version's, however long it is
        assert_eq!(of(&format!("{later}-{}", "x".repeat(10_000))), Some(later.clone()));
        let zeros = |len| "0".repeat(len);
        let wrong = [
            format!("{sound}-more"),
            format!("{later}more"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", zeros(32)),
            format!("00-{trace}-{}-01", zeros(16)),
            sound.to_uppercase(),
            sound.replace('-', "_"),
            format!("00-{parent}-{trace}-01"),
            sound[..54].to_owned(),
            String::new(),
        ];
        for wrong in wrong {
            assert_eq!(of(&wrong), None, "{wrong}");
        }
    }
}
