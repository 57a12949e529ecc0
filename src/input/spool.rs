//! The vector column of a table, poured once into a temporary file of plain f32 rows, so that any row can be sought.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use arrow::datatypes::DataType;

use super::disk::Disk;
use super::error::list;
use super::ids::{Ids, IdsBuilder};
use super::layout::{Element, Layout};
use super::sheet::{self, ID_NAMES, Wanted};
use super::table::Table;
use super::{InputError, Place};

/// Streams the vector column of `path` to an unlinked temporary file, and its ids, if it has any, to memory.
pub(super) fn spool(path: &Path, name: Option<&str>) -> Result<(Disk, Layout, Option<Ids>), InputError> {
    let column = choose(path, name)?;
    let write = |e| InputError::io(path, "writing its vectors to the temporary folder (TMPDIR)", e);
    let mut out = BufWriter::with_capacity(1 << 18, tempfile::tempfile().map_err(write)?);
    let mut ids = None;
    let (mut rows, mut dim) = (0u64, 0);
    let mut vector = Vec::new();
    let names = [column.as_str()];
    let wanted = [Wanted::required(&names), Wanted::optional(ID_NAMES)];
    sheet::for_each_row(path, &wanted, |row| {
        row.vector(0, &mut vector)?;
        if rows == 0 {
            dim = vector.len();
        } else if vector.len() != dim {
            return Err(ragged(path, rows, &column, dim, vector.len()));
        }
        rows += 1;
        write_row(&mut out, &vector).map_err(write)?;
        if row.has(1) {
            ids.get_or_insert_with(IdsBuilder::default).push(row.id(1)?);
        }
        Ok(())
    })?;
    let file: File = out.into_inner().map_err(|e| write(e.into_error()))?;
    let len = file.metadata().map_err(write)?.len();
    let disk = Disk::stand_in(file, path, len);
    let layout = Layout::dense(&disk, 0, (rows, dim as u64), Element::F32, len)?;
    let ids = ids.map(IdsBuilder::finish);
    if let Some(ids) = &ids {
        ids.check_unique_in(path, false)?;
    }
    Ok((disk, layout, ids))
}

fn write_row(out: &mut impl Write, vector: &[f32]) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        return out.write_all(bytemuck::cast_slice(vector));
    }
    vector.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
}

fn ragged(path: &Path, row: u64, column: &str, expected: usize, got: usize) -> InputError {
    InputError::value(
        path,
        Place::Row(row),
        column,
        format!("{expected} values, as in row 0"),
        got.to_string(),
        "every vector must have the same length: find why this one has not, or drop the row",
    )
}

/// The name of the column to read: the one asked for, or the only one that holds vectors.
fn choose(path: &Path, name: Option<&str>) -> Result<String, InputError> {
    let table = Table::open(path)?;
    let fields = table.schema().fields();
    let vectors: Vec<String> =
        fields.iter().filter(|field| is_vector(field.data_type())).map(|field| field.name().clone()).collect();
    let chosen = match name {
        Some(name) => vectors.iter().find(|vector| *vector == name),
        None => vectors.first().filter(|_| vectors.len() == 1),
    };
    chosen.cloned().ok_or_else(|| {
        InputError::format(
            path,
            match name {
                Some(name) => format!("a column `{name}` of lists of f16, f32 or f64"),
                None => "one column of lists of f16, f32 or f64".to_owned(),
            },
            list(&vectors),
            "name the one to read as file#column",
        )
    })
}

