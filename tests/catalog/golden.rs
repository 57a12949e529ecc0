//! Index files of every version of the format stay readable and keep their answers.
//!
//! `data/golden/` holds small index files and, in `expected.json`, what they answered when they were made. To write the
//! files of the present recipes, and no other, run
//! `TONNAGE_GOLDEN=write cargo test --test catalog_golden golden_files_open`. The files of a released format are never
//! written anew: when a later builder makes other bytes from the same inputs, their recipes are removed and the files
//! stay, as those of format 1 have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tonnage::catalog::{BuildSpec, Index, QueryVector, build};
use tonnage::codec::{Codec, Metric};
use tonnage::file::{FORMAT_VERSION, Mapped};
use tonnage::graph::check::unreachable;
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::{Id, Ids};

use crate::forge::tagged;
use crate::items::{Random, spec, tags, vectors};

const V1_INT8: &str = "v1-int8.tng";
const V1_INT4: &str = "v1-int4-l2-text.tng";
/// Residuals and a scale for all rows; number ids, tags, popularity, a profile.
const INT8: &str = "v2-int8.tng";
/// Residuals of the coarsest codes, biases, text ids.
const INT4: &str = "v2-int4-l2-text.tng";
/// Halves, and a scale for each row.
const HALVES: &str = "v2-int8-f16.tng";
/// Numbers: prices of all items, years of some.
const NUMBERS: &str = "v2-numbers.tng";
const RECIPES: [&str; 4] = [INT8, INT4, HALVES, NUMBERS];
const N: usize = 50;
const DIM: usize = 6;
/// An `ef` that walks the graph, and one that scans the rows.
const WALK: usize = 4;
const SCAN: usize = 200;

/// Below the middle of the numbers of a golden file, both ends of it numbers that items have.
const RANGE: [f64; 2] = [-1.25, 3.75];

/// What one file answered.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Expected {
    fingerprint: String,
    format: u32,
    items: usize,
    mean_degree: f64,
    /// The ids of the most popular items.
    popular: Vec<String>,
    /// Tags of the item of each id.
    tags: BTreeMap<String, Vec<String>>,
    /// The smallest `ef` measured to reach recall@10 of 0.9.
    ef_for: Option<u32>,
    /// The ids of the items within [`RANGE`] of each field of numbers, by their number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    within: BTreeMap<String, Vec<String>>,
    answers: Vec<Answer>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Answer {
    query: Vec<f32>,
    ef: usize,
    /// Whether only items with the tag `blue` may be answered.
    filtered: bool,
    ids: Vec<String>,
    scores: Vec<f32>,
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden").join(name)
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_str(&fs::read_to_string(golden("expected.json")).unwrap()).unwrap()
}

/// Makes a golden file at `path`.
fn make(name: &str, folder: &Path, path: &Path) {
    let mut random = Random(2_026);
    let items = vectors(folder, "items", DIM, &random.normals(N * DIM));
    let users = vectors(folder, "users", DIM, &random.normals(30 * DIM));
    let numbers = Ids::U64((0..N as u64).map(|row| row * row + 1_000).collect());
    let texts = Ids::Text((0..N).map(|row| if row == 9 { "42".into() } else { format!("ítem-{row}") }).collect());
    let blue: Vec<u32> = (0..N as u32).step_by(3).collect();
    let tags = tags(&[("blue", &blue), ("new", &[2, 3, 49])]);
    let popularity: Vec<f32> = (0..N).map(|_| random.uniform()).collect();
    let graph = BuildOptions { m: 4, ef_construction: 40, seed: 7 };
    let mut far: Vec<f32> = random.normals(N * DIM);
    far[..DIM].iter_mut().for_each(|x| *x *= 10.0);
    let price = |row: u32| (row, f64::from(row * 13 % 32) * 0.625 - 5.0);
    let years = [(2, 0.5), (3, 1e300), (30, -1e-300), (49, 0.5)];
    let prices = crate::items::numbers(&[("price", &(0..N as u32).map(price).collect::<Vec<_>>()), ("year", &years)]);
    let uneven = vectors(folder, "uneven", DIM, &far);
    let spec = match name {
        INT8 => BuildSpec {
            finer: Some(Codec::Int8),
            ids: Some(&numbers),
            tags: Some(&tags),
            popularity: Some(&popularity),
            users: Some(&users),
            graph,
            release: "golden",
            profile: true,
            ..spec(&items)
        },
        INT4 => BuildSpec {
            ids: Some(&texts),
            metric: Metric::L2,
            codec: Codec::Int4,
            finer: Some(Codec::Int8),
            graph,
            release: "gülden",
            ..spec(&items)
        },
        NUMBERS => BuildSpec { numbers: Some(&prices), ids: Some(&numbers), graph, release: "numbers", ..spec(&items) },
        HALVES => BuildSpec { finer: Some(Codec::F16), graph, release: "halves", ..spec(&uneven) },
        _ => panic!("no recipe for {name}"),
    };
    build(&spec, path, &|_| ()).unwrap();
}

