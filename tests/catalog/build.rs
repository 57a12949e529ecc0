//! Building an index: the same bytes from the same inputs, the right answers, every item found, and plain refusals.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;
use tonnage::catalog::{
    BuildSpec, Candidate, CatalogError, Index, NumberField, QueryVector, build, choose, recall, top_by_codec,
};
use tonnage::codec::{Codec, Layout, Metric};
use tonnage::graph::check::unreachable;
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::{Id, Ids, Numbers};

use crate::items::{Random, spec, vectors};

const METRICS: [Metric; 3] = [Metric::Dot, Metric::Cosine, Metric::L2];

fn built(spec: &BuildSpec, path: &Path) -> Index {
    build(spec, path, &|_| ()).unwrap().0
}

fn row_of(index: &Index, node: u32) -> u32 {
    match index.id(node) {
        Id::U64(row) => row as u32,
        Id::Text(text) => panic!("{text:?} is no row"),
    }
}

// ---------------------------------------------------------------------------------------------- the same bytes

/// Builds with pools of 1, 2 and 5 threads and another seed, and compares the files.
fn same_bytes_on_any_pool(folder: &Path, spec: &BuildSpec) {
    let with = |threads: usize, spec: &BuildSpec| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let path = folder.join("built.tng");
        let fingerprint = pool.install(|| built(spec, &path).fingerprint());
        (std::fs::read(&path).unwrap(), fingerprint)
    };
    let (bytes, fingerprint) = with(1, spec);
    for threads in [2, 5] {
        let (other, other_fingerprint) = with(threads, spec);
        assert!(bytes == other, "{threads} threads built another file");
        assert_eq!(fingerprint, other_fingerprint);
    }
    let other = BuildSpec { graph: BuildOptions { seed: 2, ..spec.graph }, ..*spec };
    assert_ne!(with(2, &other).1, fingerprint);
}

#[test]
fn residuals_and_links_for_users_are_the_same_file_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let items = vectors(folder.path(), "items", 24, &Random(1).normals(1_500 * 24));
    let users = vectors(folder.path(), "users", 24, &Random(2).normals(1_600 * 24));
    let ids = Ids::Text((0..1_500).map(|row| format!("item {row}")).collect());
    let tags = crate::items::tags(&[("few", &[7, 1_001]), ("more", &(100..900).collect::<Vec<u32>>())]);
    let popularity: Vec<f32> = (0..1_500_u16).map(|row| f32::from(row % 91)).collect();
    let prices: Vec<(u32, f64)> = (0..1_500).map(|row| (row, f64::from(row % 40))).collect();
    let numbers = crate::items::numbers(&[("price", &prices)]);
    let (ids, tags, numbers) = (Some(&ids), Some(&tags), Some(&numbers));
    let facts = BuildSpec { ids, tags, numbers, popularity: Some(&popularity), ..spec(&items) };
    let graph = BuildOptions { m: 4, ef_construction: 40, ..facts.graph };
    let spec = BuildSpec { users: Some(&users), profile: true, finer: Some(Codec::Int8), graph, ..facts };
    same_bytes_on_any_pool(folder.path(), &spec);
    let links = |spec| built(spec, &folder.path().join("built.tng")).graph().mean_degree();
    assert!(links(&spec) > links(&BuildSpec { users: None, ..spec }), "no user was given a link");
}

#[test]
fn int4_under_l2_is_the_same_file_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let items = vectors(folder.path(), "items", 40, &Random(3).normals(1_500 * 40));
    for finer in [None, Some(Codec::Int8)] {
        let spec = BuildSpec { metric: Metric::L2, codec: Codec::Int4, finer, profile: true, ..spec(&items) };
        same_bytes_on_any_pool(folder.path(), &spec);
    }
}

#[test]
fn halves_under_cosine_are_the_same_file_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let items = vectors(folder.path(), "items", 24, &Random(4).normals(1_500 * 24));
    let spec = BuildSpec { metric: Metric::Cosine, codec: Codec::F16, finer: None, profile: true, ..spec(&items) };
    same_bytes_on_any_pool(folder.path(), &spec);
}

