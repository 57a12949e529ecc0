//! Interactions that the model has not seen, by rows: what hit rate and NDCG are measured by.

use std::collections::BTreeMap;
use std::path::Path;

use crate::input::{Id, IdIndex, InputError, read_interactions};

/// A user's held-out interactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// Row of the user.
    pub user: u32,
    /// Rows of the items that should be among the answers, ascending.
    pub wanted: Vec<u32>,
    /// Rows of items that may not be, ascending, and none of `wanted`.
    pub seen: Vec<u32>,
}

/// The held-out interactions of at most `most` users, evenly spread over those who have any, each with what the user has
/// seen, by a second log. Interactions of unknown users or items are left out: no answer could hold them.
///
/// Holds 8 bytes a held-out interaction while it reads, and 4 for each seen item of the users chosen.
pub fn read_cases(
    heldout: &Path,
    seen: Option<&Path>,
    users: &IdIndex,
    items: &IdIndex,
    most: usize,
) -> Result<Vec<Case>, InputError> {
    let mut pairs = Vec::new();
    let rows = |user: Id<'_>, item: Id<'_>| Some((users.find(user)?, items.find(item)?));
    read_interactions(heldout, |user, item| {
        pairs.extend(rows(user, item));
        Ok::<_, InputError>(())
    })?;
    pairs.sort_unstable();
    pairs.dedup();
    let groups: Vec<&[(u32, u32)]> = pairs.chunk_by(|a, b| a.0 == b.0).collect();
    let count = most.min(groups.len());
    let chosen = (0..count).map(|at| groups[at * groups.len() / count]);
    let case = |pairs: &[(u32, u32)]| {
        let wanted = pairs.iter().map(|&(_, item)| item).collect();
        (pairs[0].0, Case { user: pairs[0].0, wanted, seen: Vec::new() })
    };
    let mut cases: BTreeMap<u32, Case> = chosen.map(case).collect();
    if let Some(seen) = seen {
        read_interactions(seen, |user, item| {
            if let Some((user, item)) = rows(user, item)
                && let Some(case) = cases.get_mut(&user)
                && case.wanted.binary_search(&item).is_err()
            {
                case.seen.push(item);
            }
            Ok::<_, InputError>(())
        })?;
    }
    let mut cases: Vec<Case> = cases.into_values().collect();
    for case in &mut cases {
        case.seen.sort_unstable();
        case.seen.dedup();
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Ids;

    #[test]
    fn users_are_grouped_spread_and_joined_with_what_they_saw() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (users, items) = (Ids::U64((10..20).collect()), Ids::U64((100..200).collect()));
        let held = write("held.csv", "user,item\n10,105\n12,101\n10,101\n10,101\n14,100\n99,100\n16,7\n18,150\n");
        let seen = write("seen.csv", "user,item\n10,103\n10,105\n18,199\n10,102\n10,103\n12,9\n");
        let read = |most| read_cases(&held, Some(&seen), &users.index(), &items.index(), most).unwrap();
        let case = |user, wanted: &[u32], seen: &[u32]| Case { user, wanted: wanted.into(), seen: seen.into() };
        let all = [case(0, &[1, 5], &[2, 3]), case(2, &[1], &[]), case(4, &[0], &[]), case(8, &[50], &[99])];
        assert_eq!(read(100), all);
        assert_eq!(read(2), [all[0].clone(), all[2].clone()]);
        assert_eq!(read(0), []);
        assert!(read_cases(&held, None, &users.index(), &items.index(), 9).unwrap().iter().all(|c| c.seen.is_empty()));
    }
}
