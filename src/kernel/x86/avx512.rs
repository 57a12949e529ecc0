//! AVX-512 F, BW, VL and VNNI.
//!
//! `vpdpbusd` multiplies unsigned by signed bytes, so the row is made unsigned by flipping its top bit (adding 128)
//! and the accumulators start at `-128 · Σ query` in the same lanes. It wraps nowhere: see [`super::super::MAX_DIM`].

#[allow(clippy::wildcard_imports, reason = "intrinsics are named by nobody else")]
use std::arch::x86_64::*;

use half::f16;

use super::super::{COLUMNS, INT4_BLOCK, Kernels, Level, scalar};
use super::many::{many_i4, many_i8, rescale};
use super::reduce::{sixteen_f32, sixteen_i32};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Avx512,
    dot_f32,
    dot_f16,
    dot_i8,
    dot_i4,
    rows_f32,
    rows_f16,
    rows_i8,
    rows_i4,
    many_i8,
    many_i4,
    rescale,
    max_id,
    argmax,
    best_of_columns,
    append_above,
    count_above,
};

/// Rows scored together.
const GROUP: usize = 16;

/// The low `min(n, 16)` bits.
#[inline]
fn mask16(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// The low `min(n, 64)` bits.
#[inline]
fn mask64(n: usize) -> __mmask64 {
    if n >= 64 { !0 } else { (1 << n) - 1 }
}

/// The `f32` at `at..at+16`, zero from `len` on.
///
/// # Safety
/// `at < len`, and `len` elements are readable from `base`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_f32(base: *const f32, at: usize, len: usize) -> __m512 {
    // SAFETY: the mask keeps lanes from `len` on unread.
    unsafe { _mm512_maskz_loadu_ps(mask16(len - at), base.add(at)) }
}

/// The halves at `at..at+16` as `f32`, zero from `len` on.
///
/// # Safety
/// As [`load_f32`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn load_f16(base: *const f16, at: usize, len: usize) -> __m512 {
    // SAFETY: as above.
    unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask16(len - at), base.add(at).cast())) }
}

/// The bytes at `at..at+64`, zero from `len` on.
///
/// # Safety
/// As [`load_f32`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load_i8(base: *const i8, at: usize, len: usize) -> __m512i {
    // SAFETY: as above.
    unsafe { _mm512_maskz_loadu_epi8(mask64(len - at), base.add(at)) }
}

#[target_feature(enable = "avx512f")]
unsafe fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = _mm512_setzero_ps();
    for at in (0..a.len()).step_by(16) {
        // SAFETY: both slices are `a.len()` long.
        sum = unsafe { _mm512_fmadd_ps(load_f32(a.as_ptr(), at, a.len()), load_f32(b.as_ptr(), at, a.len()), sum) };
    }
    _mm512_reduce_add_ps(sum)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn dot_f16(row: &[f16], query: &[f32]) -> f32 {
    let mut sum = _mm512_setzero_ps();
    for at in (0..row.len()).step_by(16) {
        // SAFETY: both slices are `row.len()` long.
        sum = unsafe {
            _mm512_fmadd_ps(load_f16(row.as_ptr(), at, row.len()), load_f32(query.as_ptr(), at, row.len()), sum)
        };
    }
    _mm512_reduce_add_ps(sum)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let flip = _mm512_set1_epi8(i8::MIN);
    let (mut sum, mut offset) = (_mm512_setzero_si512(), _mm512_setzero_si512());
    for at in (0..a.len()).step_by(64) {
        // SAFETY: both slices are `a.len()` long.
        let (a, b) = unsafe { (load_i8(a.as_ptr(), at, a.len()), load_i8(b.as_ptr(), at, a.len())) };
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(a, flip), b);
        offset = _mm512_dpbusd_epi32(offset, flip, b);
    }
    _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, offset))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn dot_i4(row: &[u8], query: &[i8]) -> i32 {
    let whole = query.len() / INT4_BLOCK * INT4_BLOCK;
    let mut sum = _mm512_setzero_si512();
    for at in (0..whole).step_by(INT4_BLOCK) {
        // SAFETY: a whole block of 64 dimensions and its 32 bytes.
        let (packed, dims) = unsafe {
            (_mm256_loadu_si256(row.as_ptr().add(at / 2).cast()), _mm512_loadu_si512(query.as_ptr().add(at).cast()))
        };
        let high = _mm256_srli_epi16::<4>(packed);
        let codes = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(packed), high);
        let codes = _mm512_and_si512(codes, _mm512_set1_epi8(15));
        sum = _mm512_dpbusd_epi32(sum, codes, dims);
        sum = _mm512_sub_epi32(sum, _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(8), dims));
    }
    _mm512_reduce_add_epi32(sum) + scalar::dot_i4(&row[whole / 2..], &query[whole..])
}

