//! Graphs as a whole: what is built, and what is found.

mod users;

use super::check::{structure, unreachable};
use super::walk::SAMPLE;
use super::*;
use crate::codec::{Codec, Layout, Matrix, Metric, Query};
use crate::kernel;

/// Rows encoded in node order, and what the codes leave.
struct Rows {
    layout: Layout,
    codes: Vec<u64>,
    rests: Vec<u64>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

impl Rows {
    fn new(codec: Codec, metric: Metric, vectors: &[Vec<f32>], order: &[u32]) -> Self {
        let layout = Layout { codec, dim: vectors[0].len() };
        let mut codes = vec![0_u64; (order.len() * layout.row_bytes()).div_ceil(8)];
        let rows = bytemuck::cast_slice_mut::<u64, u8>(&mut codes).chunks_mut(layout.row_bytes());
        let scales: Vec<f32> =
            order.iter().zip(rows).map(|(&at, row)| layout.encode(&vectors[at as usize], row).unwrap()).collect();
        let finer = Layout { codec: Codec::Int8, ..layout };
        let mut rests = vec![0_u64; (order.len() * finer.row_bytes()).div_ceil(8)];
        if layout.has_scales() {
            let rows = bytemuck::cast_slice::<u64, u8>(&codes).chunks(layout.row_bytes());
            let outs = bytemuck::cast_slice_mut::<u64, u8>(&mut rests).chunks_mut(finer.row_bytes());
            for (((&at, row), out), &scale) in order.iter().zip(rows).zip(outs).zip(&scales) {
                layout.encode_residual(scale, &vectors[at as usize], row, out);
            }
        }
        let biases = match metric {
            Metric::L2 => order.iter().map(|&at| metric.bias(&vectors[at as usize])).collect(),
            Metric::Dot | Metric::Cosine => Vec::new(),
        };
        Self { layout, codes, rests, scales: if layout.has_scales() { scales } else { Vec::new() }, biases }
    }

    fn matrix(&self, n: usize) -> Matrix<'_> {
        let bytes = &bytemuck::cast_slice(&self.codes)[..n * self.layout.row_bytes()];
        Matrix::new(self.layout, bytes, &self.scales, &self.biases).unwrap()
    }

    fn residuals(&self, n: usize) -> Matrix<'_> {
        let layout = Layout { codec: Codec::Int8, ..self.layout };
        let bytes = &bytemuck::cast_slice(&self.rests)[..n * layout.row_bytes()];
        Matrix::new(layout, bytes, &self.scales, &self.biases).unwrap()
    }
}

