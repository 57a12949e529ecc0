//! A CSV, parquet or arrow file as rows of named cells: what ids, tags, popularity and interactions are read from.

use std::path::Path;

use csv::StringRecord;

use super::column::{Cell, Column};
use super::csv_file::CsvFile;
use super::disk::Kind;
use super::error::list;
use super::ids::check_text;
use super::table::Table;
use super::vectors::not_finite;
use super::{Id, InputError, Place};

/// What a column of ids may be called.
pub(super) const ID_NAMES: &[&str] = &["id", "item_id", "user_id"];

/// A column to read, under the first of its names or else the only one of the others that the file has.
pub(super) struct Wanted<'a> {
    names: &'a [&'a str],
    required: bool,
}

impl<'a> Wanted<'a> {
    pub(super) fn required(names: &'a [&'a str]) -> Self {
        Wanted { names, required: true }
    }

    pub(super) fn optional(names: &'a [&'a str]) -> Self {
        Wanted { names, required: false }
    }

    /// The position of this column among those a file has.
    fn find(&self, path: &Path, found: &[String]) -> Result<Option<usize>, InputError> {
        let positions = |names: &[&str]| -> Vec<usize> {
            (0..found.len()).filter(|&at| names.contains(&found[at].as_str())).collect()
        };
        let first = positions(&self.names[..1]);
        match if first.is_empty() { positions(self.names) } else { first }.as_slice() {
            &[at] => Ok(Some(at)),
            [] if !self.required => Ok(None),
            _ => Err(InputError::format(
                path,
                format!("one column named `{}`", self.names.join("` or `")),
                format!("columns {}", list(found)),
                "rename the column, or name it as file#column where one is chosen",
            )),
        }
    }
}

/// One row, as the columns that were wanted.
pub(super) struct Row<'a> {
    path: &'a Path,
    at: Place,
    names: &'a [&'a str],
    /// Where in `cells` each wanted column stands, if the file has it.
    positions: &'a [Option<usize>],
    cells: Cells<'a>,
}

