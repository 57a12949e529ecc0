//! `.fvecs`: each row is its dimension as a little-endian i32, then that many f32.
//!
//! There is no magic and no count: rows come from the length of the file, and each row's dimension is checked
//! when the row is read, so that opening a large file stays instant.

use std::path::Path;

use super::disk::Disk;
use super::layout::{Element, Layout, check_shape};
use super::{InputError, Place};

const PREFIX: usize = 4;

pub(super) fn layout(disk: &Disk) -> Result<Layout, InputError> {
    let mut head = [0; PREFIX];
    disk.read_at(0, &mut head)?;
    // A negative dimension becomes a huge one, which the shape check refuses.
    let dim = u64::from(u32::from_le_bytes(head));
    let stride = PREFIX as u64 + 4 * dim;
    let (rows, dim) = check_shape(disk, ((disk.len() / stride).max(1), dim))?;
    if !disk.len().is_multiple_of(stride) {
        return Err(InputError::format(
            disk.path(),
            format!("a whole number of rows of {stride} bytes (a dimension, then {dim} f32)"),
            format!("{} bytes", disk.len()),
            "the file is truncated, ragged or not fvecs: write it again, or use .npy",
        ));
    }
    Ok(Layout { start: 0, prefix: PREFIX, element: Element::F32, rows, dim })
}

/// Checks the dimension that stands before a row.
pub(super) fn check_row(path: &Path, row: u64, head: &[u8], dim: usize) -> Result<(), InputError> {
    if head == (dim as u32).to_le_bytes() {
        return Ok(());
    }
    let got = head.try_into().map_or(0, i32::from_le_bytes);
    Err(InputError::value(
        path,
        Place::Row(row),
        "dimension",
        format!("{dim}, as in row 0"),
        got.to_string(),
        "every row must have the same length: write the file again",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Vectors;
    use super::super::testing::{Folder, assert_says, fvecs};

    #[test]
    fn a_ragged_row_is_refused_with_its_number() {
        let folder = Folder::new();
        // Rows of 2, 1 and 3: the length of the file is that of three rows of 2.
        let path = folder.file("a.fvecs", fvecs(&[&[1.0, 2.0], &[3.0], &[4.0, 5.0, 6.0]]));
        let vectors = Vectors::open(&path).unwrap();
        let error = vectors.read(0, &mut [0.0; 6]).unwrap_err();
        assert_says(&error, &path, &["row 1", "expected 2", "got 1"]);
        vectors.read(0, &mut [0.0; 2]).unwrap();
    }

    #[test]
    fn dimensions_no_row_can_have_are_refused() {
        let folder = Folder::new();
        for dim in [0i32, -1, i32::MIN, i32::MAX, 70_000] {
            let path = folder.file("a.fvecs", [&dim.to_le_bytes()[..], &[0; 8]].concat());
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &["expected"]);
        }
        let path = folder.file("a.fvecs", fvecs(&[&[1.0, 2.0], &[3.0]]));
        assert_says(&Vectors::open(&path).unwrap_err(), &path, &["rows of 12 bytes", "20 bytes"]);
    }
}
