//! AVX2 with FMA and F16C.
//!
//! The byte multiply of this level takes one factor unsigned and saturates. `int8` gives it the magnitudes of the row
//! and the query with the row's signs: `2 · 128 · 127 < 2^15`, so nothing saturates while query codes are within ±127,
//! and a row may hold -128, which has no other sign. `int4` codes are small anyway.

#[allow(clippy::wildcard_imports, reason = "intrinsics are named by nobody else")]
use std::arch::x86_64::*;

use half::f16;

use super::super::many::{self, one_by_one};
use super::super::{COLUMNS, INT4_BLOCK, Kernels, Level, scalar};
use super::reduce::{each_of_eight_f32, each_of_eight_i32, eight_f32, eight_i32};

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
    many_i8: |queries, rows, ids, _, out| {
        // SAFETY: the ids were checked, and every query is as long as a row.
        one_by_one(queries, out, |query, out| unsafe { rows_i8(query, rows, ids, out) });
    },
    many_i4: |queries, rows, ids, _, out| {
        // SAFETY: as above.
        one_by_one(queries, out, |query, out| unsafe { rows_i4(query, rows, ids, out) });
    },
    rescale,
    max_id,
    argmax,
    best_of_columns,
    append_above,
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

/// Rows scored together.
const GROUP: usize = 8;

/// Calls `score` with eight row starts at a time and stores its eight results; a ragged end repeats its last row.
///
/// # Safety
/// Every id names a row of `stride` elements at `rows`, and `out` has a place for each id.
#[inline(always)]
unsafe fn in_groups<T>(
    rows: *const T,
    stride: usize,
    ids: &[u32],
    out: &mut [f32],
    score: impl Fn([*const T; GROUP]) -> __m256,
) {
    for (ids, out) in ids.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
        let last = ids.len() - 1;
        // SAFETY: the ids are inside, by contract.
        let starts = std::array::from_fn(|i| unsafe { rows.add(ids[i.min(last)] as usize * stride) });
        let scores: [f32; GROUP] = bytemuck::cast(score(starts));
        out[..ids.len()].copy_from_slice(&scores[..ids.len()]);
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn rows_f32(query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let whole = query.len() / 8 * 8;
    let score = |starts: [*const f32; GROUP]| {
        let mut sums = [_mm256_setzero_ps(); GROUP];
        for at in (0..whole).step_by(8) {
            // SAFETY: eight elements from `at` on are inside query and rows.
            let q = unsafe { _mm256_loadu_ps(query.as_ptr().add(at)) };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                *sum = unsafe { _mm256_fmadd_ps(_mm256_loadu_ps(row.add(at)), q, *sum) };
            }
        }
        each_of_eight_f32(sums)
    };
    // SAFETY: the caller checked the ids.
    unsafe { in_groups(rows.as_ptr(), query.len(), ids, out, score) };
    if whole < query.len() {
        for (&id, out) in ids.iter().zip(out) {
            let row = &rows[id as usize * query.len()..][..query.len()];
            *out += scalar::dot_f32(&row[whole..], &query[whole..]);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows_f16(query: &[f32], rows: &[f16], ids: &[u32], out: &mut [f32]) {
    let whole = query.len() / 8 * 8;
    let score = |starts: [*const f16; GROUP]| {
        let mut sums = [_mm256_setzero_ps(); GROUP];
        for at in (0..whole).step_by(8) {
            // SAFETY: eight elements from `at` on are inside query and rows.
            let q = unsafe { _mm256_loadu_ps(query.as_ptr().add(at)) };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                let halves = unsafe { _mm_loadu_si128(row.add(at).cast()) };
                *sum = _mm256_fmadd_ps(_mm256_cvtph_ps(halves), q, *sum);
            }
        }
        each_of_eight_f32(sums)
    };
    // SAFETY: the caller checked the ids.
    unsafe { in_groups(rows.as_ptr(), query.len(), ids, out, score) };
    if whole < query.len() {
        for (&id, out) in ids.iter().zip(out) {
            let row = &rows[id as usize * query.len()..][..query.len()];
            *out += scalar::dot_f16(&row[whole..], &query[whole..]);
        }
    }
}

#[target_feature(enable = "avx2")]
unsafe fn rows_i8(query: &[i8], rows: &[i8], ids: &[u32], out: &mut [f32]) {
    let (dim, whole, ones) = (query.len(), query.len() / 32 * 32, _mm256_set1_epi16(1));
    let score = |starts: [*const i8; GROUP]| {
        let mut sums = [_mm256_setzero_si256(); GROUP];
        for at in (0..whole).step_by(32) {
            // SAFETY: 32 elements from `at` on are inside query and rows.
            let q = unsafe { _mm256_loadu_si256(query.as_ptr().add(at).cast()) };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                let codes = unsafe { _mm256_loadu_si256(row.add(at).cast()) };
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(q, codes));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        _mm256_cvtepi32_ps(each_of_eight_i32(sums))
    };
    if whole == dim {
        // SAFETY: the caller checked the ids.
        return unsafe { in_groups(rows.as_ptr(), dim, ids, out, score) };
    }
    // Rows that are not whole: none of a matrix that a graph is walked by.
    for (&id, out) in ids.iter().zip(out) {
        // SAFETY: equal lengths.
        *out = unsafe { dot_i8(&rows[id as usize * dim..][..dim], query) } as f32;
    }
}

#[target_feature(enable = "avx2")]
unsafe fn rows_i4(query: &[i8], rows: &[u8], ids: &[u32], out: &mut [f32]) {
    let bytes = query.len() / 2;
    let (nibble, eight, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi8(8), _mm256_set1_epi16(1));
    let products = |codes, dims| _mm256_madd_epi16(_mm256_maddubs_epi16(codes, dims), ones);
    let mut start = _mm256_setzero_si256();
    for at in (0..query.len()).step_by(32) {
        // SAFETY: the query's length is a multiple of the block, which is two times 32.
        let dims = unsafe { _mm256_loadu_si256(query.as_ptr().add(at).cast()) };
        start = _mm256_sub_epi32(start, products(eight, dims));
    }
    let score = |starts: [*const u8; GROUP]| {
        let mut sums = [start; GROUP];
        for at in (0..bytes).step_by(32) {
            // SAFETY: a whole block of 64 dimensions and its 32 bytes.
            let (first, second) = unsafe {
                let query = query.as_ptr().add(2 * at);
                (_mm256_loadu_si256(query.cast()), _mm256_loadu_si256(query.add(32).cast()))
            };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                let packed = unsafe { _mm256_loadu_si256(row.add(at).cast()) };
                let low = _mm256_maddubs_epi16(_mm256_and_si256(packed, nibble), first);
                let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble), second);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_add_epi16(low, high), ones));
            }
        }
        _mm256_cvtepi32_ps(each_of_eight_i32(sums))
    };
    // SAFETY: the caller checked the ids.
    unsafe { in_groups(rows.as_ptr(), bytes, ids, out, score) }
}

