//! How popular each item is: the order of last resort, when nothing better is known of a user.

use std::path::Path;

use super::tags::for_each_item;
use super::{Ids, InputError};

/// Reads the popularity of items: a column `popularity`, finite and at least 0, and a column `id` (or `item_id`). A
/// parquet or arrow table without ids is taken in the order of `ids`. Returns one number per row of `ids`, 0 for
/// items the file does not mention. An unknown id, and a second popularity for the same item, are refused.
pub fn read_popularity(path: &Path, ids: &Ids) -> Result<Vec<f32>, InputError> {
    let mut popularity: Vec<Option<f32>> = vec![None; ids.len()];
    for_each_item(path, ids, &["popularity"], |item, row| {
        let number = row.number(1)?;
        // Adding 0 turns -0 into 0.
        let small = number as f32 + 0.0;
        let slot = &mut popularity[item as usize];
        if number < 0.0 || !small.is_finite() {
            return Err(row.refuse_number(1, "a number from 0 that fits f32", number, "correct the row"));
        }
        if slot.replace(small).is_some() {
            return Err(row.refuse_number(1, "one popularity per item", number, "add the item's rows together"));
        }
        Ok(())
    })?;
    Ok(popularity.into_iter().map(Option::unwrap_or_default).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array};

    use super::super::testing::{Folder, assert_says, numbers};
    use super::*;

    #[test]
    fn numbers_land_on_their_items_and_the_rest_are_zero() {
        let folder = Folder::new();
        let ids = Ids::U64(vec![10, 20, 30]);
        let path = folder.file("p.csv", "id,popularity\n30,1.5\n10, 2e3\n");
        assert_eq!(read_popularity(&path, &ids).unwrap(), [2000.0, 0.0, 1.5]);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![5, 0]));
        for path in folder.tables(&[("popularity", column), ("id", numbers(&[20, 30]))]) {
            assert_eq!(read_popularity(&path, &ids).unwrap(), [0.0, 5.0, 0.0]);
        }
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 0.25, -0.0]));
        for path in folder.tables(&[("popularity", column)]) {
            let popularity = read_popularity(&path, &ids).unwrap();
            assert_eq!(popularity, [0.5, 0.25, 0.0]);
            assert!(popularity[2].is_sign_positive());
        }
    }

    #[test]
    fn numbers_that_cannot_rank_are_refused() {
        let folder = Folder::new();
        let ids = Ids::U64(vec![10, 20]);
        for (value, says) in [
            ("10,NaN", "a finite number"),
            ("10,inf", "a finite number"),
            ("10,", "a finite number"),
            ("10,many", "`many`"),
            ("10,-1", "-1.0"),
            ("10,1e300", "fits f32"),
            ("11,1", "`11`"),
            ("20,1", "one popularity per item"),
        ] {
            let path = folder.file("p.csv", format!("id,popularity\n20,1\n{value}\n"));
            assert_says(&read_popularity(&path, &ids).unwrap_err(), &path, &["line 3", says]);
        }
        let column: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.0), None]));
        for path in folder.tables(&[("popularity", column)]) {
            assert_says(&read_popularity(&path, &ids).unwrap_err(), &path, &["row 1", "nothing"]);
        }
    }
}
