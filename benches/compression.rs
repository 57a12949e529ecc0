//! What lossless compression makes of result lists and of embeddings, against packing the ones and quantizing the others.
//! On the Debian set in `data/`: the hundred best packages of each of 2,000 users by exact products.
//!
//! `cargo bench --bench compression`. Each value is compressed by itself, as it would stand under a key of its own;
//! "pages" are 8 KiB of users' vectors together. Without `--bench` (as `cargo test` runs it) it takes fewer users.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a report is its purpose; a failure may well be a panic")]

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tonnage::codec::{Codec, record};
use tonnage::input::Vectors;
use tonnage::kernel;
use tonnage::store::{Ranked, pack_list};

const K: usize = 100;
const PAGE_BYTES: usize = 8 << 10;

type Compress = fn(&[u8]) -> usize;
const COMPRESSORS: [(&str, Compress); 5] = [
    ("as it is", <[u8]>::len),
    ("gzip 6", gzip),
    ("zstd 1", |bytes| zstd::bulk::compress(bytes, 1).unwrap().len()),
    ("zstd 3", |bytes| zstd::bulk::compress(bytes, 3).unwrap().len()),
    ("zstd 19", |bytes| zstd::bulk::compress(bytes, 19).unwrap().len()),
];

fn main() {
    let wanted = if std::env::args().any(|argument| argument == "--bench") { 2_000 } else { 100 };
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/debian");
    let (items, users) = (all(&data.join("items.npy")), all(&data.join("users.npy")));
    let count = wanted.min(users.rows.len() / users.dim);
    let users = Floats { rows: users.rows[..count * users.dim].to_vec(), dim: users.dim };
    lists(&items, &users);
    embeddings(&users);
}

struct Floats {
    rows: Vec<f32>,
    dim: usize,
}

fn all(path: &Path) -> Floats {
    let vectors = Vectors::open(path).unwrap();
    let mut rows = vec![0.0; vectors.rows() * vectors.dim()];
    vectors.read(0, &mut rows).unwrap();
    Floats { rows, dim: vectors.dim() }
}

/// The best items of each user.
fn lists(items: &Floats, users: &Floats) {
    let count = (items.rows.len() / items.dim) as u32;
    let lists: Vec<Vec<Ranked>> = users.rows.chunks_exact(users.dim).map(|user| best(items, user)).collect();
    println!("lists of {K} of {count} items, bytes a list");
    let plain = |item: &Ranked| [item.row.to_le_bytes(), item.score.to_le_bytes()].concat();
    table("u32 row, f32 score", lists.iter().map(|list| list.iter().flat_map(plain).collect()));
    let apart = |list: &Vec<Ranked>| {
        let mut bytes: Vec<u8> = list.iter().flat_map(|item| item.row.to_le_bytes()).collect();
        list.iter().for_each(|item| bytes.extend(half::f16::from_f32(item.score).to_le_bytes()));
        bytes
    };
    table("rows, then f16 scores", lists.iter().map(apart));
    table("JSON", lists.iter().map(|list| json(list)));
    table("packed", lists.iter().map(|list| pack_list(list, count, 1).unwrap()));
}

fn json(list: &[Ranked]) -> Vec<u8> {
    let items: Vec<String> = list.iter().map(|Ranked { row, score }| format!("[{row},{score:.4}]")).collect();
    format!("[{}]", items.join(",")).into_bytes()
}

fn best(items: &Floats, user: &[f32]) -> Vec<Ranked> {
    let kernels = kernel::best();
    let scored = items.rows.chunks_exact(items.dim).enumerate();
    let mut all: Vec<_> =
        scored.map(|(row, item)| Ranked { row: row as u32, score: kernels.dot_f32(item, user) }).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all.truncate(K);
    all
}

/// The users' vectors, by codec.
fn embeddings(users: &Floats) {
    for (what, page_bytes) in [("a vector by itself", 1), ("pages of 8 KiB", PAGE_BYTES)] {
        println!("\nvectors of {} dimensions, {what}, bytes a user", users.dim);
        for codec in [Codec::F32, Codec::F16, Codec::Int8, Codec::Int4] {
            let each = codec.bytes_per_vector(users.dim);
            let mut bytes = vec![0; users.rows.len() / users.dim * each];
            for (user, record) in users.rows.chunks_exact(users.dim).zip(bytes.chunks_exact_mut(each)) {
                record::encode(codec, user, record).unwrap();
            }
            let a_value = (page_bytes / each).max(1);
            let users_of = |bytes: &[u8]| bytes.len() as f64 / each as f64;
            shares(&format!("{codec:?}"), bytes.chunks(a_value * each).map(|value| (value.to_vec(), users_of(value))));
            if codec == Codec::F32 {
                // all first bytes, then all second bytes: what helps compressors with floats most
                let shuffled =
                    |value: &[u8]| (0..4).flat_map(|at| value.iter().skip(at).step_by(4).copied()).collect::<Vec<u8>>();
                shares("F32, bytes apart", bytes.chunks(a_value * each).map(|v| (shuffled(v), users_of(v))));
            }
        }
    }
}

fn table(what: &str, values: impl Iterator<Item = Vec<u8>>) {
    shares(what, values.map(|value| (value, 1.0)));
}

/// One line: mean bytes by compressor. A value comes with how many users it is for.
fn shares(what: &str, values: impl Iterator<Item = (Vec<u8>, f64)>) {
    let values: Vec<_> = values.collect();
    let users: f64 = values.iter().map(|(_, users)| users).sum();
    print!("{what:<24}");
    for (name, compress) in COMPRESSORS {
        let bytes: usize = values.iter().map(|(value, _)| compress(value)).sum();
        print!("{name:>12} {:>7.1}", bytes as f64 / users);
    }
    println!();
}

fn gzip(bytes: &[u8]) -> usize {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap().len()
}