/// Numbers between -1 and 1, the same every time.
fn numbers(mut state: u64) -> impl FnMut() -> f32 {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Vectors around `centres`, with norms that differ by up to `spread`.
fn clustered(n: usize, dim: usize, centres: usize, spread: f32, seed: u64) -> Vec<Vec<f32>> {
    let mut next = numbers(seed);
    let middles: Vec<Vec<f32>> = (0..centres).map(|_| (0..dim).map(|_| next()).collect()).collect();
    let vector = |at: usize| {
        let norm = spread.powf(f32::midpoint(next(), 1.0));
        middles[at % centres].iter().map(|x| norm * (x + 0.6 * next())).collect()
    };
    (0..n).map(vector).collect()
}

struct Fixture {
    order: Vec<u32>,
    rows: Rows,
    built: Built,
}

fn fixture(vectors: &[Vec<f32>], metric: Metric, options: &BuildOptions) -> Fixture {
    let (order, lens) = order::order(vectors.len(), options.m, options.seed);
    let rows = Rows::new(Codec::Int8, metric, vectors, &order);
    let built = build(rows.matrix(order.len()), options, &lens, &[], &|_| ());
    Fixture { order, rows, built }
}

/// Mean recall@10 of a search against scanning the same rows, and mean rows scored.
fn recall(fixture: &Fixture, queries: &[Vec<f32>], ef: usize, kernels: &'static kernel::Kernels) -> (f64, f64) {
    let n = fixture.order.len();
    let matrix = fixture.rows.matrix(n);
    let searcher = Searcher::new(fixture.built.graph(), matrix, None).with_kernels(kernels);
    let (mut scratch, mut found, mut truth) = (Scratch::default(), Vec::new(), Vec::new());
    let (mut hits, mut scored) = (0, 0);
    for vector in queries {
        let mut query = Query::default();
        query.prepare(matrix.layout(), vector).unwrap();
        exact::best(&matrix, &query, 10, Filter::default(), &mut scratch, &mut truth);
        let options = SearchOptions { k: 10, ef };
        scored += searcher.search(&query, &query, options, Filter::default(), &mut scratch, &mut found).distances;
        hits += truth.iter().filter(|hit| found.contains(hit)).count();
    }
    (hits as f64 / (10 * queries.len()) as f64, scored as f64 / queries.len() as f64)
}

#[test]
fn graphs_are_whole_and_find_the_best_under_every_metric() {
    for (metric, spread) in [(Metric::Dot, 20.0), (Metric::Dot, 1.0), (Metric::L2, 3.0), (Metric::Cosine, 1.0)] {
        let mut vectors = clustered(6000, 20, 60, spread, 3);
        vectors.iter_mut().for_each(|vector| metric.prepare(vector));
        let queries = clustered(200, 20, 60, 1.0, 3);
        let fixture = fixture(&vectors, metric, &BuildOptions::new(metric));
        let graph = fixture.built.graph();
        structure(&graph, vectors.len()).unwrap();
        assert_eq!(unreachable(&graph), 0);
        let (recall, scored) = recall(&fixture, &queries, 80, kernel::best());
        assert!(recall >= 0.97, "{metric} with norms up to {spread}: recall@10 {recall}");
        assert!(scored < 3000.0, "{metric}: {scored} of 6000 rows were scored");
    }
}

#[test]
fn the_graph_does_not_depend_on_the_number_of_threads() {
    let vectors = clustered(5000, 16, 50, 5.0, 9);
    let build_with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fixture(&vectors, Metric::Dot, &BuildOptions::new(Metric::Dot)).built)
    };
    let one = build_with(1);
    for threads in [2, 3, 8] {
        let other = build_with(threads);
        assert_eq!((&one.links, &one.starts, one.repaired), (&other.links, &other.starts, other.repaired));
    }
}

/// What a search answers to each query, and what it cost.
fn answers(fixture: &Fixture, level: &'static kernel::Kernels, rest: bool) -> Vec<(Vec<(u32, f32)>, SearchStats)> {
    let n = fixture.order.len();
    let finer = rest.then(|| fixture.rows.residuals(n));
    let searcher = Searcher::new(fixture.built.graph(), fixture.rows.matrix(n), finer).with_kernels(level);
    let bits: Vec<u64> = vec![0x5555_5555_5555_5555; n.div_ceil(64)];
    let exclude: Vec<u32> = (0..n as u32).step_by(9).collect();
    let filters = [
        Filter::default(),
        Filter { bits: Some((&bits, n / 2)), exclude: &[] },
        Filter { bits: None, exclude: &exclude },
    ];
    let (mut query, mut scratch, mut all) = (Query::default(), Scratch::default(), Vec::new());
    for (vector, filter) in clustered(40, 50, 30, 1.0, 6).iter().flat_map(|v| filters.map(|filter| (v, filter))) {
        query.prepare(fixture.rows.layout, vector).unwrap();
        let mut found = Vec::new();
        let options = SearchOptions { k: 10, ef: 40 };
        let stats = searcher.search(&query, &query, options, filter, &mut scratch, &mut found);
        all.push((found, stats));
    }
    all
}

#[test]
fn searches_are_the_same_at_every_level_of_the_processor() {
    for metric in [Metric::Dot, Metric::L2] {
        let vectors = clustered(3000, 50, 30, 2.0, 5);
        let fixture = fixture(&vectors, metric, &BuildOptions::new(metric));
        for rest in [false, true] {
            let best = answers(&fixture, kernel::best(), rest);
            assert!(best.iter().any(|(_, stats)| stats.hops > 0));
            for level in kernel::available() {
                assert!(answers(&fixture, level, rest) == best, "{:?}, residuals: {rest}", level.level());
            }
        }
    }
}

