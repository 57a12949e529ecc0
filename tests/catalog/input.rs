//! Whatever the bytes, a reader answers with vectors or with a refusal: it never panics, hangs or dies.

#![allow(clippy::unwrap_used, clippy::float_cmp)] // helpers of tests; the numbers are exact

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    StringDictionaryBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tonnage::input::{Ids, InputError, Vectors, read_interactions, read_numbers, read_tags};

const ROWS: usize = 5;
const DIM: usize = 3;

fn values() -> Vec<f32> {
    (0..ROWS * DIM).map(|i| i as f32 - 4.5).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn npy() -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, {DIM}), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(bytes(&values()));
    file
}

fn fvecs() -> Vec<u8> {
    values().chunks(DIM).flat_map(|row| [(DIM as i32).to_le_bytes().to_vec(), bytes(row)].concat()).collect()
}

fn safetensors() -> Vec<u8> {
    let data = bytes(&values());
    let view = TensorView::new(Dtype::F32, vec![ROWS, DIM], &data).unwrap();
    safetensors::serialize([("items", view)], None).unwrap()
}

/// A table that is at once vectors with ids, tags, numbers, and a log.
fn batch() -> RecordBatch {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let vectors = FixedSizeListArray::new(item, DIM as i32, Arc::new(Float32Array::from(values())), None);
    let mut tags = ListBuilder::new(StringBuilder::new());
    let mut users = StringDictionaryBuilder::<Int32Type>::new();
    let ids: ArrayRef = Arc::new(arrow::array::Int64Array::from_iter_values(0..ROWS as i64));
    for row in 0..ROWS {
        tags.append_value([Some("tag"), Some(if row % 2 == 0 { "even" } else { "odd" })]);
        users.append_value(if row % 2 == 0 { "ann" } else { "bob" });
    }
    RecordBatch::try_from_iter([
        ("id", Arc::clone(&ids)),
        ("vector", Arc::new(vectors) as ArrayRef),
        ("tags", Arc::new(tags.finish())),
        ("field", Arc::new(StringArray::from(vec!["price"; ROWS]))),
        ("value", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|row| row as f64)))),
        ("user", Arc::new(users.finish())),
        ("item", ids),
    ])
    .unwrap()
}

fn parquet(path: &Path) -> Vec<u8> {
    let batch = batch();
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    std::fs::read(path).unwrap()
}

fn arrow(path: &Path, compression: Option<CompressionType>) -> Vec<u8> {
    let batch = batch();
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let file = File::create(path).unwrap();
    let mut writer = FileWriter::try_new_with_options(file, &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn read(path: &Path) -> Result<Vec<f32>, InputError> {
    let vectors = Vectors::open(path)?;
    let mut seen = Vec::new();
    vectors.for_each_chunk(2, |_, rows| {
        seen.extend_from_slice(rows);
        Ok::<_, InputError>(())
    })?;
    Ok(seen)
}

/// Reads a table in every way there is; the answers may be anything.
fn read_every_way(path: &Path) {
    let known = Ids::U64((0..ROWS as u64).collect());
    let _ = read(path);
    let _ = Ids::open(path);
    let _ = read_tags(path, &known);
    let _ = read_numbers(path, &known);
    let _ = read_interactions(path, |_, _| Ok::<_, InputError>(()));
}

fn plain() -> (tempfile::TempDir, Vec<(PathBuf, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    let files = [("a.npy", npy()), ("a.fvecs", fvecs()), ("a.safetensors", safetensors())];
    let files = files.map(|(name, bytes)| (folder.path().join(name), bytes)).to_vec();
    (folder, files)
}

fn tables() -> (tempfile::TempDir, Vec<(PathBuf, Vec<u8>)>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let files = vec![
        (path("a.parquet"), parquet(&path("a.parquet"))),
        (path("plain.arrow"), arrow(&path("plain.arrow"), None)),
        (path("lz4.arrow"), arrow(&path("lz4.arrow"), Some(CompressionType::LZ4_FRAME))),
    ];
    (folder, files)
}

#[test]
fn whole_files_are_read() {
    let (_folder, files) = plain();
    let (_tables, tables) = tables();
    for (path, bytes) in files.iter().chain(&tables) {
        std::fs::write(path, bytes).unwrap();
        assert_eq!(read(path).unwrap(), values(), "{}", path.display());
    }
}

#[test]
fn a_matrix_cut_at_any_length_is_refused() {
    let (_folder, files) = plain();
    for (path, bytes) in &files {
        for length in 0..bytes.len() {
            std::fs::write(path, &bytes[..length]).unwrap();
            match read(path) {
                Err(error) => assert!(error.to_string().contains(&path.display().to_string()), "{error}"),
                // Nothing in fvecs says how many rows there should be: a cut between rows leaves a shorter file.
                Ok(seen) => {
                    assert!(
                        path.ends_with("a.fvecs") && length % (4 + 4 * DIM) == 0,
                        "{} cut at {length}",
                        path.display()
                    );
                    assert_eq!(seen, values()[..seen.len()]);
                }
            }
        }
    }
}

#[test]
fn a_matrix_with_any_byte_changed_is_read_or_refused() {
    let (_folder, files) = plain();
    for (path, bytes) in &files {
        for at in 0..bytes.len() {
            for flip in [0x01, 0x02, 0x10, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                std::fs::write(path, &bytes).unwrap();
                if let Ok(seen) = read(path) {
                    assert!(seen.iter().all(|v| v.is_finite()));
                }
            }
        }
    }
}

#[test]
fn a_table_cut_or_changed_is_read_or_refused() {
    let (_folder, files) = tables();
    for (path, bytes) in &files {
        for length in (0..bytes.len()).step_by(7) {
            std::fs::write(path, &bytes[..length]).unwrap();
            assert!(read(path).is_err(), "{} cut at {length}", path.display());
        }
        for at in (0..bytes.len()).step_by(4) {
            let flip = [0x01, 0x80, 0xff][at % 3];
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            std::fs::write(path, &bytes).unwrap();
            read_every_way(path);
        }
    }
}
