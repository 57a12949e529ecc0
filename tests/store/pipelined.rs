//! Many reads at once over connections that they share, half of them given up on the way: every answer that comes is the
//! asking one's own.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says what was counted")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{JoinSet, block_in_place, yield_now};
use tokio::time::timeout;
use tonnage::codec::Codec;
use tonnage::input::Id;
use tonnage::kv::{KeyRange, Kv};
use tonnage::store::{Overlay, StoreError, UserVectors, overlay_bytes, overlay_key, put_overlays};

use crate::support::RedisServer;
use crate::support::cluster::TestCluster;
use crate::support::releases::{NS, Named, fingerprint, number, publish_users, record};
use crate::support::serve::many;

/// In each of the two releases; who asks for later ones is told that they are not there.
const USERS: u32 = 4_000;
/// Readers, each with one read under way at a time.
const AT_ONCE: usize = 128;
/// How often the servers hang up on all of them.
const CUTS: usize = 5;

/// Draws that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % end
    }

    /// Up to six users' rows, of whom some are not there.
    fn rows(&mut self) -> Vec<u32> {
        let count = 1 + self.below(6);
        (0..count).map(|_| self.below(USERS + USERS / 8)).collect()
    }
}

/// The users' side, each way that it is read.
struct Side<K> {
    dense: UserVectors<K>,
    hashed: UserVectors<K>,
}

/// What became of reads.
#[derive(Default)]
struct Tally {
    begun: AtomicUsize,
    answered: AtomicUsize,
    given_up: AtomicUsize,
    /// Answered with an error of the connection.
    lost: AtomicUsize,
    wrong: AtomicUsize,
}

impl<K: Kv + Clone> Side<K> {
    async fn new(kv: K) -> Self {
        for (name, named) in [("dense", Named::Dense), ("hashed", Named::Numbers)] {
            publish_users(&kv, name, named, USERS).await;
        }
        let overlays: Vec<_> = (0..USERS).step_by(2).map(|row| (Id::U64(row.into()), overlay(row))).collect();
        put_overlays(&kv, NS, &overlays, Duration::from_hours(1)).await.unwrap();
        let open = |name| UserVectors::open_release(kv.clone(), NS, name);
        Self { dense: open("dense").await.unwrap(), hashed: open("hashed").await.unwrap() }
    }

    /// Reads some users one way or another; whether each is who was asked for.
    async fn read(&self, way: u32, rows: &[u32]) -> Result<bool, StoreError> {
        let (release, id_of): (_, &(dyn Fn(u32) -> u64 + Sync)) = match way {
            0 => (&self.dense, &u64::from),
            1 => (&self.hashed, &number),
            _ => return self.read_with_overlays(rows).await,
        };
        let ids: Vec<Id> = rows.iter().map(|&row| Id::U64(id_of(row))).collect();
        let got = release.get(&ids).await?;
        Ok(got == rows.iter().map(|&row| record_of(release, row)).collect::<Vec<_>>())
    }

    /// As the engine does it: strings and parts of pages in one call.
    async fn read_with_overlays(&self, rows: &[u32]) -> Result<bool, StoreError> {
        let users: Vec<(u32, Id)> = rows.iter().map(|row| row % USERS).map(|row| (row, Id::U64(row.into()))).collect();
        let end = overlay_bytes(Codec::F32, 2) as u32;
        let whole = |user| KeyRange { key: overlay_key(NS, user), start: 0, end };
        let ranges: Vec<KeyRange> =
            users.iter().flat_map(|&(_, user)| [whole(user), self.dense.range(user).unwrap()]).collect();
        let values = self.dense.kv().get_ranges(&ranges).await;
        let mut own = true;
        for (pair, (row, user)) in values.chunks(2).zip(users) {
            let (laid_over, slot) = (pair[0].clone()?, pair[1].clone()?);
            let overlaid = match &laid_over[..] {
                [] => None,
                value => Some(Overlay::of_user(NS, user, value)?),
            };
            own &= overlaid == (row % 2 == 0).then(|| overlay(row));
            own &= self.dense.found(user, &slot)? == record_of(&self.dense, row);
        }
        Ok(own)
    }
}

