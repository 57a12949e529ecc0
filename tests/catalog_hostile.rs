//! Index files that are damaged, or forged under valid checksums: refused, or answered from without a panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonnage::catalog::{BuildSpec, CatalogError, Index, QueryVector, TagFilter, build};
use tonnage::codec::{Codec, Metric, record};
use tonnage::file::{Mapped, Tag, Writer};
use tonnage::graph::check::unreachable;
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::{Id, Ids};

use self::items::Random;

#[path = "support/items.rs"]
mod items;

const N: usize = 60;
const DIM: usize = 8;
const M: usize = 4;
/// The sections that a reader cannot do without, under any metric. The others may be absent or of another length.
const NEEDED: [&str; 12] = [
    "meta", "codes", "scales", "finer", "links", "upper", "ids", "id-text", "id-order", "tag-text", "tag-ends",
    "tag-item",
];

/// The names and bytes of a file's sections, in order.
type Sections = Vec<(String, Vec<u8>)>;

/// A folder with a small index in it that has every kind of section.
fn small(metric: Metric) -> (TempDir, Index) {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(11);
    let items = items::vectors(folder.path(), "items", DIM, &random.normals(N * DIM));
    let users = items::vectors(folder.path(), "users", DIM, &random.normals(20 * DIM));
    let ids = Ids::Text((0..N).map(|row| if row % 5 == 0 { row.to_string() } else { format!("ä-{row}") }).collect());
    let evens: Vec<u32> = (0..N as u32).step_by(2).collect();
    let tags = items::tags(&[("blue", &evens), ("new", &[3, 4, 59])]);
    let popularity: Vec<f32> = (0..N).map(|_| random.uniform()).collect();
    let spec = BuildSpec {
        ids: Some(&ids),
        tags: Some(&tags),
        popularity: Some(&popularity),
        users: Some(&users),
        metric,
        graph: BuildOptions { m: M, ef_construction: 40, seed: 3 },
        profile: true,
        ..items::spec(&items)
    };
    let (index, _) = build(&spec, &folder.path().join("small.tng"), &|_| ()).unwrap();
    (folder, index)
}

/// Opens bytes as an index. The file is removed first thing, else the next write truncates it, for which some file
/// systems wait for the disk.
fn open_bytes(folder: &Path, name: usize, bytes: &[u8]) -> Result<Index, CatalogError> {
    let path = folder.join(format!("{name}.tng"));
    std::fs::write(&path, bytes).unwrap();
    let opened = Index::open(&path);
    std::fs::remove_file(&path).unwrap();
    opened
}

// ---------------------------------------------------------------------------------------------- damage

#[test]
fn every_flipped_byte_and_every_truncation_is_refused() {
    let (folder, index) = small(Metric::Dot);
    let bytes = std::fs::read(index.path()).unwrap();
    assert!((6_000..16_000).contains(&bytes.len()), "{}", bytes.len());

    let flips = (0..bytes.len() * 3).into_par_iter().filter(|&case| {
        let mut damaged = bytes.clone();
        damaged[case / 3] ^= [0x01, 0x80, 0xFF][case % 3];
        open_bytes(folder.path(), case, &damaged).is_err()
    });
    let flips = flips.count();
    let cut = |&len: &usize| open_bytes(folder.path(), len, &bytes[..len]).is_err();
    let truncations = (0..bytes.len()).into_par_iter().filter(cut).count();

    println!("{flips} flips and {truncations} truncations of {} bytes refused", bytes.len());
    assert_eq!((flips, truncations), (3 * bytes.len(), bytes.len()));
    open_bytes(folder.path(), 0, &bytes).unwrap();
}

// ---------------------------------------------------------------------------------------------- forgery

/// One altered file: what was done, its sections, and whether it must be refused.
struct Forgery {
    what: String,
    sections: Sections,
    refused: bool,
}

/// Makes forgeries of one file.
struct Forger {
    sections: Sections,
    made: Vec<Forgery>,
}

impl Forger {
    fn of(index: &Index) -> Self {
        let file = Mapped::open(index.path()).unwrap();
        let sections =
            file.sections().map(|info| (info.tag.to_string(), file.section(info.tag).unwrap().to_vec())).collect();
        Self { sections, made: Vec::new() }
    }

