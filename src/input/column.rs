//! One column of one arrow batch, seen as the few kinds of value the inputs are made of.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringViewArray, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, UInt64Type};

/// A value in a table.
pub(super) enum Cell<'a> {
    Null,
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
    List(&'a Column, Range<usize>),
}

/// A column read into memory: integers and floats widened, timestamps in seconds, dictionaries looked through, never expanded (a small
/// file may repeat one long string a billion times).
#[derive(Debug)]
pub(super) struct Column {
    nulls: Option<NullBuffer>,
    /// Position in `values` of each row, for dictionaries.
    keys: Option<Vec<usize>>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Signed(Int64Array),
    Unsigned(UInt64Array),
    Float(Float64Array),
    Text(StringViewArray),
    List(Vec<usize>, Box<Column>),
}

impl Column {
    /// `None` for a type that no input is made of. May panic on a malformed array: call it guarded.
    pub(super) fn new(array: &ArrayRef) -> Option<Self> {
        use DataType as D;
        let as_type = |wanted: D| cast(array, &wanted).ok();
        let values = match array.data_type() {
            D::Int8 | D::Int16 | D::Int32 | D::Int64 => {
                Values::Signed(as_type(D::Int64)?.as_primitive::<Int64Type>().clone())
            }
            D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => {
                Values::Unsigned(as_type(D::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            D::Float16 | D::Float32 | D::Float64 => {
                Values::Float(as_type(D::Float64)?.as_primitive::<Float64Type>().clone())
            }
            D::Timestamp(unit, _) => {
                let ticks = as_type(D::Int64)?;
                let per_second = match unit {
                    TimeUnit::Second => 1.0,
                    TimeUnit::Millisecond => 1e3,
                    TimeUnit::Microsecond => 1e6,
                    TimeUnit::Nanosecond => 1e9,
                };
                Values::Float(ticks.as_primitive::<Int64Type>().unary(|ticks| ticks as f64 / per_second))
            }
            D::Utf8 | D::LargeUtf8 | D::Utf8View => Values::Text(as_type(D::Utf8View)?.as_string_view().clone()),
            D::List(_) => {
                let list = array.as_list::<i32>();
                let offsets = list.value_offsets().iter().map(|&at| at as usize).collect();
                Values::List(offsets, Box::new(Column::new(list.values())?))
            }
            D::LargeList(_) => {
                let list = array.as_list::<i64>();
                let offsets = list.value_offsets().iter().map(|&at| at as usize).collect();
                Values::List(offsets, Box::new(Column::new(list.values())?))
            }
            D::FixedSizeList(_, length) if *length > 0 => {
                // A length of zero would let a few bytes claim any number of rows.
                let list = array.as_fixed_size_list();
                let items = Column::new(list.values())?;
                let length = *length as usize;
                Values::List((0..=list.len()).map(|row| row * length).collect(), Box::new(items))
            }
            D::Dictionary(..) => return Column::from_dictionary(array),
            _ => return None,
        };
        Some(Column { nulls: array.nulls().cloned(), keys: None, values })
    }

    fn from_dictionary(array: &ArrayRef) -> Option<Self> {
        let dictionary = array.as_any_dictionary_opt()?;
        let mut column = Column::new(dictionary.values())?;
        if column.keys.is_some() {
            return None; // a dictionary of dictionaries
        }
        // A row is null when its key is, or when the value it points at is.
        let nulls = array.logical_nulls();
        column.keys = Some(if dictionary.values().is_empty() {
            vec![0; array.len()] // all null, never looked up
        } else {
            dictionary.normalized_keys()
        });
        column.nulls = nulls;
        Some(column)
    }

    pub(super) fn cell(&self, row: usize) -> Cell<'_> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Cell::Null;
        }
        let row = self.keys.as_ref().map_or(row, |keys| keys[row]);
        match &self.values {
            Values::Signed(values) => Cell::Signed(values.value(row)),
            Values::Unsigned(values) => Cell::Unsigned(values.value(row)),
            Values::Float(values) => Cell::Float(values.value(row)),
            Values::Text(values) => Cell::Text(values.value(row)),
            Values::List(offsets, items) => Cell::List(items, offsets[row]..offsets[row + 1]),
        }
    }

    /// The numbers of a float column, whatever stands in its null rows.
    pub(super) fn floats(&self) -> Option<&[f64]> {
        match &self.values {
            Values::Float(values) => Some(values.values()),
            _ => None,
        }
    }

    /// The first null among `rows`.
    pub(super) fn first_null(&self, mut rows: Range<usize>) -> Option<usize> {
        let nulls = self.nulls.as_ref()?;
        rows.find(|&row| nulls.is_null(row))
    }
}