#[test]
fn items_of_small_norm_are_reachable_and_found_by_a_filter() {
    // A thousand items a hundred times shorter than the rest: no inner product query wants them, a filter does.
    let mut vectors = clustered(8000, 24, 80, 1.0, 11);
    vectors[7000..].iter_mut().flatten().for_each(|x| *x *= 0.01);
    let fixture = fixture(&vectors, Metric::Dot, &BuildOptions::new(Metric::Dot));
    assert!(fixture.built.repaired > 0, "the case is not as hard as it should be");
    assert_eq!(unreachable(&fixture.built.graph()), 0);
    let n = vectors.len();
    let matrix = fixture.rows.matrix(n);
    let searcher = Searcher::new(fixture.built.graph(), matrix, None);
    for (passes, name) in [(&(|row: u32| row >= 7000) as &dyn Fn(u32) -> bool, "short"), (&|row| row % 2 == 0, "half")]
    {
        let mut bits = vec![0_u64; n.div_ceil(64)];
        let passing = (0..n).filter(|&node| passes(fixture.order[node]));
        let count = passing.map(|node| bits[node / 64] |= 1 << (node % 64)).count();
        let exclude: Vec<u32> = (0..n as u32).filter(|node| node % 31 == 0).collect();
        let filter = Filter { bits: Some((&bits, count)), exclude: &exclude };
        let (mut scratch, mut found, mut truth, mut hits) = (Scratch::default(), Vec::new(), Vec::new(), 0);
        for vector in clustered(100, 24, 80, 1.0, 12) {
            let mut query = Query::default();
            query.prepare(matrix.layout(), &vector).unwrap();
            exact::best(&matrix, &query, 10, filter, &mut scratch, &mut truth);
            searcher.search(&query, &query, SearchOptions { k: 10, ef: 64 }, filter, &mut scratch, &mut found);
            assert_eq!(found.len(), 10);
            let allowed = |node: u32| passes(fixture.order[node as usize]) && !exclude.contains(&node);
            assert!(found.iter().all(|&(node, _)| allowed(node)), "{name}");
            hits += truth.iter().filter(|hit| found.contains(hit)).count();
        }
        assert!(hits >= 950, "{name}: {hits} of 1000");
    }
}

#[test]
fn tiny_and_degenerate_sets_answer_all_they_have() {
    let cases: [Vec<Vec<f32>>; 6] = [
        vec![vec![1.0, 2.0]],
        vec![vec![1.0, 2.0], vec![-1.0, 0.5]],
        clustered(40, 5, 4, 10.0, 1),
        vec![vec![0.5; 7]; 300],
        vec![vec![0.0; 3]; 50],
        clustered(150, 4, 3, 1.0, 2).into_iter().flat_map(|v| [v.clone(), v]).collect(),
    ];
    for vectors in cases {
        for metric in [Metric::Dot, Metric::L2] {
            let fixture = fixture(&vectors, metric, &BuildOptions { m: 4, ..BuildOptions::new(metric) });
            let n = vectors.len();
            structure(&fixture.built.graph(), n).unwrap();
            assert_eq!(unreachable(&fixture.built.graph()), 0, "{n} items");
            let searcher = Searcher::new(fixture.built.graph(), fixture.rows.matrix(n), None);
            let (mut query, mut found) = (Query::default(), Vec::new());
            query.prepare(fixture.rows.layout, &vectors[0]).unwrap();
            let options = SearchOptions { k: n + 5, ef: 10 };
            searcher.search(&query, &query, options, Filter::default(), &mut Scratch::default(), &mut found);
            let mut nodes: Vec<u32> = found.iter().map(|&(node, _)| node).collect();
            nodes.sort_unstable();
            assert_eq!(nodes, (0..n as u32).collect::<Vec<_>>(), "{metric}");
            assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        }
    }
}

#[test]
fn an_empty_graph_answers_nothing() {
    let layout = Layout { codec: Codec::Int8, dim: 4 };
    let built = build(Matrix::new(layout, &[], &[], &[]).unwrap(), &BuildOptions::new(Metric::Dot), &[], &[], &|_| ());
    let searcher = Searcher::new(built.graph(), Matrix::new(layout, &[], &[], &[]).unwrap(), None);
    let (mut query, mut found) = (Query::default(), Vec::new());
    query.prepare(layout, &[1.0; 4]).unwrap();
    let options = SearchOptions { k: 3, ef: 10 };
    searcher.search(&query, &query, options, Filter::default(), &mut Scratch::default(), &mut found);
    assert!(found.is_empty());
}

