//! AVX2 with FMA and F16C.
//!
//! `int8` is widened to 16 bits before it is multiplied: the byte multiply of this level saturates. `int4` codes are
//! small enough for it not to (`2 · 15 · 128 < 2^15`).

#[allow(clippy::wildcard_imports, reason = "intrinsics are named by nobody else")]
use std::arch::x86_64::*;

use half::f16;

use super::super::{INT4_BLOCK, Kernels, Level, scalar};
use super::reduce::{eight_f32, eight_i32};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Avx2,
    dot_f32,
    dot_f16,
    dot_i8,
    dot_i4,
    rows_f32,
    rows_f16,
    rows_i8,
    rows_i4,
    argmax,
    append_above: scalar::append_above,
    count_above,
};

#[target_feature(enable = "avx2,fma")]
unsafe fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let whole = a.len() / 8 * 8;
    let mut sum = _mm256_setzero_ps();
    for at in (0..whole).step_by(8) {
        // SAFETY: eight elements from `at` on are inside both slices.
        let (x, y) = unsafe { (_mm256_loadu_ps(a.as_ptr().add(at)), _mm256_loadu_ps(b.as_ptr().add(at))) };
        sum = _mm256_fmadd_ps(x, y, sum);
    }
    eight_f32(sum) + scalar::dot_f32(&a[whole..], &b[whole..])
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dot_f16(row: &[f16], query: &[f32]) -> f32 {
    let whole = row.len() / 8 * 8;
    let mut sum = _mm256_setzero_ps();
    for at in (0..whole).step_by(8) {
        // SAFETY: eight elements from `at` on are inside both slices.
        let (x, y) = unsafe { (_mm_loadu_si128(row.as_ptr().add(at).cast()), _mm256_loadu_ps(query.as_ptr().add(at))) };
        sum = _mm256_fmadd_ps(_mm256_cvtph_ps(x), y, sum);
    }
    eight_f32(sum) + scalar::dot_f16(&row[whole..], &query[whole..])
}

#[target_feature(enable = "avx2")]
unsafe fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let whole = a.len() / 16 * 16;
    let mut sum = _mm256_setzero_si256();
    for at in (0..whole).step_by(16) {
        // SAFETY: sixteen elements from `at` on are inside both slices.
        let (x, y) =
            unsafe { (_mm_loadu_si128(a.as_ptr().add(at).cast()), _mm_loadu_si128(b.as_ptr().add(at).cast())) };
        let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(x), _mm256_cvtepi8_epi16(y));
        sum = _mm256_add_epi32(sum, products);
    }
    eight_i32(sum) + scalar::dot_i8(&a[whole..], &b[whole..])
}

#[target_feature(enable = "avx2")]
unsafe fn dot_i4(row: &[u8], query: &[i8]) -> i32 {
    let whole = query.len() / INT4_BLOCK * INT4_BLOCK;
    let (nibble, eight, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi8(8), _mm256_set1_epi16(1));
    let mut sum = _mm256_setzero_si256();
    for at in (0..whole).step_by(INT4_BLOCK) {
        // SAFETY: a whole block of 64 dimensions and its 32 bytes.
        let (packed, first, second) = unsafe {
            let query = query.as_ptr().add(at);
            (
                _mm256_loadu_si256(row.as_ptr().add(at / 2).cast()),
                _mm256_loadu_si256(query.cast()),
                _mm256_loadu_si256(query.add(32).cast()),
            )
        };
        let low = _mm256_and_si256(packed, nibble);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
        let products = |codes, dims| {
            let wide = _mm256_sub_epi16(_mm256_maddubs_epi16(codes, dims), _mm256_maddubs_epi16(eight, dims));
            _mm256_madd_epi16(wide, ones)
        };
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(products(low, first), products(high, second)));
    }
    eight_i32(sum) + scalar::dot_i4(&row[whole / 2..], &query[whole..])
}

/// Scores each row with `score`.
///
/// # Safety
/// Every id names a row of `stride` elements of `rows`, and `out` has a place for each id.
#[inline(always)]
unsafe fn each_row<T>(rows: &[T], stride: usize, ids: &[u32], out: &mut [f32], score: impl Fn(&[T]) -> f32) {
    for (&id, out) in ids.iter().zip(out) {
        // SAFETY: by contract.
        *out = score(unsafe { rows.get_unchecked(id as usize * stride..(id as usize + 1) * stride) });
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn rows_f32(query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    // SAFETY: the caller checked the ids; row and query are equally long.
    unsafe { each_row(rows, query.len(), ids, out, |row| dot_f32(row, query)) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_f16(query: &[f32], rows: &[f16], ids: &[u32], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { each_row(rows, query.len(), ids, out, |row| dot_f16(row, query)) }
}

#[target_feature(enable = "avx2")]
unsafe fn rows_i8(query: &[i8], rows: &[i8], ids: &[u32], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { each_row(rows, query.len(), ids, out, |row| dot_i8(row, query) as f32) }
}

#[target_feature(enable = "avx2")]
unsafe fn rows_i4(query: &[i8], rows: &[u8], ids: &[u32], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { each_row(rows, query.len() / 2, ids, out, |row| dot_i4(row, query) as f32) }
}

#[target_feature(enable = "avx2")]
unsafe fn argmax(values: &[f32]) -> usize {
    let whole = values.len() / 8 * 8;
    let step = _mm256_set1_epi32(8);
    let mut index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let (mut best, mut best_index) = (_mm256_set1_ps(f32::NEG_INFINITY), index);
    for at in (0..whole).step_by(8) {
        // SAFETY: eight elements from `at` on are inside.
        let value = unsafe { _mm256_loadu_ps(values.as_ptr().add(at)) };
        let larger = _mm256_cmp_ps::<_CMP_GT_OQ>(value, best);
        best = _mm256_blendv_ps(best, value, larger);
        best_index = _mm256_blendv_epi8(best_index, index, _mm256_castps_si256(larger));
        index = _mm256_add_epi32(index, step);
    }
    let (mut tops, mut places) = ([f32::NEG_INFINITY; 8], [0_u32; 8]);
    // SAFETY: both arrays hold eight elements.
    unsafe {
        _mm256_storeu_ps(tops.as_mut_ptr(), best);
        _mm256_storeu_si256(places.as_mut_ptr().cast(), best_index);
    }
    let lanes = tops.iter().copied().zip(places.iter().map(|&place| place as usize));
    let tail = values[whole..].iter().copied().zip(whole..);
    let (_, first) = lanes.chain(tail).fold((f32::NEG_INFINITY, 0), |(top, first), (value, place)| {
        let earlier = value == top && place < first;
        if value > top || earlier { (value, place) } else { (top, first) }
    });
    first
}

#[target_feature(enable = "avx2")]
unsafe fn count_above(floor: f32, values: &[f32]) -> usize {
    scalar::count_above(floor, values)
}