/// Calls `score` with sixteen row starts at a time and stores its sixteen results; a ragged end repeats its last row.
///
/// # Safety
/// Every id names a row of `stride` elements at `rows`, and `out` has a place for each id.
#[inline(always)]
unsafe fn in_groups<T>(
    rows: *const T,
    stride: usize,
    ids: &[u32],
    out: &mut [f32],
    score: impl Fn([*const T; GROUP]) -> __m512,
) {
    for (ids, out) in ids.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
        let last = ids.len() - 1;
        // SAFETY: the ids are inside, by contract.
        let starts = std::array::from_fn(|i| unsafe { rows.add(ids[i.min(last)] as usize * stride) });
        let scores = score(starts);
        // SAFETY: the level of every caller includes AVX-512 F; only lanes with an id are written.
        unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), mask16(ids.len()), scores) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_f32(query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let dim = query.len();
    let score = |starts: [*const f32; GROUP]| {
        let mut sums = [_mm512_setzero_ps(); GROUP];
        for at in (0..dim).step_by(16) {
            // SAFETY: rows and query have `dim` elements.
            let q = unsafe { load_f32(query.as_ptr(), at, dim) };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                *sum = unsafe { _mm512_fmadd_ps(load_f32(row, at, dim), q, *sum) };
            }
        }
        sixteen_f32(sums)
    };
    // SAFETY: the caller checked the ids.
    unsafe { in_groups(rows.as_ptr(), dim, ids, out, score) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_f16(query: &[f32], rows: &[f16], ids: &[u32], out: &mut [f32]) {
    let dim = query.len();
    let score = |starts: [*const f16; GROUP]| {
        let mut sums = [_mm512_setzero_ps(); GROUP];
        for at in (0..dim).step_by(16) {
            // SAFETY: rows and query have `dim` elements.
            let q = unsafe { load_f32(query.as_ptr(), at, dim) };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                *sum = unsafe { _mm512_fmadd_ps(load_f16(row, at, dim), q, *sum) };
            }
        }
        sixteen_f32(sums)
    };
    // SAFETY: the caller checked the ids.
    unsafe { in_groups(rows.as_ptr(), dim, ids, out, score) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_i8(query: &[i8], rows: &[i8], ids: &[u32], out: &mut [f32]) {
    let dim = query.len();
    let flip = _mm512_set1_epi8(i8::MIN);
    let mut start = _mm512_setzero_si512();
    for at in (0..dim).step_by(64) {
        // SAFETY: the query has `dim` elements.
        start = unsafe { _mm512_dpbusd_epi32(start, flip, load_i8(query.as_ptr(), at, dim)) };
    }
    let start = _mm512_sub_epi32(_mm512_setzero_si512(), start);
    let score = |starts: [*const i8; GROUP]| {
        let mut sums = [start; GROUP];
        for at in (0..dim).step_by(64) {
            // SAFETY: rows and query have `dim` elements.
            let q = unsafe { load_i8(query.as_ptr(), at, dim) };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                let codes = unsafe { load_i8(row, at, dim) };
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_xor_si512(codes, flip), q);
            }
        }
        _mm512_cvtepi32_ps(sixteen_i32(sums))
    };
    // SAFETY: the caller checked the ids.
    unsafe { in_groups(rows.as_ptr(), dim, ids, out, score) }
}

/// The query of the two blocks from dimension `at` on, as the nibbles of their 64 bytes meet it: the dimensions of all
/// low nibbles, then of all high ones. A missing second block is zero.
///
/// # Safety
/// `at < query.len()`, which is a multiple of [`INT4_BLOCK`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn nibble_query(query: &[i8], at: usize) -> (__m512i, __m512i) {
    // SAFETY: the first block is whole; the second is read only when there is one.
    unsafe {
        let first = _mm512_loadu_si512(query.as_ptr().add(at).cast());
        let second = match query.len() - at {
            INT4_BLOCK => _mm512_setzero_si512(),
            _ => _mm512_loadu_si512(query.as_ptr().add(at + INT4_BLOCK).cast()),
        };
        (_mm512_shuffle_i64x2::<0x44>(first, second), _mm512_shuffle_i64x2::<0xEE>(first, second))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn rows_i4(query: &[i8], rows: &[u8], ids: &[u32], out: &mut [f32]) {
    let (dim, bytes) = (query.len(), query.len() / 2);
    let (eight, nibble) = (_mm512_set1_epi8(8), _mm512_set1_epi8(15));
    let mut start = _mm512_setzero_si512();
    for at in (0..dim).step_by(INT4_BLOCK) {
        // SAFETY: the query's length is a multiple of the block.
        start = unsafe { _mm512_dpbusd_epi32(start, eight, _mm512_loadu_si512(query.as_ptr().add(at).cast())) };
    }
    let start = _mm512_sub_epi32(_mm512_setzero_si512(), start);
    let score = |starts: [*const u8; GROUP]| {
        let mut sums = [start; GROUP];
        for at in (0..bytes).step_by(64) {
            // SAFETY: `2 * at` is the first dimension of a block; rows have `bytes` bytes.
            let (low, high) = unsafe { nibble_query(query, 2 * at) };
            for (sum, &row) in sums.iter_mut().zip(&starts) {
                // SAFETY: as above.
                let packed = unsafe { load_i8(row.cast(), at, bytes) };
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_and_si512(packed, nibble), low);
                let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), nibble);
                *sum = _mm512_dpbusd_epi32(*sum, upper, high);
            }
        }
        _mm512_cvtepi32_ps(sixteen_i32(sums))
    };
    // SAFETY: the caller checked the ids.
    unsafe { in_groups(rows.as_ptr(), bytes, ids, out, score) }
}

