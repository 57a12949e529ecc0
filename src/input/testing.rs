//! Writers of small files for the tests of this folder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

/// A folder that is removed with its files when dropped.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A version 1 `.npy` with the given dtype, shape and raw numbers.
    pub(super) fn npy(&self, name: &str, dtype: &str, shape: &str, data: &[u8]) -> PathBuf {
        let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
        self.file(name, npy(1, &header, data))
    }

    pub(super) fn parquet(&self, name: &str, columns: &[(&str, ArrayRef)]) -> PathBuf {
        let path = self.path(name);
        let batch = batch(columns);
        // Small row groups, so that even small tables have several.
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(parquet::basic::ZstdLevel::default()))
            .set_max_row_group_row_count(Some(3))
            .build();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        path
    }

    pub(super) fn arrow(&self, name: &str, columns: &[(&str, ArrayRef)]) -> PathBuf {
        let path = self.path(name);
        let batch = batch(columns);
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
        let file = File::create(&path).unwrap();
        let mut writer = FileWriter::try_new_with_options(file, &batch.schema(), options).unwrap();
        for first in (0..batch.num_rows()).step_by(3) {
            writer.write(&batch.slice(first, 3.min(batch.num_rows() - first))).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    /// The same table as `.parquet` and as `.arrow`.
    pub(super) fn tables(&self, columns: &[(&str, ArrayRef)]) -> [PathBuf; 2] {
        [self.parquet("t.parquet", columns), self.arrow("t.arrow", columns)]
    }
}

pub(super) fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The bytes of numbers, little-endian.
pub(super) fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(super) fn fvecs(rows: &[&[f32]]) -> Vec<u8> {
    rows.iter().flat_map(|row| [(row.len() as i32).to_le_bytes().to_vec(), f32s(row)].concat()).collect()
}

pub(super) fn numbers(ids: &[u64]) -> ArrayRef {
    Arc::new(UInt64Array::from(ids.to_vec()))
}

pub(super) fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

pub(super) fn fixed(dim: i32, values: &[f32]) -> ArrayRef {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    Arc::new(FixedSizeListArray::new(item, dim, Arc::new(Float32Array::from(values.to_vec())), None))
}

/// Asserts that a refusal names the file and says each of `parts`.
pub(super) fn assert_says(error: &super::InputError, path: &Path, parts: &[&str]) {
    let message = error.to_string();
    let path = path.display().to_string();
    for part in parts.iter().copied().chain([path.as_str()]) {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter(columns.iter().map(|(name, array)| (*name, Arc::clone(array)))).unwrap()
}
