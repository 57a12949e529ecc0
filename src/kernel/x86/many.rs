//! Many queries against the same rows, with AVX-512 and VNNI.
//!
//! Rows are transposed once into a panel, where a register holds the same four dimensions of sixteen rows. A product
//! with four dimensions of a query, repeated in all lanes, then adds to sixteen scores at once, and nothing is ever
//! summed across lanes. Four queries meet four registers of rows, so that each load serves four products.
//!
//! As in [`super::avx512`] the rows are made unsigned, by adding 128 to `int8` codes and 8 to `int4` ones, and each
//! query's accumulators start at what that adds. Rows that a panel lacks repeat its last one: they cost nothing and
//! cannot be taken for scores, since they are not stored.

#[allow(clippy::wildcard_imports, reason = "intrinsics are named by nobody else")]
use std::arch::x86_64::*;

use super::super::INT4_BLOCK;
use super::super::many::{PANEL, Panel, Quad, Queries};

/// Lanes of a register, and rows transposed together.
const LANES: usize = 16;

/// Registers of rows in a panel.
const GROUPS: usize = PANEL / LANES;

/// Queries that a load of rows serves.
const TILE: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn many_i8(queries: &Queries, rows: &[i8], ids: &[u32], panel: &mut Panel, out: &mut [f32]) {
    let (dim, flip) = (queries.dim(), _mm512_set1_epi8(i8::MIN));
    let load = |id: u32, at: usize| {
        let inside = if dim - at >= 64 { !0 } else { (1 << (dim - at)) - 1 };
        // SAFETY: the id is of a row of `dim` bytes, and the mask keeps bytes from there on unread.
        let codes = unsafe { _mm512_maskz_loadu_epi8(inside, rows.as_ptr().add(id as usize * dim + at)) };
        _mm512_xor_si512(codes, flip)
    };
    // SAFETY: the caller checked ids and room.
    unsafe {
        pack(dim, ids, panel, load);
        products(queries, 128, ids.len(), panel, out);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn many_i4(queries: &Queries, rows: &[u8], ids: &[u32], panel: &mut Panel, out: &mut [f32]) {
    let (bytes, nibble) = (queries.dim() / 2, _mm512_set1_epi8(15));
    let load = |id: u32, at: usize| {
        // SAFETY: `at` is where one of the whole blocks of the row begins, and that takes 32 bytes.
        let packed = unsafe { _mm256_loadu_si256(rows.as_ptr().add(id as usize * bytes + at / 2).cast()) };
        let codes = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(packed), _mm256_srli_epi16::<4>(packed));
        _mm512_and_si512(codes, nibble)
    };
    debug_assert!(queries.dim().is_multiple_of(INT4_BLOCK));
    // SAFETY: the caller checked ids and room.
    unsafe {
        pack(queries.dim(), ids, panel, load);
        products(queries, 8, ids.len(), panel, out);
    }
}

/// Fills a panel with rows: `load` gives 64 unsigned codes of one, from a dimension on.
///
/// # Safety
/// There is an id.
#[inline(always)]
unsafe fn pack(dim: usize, ids: &[u32], panel: &mut Panel, load: impl Fn(u32, usize) -> __m512i) {
    let last = ids.len() - 1;
    if panel.quads.len() < dim.div_ceil(4) {
        panel.quads.resize(dim.div_ceil(4), Quad([0; PANEL]));
    }
    for (at, quads) in panel.quads[..dim.div_ceil(4)].chunks_mut(LANES).enumerate() {
        for group in 0..GROUPS {
            let rows = std::array::from_fn(|row| load(ids[(group * LANES + row).min(last)], at * 64));
            // SAFETY: every caller's level includes AVX-512 F; the sixteen words are inside the quad.
            unsafe {
                for (quad, words) in quads.iter_mut().zip(transpose(rows)) {
                    _mm512_store_si512(quad.0.as_mut_ptr().add(group * LANES).cast(), words);
                }
            }
        }
    }
}

/// Sixteen rows of sixteen words to sixteen columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut pairs = rows;
    for at in (0..LANES).step_by(2) {
        pairs[at] = _mm512_unpacklo_epi32(rows[at], rows[at + 1]);
        pairs[at + 1] = _mm512_unpackhi_epi32(rows[at], rows[at + 1]);
    }
    let mut fours = pairs;
    for at in (0..LANES).step_by(4) {
        fours[at] = _mm512_unpacklo_epi64(pairs[at], pairs[at + 2]);
        fours[at + 1] = _mm512_unpackhi_epi64(pairs[at], pairs[at + 2]);
        fours[at + 2] = _mm512_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
        fours[at + 3] = _mm512_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
    }
    // Lane `l` of `fours[4 * g + c]` is column `4 * l + c` of four rows: what is left is to gather the lanes.
    let mut columns = fours;
    for c in 0..4 {
        let even = |at: usize| _mm512_shuffle_i32x4::<0x88>(fours[at + c], fours[at + 4 + c]);
        let odd = |at: usize| _mm512_shuffle_i32x4::<0xDD>(fours[at + c], fours[at + 4 + c]);
        columns[c] = _mm512_shuffle_i32x4::<0x88>(even(0), even(8));
        columns[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd(0), odd(8));
        columns[8 + c] = _mm512_shuffle_i32x4::<0xDD>(even(0), even(8));
        columns[12 + c] = _mm512_shuffle_i32x4::<0xDD>(odd(0), odd(8));
    }
    columns
}

