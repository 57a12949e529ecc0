//! Which items may be answered, as it is asked for: clauses about tags and numbers, and lists of items.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::request::{OwnedId, check, check_list};
use super::{EngineError, MAX_LIST};

/// Ranges of a filter at the most. Each that was not asked for lately costs up to half a millisecond for a million items.
pub const MAX_RANGES: usize = 32;

/// Which items may be answered: those that pass all of it. Tags of several fields are written `field:value`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ItemFilter {
    /// Clauses that an item must all meet.
    pub all: Vec<Clause>,
    /// Groups of clauses: of each an item must meet at least one. A group for each field.
    pub any: Vec<Vec<Clause>>,
    /// Clauses of which an item may meet none.
    pub none: Vec<Clause>,
    /// The only items that may be answered, if there is such a list.
    pub allow: Option<Vec<OwnedId>>,
    /// Items that may not be answered.
    pub deny: Vec<OwnedId>,
}

/// What an item meets or does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Clause {
    /// It has this tag.
    Tag(String),
    /// It has a number within this range.
    Range(NumberRange),
}

/// Numbers of a field from `min` to `max`, **both included**. An item without a number of the field is in no range of it.
#[derive(Clone, Debug)]
pub struct NumberRange {
    /// The field.
    pub field: String,
    /// The smallest number that is within, if there is one.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

impl From<&str> for Clause {
    fn from(tag: &str) -> Self {
        Self::Tag(tag.to_owned())
    }
}

impl From<String> for Clause {
    fn from(tag: String) -> Self {
        Self::Tag(tag)
    }
}

impl From<NumberRange> for Clause {
    fn from(range: NumberRange) -> Self {
        Self::Range(range)
    }
}

impl NumberRange {
    /// Whether a number is within.
    pub fn holds(&self, number: f64) -> bool {
        let (min, max) = self.ends();
        min <= number && number <= max
    }

    /// Both ends; infinite where there is none.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.min.unwrap_or(f64::NEG_INFINITY), self.max.unwrap_or(f64::INFINITY))
    }

    fn check(&self) -> Result<(), EngineError> {
        let finite = [self.min, self.max].into_iter().flatten().all(f64::is_finite);
        let end = |end: Option<f64>| end.map(|end| end.to_string()).unwrap_or_default();
        let got = || format!("{}:{}..{}", self.field, end(self.min), end(self.max));
        check("a range", finite && (self.min.is_some() || self.max.is_some()), "one end or two, finite", got())?;
        let (min, max) = self.ends();
        check("a range", min <= max, "an end that is not before its beginning", got())
    }

    /// What makes ranges equal: the bits of their ends.
    fn key(&self) -> (&str, [Option<u64>; 2]) {
        (&self.field, [self.min, self.max].map(|end| end.map(f64::to_bits)))
    }
}

impl PartialEq for NumberRange {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for NumberRange {}

impl Hash for NumberRange {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for NumberRange {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Some order, so that alike filters can be told.
impl Ord for NumberRange {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// `field:min..max`, either end of which may be left out.
impl FromStr for NumberRange {
    type Err = EngineError;
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let parts = text.rsplit_once(':').and_then(|(field, ends)| Some((field, ends.split_once("..")?)));
        let end = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
        if let Some((field, (min, max))) = parts.filter(|(field, _)| !field.is_empty())
            && let (Ok(min), Ok(max)) = (end(min), end(max))
        {
            let range = Self { field: field.to_owned(), min, max };
            return range.check().map(|()| range);
        }
        let shown: String = text.chars().take(64).collect();
        let expected = "field:min..max, as price:1..20 or price:..20".to_owned();
        Err(EngineError::Request { what: "a range", expected, got: format!("{shown:?}") })
    }
}

impl ItemFilter {
    /// Whether every item passes.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
            && self.any.is_empty()
            && self.none.is_empty()
            && self.allow.is_none()
            && self.deny.is_empty()
    }

    /// All of its clauses.
    pub(super) fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.all.iter().chain(self.any.iter().flatten()).chain(&self.none)
    }

    /// Refuses what cannot be meant.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        check_list("clauses of the filter", self.clauses().count(), MAX_LIST)?;
        let ranges =
            || self.clauses().filter_map(|clause| if let Clause::Range(range) = clause { Some(range) } else { None });
        check_list("ranges of the filter", ranges().count(), MAX_RANGES)?;
        ranges().try_for_each(NumberRange::check)?;
        check("a group of clauses", self.any.iter().all(|group| !group.is_empty()), "at least one", 0)?;
        check_list("items of the allow list", self.allow.as_ref().map_or(0, Vec::len), MAX_LIST)?;
        check_list("items of the deny list", self.deny.len(), MAX_LIST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: Option<f64>, max: Option<f64>) -> NumberRange {
        NumberRange { field: "price".to_owned(), min, max }
    }

    #[test]
    fn ranges_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<NumberRange>().unwrap();
        assert_eq!(read("price:1..20"), range(Some(1.0), Some(20.0)));
        assert_eq!(read("price:-1.5e3..-0.25"), range(Some(-1500.0), Some(-0.25)));
        assert_eq!([read("price:..20"), read("price:1..")], [range(None, Some(20.0)), range(Some(1.0), None)]);
        assert_eq!(read("a:b:1..1").field, "a:b");
        for text in ["", "price", "price:", "price:1", ":1..2", "price:1...2", "price:a..b", "price:..", "price:NaN..1"]
        {
            assert!(text.parse::<NumberRange>().is_err(), "{text}");
        }
        for text in ["price:2..1", "price:1..inf", "price:1e400.."] {
            assert!(text.parse::<NumberRange>().unwrap_err().to_string().contains("a range: expected"), "{text}");
        }
    }

    #[test]
    fn both_ends_are_within() {
        let holds = |min, max| [0.5, 1.0, 2.0, 2.5].map(|number| range(min, max).holds(number));
        assert_eq!(holds(Some(1.0), Some(2.0)), [false, true, true, false]);
        assert_eq!(
            [holds(Some(1.0), None), holds(None, Some(1.0))],
            [[false, true, true, true], [true, true, false, false]]
        );
        assert!(!range(None, None).holds(f64::NAN) && range(Some(0.0), Some(0.0)).holds(-0.0));
    }

    #[test]
    fn filters_that_cannot_be_meant_are_refused() {
        let filter =
            |range: NumberRange, times| ItemFilter { none: vec![range.into(); times], ..ItemFilter::default() };
        assert!(filter(range(Some(1.0), Some(1.0)), MAX_RANGES).check().is_ok());
        assert!(filter(range(Some(1.0), Some(1.0)), MAX_RANGES + 1).check().is_err());
        for (min, max) in [(None, None), (Some(2.0), Some(1.0)), (Some(f64::NAN), None), (None, Some(f64::INFINITY))] {
            assert!(filter(range(min, max), 1).check().is_err(), "{min:?} to {max:?}");
        }
    }
}
