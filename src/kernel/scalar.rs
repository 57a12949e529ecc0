//! The kernels in plain Rust: what every other level is judged by.

use half::f16;

use super::many::{one_by_one, rescale};
use super::{COLUMNS, INT4_BLOCK, Kernels, Level};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Scalar,
    dot_f32,
    dot_f16,
    dot_i8,
    dot_i4,
    rows_f32: |query, rows, ids, out| each_row(query.len(), rows, ids, out, |row| dot_f32(row, query)),
    rows_f16: |query, rows, ids, out| each_row(query.len(), rows, ids, out, |row| dot_f16(row, query)),
    rows_i8: |query, rows, ids, out| each_row(query.len(), rows, ids, out, |row| dot_i8(row, query) as f32),
    rows_i4: |query, rows, ids, out| each_row(query.len() / 2, rows, ids, out, |row| dot_i4(row, query) as f32),
    many_i8: |queries, rows, ids, _, out| {
        one_by_one(queries, out, |query, out| each_row(query.len(), rows, ids, out, |row| dot_i8(row, query) as f32));
    },
    many_i4: |queries, rows, ids, _, out| {
        one_by_one(queries, out, |query, out| {
            each_row(query.len() / 2, rows, ids, out, |row| dot_i4(row, query) as f32);
        });
    },
    rescale,
    max_id,
    argmax,
    best_of_columns,
    append_above,
    count_above,
};

/// `Σ a_i · b_i`, first to last.
pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `Σ row_i · query_i` of a half precision row.
pub fn dot_f16(row: &[f16], query: &[f32]) -> f32 {
    row.iter().zip(query).map(|(x, y)| x.to_f32() * y).sum()
}

/// `Σ a_i · b_i` in 32 bits.
pub fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum()
}

/// `Σ row_i · query_i` of a packed row, block by block.
pub fn dot_i4(row: &[u8], query: &[i8]) -> i32 {
    let blocks = query.chunks(INT4_BLOCK).zip(row.chunks(INT4_BLOCK / 2));
    blocks.map(|(dims, bytes)| dot_i4_block(bytes, dims)).sum()
}

fn dot_i4_block(bytes: &[u8], dims: &[i8]) -> i32 {
    let (low, high) = dims.split_at(bytes.len());
    let low_sum: i32 = bytes.iter().zip(low).map(|(&b, &q)| (i32::from(b & 15) - 8) * i32::from(q)).sum();
    let high_sum: i32 = bytes.iter().zip(high).map(|(&b, &q)| (i32::from(b >> 4) - 8) * i32::from(q)).sum();
    low_sum + high_sum
}

fn each_row<T>(stride: usize, rows: &[T], ids: &[u32], out: &mut [f32], score: impl Fn(&[T]) -> f32) {
    for (&id, out) in ids.iter().zip(out) {
        let start = id as usize * stride;
        *out = score(&rows[start..start + stride]);
    }
}

/// The largest id, 0 when there is none.
#[inline(always)]
pub fn max_id(ids: &[u32]) -> u32 {
    ids.iter().copied().max().unwrap_or(0)
}

/// Position of the largest value, the first of equals.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (at, &value) in values.iter().enumerate() {
        if value > values[best] {
            best = at;
        }
    }
    best
}

/// Of each column the best, the first of equals; of these the best `width`, in their order.
#[inline(always)]
pub fn best_of_columns(values: &[f32], width: usize, out: &mut [u32; COLUMNS]) -> usize {
    let (mut best, mut places) = ([f32::NEG_INFINITY; COLUMNS], [0; COLUMNS]);
    let (rows, rest) = values.as_chunks::<COLUMNS>();
    let mut last = best;
    last[..rest.len()].copy_from_slice(rest);
    for (row, values) in (0..).zip(rows.iter().chain([&last])) {
        for column in 0..COLUMNS {
            let larger = values[column] > best[column];
            best[column] = if larger { values[column] } else { best[column] };
            places[column] = if larger { row * COLUMNS + column } else { places[column] };
        }
    }
    let mut better = [0; COLUMNS];
    for other in best {
        better.iter_mut().zip(&best).for_each(|(better, &value)| *better += u32::from(other > value));
    }
    let mut count = 0;
    for column in 0..COLUMNS {
        out[count] = places[column] as u32;
        count += usize::from(best[column] > f32::NEG_INFINITY && (better[column] as usize) < width);
    }
    count.min(width)
}

/// Copies the pairs whose score is above `floor`.
pub fn append_above(floor: f32, ids: &[u32], scores: &[f32], out_ids: &mut [u32], out_scores: &mut [f32]) -> usize {
    let mut kept = 0;
    for (&id, &score) in ids.iter().zip(scores) {
        out_ids[kept] = id;
        out_scores[kept] = score;
        kept += usize::from(score > floor);
    }
    kept
}

/// How many values are above `floor`.
pub fn count_above(floor: f32, values: &[f32]) -> usize {
    values.iter().filter(|&&value| value > floor).count()
}
