//! Row to external id.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use rayon::slice::ParallelSliceMut;

use super::disk::{Disk, Kind, split_name};
use super::sheet::{self, ID_NAMES, Wanted};
use super::{Id, IdIndex, InputError, MAX_ID_BYTES, Place, Texts, npy};

/// The external id of every row. Numbers when every one of them is a canonical `u64`, else texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// 8 bytes a row.
    U64(Vec<u64>),
    /// The bytes of the ids plus 8 bytes a row.
    Text(Texts),
}

impl Ids {
    /// Reads ids, one a row, and refuses a duplicate: `.txt` one a line; `.npy` of one dimension, u64, i64, u32 or i32;
    /// `.csv`, `.parquet`, `.arrow` or `.feather` by the column `id`, `item_id` or `user_id`, or `file#column`.
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let (path, name) = split_name(path)?;
        let (ids, from_lines) = match Kind::of(&path) {
            Some(Kind::Txt) => (read_lines(&path)?, true),
            Some(Kind::Npy) => (npy::ids(&Disk::open(&path)?)?, false),
            Some(Kind::Csv | Kind::Parquet | Kind::Arrow) => {
                let mut builder = IdsBuilder::default();
                let names = name.as_deref().map_or(ID_NAMES.to_vec(), |name| vec![name]);
                sheet::for_each_row(&path, &[Wanted::required(&names)], |row| {
                    builder.push(row.id(0)?);
                    Ok::<_, InputError>(())
                })?;
                (builder.finish(), false)
            }
            Some(Kind::Fvecs | Kind::Safetensors) | None => {
                return Err(InputError::ending(&path, ".txt, .npy, .csv, .parquet, .arrow or .feather"));
            }
        };
        ids.check_unique_in(&path, from_lines)?;
        Ok(ids)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        match self {
            Ids::U64(ids) => ids.len(),
            Ids::Text(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of `row`; panics when `row >= len()`, as a slice does.
    pub fn get(&self, row: usize) -> Id<'_> {
        match self {
            Ids::U64(ids) => Id::U64(ids[row]),
            Ids::Text(ids) => Id::parse(ids.get(row)),
        }
    }

    /// All ids in row order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Id<'_>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// Refuses a repeated id, naming it and both rows. [`Ids::open`] has checked already.
    pub fn check_unique(&self) -> Result<(), InputError> {
        self.check_unique_in(Path::new("ids"), false)
    }

    /// An index from id to row; costs 4 bytes a row while it lives.
    pub fn index(&self) -> IdIndex<'_> {
        IdIndex::new(self)
    }

    /// Rows in ascending order of id, and of row among equals.
    pub(super) fn sorted_rows(&self) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..self.len() as u32).collect();
        match self {
            Ids::U64(ids) => rows.par_sort_unstable_by_key(|&row| (ids[row as usize], row)),
            Ids::Text(ids) => {
                rows.par_sort_unstable_by(|&a, &b| ids.get(a as usize).cmp(ids.get(b as usize)).then(a.cmp(&b)));
            }
        }
        rows
    }

    /// `lines`: whether places are told as lines of text.
    pub(super) fn check_unique_in(&self, path: &Path, lines: bool) -> Result<(), InputError> {
        if self.len() > u32::MAX as usize {
            let (expected, got) = (format!("at most {} ids", u32::MAX), self.len().to_string());
            return Err(InputError::format(path, expected, got, "split the catalogue: rows are 32-bit numbers"));
        }
        if let Ids::U64(ids) = self
            && ids.is_sorted_by(|a, b| a < b)
        {
            return Ok(());
        }
        let rows = self.sorted_rows();
        let repeats = rows.windows(2).filter(|pair| self.get(pair[0] as usize) == self.get(pair[1] as usize));
        // The earliest repeat in the file, so that the message does not depend on how we sort.
        let Some(pair) = repeats.min_by_key(|pair| pair[1]) else {
            return Ok(());
        };
        let place = |row: u32| if lines { Place::Line(u64::from(row) + 1) } else { Place::Row(u64::from(row)) };
        Err(InputError::Duplicate {
            path: path.into(),
            id: self.get(pair[0] as usize).to_string().into(),
            first: place(pair[0]),
            second: place(pair[1]),
        })
    }
}