    fn bytes(&self, tag: &str) -> Vec<u8> {
        self.sections.iter().find(|(name, _)| name == tag).unwrap().1.clone()
    }

    fn numbers<T: bytemuck::Pod>(&self, tag: &str) -> Vec<T> {
        self.bytes(tag).chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    fn put(&mut self, refused: bool, tag: &str, what: &str, bytes: Vec<u8>) {
        let mut sections = self.sections.clone();
        sections.iter_mut().find(|(name, _)| name == tag).unwrap().1 = bytes;
        self.made.push(Forgery { what: format!("{tag}: {what}"), sections, refused });
    }

    fn may(&mut self, tag: &str, what: &str, bytes: Vec<u8>) {
        self.put(false, tag, what, bytes);
    }

    fn must(&mut self, tag: &str, what: &str, bytes: Vec<u8>) {
        self.put(true, tag, what, bytes);
    }

    /// A section of numbers with the one at `at` replaced; refused for it.
    fn number<T: bytemuck::Pod + std::fmt::Debug>(&mut self, tag: &str, at: usize, value: T) {
        let mut bytes = self.bytes(tag);
        bytes[at * size_of::<T>()..][..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
        self.must(tag, &format!("{value:?} at {at}"), bytes);
    }

    /// A field of a section of JSON replaced, or removed when `value` is null.
    fn field(&mut self, refused: bool, tag: &str, name: &str, value: Value) {
        let mut fields: serde_json::Map<String, Value> = serde_json::from_slice(&self.bytes(tag)).unwrap();
        let what = format!("{name} = {value}");
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.to_owned(), value);
        }
        self.put(refused, tag, &what, serde_json::to_vec(&fields).unwrap());
    }
}

fn forge_links(forger: &mut Forger, layers: &[u32]) {
    for at in [0, 1, 2 * M, N * 2 * M - 1] {
        for link in [N as u32, N as u32 + 1, 1 << 31, u32::MAX] {
            forger.number("links", at, link);
        }
    }
    // A layer above admits its own nodes and no other of the graph's.
    let mut end = 0;
    for &len in layers {
        end += len as usize * M;
        for link in [len, N as u32 - 1, u32::MAX] {
            forger.number("upper", end - 1, link);
        }
    }
    let mut random = Random(5);
    let links = forger.numbers::<u32>("links");
    for round in 0..40 {
        let mut swapped = links.clone();
        for _ in 0..=8 * round {
            swapped.swap(random.below(links.len()), random.below(links.len()));
        }
        forger.may("links", &format!("{round} swaps"), bytemuck::cast_slice(&swapped).to_vec());
        let drawn: Vec<u32> = links.iter().map(|_| random.below(N) as u32).collect();
        forger.may("links", "drawn anew", bytemuck::cast_slice(&drawn).to_vec());
    }
    for place in 0..2 * M {
        let selves = (0..links.len()).map(|at| if at % (2 * M) == place { (at / (2 * M)) as u32 } else { links[at] });
        let selves: Vec<u32> = selves.collect();
        forger.may("links", &format!("itself at place {place}"), bytemuck::cast_slice(&selves).to_vec());
    }
    for to in [0, 1, N as u32 - 1] {
        forger.may("links", &format!("all to {to}"), bytemuck::cast_slice(&vec![to; links.len()]).to_vec());
    }
    let alone: Vec<u32> = (0..links.len()).map(|at| (at / (2 * M)) as u32).collect();
    forger.may("links", "none", bytemuck::cast_slice(&alone).to_vec());
    let upper = vec![0; forger.bytes("upper").len()];
    forger.may("upper", "all to 0", upper);
}

