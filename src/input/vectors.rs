//! A matrix of row vectors on disk, read on demand as f32.

use std::path::Path;

use super::disk::{Disk, Kind, split_name};
use super::layout::{Element, Layout};
use super::{Ids, InputError, Place, fvecs, npy, safetensors_file, spool};

/// Bytes decoded at a time when the file's numbers are not plain f32.
const SCRATCH_BYTES: usize = 1 << 18;

/// A matrix of row vectors on disk, read on demand as f32. Every method takes `&self` and may be called from
/// several threads at once.
///
/// Memory: the ids of a table when it has them, one scratch block of 256 KiB (or one row) per running read, and
/// what the caller passes in. A parquet or arrow table is first streamed, as f32, into an unlinked file in the
/// temporary folder (`TMPDIR`; choose one on a disk, since a `tmpfs` is memory), because a compressed table has
/// no row to seek to.
#[derive(Debug)]
pub struct Vectors {
    disk: Disk,
    layout: Layout,
    ids: Option<Ids>,
}

impl Vectors {
    /// Opens a matrix by its extension, checked against its magic: `.npy` (f2, f4, f8), `.fvecs`,
    /// `.safetensors` (F16, BF16, F32), `.parquet`, `.arrow`, `.feather` (lists of f16, f32, f64).
    /// `file#name` picks one tensor or column.
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let (path, name) = split_name(path)?;
        let open = |find: &dyn Fn(&Disk) -> Result<Layout, InputError>| {
            let disk = Disk::open(&path)?;
            let layout = find(&disk)?;
            Ok(Vectors { disk, layout, ids: None })
        };
        match Kind::of(&path) {
            Some(Kind::Npy) => open(&npy::layout),
            Some(Kind::Fvecs) => open(&fvecs::layout),
            Some(Kind::Safetensors) => open(&|disk| safetensors_file::layout(disk, name.as_deref())),
            Some(Kind::Parquet | Kind::Arrow) => {
                let (disk, layout, ids) = spool::spool(&path, name.as_deref())?;
                Ok(Vectors { disk, layout, ids })
            }
            Some(Kind::Csv | Kind::Txt) | None => {
                Err(InputError::ending(&path, ".npy, .fvecs, .safetensors, .parquet, .arrow or .feather"))
            }
        }
    }

    /// How many vectors; at least 1.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Values per vector; 1 to [`super::MAX_DIM`].
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// The file, without `#name`.
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// The ids found in the same table, one a row and unique; `None` for formats that hold only numbers.
    pub fn ids(&self) -> Option<&Ids> {
        self.ids.as_ref()
    }

    /// Reads `out.len() / dim` consecutive rows from `first`. A NaN or an infinity is refused with its row and
    /// column; `out` then holds unspecified numbers.
    pub fn read(&self, first: usize, out: &mut [f32]) -> Result<(), InputError> {
        let (rows, dim) = (self.rows(), self.dim());
        let wanted = out.len() / dim;
        if !out.len().is_multiple_of(dim) || first > rows || wanted > rows - first {
            return Err(InputError::request(
                self.path(),
                format!("it has {rows} rows of {dim}"),
                format!("{} values from row {first}", out.len()),
            ));
        }
        self.decode(first, out)?;
        self.check_finite(first, out)
    }

    /// Reads the given rows, in that order; `out` holds `rows.len() * dim` values.
    pub fn gather(&self, rows: &[u32], out: &mut [f32]) -> Result<(), InputError> {
        let dim = self.dim();
        if rows.len().checked_mul(dim) != Some(out.len()) {
            return Err(InputError::request(
                self.path(),
                format!("{} rows of {dim} fill as many values", rows.len()),
                format!("{} values", out.len()),
            ));
        }
        let mut rest = out;
        // Neighbouring rows come in one read.
        for run in rows.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
            let (head, tail) = rest.split_at_mut(run.len() * dim);
            self.read(run[0] as usize, head)?;
            rest = tail;
        }
        Ok(())
    }

    /// Calls `f(first_row, rows)` over all rows in order, `rows_per_chunk` at a time (the last may be shorter).
    pub fn for_each_chunk<E: From<InputError>>(
        &self,
        rows_per_chunk: usize,
        mut f: impl FnMut(usize, &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let chunk = rows_per_chunk.clamp(1, self.rows());
        let mut values = vec![0.0; chunk * self.dim()];
        for first in (0..self.rows()).step_by(chunk) {
            let values = &mut values[..chunk.min(self.rows() - first) * self.dim()];
            self.read(first, values)?;
            f(first, values)?;
        }
        Ok(())
    }

    /// Reads rows known to be in range.
    fn decode(&self, first: usize, out: &mut [f32]) -> Result<(), InputError> {
        let Layout { start, prefix, element, dim, .. } = self.layout;
        let stride = self.layout.stride();
        let byte_of = |row: usize| start + row as u64 * stride as u64;
        if prefix == 0 && element == Element::F32 && cfg!(target_endian = "little") {
            return self.disk.read_at(byte_of(first), bytemuck::cast_slice_mut(out));
        }
        let block = (SCRATCH_BYTES / stride).clamp(1, (out.len() / dim).max(1));
        let mut scratch = vec![0; block * stride];
        for (b, out) in out.chunks_mut(block * dim).enumerate() {
            let first = first + b * block;
            let scratch = &mut scratch[..out.len() / dim * stride];
            self.disk.read_at(byte_of(first), scratch)?;
            for (i, (bytes, out)) in scratch.chunks_exact(stride).zip(out.chunks_exact_mut(dim)).enumerate() {
                let (head, numbers) = bytes.split_at(prefix);
                if prefix != 0 {
                    fvecs::check_row(self.path(), (first + i) as u64, head, dim)?;
                }
                element.decode(numbers, out);
            }
        }
        Ok(())
    }

    fn check_finite(&self, first: usize, values: &[f32]) -> Result<(), InputError> {
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(()),
            Some(at) => {
                Err(not_finite(self.path(), (first + at / self.dim()) as u64, at % self.dim(), f64::from(values[at])))
            }
        }
    }
}