#[target_feature(enable = "avx512f")]
unsafe fn max_id(ids: &[u32]) -> u32 {
    scalar::max_id(ids)
}

#[target_feature(enable = "avx512f")]
unsafe fn argmax(values: &[f32]) -> usize {
    let step = _mm512_set1_epi32(16);
    let mut index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let (mut best, mut best_index) = (_mm512_set1_ps(f32::NEG_INFINITY), index);
    for at in (0..values.len()).step_by(16) {
        let inside = mask16(values.len() - at);
        // SAFETY: the mask keeps lanes past the end unread.
        let value = unsafe { _mm512_maskz_loadu_ps(inside, values.as_ptr().add(at)) };
        let larger = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(inside, value, best);
        best = _mm512_mask_mov_ps(best, larger, value);
        best_index = _mm512_mask_mov_epi32(best_index, larger, index);
        index = _mm512_add_epi32(index, step);
    }
    let top = _mm512_set1_ps(_mm512_reduce_max_ps(best));
    let winners = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(best, top);
    // When all are minus infinity the first lane still names position 0.
    _mm512_mask_reduce_min_epu32(winners, best_index) as usize
}

#[target_feature(enable = "avx512f")]
unsafe fn best_of_columns(values: &[f32], width: usize, out: &mut [u32; COLUMNS]) -> usize {
    let none = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let (mut best, mut places) = (none, index);
    for at in (0..values.len()).step_by(16) {
        let inside = mask16(values.len() - at);
        // SAFETY: the mask keeps lanes past the end unread.
        let value = unsafe { _mm512_mask_loadu_ps(none, inside, values.as_ptr().add(at)) };
        let larger = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(value, best);
        best = _mm512_max_ps(best, value);
        places = _mm512_mask_mov_epi32(places, larger, index);
        index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
    }
    // How many columns each is below: compared with all others, by turning them round.
    let (mut rank, bits) = (_mm512_setzero_si512(), _mm512_castps_si512(best));
    macro_rules! against {
        ($($by:literal)*) => { $(
            let other = _mm512_castsi512_ps(_mm512_alignr_epi32::<$by>(bits, bits));
            let below = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(other, best);
            rank = _mm512_mask_add_epi32(rank, below, rank, _mm512_set1_epi32(1));
        )* };
    }
    against!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(best, none);
    let chosen = _mm512_mask_cmplt_epu32_mask(above, rank, _mm512_set1_epi32(width as i32));
    // SAFETY: `out` is as long as the register.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(chosen, places)) };
    (chosen.count_ones() as usize).min(width)
}

#[target_feature(enable = "avx512f")]
unsafe fn append_above(floor: f32, ids: &[u32], scores: &[f32], out_ids: &mut [u32], out_scores: &mut [f32]) -> usize {
    let bound = _mm512_set1_ps(floor);
    let mut kept = 0;
    for at in (0..ids.len()).step_by(16) {
        let inside = mask16(ids.len() - at);
        // SAFETY: masked reads stay inside. `kept <= at`, so a masked write of the lanes kept stays inside as well:
        // the outputs are at least as long as the inputs.
        unsafe {
            let score = _mm512_maskz_loadu_ps(inside, scores.as_ptr().add(at));
            let id = _mm512_maskz_loadu_epi32(inside, ids.as_ptr().add(at).cast());
            let above = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(inside, score, bound);
            let count = above.count_ones() as usize;
            let lanes = mask16(count);
            _mm512_mask_storeu_ps(out_scores.as_mut_ptr().add(kept), lanes, _mm512_maskz_compress_ps(above, score));
            let id = _mm512_maskz_compress_epi32(above, id);
            _mm512_mask_storeu_epi32(out_ids.as_mut_ptr().add(kept).cast(), lanes, id);
            kept += count;
        }
    }
    kept
}

#[target_feature(enable = "avx512f,popcnt")]
unsafe fn count_above(floor: f32, values: &[f32]) -> usize {
    let bound = _mm512_set1_ps(floor);
    let above = |at: usize| {
        let inside = mask16(values.len() - at);
        // SAFETY: masked reads stay inside.
        let value = unsafe { _mm512_maskz_loadu_ps(inside, values.as_ptr().add(at)) };
        _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(inside, value, bound).count_ones() as usize
    };
    (0..values.len()).step_by(16).map(above).sum()
}