/// A user's vector, and who they are.
fn overlay(row: u32) -> Overlay {
    let made_s = u64::from(row);
    Overlay { made_s, ..Overlay::encode(fingerprint("dense"), Codec::F32, &[row as f32, 1.0]).unwrap() }
}

fn record_of<K: Kv>(release: &UserVectors<K>, row: u32) -> Option<Vec<u8>> {
    (row < USERS).then(|| record(release.manifest().fingerprint, row))
}

/// Waits for half of the reads, and gives the others up: before they are begun, once they are sent, while they are under
/// way, and when a time is over.
async fn maybe<T>(read: impl Future<Output = T>, dice: &mut Dice) -> Option<T> {
    let mut read = pin!(read);
    match dice.below(8) {
        0 => None,
        1 => read.now_or_never(),
        2 => {
            for _ in 0..dice.below(16) {
                if let Some(answer) = read.as_mut().now_or_never() {
                    return Some(answer);
                }
                yield_now().await;
            }
            None
        }
        3 => timeout(Duration::from_micros(dice.below(3_000).into()), read).await.ok(),
        _ => Some(read.await),
    }
}

/// Reads until there were enough.
async fn reader<K: Kv + Clone>(side: Arc<Side<K>>, tally: Arc<Tally>, seed: usize, reads: usize, cut: Arc<dyn Cut>) {
    let mut dice = Dice(seed as u64);
    loop {
        let turn = tally.begun.fetch_add(1, Ordering::Relaxed);
        if turn >= reads {
            return;
        }
        if turn % reads.div_ceil(CUTS) == reads / CUTS / 2 {
            block_in_place(|| cut());
        }
        let (way, rows) = (dice.below(3), dice.rows());
        let count = match maybe(side.read(way, &rows), &mut dice).await {
            None => &tally.given_up,
            Some(Ok(true)) => &tally.answered,
            Some(Err(StoreError::Kv(_))) => &tally.lost,
            Some(Ok(false) | Err(_)) => &tally.wrong,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Hangs up on every client.
trait Cut: Fn() + Send + Sync {}
impl<F: Fn() + Send + Sync> Cut for F {}

async fn nobody_gets_anothers_answer<K: Kv + Clone + 'static>(kv: K, reads: usize, cut: impl Cut + 'static) {
    let (side, tally, cut) = (Arc::new(Side::new(kv).await), Arc::new(Tally::default()), Arc::new(cut) as Arc<dyn Cut>);
    let readers = (0..AT_ONCE).map(|seed| reader(Arc::clone(&side), Arc::clone(&tally), seed, reads, Arc::clone(&cut)));
    readers.collect::<JoinSet<()>>().join_all().await;
    let Tally { answered, given_up, lost, wrong, .. } = Arc::into_inner(tally).unwrap();
    let [answered, given_up, lost, wrong] = [answered, given_up, lost, wrong].map(AtomicUsize::into_inner);
    eprintln!("{reads} reads: {answered} answered, {given_up} given up, {lost} lost, {wrong} wrong");
    assert_eq!(wrong, 0, "of {answered} answers");
    assert_eq!(answered + given_up + lost, reads);
    assert!(answered > reads / 4 && given_up > reads / 8, "{answered} {given_up}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_of_a_server_gets_the_answer_of_another() {
    let server = RedisServer::start(&[]);
    let kv = server.connect().await;
    let cut = move || assert!(server.say("CLIENT KILL TYPE normal").unwrap().starts_with(':'));
    nobody_gets_anothers_answer(kv, many(50_000), cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_of_a_cluster_gets_the_answer_of_another() {
    let cluster = TestCluster::start();
    let kv = cluster.connect().await;
    let cut = move || cluster.nodes().iter().for_each(|node| node.expect("CLIENT KILL TYPE normal", ":"));
    nobody_gets_anothers_answer(kv, many(20_000), cut).await;
}