#[test]
fn layers_above_are_kept_where_searches_need_them_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    // A sample of short rows is scored in less time than layers take to descend, and one of long rows is not.
    for (name, rows, dim, kept) in [("short", 6_000, 16, false), ("long", 1_500, 1_024, true)] {
        let items = vectors(folder.path(), name, dim, &Random(5).normals(rows * dim));
        let graph = BuildOptions { m: 4, ef_construction: 40, seed: 3 };
        let spec = BuildSpec { metric: Metric::L2, graph, ..spec(&items) };
        let whole = built(&BuildSpec { profile: false, ..spec }, &folder.path().join("whole.tng"));
        let index = built(&BuildSpec { profile: true, ..spec }, &folder.path().join("tuned.tng"));
        let layers = |index: &Index| index.meta().layers.clone();
        assert!(layers(&whole).len() > 3);
        assert_eq!(layers(&index), if kept { layers(&whole) } else { Vec::new() }, "{name}");
        assert!(kept || index.bytes() < whole.bytes());
        assert!((0..items.rows() as u32).all(|node| index.graph().links(node) == whole.graph().links(node)), "{name}");
    }
}

// ---------------------------------------------------------------------------------------------- the right answers

#[test]
fn a_range_is_the_items_within_it_and_both_its_ends() {
    const N: u32 = 900;
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(6);
    let items = vectors(folder.path(), "items", 4, &random.normals(N as usize * 4));
    // of all items, many alike; of some, few alike; of one
    let coarse: Vec<(u32, f64)> = (0..N).map(|row| (row, random.below(30) as f64 / 4.0 - 3.0)).collect();
    let fine: Vec<(u32, f64)> = (0..N).step_by(7).map(|row| (row, f64::from(random.normal()) * 1e9)).collect();
    let fields = [("coarse", &coarse[..]), ("fine", &fine[..]), ("one", &[(8, 0.1)])];
    let numbers = crate::items::numbers(&fields);
    let spec = BuildSpec { numbers: Some(&numbers), ..spec(&items) };
    let index = built(&spec, &folder.path().join("built.tng"));
    let node = |row: u32| index.find(Id::U64(u64::from(row))).unwrap();
    let mut counts = BTreeSet::new();
    for (field, values) in fields {
        let (least, most) = values.iter().fold((f64::MAX, f64::MIN), |(a, b), &(_, x)| (x.min(a), x.max(b)));
        let told = NumberField { field, items: values.len(), min: least, max: most };
        assert!(index.number_fields().contains(&told));
        let end = |random: &mut Random| match random.below(8) {
            0 => f64::NEG_INFINITY,
            1 => f64::INFINITY,
            2 => -0.0,
            3 => values[random.below(values.len())].1.next_up(),
            4 => values[random.below(values.len())].1.next_down(),
            _ => values[random.below(values.len())].1,
        };
        for _ in 0..2_000 {
            let (min, max) = (end(&mut random), end(&mut random));
            let mut got = index.range(field, min, max).unwrap().to_vec();
            let within = values.iter().filter(|(_, value)| min <= *value && *value <= max);
            let mut expected: Vec<u32> = within.map(|&(row, _)| node(row)).collect();
            got.sort_unstable();
            expected.sort_unstable();
            assert_eq!(got, expected, "{field}: {min} to {max}");
            counts.insert(got.len());
        }
    }
    assert!(counts.len() > 100 && counts.contains(&0) && counts.contains(&(N as usize)), "{}", counts.len());
    for field in ["", "two", "coars", "fined"] {
        let refusal = index.range(field, 0.0, 1.0).unwrap_err().to_string();
        assert!(refusal.contains("3 fields of numbers, the most used coarse, fine, one"), "{refusal}");
    }
}