#[test]
fn nodes_that_no_link_leads_to_are_given_one_even_where_every_row_is_full() {
    // Two rings of full rows, and no link from the first to the second.
    const STRIDE: usize = 5;
    let vectors = clustered(16, 6, 2, 1.0, 4);
    let order: Vec<u32> = (0..16).collect();
    let rows = Rows::new(Codec::Int8, Metric::Dot, &vectors, &order);
    let ring = |node: u32| [4].into_iter().chain((1..STRIDE as u32).map(move |step| node / 8 * 8 + (node + step) % 8));
    let mut links: Vec<u32> = (0..16).flat_map(ring).collect();
    let repaired = check::repair(&mut links, STRIDE, &rows.matrix(16), kernel::best());
    assert!(repaired >= 1);
    let starts: Vec<u32> = (0..=16).map(|node| node * (STRIDE as u32 - 1)).collect();
    let packed: Vec<u32> = links.chunks(STRIDE).flat_map(|row| row[1..].to_vec()).collect();
    let graph = Graph::new(16, &starts, &packed, &[]);
    structure(&graph, 16).unwrap();
    assert_eq!(unreachable(&graph), 0);
}

#[test]
fn a_place_that_no_link_leads_out_of_is_not_the_end_of_a_search() {
    // Pairs that link each other alone, where every walk begins, and a ring of the rest.
    const N: u32 = SAMPLE as u32 + 64;
    let vectors = clustered(N as usize, 6, 2, 1.0, 4);
    let rows = Rows::new(Codec::Int8, Metric::Dot, &vectors, &(0..N).collect::<Vec<_>>());
    let (sample, ring) = (SAMPLE as u32, N - SAMPLE as u32);
    let link = |node: u32| if node < sample { node ^ 1 } else { sample + (node - sample + 1) % ring };
    let (starts, links) = ((0..=N).collect::<Vec<u32>>(), (0..N).map(link).collect::<Vec<_>>());
    let matrix = rows.matrix(N as usize);
    let searcher = Searcher::new(Graph::new(N as usize, &starts, &links, &[]), matrix, None);
    let (mut query, mut found, mut best) = (Query::default(), Vec::new(), Vec::new());
    query.prepare_row(&matrix, N - 20);
    let (options, scratch) = (SearchOptions { k: 10, ef: 10 }, &mut Scratch::default());
    searcher.search(&query, &query, options, Filter::default(), scratch, &mut found);
    exact::best(&matrix, &query, 10, Filter::default(), scratch, &mut best);
    assert_eq!(found, best);
}

#[test]
fn without_layers_above_as_much_is_found() {
    for (metric, spread) in [(Metric::Dot, 20.0), (Metric::L2, 3.0)] {
        let vectors = clustered(8000, 20, 80, spread, 13);
        let mut fixture = fixture(&vectors, metric, &BuildOptions::new(metric));
        let queries = clustered(200, 20, 80, 1.0, 13);
        let (with, _) = recall(&fixture, &queries, 40, kernel::best());
        let lens = std::mem::take(&mut fixture.built.upper_lens);
        assert!(!lens.is_empty());
        fixture.built.starts.truncate(vectors.len() + 1);
        fixture.built.links.truncate(fixture.built.starts[vectors.len()] as usize);
        structure(&fixture.built.graph(), vectors.len()).unwrap();
        let (without, _) = recall(&fixture, &queries, 40, kernel::best());
        assert!(with > 0.9 && without > with - 0.02, "{metric}: {with} became {without}");
    }
}

// ---------------------------------------------------------------------------------------------- packed rows