/// Asks a file what `expected.json` is about.
fn ask(path: &Path) -> Expected {
    let index = Index::open(path).unwrap();
    assert_eq!(unreachable(&index.graph()), 0);
    let id = |node: u32| index.id(node).to_string();
    let bytes = fs::read(path).unwrap();
    let blue = tagged(&index, "blue");
    let mut random = Random(77);
    let queries: Vec<Vec<f32>> = (0..4).map(|_| random.normals(DIM)).collect();
    let mut answers = Vec::new();
    for (query, ef) in queries.into_iter().flat_map(|query| [(query.clone(), WALK), (query, SCAN)]) {
        for bits in [None, blue.as_ref()] {
            let filter = Filter { bits: bits.map(|(bits, passing)| (&bits[..], *passing)), exclude: &[] };
            let options = SearchOptions { k: 4, ef };
            let (hits, _) = index.search(QueryVector::Floats(&query), options, filter).unwrap();
            let (ids, scores) = hits.iter().map(|hit| (id(hit.node), hit.score)).unzip();
            answers.push(Answer { query: query.clone(), ef, filtered: bits.is_some(), ids, scores });
            if blue.is_none() {
                break;
            }
        }
    }
    let with_tags = (0..index.len() as u32).map(|node| (id(node), index.tags_of(node)));
    let tags = with_tags.filter(|(_, tags)| !tags.is_empty());
    Expected {
        fingerprint: format!("{:016x}", index.fingerprint()),
        format: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
        items: index.len(),
        mean_degree: index.graph().mean_degree(),
        popular: index.popular().iter().take(5).map(|&node| id(node)).collect(),
        tags: tags.map(|(id, tags)| (id, tags.into_iter().map(str::to_owned).collect())).collect(),
        within: index
            .number_fields()
            .into_iter()
            .map(|numbers| (numbers.field.to_owned(), within(&index, numbers.field)))
            .collect(),
        ef_for: index.profile().ef_for(0.9),
        answers,
    }
}

fn within(index: &Index, field: &str) -> Vec<String> {
    let [min, max] = RANGE;
    index.range(field, min, max).unwrap().iter().map(|&node| index.id(node).to_string()).collect()
}

#[test]
fn golden_files_open_and_answer_as_they_did() {
    if std::env::var_os("TONNAGE_GOLDEN").is_some_and(|value| value == "write") {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(golden("")).unwrap();
        let mut all = expected();
        for name in RECIPES {
            make(name, folder.path(), &golden(name));
            all.insert(name.to_owned(), ask(&golden(name)));
        }
        let json = serde_json::to_string_pretty(&all).unwrap();
        fs::write(golden("expected.json"), json + "\n").unwrap();
    }
    let all = expected();
    let files = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.filter(|name| name != "expected.json").collect();
    files.sort();
    assert!(files.iter().eq(all.keys()), "{files:?} and {:?}", all.keys());
    let formats: BTreeSet<u32> = all.values().map(|expected| expected.format).collect();
    assert!(formats.into_iter().eq(1..=FORMAT_VERSION), "not every format has a golden file");
    for (name, expected) in all {
        let path = golden(&name);
        let (got, index) = (ask(&path), Index::open(&path).unwrap());
        assert_eq!(got.answers.len(), expected.answers.len(), "{name}");
        for (got, expected) in got.answers.iter().zip(&expected.answers) {
            same_answer(&name, &index, got, expected);
        }
        let without_answers = |from: Expected| Expected { answers: Vec::new(), ..from };
        assert_eq!(without_answers(got), without_answers(expected), "{name}");
    }
}

/// A scan answers as it did. A walk of little effort may find others when searches change, but scores them as a scan.
fn same_answer(name: &str, index: &Index, got: &Answer, expected: &Answer) {
    assert_eq!((&got.query, got.ef, got.filtered), (&expected.query, expected.ef, expected.filtered), "{name}");
    assert_eq!(got.ids.len(), expected.ids.len(), "{name}");
    // Float kernels add in another order on another processor; the ranking is the same.
    let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
    if got.ef == SCAN {
        assert_eq!(got.ids, expected.ids, "{name}");
        let pairs = got.scores.iter().zip(&expected.scores);
        assert!(pairs.clone().all(|(&got, &expected)| near(got, expected)), "{name}: {got:?}, {expected:?}");
        return;
    }
    let options = SearchOptions { k: N, ef: SCAN };
    let (all, _) = index.search(QueryVector::Floats(&got.query), options, Filter::default()).unwrap();
    for (id, &score) in got.ids.iter().zip(&got.scores) {
        let true_score = all.iter().find(|hit| index.id(hit.node).to_string() == *id).unwrap().score;
        assert!(near(score, true_score), "{name}: {id} scores {score}, alone {true_score}");
    }
    let kept = got.ids.iter().filter(|id| expected.ids.contains(id)).count();
    assert!(2 * kept >= expected.ids.len(), "{name}: {got:?}, {expected:?}");
}

