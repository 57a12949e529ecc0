//! How long a file gets: the estimate before a release is written, against the file that comes of it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and prints what it saw")]

use crate::support::releases::{NS, number, spec};
use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::{EmbeddedKv, Kv};
use tonnage::store::{
    Ids, ListKind, ListOptions, ListSource, Lists, PublishOptions, Ranked, ReleaseSpec, RemoveOptions, Room, Users,
    activate, current, prepare, retire,
};

fn wide(name: &str, codec: Codec) -> ReleaseSpec {
    ReleaseSpec { dim: 64, codec, ..spec(name) }
}

/// Publishes, activates, and returns how long the file was to be, and is.
async fn publish(kv: &EmbeddedKv, spec: &ReleaseSpec, count: u32, listed: bool) -> [u64; 2] {
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
    let manifest = prepared.run(&mut |_| ()).await.unwrap();
    activate(kv, NS, &spec.name).await.unwrap();
    let length = kv.stats().await.unwrap().used_bytes;
    println!(
        "{} {count} {:?} {}: from {} to be {}, is {length}",
        spec.codec, manifest.addressing, spec.name, foreseen.before_bytes, foreseen.peak_bytes
    );
    assert_eq!(foreseen.rest_bytes, foreseen.peak_bytes, "a file does not get shorter");
    [foreseen.peak_bytes, length]
}

async fn publish_three(codec: Codec, listed: bool) {
    for count in [20_000, 30_000, 60_000, 130_000, 300_000] {
        let folder = tempfile::tempdir().unwrap();
        let kv = EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap();
        for name in ["a", "b", "c"] {
            // the third goes where the first was
            if name == "c" {
                retire(&kv, NS, "a", &RemoveOptions::default(), &mut |_, _| ()).await.unwrap();
            }
            let [foreseen, length] = publish(&kv, &wide(name, codec), count, listed).await;
            // it grows by its own length, so that an estimate which is not right is off by a half at least
            assert!(foreseen.abs_diff(length) <= length / 100, "{codec} {listed} {count} {name}: {foreseen} {length}");
        }
    }
}

#[tokio::test]
async fn a_file_with_dense_pages_gets_as_long_as_foreseen() {
    publish_three(Codec::Int8, false).await;
    publish_three(Codec::F16, false).await;
}

#[tokio::test]
async fn a_file_with_hashed_pages_gets_as_long_as_foreseen() {
    publish_three(Codec::Int8, true).await;
    publish_three(Codec::F16, true).await;
}

/// Lists of so many items, each of them another, of all items of an index.
async fn write_lists(kv: &EmbeddedKv, count: u32, items: u32) -> [u64; 2] {
    let release = current(kv, NS).await.unwrap();
    let lists = Lists::new(kv.clone(), NS, &release, 1_000_000, ListKind::Results, ListOptions::default()).unwrap();
    let list = |user: u32| {
        let item = |at: u32| Ranked { row: (user + at * 7_919) % 1_000_000, score: -(at as f32) };
        Ok((0..items).map(item).collect())
    };
    let (id, most_items) = (|at| Id::U64(number(at)), items as usize);
    let (source, room) = (ListSource { count, id: &id, most_items, list: &list }, Room::default());
    let foreseen = lists.footprints(&source, &room).await.unwrap().remove(0);
    lists.write(&source, &room, &mut |_| ()).await.unwrap();
    let length = kv.stats().await.unwrap().used_bytes;
    println!("{count} lists of {items}: from {} to be {}, is {length}", foreseen.before_bytes, foreseen.peak_bytes);
    [foreseen.peak_bytes, length]
}

#[tokio::test]
async fn a_file_with_lists_gets_no_longer_than_foreseen_and_at_least_half_as_long() {
    for (count, items) in [(5_000, 20), (20_000, 20)] {
        let folder = tempfile::tempdir().unwrap();
        let kv = EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap();
        publish(&kv, &wide("a", Codec::Int8), 30_000, false).await;
        let [foreseen, length] = write_lists(&kv, count, items).await;
        assert!(length <= foreseen && foreseen <= 2 * length, "{count} lists of {items}: {foreseen} {length}");
    }
}
