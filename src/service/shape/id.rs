//! Ids of users and items.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::super::config::Limits;
use super::super::problem::Problem;
use super::text;
use crate::engine::OwnedId;

/// An id: a whole number, or a text. A text that spells a whole number is that number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum IdDocument {
    /// A whole number from 0.
    Number(u64),
    /// Any other.
    Text(String),
}

impl IdDocument {
    /// The id, unless it is longer than allowed.
    pub fn id(&self, what: &str, limits: &Limits) -> Result<OwnedId, Problem> {
        match self {
            Self::Number(number) => Ok(OwnedId::U64(*number)),
            Self::Text(id) => Ok(OwnedId::parse(text(what, id, limits)?)),
        }
    }
}

// by hand: what derive makes of untagged enums says no more than that nothing matched
impl<'de> Deserialize<'de> for IdDocument {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = IdDocument;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id, a text or a whole number")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(IdDocument::Number(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(IdDocument::Text(text.to_owned()))
            }
        }
        from.deserialize_any(Either)
    }
}
