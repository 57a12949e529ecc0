//! Index files that are damaged, or forged under valid checksums: refused, or answered from without a panic.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Value, json};
use tonnage::catalog::{CatalogError, Index};
use tonnage::codec::{Codec, Metric};

use crate::forge::{DIM, Forger, Forgery, KINDS, Kind, N, exercise, small, try_all};
use crate::items::Random;

/// The sections that a reader cannot do without, under any metric. The others may be absent or of another length.
const NEEDED: [&str; 16] = [
    "meta", "codes", "scales", "finer", "links", "starts", "ids", "id-text", "id-order", "tag-text", "tag-ends",
    "tag-item", "num-text", "num-ends", "num-val", "num-item",
];

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
    let (folder, index) = small(KINDS[0]);
    let bytes = std::fs::read(index.path()).unwrap();
    assert!((5_000..18_000).contains(&bytes.len()), "{}", bytes.len());

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

fn forge_json(forger: &mut Forger, kind: Kind, layers: &[u32]) {
    for value in [json!(0), json!(N - 1), json!(N + 1), json!(u32::MAX), json!(-1), json!(1e300), json!("60")] {
        forger.field(true, "meta", "items", value);
    }
    for value in [json!(0), json!(17), json!(65_537), json!(u32::MAX), json!(null)] {
        forger.field(true, "meta", "dim", value);
    }
    for value in 1..=16 {
        // The padded rows of int8 hold any of these dimensions, those of f16 do not.
        forger.field(kind.finer == Codec::F16 && value != DIM, "meta", "dim", json!(value));
    }
    for value in [0, 1, 3, 5, 128, 129, u32::MAX] {
        // Rows say themselves how long they are.
        forger.field(!(1..=128).contains(&value), "meta", "m", json!(value));
    }
    let longer: Vec<u32> = [layers, &[1]].concat();
    for value in [json!([]), json!([0]), json!([61]), json!(longer), json!([u32::MAX, u32::MAX]), json!(vec![1; 17])] {
        forger.field(true, "meta", "layers", value);
    }
    let reversed: Vec<u32> = layers.iter().rev().copied().collect();
    forger.field(true, "meta", "layers", json!(reversed));
    for value in [json!("int4"), json!("int8"), json!("f16"), json!("f32"), json!("int9"), json!(null)] {
        forger.field(value != json!(kind.codec), "meta", "codec", value);
    }
    for value in [json!("int4"), json!("f32"), json!("f64"), json!(8)] {
        forger.field(true, "meta", "finer", value);
    }
    for value in [json!("int8"), json!("f16")] {
        // With eight dimensions the rows of the two are as long.
        forger.field(false, "meta", "finer", value);
    }
    forger.field(false, "meta", "finer", json!(null));
    for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
        let refused = (metric == Metric::L2) != (kind.metric == Metric::L2);
        forger.field(refused, "meta", "metric", json!(metric));
    }
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
    for distances in [0.0, -1e300, 1e-300, 1e39] {
        let mut far = rung(100);
        far["distances"] = json!(distances);
        forger.field(false, "profile", "rungs", json!([rung(10), far, rung(1_000)]));
        forger.field(false, "profile", "rungs", json!([far, rung(1_000)]));
    }
    let tuning = |beam: Value, rescored: Value| json!({"beam": beam, "rescored": rescored});
    for beam in [json!(0), json!(65), json!(u64::MAX), json!(-1), json!(8.5), json!("8"), json!(null)] {
        forger.field(true, "profile", "tuning", tuning(beam, json!(0.5)));
    }
    for rescored in [json!(-0.1), json!(4.1), json!(1e39), json!(-1e300), json!("half"), json!(null)] {
        forger.field(true, "profile", "tuning", tuning(json!(8), rescored));
    }
    for (beam, rescored) in [(1, 0.0), (64, 0.0), (1, 4.0), (64, 4.0), (64, 1e-45)] {
        forger.field(false, "profile", "tuning", tuning(json!(beam), json!(rescored)));
    }
    forger.field(true, "profile", "tuning", json!({}));
    forger.field(false, "profile", "tuning", json!(null));
    for (tag, text) in [("meta", "profile"), ("profile", "meta")] {
        let other = forger.bytes(text);
        forger.must(tag, "the other's", other);
        let deep = ["[".repeat(100_000), "{\"a\":".repeat(100_000), "nul".into(), "1".repeat(10_000), "\0".into()];
        for text in deep {
            forger.must(tag, "not what it is", text.into_bytes());
        }
    }
}