#[test]
fn golden_files_find_their_ids() {
    for name in [V1_INT8, INT8] {
        let index = Index::open(&golden(name)).unwrap();
        for row in 0..N as u64 {
            let node = index.find(Id::U64(row * row + 1_000)).unwrap();
            assert_eq!(index.id(node), Id::U64(row * row + 1_000));
        }
        assert_eq!(index.find(Id::U64(1_002)), None);
    }
    for name in [V1_INT4, INT4] {
        let index = Index::open(&golden(name)).unwrap();
        for row in 0..N {
            let id = if row == 9 { "42".to_owned() } else { format!("ítem-{row}") };
            assert_eq!(index.id(index.find(Id::Text(&id)).unwrap()).to_string(), id);
        }
        assert_eq!((index.find(Id::U64(42)).is_some(), index.find(Id::Text("ítem-9"))), (true, None));
    }
}

/// The bytes of each section.
fn lengths(name: &str) -> BTreeMap<String, u64> {
    Mapped::open(&golden(name)).unwrap().sections().map(|info| (info.tag.to_string(), info.length)).collect()
}

#[test]
fn golden_files_hold_what_their_format_says() {
    for name in [V1_INT8, V1_INT4] {
        let lengths = lengths(name);
        assert!(lengths.contains_key("upper") && !lengths.contains_key("starts"), "{name}");
        assert_eq!((lengths["links"], lengths["scales"]), (N as u64 * 8 * 4, N as u64 * 4), "{name}");
    }
    for (name, scales, finer) in [(INT8, 1, 16), (INT4, 1, 16), (HALVES, N, 2 * DIM)] {
        let (lengths, index) = (lengths(name), Index::open(&golden(name)).unwrap());
        let rows = N as u64 + index.meta().layers.iter().map(|&len| u64::from(len)).sum::<u64>();
        assert!(!lengths.contains_key("upper") && lengths["starts"] == (rows + 1) * 4, "{name}");
        assert_eq!((lengths["scales"], lengths["finer"]), (scales as u64 * 4, (N * finer) as u64), "{name}");
    }
}

#[test]
fn golden_files_hold_their_numbers() {
    let index = Index::open(&golden(NUMBERS)).unwrap();
    let found =
        index.number_fields().into_iter().map(|numbers| (numbers.field, numbers.items, numbers.min, numbers.max));
    assert!(found.eq([("price", N, -5.0, 14.375), ("year", 4, -1e-300, 1e300)]));
    let lengths = lengths(NUMBERS);
    let numbers = N as u64 + 4;
    assert_eq!(
        ["num-text", "num-ends", "num-val", "num-item"].map(|tag| lengths[tag]),
        [9, 32, 8 * numbers, 4 * numbers]
    );
    let ids = |field, min, max| {
        let nodes = index.range(field, min, max).unwrap();
        nodes.iter().map(|&node| index.id(node).to_string()).collect::<Vec<_>>()
    };
    let row = |row: u64| (row * row + 1_000).to_string();
    assert_eq!(ids("year", 1.0, f64::INFINITY), [row(3)]);
    assert_eq!(ids("year", f64::NEG_INFINITY, 0.0), [row(30)]);
    assert_eq!(ids("year", 0.5_f64.next_up(), 1e300_f64.next_down()), [""; 0]);
    let mut both = ids("year", 0.5, 0.5);
    both.sort();
    assert_eq!(both, [row(2), row(49)]);
    for old in [V1_INT8, V1_INT4, INT8] {
        assert!(Index::open(&golden(old)).unwrap().number_fields().is_empty(), "{old}");
    }
}

#[test]
fn recipes_still_make_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in RECIPES {
        let path = folder.path().join(name);
        make(name, folder.path(), &path);
        let (made, kept) = (Mapped::open(&path).unwrap(), Mapped::open(&golden(name)).unwrap());
        let sections = |file: &Mapped| file.sections().map(|info| (info.tag.to_string(), info.checksum)).collect();
        let (sections, before): (Vec<_>, Vec<_>) = (sections(&made), sections(&kept));
        assert_eq!(sections, before, "{name} is built to other sections");
        assert!(fs::read(&path).unwrap() == fs::read(golden(name)).unwrap(), "{name} is built to other bytes");
    }
}
