//! A batch: an array of requests, of which no more than may be asked for are kept.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};

use super::super::problem::Problem;
use super::RecommendRequest;

/// The requests of a body that is an array.
#[derive(Debug)]
pub struct Batch {
    /// The first of them: as many as may be asked for.
    pub kept: Vec<RecommendRequest>,
    /// How many there are.
    pub count: usize,
}

impl Batch {
    /// Reads a batch of which at most so many are kept: an empty request takes two bytes in a body and hundreds here.
    pub fn read(body: &[u8], most: usize) -> Result<Self, Problem> {
        let mut from = serde_json::Deserializer::from_slice(body);
        let batch = from.deserialize_seq(Keep { most });
        let whole = batch.and_then(|batch| from.end().map(|()| batch));
        whole.map_err(|error| Problem::invalid(error.to_string()))
    }
}

struct Keep {
    most: usize,
}

impl<'de> Visitor<'de> for Keep {
    type Value = Batch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of requests")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Batch, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.most {
            match entries.next_element()? {
                Some(request) => kept.push(request),
                None => return Ok(Batch { count: kept.len(), kept }),
            }
        }
        let mut count = kept.len();
        while entries.next_element::<IgnoredAny>()?.is_some() {
            count = count.checked_add(1).ok_or_else(|| A::Error::custom("too many requests"))?;
        }
        Ok(Batch { kept, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_counted_and_not_kept() {
        let body = format!("[{}{{}}]", "{},".repeat(349_999));
        let batch = Batch::read(body.as_bytes(), 256).unwrap();
        assert_eq!((batch.kept.len(), batch.kept.capacity(), batch.count), (256, 256, 350_000));
        let batch = Batch::read(br#" [{"k":1}, {"k":2}] "#, 256).unwrap();
        assert_eq!(batch.kept.iter().map(|request| request.k).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert_eq!(Batch::read(b"[]", 256).unwrap().count, 0);
    }

    #[test]
    fn a_batch_is_an_array_of_requests_and_nothing_after_it() {
        for body in ["[", "[{]", "[{}", "[{}]]", "[{}][]", "[1]", "[{\"kk\":1}]", "{}", ""] {
            assert!(Batch::read(body.as_bytes(), 256).is_err(), "{body}");
        }
        assert!(Batch::read(b"[{},{},", 1).is_err(), "what is not kept is still looked at");
    }
}