#[test]
fn searches_find_the_true_best_and_give_their_true_scores() {
    const N: usize = 6_000;
    const DIM: usize = 12;
    let finest = [(Codec::Int8, Codec::F16), (Codec::Int8, Codec::Int8), (Codec::Int4, Codec::Int8)];
    for (metric, (codec, finer)) in METRICS.into_iter().flat_map(|metric| finest.map(|codecs| (metric, codecs))) {
        let folder = tempfile::tempdir().unwrap();
        let mut random = Random(5);
        let mut values = random.normals(N * DIM);
        if metric == Metric::Dot {
            // Norms from a tenth of the usual to ten times that.
            values.chunks_mut(DIM).for_each(|row| {
                let stretch = 10_f32.powf(2.0 * random.uniform() - 1.0);
                for x in row {
                    *x *= stretch;
                }
            });
        }
        let items = vectors(folder.path(), "items", DIM, &values);
        let spec = BuildSpec { metric, codec, finer: Some(finer), ..spec(&items) };
        let index = built(&spec, &folder.path().join("built.tng"));
        assert_eq!(unreachable(&index.graph()), 0);

        let queries = random.normals(200 * DIM);
        let mut prepared = queries.clone();
        prepared.chunks_mut(DIM).for_each(|query| metric.prepare(query));
        let truth = top_by_codec(&items, Layout { codec: Codec::F32, dim: DIM }, metric, &prepared, 10).unwrap();
        let mut found = Vec::new();
        for (query, prepared) in queries.chunks(DIM).zip(prepared.chunks(DIM)) {
            let options = SearchOptions { k: 10, ef: 64 };
            let (hits, stats) = index.search(QueryVector::Floats(query), options, Filter::default()).unwrap();
            assert!(stats.hops > 0, "a scan proves nothing about the graph");
            for hit in &hits {
                let mut item = values[row_of(&index, hit.node) as usize * DIM..][..DIM].to_vec();
                metric.prepare(&mut item);
                let (score, size) = score(metric, prepared, &item);
                // A half is off by one part in 2048 at most, and L2 doubles that; codes of int4 and their residuals are
                // off by one part in 3556 of the largest component of all items.
                let most = if codec == Codec::Int4 { 3e-3 } else { 1e-3 };
                let difference = (f64::from(hit.score) - score).abs();
                assert!(difference <= most * size, "{metric}, {codec} + {finer}: {} for {score}", hit.score);
            }
            found.push(hits.iter().map(|hit| (row_of(&index, hit.node), hit.score)).collect::<Vec<_>>());
        }
        let recall = recall(&truth, found.iter().map(Vec::as_slice), 10);
        println!("{metric}, {codec} + {finer}: recall@10 {recall:.4}");
        let floor = if codec == Codec::Int4 { 0.9 } else { 0.99 };
        assert!(recall >= floor, "{metric}, {codec} + {finer}: recall@10 {recall}");
    }
}

/// The score by the metric's definition, and the size of what it is summed from.
fn score(metric: Metric, query: &[f32], item: &[f32]) -> (f64, f64) {
    let pairs = || query.iter().zip(item).map(|(&q, &x)| (f64::from(q), f64::from(x)));
    let size: f64 = pairs().map(|(q, x)| q * q + (q * x).abs() + x * x).sum();
    let score = match metric {
        Metric::L2 => -pairs().map(|(q, x)| (q - x) * (q - x)).sum::<f64>(),
        Metric::Dot | Metric::Cosine => pairs().map(|(q, x)| q * x).sum(),
    };
    (score, size)
}

/// All that an item may be kept as.
fn combinations() -> impl Iterator<Item = (Codec, Option<Codec>)> {
    let finer = [None, Some(Codec::F16), Some(Codec::F32), Some(Codec::Int8)];
    let all = Codec::ALL.into_iter().flat_map(move |codec| finer.map(|finer| (codec, finer)));
    all.filter(|(codec, finer)| *finer != Some(Codec::Int8) || matches!(codec, Codec::Int4 | Codec::Int8))
}

/// Every item once, whatever is asked, when more are asked for than there are.
fn all_are_found(folder: &Path, what: &str, dim: usize, values: &[f32]) {
    let n = values.len() / dim;
    let items = vectors(folder, "items", dim, values);
    for metric in METRICS {
        for (codec, finer) in combinations().filter(|&(_, finer)| n <= 60 || finer.is_none_or(|it| it == Codec::Int8)) {
            let spec = BuildSpec { metric, codec, finer, profile: n <= 3, ..spec(&items) };
            let index = built(&spec, &folder.join("built.tng"));
            let case = format!("{what}, {metric}, {codec}, {finer:?}");
            assert_eq!(unreachable(&index.graph()), 0, "{case}");
            for query in [Random(9).normals(dim), vec![0.0; dim], values[..dim].to_vec()] {
                let options = SearchOptions { k: n + 7, ef: 16 };
                let (hits, _) = index.search(QueryVector::Floats(&query), options, Filter::default()).unwrap();
                let mut rows: Vec<u32> = hits.iter().map(|hit| row_of(&index, hit.node)).collect();
                rows.sort_unstable();
                assert!(rows.into_iter().eq(0..n as u32), "{case}: {hits:?}");
            }
        }
    }
}

#[test]
fn tiny_sets_and_strange_ones_give_all_their_items() {
    let folder = tempfile::tempdir().unwrap();
    for n in [1, 2, 3, 40] {
        all_are_found(folder.path(), &format!("{n} at random"), 5, &Random(6).normals(n * 5));
    }
    for n in [2, 40, 700] {
        all_are_found(folder.path(), &format!("{n} times one vector"), 5, &[0.5, -1.0, 2.0, 0.0, 0.25].repeat(n));
        all_are_found(folder.path(), &format!("{n} zeros"), 3, &vec![0.0; n * 3]);
    }
    let mut twice = Random(7).normals(150 * 6);
    twice.extend_from_within(..);
    all_are_found(folder.path(), "all twice", 6, &twice);
    all_are_found(folder.path(), "one dimension", 1, &Random(8).normals(300));
    for dim in [17, 33, 65] {
        all_are_found(folder.path(), &format!("{dim} dimensions"), dim, &Random(8).normals(40 * dim));
    }
    let mut apart = Random(7).normals(60 * 5);
    apart.chunks_mut(5).zip([1e4, 1e-9, 1.0, 0.0].into_iter().cycle()).for_each(|(row, norm)| {
        row.iter_mut().for_each(|x| *x *= norm);
    });
    all_are_found(folder.path(), "norms apart", 5, &apart);
}

