//! Index files with a section or two altered under valid checksums, and everything there is to ask of what opens.
#![allow(dead_code, clippy::unwrap_used, reason = "each includer uses a part; a helper fails by panicking")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;
use tempfile::TempDir;
use tonnage::catalog::{BuildSpec, Index, QueryVector, build};
use tonnage::codec::{Codec, Metric, record};
use tonnage::file::{Mapped, Tag, Writer};
use tonnage::graph::check::unreachable;
use tonnage::graph::{BuildOptions, Filter, SearchOptions};
use tonnage::input::{Id, Ids};

use super::items::{self, Random};

pub const N: usize = 60;
pub const DIM: usize = 8;
pub const M: usize = 4;

/// The names and bytes of a file's sections, in order.
pub type Sections = Vec<(String, Vec<u8>)>;

/// What a small index is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    pub metric: Metric,
    pub codec: Codec,
    pub finer: Codec,
    /// Whether a scale serves all rows.
    pub shared: bool,
}

/// Each codec, finer codec, metric and number of scales at least once.
pub const KINDS: [Kind; 3] = [
    Kind { metric: Metric::Dot, codec: Codec::Int8, finer: Codec::Int8, shared: true },
    Kind { metric: Metric::L2, codec: Codec::Int8, finer: Codec::F16, shared: false },
    Kind { metric: Metric::Cosine, codec: Codec::Int4, finer: Codec::Int8, shared: true },
];

/// A folder with a small index in it that has every kind of section.
pub fn small(kind: Kind) -> (TempDir, Index) {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(11);
    let mut vectors = random.normals(N * DIM);
    if !kind.shared {
        vectors[..DIM].iter_mut().for_each(|x| *x *= 20.0);
    }
    let items = items::vectors(folder.path(), "items", DIM, &vectors);
    let users = items::vectors(folder.path(), "users", DIM, &random.normals(20 * DIM));
    let ids = Ids::Text((0..N).map(|row| if row % 5 == 0 { row.to_string() } else { format!("ä-{row}") }).collect());
    let evens: Vec<u32> = (0..N as u32).step_by(2).collect();
    let tags = items::tags(&[("blue", &evens), ("new", &[3, 4, 59])]);
    // prices of which some are equal, and years that few items have
    let prices: Vec<(u32, f64)> = (0..N as u32).map(|row| (row, f64::from(row * 7 % 20) - 4.5)).collect();
    let numbers = items::numbers(&[("price", &prices), ("year", &[(3, 1999.0), (4, 2026.0), (59, 1999.0)])]);
    let popularity: Vec<f32> = (0..N).map(|_| random.uniform()).collect();
    let spec = BuildSpec {
        ids: Some(&ids),
        tags: Some(&tags),
        numbers: Some(&numbers),
        popularity: Some(&popularity),
        users: Some(&users),
        metric: kind.metric,
        codec: kind.codec,
        finer: Some(kind.finer),
        graph: BuildOptions { m: M, ef_construction: 40, seed: 3 },
        profile: true,
        ..items::spec(&items)
    };
    let (index, _) = build(&spec, &folder.path().join("small.tng"), &|_| ()).unwrap();
    let scales = index.sections().into_iter().find(|section| section.name == "scales").unwrap().bytes;
    assert_eq!(scales, if kind.shared { 4 } else { 4 * N as u64 }, "{kind:?}");
    assert!(index.meta().layers.len() >= 2, "{:?}", index.meta().layers);
    (folder, index)
}

/// One altered file: what was done, its sections, and whether it must be refused.
pub struct Forgery {
    pub what: String,
    pub sections: Sections,
    pub refused: bool,
}

/// Makes forgeries of one file.
pub struct Forger {
    pub sections: Sections,
    pub made: Vec<Forgery>,
}

impl Forger {
    pub fn of(index: &Index) -> Self {
        let file = Mapped::open(index.path()).unwrap();
        let sections =
            file.sections().map(|info| (info.tag.to_string(), file.section(info.tag).unwrap().to_vec())).collect();
        Self { sections, made: Vec::new() }
    }

    pub fn bytes(&self, tag: &str) -> Vec<u8> {
        self.sections.iter().find(|(name, _)| name == tag).unwrap().1.clone()
    }

    pub fn numbers<T: bytemuck::Pod>(&self, tag: &str) -> Vec<T> {
        self.bytes(tag).chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
    }

    pub fn put(&mut self, refused: bool, tag: &str, what: &str, bytes: Vec<u8>) {
        let mut sections = self.sections.clone();
        sections.iter_mut().find(|(name, _)| name == tag).unwrap().1 = bytes;
        self.made.push(Forgery { what: format!("{tag}: {what}"), sections, refused });
    }