#[test]
fn packed_rows_hold_what_rows_one_by_one_hold() {
    let mut next = numbers(21);
    let mut below = |end: usize| (f32::midpoint(next(), 1.0) * end as f32) as usize % end;
    for round in 0..50 {
        let n = 1 + below(80);
        let mut lens: Vec<u32> = Vec::new();
        while let Some(len) = Some(lens.last().map_or(n, |&len| len as usize) / 3).filter(|&len| len > 0) {
            lens.push(len as u32);
        }
        let layers: Vec<Vec<Vec<u32>>> = std::iter::once(n)
            .chain(lens.iter().map(|&len| len as usize))
            .map(|len| (0..len).map(|_| (0..below(9)).map(|_| below(len) as u32).collect()).collect())
            .collect();
        let rows: Vec<&Vec<u32>> = layers.iter().flatten().collect();
        let to: Vec<u32> = rows.iter().copied().flatten().copied().collect();
        let ends = rows.iter().scan(0, |end, row| {
            *end += row.len() as u32;
            Some(*end)
        });
        let starts: Vec<u32> = [0].into_iter().chain(ends).collect();
        let graph = Graph::new(n, &starts, &to, &lens);
        structure(&graph, n).unwrap();
        for (node, row) in layers[0].iter().enumerate() {
            assert_eq!(graph.links(node as u32), row, "round {round}");
        }
        let degrees: usize = layers[0].iter().map(Vec::len).sum();
        assert!((graph.mean_degree() - degrees as f64 / n as f64).abs() < 1e-9);
        assert_eq!(graph.upper_layers().count(), lens.len());
        for (layer, rows) in graph.upper_layers().zip(layers[1..].iter().rev()) {
            assert!(rows.iter().enumerate().all(|(node, row)| layer.links(node as u32) == row));
        }
        let mut reached = vec![false; n];
        let mut queue = vec![0];
        while let Some(node) = queue.pop() {
            if !std::mem::replace(&mut reached[node as usize], true) {
                queue.extend(&layers[0][node as usize]);
            }
        }
        assert_eq!(unreachable(&graph), reached.iter().filter(|reached| !**reached).count());
    }
}

// ---------------------------------------------------------------------------------------------- hard questions

/// How a search fares against a scan of the same rows: the hits it has of the `k` best that pass.
fn against_a_scan(fixture: &Fixture, vector: &[f32], k: usize, ef: usize, filter: Filter) -> usize {
    let matrix = fixture.rows.matrix(fixture.order.len());
    let searcher = Searcher::new(fixture.built.graph(), matrix, None);
    let (mut query, mut scratch) = (Query::default(), Scratch::default());
    let (mut found, mut truth) = (Vec::new(), Vec::new());
    query.prepare(matrix.layout(), vector).unwrap();
    exact::best(&matrix, &query, k, filter, &mut scratch, &mut truth);
    searcher.search(&query, &query, SearchOptions { k, ef }, filter, &mut scratch, &mut found);
    assert_eq!(found.len(), truth.len(), "fewer than pass");
    assert!(found.iter().all(|(node, _)| !filter.exclude.contains(node)), "one that is excluded");
    let passes = |node: u32| filter.bits.is_none_or(|(bits, _)| bits[node as usize / 64] >> (node % 64) & 1 == 1);
    assert!(found.iter().all(|&(node, _)| passes(node)), "one that does not pass");
    // By score: of equals any will do.
    let worst = truth.last().map_or(f32::NEG_INFINITY, |hit| hit.1);
    found.iter().filter(|hit| hit.1 >= worst).count()
}

/// The bits of the nodes that pass, and how many.
fn bits_of(n: usize, passes: impl Fn(u32) -> bool) -> (Vec<u64>, usize) {
    let mut bits = vec![0_u64; n.div_ceil(64)];
    let passing = (0..n as u32).filter(|&node| passes(node));
    let count = passing.map(|node| bits[node as usize / 64] |= 1 << (node % 64)).count();
    (bits, count)
}