#[test]
fn a_scale_serves_all_rows_where_their_largest_components_are_alike_and_something_finer_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let even = Random(14).normals(300 * 20);
    let mut uneven = even.clone();
    uneven[..20].iter_mut().for_each(|x| *x *= 10.0);
    let int8 = Some(Codec::Int8);
    for (name, values, codec, finer, metric, scales) in [
        ("even", &even, Codec::Int8, int8, Metric::Dot, 1),
        ("even", &even, Codec::Int8, Some(Codec::F16), Metric::L2, 1),
        ("even", &even, Codec::Int4, int8, Metric::Dot, 1),
        ("even", &even, Codec::Int8, None, Metric::Dot, 300),
        ("even", &even, Codec::Int4, None, Metric::Dot, 300),
        ("even", &even, Codec::F16, Some(Codec::F32), Metric::Dot, 0),
        ("uneven", &uneven, Codec::Int8, int8, Metric::Dot, 300),
        ("uneven", &uneven, Codec::Int4, int8, Metric::L2, 300),
        ("uneven", &uneven, Codec::Int8, int8, Metric::Cosine, 1),
    ] {
        let items = vectors(folder.path(), name, 20, values);
        let index = built(&BuildSpec { metric, codec, finer, ..spec(&items) }, &folder.path().join("built.tng"));
        let bytes = index.sections().into_iter().find(|section| section.name == "scales").unwrap().bytes;
        assert_eq!(bytes, 4 * scales, "{name}, {metric}, {codec}, {finer:?}");
    }
}

// ---------------------------------------------------------------------------------------------- refusals

/// A folder with 20 items of 4 dimensions, of which one component is another.
fn twenty(at: usize, component: f32) -> (TempDir, tonnage::input::Vectors) {
    let folder = tempfile::tempdir().unwrap();
    let mut values = Random(10).normals(20 * 4);
    values[at] = component;
    let items = vectors(folder.path(), "items", 4, &values);
    (folder, items)
}

/// The refusal of a build, which has left nothing behind.
fn refused(folder: &TempDir, spec: &BuildSpec) -> CatalogError {
    let entries = || std::fs::read_dir(folder.path()).unwrap().count();
    let before = entries();
    let refusal = build(spec, &folder.path().join("refused.tng"), &|_| ()).unwrap_err();
    assert_eq!(entries(), before, "something was left behind");
    refusal
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (folder, items) = twenty(0, 0.0);
    let users = vectors(folder.path(), "users", 3, &Random(11).normals(9));
    let refusal = refused(&folder, &BuildSpec { users: Some(&users), ..spec(&items) });
    assert!(matches!(refusal, CatalogError::Dimensions { expected: 4, got: 3 }), "{refusal}");

    for (ids, says) in [
        (Ids::U64((0..19).collect()), ["20", "19"]),
        (Ids::U64((0..19).chain([4]).collect()), ["4", "row 19"]),
        (Ids::Text((0..20).map(|row| format!("x{}", row % 18)).collect()), ["x0", "row 18"]),
    ] {
        let refusal = refused(&folder, &BuildSpec { ids: Some(&ids), ..spec(&items) });
        let message = refusal.to_string();
        assert!(matches!(refusal, CatalogError::Input(_)), "{message}");
        assert!(says.iter().all(|says| message.contains(says)), "{message}");
    }
    let refusal = refused(&folder, &BuildSpec { popularity: Some(&[1.0; 21]), ..spec(&items) });
    assert!(matches!(refusal, CatalogError::Input(_)), "{refusal}");
    let tags = crate::items::tags(&[("blue", &[3, 20])]);
    let refusal = refused(&folder, &BuildSpec { tags: Some(&tags), ..spec(&items) });
    assert_eq!(refusal.to_string(), "the row of a tag is 20: expected below 20");
    for (row, value, says) in [
        (20, 1.0, "the row of a number is 20: expected below 20"),
        (3, f64::NAN, "a number of an item is NaN: expected a finite one"),
        (3, f64::INFINITY, "a number of an item is inf: expected a finite one"),
    ] {
        let numbers = crate::items::numbers(&[("price", &[(2, 1.0), (row, value)])]);
        let refusal = refused(&folder, &BuildSpec { numbers: Some(&numbers), ..spec(&items) });
        assert_eq!(refusal.to_string(), says);
    }
    let one = vec![(0, 1.0)];
    let numbers = Numbers { fields: (0..257).map(|at| format!("{at:03}")).collect(), values: vec![one; 257] };
    let refusal = refused(&folder, &BuildSpec { numbers: Some(&numbers), ..spec(&items) });
    assert_eq!(refusal.to_string(), "the number of fields is 257: expected at most 256");
}

