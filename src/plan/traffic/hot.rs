//! Users with the most requests, in one pass and constant memory: space-saving (Metwally, Agrawal, El Abbadi, ICDT 2005).

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::input::Id;

/// Users counted at a time. Everyone with more than a thousandth of the requests is among them.
const COUNTED: usize = 1000;

/// A user with many requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotUser {
    /// The id.
    pub id: String,
    /// His requests are at most so many,
    pub most: u64,
    /// and at least so many.
    pub least: u64,
}

#[derive(Default)]
pub(super) struct Hot {
    /// Hash of the id to its counter.
    places: HashMap<u64, u32>,
    counters: Vec<Counter>,
    /// (count, counter), the rarest first.
    order: BTreeSet<(u64, u32)>,
}

struct Counter {
    hash: u64,
    id: Box<str>,
    count: u64,
    /// What the counter stood at when this user took it over.
    before: u64,
}

impl Hot {
    pub fn count(&mut self, hash: u64, id: Id<'_>) {
        let place = match self.places.get(&hash) {
            Some(&place) => place,
            None => self.take(hash, id),
        };
        let counter = &mut self.counters[place as usize];
        self.order.remove(&(counter.count, place));
        counter.count += 1;
        self.order.insert((counter.count, place));
    }

    /// A new counter, or the one of the rarest user, with his count: the newcomer may have had as many.
    fn take(&mut self, hash: u64, id: Id<'_>) -> u32 {
        let id = id.to_string().into_boxed_str();
        let place = match self.order.first() {
            Some(&(count, place)) if self.counters.len() >= COUNTED => {
                let old =
                    std::mem::replace(&mut self.counters[place as usize], Counter { hash, id, count, before: count });
                self.places.remove(&old.hash);
                place
            }
            _ => {
                self.counters.push(Counter { hash, id, count: 0, before: 0 });
                self.counters.len() as u32 - 1
            }
        };
        self.places.insert(hash, place);
        place
    }

    /// The `n` users with the most requests for certain, most first.
    pub fn top(self, n: usize) -> Vec<HotUser> {
        let hot = |counter: Counter| HotUser {
            id: counter.id.into(),
            most: counter.count,
            least: counter.count - counter.before,
        };
        let mut users: Vec<HotUser> = self.counters.into_iter().map(hot).collect();
        users.sort_unstable_by(|a, b| b.least.cmp(&a.least).then_with(|| a.id.cmp(&b.id)));
        users.truncate(n);
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_many_requests_are_found_among_very_many_users() {
        let mut hot = Hot::default();
        for at in 0..400_000_u64 {
            // every tenth request is one of five users'; all others come once
            let user = if at % 10 == 0 { at / 10 % 5 } else { at + 1000 };
            hot.count(user.wrapping_mul(0x9e37_79b9_7f4a_7c15), Id::U64(user));
        }
        assert_eq!(hot.counters.len(), COUNTED);
        let top = hot.top(5);
        let mut ids: Vec<&str> = top.iter().map(|user| user.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["0", "1", "2", "3", "4"]);
        for user in top {
            assert!(user.least <= 8_000 && user.most >= 8_000, "{user:?}");
        }
    }
}