/// Collects ids, as numbers until the first that is not one.
#[derive(Debug)]
pub(super) struct IdsBuilder(Ids);

impl Default for IdsBuilder {
    fn default() -> Self {
        IdsBuilder(Ids::U64(Vec::new()))
    }
}

impl IdsBuilder {
    pub(super) fn push(&mut self, id: Id<'_>) {
        match (&mut self.0, id) {
            (Ids::U64(ids), Id::U64(id)) => ids.push(id),
            (Ids::U64(ids), Id::Text(id)) => {
                // Canonical decimals print as they were read, so nothing is lost in turning back.
                let mut texts: Texts = ids.iter().map(u64::to_string).collect();
                texts.push(id);
                self.0 = Ids::Text(texts);
            }
            (Ids::Text(texts), Id::U64(id)) => texts.push(&id.to_string()),
            (Ids::Text(texts), Id::Text(id)) => texts.push(id),
        }
    }

    pub(super) fn finish(self) -> Ids {
        self.0
    }
}

/// Refuses a text that cannot be an id or a tag.
pub(super) fn check_text(path: &Path, at: Place, column: &str, text: &str) -> Result<(), InputError> {
    if !text.is_empty() && text.len() <= MAX_ID_BYTES {
        return Ok(());
    }
    Err(InputError::value(
        path,
        at,
        column,
        format!("1 to {MAX_ID_BYTES} bytes of text"),
        if text.is_empty() { "nothing".to_owned() } else { format!("{} bytes or more", text.len()) },
        "remove the row, or give it a short id",
    ))
}

fn read_lines(path: &Path) -> Result<Ids, InputError> {
    let disk = Disk::open(path)?;
    let mut lines: BufReader<File> = BufReader::new(disk.try_clone()?);
    let mut ids = IdsBuilder::default();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        // A byte-order mark, the longest id and a line end: enough to see that an id is too long, never a whole file.
        let most = 3 + MAX_ID_BYTES as u64 + 2;
        let read = lines.by_ref().take(most).read_until(b'\n', &mut line);
        if read.map_err(|e| InputError::io(path, "reading", e))? == 0 {
            break;
        }
        let at = Place::Line(number);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = if number == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text };
        // A line cut short by the limit may end inside a character: measure before decoding.
        let decoded = if text.len() > MAX_ID_BYTES {
            String::from_utf8_lossy(text)
        } else {
            std::str::from_utf8(text).map_err(|_| not_utf8(path, at, "id", text))?.into()
        };
        check_text(path, at, "id", &decoded)?;
        ids.push(Id::parse(&decoded));
    }
    Ok(ids.finish())
}

