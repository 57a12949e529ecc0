//! Scanning every row: the truth that graphs are measured by, and the faster way when few rows pass a filter.
//!
//! One query is bound by memory: rows are scored as they lie, and their scores are compared with a floor that few are
//! above. For many queries ([`best_many`]) rows are fetched and transposed once for all of a group.

use std::ops::Range;

use rayon::prelude::*;

use super::Filter;
use super::scratch::{Pool, Scratch, rank};
use super::walk::{room, thin};
use crate::codec::{Many, Matrix, Query};
use crate::kernel::{self, Kernels, PANEL};

/// Rows scored by one kernel call.
const CHUNK: usize = 256;

/// Queries scored together: their codes and scores fit the first level cache beside a panel of rows, and transposing the
/// panel is a twelfth of the work.
const GROUP: usize = 64;

/// With fewer queries than this the rows are not worth transposing.
const FEW: usize = 3;

/// How far a pool may grow beyond what it must keep before it is thinned.
const SLACK: usize = 128;

/// Finds exactly the best `k` rows that pass, by the matrix's codec, into `found`, best first.
pub fn best(
    matrix: &Matrix,
    query: &Query,
    k: usize,
    filter: Filter,
    scratch: &mut Scratch,
    found: &mut Vec<(u32, f32)>,
) {
    scratch.query.clone_from(query);
    scan(matrix, kernel::best(), k, filter, scratch);
    scratch.hits.sort_into(found);
    found.truncate(k);
}

/// Finds exactly the best `k` rows that pass for each query, by the matrix's codec, best first: what [`best`] finds, on
/// all cores and for less.
pub fn best_many(
    matrix: &Matrix,
    kernels: &'static Kernels,
    queries: &[Query],
    k: usize,
    filter: Filter,
) -> Vec<Vec<(u32, f32)>> {
    if k == 0 || matrix.rows() == 0 {
        return vec![Vec::new(); queries.len()];
    }
    // So many tasks that no core idles for long at the end, and no more: each finds its own way to its floors.
    let (words, groups) = (matrix.rows().div_ceil(PANEL), queries.len().div_ceil(GROUP));
    let parts = (4 * rayon::current_num_threads()).div_ceil(groups.max(1)).clamp(1, words.div_ceil(64));
    let part = |at: usize| words * at / parts..words * (at + 1) / parts;
    let task = |at: usize| {
        let group = &queries[at / parts * GROUP..];
        pools(matrix, kernels, &group[..group.len().min(GROUP)], k, filter, part(at % parts))
    };
    let pools: Vec<Vec<Pool>> = (0..groups * parts).into_par_iter().map(task).collect();
    let merge = |query: usize| {
        let pools = pools[query / GROUP * parts..][..parts].iter().map(|pools| &pools[query % GROUP]);
        let mut found: Vec<(u32, f32)> = pools.flat_map(Pool::iter).collect();
        if found.len() > k {
            found.select_nth_unstable_by_key(k - 1, rank);
            found.truncate(k);
        }
        found.sort_unstable_by_key(rank);
        found
    };
    (0..queries.len()).into_par_iter().map(merge).collect()
}

/// For each query about the best `keep` of the rows in some words of a bitmap that pass.
fn pools(
    matrix: &Matrix,
    kernels: &Kernels,
    queries: &[Query],
    keep: usize,
    filter: Filter,
    words: Range<usize>,
) -> Vec<Pool> {
    if queries.len() <= FEW {
        let mut scratch = Scratch::default();
        let one = |query: &Query| {
            scratch.query.clone_from(query);
            scan_words(matrix, kernels, keep, filter, words.clone(), &mut scratch);
            std::mem::take(&mut scratch.hits)
        };
        return queries.iter().map(one).collect();
    }
    let (mut ids, mut spare) = (Vec::new(), Pool::default());
    let mut pools: Vec<Pool> = queries.iter().map(|_| Pool::default()).collect();
    let mut floors = vec![f32::NEG_INFINITY; queries.len()];
    let (mut many, mut rows) = (Many::new(*matrix, queries), Passing::new(matrix.rows(), filter, words));
    while rows.next_into(PANEL, &mut ids) {
        many.score(kernels, &ids, &mut floors, |query, scores, mut above, floor| {
            let pool = &mut pools[query];
            while above != 0 {
                let at = above.trailing_zeros() as usize;
                pool.push(ids[at], scores[at]);
                above &= above - 1;
            }
            if pool.len() > keep.saturating_add(SLACK) {
                *floor = thin(kernels, keep, pool, &mut spare);
            }
        });
    }
    pools
}

