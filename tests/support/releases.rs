//! Small releases whose records can be told from the row: for the tests of `store`.

use std::time::Duration;

use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::Kv;
use tonnage::store::{Ids, Manifest, ReleaseSpec, StoreError, Users, publish};

/// Namespace of all tests.
pub const NS: &str = "t";
/// Dimensions; a record of int8 is two bytes more.
pub const DIM: u32 = 8;

/// How the users of a test release are called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Named {
    Dense,
    Numbers,
    Texts,
}

/// The text ids of rows.
pub fn texts(count: u32) -> Vec<String> {
    (0..count).map(|row| format!("user-{row}")).collect()
}

/// The number id of a row: scattered, as real ones are.
pub fn number(row: u32) -> u64 {
    u64::from(row).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The record of a row in the release of that fingerprint.
pub fn record(fingerprint: u64, row: u32) -> Vec<u8> {
    let mixed = (u64::from(row) + 1).wrapping_mul(fingerprint | 1);
    (0..10).map(|i| (mixed >> (i * 5)) as u8).collect()
}

/// What to publish: `name` with a fingerprint that follows from it.
pub fn spec(name: &str) -> ReleaseSpec {
    ReleaseSpec {
        name: name.to_owned(),
        fingerprint: fingerprint(name),
        codec: Codec::Int8,
        dim: DIM,
        grace: ReleaseSpec::DEFAULT_GRACE,
    }
}

/// The fingerprint that [`spec`] gives a name.
pub fn fingerprint(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Publishes `count` users under `spec`.
pub async fn publish_as<K: Kv>(kv: &K, spec: &ReleaseSpec, named: Named, count: u32) -> Result<Manifest, StoreError> {
    let texts = texts(count);
    let by_number = |row| Id::U64(number(row));
    let by_text = |row: u32| Id::Text(&texts[row as usize]);
    let ids = match named {
        Named::Dense => Ids::Dense,
        Named::Numbers => Ids::Listed(&by_number),
        Named::Texts => Ids::Listed(&by_text),
    };
    let encode = |rows: &[u32], out: &mut [u8]| {
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(10)) {
            out.copy_from_slice(&record(spec.fingerprint, row));
        }
        Ok(())
    };
    publish(kv, NS, spec, &Users { count, ids, encode: &encode }, &mut |_| ()).await
}

/// Publishes `count` users as `name`.
pub async fn publish_users<K: Kv>(kv: &K, name: &str, named: Named, count: u32) -> Manifest {
    match publish_as(kv, &spec(name), named, count).await {
        Ok(manifest) => manifest,
        Err(error) => panic!("{name} was not published: {error}"),
    }
}

/// The key of a page, put together as the wire format says and not by the code under test.
pub fn page_key(manifest: &Manifest, page: u32) -> Vec<u8> {
    format!("{NS}:{}:{page}", manifest.keys()).into_bytes()
}

/// A grace long enough for a test's publish and short enough to wait for.
pub const SHORT_GRACE: Duration = Duration::from_millis(1_500);
