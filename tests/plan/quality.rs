//! What codecs are worth is measured right: against loops that score every item one by one, and on the bundled data
//! against what the index measured of itself when it was built.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::vectors::{numbers, write_npy};
use tonnage::catalog::{BuildSpec, CatalogError, Index, build};
use tonnage::codec::{Codec, Metric, record};
use tonnage::input::{Ids, Vectors};
use tonnage::plan::Verdict;
use tonnage::plan::heldout::{Case, read_cases};
use tonnage::plan::quality::{Exact, ItemForm, Jury, QualitySpec, Worth};

const DIM: usize = 20;
const ITEMS: usize = 700;
const USERS: usize = 90;
const K: usize = 10;

/// A vector as a record of this codec gives it back.
fn rounded(codec: Codec, vector: &[f32]) -> Vec<f32> {
    let (mut bytes, mut back) = (vec![0; codec.bytes_per_vector(vector.len())], vec![0.0; vector.len()]);
    record::encode(codec, vector, &mut bytes).unwrap();
    record::decode(codec, &bytes, &mut back).unwrap();
    back
}

fn score(metric: Metric, user: &[f32], item: &[f32]) -> f64 {
    let pairs = || user.iter().zip(item).map(|(&x, &y)| (f64::from(x), f64::from(y)));
    match metric {
        Metric::L2 => -pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f64>(),
        Metric::Dot | Metric::Cosine => pairs().map(|(x, y)| x * y).sum(),
    }
}

/// The best rows, every item scored by these vectors.
fn best(metric: Metric, user: &[f32], items: &[Vec<f32>], seen: &[u32]) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..items.len() as u32).filter(|row| !seen.contains(row)).collect();
    rows.sort_by(|&a, &b| score(metric, user, &items[b as usize]).total_cmp(&score(metric, user, &items[a as usize])));
    rows.truncate(K);
    rows
}

/// Mean recall, hit rate and NDCG, slowly.
fn slowly(metric: Metric, items: &[Vec<f32>], users: &[Vec<f32>], codecs: (Codec, Codec), cases: &[Case]) -> [f64; 3] {
    let kept: Vec<Vec<f32>> = items.iter().map(|item| rounded(codecs.0, item)).collect();
    let recall = users.iter().map(|user| {
        let truth: BTreeSet<u32> = best(metric, user, items, &[]).into_iter().collect();
        let found = best(metric, &rounded(codecs.1, user), &kept, &[]);
        found.iter().filter(|row| truth.contains(row)).count() as f64 / K as f64
    });
    let mut sums = [recall.sum::<f64>() / users.len() as f64, 0.0, 0.0];
    for case in cases {
        let found = best(metric, &rounded(codecs.1, &users[case.user as usize]), &kept, &case.seen);
        let discount = |place: usize| std::f64::consts::LN_2 / (place as f64 + 2.0).ln();
        let places: Vec<usize> = (0..found.len()).filter(|&at| case.wanted.contains(&found[at])).collect();
        let ideal: f64 = (0..case.wanted.len().min(K)).map(discount).sum();
        sums[1] += places.len() as f64 / case.wanted.len() as f64 / cases.len() as f64;
        sums[2] += places.into_iter().map(discount).sum::<f64>() / ideal / cases.len() as f64;
    }
    sums
}

fn prepared(metric: Metric, values: &[f32]) -> Vec<Vec<f32>> {
    let mut rows: Vec<Vec<f32>> = values.chunks(DIM).map(<[f32]>::to_vec).collect();
    rows.iter_mut().for_each(|row| metric.prepare(row));
    rows
}

/// What exact vectors are worth.
fn finest(table: &[Exact]) -> Worth {
    let form = ItemForm { codec: Codec::F32, finer: None };
    table.iter().find(|exact| (exact.items, exact.users) == (form, Codec::F32)).unwrap().worth
}

fn means(worth: &Worth) -> [f64; 3] {
    [worth.recall.mean, worth.hit_rate.unwrap().mean, worth.ndcg.unwrap().mean]
}