fn forge_numbers(forger: &mut Forger, kind: Kind) {
    let places = [0, 7, N - 1];
    for at in if kind.shared { &places[..1] } else { &places } {
        for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e16, f32::MAX] {
            forger.number("scales", *at, scale);
        }
    }
    for at in places {
        if kind.finer == Codec::F16 {
            for code in [half::f16::NAN, half::f16::INFINITY, half::f16::NEG_INFINITY] {
                forger.number("finer", at * DIM + 1, code);
            }
        }
        if kind.metric == Metric::L2 {
            for bias in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
                forger.number("biases", at, bias);
            }
        }
    }
    for scale in [0.0, -1.0, 1e15, -1e15, 1e-40_f32] {
        for count in [1, N] {
            let what = format!("{count} of {scale}");
            forger.may("scales", &what, bytemuck::cast_slice(&vec![scale; count]).to_vec());
        }
        for count in [0, 2, 16, N - 1, N + 1, 2 * N] {
            let what = format!("{count} of {scale}");
            forger.must("scales", &what, bytemuck::cast_slice(&vec![scale; count]).to_vec());
        }
    }
    forger.must("scales", "NaN for all", f32::NAN.to_le_bytes().to_vec());
    for tag in ["codes", "finer"] {
        for code in [0x80, 0x7F, 0x81, 0xFF, 0x00] {
            let len = forger.bytes(tag).len();
            let refused = tag == "finer" && kind.finer == Codec::F16 && matches!(code, 0x7F | 0xFF);
            forger.put(refused, tag, &format!("all {code:#x}"), vec![code; len]);
        }
    }
    if kind.finer == Codec::F16 {
        forger.may("finer", "all largest", [half::f16::MAX.to_le_bytes(); N * DIM].concat());
    }
    if kind.metric == Metric::L2 {
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

/// Two fields: `price`, of all items, and `year`, of three.
fn forge_ranges(forger: &mut Forger) {
    let last = N + 2;
    for at in [0, N / 2, N - 1, N, last] {
        for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            forger.number("num-val", at, value);
        }
    }
    // out of order, be it by a hair
    let values = forger.numbers::<f64>("num-val");
    let below = values[last - 1].next_down();
    for (at, value) in [(0, values[0] + 1.5), (N - 1, values[0]), (last, below), (N, 1e308)] {
        forger.number("num-val", at, value);
    }
    let mut between = values.clone();
    between[N - 1] = between[N - 1].next_up(); // of one field only: the next begins anew
    forger.may("num-val", "another price", bytemuck::cast_slice(&between).to_vec());
    forger.may("num-val", "all -0", bytemuck::cast_slice(&vec![-0.0_f64; values.len()]).to_vec());
    forger.must("num-val", "all NaN", bytemuck::cast_slice(&vec![f64::NAN; values.len()]).to_vec());
    let reversed: Vec<f64> = values.iter().rev().copied().collect();
    forger.must("num-val", "reversed", bytemuck::cast_slice(&reversed).to_vec());

    let nodes = forger.numbers::<u32>("num-item");
    for (at, node) in [(0, N as u32), (0, u32::MAX), (last, 63), (1, nodes[0]), (N + 1, nodes[N]), (last, nodes[N])] {
        forger.number("num-item", at, node);
    }
    let turned: Vec<u32> = nodes[..N].iter().rev().chain(&nodes[N..]).copied().collect();
    forger.may("num-item", "prices exchanged", bytemuck::cast_slice(&turned).to_vec());

    for (at, end) in [(0, 10), (0, u64::MAX), (1, 0), (1, N as u64 + 3), (2, 8), (3, 62), (3, u64::MAX)] {
        forger.number("num-ends", at, end);
    }
    for (what, first) in [("a field without a name", [0, N as u64]), ("a price that is a year", [5, N as u64 - 1])] {
        let ends = [first, [9, N as u64 + 3]];
        forger.may("num-ends", what, bytemuck::cast_slice(&ends).to_vec());
    }
    for (text, refused) in
        [("yearprice", true), ("priceye\u{e4}", false), ("pric\u{e4}ear", true), ("priceprie", false)]
    {
        forger.put(refused, "num-text", text, text.as_bytes().to_vec());
    }
    forger.must("num-text", "not UTF-8", b"price\xffear".to_vec());
    forge_fields(forger);
}

/// As many fields as there may be, and more, each as it should be; and none, as before there were any.
fn forge_fields(forger: &mut Forger) {
    for (count, refused) in [(0, false), (1, false), (256, false), (257, true), (999, true)] {
        let names: Vec<String> = (0..count).map(|at| format!("{at:03}")).collect();
        let ends: Vec<[u64; 2]> = (1..=count).map(|at| [3 * at, at]).collect();
        let (values, nodes) = (vec![1.0_f64; count as usize], vec![7_u32; count as usize]);
        let mut sections = forger.sections.clone();
        for (name, bytes) in &mut sections {
            match &name[..] {
                "num-text" => *bytes = names.concat().into_bytes(),
                "num-ends" => *bytes = bytemuck::cast_slice(&ends).to_vec(),
                "num-val" => *bytes = bytemuck::cast_slice(&values).to_vec(),
                "num-item" => *bytes = bytemuck::cast_slice(&nodes).to_vec(),
                _ => {}
            }
        }
        forger.made.push(Forgery { what: format!("{count} fields"), sections, refused });
    }
    let mut sections = forger.sections.clone();
    sections.retain(|(name, _)| !name.starts_with("num-"));
    forger.made.push(Forgery { what: "no section of numbers".into(), sections, refused: false });
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

#[test]
fn forged_sections_under_valid_checksums_are_refused_or_harmless() {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for kind in KINDS {
        let (folder, index) = small(kind);
        exercise(&index);
        let layers = index.meta().layers.clone();
        let mut run = |what, forge: &dyn Fn(&mut Forger)| {
            let mut forger = Forger::of(&index);
            forge(&mut forger);
            let (refused, opened) = try_all(folder.path(), &forger.made);
            let counts = counts.entry(what).or_default();
            *counts = (counts.0 + refused, counts.1 + opened);
        };
        run("json", &|forger| forge_json(forger, kind, &layers));
        run("numbers", &|forger| forge_numbers(forger, kind));
        run("facts", &forge_facts);
        run("ranges", &forge_ranges);
        run("whole", &|forger| forge_whole(forger, 16));
    }
    println!("(refused, opened and answered): {counts:?}");
    let refused: usize = counts.values().map(|counts| counts.0).sum();
    let opened: usize = counts.values().map(|counts| counts.1).sum();
    println!("{refused} refused, {opened} opened and answered");
    assert!(refused > 2_000 && opened > 400);
}
