//! Releases that roll over others: for the tests of `store`.

use std::time::Duration;

use tonnage::input::Id;
use tonnage::kv::Kv;
use tonnage::store::{
    Ids, Manifest, PublishOptions, ReleaseSpec, StoreError, Strategy, UserVectors, Users, activate, prepare,
};

use super::releases::{NS, Named, number, publish_users, record, spec};

/// Users of the releases that roll.
pub const USERS: u32 = 600_000;

/// The id of a row.
pub fn id(named: Named, row: u32) -> Id<'static> {
    Id::U64(if named == Named::Dense { u64::from(row) } else { number(row) })
}

/// Publishes `count` users of `spec` by a strategy.
pub async fn publish_by<K: Kv>(
    kv: &K,
    spec: &ReleaseSpec,
    named: Named,
    count: u32,
    strategy: Strategy,
) -> Result<Manifest, StoreError> {
    let by_number = |row| Id::U64(number(row));
    let ids = if named == Named::Dense { Ids::Dense } else { Ids::Listed(&by_number) };
    let encode = |rows: &[u32], out: &mut [u8]| {
        let bytes = out.len() / rows.len();
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(bytes)) {
            let record = record(spec.fingerprint, row);
            out.iter_mut().zip(record.iter().cycle()).for_each(|(out, byte)| *out = *byte);
        }
        Ok(())
    };
    let users = Users { count, ids, encode: &encode };
    let options = PublishOptions { strategy, ..PublishOptions::default() };
    prepare(kv, NS, spec, &users, &options).await?.run(&mut |_| ()).await
}

/// Rolls `name` over what is active.
pub async fn roll<K: Kv>(kv: &K, name: &str, named: Named, count: u32) -> Result<Manifest, StoreError> {
    publish_by(kv, &spec(name), named, count, Strategy::Rolling).await
}

/// How many of some users a reader finds and does not find; what it finds must be its own release's.
pub async fn look<K: Kv>(reader: &UserVectors<K>, named: Named, from: u32) -> (u32, u32) {
    let rows: Vec<u32> = (0..40).map(|i| (number(from + i) >> 33) as u32 % USERS).collect();
    let ids: Vec<Id> = rows.iter().map(|&row| id(named, row)).collect();
    let (mut found, mut not) = (0, 0);
    for (&row, got) in rows.iter().zip(reader.get(&ids).await.unwrap()) {
        match got {
            Some(got) => {
                assert_eq!(got, record(reader.manifest().fingerprint, row), "row {row}");
                found += 1;
            }
            None => not += 1,
        }
    }
    (found, not)
}

/// `a` is active, and a publisher that was rolling `b` over it has died; its lease is over.
pub async fn a_roll_dies<K: Kv>(kv: &K) {
    publish_users(kv, "a", Named::Dense, USERS).await;
    activate(kv, NS, "a").await.unwrap();
    let mut brief = spec("b");
    brief.grace = Duration::from_secs(4); // so that the lease is half a second
    {
        let rolling = publish_by(kv, &brief, Named::Dense, USERS, Strategy::Rolling);
        let mut rolling = std::pin::pin!(rolling);
        // until it has begun, and a little further
        let mut writes = 0;
        while writes < 3 {
            let step = tokio::time::timeout(Duration::from_millis(1), &mut rolling).await;
            assert!(step.is_err(), "it was too quick to be stopped");
            let first = kv.get_many(&[format!("{NS}:r:b").into_bytes()]).await.unwrap();
            writes += u32::from(first[0].is_some());
        }
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
}