/// The refusal of bytes that are not text.
pub(super) fn not_utf8(path: &Path, at: Place, column: &str, got: &[u8]) -> InputError {
    InputError::value(
        path,
        at,
        column,
        "UTF-8",
        format!("`{}`", got.get(..40).unwrap_or(got).escape_ascii()),
        "save the text as UTF-8",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int32Array, LargeStringArray, StringViewArray};
    use arrow::datatypes::Int8Type;

    use super::super::testing::{Folder, assert_says, numbers, texts};
    use super::*;

    fn text(ids: &[&str]) -> Ids {
        Ids::Text(ids.iter().collect())
    }

    #[test]
    fn lines_are_numbers_only_when_all_are() {
        let folder = Folder::new();
        for (bytes, expected) in [
            ("", Ids::U64(vec![])),
            ("1\n20\n0", Ids::U64(vec![1, 20, 0])),
            ("\u{feff}1\r\n20\r\n", Ids::U64(vec![1, 20])),
            ("1\n020\n", text(&["1", "020"])),
            ("a\n7\nżółw\n", text(&["a", "7", "żółw"])),
            ("18446744073709551616\n5\n", text(&["18446744073709551616", "5"])),
        ] {
            assert_eq!(Ids::open(&folder.file("a.txt", bytes)).unwrap(), expected);
        }
        let longest = "x".repeat(MAX_ID_BYTES);
        let bytes = format!("\u{feff}{longest}\r\nb\r\n");
        assert_eq!(Ids::open(&folder.file("a.txt", bytes)).unwrap(), text(&[&longest, "b"]));
    }

    #[test]
    fn bad_lines_are_refused_with_their_number() {
        let folder = Folder::new();
        let long = format!("a\n{}\nb\n", "ż".repeat(MAX_ID_BYTES));
        for (bytes, says) in [
            (&b"a\n\nb\n"[..], &["line 2", "nothing"][..]),
            (b"a\nb\xff\n", &["line 2", "UTF-8", "b\\xff"]),
            (long.as_bytes(), &["line 2", "1 to 1024 bytes"]),
            (b"a\nb\nc\nb\na\n", &["`b`", "line 2", "line 4"]),
            (b"5\n6\n5\n", &["`5`", "line 1", "line 3"]),
        ] {
            let path = folder.file("a.txt", bytes);
            assert_says(&Ids::open(&path).unwrap_err(), &path, says);
        }
        let path = folder.path("a.docx");
        assert_says(&Ids::open(&path).unwrap_err(), &path, &[".txt, .npy"]);
    }

    #[test]
    fn tables_give_their_id_column_in_any_integer_or_text_type() {
        let folder = Folder::new();
        let dictionary: DictionaryArray<Int8Type> = ["b", "a", "c", "7"].into_iter().collect();
        let columns: [(ArrayRef, Ids); 6] = [
            (numbers(&[4, 3, 2, 1]), Ids::U64(vec![4, 3, 2, 1])),
            (Arc::new(Int32Array::from(vec![4, 3, 2, 1])), Ids::U64(vec![4, 3, 2, 1])),
            (texts(&["4", "3", "2", "1"]), Ids::U64(vec![4, 3, 2, 1])),
            (texts(&["4", "3", "2", "x"]), text(&["4", "3", "2", "x"])),
            (Arc::new(LargeStringArray::from(vec!["4", "x"])), text(&["4", "x"])),
            (
                Arc::new(StringViewArray::from(vec!["4", "a text longer than twelve"])),
                text(&["4", "a text longer than twelve"]),
            ),
        ];
        for (column, expected) in columns {
            for path in folder.tables(&[("item_id", column)]) {
                assert_eq!(Ids::open(&path).unwrap(), expected);
            }
        }
        for path in folder.tables(&[("sku", Arc::new(dictionary) as ArrayRef)]) {
            assert_says(&Ids::open(&path).unwrap_err(), &path, &["`id` or `item_id` or `user_id`", "`sku`"]);
            let named = format!("{}#sku", path.display());
            assert_eq!(Ids::open(Path::new(&named)).unwrap(), text(&["b", "a", "c", "7"]));
        }
        let path = folder.file("a.csv", "name,id\nx,3\n\"y,z\",1\n");
        assert_eq!(Ids::open(&path).unwrap(), Ids::U64(vec![3, 1]));
    }

    #[test]
    fn tables_with_bad_ids_are_refused_with_row_and_column() {
        let folder = Folder::new();
        let columns: [(ArrayRef, &[&str]); 5] = [
            (Arc::new(Int32Array::from(vec![4, 3, 2, 1, -1])), &["row 4", "column id", "-1"]),
            (Arc::new(Int32Array::from(vec![Some(1), None])), &["row 1", "column id", "nothing"]),
            (Arc::new(Float64Array::from(vec![1.0])), &["row 0", "column id", "1.0", "unsigned"]),
            (texts(&["a", ""]), &["row 1", "column id", "nothing"]),
            (numbers(&[5, 6, 7, 6]), &["`6`", "row 1", "row 3"]),
        ];
        for (column, says) in columns {
            for path in folder.tables(&[("id", column)]) {
                assert_says(&Ids::open(&path).unwrap_err(), &path, says);
            }
        }
        for path in folder.tables(&[("item_id", numbers(&[1])), ("user_id", numbers(&[2]))]) {
            assert_says(&Ids::open(&path).unwrap_err(), &path, &["one column", "`item_id`, `user_id`"]);
        }
    }

    #[test]
    fn repeats_in_memory_are_named_with_both_rows() {
        let repeated = Ids::U64(vec![9, 1, 9, 1]);
        assert_eq!(
            repeated.check_unique().unwrap_err().to_string(),
            "ids: id `9` is in row 0 and again in row 2; ids must be unique: keep one of the two"
        );
        assert!(text(&["b", "a"]).check_unique().is_ok());
        assert!(text(&["b", "a", "b"]).check_unique().is_err());
    }
}
