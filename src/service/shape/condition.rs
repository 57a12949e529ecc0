//! Filters as they are asked for: conditions on fields, which the index knows as tags `field:value` or as numbers.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::super::config::Limits;
use super::super::problem::Problem;
use super::{IdDocument, bounded, number, text};
use crate::engine::{Clause, ItemFilter, NumberRange, OwnedId};

/// What a condition has to be.
const EXPECTED: &str = "expected one of `eq`, `in`, and `min` with `max` or alone, with a value";

/// Which items may be answered: those that pass all of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterDocument {
    /// Conditions that an item must all meet.
    #[serde(deserialize_with = "conditions")]
    pub all: Vec<Condition>,
    /// Conditions of which an item must meet at least one, when there are any.
    #[serde(deserialize_with = "conditions")]
    pub any: Vec<Condition>,
    /// Conditions of which an item may meet none.
    #[serde(deserialize_with = "conditions")]
    pub none: Vec<Condition>,
    /// The only items that may be answered.
    pub items: Option<Vec<IdDocument>>,
}

/// A condition on a field: one of `eq`, `in` and a range, of which `min` or `max` may be left out. Without a field it is
/// about tags that have none.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The field, the part of a tag before its `:`.
    pub field: Option<String>,
    /// The value.
    pub eq: Option<ConditionValue>,
    /// Values of which any will do.
    #[serde(rename = "in")]
    pub within: Option<Vec<ConditionValue>>,
    /// The smallest number of the field that will do. Items without one do not.
    pub min: Option<f64>,
    /// The largest that will do.
    pub max: Option<f64>,
}

/// A value of a field.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a value: a text, true, false or a whole number")]
pub enum ConditionValue {
    /// A text.
    Text(String),
    /// As the texts `true` and `false`.
    Flag(bool),
    /// As its digits.
    Number(i64),
}

/// Reads conditions one by one, and none behind one that says nothing: that takes three bytes in a body, and a hundred
/// here.
fn conditions<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Condition>, D::Error> {
    struct Each;
    impl<'de> Visitor<'de> for Each {
        type Value = Vec<Condition>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of conditions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut conditions = Vec::new();
            while let Some(condition) = entries.next_element::<Condition>()? {
                if condition.says_nothing() {
                    return Err(A::Error::custom(EXPECTED));
                }
                conditions.push(condition);
            }
            Ok(conditions)
        }
    }
    from.deserialize_seq(Each)
}

impl FilterDocument {
    /// As the engine takes it, with items that may not be answered.
    pub fn filter(&self, deny: &[IdDocument], limits: &Limits) -> Result<ItemFilter, Problem> {
        let mut filter = ItemFilter::default();
        for (what, list) in [("filter.all", &self.all), ("filter.any", &self.any), ("filter.none", &self.none)] {
            bounded(what, list, limits)?;
        }
        for condition in &self.all {
            let mut clauses = condition.clauses("filter.all", limits)?;
            match (clauses.len(), clauses.pop()) {
                (1, Some(clause)) => filter.all.push(clause),
                (_, last) => filter.any.push(clauses.into_iter().chain(last).collect()),
            }
        }
        let all_of = |what, list: &[Condition]| -> Result<Vec<Clause>, Problem> {
            let clauses = list.iter().map(|condition| condition.clauses(what, limits));
            Ok(clauses.collect::<Result<Vec<_>, _>>()?.concat())
        };
        let any = all_of("filter.any", &self.any)?;
        if !any.is_empty() {
            filter.any.push(any);
        }
        filter.none = all_of("filter.none", &self.none)?;
        filter.allow = self.items.as_ref().map(|items| ids("filter.items", items, limits)).transpose()?;
        filter.deny = ids("exclude.items", deny, limits)?;
        Ok(filter)
    }
}

impl Condition {
    fn says_nothing(&self) -> bool {
        self.eq.is_none() && self.within.as_ref().is_none_or(Vec::is_empty) && self.min.or(self.max).is_none()
    }

    /// The clauses of which any meets it; at least one.
    fn clauses(&self, what: &str, limits: &Limits) -> Result<Vec<Clause>, Problem> {
        let values = match (&self.eq, &self.within, self.min.or(self.max)) {
            (None, None, Some(_)) => return Ok(vec![Clause::Range(self.range(what, limits)?)]),
            (Some(value), None, None) => std::slice::from_ref(value),
            (None, Some(values), None) if !values.is_empty() => values,
            _ => return Err(Problem::invalid(format!("`{what}`: {EXPECTED}"))),
        };
        bounded(what, values, limits)?;
        let tag = |value: &ConditionValue| {
            let value = match value {
                ConditionValue::Text(value) => text(what, value, limits)?.to_owned(),
                ConditionValue::Flag(value) => value.to_string(),
                ConditionValue::Number(value) => value.to_string(),
            };
            match &self.field {
                Some(field) => Ok(Clause::Tag(format!("{}:{value}", text(what, field, limits)?))),
                None => Ok(Clause::Tag(value)),
            }
        };
        values.iter().map(tag).collect()
    }