#[test]
fn settings_out_of_range_are_refused() {
    let (folder, items) = twenty(0, 0.0);
    let graph = spec(&items).graph;
    for m in [0, 2, 3, 129] {
        let refusal = refused(&folder, &BuildSpec { graph: BuildOptions { m, ..graph }, ..spec(&items) });
        assert_eq!(refusal.to_string(), format!("m is {m}: expected 4 to 128"));
    }
    for ef_construction in [0, 65_537, usize::MAX] {
        let refusal = refused(&folder, &BuildSpec { graph: BuildOptions { ef_construction, ..graph }, ..spec(&items) });
        assert!(refusal.to_string().starts_with("ef_construction is"), "{refusal}");
    }
    let floats = [Codec::F16, Codec::F32].map(|codec| (codec, Codec::Int8));
    for (codec, finer) in Codec::ALL.map(|codec| (codec, Codec::Int4)).into_iter().chain(floats) {
        let refusal = refused(&folder, &BuildSpec { codec, finer: Some(finer), ..spec(&items) });
        let expected = format!("the finer codec is {finer} beside {codec}: expected f16, f32, or int8 beside");
        assert!(refusal.to_string().starts_with(&expected), "{refusal}");
    }
}

#[test]
fn a_component_that_a_codec_cannot_hold_is_refused_with_its_row_and_column() {
    let (folder, items) = twenty(13 * 4 + 2, 1e20);
    for codec in Codec::ALL {
        let refusal = refused(&folder, &BuildSpec { codec, finer: None, ..spec(&items) });
        assert!(matches!(refusal, CatalogError::Vector { row: 13, .. }), "{refusal}");
        let message = refusal.to_string();
        assert!(["items.npy: row 13: column 2", "rescale"].iter().all(|says| message.contains(says)), "{message}");
    }
    let (folder, items) = twenty(7 * 4 + 1, 1e6);
    for (codec, finer) in [(Codec::Int8, Some(Codec::F16)), (Codec::F16, None)] {
        for profile in [false, true] {
            let refusal = refused(&folder, &BuildSpec { codec, finer, profile, ..spec(&items) });
            assert!(matches!(refusal, CatalogError::Vector { row: 7, .. }), "{refusal}");
            let message = refusal.to_string();
            assert!(["row 7: column 1", "f16", "65504"].iter().all(|says| message.contains(says)), "{message}");
        }
    }
    built(&BuildSpec { finer: None, ..spec(&items) }, &folder.path().join("int8.tng"));
}

// ---------------------------------------------------------------------------------------------- the choice

#[test]
fn the_first_codec_that_reaches_the_floor_is_chosen_fewest_cache_lines_first() {
    let folder = tempfile::tempdir().unwrap();
    let items = vectors(folder.path(), "items", 24, &Random(12).normals(2_000 * 24));
    let users = vectors(folder.path(), "users", 24, &Random(13).normals(150 * 24));
    for metric in METRICS {
        for users in [None, Some(&users)] {
            let mut chosen = Vec::new();
            for floor in [0.0, 0.8, 0.95, 0.99, 1.0] {
                let (table, at) = choose(&items, users, metric, floor).unwrap();
                assert_eq!(table.len(), 6);
                let lines = |codec| Layout { codec, dim: 24 }.row_bytes().div_ceil(64);
                let key = |candidate: &Candidate| (lines(candidate.codec), candidate.bytes_per_item);
                assert!(table.is_sorted_by_key(key), "{table:?}");
                assert!(table[at].recall_at_10 >= floor, "{table:?}");
                assert!(table[..at].iter().all(|smaller| smaller.recall_at_10 < floor), "{floor}: {table:?}");
                chosen.push(at);
            }
            assert!(chosen.is_sorted() && chosen[0] == 0 && chosen[4] > 0, "{metric}: {chosen:?}");
            let refusal = choose(&items, users, metric, 1.01).unwrap_err();
            assert!(matches!(refusal, CatalogError::Floor { .. }), "{refusal}");
        }
    }
}
