//! Vectors as this process saw them last: what answers when the store does not.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use super::request::OwnedId;
use super::resolve::UserVector;

/// What a user takes beside id and record: two entries of tables and an allocation each.
const ENTRY_BYTES: usize = 160;

/// The last vectors of users, within a budget; the ones first met go first.
#[derive(Debug)]
pub(super) struct Known {
    budget_bytes: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    vectors: HashMap<OwnedId, UserVector>,
    order: VecDeque<OwnedId>,
    bytes: usize,
}

impl Known {
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, kept: Mutex::default() }
    }

    /// The vector of this very user, whatever became of it since.
    pub fn get(&self, user: &OwnedId) -> Option<UserVector> {
        self.kept.lock().ok()?.vectors.get(user).cloned()
    }

    pub fn put(&self, user: &OwnedId, vector: &UserVector) {
        let bytes = cost(user, vector);
        let Ok(mut kept) = self.kept.lock() else { return };
        if bytes > self.budget_bytes {
            return;
        }
        if let Some(old) = kept.vectors.get_mut(user) {
            let before = cost(user, old);
            old.clone_from(vector);
            kept.bytes = kept.bytes + bytes - before;
        } else {
            kept.vectors.insert(user.clone(), vector.clone());
            kept.order.push_back(user.clone());
            kept.bytes += bytes;
        }
        while kept.bytes > self.budget_bytes
            && let Some(first) = kept.order.pop_front()
        {
            if let Some(vector) = kept.vectors.remove(&first) {
                kept.bytes -= cost(&first, &vector);
            }
        }
    }
}

fn cost(user: &OwnedId, vector: &UserVector) -> usize {
    let id = if let OwnedId::Text(text) = user { 2 * text.len() } else { 0 };
    ENTRY_BYTES + id + vector.record.len()
}

#[cfg(test)]
mod tests {
    use super::super::answer::Rung;
    use super::*;
    use crate::codec::Codec;

    fn vector(byte: u8, len: usize) -> UserVector {
        UserVector { fingerprint: 1, codec: Codec::Int8, record: vec![byte; len], rung: Rung::Page, made_s: None }
    }

    #[test]
    fn the_last_vector_of_each_user_is_kept_within_the_budget() {
        let known = Known::new(10 * (ENTRY_BYTES + 66));
        for round in 0..3 {
            for user in 0..10 {
                known.put(&OwnedId::U64(user), &vector(user as u8 + round, 66));
            }
        }
        for user in 0..10 {
            assert_eq!(known.get(&OwnedId::U64(user)).unwrap().record, [user as u8 + 2; 66]);
        }
        known.put(&OwnedId::parse("eleventh"), &vector(7, 66));
        assert!(known.get(&OwnedId::U64(0)).is_none(), "the first met goes first");
        assert!(known.get(&OwnedId::parse("eleventh")).is_some());
        known.put(&OwnedId::U64(5), &vector(1, 1 << 20));
        assert_eq!(known.get(&OwnedId::U64(5)).unwrap().record.len(), 66, "what could never fit is not taken");
        assert!(known.kept.lock().unwrap().bytes <= known.budget_bytes);
    }
}
