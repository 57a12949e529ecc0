//! Why an input was refused: the file, the place, expected, got, and the remedy.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A refusal of an input file, or of a request made on it.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The operating system said no.
    #[error("{}: {doing}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system answered.
        source: io::Error,
    },
    /// The file as a whole is not what it should be.
    #[error("{}: expected {expected}, got {got}; {remedy}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: Box<str>,
        /// What was found.
        got: Box<str>,
        /// What to do about it.
        remedy: &'static str,
    },
    /// One value in the file is not acceptable.
    #[error("{}: {at}, column {column}: expected {expected}, got {got}; {remedy}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The row or line.
        at: Place,
        /// The column: its name in a table, its number from 0 in a matrix.
        column: Box<str>,
        /// What was expected.
        expected: Box<str>,
        /// What was found.
        got: Box<str>,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The same id stands in two places.
    #[error("{}: id `{id}` is in {first} and again in {second}; ids must be unique: keep one of the two", .path.display())]
    Duplicate {
        /// The file, or `ids` when they came from memory.
        path: PathBuf,
        /// The id.
        id: Box<str>,
        /// Where it stands first.
        first: Place,
        /// Where it stands again.
        second: Place,
    },
    /// Two inputs that belong together have different numbers of rows.
    #[error("{what}: expected {expected} rows, got {got}; export both from the same run, in the same order")]
    Rows {
        /// What was counted, with the files' names.
        what: Box<str>,
        /// Rows expected.
        expected: usize,
        /// Rows found.
        got: usize,
    },
    /// The decoder of a table format gave up on the file by panicking.
    #[error("{}: expected a readable table, got a file its decoder panicked on ({message}); write the file again", .path.display())]
    Decoder {
        /// The file.
        path: PathBuf,
        /// The panic's message.
        message: Box<str>,
    },
    /// The caller asked for something the file does not have.
    #[error("{}: asked for {got}, but {expected}", .path.display())]
    Request {
        /// The file.
        path: PathBuf,
        /// What may be asked for.
        expected: Box<str>,
        /// What was asked for.
        got: Box<str>,
    },
}

/// Where in a file: a row of a table or matrix, or a line of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Row, from 0.
    Row(u64),
    /// Line, from 1.
    Line(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Row(row) => write!(f, "row {row}"),
            Place::Line(line) => write!(f, "line {line}"),
        }
    }
}

/// Refuses two inputs whose row counts differ, such as ids and the vectors they name.
pub fn check_rows(what: &str, expected: usize, got: usize) -> Result<(), InputError> {
    if expected == got {
        return Ok(());
    }
    Err(InputError::Rows { what: what.into(), expected, got })
}

/// Names for a message, the first twenty of them.
pub(super) fn list(names: &[String]) -> String {
    let shown = names.iter().take(20).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".to_owned(),
        n if n > 20 => format!("{shown} and {} more", n - 20),
        _ => shown,
    }
}

impl InputError {
    pub(super) fn io(path: &Path, doing: &'static str, source: io::Error) -> Self {
        InputError::Io { path: path.into(), doing, source }
    }

    pub(super) fn format(
        path: &Path,
        expected: impl Into<Box<str>>,
        got: impl Into<Box<str>>,
        remedy: &'static str,
    ) -> Self {
        InputError::Format { path: path.into(), expected: expected.into(), got: got.into(), remedy }
    }

    /// The refusal of a name that says nothing we read.
    pub(super) fn ending(path: &Path, expected: &str) -> Self {
        let got = path.extension().map_or("none".into(), |ending| format!(".{}", ending.display()));
        let remedy = "write the file in one of these formats, or name it for the one it has";
        InputError::format(path, format!("a name ending in {expected}"), got, remedy)
    }

    pub(super) fn value(
        path: &Path,
        at: Place,
        column: impl Into<Box<str>>,
        expected: impl Into<Box<str>>,
        got: impl Into<Box<str>>,
        remedy: &'static str,
    ) -> Self {
        InputError::Value {
            path: path.into(),
            at,
            column: column.into(),
            expected: expected.into(),
            got: got.into(),
            remedy,
        }
    }

    pub(super) fn request(path: &Path, expected: impl Into<Box<str>>, got: impl Into<Box<str>>) -> Self {
        InputError::Request { path: path.into(), expected: expected.into(), got: got.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_counts_that_differ_are_refused_by_name() {
        assert!(check_rows("ids.txt for items.npy", 3, 3).is_ok());
        let message = check_rows("ids.txt for items.npy", 3, 2).unwrap_err().to_string();
        assert!(message.starts_with("ids.txt for items.npy: expected 3 rows, got 2"), "{message}");
    }
}