fn forge_json(forger: &mut Forger, layers: &[u32]) {
    for value in [json!(0), json!(N - 1), json!(N + 1), json!(u32::MAX), json!(-1), json!(1e300), json!("60")] {
        forger.field(true, "meta", "items", value);
    }
    for value in [json!(0), json!(17), json!(65_537), json!(u32::MAX), json!(null)] {
        forger.field(true, "meta", "dim", value);
    }
    for value in 1..=16 {
        // The padded rows of int8 hold any of these dimensions, those of f16 do not.
        forger.field(value != DIM, "meta", "dim", json!(value));
    }
    for value in [0, 1, 3, 5, 128, 129, u32::MAX] {
        forger.field(true, "meta", "m", json!(value));
    }
    let longer: Vec<u32> = [layers, &[1]].concat();
    for value in [json!([]), json!([0]), json!([61]), json!(longer), json!([u32::MAX, u32::MAX]), json!(vec![1; 17])] {
        forger.field(true, "meta", "layers", value);
    }
    let reversed: Vec<u32> = layers.iter().rev().copied().collect();
    forger.field(true, "meta", "layers", json!(reversed));
    for value in [json!("int4"), json!("f16"), json!("f32"), json!("int9"), json!(null)] {
        forger.field(true, "meta", "codec", value);
    }
    for value in [json!("int8"), json!("int4"), json!("f32")] {
        forger.field(true, "meta", "finer", value);
    }
    forger.field(false, "meta", "finer", json!(null));
    forger.field(false, "meta", "metric", json!("cosine"));
    forger.field(true, "meta", "metric", json!("hamming"));
    forger.field(true, "meta", "text_ids", json!(false));
    forger.field(true, "meta", "tags", json!(3));
    forger.field(true, "meta", "colour", json!("blue"));
    for value in [json!(0), json!(u64::MAX), json!(-1)] {
        forger.field(value == json!(-1), "meta", "seed", value);
    }
    forger.field(true, "profile", "colour", json!("blue"));
    forger.field(true, "profile", "source", json!("guessed"));
    forger.field(true, "profile", "rungs", json!({}));
    forger.field(false, "profile", "rungs", json!([]));
    let rung = |ef: u32| json!({"ef": ef, "recall_at_10": 2.0, "recall_at_100": -1.0, "distances": 1e300});
    forger.field(false, "profile", "rungs", json!([rung(u32::MAX), rung(0)]));
    for (tag, text) in [("meta", "profile"), ("profile", "meta")] {
        let other = forger.bytes(text);
        forger.must(tag, "the other's", other);
        let deep = ["[".repeat(100_000), "{\"a\":".repeat(100_000), "nul".into(), "1".repeat(10_000), "\0".into()];
        for text in deep {
            forger.must(tag, "not what it is", text.into_bytes());
        }
    }
}

fn forge_numbers(forger: &mut Forger, metric: Metric) {
    for at in [0, 7, N - 1] {
        for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e16, f32::MAX] {
            forger.number("scales", at, scale);
        }
        for code in [half::f16::NAN, half::f16::INFINITY, half::f16::NEG_INFINITY] {
            forger.number("finer", at * DIM + 1, code);
        }
        if metric == Metric::L2 {
            for bias in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
                forger.number("biases", at, bias);
            }
        }
    }
    for scale in [0.0, -1.0, 1e15, -1e15, 1e-40_f32] {
        forger.may("scales", &format!("all {scale}"), bytemuck::cast_slice(&[scale; N]).to_vec());
    }
    for code in [0x80, 0x7F, 0x00] {
        let len = forger.bytes("codes").len();
        forger.may("codes", &format!("all {code:#x}"), vec![code; len]);
    }
    forger.may("finer", "all largest", [half::f16::MAX.to_le_bytes(); N * DIM].concat());
    if metric == Metric::L2 {
        for bias in [0.0, 1e30, -1e34_f32] {
            forger.may("biases", &format!("all {bias}"), bytemuck::cast_slice(&[bias; N]).to_vec());
        }
    } else {
        forger.must("biases", "for a metric without", vec![0; N * 4]);
    }
}

