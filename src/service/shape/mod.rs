//! Requests and answers as they travel: JSON documents of which every field is known.
//!
//! The one thing to know: these types are the API, and `/openapi.json` is made of them. What the engine takes and gives
//! is made from them and into them here, and nowhere else.

mod answer;
mod batch;
mod change;
mod condition;
mod id;
mod request;

pub use answer::{Listed, RecommendAnswer, ReleaseDocument, ReleasesDocument};
pub use batch::Batch;
pub use change::{AvailabilityRequest, DeleteRequest, Done, EventsRequest, ItemsRequest, Recorded};
pub use condition::{Condition, ConditionValue, FilterDocument};
pub use id::IdDocument;
pub use request::{RecommendRequest, ScoreRequestDocument, SimilarRequestDocument};

use super::config::Limits;
use super::problem::{Kind, Problem};

/// Refuses a number outside a range.
pub(super) fn within(what: &str, value: usize, most: usize) -> Result<usize, Problem> {
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    Err(Problem::invalid(format!("`{what}`: expected 1 to {most}, got {value}")))
}

/// Refuses a list that is too long.
pub(super) fn bounded<T>(what: &str, list: &[T], limits: &Limits) -> Result<(), Problem> {
    if list.len() <= limits.list {
        return Ok(());
    }
    let detail = format!("`{what}`: expected at most {} entries, got {}", limits.list, list.len());
    Err(Problem::new(Kind::TooLarge, detail))
}

/// Refuses a text that is too long or empty.
pub(super) fn text<'a>(what: &str, text: &'a str, limits: &Limits) -> Result<&'a str, Problem> {
    if (1..=limits.text_bytes).contains(&text.len()) {
        return Ok(text);
    }
    Err(Problem::invalid(format!("`{what}`: expected 1 to {} bytes, got {}", limits.text_bytes, text.len())))
}

/// Refuses a number that is not one, or outside a range.
pub(super) fn number(what: &str, value: f64, least: f64, most: f64) -> Result<f64, Problem> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Problem::invalid(format!("`{what}`: expected {least} to {most}, got {value}")))
}