    pub fn may(&mut self, tag: &str, what: &str, bytes: Vec<u8>) {
        self.put(false, tag, what, bytes);
    }

    pub fn must(&mut self, tag: &str, what: &str, bytes: Vec<u8>) {
        self.put(true, tag, what, bytes);
    }

    /// A section of numbers with the one at `at` replaced; refused for it.
    pub fn number<T: bytemuck::Pod + std::fmt::Debug>(&mut self, tag: &str, at: usize, value: T) {
        let mut bytes = self.bytes(tag);
        bytes[at * size_of::<T>()..][..size_of::<T>()].copy_from_slice(bytemuck::bytes_of(&value));
        self.must(tag, &format!("{value:?} at {at}"), bytes);
    }

    /// A field of a section of JSON replaced, or removed when `value` is null.
    pub fn field(&mut self, refused: bool, tag: &str, name: &str, value: Value) {
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

/// The items of a tag, one bit each, and how many they are.
pub fn tagged(index: &Index, tag: &str) -> Option<(Vec<u64>, usize)> {
    let (_, nodes) = index.tag(index.find_tag(tag).ok()?);
    let mut bits = vec![0; index.len().div_ceil(64)];
    nodes.iter().for_each(|node| bits[*node as usize / 64] |= 1 << (node % 64));
    Some((bits, nodes.len()))
}

/// Asks an index everything there is to ask, and checks what must hold whatever is in the file.
pub fn exercise(index: &Index) {
    let (n, dim) = (index.len(), index.dim());
    let mut random = Random(23);
    let basis = (0..dim).map(|at| f32::from(at == 0)).collect();
    let queries: [Vec<f32>; 5] = [random.normals(dim), random.normals(dim), basis, vec![0.0; dim], vec![-1e15; dim]];
    let exclude: Vec<u32> = (0..n as u32).step_by(3).collect();
    let blue = tagged(index, "blue");
    let bits = blue.as_ref().map(|(bits, passing)| (&bits[..], *passing));
    let filters = [Filter::default(), Filter { bits: None, exclude: &exclude }, Filter { bits, exclude: &exclude }];
    let mut record = vec![0; Codec::Int8.bytes_per_vector(dim)];
    record::encode(Codec::Int8, &queries[0], &mut record).unwrap();
    let stored = QueryVector::Record(Codec::Int8, &record);
    for query in queries.iter().map(|query| QueryVector::Floats(query)).chain([stored]) {
        // With few nodes to expand the graph is walked, with many the rows are scanned.
        for (k, ef) in [(1, 1), (3, 10), (10, 14), (10, 1_000), (3, usize::MAX), (n + 5, 1)] {
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
    let fields = index.number_fields();
    for field in &fields {
        assert!(
            field.min <= field.max && field.min.is_finite() && field.max.is_finite() && field.items > 0,
            "{field:?}"
        );
        let all = index.range(field.field, field.min, field.max).unwrap();
        assert!(all.len() == field.items && all.iter().all(|&node| (node as usize) < n), "{field:?}");
        for (min, max) in [(f64::NAN, 1.0), (1.0, f64::NAN), (1.0, 0.0), (0.0, 4.0), (f64::NEG_INFINITY, f64::MAX)] {
            assert!(index.range(field.field, min, max).unwrap().len() <= field.items, "{field:?}: {min} to {max}");
        }
    }
    assert!(index.range("nothing", 0.0, 1.0).is_err());
    assert!(index.popular().iter().all(|&node| (node as usize) < n));
    let graph = index.graph();
    assert!(graph.mean_degree() >= 0.0 && unreachable(&graph) <= n);
    let _ = (index.profile().ef_for(0.9), index.profile().default_ef(), index.sections(), index.fingerprint());
}

/// Writes a file of sections.
pub fn write(path: &Path, sections: &Sections) {
    let mut writer = Writer::create(path).unwrap();
    for (tag, bytes) in sections {
        writer.section_bytes(Tag::new(tag), bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// What a walk of little effort answers.
pub fn walk(index: &Index, query: &[f32]) -> Vec<(u32, f32)> {
    let options = SearchOptions { k: 3, ef: 3 };
    let (hits, _) = index.search(QueryVector::Floats(query), options, Filter::default()).unwrap();
    hits.iter().map(|hit| (hit.node, hit.score)).collect()
}

/// Opens every forgery and asks those that open; returns how many were refused and how many opened.
pub fn try_all(folder: &Path, forgeries: &[Forgery]) -> (usize, usize) {
    let outcomes: Vec<Result<bool, String>> = forgeries
        .par_iter()
        .enumerate()
        .map(|(at, forgery)| {
            let path = folder.join(format!("forged-{at}.tng"));
            write(&path, &forgery.sections);
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
