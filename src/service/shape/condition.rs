//! Filters as they are asked for: conditions on fields, which the index knows as tags `field:value`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::config::Limits;
use super::super::problem::Problem;
use super::{IdDocument, bounded, text};
use crate::engine::{ItemFilter, OwnedId};

/// Which items may be answered: those that pass all of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterDocument {
    /// Conditions that an item must all meet.
    pub all: Vec<Condition>,
    /// Conditions of which an item must meet at least one, when there are any.
    pub any: Vec<Condition>,
    /// Conditions of which an item may meet none.
    pub none: Vec<Condition>,
    /// The only items that may be answered.
    pub items: Option<Vec<IdDocument>>,
}

/// A condition on a field: exactly one of `eq` and `in`. Without a field it is about tags that have none.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The field, the part of a tag before its `:`.
    pub field: Option<String>,
    /// The value.
    pub eq: Option<ConditionValue>,
    /// Values of which any will do.
    #[serde(rename = "in")]
    pub within: Option<Vec<ConditionValue>>,
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

impl FilterDocument {
    /// As the engine takes it, with items that may not be answered.
    pub fn filter(&self, deny: &[IdDocument], limits: &Limits) -> Result<ItemFilter, Problem> {
        let mut filter = ItemFilter::default();
        for (what, list) in [("filter.all", &self.all), ("filter.any", &self.any), ("filter.none", &self.none)] {
            bounded(what, list, limits)?;
        }
        for condition in &self.all {
            let mut tags = condition.tags("filter.all", limits)?;
            match (tags.len(), tags.pop()) {
                (1, Some(tag)) => filter.all.push(tag),
                (_, last) => filter.any.push(tags.into_iter().chain(last).collect()),
            }
        }
        let all_of = |what, list: &[Condition]| -> Result<Vec<String>, Problem> {
            let tags = list.iter().map(|condition| condition.tags(what, limits));
            Ok(tags.collect::<Result<Vec<_>, _>>()?.concat())
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
    /// The tags that meet it; at least one.
    fn tags(&self, what: &str, limits: &Limits) -> Result<Vec<String>, Problem> {
        let values = match (&self.eq, &self.within) {
            (Some(value), None) => std::slice::from_ref(value),
            (None, Some(values)) if !values.is_empty() => values,
            _ => return Err(Problem::invalid(format!("`{what}`: expected one of `eq` and `in`, with a value"))),
        };
        bounded(what, values, limits)?;
        let tag = |value: &ConditionValue| {
            let value = match value {
                ConditionValue::Text(value) => text(what, value, limits)?.to_owned(),
                ConditionValue::Flag(value) => value.to_string(),
                ConditionValue::Number(value) => value.to_string(),
            };
            match &self.field {
                Some(field) => Ok(format!("{}:{value}", text(what, field, limits)?)),
                None => Ok(value),
            }
        };
        values.iter().map(tag).collect()
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
    fn conditions_become_tags() {
        let json = r#"{"all":[{"field":"category","in":["shoes","boots"]},{"field":"in_stock","eq":true},{"eq":"new"}],
            "any":[{"field":"size","in":[41,42]},{"eq":"sale"}],"none":[{"field":"region","in":["DE","AT"]}],"items":["7",8]}"#;
        let expected = ItemFilter {
            all: vec!["in_stock:true".to_owned(), "new".to_owned()],
            any: vec![
                vec!["category:shoes".to_owned(), "category:boots".to_owned()],
                vec!["size:41".to_owned(), "size:42".to_owned(), "sale".to_owned()],
            ],
            none: vec!["region:DE".to_owned(), "region:AT".to_owned()],
            allow: Some(vec![OwnedId::U64(7), OwnedId::U64(8)]),
            deny: Vec::new(),
        };
        assert_eq!(filter(json), Ok(expected));
        assert_eq!(filter("{}"), Ok(ItemFilter::default()));
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
            r#"{"some":[]}"#,
            r#"{"items":[-1]}"#,
            r#"{"items":[""]}"#,
            r#"{"items":[1.0]}"#,
        ] {
            assert!(filter(json).is_err(), "{json}");
        }
    }
}
