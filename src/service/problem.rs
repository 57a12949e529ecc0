//! What is answered when a request cannot be: RFC 9457 problem documents with types that stay.
//!
//! The one thing to know: a client acts on `type` and shows `detail`. Types are never renamed; details may be reworded.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, of a fixed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The body is not the JSON document that the route takes, or a field of it cannot be.
    InvalidRequest,
    /// A body, a list or a text is longer than allowed.
    TooLarge,
    /// There is no such route.
    NotFound,
    /// The route is there for another method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// A tag or field that the index does not have.
    UnknownTag,
    /// An item that the index does not have, where one is needed.
    UnknownItem,
    /// A page of a release that is not served any more; begin with the first page.
    PageExpired,
    /// No key was given, or one that nobody has.
    Unauthorized,
    /// The key may not do this.
    Forbidden,
    /// More than can be answered in time; try again after `Retry-After`.
    Overloaded,
    /// The store is needed for this, and away.
    StoreUnavailable,
    /// Nothing is loaded yet, or it is stopping.
    NotReady,
    /// A release that was to be loaded was refused.
    ReleaseRefused,
    /// Vectors of another release than the one that is served.
    OtherRelease,
    /// A fault of ours.
    Internal,
}

impl Kind {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 17] = [
        Self::InvalidRequest,
        Self::TooLarge,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::UnsupportedMediaType,
        Self::UnknownTag,
        Self::UnknownItem,
        Self::PageExpired,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Overloaded,
        Self::StoreUnavailable,
        Self::NotReady,
        Self::ReleaseRefused,
        Self::OtherRelease,
        Self::Internal,
    ];

    /// Its name in `type`, its title, its status.
    pub fn says(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Self::InvalidRequest => ("invalid-request", "The request cannot be understood", StatusCode::BAD_REQUEST),
            Self::TooLarge => ("too-large", "The request is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::NotFound => ("not-found", "There is no such route", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => {
                ("method-not-allowed", "The route takes another method", StatusCode::METHOD_NOT_ALLOWED)
            }
            Self::RequestTimeout => ("request-timeout", "The body did not arrive in time", StatusCode::REQUEST_TIMEOUT),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", "The body must be JSON", StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
            Self::UnknownTag => ("unknown-tag", "No item has this tag or number", StatusCode::UNPROCESSABLE_ENTITY),
            Self::UnknownItem => ("unknown-item", "There is no such item", StatusCode::UNPROCESSABLE_ENTITY),
            Self::PageExpired => ("page-expired", "The pages before are of a release that is gone", StatusCode::GONE),
            Self::Unauthorized => ("unauthorized", "A key is needed", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("forbidden", "The key may not do this", StatusCode::FORBIDDEN),
            Self::Overloaded => ("overloaded", "Too many requests at once", StatusCode::TOO_MANY_REQUESTS),
            Self::StoreUnavailable => ("store-unavailable", "The store is away", StatusCode::SERVICE_UNAVAILABLE),
            Self::NotReady => ("not-ready", "The service is not ready", StatusCode::SERVICE_UNAVAILABLE),
            Self::ReleaseRefused => ("release-refused", "The release was refused", StatusCode::CONFLICT),
            Self::OtherRelease => ("other-release", "Another release is served", StatusCode::CONFLICT),
            Self::Internal => ("internal", "A fault of the service", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// A problem to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What went wrong.
    pub kind: Kind,
    /// What about, with what to do.
    pub detail: String,
}

/// A problem as it is sent, `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument<'a> {
    /// `urn:tonnage:problem:` and a name that stays.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for all of a type.
    pub title: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// What about, with what to do.
    pub detail: &'a str,
    /// What the logs call this request; also the header `X-Request-Id`.
    pub request_id: &'a str,
}

impl Problem {
    /// A problem of a kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// A fault of ours. What it was stands in the logs: paths and addresses are nothing for whoever asks.
    pub fn internal() -> Self {
        Self::new(Kind::Internal, "the logs of the service say what it was, beside the request's id")
    }

    /// The store is needed, and did not answer.
    pub fn store_away() -> Self {
        Self::new(Kind::StoreUnavailable, "the store did not do what this needs; the logs of the service say why")
    }

    /// The request cannot be understood: where, and what would be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidRequest, detail)
    }
}

impl Problem {
    /// The answer to the request of that id.
    pub fn response(&self, request_id: &str) -> Response {
        let (name, title, status) = self.kind.says();
        let kind = format!("urn:tonnage:problem:{name}");
        let document = ProblemDocument { kind, title, status: status.as_u16(), detail: &self.detail, request_id };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        match self.kind {
            Kind::Overloaded | Kind::NotReady | Kind::StoreUnavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Kind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_statuses_are_errors() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.says().0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.says().2.is_client_error() || kind.says().2.is_server_error()));
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let response = Problem::new(Kind::Overloaded, "256 in flight").response("mine");
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"1".parse().unwrap()));
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
