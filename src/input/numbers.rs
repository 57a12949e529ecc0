//! Numbers of items, that filters take ranges of: prices, years, ratings.

use std::collections::BTreeMap;
use std::path::Path;

use super::sheet::{self, ID_NAMES, Wanted};
use super::tags::unknown;
use super::{Ids, InputError};

/// More fields than this are refused: 256, a multiple of what anybody filters by, and far from a table turned on its side,
/// with a field for each item.
pub const MAX_FIELDS: usize = 256;

/// Fields in ascending order of name, each with the numbers of its items. Costs 16 bytes a number.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// The name of each field; 1 to 1024 bytes, ascending, unique; at most [`MAX_FIELDS`].
    pub fields: Vec<String>,
    /// For each field rows of items, ascending and unique, and their numbers, finite; never empty.
    pub values: Vec<Vec<(u32, f64)>>,
}

/// Reads the numbers of items: a table with columns `id` (or `item_id`), `field` and `value`, a row a number. Items may
/// lack fields. An id that is not among `ids`, a number that is not finite and a second one of a field for the same item
/// are refused.
pub fn read_numbers(path: &Path, ids: &Ids) -> Result<Numbers, InputError> {
    let mut by_field: BTreeMap<String, Vec<(u32, f64)>> = BTreeMap::new();
    let index = ids.index();
    let wanted = [ID_NAMES, &["field"], &["value"]].map(Wanted::required);
    sheet::for_each_row(path, &wanted, |row| {
        let (id, field) = (row.id(0)?, row.text(1)?);
        let item = index.find(id).ok_or_else(|| unknown(path, row.at(), &id.to_string()))?;
        // Adding 0 turns -0 into 0.
        let pair = (item, row.number(2)? + 0.0);
        if let Some(pairs) = by_field.get_mut(field) {
            pairs.push(pair);
        } else if by_field.len() == MAX_FIELDS {
            return Err(too_many(path, field));
        } else {
            by_field.insert(field.to_owned(), vec![pair]);
        }
        Ok(())
    })?;
    let mut numbers = Numbers::default();
    for (field, mut pairs) in by_field {
        pairs.sort_unstable_by_key(|&(item, _)| item);
        if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(repeated(path, &field, &ids.get(twice[0].0 as usize).to_string()));
        }
        numbers.fields.push(field);
        numbers.values.push(pairs);
    }
    Ok(numbers)
}

fn too_many(path: &Path, field: &str) -> InputError {
    let got = format!("`{field}` beside them");
    let remedy = "a field is what items have in common, as `price`: look whether columns are exchanged, or drop some";
    InputError::format(path, format!("at most {MAX_FIELDS} fields"), got, remedy)
}

fn repeated(path: &Path, field: &str, id: &str) -> InputError {
    let got = format!("several for `{id}`");
    InputError::format(path, format!("one `{field}` an item"), got, "keep one of the item's rows")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

    use super::super::testing::{Folder, assert_says, numbers, texts};
    use super::*;

    #[test]
    fn numbers_land_on_their_items_and_others_have_none() {
        let folder = Folder::new();
        let ids = Ids::U64(vec![10, 20, 30]);
        let expected = Numbers {
            fields: vec!["price".to_owned(), "year".to_owned()],
            values: vec![vec![(0, 19.99), (2, -1e300)], vec![(1, 2026.0)]],
        };
        let path = folder.file("n.csv", "id,field,value\n30,price,-1e300\n20,year,2026\n10,price, 19.99\n");
        assert_eq!(read_numbers(&path, &ids).unwrap(), expected);
        let value: ArrayRef = Arc::new(Float64Array::from(vec![2026.0, -1e300, 19.99]));
        let columns =
            [("value", value), ("item_id", numbers(&[20, 30, 10])), ("field", texts(&["year", "price", "price"]))];
        for path in folder.tables(&columns) {
            assert_eq!(read_numbers(&path, &ids).unwrap(), expected);
        }
        let zero = read_numbers(&folder.file("n.csv", "id,field,value\n10,a,-0.0\n"), &ids).unwrap();
        assert!(zero.values[0][0].1.is_sign_positive());
        assert_eq!(read_numbers(&folder.file("n.csv", "id,field,value\n"), &ids).unwrap(), Numbers::default());
    }

    #[test]
    fn numbers_that_no_range_could_hold_are_refused() {
        let folder = Folder::new();
        let ids = Ids::U64(vec![10, 20]);
        for (line, says) in [
            ("10,a,NaN", &["line 3", "column value", "a finite number"][..]),
            ("10,a,inf", &["line 3", "a finite number"]),
            ("10,a,1e400", &["line 3", "a finite number"]),
            ("10,a,", &["line 3", "a finite number"]),
            ("10,a,cheap", &["line 3", "`cheap`"]),
            ("10,,1", &["line 3", "column field", "nothing"]),
            ("11,a,1", &["line 3", "column id", "`11`"]),
            ("20,a,2", &["one `a` an item", "several for `20`"]),
            ("20,a,1", &["one `a` an item", "several for `20`"]),
        ] {
            let path = folder.file("n.csv", format!("id,field,value\n20,a,1\n{line}\n"));
            assert_says(&read_numbers(&path, &ids).unwrap_err(), &path, says);
        }
        let path = folder.file("n.csv", "id,tag\n10,a\n");
        assert_says(&read_numbers(&path, &ids).unwrap_err(), &path, &["`field`", "`id`, `tag`"]);
        let none: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let value: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        for path in folder.tables(&[("id", numbers(&[10, 20])), ("field", none), ("value", value)]) {
            assert_says(&read_numbers(&path, &ids).unwrap_err(), &path, &["row 1", "column field", "nothing"]);
        }
    }

    #[test]
    fn a_field_for_each_item_is_a_mistake_and_is_said_so() {
        let folder = Folder::new();
        let ids = Ids::U64((0..1_000).collect());
        let file = |fields: usize| {
            let rows: Vec<String> = (0..fields).map(|at| format!("{at},field-{at},1\n")).collect();
            folder.file("n.csv", format!("id,field,value\n{}", rows.concat()))
        };
        assert_eq!(read_numbers(&file(MAX_FIELDS), &ids).unwrap().fields.len(), MAX_FIELDS);
        let path = file(MAX_FIELDS + 1);
        assert_says(
            &read_numbers(&path, &ids).unwrap_err(),
            &path,
            &["at most 256 fields", "`field-256`", "exchanged"],
        );
    }
}