fn forge_facts(forger: &mut Forger) {
    let ends = forger.numbers::<u64>("ids");
    let last = ends[N - 1];
    for (at, end) in [(0, u64::MAX), (0, last + 1), (5, 0), (N - 1, 0), (N - 1, last - 1), (N - 1, last + 1)] {
        forger.number("ids", at, end);
    }
    let wide = forger.bytes("id-text").iter().position(|&byte| byte == 0xC3).unwrap() as u64;
    let node = ends.iter().position(|&end| end > wide).unwrap();
    forger.number("ids", node, wide + 1); // within the ä
    let text = forger.bytes("id-text");
    for (at, byte) in [(0, 0xFF), (text.len() - 1, 0xC3), (wide as usize, b'x')] {
        let mut text = text.clone();
        text[at] = byte;
        forger.must("id-text", &format!("{byte:#x} at {at}"), text);
    }
    forger.must("id-text", "all alike", vec![b'7'; text.len()]);
    let order = forger.numbers::<u32>("id-order");
    for node in [N as u32, u32::MAX, order[0]] {
        forger.number("id-order", 1, node);
    }
    let reversed: Vec<u32> = order.iter().rev().copied().collect();
    forger.must("id-order", "reversed", bytemuck::cast_slice(&reversed).to_vec());

    for (at, end) in [(0, 8), (0, u64::MAX), (1, 0), (1, 34), (2, 6), (2, 8), (3, 32), (3, 34), (3, u64::MAX)] {
        forger.number("tag-ends", at, end);
    }
    for (at, node) in [(0, N as u32), (0, u32::MAX), (1, 0), (29, 0), (32, u32::MAX)] {
        forger.number("tag-item", at, node);
    }
    for text in ["newblue", "blueblu", "\0\0\0\0\0\0\0", "blue\u{e4}x"] {
        let refused = text != "blue\u{e4}x";
        forger.put(refused, "tag-text", text, text.as_bytes().to_vec());
    }
    forger.must("tag-text", "not UTF-8", b"blu\xffnew".to_vec());
    for (at, node) in [(0, N as u32), (N - 1, u32::MAX), (N / 2, 1 << 31)] {
        forger.number("popular", at, node);
    }
}

/// Each section absent, empty, shorter, longer and filled with chance.
fn forge_whole(forger: &mut Forger, rounds: usize) {
    let mut random = Random(17);
    for (at, (tag, bytes)) in forger.sections.clone().into_iter().enumerate() {
        let mut sections = forger.sections.clone();
        sections.remove(at);
        let refused = NEEDED.contains(&&*tag);
        forger.made.push(Forgery { what: format!("{tag}: absent"), sections, refused });
        forger.put(refused, &tag, "empty", Vec::new());
        for len in [1, 2, 4, 8, 64, bytes.len() / 2].map(|less| bytes.len().saturating_sub(less)) {
            forger.put(refused && len < bytes.len(), &tag, &format!("cut to {len}"), bytes[..len].to_vec());
        }
        for more in [1, 2, 4, 8, 16, 64] {
            let longer = [&bytes[..], &vec![0; more]].concat();
            forger.put(refused, &tag, &format!("{more} zeros more"), longer);
        }
        for round in 0..rounds {
            let mut some = bytes.clone();
            for _ in 0..some.len().min(1 << (round % 8)) {
                let place = random.below(some.len());
                some[place] = random.next() as u8;
            }
            forger.may(&tag, &format!("some by chance, round {round}"), some);
            let all = bytes.iter().map(|_| random.next() as u8).collect();
            forger.may(&tag, &format!("all by chance, round {round}"), all);
        }
    }
}

