//! External id to row.

use super::{Id, Ids};

/// Finds the row of an id by binary search over a sorted permutation: 4 bytes a row beside the ids, and about
/// `log2(rows)` comparisons a lookup.
#[derive(Debug)]
pub struct IdIndex<'a> {
    ids: &'a Ids,
    /// Rows in ascending order of id.
    rows: Vec<u32>,
}

impl<'a> IdIndex<'a> {
    pub(super) fn new(ids: &'a Ids) -> Self {
        IdIndex { ids, rows: ids.sorted_rows() }
    }

    /// The row of `id`; the first such row should the ids repeat.
    pub fn find(&self, id: Id<'_>) -> Option<u32> {
        match (self.ids, id) {
            (Ids::U64(ids), Id::U64(id)) => {
                let at = self.rows.partition_point(|&row| ids[row as usize] < id);
                self.rows.get(at).copied().filter(|&row| ids[row as usize] == id)
            }
            (Ids::U64(_), Id::Text(text)) => match Id::parse(text) {
                Id::Text(_) => None,
                number @ Id::U64(_) => self.find(number),
            },
            (Ids::Text(_), Id::U64(number)) => self.find(Id::Text(&number.to_string())),
            (Ids::Text(ids), Id::Text(id)) => {
                let at = self.rows.partition_point(|&row| ids.get(row as usize) < id);
                self.rows.get(at).copied().filter(|&row| ids.get(row as usize) == id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_at_its_row_and_no_other_is() {
        let numbers = Ids::U64(vec![30, 10, u64::MAX, 0]);
        let index = numbers.index();
        for (row, id) in numbers.iter().enumerate() {
            assert_eq!(index.find(id), Some(row as u32));
        }
        assert_eq!(index.find(Id::Text("10")), Some(1));
        assert_eq!(index.find(Id::U64(11)), None);
        assert_eq!(index.find(Id::Text("x")), None);

        let texts = Ids::Text(["b", "a", "7", "żółw"].into_iter().collect());
        let index = texts.index();
        for (row, id) in texts.iter().enumerate() {
            assert_eq!(index.find(id), Some(row as u32));
        }
        assert_eq!(index.find(Id::U64(7)), Some(2));
        assert_eq!(index.find(Id::U64(8)), None);
        assert_eq!(index.find(Id::Text("zz")), None);
    }

    #[test]
    fn nothing_is_found_among_no_ids() {
        assert_eq!(Ids::U64(vec![]).index().find(Id::U64(0)), None);
    }
}
