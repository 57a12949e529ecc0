//! `.npy`, versions 1 to 3: the magic, a header that is a Python dict in text, then raw numbers.
//!
//! The dict is read with a few string searches: what numpy writes is accepted, and never evaluated.

use super::disk::Disk;
use super::layout::{Element, Layout};
use super::{Ids, InputError, Place};

/// Longer headers belong to structured dtypes, which are not vectors.
const MAX_HEADER_BYTES: u64 = 1 << 16;
/// Integers read at a time.
const BLOCK: usize = 1 << 16;

struct Header {
    dtype: String,
    shape: Vec<u64>,
    start: u64,
}

/// Finds the matrix in a `.npy` file.
pub(super) fn layout(disk: &Disk) -> Result<Layout, InputError> {
    let header = header(disk)?;
    let element = match header.dtype.as_str() {
        "<f2" => Element::F16,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        other => {
            return Err(refuse_dtype(disk, other, "<f4, <f2 or <f8", "save a.astype(np.float32)"));
        }
    };
    let &[rows, dim] = header.shape.as_slice() else {
        return Err(InputError::format(
            disk.path(),
            "two dimensions (rows, dim)",
            format!("shape {:?}", header.shape),
            "save a.reshape(rows, dim)",
        ));
    };
    Layout::dense(disk, header.start, (rows, dim), element, disk.len())
}

/// Reads a one-dimensional `.npy` of integer ids.
pub(super) fn ids(disk: &Disk) -> Result<Ids, InputError> {
    let header = header(disk)?;
    let (bytes, signed) = match header.dtype.as_str() {
        "<u8" => (8, false),
        "<i8" => (8, true),
        "<u4" => (4, false),
        "<i4" => (4, true),
        other => {
            return Err(refuse_dtype(
                disk,
                other,
                "<u8, <i8, <u4 or <i4",
                "save whole numbers as a.astype(np.uint64), and text ids as .txt or .parquet",
            ));
        }
    };
    let found = disk.len() - header.start;
    let &[rows] = header.shape.as_slice() else {
        return Err(InputError::format(
            disk.path(),
            "one dimension",
            format!("shape {:?}", header.shape),
            "save ids.ravel()",
        ));
    };
    if rows.checked_mul(bytes as u64) != Some(found) || rows > u64::from(u32::MAX) {
        return Err(InputError::format(
            disk.path(),
            format!("{rows} ids of {bytes} bytes (at most {} ids)", u32::MAX),
            format!("{found} bytes"),
            "the file is truncated or has bytes left over: write it again",
        ));
    }
    let mut ids = Vec::with_capacity(rows as usize);
    let mut scratch = vec![0; BLOCK.min(rows as usize) * bytes];
    while ids.len() < rows as usize {
        let scratch = &mut scratch[..BLOCK.min(rows as usize - ids.len()) * bytes];
        disk.read_at(header.start + (ids.len() * bytes) as u64, scratch)?;
        for id in scratch.chunks_exact(bytes) {
            ids.push(whole(disk, ids.len() as u64, id, signed)?);
        }
    }
    Ok(Ids::U64(ids))
}