/// Asks an index everything there is to ask, and checks what must hold whatever is in the file.
fn exercise(index: &Index) {
    let (n, dim) = (index.len(), index.dim());
    let mut random = Random(23);
    let basis = (0..dim).map(|at| f32::from(at == 0)).collect();
    let queries: [Vec<f32>; 5] = [random.normals(dim), random.normals(dim), basis, vec![0.0; dim], vec![-1e15; dim]];
    let exclude: Vec<u32> = (0..n as u32).step_by(3).collect();
    let (blue, passing) =
        index.bits(&TagFilter { any: vec!["blue".into()], none: vec!["new".into()] }).unwrap_or_default();
    let bits = (!blue.is_empty()).then_some((&blue[..], passing));
    let filters = [Filter::default(), Filter { bits: None, exclude: &exclude }, Filter { bits, exclude: &exclude }];
    let mut record = vec![0; Codec::Int8.bytes_per_vector(dim)];
    record::encode(Codec::Int8, &queries[0], &mut record).unwrap();
    let stored = QueryVector::Record(Codec::Int8, &record);
    for query in queries.iter().map(|query| QueryVector::Floats(query)).chain([stored]) {
        // With few nodes to expand the graph is walked, with many the rows are scanned.
        for (k, ef) in [(1, 1), (3, 10), (10, 14), (10, 1_000), (n + 5, 1)] {
            for filter in filters {
                let (hits, _) = index.search(query, SearchOptions { k, ef }, filter).unwrap();
                let mut nodes: Vec<u32> = hits.iter().map(|hit| hit.node).collect();
                nodes.sort_unstable();
                nodes.dedup();
                assert!(hits.len() <= k && nodes.len() == hits.len(), "a hit came twice");
                assert!(hits.iter().all(|hit| (hit.node as usize) < n && hit.score.is_finite()), "{hits:?}");
                assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score), "out of order: {hits:?}");
                assert!(nodes.iter().all(|node| filter.exclude.binary_search(node).is_err()));
                assert!(k <= n || filter.bits.is_some() || hits.len() == n - filter.exclude.len());
            }
        }
    }
    for node in 0..n as u32 {
        assert_eq!(index.find(index.id(node)), Some(node));
        index.tags_of(node);
    }
    assert_eq!(index.find(Id::Text("nobody")), None);
    assert!(index.popular().iter().all(|&node| (node as usize) < n));
    let graph = index.graph();
    assert!(graph.mean_degree() <= 2.0 * f64::from(index.meta().m) && unreachable(&graph) <= n);
    let _ = (index.profile().ef_for(0.9), index.profile().default_ef(), index.sections(), index.fingerprint());
}

/// Opens every forgery and asks those that open; returns how many were refused and how many opened.
fn try_all(folder: &Path, forgeries: &[Forgery]) -> (usize, usize) {
    let outcomes: Vec<Result<bool, String>> = forgeries
        .par_iter()
        .enumerate()
        .map(|(at, forgery)| {
            let path = folder.join(format!("forged-{at}.tng"));
            let mut writer = Writer::create(&path).unwrap();
            for (tag, bytes) in &forgery.sections {
                writer.section_bytes(Tag::new(tag), bytes).unwrap();
            }
            writer.finish().unwrap();
            let opened = catch_unwind(AssertUnwindSafe(|| Index::open(&path).map(|index| exercise(&index)).is_ok()));
            std::fs::remove_file(&path).unwrap();
            match opened {
                Err(_) => Err(format!("panicked: {}", forgery.what)),
                Ok(true) if forgery.refused => Err(format!("opened: {}", forgery.what)),
                Ok(opened) => Ok(opened),
            }
        })
        .collect();
    let faults: Vec<&String> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(faults.is_empty(), "{} of {}: {faults:#?}", faults.len(), forgeries.len());
    let opened = outcomes.iter().filter(|outcome| **outcome == Ok(true)).count();
    (outcomes.len() - opened, opened)
}

#[test]
fn forged_sections_under_valid_checksums_are_refused_or_harmless() {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for metric in [Metric::Dot, Metric::L2] {
        let (folder, index) = small(metric);
        exercise(&index);
        assert!(index.meta().layers.len() >= 2, "{:?}", index.meta().layers);
        let layers = index.meta().layers.clone();
        let mut run = |kind, forge: &dyn Fn(&mut Forger)| {
            let mut forger = Forger::of(&index);
            forge(&mut forger);
            let (refused, opened) = try_all(folder.path(), &forger.made);
            let counts = kinds.entry(kind).or_default();
            *counts = (counts.0 + refused, counts.1 + opened);
        };
        run("links", &|forger| forge_links(forger, &layers));
        run("json", &|forger| forge_json(forger, &layers));
        run("numbers", &|forger| forge_numbers(forger, metric));
        run("facts", &forge_facts);
        run("whole", &|forger| forge_whole(forger, 16));
    }
    println!("(refused, opened and answered): {kinds:?}");
    let refused: usize = kinds.values().map(|counts| counts.0).sum();
    let opened: usize = kinds.values().map(|counts| counts.1).sum();
    println!("{refused} refused, {opened} opened and answered");
    assert!(refused > 1_400 && opened > 350);
}
