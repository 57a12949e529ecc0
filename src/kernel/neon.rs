//! NEON, the vector unit that every AArch64 has.
//!
//! Half precision is widened by hand (shift the exponent into place, scale by `2^112`), which is right for every
//! finite half and needs no extension.

#[allow(clippy::wildcard_imports, reason = "intrinsics are named by nobody else")]
use std::arch::aarch64::*;

use half::f16;

use super::many::{one_by_one, rescale};
use super::{INT4_BLOCK, Kernels, Level, scalar};

pub(super) static KERNELS: Kernels = Kernels {
    level: Level::Neon,
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
    max_id: scalar::max_id, // NEON is on by default: the compiler uses it
    argmax: scalar::argmax,
    best_of_columns: scalar::best_of_columns,
    append_above: scalar::append_above,
    count_above: scalar::count_above,
};

#[target_feature(enable = "neon")]
unsafe fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let whole = a.len() / 4 * 4;
    // SAFETY: four elements from every `at` on are inside both slices.
    let sum = unsafe {
        let mut sum = vdupq_n_f32(0.0);
        for at in (0..whole).step_by(4) {
            sum = vfmaq_f32(sum, vld1q_f32(a.as_ptr().add(at)), vld1q_f32(b.as_ptr().add(at)));
        }
        vaddvq_f32(sum)
    };
    sum + scalar::dot_f32(&a[whole..], &b[whole..])
}

/// Four halves as `f32`.
///
/// # Safety
/// Four elements are readable.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn widen(halves: *const f16) -> float32x4_t {
    // SAFETY: by contract.
    unsafe {
        let bits = vmovl_u16(vld1_u16(halves.cast()));
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7FFF)));
        let scaled = vmulq_f32(vreinterpretq_f32_u32(magnitude), vdupq_n_f32(f32::from_bits(0x7780_0000)));
        vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(scaled), sign))
    }
}

#[target_feature(enable = "neon")]
unsafe fn dot_f16(row: &[f16], query: &[f32]) -> f32 {
    let whole = row.len() / 4 * 4;
    // SAFETY: four elements from every `at` on are inside both slices.
    let sum = unsafe {
        let mut sum = vdupq_n_f32(0.0);
        for at in (0..whole).step_by(4) {
            sum = vfmaq_f32(sum, widen(row.as_ptr().add(at)), vld1q_f32(query.as_ptr().add(at)));
        }
        vaddvq_f32(sum)
    };
    sum + scalar::dot_f16(&row[whole..], &query[whole..])
}

#[target_feature(enable = "neon")]
unsafe fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
    let whole = a.len() / 16 * 16;
    // SAFETY: sixteen elements from every `at` on are inside both slices.
    let sum = unsafe {
        let mut sum = vdupq_n_s32(0);
        for at in (0..whole).step_by(16) {
            let (x, y) = (vld1q_s8(a.as_ptr().add(at)), vld1q_s8(b.as_ptr().add(at)));
            sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(x), vget_low_s8(y)));
            sum = vpadalq_s16(sum, vmull_s8(vget_high_s8(x), vget_high_s8(y)));
        }
        vaddvq_s32(sum)
    };
    sum + scalar::dot_i8(&a[whole..], &b[whole..])
}

#[target_feature(enable = "neon")]
unsafe fn dot_i4(row: &[u8], query: &[i8]) -> i32 {
    let whole = query.len() / INT4_BLOCK * INT4_BLOCK;
    // SAFETY: whole blocks of 64 dimensions and their 32 bytes.
    let sum = unsafe {
        let (nibble, eight) = (vdupq_n_u8(15), vdupq_n_s8(8));
        let mut sum = vdupq_n_s32(0);
        for at in (0..whole / 2).step_by(16) {
            let packed = vld1q_u8(row.as_ptr().add(at));
            let low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(packed, nibble)), eight);
            let high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8::<4>(packed)), eight);
            let first = query.as_ptr().add(at / 32 * INT4_BLOCK + at % 32);
            for (codes, dims) in [(low, vld1q_s8(first)), (high, vld1q_s8(first.add(32)))] {
                sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(codes), vget_low_s8(dims)));
                sum = vpadalq_s16(sum, vmull_s8(vget_high_s8(codes), vget_high_s8(dims)));
            }
        }
        vaddvq_s32(sum)
    };
    sum + scalar::dot_i4(&row[whole / 2..], &query[whole..])
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

unsafe fn rows_f32(query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    // SAFETY: the caller checked the ids; row and query are equally long; every AArch64 has NEON.
    unsafe { each_row(rows, query.len(), ids, out, |row| dot_f32(row, query)) }
}

unsafe fn rows_f16(query: &[f32], rows: &[f16], ids: &[u32], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { each_row(rows, query.len(), ids, out, |row| dot_f16(row, query)) }
}

unsafe fn rows_i8(query: &[i8], rows: &[i8], ids: &[u32], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { each_row(rows, query.len(), ids, out, |row| dot_i8(row, query) as f32) }
}

unsafe fn rows_i4(query: &[i8], rows: &[u8], ids: &[u32], out: &mut [f32]) {
    // SAFETY: as above.
    unsafe { each_row(rows, query.len() / 2, ids, out, |row| dot_i4(row, query) as f32) }
}