/// One little-endian integer of 4 or 8 bytes, refused when negative.
fn whole(disk: &Disk, row: u64, bytes: &[u8], signed: bool) -> Result<u64, InputError> {
    let negative = signed && bytes.last().is_some_and(|top| top & 0x80 != 0);
    let mut wide = [if negative { 0xff } else { 0 }; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    if !negative {
        return Ok(u64::from_le_bytes(wide));
    }
    Err(InputError::value(
        disk.path(),
        Place::Row(row),
        "id",
        "a whole number from 0",
        i64::from_le_bytes(wide).to_string(),
        "ids are unsigned: map them, or save them as text",
    ))
}

fn header(disk: &Disk) -> Result<Header, InputError> {
    let head = disk.magic::<12>()?;
    let (length_at, length) = match head.as_slice() {
        [0x93, b'N', b'U', b'M', b'P', b'Y', 1, _, a, b, ..] => (8, u64::from(u16::from_le_bytes([*a, *b]))),
        [0x93, b'N', b'U', b'M', b'P', b'Y', 2 | 3, _, a, b, c, d] => {
            (8, u64::from(u32::from_le_bytes([*a, *b, *c, *d])))
        }
        _ => {
            return Err(InputError::format(
                disk.path(),
                "\\x93NUMPY and version 1, 2 or 3",
                format!("`{}`", head.get(..8).unwrap_or(&head).escape_ascii()),
                "the file is not .npy: save it with np.save",
            ));
        }
    };
    let text_at = length_at + if head.get(6) == Some(&1) { 2 } else { 4 };
    if length > MAX_HEADER_BYTES || text_at + length > disk.len() {
        return Err(InputError::format(
            disk.path(),
            format!("a header of at most {MAX_HEADER_BYTES} bytes, inside the file"),
            format!("{length} bytes of header in a file of {}", disk.len()),
            "the file is damaged or holds a structured dtype: save one plain array",
        ));
    }
    let mut text = vec![0; length as usize];
    disk.read_at(text_at, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    let Some((dtype, fortran, shape)) = parse(&text) else {
        return Err(InputError::format(
            disk.path(),
            "a header with 'descr', 'fortran_order' and 'shape'",
            text.trim().chars().take(200).collect::<String>(),
            "the header is damaged or the dtype is structured: save one plain array with np.save",
        ));
    };
    if fortran && shape.len() > 1 {
        return Err(InputError::format(
            disk.path(),
            "rows one after the other (C order)",
            "columns one after the other (fortran_order: True)",
            "save np.ascontiguousarray(a)",
        ));
    }
    Ok(Header { dtype, shape, start: text_at + length })
}

/// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse(text: &str) -> Option<(String, bool, Vec<u64>)> {
    let after = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start());
    let (dtype, _) = after("'descr':")?.strip_prefix('\'')?.split_once('\'')?;
    let order = after("'fortran_order':")?;
    let fortran = order.starts_with("True");
    if !fortran && !order.starts_with("False") {
        return None;
    }
    let (shape, _) = after("'shape':")?.strip_prefix('(')?.split_once(')')?;
    let shape = shape.strip_suffix(',').unwrap_or(shape);
    let shape: Result<Vec<u64>, _> = if shape.is_empty() {
        Ok(Vec::new())
    } else {
        // Python 2 wrote its long integers as 3L.
        shape.split(',').map(|n| n.trim().trim_end_matches('L').parse()).collect()
    };
    Some((dtype.to_owned(), fortran, shape.ok()?))
}

