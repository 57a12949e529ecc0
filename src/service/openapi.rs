//! The OpenAPI 3.1 document, made of the types that are read and written.

use std::sync::OnceLock;

use axum::response::Response;
use utoipa::OpenApi;

use super::problem::Problem;
use super::routes::{Entered, json};
use super::{admin, answer, change, problem, state};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tonnage", description = "Items for users: see docs/http-api.md."),
    paths(
        answer::recommend,
        answer::recommend_user,
        answer::similar,
        answer::score,
        change::events,
        change::availability,
        change::add,
        change::remove,
        state::releases,
        state::capacity,
        state::livez,
        state::readyz,
        state::metrics,
        admin::reload,
        admin::roll_back,
        document,
    ),
    components(schemas(problem::ProblemDocument))
)]
struct Api;

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "state", responses((status = 200, description = "OpenAPI 3.1")))]
pub async fn document(_entered: Entered) -> Result<Response, Problem> {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| Api::openapi().to_json().unwrap_or_default());
    Ok(json(text.clone().into_bytes()))
}
