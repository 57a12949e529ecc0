//! A publisher killed at any moment, while it publishes, activates or retires: readers never get a wrong vector, and
//! what is left goes.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::support::RedisServer;
use crate::support::vectors::{numbers, write_ids, write_npy};
use tempfile::TempDir;
use tonnage::codec::{Codec, record};
use tonnage::input::Id;
use tonnage::kv::{Kv, RedisKv};
use tonnage::store::{
    Addressing, Entry, RemoveOptions, State, StoreError, UserVectors, current, gc, ledger, list, verify,
};

const NS: &str = "k";
const DIM: usize = 16;
const USERS: usize = 100_000;
const KILLS: usize = 100;
const SEED: u64 = 20_261_123;
/// Short, so that leavings can be waited for; the publisher's lease is an eighth of it.
const GRACE: Duration = Duration::from_secs(4);

/// Even draws that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Releases of an even number have the one half of the vectors and row ids, those of an odd one the other and text ids.
struct Data {
    folder: TempDir,
    vectors: [Vec<f32>; 2],
}

impl Data {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let vectors = [numbers(USERS * DIM, 2), numbers(USERS * DIM, 3)];
        let path = |name: &str| folder.path().join(name);
        write_npy(&path("items.npy"), &numbers(300 * DIM, 1), DIM);
        write_npy(&path("users-0.npy"), &vectors[0], DIM);
        write_npy(&path("users-1.npy"), &vectors[1], DIM);
        write_ids(&path("ids-1.txt"), "user", USERS);
        let data = Self { folder, vectors };
        let done =
            data.tonnage("build --items items.npy --metric dot --out items.tng --release base").status().unwrap();
        assert!(done.success());
        data
    }

    fn tonnage(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tonnage"));
        command.current_dir(self.folder.path()).args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn publish(&self, url: &str, number: usize, more: &str) -> Command {
        let (half, grace) = (number % 2, GRACE.as_secs());
        let ids = if half == 1 { "--ids ids-1.txt" } else { "" };
        self.tonnage(&format!(
            "publish --index items.tng --users users-{half}.npy {ids} --store {url} --namespace {NS} \
             --release r{number} --grace {grace}s {more}"
        ))
    }

    fn releases(&self, url: &str, what: &str) -> Command {
        self.tonnage(&format!("releases {what} --store {url} --namespace {NS}"))
    }

    /// What the release of that name must answer for a row.
    fn expected(&self, release: &str, row: usize) -> Vec<u8> {
        let number: usize = release.trim_start_matches('r').parse().unwrap();
        let mut out = vec![0; Codec::Int8.bytes_per_vector(DIM)];
        record::encode(Codec::Int8, &self.vectors[number % 2][row * DIM..][..DIM], &mut out).unwrap();
        out
    }
}