fn refuse_dtype(disk: &Disk, got: &str, expected: &str, remedy: &'static str) -> InputError {
    let remedy = if got.ends_with('O') {
        "an object array is a pickle, which runs code when read, and is never opened: save np.stack(a).astype(np.float32)"
    } else {
        remedy
    };
    InputError::format(disk.path(), format!("dtype {expected}"), format!("dtype {got}"), remedy)
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::super::testing::{self, Folder, assert_says, f32s};
    use super::super::{Ids, Vectors};

    fn read(path: &std::path::Path) -> Vec<f32> {
        let vectors = Vectors::open(path).unwrap();
        let mut out = vec![0.0; vectors.rows() * vectors.dim()];
        vectors.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn every_float_dtype_and_header_version_is_read() {
        let folder = Folder::new();
        let values = [1.5f32, -2.0, 0.25, 65504.0, 0.0, -0.5];
        let f16s: Vec<u8> = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
        let f64s: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        for (dtype, data) in [("<f4", &f32s(&values)), ("<f2", &f16s), ("<f8", &f64s)] {
            assert_eq!(read(&folder.npy("a.npy", dtype, "(3, 2)", data)), values);
            for version in [1, 2, 3] {
                let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': (3L, 2L)}}     \n");
                assert_eq!(read(&folder.file("a.NPY", testing::npy(version, &header, data))), values);
            }
        }
    }

    #[test]
    fn an_f64_beyond_f32_is_refused() {
        let folder = Folder::new();
        let data: Vec<u8> = [1.0f64, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
        let path = folder.npy("a.npy", "<f8", "(1, 2)", &data);
        let error = Vectors::open(&path).unwrap().read(0, &mut [0.0; 2]).unwrap_err();
        assert_says(&error, &path, &["row 0", "column 1", "fits f32"]);
    }

    #[test]
    fn what_is_not_a_plain_float_matrix_is_refused_with_the_remedy() {
        let folder = Folder::new();
        for (dtype, shape, says) in [
            ("|O", "(3, 2)", "pickle"),
            (">f4", "(3, 2)", "astype(np.float32)"),
            ("<i8", "(3, 2)", "astype(np.float32)"),
            ("<f4", "(6,)", "reshape"),
            ("<f4", "()", "reshape"),
            ("<f4", "(1, 3, 2)", "reshape"),
            ("<f4", "(0, 2)", "not empty"),
            ("<f4", "(3, 0)", "not empty"),
            ("<f4", "(2, 2)", "left over"),
            ("<f4", "(4, 2)", "truncated"),
            ("<f4", "(2, 100000)", "dimensions"),
            ("<f4", "(18446744073709551615, 18446744073709551615)", "rows"),
            ("<f4", "(99999999999999999999, 1)", "damaged"),
            ("<f4", "(-1, 2)", "damaged"),
            ("<f4", "(a, b)", "damaged"),
        ] {
            let path = folder.npy("a.npy", dtype, shape, &[0; 24]);
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &[says]);
        }
        for (header, says) in [
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }", "np.ascontiguousarray(a)"),
            ("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (3, 2), }", "structured"),
            ("{'descr': '<f4', 'shape': (3, 2), }", "fortran_order"),
            ("{}", "damaged"),
        ] {
            let path = folder.file("a.npy", testing::npy(1, header, &[0; 24]));
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &[says]);
        }
        let path = folder.file("a.npy", b"PK\x03\x04 an npz");
        assert_says(&Vectors::open(&path).unwrap_err(), &path, &["PK", "np.save"]);
        let path = folder.file("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff");
        assert_says(&Vectors::open(&path).unwrap_err(), &path, &["4294967295 bytes of header"]);
    }

    #[test]
    fn integer_ids_of_both_widths_are_read_and_negative_ones_refused() {
        let folder = Folder::new();
        let expected = Ids::U64(vec![7, 0, 2_000_000_000]);
        let wide: Vec<u8> = [7i64, 0, 2_000_000_000].iter().flat_map(|v| v.to_le_bytes()).collect();
        let narrow: Vec<u8> = [7i32, 0, 2_000_000_000].iter().flat_map(|v| v.to_le_bytes()).collect();
        for (dtype, data) in [("<u8", &wide), ("<i8", &wide), ("<u4", &narrow), ("<i4", &narrow)] {
            assert_eq!(Ids::open(&folder.npy("a.npy", dtype, "(3,)", data)).unwrap(), expected);
        }
        let many: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let path = folder.npy("a.npy", "<u4", "(200000,)", &many);
        assert_eq!(Ids::open(&path).unwrap(), Ids::U64((0..200_000).collect()));

        let path = folder.npy("a.npy", "<i4", "(2,)", &[1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
        assert_says(&Ids::open(&path).unwrap_err(), &path, &["row 1", "-2", "unsigned"]);
        let path = folder.npy("a.npy", "<u4", "(2,)", &[0xff; 8]);
        assert_says(&Ids::open(&path).unwrap_err(), &path, &["4294967295", "row 0", "row 1"]);
        for (dtype, shape, says) in [
            ("<f4", "(2,)", "astype(np.uint64)"),
            ("<U9", "(2,)", ".txt"),
            ("|O", "(2,)", "pickle"),
            ("<u4", "(2, 1)", "ravel"),
            ("<u4", "(3,)", "truncated"),
            ("<u8", "(2305843009213693953,)", "truncated"),
        ] {
            let path = folder.npy("a.npy", dtype, shape, &[0; 8]);
            assert_says(&Ids::open(&path).unwrap_err(), &path, &[says]);
        }
    }
}