/// Scores every row that passes against `scratch.query` and leaves about the best `keep` in `scratch.hits`.
pub(super) fn scan(matrix: &Matrix, kernels: &Kernels, keep: usize, filter: Filter, scratch: &mut Scratch) {
    scan_words(matrix, kernels, keep, filter, 0..matrix.rows().div_ceil(64), scratch);
}

/// The same for the rows of some words of a bitmap.
fn scan_words(
    matrix: &Matrix,
    kernels: &Kernels,
    keep: usize,
    filter: Filter,
    words: Range<usize>,
    scratch: &mut Scratch,
) {
    let Scratch { hits, spare, ids, coming, scores, query, .. } = scratch;
    hits.clear();
    room(scores, CHUNK);
    let mut floor = f32::NEG_INFINITY;
    let mut rows = Passing::new(matrix.rows(), filter, words);
    (scratch.hops, scratch.distances) = (0, 0);
    rows.next_into(CHUNK, coming);
    while !coming.is_empty() {
        std::mem::swap(ids, coming);
        rows.next_into(CHUNK, coming);
        // Where few rows pass the processor cannot guess which come next, and where all do it guesses too late.
        matrix.prefetch(coming);
        matrix.score(kernels, query, ids, scores);
        scratch.distances += ids.len();
        hits.append_above(kernels, floor, ids, &scores[..ids.len()]);
        if hits.len() > keep.saturating_add(CHUNK) {
            floor = thin(kernels, keep, hits, spare);
        }
    }
}

/// The rows that pass, ascending, some at a time: whole words are tested, never a row.
struct Passing<'a> {
    rows: usize,
    bits: Option<&'a [u64]>,
    exclude: &'a [u32],
    words: Range<usize>,
    /// What is left of a word, and its first row.
    word: (u64, u32),
}

impl<'a> Passing<'a> {
    fn new(rows: usize, filter: Filter<'a>, words: Range<usize>) -> Self {
        let before = filter.exclude.partition_point(|&row| (row as usize) < words.start * 64);
        let exclude = &filter.exclude[before..];
        Self { rows, bits: filter.bits.map(|(bits, _)| bits), exclude, words, word: (0, 0) }
    }

    /// Puts the next `len` rows into `ids`, or those that are left; whether there are any.
    fn next_into(&mut self, len: usize, ids: &mut Vec<u32>) -> bool {
        ids.clear();
        while ids.len() < len {
            if self.word.0 == 0 && !self.next_word() {
                break;
            }
            let (word, first) = &mut self.word;
            if *word == u64::MAX && len - ids.len() >= 64 {
                ids.extend(*first..*first + 64);
                *word = 0;
                continue;
            }
            for _ in 0..(word.count_ones() as usize).min(len - ids.len()) {
                ids.push(*first + word.trailing_zeros());
                *word &= *word - 1;
            }
        }
        !ids.is_empty()
    }

    /// Turns to the next word; whether there is one.
    fn next_word(&mut self) -> bool {
        if let Some(bits) = self.bits {
            let some = bits[self.words.clone()].iter().position(|&word| word != 0);
            self.words.start += some.unwrap_or(self.words.len());
        }
        let Some(at) = self.words.next() else { return false };
        let first = (at * 64) as u32;
        let within = self.rows - at * 64;
        let mut word = self.bits.map_or(u64::MAX, |bits| bits[at]);
        if within < 64 {
            word &= (1 << within) - 1;
        }
        while let [row, rest @ ..] = self.exclude
            && (*row as usize) < (at + 1) * 64
        {
            if *row >= first {
                word &= !(1 << (row - first));
            }
            self.exclude = rest;
        }
        self.word = (word, first);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Layout};
    use proptest::prelude::*;

