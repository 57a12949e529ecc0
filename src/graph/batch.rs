//! Searching for many queries at once, as offline jobs do: on all cores, and by scanning where that is cheaper.

use rayon::prelude::*;

use super::search::Searcher;
use super::{Filter, Scratch, SearchOptions, exact};
use crate::codec::Query;

/// Queries from which scanning for all of them together is worth its transposing.
const MANY: usize = 16;

/// Rows of an integer codec scanned for many queries in the time of one scored by a walk. Measured: 0.3 to 0.4 ns for
/// a row and a query with AVX-512, 10 to 15 ns for a distance of a walk; half of that, for processors that gain less.
const SCANNED_PER_DISTANCE: f32 = 16.0;

/// Queries that one task searches for, so that its scratch is warm.
const TASK: usize = 64;

impl Searcher<'_> {
    /// Finds about the best `k` nodes for each query, as [`Searcher::search`] does, or exactly where that is cheaper.
    ///
    /// `finer` holds a query for each, prepared for the finer rows, when these are of a float codec. The answers depend
    /// on neither the threads nor the order of the queries.
    ///
    /// Panics when `finer` is neither empty nor as long as `queries`.
    pub fn search_many(
        &self,
        queries: &[Query],
        finer: &[Query],
        options: SearchOptions,
        filter: Filter,
    ) -> Vec<Vec<(u32, f32)>> {
        assert!(finer.is_empty() || finer.len() == queries.len());
        if self.scans_many(queries.len(), options, filter) {
            return self.exact_many(queries, finer, options, filter);
        }
        let search = |scratch: &mut Scratch, (at, query): (usize, &Query)| {
            let mut found = Vec::new();
            self.search(query, finer.get(at).unwrap_or(query), options, filter, scratch, &mut found);
            found
        };
        // In the order given: having like queries together was measured, and spares less than finding out which are.
        let queries = queries.par_iter().enumerate().with_min_len(TASK);
        queries.map_init(Scratch::default, search).collect()
    }

    /// Finds the best `k` nodes that pass for each query by scoring every row: exactly by the codec, and scored again by
    /// the finer one as [`Searcher::search`] does.
    ///
    /// Panics as [`Searcher::search_many`] does.
    pub fn exact_many(
        &self,
        queries: &[Query],
        finer: &[Query],
        options: SearchOptions,
        filter: Filter,
    ) -> Vec<Vec<(u32, f32)>> {
        assert!(finer.is_empty() || finer.len() == queries.len());
        if options.k == 0 {
            return vec![Vec::new(); queries.len()];
        }
        let pool = self.pool(options) + filter.exclude.len();
        let mut answers = exact::best_many(self.matrix(), self.kernels(), queries, pool, filter);
        answers.par_iter_mut().zip(queries).enumerate().for_each_init(
            Scratch::default,
            |scratch, (at, (found, query))| {
                scratch.query.clone_from(query);
                self.refine(finer.get(at).unwrap_or(query), options.k, scratch, found);
            },
        );
        answers
    }

    /// Whether scanning for all queries together is cheaper than walking for each.
    fn scans_many(&self, queries: usize, options: SearchOptions, filter: Filter) -> bool {
        let (rows, whole) = (self.matrix().rows(), self.matrix().layout().has_scales());
        let passing = filter.bits.map_or(rows, |(_, passing)| passing);
        let hops = self.expansions(options.ef.max(options.k)) as f32 * rows as f32 / passing.max(1) as f32;
        let distances = hops * self.new_per_hop();
        whole && queries >= MANY && (passing as f32) < SCANNED_PER_DISTANCE * distances
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Codec, Layout, Matrix, Metric};
    use crate::graph::{BuildOptions, build, order::order};

    #[test]
    fn many_queries_are_answered_as_each_and_no_worse_where_all_rows_are_scored() {
        const ROWS: usize = 6000;
        const DIM: usize = 24;
        let mut state = 7_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut vector = || (0..DIM).map(|_| number()).collect::<Vec<f32>>();
        let layout = Layout { codec: Codec::Int8, dim: DIM };
        let mut codes = vec![0_u64; ROWS * layout.row_bytes() / 8];
        let rows = bytemuck::cast_slice_mut::<u64, u8>(&mut codes).chunks_exact_mut(layout.row_bytes());
        let scales: Vec<f32> = rows.map(|row| layout.encode(&vector(), row).unwrap()).collect();
        let matrix = Matrix::new(layout, bytemuck::cast_slice(&codes), &scales, &[]).unwrap();
        let options = BuildOptions::new(Metric::Dot);
        let (_, lens) = order(ROWS, options.m, options.seed);
        let built = build(matrix, &options, &lens, &[], &|_| ());
        let searcher = Searcher::new(built.graph(), matrix, None);
        let prepare = |vector: Vec<f32>| {
            let mut query = Query::default();
            query.prepare(layout, &vector).unwrap();
            query
        };
        let queries: Vec<Query> = (0..200).map(|_| prepare(vector())).collect();
        let exclude: Vec<u32> = (0..ROWS as u32).step_by(17).collect();
        let filter = Filter { bits: None, exclude: &exclude };
        let options = SearchOptions { k: 10, ef: 32 };
        let (mut scratch, mut found) = (Scratch::default(), Vec::new());
        // So few that they are walked for.
        let few = searcher.search_many(&queries[..MANY - 1], &[], options, filter);
        for (query, answer) in queries.iter().zip(&few) {
            searcher.search(query, query, options, filter, &mut scratch, &mut found);
            assert_eq!(*answer, found);
        }
        assert!(searcher.scans_many(queries.len(), options, filter));
        let many = searcher.search_many(&queries, &[], options, filter);
        for (query, answer) in queries.iter().zip(&many) {
            exact::best(&matrix, query, options.k, filter, &mut scratch, &mut found);
            assert_eq!(*answer, found);
        }
        assert_eq!(many, searcher.exact_many(&queries, &[], options, filter));
        assert!(searcher.search_many(&[], &[], options, filter).is_empty());
        let none = searcher.exact_many(&queries, &[], SearchOptions { k: 0, ef: 1 }, filter);
        assert!(none.len() == queries.len() && none.iter().all(Vec::is_empty));
    }
}