/// Users 0, 3, 6, ... have one to four held-out items among those that they like, and have seen others of those.
fn cases(items: &[Vec<f32>], users: &[Vec<f32>]) -> Vec<Case> {
    let case = |user: usize| {
        let liked = best(Metric::Dot, &users[user], items, &[]);
        let mut wanted: Vec<u32> = liked[..=user % 4].iter().map(|&row| (row + (user % 2) as u32) % 700).collect();
        let mut seen: Vec<u32> = liked[5..8].iter().copied().filter(|row| !wanted.contains(row)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        seen.sort_unstable();
        Case { user: user as u32, wanted, seen }
    };
    (0..users.len()).step_by(3).map(case).collect()
}

#[test]
fn every_pair_of_codecs_is_worth_what_scoring_one_by_one_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (items, users) = (numbers(ITEMS * DIM, 3), numbers(USERS * DIM, 4));
    write_npy(&path("items.npy"), &items, DIM);
    write_npy(&path("users.npy"), &users, DIM);
    let open = |name| Vectors::open(&path(name)).unwrap();
    for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
        let (items, users) = (prepared(metric, &items), prepared(metric, &users));
        let cases = cases(&items, &users);
        let (item_file, user_file) = (open("items.npy"), open("users.npy"));
        let spec = QualitySpec { items: &item_file, ids: None, users: &user_file, metric, k: K, cases: &cases };
        let mut last = 0.0;
        let jury = Jury::new(spec).unwrap();
        let table = jury.exact(&mut |part| {
            assert!(part >= last && part <= 1.0);
            last = part;
        });
        let table = table.unwrap();
        assert_eq!((last, jury.users(), table.len()), (1.0, USERS, 24));
        for exact in &table {
            // What residuals leave does not show: their items are as good as exact, but for candidates that were lost.
            let kept = if exact.items.finer.is_some() { Codec::F32 } else { exact.items.codec };
            let slow = slowly(metric, &items, &users, (kept, exact.users), &cases);
            let lost = if exact.items.finer.is_some() { 0.03 } else { 0.0 };
            // A record's scale is rounded and a row's is not: codes may differ by one.
            let near = if kept == Codec::F32 && exact.users != Codec::Int8 { 1e-9 } else { 0.02 };
            for (got, slow) in means(&exact.worth).into_iter().zip(slow) {
                assert!((got - slow).abs() <= near + lost, "{metric} {exact:?}: {got} for {slow}");
            }
        }
        let finest = finest(&table);
        assert_eq!(finest.recall.mean, 1.0);
        assert_eq!(finest.recall.against(0.99), Verdict::Open, "90 users cannot tell 0.99");
    }
}

#[test]
fn on_bundled_data_the_index_is_worth_what_it_measured_of_itself() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian");
    let open = |name: &str| Vectors::open(&data.join(name)).unwrap();
    let (items, users) = (open("items.npy"), open("users.npy"));
    let item_ids = Ids::open(&data.join("items.parquet")).unwrap();
    let user_ids = Ids::open(&data.join("users.txt")).unwrap();
    let (held, seen) = (data.join("heldout.parquet"), data.join("train.parquet"));
    let cases = read_cases(&held, Some(&seen), &user_ids.index(), &item_ids.index(), 2000).unwrap();
    assert_eq!(cases.len(), 2000);
    let folder = tempfile::tempdir().unwrap();
    let spec = BuildSpec { ids: Some(&item_ids), ..BuildSpec::new(&items, Metric::Dot) };
    let spec = BuildSpec { users: Some(&users), ..spec };
    let (index, _) = build(&spec, &folder.path().join("debian.tng"), &|_| ()).unwrap();
    let spec =
        QualitySpec { items: &items, ids: Some(&item_ids), users: &users, metric: Metric::Dot, k: 10, cases: &cases };
    let jury = Jury::new(spec).unwrap();
    let served = jury.served(&index, &mut |_| ()).unwrap();
    let ladder = &index.profile().rungs[..served.len() / 4];
    assert!(ladder.len() >= 3, "{served:?}");
    for rung in ladder {
        let served = served.iter().find(|s| (s.ef, s.users) == (rung.ef, Codec::F32)).unwrap();
        let recall = served.worth.recall;
        // The profile's is an estimate as well, of half as many users: between the two lies what either may be off by.
        let off = (recall.high - recall.low) * (1.0 + f64::sqrt(2.0)) / 2.0;
        assert!((recall.mean - rung.recall_at_10).abs() <= off, "{rung:?} {recall:?}");
    }
    let exact = finest(&jury.exact(&mut |_| ()).unwrap());
    let hits = exact.hit_rate.unwrap();
    // data/debian/README.md
    assert!(hits.low <= 0.571 && 0.571 <= hits.high, "{hits:?}");
    let ndcg = exact.ndcg.unwrap();
    assert!(0.2 < ndcg.mean && ndcg.mean < hits.mean, "{ndcg:?}");
    // no loss, and no more certainty of it than so many users give
    let lost = exact.ndcg_lost.unwrap();
    assert!(lost > 0.0 && lost < 0.01, "{lost}");
    let little = served.iter().find(|s| (s.ef, s.users) == (10, Codec::Int4)).unwrap().worth.ndcg_lost.unwrap();
    assert!(little > 2.0 * lost, "{little}");
}

#[test]
fn an_index_of_other_items_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_npy(&path("items.npy"), &numbers(60 * DIM, 3), DIM);
    write_npy(&path("fewer.npy"), &numbers(50 * DIM, 3), DIM);
    let (items, fewer) = (Vectors::open(&path("items.npy")).unwrap(), Vectors::open(&path("fewer.npy")).unwrap());
    let build = |items, ids| {
        let spec = BuildSpec { ids, ..BuildSpec::new(items, Metric::Dot) };
        build(&spec, &path("items.tng"), &|_| ()).unwrap().0
    };
    let refusal = |index: Index| {
        let spec = QualitySpec { items: &items, ids: None, users: &items, metric: Metric::Dot, k: 10, cases: &[] };
        Jury::new(spec).unwrap().served(&index, &mut |_| ()).unwrap_err()
    };
    assert!(matches!(refusal(build(&fewer, None)), CatalogError::Input(_)));
    let ids = Ids::U64((1000..1060).collect());
    let error = refusal(build(&items, Some(&ids)));
    assert!(error.to_string().contains("does not have item 0"), "{error}");
}
