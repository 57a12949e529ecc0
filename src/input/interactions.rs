//! Who chose what: the log that seen items, popularity and evaluation are made from.

use std::path::Path;

use super::sheet::{self, Wanted};
use super::{Id, InputError};

/// Calls `f(user, item)` for each row of a log, in its order, in bounded memory. The file is `.csv`, `.parquet`,
/// `.arrow` or `.feather` with the columns `user` (or `user_id`) and `item` (or `item_id`); others are ignored.
pub fn read_interactions<E: From<InputError>>(
    path: &Path,
    mut f: impl FnMut(Id<'_>, Id<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let wanted = [Wanted::required(&["user", "user_id"]), Wanted::required(&["item", "item_id"])];
    sheet::for_each_row(path, &wanted, |row| f(row.id(0)?, row.id(1)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Int32Array};
    use arrow::datatypes::Int32Type;

    use super::super::testing::{Folder, assert_says, numbers, texts};
    use super::*;

    fn log(path: &Path) -> Result<String, InputError> {
        let mut seen = String::new();
        read_interactions(path, |user, item| {
            seen.extend([user.to_string().as_str(), ">", item.to_string().as_str(), " "]);
            Ok::<_, InputError>(())
        })?;
        Ok(seen)
    }

    #[test]
    fn pairs_come_in_order_from_every_kind_of_file() {
        let folder = Folder::new();
        let users: DictionaryArray<Int32Type> = ["ann", "bob", "ann", "7"].into_iter().collect();
        let columns = [
            ("time", numbers(&[9, 9, 9, 9])),
            ("item_id", Arc::new(Int32Array::from(vec![3, 4, 5, 3])) as ArrayRef),
            ("user", Arc::new(users) as ArrayRef),
        ];
        for path in folder.tables(&columns) {
            assert_eq!(log(&path).unwrap(), "ann>3 bob>4 ann>5 7>3 ");
        }
        let path = folder.file("l.csv", "user_id,item,rating\nann,3,5\nbob,4,1\n");
        assert_eq!(log(&path).unwrap(), "ann>3 bob>4 ");
    }

    #[test]
    fn the_same_id_is_the_same_value_from_every_kind_of_file() {
        let folder = Folder::new();
        let mut paths = folder.tables(&[("user", texts(&["7"])), ("item", numbers(&[3]))]).to_vec();
        paths.push(folder.file("l.csv", "user,item\n7,3\n"));
        for path in paths {
            read_interactions(&path, |user, item| {
                assert_eq!((user, item), (Id::U64(7), Id::U64(3)));
                Ok::<_, InputError>(())
            })
            .unwrap();
        }
    }

    #[test]
    fn the_callers_error_stops_the_reading() {
        let folder = Folder::new();
        let path = folder.file("l.csv", "user,item\n1,2\n3,4\n");
        let mut calls = 0;
        let stop = read_interactions(&path, |_, _| {
            calls += 1;
            Err(InputError::request(Path::new("x"), "enough", "more"))
        });
        assert!(stop.is_err());
        assert_eq!(calls, 1);
    }

    #[test]
    fn logs_without_both_columns_or_with_bad_ids_are_refused() {
        let folder = Folder::new();
        let path = folder.file("l.csv", "user,thing\n1,2\n");
        assert_says(&log(&path).unwrap_err(), &path, &["`item` or `item_id`", "`thing`"]);
        let path = folder.file("l.csv", "user,item\n1,2\n3,\n");
        assert_says(&log(&path).unwrap_err(), &path, &["line 3", "column item", "nothing"]);
        for path in
            folder.tables(&[("user", numbers(&[1])), ("item", Arc::new(Int32Array::from(vec![-3])) as ArrayRef)])
        {
            assert_says(&log(&path).unwrap_err(), &path, &["row 0", "column item", "-3"]);
        }
        let path = folder.file("l.json", "{}");
        assert_says(&log(&path).unwrap_err(), &path, &[".csv, .parquet"]);
    }
}
