//! Index files of every version of the format stay readable and keep their answers.
//!
//! `data/golden/` holds small index files and, in `expected.json`, what they answered when they were made. To add the
//! files of a new format, add their recipes and run `TONNAGE_GOLDEN=write cargo test --test catalog_golden`. The files
//! of a released format are never written anew: when a later builder makes other bytes from the same inputs, their
//! recipes leave [`recipes_still_make_the_same_bytes`] and the files stay.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tonnage::catalog::{BuildSpec, Index, QueryVector, TagFilter, build};
use tonnage::codec::{Codec, Metric};
use tonnage::file::{FORMAT_VERSION, Mapped};
use tonnage::graph::check::unreachable;
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::{Id, Ids};

use self::items::{Random, spec, tags, vectors};

#[path = "support/items.rs"]
mod items;

const INT8: &str = "v1-int8.tng";
const INT4: &str = "v1-int4-l2-text.tng";
const N: usize = 50;
const DIM: usize = 6;

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
    let spec = match name {
        INT8 => BuildSpec {
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
            finer: None,
            graph,
            release: "gülden",
            ..spec(&items)
        },
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
    let blue = index.bits(&TagFilter { any: vec!["blue".into()], none: Vec::new() }).ok();
    let mut random = Random(77);
    let queries: Vec<Vec<f32>> = (0..4).map(|_| random.normals(DIM)).collect();
    let mut answers = Vec::new();
    // An `ef` of 4 walks the graph, one of 200 scans the rows.
    for (query, ef) in queries.into_iter().flat_map(|query| [(query.clone(), 4), (query, 200)]) {
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
    let tagged = (0..index.len() as u32).map(|node| (id(node), index.tags_of(node)));
    let tags = tagged.filter(|(_, tags)| !tags.is_empty());
    Expected {
        fingerprint: format!("{:016x}", index.fingerprint()),
        format: u32::from_le_bytes(bytes[8..12].try_into().unwrap()),
        items: index.len(),
        mean_degree: index.graph().mean_degree(),
        popular: index.popular().iter().take(5).map(|&node| id(node)).collect(),
        tags: tags.map(|(id, tags)| (id, tags.into_iter().map(str::to_owned).collect())).collect(),
        ef_for: index.profile().ef_for(0.9),
        answers,
    }
}

#[test]
fn golden_files_open_and_answer_as_they_did() {
    if std::env::var_os("TONNAGE_GOLDEN").is_some_and(|value| value == "write") {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(golden("")).unwrap();
        let made = [INT8, INT4].map(|name| {
            make(name, folder.path(), &golden(name));
            (name, ask(&golden(name)))
        });
        let json = serde_json::to_string_pretty(&BTreeMap::from(made)).unwrap();
        fs::write(golden("expected.json"), json + "\n").unwrap();
    }
    let json = fs::read_to_string(golden("expected.json")).unwrap();
    let all: BTreeMap<String, Expected> = serde_json::from_str(&json).unwrap();
    let files = fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.filter(|name| name != "expected.json").collect();
    files.sort();
    assert!(files.iter().eq(all.keys()), "{files:?} and {:?}", all.keys());
    assert!(all.values().any(|expected| expected.format == FORMAT_VERSION), "no golden file of this format");
    for (name, mut expected) in all {
        let mut got = ask(&golden(&name));
        for (expected, got) in expected.answers.iter_mut().zip(&mut got.answers) {
            // Float kernels add in another order on another processor; the ranking is the same.
            for (expected, got) in expected.scores.iter_mut().zip(&mut got.scores) {
                assert!((*expected - *got).abs() < 1e-5, "{name}: {expected} became {got}");
                *got = *expected;
            }
        }
        assert_eq!(got, expected, "{name}");
    }
}

#[test]
fn golden_files_find_their_ids() {
    let index = Index::open(&golden(INT8)).unwrap();
    for row in 0..N as u64 {
        let node = index.find(Id::U64(row * row + 1_000)).unwrap();
        assert_eq!(index.id(node), Id::U64(row * row + 1_000));
    }
    assert_eq!(index.find(Id::U64(1_002)), None);
    let index = Index::open(&golden(INT4)).unwrap();
    for row in 0..N {
        let id = if row == 9 { "42".to_owned() } else { format!("ítem-{row}") };
        assert_eq!(index.id(index.find(Id::Text(&id)).unwrap()).to_string(), id);
    }
    assert_eq!((index.find(Id::U64(42)).is_some(), index.find(Id::Text("ítem-9"))), (true, None));
}

#[test]
fn recipes_still_make_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in [INT8, INT4] {
        let path = folder.path().join(name);
        make(name, folder.path(), &path);
        let (made, kept) = (Mapped::open(&path).unwrap(), Mapped::open(&golden(name)).unwrap());
        let sections = |file: &Mapped| file.sections().map(|info| (info.tag.to_string(), info.checksum)).collect();
        let (sections, before): (Vec<_>, Vec<_>) = (sections(&made), sections(&kept));
        assert_eq!(sections, before, "{name} is built to other sections");
        assert!(fs::read(&path).unwrap() == fs::read(golden(name)).unwrap(), "{name} is built to other bytes");
    }
}