    fn range(&self, what: &str, limits: &Limits) -> Result<NumberRange, Problem> {
        let Some(field) = &self.field else {
            return Err(Problem::invalid(format!("`{what}`: expected `field` beside `min` and `max`")));
        };
        for end in [self.min, self.max].into_iter().flatten() {
            number(what, end, f64::MIN, f64::MAX)?;
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err(Problem::invalid(format!("`{what}`: expected `min` up to `max`, got {min} and {max}")));
        }
        Ok(NumberRange { field: text(what, field, limits)?.to_owned(), min: self.min, max: self.max })
    }
}

/// Ids of a list.
pub(super) fn ids(what: &str, list: &[IdDocument], limits: &Limits) -> Result<Vec<OwnedId>, Problem> {
    bounded(what, list, limits)?;
    list.iter().map(|id| id.id(what, limits)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Result<ItemFilter, String> {
        let document: FilterDocument = serde_json::from_str(json).map_err(|error| error.to_string())?;
        document.filter(&[], &Limits::default()).map_err(|problem| problem.detail)
    }

    #[test]
    fn conditions_become_clauses() {
        let range = |field: &str, min, max| Clause::Range(NumberRange { field: field.to_owned(), min, max });
        let json = r#"{"all":[{"field":"category","in":["shoes","boots"]},{"field":"in_stock","eq":true},{"eq":"new"},{"field":"price","min":1,"max":20}],
            "any":[{"field":"size","in":[41,42]},{"eq":"sale"},{"field":"price","max":-1.5}],"none":[{"field":"region","in":["DE","AT"]},{"field":"year","min":2020}],"items":["7",8]}"#;
        let expected = ItemFilter {
            all: vec!["in_stock:true".into(), "new".into(), range("price", Some(1.0), Some(20.0))],
            any: vec![
                vec!["category:shoes".into(), "category:boots".into()],
                vec!["size:41".into(), "size:42".into(), "sale".into(), range("price", None, Some(-1.5))],
            ],
            none: vec!["region:DE".into(), "region:AT".into(), range("year", Some(2020.0), None)],
            allow: Some(vec![OwnedId::U64(7), OwnedId::U64(8)]),
            deny: Vec::new(),
        };
        assert_eq!(filter(json), Ok(expected));
        assert_eq!(filter("{}"), Ok(ItemFilter::default()));
    }

    #[test]
    fn nothing_is_read_behind_a_condition_that_says_nothing() {
        for nothing in ["{}", r#"{"field":"a"}"#, r#"{"in":[]}"#] {
            let error = filter(&format!(r#"{{"all":[{{"eq":1}},{nothing},{{"no such":1}}]}}"#)).unwrap_err();
            assert!(error.contains("expected one of `eq`"), "{error}");
        }
    }

    #[test]
    fn what_says_nothing_or_too_much_is_refused() {
        for json in [
            r#"{"all":[{}]}"#,
            r#"{"all":[{"field":"a"}]}"#,
            r#"{"all":[{"field":"a","eq":"b","in":["c"]}]}"#,
            r#"{"all":[{"field":"a","in":[]}]}"#,
            r#"{"all":[{"field":"","eq":"b"}]}"#,
            r#"{"all":[{"field":"a","eq":""}]}"#,
            r#"{"all":[{"field":"a","eq":1.5}]}"#,
            r#"{"all":[{"field":"a","eq":null}]}"#,
            r#"{"all":[{"field":"a","min":null,"max":null}]}"#,
            r#"{"all":[{"min":1}]}"#,
            r#"{"all":[{"field":"","min":1}]}"#,
            r#"{"all":[{"field":"a","min":2,"max":1}]}"#,
            r#"{"all":[{"field":"a","min":1e400}]}"#,
            r#"{"all":[{"field":"a","max":"1"}]}"#,
            r#"{"all":[{"field":"a","min":1,"eq":"b"}]}"#,
            r#"{"all":[{"field":"a","max":1,"in":["b"]}]}"#,
            r#"{"all":[{"field":"a","least":1}]}"#,
            r#"{"some":[]}"#,
            r#"{"items":[-1]}"#,
            r#"{"items":[""]}"#,
            r#"{"items":[1.0]}"#,
        ] {
            assert!(filter(json).is_err(), "{json}");
        }
    }
}