#[target_feature(enable = "avx2,popcnt")]
unsafe fn rescale(scale: f32, factors: &[f32], biases: &[f32], floor: f32, products: &mut [f32]) -> u64 {
    many::rescale(scale, factors, biases, floor, products)
}

#[target_feature(enable = "avx2")]
unsafe fn max_id(ids: &[u32]) -> u32 {
    scalar::max_id(ids)
}

/// For each mask of eight lanes, the lanes that are set, in order.
static SET_LANES: [[u32; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut lane, mut count) = (0, 0);
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                table[mask][count] = lane;
                count += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

#[target_feature(enable = "avx2,popcnt")]
unsafe fn append_above(floor: f32, ids: &[u32], scores: &[f32], out_ids: &mut [u32], out_scores: &mut [f32]) -> usize {
    let whole = ids.len() / 8 * 8;
    let bound = _mm256_set1_ps(floor);
    let mut kept = 0;
    for at in (0..whole).step_by(8) {
        // SAFETY: eight elements from `at` on are inside the inputs. `kept <= at`, so eight from `kept` on are inside
        // the outputs, which are at least as long.
        unsafe {
            let score = _mm256_loadu_ps(scores.as_ptr().add(at));
            let id = _mm256_loadu_si256(ids.as_ptr().add(at).cast());
            let above = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(score, bound)) as usize;
            let lanes = _mm256_loadu_si256(SET_LANES[above].as_ptr().cast());
            _mm256_storeu_ps(out_scores.as_mut_ptr().add(kept), _mm256_permutevar8x32_ps(score, lanes));
            _mm256_storeu_si256(out_ids.as_mut_ptr().add(kept).cast(), _mm256_permutevar8x32_epi32(id, lanes));
            kept += above.count_ones() as usize;
        }
    }
    let (ids, scores) = (&ids[whole..], &scores[whole..]);
    kept + scalar::append_above(floor, ids, scores, &mut out_ids[kept..], &mut out_scores[kept..])
}

#[target_feature(enable = "avx2,popcnt")]
unsafe fn best_of_columns(values: &[f32], width: usize, out: &mut [u32; COLUMNS]) -> usize {
    scalar::best_of_columns(values, width, out)
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

#[target_feature(enable = "avx2,popcnt")]
unsafe fn count_above(floor: f32, values: &[f32]) -> usize {
    scalar::count_above(floor, values)
}