/// The refusal of a NaN, an infinity, or an f64 beyond f32.
pub(super) fn not_finite(path: &Path, row: u64, column: usize, got: f64) -> InputError {
    InputError::value(
        path,
        Place::Row(row),
        column.to_string(),
        "a finite number that fits f32",
        got.to_string(),
        "such a number would poison every score: find why training made it, or drop the row",
    )
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // values are copied, not computed
mod tests {
    use super::super::testing::{Folder, assert_says, f32s, fvecs};
    use super::*;

    const SIX: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

    fn all(vectors: &Vectors) -> Result<Vec<f32>, InputError> {
        let mut out = vec![0.0; vectors.rows() * vectors.dim()];
        vectors.read(0, &mut out).map(|()| out)
    }

    /// The same 3 rows of 2 in a format read straight into place and in one that is decoded.
    fn both(folder: &Folder) -> [Vectors; 2] {
        let npy = folder.npy("a.npy", "<f4", "(3, 2)", &f32s(&SIX));
        let fvecs = folder.file("a.fvecs", fvecs(&[&SIX[..2], &SIX[2..4], &SIX[4..]]));
        [Vectors::open(&npy).unwrap(), Vectors::open(&fvecs).unwrap()]
    }

    #[test]
    fn rows_are_read_gathered_and_streamed() {
        let folder = Folder::new();
        for vectors in both(&folder) {
            assert_eq!((vectors.rows(), vectors.dim()), (3, 2));
            assert!(vectors.ids().is_none());
            assert_eq!(all(&vectors).unwrap(), SIX);
            let mut out = [0.0; 2];
            vectors.read(2, &mut out).unwrap();
            assert_eq!(out, [5.0, 6.0]);
            let mut out = [0.0; 10];
            vectors.gather(&[2, 0, 1, 1, 0], &mut out).unwrap();
            assert_eq!(out, [5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 1.0, 2.0]);
            vectors.gather(&[], &mut []).unwrap();
            vectors.read(3, &mut []).unwrap();
            for chunk in [0, 1, 2, 3, usize::MAX] {
                let mut seen = Vec::new();
                let visit = |first, rows: &[f32]| {
                    assert_eq!(first * 2, seen.len());
                    seen.extend_from_slice(rows);
                    Ok::<_, InputError>(())
                };
                vectors.for_each_chunk(chunk, visit).unwrap();
                assert_eq!(seen, SIX);
            }
        }
    }

    #[test]
    fn blocks_of_decoded_rows_join_without_a_seam() {
        let folder = Folder::new();
        let dim = 1000;
        let values: Vec<f32> = (0..300 * dim).map(|i| i as f32).collect();
        let rows: Vec<&[f32]> = values.chunks(dim).collect();
        let vectors = Vectors::open(&folder.file("a.fvecs", fvecs(&rows))).unwrap();
        assert_eq!(all(&vectors).unwrap(), values);
    }

    #[test]
    fn what_the_file_does_not_have_is_refused() {
        let folder = Folder::new();
        for vectors in both(&folder) {
            let path = vectors.path().to_owned();
            let says = |result: Result<(), InputError>| assert_says(&result.unwrap_err(), &path, &["3 rows of 2"]);
            says(vectors.read(2, &mut [0.0; 4]));
            says(vectors.read(4, &mut []));
            says(vectors.read(usize::MAX, &mut [0.0; 2]));
            says(vectors.read(0, &mut [0.0; 3]));
            says(vectors.gather(&[3], &mut [0.0; 2]));
            says(vectors.gather(&[u32::MAX, 0], &mut [0.0; 4]));
            assert!(vectors.gather(&[0], &mut [0.0; 4]).is_err());
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused_with_row_and_column() {
        let folder = Folder::new();
        for (bad, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
            let mut values = SIX;
            values[3] = bad;
            let npy = folder.npy("a.npy", "<f4", "(3, 2)", &f32s(&values));
            let fvecs = folder.file("a.fvecs", fvecs(&[&values[..2], &values[2..4], &values[4..]]));
            for path in [npy, fvecs] {
                let vectors = Vectors::open(&path).unwrap();
                assert_says(&all(&vectors).unwrap_err(), &path, &["row 1", "column 1", name]);
                let mut out = [0.0; 4];
                let error = vectors.gather(&[2, 1], &mut out).unwrap_err();
                assert_says(&error, &path, &["row 1", "column 1"]);
                vectors.gather(&[2, 0], &mut out).unwrap();
            }
        }
    }

    #[test]
    fn a_file_cut_after_it_was_opened_is_an_error() {
        let folder = Folder::new();
        for vectors in both(&folder) {
            let file = std::fs::OpenOptions::new().write(true).open(vectors.path()).unwrap();
            file.set_len(20).unwrap();
            assert_says(&all(&vectors).unwrap_err(), vectors.path(), &["end of the file", "truncated"]);
        }
    }

    #[test]
    fn an_unknown_ending_or_a_missing_file_is_refused() {
        let folder = Folder::new();
        let path = folder.file("a.bin", b"x");
        assert_says(&Vectors::open(&path).unwrap_err(), &path, &[".npy", ".parquet"]);
        let missing = folder.path("no.npy");
        assert_says(&Vectors::open(&missing).unwrap_err(), &missing, &["opening"]);
    }
}