/// Runs a command that must work, but may have to wait for a dead publisher's lease.
fn works(mut command: impl FnMut() -> Command) -> Duration {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let begun = Instant::now();
        let output = command().output().unwrap();
        if output.status.success() {
            return begun.elapsed();
        }
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let waits = ["is being published", "others may publish", "expire", "is gone", "never published whole"];
        assert!(waits.iter().any(|wait| words.contains(wait)) && Instant::now() < until, "{words}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills it after that long; says whether it was still at work.
fn kill_after(mut process: Child, wait: Duration) -> bool {
    std::thread::sleep(wait);
    let at_work = process.try_wait().unwrap().is_none();
    process.kill().unwrap();
    process.wait().unwrap();
    at_work
}

/// Reads users of whatever is active until told to stop, byte for byte; says how many it read.
fn read_on(server: &RedisServer, data: &Data, stop: &AtomicBool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kv = server.connect().await;
        let (mut random, mut read) = (Random(SEED + 1), 0);
        while !stop.load(Ordering::Relaxed) {
            let rows: Vec<usize> = (0..20).map(|_| random.below(USERS as u64) as usize).collect();
            match answers(&kv, &rows).await {
                Ok((release, got)) => {
                    for (&row, got) in rows.iter().zip(got) {
                        assert_eq!(got, Some(data.expected(&release, row)), "row {row} of {release}");
                        read += 1;
                    }
                }
                // opened when it was active, and succeeded and retired since
                Err(StoreError::Retired { .. } | StoreError::MissingPage { .. } | StoreError::NoRelease { .. }) => {
                    let now = current(&kv, NS).await;
                    assert!(now.is_ok(), "{now:?}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        read
    })
}

async fn answers(kv: &RedisKv, rows: &[usize]) -> Result<(String, Vec<Option<Vec<u8>>>), StoreError> {
    let reader = UserVectors::open(kv.clone(), NS).await?;
    let texts: Vec<String> = rows.iter().map(|row| format!("user-{row}")).collect();
    let dense = matches!(reader.manifest().addressing, Addressing::Dense { .. });
    let id = |(&row, text): (&usize, _)| if dense { Id::U64(row as u64) } else { Id::Text(text) };
    let ids: Vec<Id> = rows.iter().zip(texts.iter().map(String::as_str)).map(id).collect();
    let got = reader.get(&ids).await?;
    Ok((reader.manifest().name.clone(), got))
}

async fn states(kv: &RedisKv) -> Vec<Entry> {
    let (listed, _) = list(kv, NS).await.unwrap();
    listed.into_iter().map(|listed| listed.entry).filter(|entry| entry.state != State::Retired).collect()
}

async fn pages_of(kv: &RedisKv, entry: &Entry) -> usize {
    let keys: Vec<_> = (0..entry.pages).map(|page| format!("{NS}:{}:{page}", entry.keys).into_bytes()).collect();
    kv.get_many(&keys).await.unwrap().iter().flatten().count()
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_the_active_release_right_and_nothing_else_for_long() {
    let (server, data) = (RedisServer::start(&[]), Data::new());
    let url = server.url();
    let kv = server.connect().await;
    let mut random = Random(SEED);
    println!("seed {SEED}");
    works(|| data.publish(&url, 0, ""));
    let (stop, mut at_work, mut expired, mut kept) = (AtomicBool::new(false), 0, 0, 0);
    let (mut left, mut retiring) = (BTreeMap::new(), 0);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_on(&server, &data, &stop));
        let kills = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let kv = server.connect().await;
                // how long each takes when nobody kills it
                let publish = works(|| data.publish(&url, 1, "--no-activate"));
                let activate = works(|| data.releases(&url, "activate r1"));
                let retire = works(|| data.releases(&url, "retire r0"));
                for kill in 0..KILLS {
                    let number = kill + 2;
                    let (mut command, takes) = match kill % 4 {
                        2 => {
                            works(|| data.publish(&url, number, "--no-activate"));
                            (data.releases(&url, &format!("activate r{number}")), activate)
                        }
                        3 => {
                            let idle =
                                |entry: &&Entry| matches!(entry.state, State::Previous | State::Waiting | State::Past);
                            if states(&kv).await.iter().find(idle).is_none() {
                                works(|| data.publish(&url, number, "--no-activate"));
                            }
                            let entries = states(&kv).await;
                            let name = &entries.iter().find(idle).unwrap().name;
                            (data.releases(&url, &format!("retire {name}")), retire)
                        }
                        _ => (data.publish(&url, number, ""), publish),
                    };
                    // a dead publisher's lease runs out
                    while list(&kv, NS).await.unwrap().1.is_some() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    let before = current(&kv, NS).await.unwrap();
                    let wait = Duration::from_nanos(random.below(takes.as_nanos() as u64 * 5 / 4));
                    at_work += u32::from(kill_after(command.stderr(Stdio::null()).spawn().unwrap(), wait));
                    let after = current(&kv, NS).await.unwrap();
                    assert!(
                        after == before || after.name == format!("r{number}"),
                        "{} became {}",
                        before.name,
                        after.name
                    );
                    verify(&kv, NS, &after).await.unwrap();
                    for entry in states(&kv).await.iter().filter(|entry| entry.name == format!("r{number}")) {
                        *left.entry(entry.state.to_string()).or_insert(0) += 1;
                    }
                    retiring += states(&kv).await.iter().filter(|entry| entry.state == State::Retiring).count().min(1);
                    let loading = states(&kv).await.into_iter().find(|entry| entry.state == State::Loading);
                    match loading {
                        // nobody clears up after the first of them: it expires
                        Some(entry) if pages_of(&kv, &entry).await > 0 && expired == 0 => {
                            tokio::time::sleep(GRACE + Duration::from_millis(300)).await;
                            assert_eq!(pages_of(&kv, &entry).await, 0);
                            expired += 1;
                        }
                        Some(entry) => kept += u32::from(pages_of(&kv, &entry).await > 0),
                        None => {}
                    }
                }
            });
        });
        let killed = kills.join();
        stop.store(true, Ordering::Relaxed);
        let read = reader.join();
        killed.unwrap();
        read.unwrap()
    });
    println!(
        "{KILLS} kills, {at_work} of them at work, {} left pages; then a release was {left:?}, retiring {retiring}; {read} vectors read",
        expired + kept
    );
    assert!(at_work > KILLS as u32 / 3 && expired + kept > 0 && read > 1_000);
    // when nothing is in its grace any more, what is there is what the ledger keeps
    tokio::time::sleep(GRACE + Duration::from_secs(2)).await;
    gc(&kv, NS, &RemoveOptions::default(), &mut |_, _| ()).await.unwrap();
    let live = states(&kv).await;
    assert!(live.iter().all(|entry| matches!(entry.state, State::Active | State::Previous)), "{live:?}");
    let mut keys = 1; // the ledger
    for entry in &live {
        assert_eq!(pages_of(&kv, entry).await, entry.pages as usize);
        keys += 1 + entry.pages;
    }
    assert_eq!(
        server.say("DBSIZE").unwrap().lines().next(),
        Some(&format!(":{keys}")[..]),
        "{:?}",
        ledger(&kv, NS).await
    );
}
