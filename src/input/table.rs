//! A parquet or arrow table, read as columns, batch by batch.
//!
//! The decoders of both formats have panicked on malformed files before (arrow-rs issues 7102, 9868, 10107) and
//! will again. Everything they do runs inside [`guarded`], which turns a panic into a refusal: an upload must not
//! be able to end the process. The panic's message still reaches the panic hook.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::InputError;
use super::arrow_file::ArrowFile;
use super::column::Column;
use super::disk::{Disk, Kind};
use super::parquet_file::ParquetFile;

pub(super) type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch, InputError>> + 'a>;

pub(super) enum Table {
    Parquet(ParquetFile),
    Arrow(ArrowFile),
}

impl Table {
    pub(super) fn open(path: &Path) -> Result<Self, InputError> {
        let disk = Disk::open(path)?;
        match Kind::of(path) {
            Some(Kind::Parquet) => Ok(Table::Parquet(ParquetFile::open(disk)?)),
            _ => Ok(Table::Arrow(ArrowFile::open(disk)?)),
        }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        match self {
            Table::Parquet(file) => file.schema(),
            Table::Arrow(file) => file.schema(),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Table::Parquet(file) => file.path(),
            Table::Arrow(file) => file.path(),
        }
    }

    /// Calls `f(first_row, rows, columns)` for each batch, with the named columns in the order named.
    pub(super) fn for_each_batch<E: From<InputError>>(
        &self,
        names: &[&str],
        mut f: impl FnMut(u64, usize, &[Column]) -> Result<(), E>,
    ) -> Result<(), E> {
        let schema = self.schema();
        let mut wanted: Vec<usize> = names.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let batches = match self {
            Table::Parquet(file) => file.batches(&wanted)?,
            Table::Arrow(file) => file.batches(wanted)?,
        };
        let mut first = 0;
        for batch in batches {
            let batch = batch?;
            let columns: Result<Vec<Column>, InputError> = names.iter().map(|name| self.column(&batch, name)).collect();
            f(first, batch.num_rows(), &columns?)?;
            first += batch.num_rows() as u64;
        }
        Ok(())
    }

    fn column(&self, batch: &RecordBatch, name: &str) -> Result<Column, InputError> {
        let column = guarded(self.path(), || Ok(batch.column_by_name(name).and_then(Column::new)))?;
        column.ok_or_else(|| {
            let kind = batch.column_by_name(name).map_or("nothing".to_owned(), |c| c.data_type().to_string());
            InputError::format(
                self.path(),
                format!("column `{name}` of numbers, text, or lists of them"),
                kind,
                "cast the column before writing the file",
            )
        })
    }
}

/// Runs a decoder, turning its panic into a refusal. What it was working on must not be used afterwards.
pub(super) fn guarded<T>(path: &Path, decode: impl FnOnce() -> Result<T, InputError>) -> Result<T, InputError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        Err(InputError::Decoder { path: path.into(), message: panic_message(panic.as_ref()).into() })
    })
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The refusal of a table its decoder found fault with.
pub(super) fn refused(path: &Path, error: &dyn fmt::Display) -> InputError {
    InputError::format(
        path,
        "a readable table",
        error.to_string(),
        "the file is truncated, damaged or uses a feature we do not read: write it again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::panic)]
    fn a_panicking_decoder_becomes_a_refusal() {
        let path = Path::new("t.parquet");
        let error = guarded::<()>(path, || panic!("index {} out of bounds", 7)).unwrap_err();
        assert!(error.to_string().contains("t.parquet"), "{error}");
        assert!(error.to_string().contains("index 7 out of bounds"), "{error}");
        assert_eq!(guarded(path, || Ok(1)).unwrap(), 1);
    }
}