/// Scores a panel that holds `added` more in each code than the rows, of which there are `rows`.
///
/// # Safety
/// The panel holds the queries' dimensions, and `out` has [`PANEL`] places for each query.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn products(queries: &Queries, added: i32, rows: usize, panel: &Panel, out: &mut [f32]) {
    let whole = queries.len() / TILE * TILE;
    // SAFETY: by contract, and there are as many queries as are named.
    unsafe {
        for at in (0..whole).step_by(TILE) {
            tile::<TILE>(queries, at, added, rows, panel, out);
        }
        for at in whole..queries.len() {
            tile::<1>(queries, at, added, rows, panel, out);
        }
    }
}

/// Scores a panel for `Q` queries from the one at `first` on.
///
/// # Safety
/// As [`products`], and there are `Q` queries from `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn tile<const Q: usize>(
    queries: &Queries,
    first: usize,
    added: i32,
    rows: usize,
    panel: &Panel,
    out: &mut [f32],
) {
    let codes: [&[i8]; Q] = std::array::from_fn(|at| queries.codes(first + at));
    let start = |at: usize| _mm512_set1_epi32(-added * queries.sums[first + at]);
    let mut sums: [[__m512i; GROUPS]; Q] = std::array::from_fn(|at| [start(at); GROUPS]);
    let (words, tail) = (queries.dim() / 4, queries.dim() % 4);
    let mut add = |quad: &Quad, word: &dyn Fn(usize) -> i32| {
        // SAFETY: a quad is four registers, aligned as they are.
        let rows: [__m512i; GROUPS] =
            std::array::from_fn(|group| unsafe { _mm512_load_si512(quad.0.as_ptr().add(group * LANES).cast()) });
        for (at, sums) in sums.iter_mut().enumerate() {
            let query = _mm512_set1_epi32(word(at));
            sums.iter_mut().zip(rows).for_each(|(sum, rows)| *sum = _mm512_dpbusd_epi32(*sum, rows, query));
        }
    };
    for (at, quad) in panel.quads[..words].iter().enumerate() {
        // SAFETY: four bytes of the query.
        add(quad, &|query| unsafe { codes[query].as_ptr().add(at * 4).cast::<i32>().read_unaligned() });
    }
    if tail > 0 {
        let word = |query: usize| {
            let mut bytes = [0; 4];
            codes[query][words * 4..].iter().zip(&mut bytes).for_each(|(&code, byte)| *byte = code as u8);
            i32::from_le_bytes(bytes)
        };
        add(&panel.quads[words], &word);
    }
    for (at, sums) in sums.into_iter().enumerate() {
        let out = &mut out[(first + at) * PANEL..][..rows];
        for (sum, out) in sums.into_iter().zip(out.chunks_mut(LANES)) {
            let inside = if out.len() == LANES { !0 } else { (1 << out.len()) - 1 };
            // SAFETY: only the lanes of `out` are written.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), inside, _mm512_cvtepi32_ps(sum)) };
        }
    }
}

#[target_feature(enable = "avx512f")]
pub(super) unsafe fn rescale(scale: f32, factors: &[f32], biases: &[f32], floor: f32, products: &mut [f32]) -> u64 {
    let (scale, bound, mut above) = (_mm512_set1_ps(scale), _mm512_set1_ps(floor), 0);
    let len = products.len();
    for at in (0..len).step_by(LANES) {
        let inside: __mmask16 = if len - at >= LANES { !0 } else { (1 << (len - at)) - 1 };
        // SAFETY: masked reads and writes stay inside the slices, which are equally long unless `biases` is empty.
        unsafe {
            let factor = _mm512_mul_ps(scale, _mm512_maskz_loadu_ps(inside, factors.as_ptr().add(at)));
            let place = products.as_mut_ptr().add(at);
            let mut score = _mm512_mul_ps(_mm512_maskz_loadu_ps(inside, place), factor);
            if !biases.is_empty() {
                score = _mm512_add_ps(score, _mm512_maskz_loadu_ps(inside, biases.as_ptr().add(at)));
            }
            _mm512_mask_storeu_ps(place, inside, score);
            above |= u64::from(_mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(inside, score, bound)) << at;
        }
    }
    above
}