    /// Numbers of few values, so that scores are often equal.
    fn numbers(mut state: u64) -> impl FnMut() -> f32 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 61) as f32 - 3.5) / 4.0
        }
    }

    struct Rows {
        layout: Layout,
        codes: Vec<u64>,
        scales: Vec<f32>,
        biases: Vec<f32>,
        queries: Vec<Query>,
    }

    impl Rows {
        fn new(codec: Codec, n: usize, dim: usize, queries: usize, shared: bool, biased: bool, seed: u64) -> Self {
            let (layout, mut next) = (Layout { codec, dim }, numbers(seed));
            let mut vector = || (0..dim).map(|_| next()).collect::<Vec<f32>>();
            let mut codes = vec![0_u64; (n * layout.row_bytes()).div_ceil(8)];
            let rows = bytemuck::cast_slice_mut::<u64, u8>(&mut codes).chunks_exact_mut(layout.row_bytes()).take(n);
            let mut scales: Vec<f32> = rows.map(|row| layout.encode(&vector(), row).unwrap()).collect();
            match (layout.has_scales(), shared) {
                (false, _) => scales.clear(),
                (true, true) => scales = vec![0.01],
                (true, false) => {}
            }
            let biases = if biased { (0..n).map(|row| (row % 5) as f32 / -4.0).collect() } else { Vec::new() };
            let mut query = || {
                let mut query = Query::default();
                query.prepare(layout, &vector()).unwrap();
                query
            };
            let queries = (0..queries).map(|_| query()).collect();
            Self { layout, codes, scales, biases, queries }
        }

        fn matrix(&self, n: usize) -> Matrix<'_> {
            let bytes = &bytemuck::cast_slice(&self.codes)[..n * self.layout.row_bytes()];
            Matrix::new(self.layout, bytes, &self.scales, &self.biases).unwrap()
        }
    }

    /// Every row that passes, one by one, sorted.
    fn slowly(matrix: &Matrix, query: &Query, k: usize, passes: impl Fn(u32) -> bool) -> Vec<(u32, f32)> {
        let score = |row: u32| {
            let mut score = [0.0];
            matrix.score(kernel::best(), query, &[row], &mut score);
            (row, score[0])
        };
        let mut all: Vec<_> = (0..matrix.rows() as u32).filter(|&row| passes(row)).map(score).collect();
        all.sort_unstable_by_key(rank);
        all.truncate(k);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn scans_find_what_scoring_and_sorting_every_row_finds(
            (n, dim, queries, k) in (0_usize..1500, 1_usize..80, 0_usize..140, 0_usize..40),
            (codec, shared, biased) in (0_usize..4, any::<bool>(), any::<bool>()),
            (share, excluded, seed) in (0_u64..5, 0_u64..4, any::<u64>()),
        ) {
            let rows = Rows::new(Codec::ALL[codec], n, dim, queries, shared, biased, seed);
            let matrix = rows.matrix(n);
            // Of 1024: none, few, half and all; unused bits beyond the last row are set.
            let limit = [0, 20, 512, 1000, 1024][share as usize];
            let picked = |row: usize| (row as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54 < limit;
            let mut bits = vec![0_u64; n.div_ceil(64)];
            (0..n.next_multiple_of(64)).filter(|&row| row >= n || picked(row)).for_each(|row| bits[row / 64] |= 1 << (row % 64));
            let passing = (0..n).filter(|&row| picked(row)).count();
            let exclude: Vec<u32> = (0..n as u32).filter(|row| excluded > 0 && row / 3 % (3 * excluded as u32) == 0).collect();
            let filter = Filter { bits: (limit < 1024).then_some((&bits, passing)), exclude: &exclude };
            let passes = |row: u32| (limit == 1024 || picked(row as usize)) && !exclude.contains(&row);
            let want: Vec<_> = rows.queries.iter().map(|query| slowly(&matrix, query, k, passes)).collect();
            let (mut scratch, mut found) = (Scratch::default(), Vec::new());
            if let Some(query) = rows.queries.first() {
                best(&matrix, query, k, filter, &mut scratch, &mut found);
                prop_assert_eq!(&found, &want[0]);
            }
            let few = rows.queries.len().min(FEW);
            prop_assert_eq!(best_many(&matrix, kernel::best(), &rows.queries[..few], k, filter), &want[..few]);
            prop_assert_eq!(best_many(&matrix, kernel::best(), &rows.queries, k, filter), want);
        }
    }

    #[test]
    fn answers_do_not_depend_on_the_number_of_threads_or_the_level() {
        let rows = Rows::new(Codec::Int8, 20_000, 24, 70, false, false, 3);
        let run = |threads, kernels| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| best_many(&rows.matrix(20_000), kernels, &rows.queries, 12, Filter::default()))
        };
        let one = run(1, kernel::best());
        for (threads, kernels) in kernel::available().into_iter().flat_map(|level| [(2, level), (7, level)]) {
            assert_eq!(run(threads, kernels), one);
        }
    }
}