fn is_vector(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            matches!(item.data_type(), DataType::Float16 | DataType::Float32 | DataType::Float64)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, FixedSizeListArray, Float16Array, Float32Array, Float64Array, LargeListArray, ListArray,
    };
    use arrow::datatypes::{Field, Float32Type, Float64Type};
    use half::f16;

    use super::super::Vectors;
    use super::super::testing::{Folder, assert_says, fixed, numbers, texts};
    use super::*;

    const VALUES: [f32; 10] = [1.5, -2.0, 0.25, 3.0, 0.0, -0.5, 7.0, 8.0, 9.0, 10.0];

    fn of(values: ArrayRef) -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(FixedSizeListArray::new(item, 2, values, None))
    }

    fn lists(rows: &[Option<Vec<Option<f32>>>]) -> ArrayRef {
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows.iter().cloned()))
    }

    fn read(path: &Path) -> Vec<f32> {
        let vectors = Vectors::open(path).unwrap();
        let mut out = vec![0.0; vectors.rows() * vectors.dim()];
        vectors.read(0, &mut out).unwrap();
        out
    }

    #[test]
    fn every_kind_of_list_is_read_across_row_groups_and_batches() {
        let folder = Folder::new();
        let wide = VALUES.map(f64::from);
        let pairs = || VALUES.chunks(2).map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>()));
        let columns: [ArrayRef; 5] = [
            of(Arc::new(Float32Array::from(VALUES.to_vec()))),
            of(Arc::new(Float64Array::from(wide.to_vec()))),
            of(Arc::new(Float16Array::from(VALUES.map(f16::from_f32).to_vec()))),
            lists(&pairs().collect::<Vec<_>>()),
            Arc::new(LargeListArray::from_iter_primitive::<Float64Type, _, _>(
                wide.chunks(2).map(|row| Some(row.iter().copied().map(Some))),
            )),
        ];
        for column in columns {
            for path in folder.tables(&[("noise", texts(&["a"; 5])), ("v", column)]) {
                assert_eq!(read(&path), VALUES);
                assert!(Vectors::open(&path).unwrap().ids().is_none());
            }
        }
    }

    #[test]
    fn ids_beside_the_vectors_come_with_them() {
        let folder = Folder::new();
        for path in folder.tables(&[("v", fixed(2, &VALUES)), ("user_id", texts(&["a", "7", "c", "d", "e"]))]) {
            let vectors = Vectors::open(&path).unwrap();
            assert_eq!(vectors.path(), path);
            let ids: Vec<String> = vectors.ids().unwrap().iter().map(|id| id.to_string()).collect();
            assert_eq!(ids, ["a", "7", "c", "d", "e"]);
        }
        for path in folder.tables(&[("v", fixed(2, &VALUES)), ("id", numbers(&[1, 2, 3, 2, 5]))]) {
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &["`2`", "row 1", "row 3"]);
        }
    }

    #[test]
    fn one_of_several_columns_is_read_by_name() {
        let folder = Folder::new();
        let columns = [("a", fixed(2, &VALUES)), ("b", fixed(5, &VALUES)), ("c", numbers(&[1; 5]))];
        for path in folder.tables(&[columns[0].clone(), ("b", fixed(2, &[0.0; 10])), columns[2].clone()]) {
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &["`a`, `b`", "file#column"]);
            assert_eq!(read(Path::new(&format!("{}#a", path.display()))), VALUES);
            let named = format!("{}#c", path.display());
            assert_says(&Vectors::open(Path::new(&named)).unwrap_err(), &path, &["`c`", "`a`, `b`"]);
        }
    }

    #[test]
    fn bad_vectors_are_refused_with_row_and_column() {
        let folder = Folder::new();
        let good = || Some(vec![Some(1.0), Some(2.0)]);
        let bad = |row: Option<Vec<Option<f32>>>| lists(&[good(), good(), good(), good(), row]);
        let mut wide = VALUES.map(f64::from);
        wide[9] = 1e300;
        let columns: [(ArrayRef, &[&str]); 8] = [
            (bad(Some(vec![Some(1.0)])), &["row 4", "column v", "2 values, as in row 0", "got 1"]),
            (bad(Some(vec![])), &["row 4", "2 values, as in row 0", "got 0"]),
            (bad(Some(vec![Some(1.0), None])), &["row 4", "a number at 1", "nothing"]),
            (bad(None), &["row 4", "a list of numbers", "nothing"]),
            (bad(Some(vec![Some(1.0), Some(f32::NAN)])), &["row 4", "column 1", "NaN"]),
            (bad(Some(vec![Some(f32::INFINITY), Some(0.0)])), &["row 4", "column 0", "inf"]),
            (of(Arc::new(Float64Array::from(wide.to_vec()))), &["row 4", "column 1", "fits f32"]),
            (lists(&[Some(vec![]), Some(vec![])]), &["2 rows of 0"]),
        ];
        for (column, says) in columns {
            for path in folder.tables(&[("v", column)]) {
                assert_says(&Vectors::open(&path).unwrap_err(), &path, says);
            }
        }
        for path in folder.tables(&[("v", Arc::new(BooleanArray::from(vec![true])) as ArrayRef)]) {
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &["one column of lists", "none"]);
        }
        for path in folder.tables(&[("v", fixed(2, &[]))]) {
            assert_says(&Vectors::open(&path).unwrap_err(), &path, &["0 rows", "not empty"]);
        }
    }
}
