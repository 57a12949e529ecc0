//! How long a file gets: the estimate before a release is written, against the file that comes of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and prints what it saw")]

mod support;

use support::releases::{NS, number, spec};
use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::{EmbeddedKv, Kv};
use tonnage::store::{Ids, PublishOptions, ReleaseSpec, RemoveOptions, Users, activate, prepare, retire};

fn wide(name: &str, codec: Codec) -> ReleaseSpec {
    ReleaseSpec { dim: 64, codec, ..spec(name) }
}

/// Publishes, activates, and returns how long the file was, was to be and is; and its bytes of pages by the estimate.
async fn publish(kv: &EmbeddedKv, spec: &ReleaseSpec, count: u32, listed: bool) -> [u64; 4] {
    let id = |row| Id::U64(number(row));
    let encode = |rows: &[u32], out: &mut [u8]| {
        let bytes = out.len() / rows.len();
        rows.iter().zip(out.chunks_mut(bytes)).for_each(|(&row, out)| out.fill(row as u8));
        Ok(())
    };
    let ids = if listed { Ids::Listed(&id) } else { Ids::Dense };
    let (users, options) = (Users { count, ids, encode: &encode }, PublishOptions::default());
    let prepared = prepare(kv, NS, spec, &users, &options).await.unwrap();
    let foreseen = prepared.footprint().clone();
    prepared.run(&mut |_| ()).await.unwrap();
    activate(kv, NS, &spec.name).await.unwrap();
    let length = kv.stats().await.unwrap().used_bytes;
    [foreseen.before_bytes, foreseen.peak_bytes, length, foreseen.parts[0].rest_bytes]
}

#[tokio::test]
async fn a_file_is_as_long_as_was_foreseen() {
    for codec in [Codec::Int8, Codec::F16] {
        for listed in [false, true] {
            for count in [20_000, 26_000, 27_000, 28_000, 29_000, 29_500, 30_000, 31_000, 60_000, 130_000, 300_000] {
                let folder = tempfile::tempdir().unwrap();
                let kv = EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap();
                for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
                    let [before, foreseen, length, pages] = publish(&kv, &wide(name, codec), count, listed).await;
                    println!(
                        "{codec} listed {listed} {count} {name}: {before} -> {foreseen}, is {length}; {:.3} pages {pages}, {:.1} a user",
                        foreseen as f64 / length as f64,
                        length as f64 / count as f64
                    );
                    if at == 1 {
                        retire(&kv, NS, "a", &RemoveOptions::default(), &mut |_, _| ()).await.unwrap();
                    }
                }
            }
        }
    }
}
