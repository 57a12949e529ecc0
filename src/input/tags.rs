//! What filters are made of: which items carry which tag.

use std::collections::BTreeMap;
use std::path::Path;

use super::sheet::{self, ID_NAMES, Row, Wanted};
use super::{IdIndex, Ids, InputError, Place, check_rows};

/// Tags in ascending order of name, each with the rows of its items. Costs 4 bytes per tag of an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags {
    /// The name of each tag; 1 to 1024 bytes, ascending, unique.
    pub names: Vec<String>,
    /// For each tag, the rows of its items; ascending, unique, never empty.
    pub rows: Vec<Vec<u32>>,
}

/// Reads the tags of items. A table has a column `tags` (or `tag`) of texts or lists of texts, and a column `id` (or
/// `item_id`); an item may have several rows. A parquet or arrow table without ids is taken in the order of `ids`.
/// An id that is not among `ids` is refused.
pub fn read_tags(path: &Path, ids: &Ids) -> Result<Tags, InputError> {
    let mut by_name: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for_each_item(path, ids, &["tags", "tag"], |item, row| {
        row.texts(1, |tag| match by_name.get_mut(tag) {
            Some(rows) => rows.push(item),
            None => drop(by_name.insert(tag.to_owned(), vec![item])),
        })
    })?;
    let mut tags = Tags::default();
    for (name, mut rows) in by_name {
        rows.sort_unstable();
        rows.dedup();
        rows.shrink_to_fit();
        tags.names.push(name);
        tags.rows.push(rows);
    }
    Ok(tags)
}

/// Calls `f(item, row)` for each row of a table about items, with the item's row in `ids`. Column 1 of `row` is the
/// one under `names`.
pub(super) fn for_each_item(
    path: &Path,
    ids: &Ids,
    names: &[&str],
    mut f: impl FnMut(u32, &Row<'_>) -> Result<(), InputError>,
) -> Result<(), InputError> {
    let mut index: Option<IdIndex<'_>> = None;
    let mut unnamed = 0;
    let wanted = [Wanted::optional(ID_NAMES), Wanted::required(names)];
    sheet::for_each_row(path, &wanted, |row| {
        if row.has(0) {
            let id = row.id(0)?;
            let item = index.get_or_insert_with(|| ids.index()).find(id);
            return f(item.ok_or_else(|| unknown(path, row.at(), &id.to_string()))?, row);
        }
        if let Place::Line(_) = row.at() {
            return Err(no_ids(path));
        }
        unnamed += 1;
        // Rows past the ids are only counted, for the message below.
        if unnamed > ids.len() { Ok(()) } else { f(unnamed as u32 - 1, row) }
    })?;
    if unnamed > 0 {
        check_rows(&format!("{} beside the item ids", path.display()), ids.len(), unnamed)?;
    }
    Ok(())
}

pub(super) fn unknown(path: &Path, at: Place, id: &str) -> InputError {
    InputError::value(
        path,
        at,
        "id",
        "an id of the index",
        format!("`{id}`"),
        "drop the row, or build with the item's vector",
    )
}

fn no_ids(path: &Path) -> InputError {
    InputError::format(
        path,
        format!("a column named `{}`", ID_NAMES.join("` or `")),
        "none",
        "lines of text need the id of their item: add the column",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, ListBuilder, StringBuilder, StringDictionaryBuilder};
    use arrow::datatypes::Int32Type;

    use super::super::testing::{Folder, assert_says, numbers, texts};
    use super::*;

    fn tags(names: &[&str], rows: &[&[u32]]) -> Tags {
        Tags {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            rows: rows.iter().map(|rows| rows.to_vec()).collect(),
        }
    }

    fn lists() -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("new"), Some("blue")]);
        lists.append_null();
        lists.append_value([Some("blue"), Some("blue")]);
        Arc::new(lists.finish())
    }

    #[test]
    fn lists_of_tags_are_read_by_id_and_in_row_order() {
        let folder = Folder::new();
        let ids = Ids::U64(vec![10, 20, 30]);
        for path in folder.tables(&[("tags", lists())]) {
            assert_eq!(read_tags(&path, &ids).unwrap(), tags(&["blue", "new"], &[&[0, 2], &[0]]));
        }
        for path in folder.tables(&[("id", numbers(&[30, 10, 20])), ("tags", lists())]) {
            assert_eq!(read_tags(&path, &ids).unwrap(), tags(&["blue", "new"], &[&[1, 2], &[2]]));
        }
    }

    #[test]
    fn dictionaries_of_tags_are_looked_through() {
        let folder = Folder::new();
        let mut plain = StringDictionaryBuilder::<Int32Type>::new();
        plain.append_value("red");
        plain.append_null();
        plain.append_value("red");
        let mut lists = ListBuilder::new(StringDictionaryBuilder::<Int32Type>::new());
        lists.append_value([Some("red")]);
        lists.append_null();
        lists.append_value([Some("red"), Some("red")]);
        let columns: [ArrayRef; 2] = [Arc::new(plain.finish()), Arc::new(lists.finish())];
        for column in columns {
            for path in folder.tables(&[("tags", column)]) {
                let ids = Ids::U64(vec![10, 20, 30]);
                assert_eq!(read_tags(&path, &ids).unwrap(), tags(&["red"], &[&[0, 2]]));
            }
        }
    }

    #[test]
    fn pairs_of_id_and_tag_are_read_from_csv_and_tables() {
        let folder = Folder::new();
        let ids = Ids::Text(["a", "7", "c"].into_iter().collect());
        let expected = tags(&["blue", "new"], &[&[0, 1], &[1]]);
        let path = folder.file("t.csv", "id,tag\n7,new\n7,blue\na,blue\na,blue\n");
        assert_eq!(read_tags(&path, &ids).unwrap(), expected);
        let columns = [("item_id", texts(&["7", "7", "a"])), ("tag", texts(&["new", "blue", "blue"]))];
        for path in folder.tables(&columns) {
            assert_eq!(read_tags(&path, &ids).unwrap(), expected);
        }
    }

    #[test]
    fn tags_that_fit_no_item_are_refused() {
        let folder = Folder::new();
        let ids = Ids::U64(vec![10, 20]);
        for (bytes, says) in [
            ("id,tag\n10,a\n11,b\n", &["line 3", "column id", "`11`"][..]),
            ("id,tag\n10,\n", &["line 2", "column tag", "nothing"]),
            ("tag\na\n", &["`id` or"]),
            ("id,colour\n10,a\n", &["`tags` or `tag`", "`id`, `colour`"]),
        ] {
            let path = folder.file("t.csv", bytes);
            assert_says(&read_tags(&path, &ids).unwrap_err(), &path, says);
        }
        for path in folder.tables(&[("tags", lists())]) {
            assert_says(&read_tags(&path, &ids).unwrap_err(), &path, &["expected 2 rows, got 3"]);
        }
        for path in folder.tables(&[("id", numbers(&[10])), ("tags", numbers(&[1]))]) {
            assert_says(&read_tags(&path, &ids).unwrap_err(), &path, &["row 0", "column tags", "cast"]);
        }
    }
}