#[test]
fn few_that_pass_and_many_that_are_excluded_cost_no_recall() {
    let vectors = clustered(8000, 24, 100, 2.0, 51);
    let fixture = fixture(&vectors, Metric::Dot, &BuildOptions::new(Metric::Dot));
    let n = vectors.len();
    let mut hits = [0; 5];
    let queries = clustered(40, 24, 100, 1.0, 52);
    for vector in &queries {
        let matrix = fixture.rows.matrix(n);
        let (mut query, mut scratch, mut best) = (Query::default(), Scratch::default(), Vec::new());
        query.prepare(matrix.layout(), vector).unwrap();
        exact::best(&matrix, &query, 700, Filter::default(), &mut scratch, &mut best);
        let mut seen: Vec<u32> = best.iter().map(|hit| hit.0).collect();
        seen.sort_unstable();
        let (rare, half) = (bits_of(n, |node| node % 1000 == 7), bits_of(n, |node| node % 2 == 0));
        let (worst, none) = (bits_of(n, |node| !seen.contains(&node)), bits_of(n, |_| false));
        let cases = [
            Filter { bits: None, exclude: &seen },
            Filter { bits: Some((&rare.0, rare.1)), exclude: &[] },
            Filter { bits: Some((&half.0, half.1)), exclude: &seen },
            Filter { bits: Some((&worst.0, worst.1)), exclude: &[] },
            Filter { bits: Some((&none.0, none.1)), exclude: &seen },
        ];
        for (hits, filter) in hits.iter_mut().zip(cases) {
            *hits += against_a_scan(&fixture, vector, 10, 64, filter);
        }
    }
    let wanted = queries.len() * 10;
    assert_eq!((hits[1], hits[4]), (queries.len() * 8, 0), "what so few pass is scanned");
    assert!(hits[0] * 100 >= wanted * 95 && hits[2] * 100 >= wanted * 95, "{hits:?} of {wanted}");
    assert!(hits[3] * 100 >= wanted * 90, "the best are all filtered out: {hits:?} of {wanted}");
}

#[test]
fn what_passes_is_found_where_no_walk_would_go() {
    let vectors = clustered(6000, 16, 60, 3.0, 61);
    let fixture = fixture(&vectors, Metric::Dot, &BuildOptions::new(Metric::Dot));
    let n = vectors.len();
    for vector in clustered(20, 16, 60, 1.0, 62) {
        let product =
            |node: u32| vectors[fixture.order[node as usize] as usize].iter().zip(&vector).map(|(x, q)| x * q);
        // Only what the user likes least.
        let (bits, count) = bits_of(n, |node| product(node).sum::<f32>() < 0.0);
        for ef in [10, 64] {
            against_a_scan(&fixture, &vector, 10, ef, Filter { bits: Some((&bits, count)), exclude: &[] });
        }
    }
}

#[test]
fn queries_unlike_any_item_are_answered_as_well() {
    for metric in [Metric::Dot, Metric::L2] {
        let vectors = clustered(5000, 16, 80, 3.0, 71);
        let fixture = fixture(&vectors, metric, &BuildOptions::new(metric));
        let like = clustered(30, 16, 80, 1.0, 71);
        let basis = (0..16).map(|at| (0..16).map(|x| if x == at { 1.0 } else { 0.0 }).collect());
        let mut odd: Vec<Vec<f32>> = basis.collect();
        for norm in [1e-30, 1e-6, 1e6, 1e12] {
            odd.extend(like[..10].iter().map(|x| x.iter().map(|x| x * norm).collect()));
        }
        odd.extend(like[10..].iter().map(|x| x.iter().map(|x| -x).collect()));
        let mut next = numbers(72);
        odd.extend((0..20).map(|_| (0..16).map(|_| next()).collect()));
        let hits: usize = odd.iter().map(|x| against_a_scan(&fixture, x, 10, 128, Filter::default())).sum();
        assert!(hits * 100 >= odd.len() * 10 * 95, "{metric}: {hits} of {}", odd.len() * 10);
        assert_eq!(against_a_scan(&fixture, &[0.0; 16], 10, 128, Filter::default()), 10);
    }
}

#[test]
fn huge_and_tiny_norms_and_copies_are_whole_graphs() {
    let mut norms = clustered(900, 6, 30, 1.0, 81);
    for (at, vector) in norms.iter_mut().enumerate() {
        let norm = [1e12, 1.0, 1e-12, 0.0, -1.0][at % 5];
        vector.iter_mut().for_each(|x| *x *= norm);
    }
    let copies: Vec<Vec<f32>> = clustered(12, 6, 3, 1.0, 82).into_iter().flat_map(|x| vec![x; 70]).collect();
    for vectors in [norms, copies] {
        for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
            let mut vectors = vectors.clone();
            vectors.iter_mut().for_each(|vector| metric.prepare(vector));
            let fixture = fixture(&vectors, metric, &BuildOptions { m: 6, ..BuildOptions::new(metric) });
            structure(&fixture.built.graph(), vectors.len()).unwrap();
            assert_eq!(unreachable(&fixture.built.graph()), 0, "{metric}");
            for vector in vectors.iter().step_by(97) {
                against_a_scan(&fixture, vector, vectors.len(), 10, Filter::default());
            }
        }
    }
}
