//! Sums across lanes: one register to a number, or as many registers as it has lanes to one register of their sums.
//!
//! The second form is why `rows_*` takes sixteen rows at a time: summing each row on its own costs more than its
//! products do, while a transposed tree costs three operations a row.

#[allow(clippy::wildcard_imports, reason = "intrinsics are named by nobody else")]
use std::arch::x86_64::*;

/// Sixteen accumulators to one register: lane `i` is the sum of the lanes of `v[i]`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sixteen_i32(v: [__m512i; 16]) -> __m512i {
    let pair = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let quad = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
    let lanes = |a, b| _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xDD>(a, b));
    let four = |at: usize| quad(pair(v[at], v[at + 1]), pair(v[at + 2], v[at + 3]));
    lanes(lanes(four(0), four(4)), lanes(four(8), four(12)))
}

/// As [`sixteen_i32`], for floats.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sixteen_f32(v: [__m512; 16]) -> __m512 {
    let pair = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let quad = |a, b| {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
        _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
    };
    let lanes = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b));
    let four = |at: usize| quad(pair(v[at], v[at + 1]), pair(v[at + 2], v[at + 3]));
    lanes(lanes(four(0), four(4)), lanes(four(8), four(12)))
}

/// Eight accumulators to one register: lane `i` is the sum of the lanes of `v[i]`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn each_of_eight_i32(v: [__m256i; 8]) -> __m256i {
    let four =
        |at: usize| _mm256_hadd_epi32(_mm256_hadd_epi32(v[at], v[at + 1]), _mm256_hadd_epi32(v[at + 2], v[at + 3]));
    let (low, high) = (four(0), four(4));
    _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high))
}

/// As [`each_of_eight_i32`], for floats.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn each_of_eight_f32(v: [__m256; 8]) -> __m256 {
    let four = |at: usize| _mm256_hadd_ps(_mm256_hadd_ps(v[at], v[at + 1]), _mm256_hadd_ps(v[at + 2], v[at + 3]));
    let (low, high) = (four(0), four(4));
    _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
}

/// Sum of eight `f32`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight_f32(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
}

/// Sum of eight `i32`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn eight_i32(v: __m256i) -> i32 {
    let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b1110>(v));
    _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<1>(v)))
}