enum Cells<'a> {
    Record(&'a StringRecord),
    Batch(&'a [Column], usize),
}

/// Calls `f` with every row of a file, in order, holding one batch in memory.
pub(super) fn for_each_row<E: From<InputError>>(
    path: &Path,
    wanted: &[Wanted<'_>],
    mut f: impl FnMut(&Row<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let find = |found: &[String]| -> Result<Vec<Option<usize>>, InputError> {
        wanted.iter().map(|wanted| wanted.find(path, found)).collect()
    };
    match Kind::of(path) {
        Some(Kind::Csv) => {
            let mut file = CsvFile::open(path)?;
            let header = file.header()?;
            let positions = find(&header)?;
            let names = names(&positions, &header);
            file.for_each(|line, record| {
                let (at, cells) = (Place::Line(line), Cells::Record(record));
                f(&Row { path, at, names: &names, positions: &positions, cells })
            })
        }
        Some(Kind::Parquet | Kind::Arrow) => {
            let table = Table::open(path)?;
            let found: Vec<String> = table.schema().fields().iter().map(|field| field.name().clone()).collect();
            let names = names(&find(&found)?, &found);
            let read: Vec<&str> = names.iter().copied().filter(|name| !name.is_empty()).collect();
            let positions: Vec<_> = names.iter().map(|name| read.iter().position(|r| r == name)).collect();
            table.for_each_batch(&read, |first, rows, columns| {
                (0..rows).try_for_each(|row| {
                    let (at, cells) = (Place::Row(first + row as u64), Cells::Batch(columns, row));
                    f(&Row { path, at, names: &names, positions: &positions, cells })
                })
            })
        }
        _ => Err(InputError::ending(path, ".csv, .parquet, .arrow or .feather").into()),
    }
}

/// The names the wanted columns go by in this file; empty for those it does not have.
fn names<'a>(positions: &[Option<usize>], found: &'a [String]) -> Vec<&'a str> {
    positions.iter().map(|at| at.map_or("", |at| found[at].as_str())).collect()
}

impl<'a> Row<'a> {
    /// Whether the file has the wanted column number `column`.
    pub(super) fn has(&self, column: usize) -> bool {
        self.positions[column].is_some()
    }

    pub(super) fn at(&self) -> Place {
        self.at
    }

    fn cell(&self, column: usize) -> Cell<'a> {
        match (self.positions[column], &self.cells) {
            (None, _) => Cell::Null,
            (Some(at), Cells::Record(record)) => record.get(at).map_or(Cell::Null, Cell::Text),
            (Some(at), Cells::Batch(columns, row)) => columns[at].cell(*row),
        }
    }

    /// A cell that holds an id.
    pub(super) fn id(&self, column: usize) -> Result<Id<'a>, InputError> {
        match self.cell(column) {
            Cell::Unsigned(number) => Ok(Id::U64(number)),
            Cell::Signed(number) if number >= 0 => Ok(Id::U64(number as u64)),
            Cell::Text(text) => {
                check_text(self.path, self.at, self.names[column], text)?;
                Ok(Id::parse(text))
            }
            other => Err(self.refuse(
                column,
                "an id: a whole number from 0, or text",
                &other,
                "cast the column to unsigned integers or strings",
            )),
        }
    }

    /// A cell that holds a finite number.
    pub(super) fn number(&self, column: usize) -> Result<f64, InputError> {
        let cell = self.cell(column);
        let number = match &cell {
            Cell::Unsigned(number) => Some(*number as f64),
            Cell::Signed(number) => Some(*number as f64),
            Cell::Float(number) => Some(*number),
            Cell::Text(text) => text.trim().parse().ok(),
            Cell::Null | Cell::List(..) => None,
        };
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.refuse(column, "a finite number", &cell, "correct the row, or drop it"))
    }

    /// A cell that holds a text.
    pub(super) fn text(&self, column: usize) -> Result<&'a str, InputError> {
        match self.cell(column) {
            Cell::Text(text) => {
                check_text(self.path, self.at, self.names[column], text)?;
                Ok(text)
            }
            other => Err(self.refuse(column, "text", &other, "cast the column to strings, and fill or drop the row")),
        }
    }

    /// Calls `f` with each text of a cell that holds a text, a list of texts, or nothing.
    pub(super) fn texts(&self, column: usize, mut f: impl FnMut(&'a str)) -> Result<(), InputError> {
        let mut one = |cell: Cell<'a>| match cell {
            Cell::Text(text) => {
                check_text(self.path, self.at, self.names[column], text)?;
                f(text);
                Ok(())
            }
            other => Err(self.refuse(column, "text, or a list of texts", &other, "cast the column to strings")),
        };
        match self.cell(column) {
            Cell::Null => Ok(()),
            Cell::List(items, range) => range.into_iter().try_for_each(|item| one(items.cell(item))),
            cell => one(cell),
        }
    }

    /// A cell that holds a list of finite numbers, put into `out` as f32.
    pub(super) fn vector(&self, column: usize, out: &mut Vec<f32>) -> Result<(), InputError> {
        let cell = self.cell(column);
        let list = match &cell {
            Cell::List(items, range) => items.floats().map(|numbers| (items, range, &numbers[range.clone()])),
            _ => None,
        };
        let (Place::Row(row), Some((items, range, numbers))) = (self.at, list) else {
            return Err(self.refuse(column, "a list of numbers", &cell, "fill or drop the row"));
        };
        if let Some(null) = items.first_null(range.clone()) {
            let at = null - range.start;
            return Err(self.refuse(column, &format!("a number at {at}"), &Cell::Null, "fill or drop the row"));
        }
        out.clear();
        out.extend(numbers.iter().map(|&number| number as f32));
        match out.iter().position(|number| !number.is_finite()) {
            None => Ok(()),
            Some(at) => Err(not_finite(self.path, row, at, numbers[at])),
        }
    }

    /// The refusal of what stands in a column of this row.
    fn refuse(&self, column: usize, expected: &str, got: &Cell<'_>, remedy: &'static str) -> InputError {
        let got = match got {
            Cell::Null => "nothing".to_owned(),
            Cell::Signed(number) => number.to_string(),
            Cell::Unsigned(number) => number.to_string(),
            Cell::Float(number) => format!("{number:?}"),
            Cell::Text(text) => format!("`{}`", text.chars().take(40).collect::<String>()),
            Cell::List(..) => "a list".to_owned(),
        };
        InputError::value(self.path, self.at, self.names[column], expected, got, remedy)
    }

    /// The refusal of a number for what it means rather than for what it is.
    pub(super) fn refuse_number(&self, column: usize, expected: &str, got: f64, remedy: &'static str) -> InputError {
        self.refuse(column, expected, &Cell::Float(got), remedy)
    }
}
