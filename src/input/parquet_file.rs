//! A parquet file, streamed in batches of rows.

use std::path::Path;

use arrow::datatypes::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ParquetMetaData;

use super::InputError;
use super::disk::Disk;
use super::table::{Batches, guarded, refused};

/// Rows decoded at a time: 32 MB of vectors at 1024 dimensions, and still long runs for narrow columns.
const BATCH_ROWS: usize = 8192;

pub(super) struct ParquetFile {
    disk: Disk,
    metadata: ArrowReaderMetadata,
}

impl ParquetFile {
    pub(super) fn open(disk: Disk) -> Result<Self, InputError> {
        let magic = disk.magic::<4>()?;
        if magic != b"PAR1" {
            return Err(InputError::format(
                disk.path(),
                "`PAR1`",
                format!("`{}`", magic.escape_ascii()),
                "the file is not parquet: write it again, or name it for what it is",
            ));
        }
        // Parquet's own types say all we need. The arrow schema some writers embed adds only types to be wrong about.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = guarded(disk.path(), || {
            let file = disk.try_clone()?;
            let metadata = ArrowReaderMetadata::load(&file, options).map_err(|e| refused(disk.path(), &e))?;
            check_chunks(&disk, metadata.metadata())?;
            Ok(metadata)
        })?;
        Ok(ParquetFile { disk, metadata })
    }

    pub(super) fn path(&self) -> &Path {
        self.disk.path()
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// All rows of the given columns, in the file's order. A file with fewer rows than it declares is refused.
    pub(super) fn batches(&self, columns: &[usize]) -> Result<Batches<'_>, InputError> {
        let file = self.disk.try_clone()?;
        let mut left = self.metadata.metadata().file_metadata().num_rows();
        let mut reader = guarded(self.path(), || {
            let mask = ProjectionMask::roots(self.metadata.parquet_schema(), columns.iter().copied());
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
                .with_projection(mask)
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(|e| refused(self.path(), &e))
        })?;
        Ok(Box::new(std::iter::from_fn(move || {
            let batch = guarded(self.path(), || reader.next().transpose().map_err(|e| refused(self.path(), &e)));
            match &batch {
                Ok(Some(batch)) => left -= batch.num_rows() as i64,
                Ok(None) if left != 0 => {
                    left = 0;
                    return Some(Err(InputError::format(
                        self.path(),
                        format!("{} rows", self.metadata.metadata().file_metadata().num_rows()),
                        "another number of rows in its pages",
                        "the file is damaged: write it again",
                    )));
                }
                _ => {}
            }
            batch.transpose()
        })))
    }
}

/// Every column chunk must lie inside the file before the decoder sizes a buffer by it.
fn check_chunks(disk: &Disk, metadata: &ParquetMetaData) -> Result<(), InputError> {
    let refuse = |expected: &str, got: String| {
        let remedy = "the file is truncated or damaged: write it again";
        Err(InputError::format(disk.path(), expected, got, remedy))
    };
    let mut rows = 0i64;
    for group in metadata.row_groups() {
        rows = rows.saturating_add(group.num_rows().max(0));
        for chunk in group.columns() {
            let (start, length) = chunk.byte_range();
            if start.checked_add(length).is_none_or(|end| end > disk.len()) {
                return refuse("every column chunk inside the file", format!("{length} bytes from byte {start}"));
            }
        }
    }
    let declared = metadata.file_metadata().num_rows();
    if rows != declared {
        return refuse(
            "as many rows as its row groups hold together",
            format!("{declared} declared, {rows} in the groups"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Vectors;
    use super::super::testing::{Folder, assert_says};

    #[test]
    fn what_is_not_parquet_is_refused() {
        let folder = Folder::new();
        for (bytes, says) in [(&b"ARROW1\0\0"[..], "`PAR1`"), (b"", "`PAR1`"), (b"PAR1\xff\xff\xff\x7fPAR1", "table")] {
            let path = folder.file("a.parquet", bytes);
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &[says]);
        }
    }
}
