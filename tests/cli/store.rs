//! What an operator does to a store with the built binary: publish within a budget, list, switch, remove, check.

use std::process::Command;

use crate::ran::{Ran, run};
use crate::support::RedisServer;
use crate::support::vectors::{numbers, write_npy};
use serde_json::Value;
use tempfile::TempDir;
use tonnage::catalog::Index;
use tonnage::codec::{Codec, record};
use tonnage::store::{Ids, PublishOptions, ReleaseSpec, Strategy, Users, prepare};

const DIM: usize = 64;
const USERS: usize = 100_000;

struct Bench {
    folder: TempDir,
    store: String,
}

impl Bench {
    fn new(store: String) -> Self {
        let folder = TempDir::new().unwrap();
        write_npy(&folder.path().join("items.npy"), &numbers(300 * DIM, 1), DIM);
        write_npy(&folder.path().join("users.npy"), &numbers(USERS * DIM, 2), DIM);
        let bench = Self { folder, store };
        bench.works("build --items items.npy --metric dot --out items.tng --release base");
        bench
    }

    fn run(&self, line: &str) -> Ran {
        run(self.folder.path(), &line.replace("STORE", &self.store))
    }

    fn works(&self, line: &str) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {}{}", ran.out, ran.err);
        ran
    }

    fn refused(&self, code: i32, line: &str, words: &[&str]) {
        let ran = self.run(line);
        assert_eq!(ran.code, code, "{line}: {}{}", ran.out, ran.err);
        ran.says(words);
    }

    fn publish(&self, name: &str, more: &str) -> String {
        format!("publish --index items.tng --users users.npy --store {} --release {name} {more}", self.store)
    }
}

fn releases_go_round(bench: &Bench) {
    for name in ["a", "b", "c"] {
        bench.works(&bench.publish(name, ""));
    }
    bench.works("releases list --store STORE").says(&["release", "past", "previous", "active", "int8"]);
    let list = bench.works("releases list --store STORE --json").json();
    assert_eq!((&list["active"], &list["publishing"]), (&"c".into(), &Value::Null));
    let states: Vec<_> = list["releases"].as_array().unwrap().iter().map(|r| (&r["name"], &r["state"])).collect();
    for pair in [("a", "past"), ("b", "previous"), ("c", "active")] {
        assert!(states.contains(&(&pair.0.into(), &pair.1.into())), "{states:?}");
    }
    assert_eq!(list["releases"][0]["manifest"]["users"], USERS);
    bench.works("releases rollback --store STORE").says(&["release b is active"]);
    bench.works("releases activate c --store STORE").says(&["release c is active"]);
    bench.refused(5, "releases retire c --store STORE", &["active", "activate another first"]);
    bench.refused(5, "releases retire nobody --store STORE", &["no release nobody"]);
    bench.works("releases gc --store STORE").says(&["release a (past)", "pages removed"]);
    bench.works("releases gc --store STORE").says(&["nothing to remove"]);
    let removed = bench.works("releases retire b --store STORE --json").json();
    assert_eq!((&removed["removed"][0]["name"], &removed["removed"][0]["was"]), (&"b".into(), &"previous".into()));
    bench.refused(5, "releases rollback --store STORE", &["no previous release"]);
}

#[test]
fn releases_are_listed_switched_and_removed_on_a_server() {
    let server = RedisServer::start(&[]);
    releases_go_round(&Bench::new(server.url()));
}

#[test]
fn releases_are_listed_switched_and_removed_in_a_file() {
    releases_go_round(&Bench::new("users.redb".to_owned()));
}

#[test]
fn a_budget_refuses_and_each_strategy_says_what_it_costs() {
    let server = RedisServer::start(&[]);
    let bench = Bench::new(server.url());
    let first = bench.works(&bench.publish("a", "--json")).json();
    let (predicted, actual) = (&first["memory"]["predicted_bytes"], &first["memory"]["actual_bytes"]);
    let error = predicted.as_f64().unwrap() / actual.as_f64().unwrap() - 1.0;
    assert!(error.abs() < 0.01, "{predicted} was {actual}");
    let grown =
        first["footprint"]["peak_bytes"].as_u64().unwrap() - first["footprint"]["before_bytes"].as_u64().unwrap();
    let used = first["footprint"]["rest_bytes"].as_u64().unwrap();
    let tight = format!("--budget-bytes {}", used + grown * 3 / 4);
    bench.refused(
        8,
        &bench.publish("b", &tight),
        &["release b", "nothing was written", "--codec int4", "--strategy rolling"],
    );
    bench.works("releases list --store STORE").says(&["a "]);

    let lower = bench.works(&bench.publish("b", &format!("{tight} --strategy lower-codec --json")));
    lower.says(&["int8 does not fit, int4 does", "of the ten best items"]);
    assert_eq!((&lower.json()["codec"], &lower.json()["active"]), (&"int4".into(), &true.into()));

    let full = format!("--budget-bytes {}", used + grown * 3 / 4);
    bench.refused(5, &bench.publish("c", &format!("{full} --strategy rolling")), &["same codec"]);
    bench.works("releases rollback --store STORE");
    let rolled = bench.works(&bench.publish("c", &format!("{full} --strategy rolling")));
    rolled.says(&["rolling over a", "no way back to a", "release c is active"]);

    bench.refused(2, &bench.publish("d", &format!("{full} --strategy replace")), &["replacing c", "--allow-gap"]);
    bench.refused(2, &bench.publish("d", &format!("{full} --allow-gap")), &["--allow-gap belongs"]);
    let replaced = bench.works(&bench.publish("d", &format!("{full} --strategy replace --allow-gap")));
    replaced.says(&["nobody has a vector", "release d is active"]);
    let list = bench.works("releases list --store STORE --json").json();
    assert_eq!(list["active"], "d");
}

#[test]
fn a_plan_says_how_to_load_and_needs_an_active_release_to_roll_over() {
    let bench = Bench::new("users.redb".to_owned());
    bench.works("plan --items items.npy --users users.npy --metric dot --index items.tng --redis 64MiB --recall 0.1 --out plan.toml");
    let path = bench.folder.path().join("plan.toml");
    let toml = std::fs::read_to_string(&path).unwrap();
    let line = |name: &str| {
        format!("publish --index items.tng --users users.npy --store STORE --plan plan.toml --release {name}")
    };
    assert!(toml.contains("publishing = \"beside\""), "{toml}");
    std::fs::write(&path, toml.replace("publishing = \"beside\"", "publishing = \"rolling\"")).unwrap();
    bench.works(&line("a")).says(&["release a is active"]);
    bench.refused(2, &format!("{} --no-activate", line("b")), &["--no-activate leaves the active release"]);
    bench.works(&line("b")).says(&["rolling over a", "release b is active"]);

    std::fs::write(&path, toml.replace("publishing = \"beside\"", "publishing = \"retire-first\"")).unwrap();
    bench.works(&line("c")).says(&["release c is active"]);
    bench.works(&line("d")).says(&["by the plan release b goes first", "tonnage releases retire b"]);
}

#[test]
fn a_doctor_finds_what_is_wrong_and_nothing_else() {
    let server = RedisServer::start(&["--maxmemory", "100mb"]);
    let bench = Bench::new(server.url());
    bench.refused(1, "doctor --store STORE", &["no release is active", "1 finding"]);
    bench.works(&bench.publish("a", ""));
    bench.works(&bench.publish("b", ""));
    let well = bench.works("doctor --store STORE");
    well.says(&["noeviction", "release a", "tables of", "another release like the active one"]);
    let json = bench.works("doctor --store STORE --json").json();
    assert_eq!((&json["findings"], &json["server"]["limit_bytes"]), (&Value::Array(Vec::new()), &(100 << 20).into()));
    let shares: u64 = json["shares"].as_array().unwrap().iter().map(|share| share["bytes"].as_u64().unwrap()).sum();
    assert_eq!(shares, json["server"]["used_bytes"]);

    server.say("CONFIG SET maxmemory-policy allkeys-lru").unwrap();
    bench.refused(1, "doctor --store STORE", &["allkeys-lru would evict vectors"]);
    server.say("CONFIG SET maxmemory-policy noeviction").unwrap();
    bench.refused(1, "doctor --store STORE --budget-bytes 20MB", &["another release", "retire one"]);

    // a page of each of them goes, and a page of one that was retired comes back
    let list = bench.works("releases list --store STORE --json").json();
    let keys = |at: usize| list["releases"][at]["keys"].as_str().unwrap().to_owned();
    server.say(&format!("DEL tonnage:{}:3", keys(1))).unwrap();
    bench.refused(1, "doctor --store STORE", &["release b has lost 1 pages"]);
    bench.works("releases retire a --store STORE");
    server.say(&format!("SET tonnage:{}:5 x", keys(0))).unwrap();
    bench.refused(1, "doctor --store STORE", &["1 pages are left of release a (retired)", "2 findings"]);
}

/// What `tools/read_items.py` prints for these rows of `tonnage.items`.
fn read_items(server: &RedisServer, rows: &[u32]) -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/read_items.py");
    let mut python = Command::new("python3");
    python.args([script, "127.0.0.1", &server.port().to_string(), "tonnage.items"]);
    let output = python.args(rows.iter().map(u32::to_string)).output();
    let output = output.unwrap_or_else(|e| panic!("python3 must be installed for this test: {e}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[test]
fn item_pages_are_published_read_by_others_and_go_with_their_release() {
    let server = RedisServer::start(&[]);
    let bench = Bench::new(server.url());
    let items = |name: &str, more: &str| {
        format!("publish --index items.tng --item-pages --store STORE --release {name} {more}")
    };
    bench.refused(2, "publish --index items.tng --store STORE", &["--users"]);
    bench.refused(2, &format!("{} --users users.npy", items("a", "")), &["cannot be used with"]);
    bench.refused(8, &items("a", "--budget-bytes 900000"), &["nothing was written"]);
    assert!(server.say("DBSIZE").unwrap().starts_with(":0\r"));

    for (name, codec) in [("a", Codec::F16), ("b", Codec::Int8)] {
        let first = bench.works(&items(name, &format!("--codec {codec} --json"))).json();
        assert_eq!((&first["of"], &first["users"], &first["active"]), (&"items".into(), &300.into(), &true.into()));
        assert!(first["footprint"]["peak_bytes"].as_u64() > first["footprint"]["before_bytes"].as_u64());
        // another program reads what the index holds
        let index = Index::open(&bench.folder.path().join("items.tng")).unwrap();
        let text = read_items(&server, &[0, 7, 299]).unwrap();
        for (line, row) in text.lines().zip([0, 7, 299]) {
            let (mut vector, mut bytes) = (vec![0.0; DIM], vec![0; codec.bytes_per_vector(DIM)]);
            index.vector(row, &mut vector);
            record::encode(codec, &vector, &mut bytes).unwrap();
            record::decode(codec, &bytes, &mut vector).unwrap();
            let numbers: Vec<f32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
            assert_eq!((numbers[0], &numbers[1..]), (row as f32, &vector[..]), "{codec}");
        }
        bench.works(&bench.publish(name, ""));
    }
    let list = bench.works("releases list --store STORE --json").json();
    let side = |side: &str| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        list[side].as_array().unwrap().iter().map(|entry| (text(&entry["name"]), text(&entry["state"]))).collect()
    };
    let expected = [("a".to_owned(), "previous".to_owned()), ("b".to_owned(), "active".to_owned())];
    assert_eq!((side("releases"), side("items")), (expected.to_vec(), expected.to_vec()));
    bench.works("releases list --store STORE").says(&["users", "items", "f16"]);
    bench.works("doctor --store STORE").says(&["release a (items)", "release b (items)"]);

    bench
        .works("releases rollback --store STORE")
        .says(&["release a is active: 100000 users", "a is active: 300 items"]);
    let page = |name: &str| {
        let entry = list["items"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap();
        server.say(&format!("EXISTS tonnage.items:{}:0", entry["keys"].as_str().unwrap())).unwrap()
    };
    assert!(page("a").starts_with(":1") && page("b").starts_with(":1"));
    // other items than those of the active users
    bench.works(&items("b", ""));
    bench.refused(
        1,
        "doctor --store STORE",
        &["release a has items, and other items are active", "releases activate a"],
    );
    bench.works("releases activate b --store STORE").says(&["300 items"]);
    bench.refused(5, "releases retire b --store STORE", &["activate another first"]);
    bench.works("releases retire a --store STORE").says(&["release a (previous)", "release a, items (previous)"]);
    assert!(page("a").starts_with(":0") && page("b").starts_with(":1"));
    // a page that is lost is found
    let keys = list["items"][1]["keys"].as_str().unwrap();
    server.say(&format!("DEL tonnage.items:{keys}:0")).unwrap();
    bench.refused(1, "doctor --store STORE", &["release b (items) has lost 1 pages"]);

    // users of another release take over, and the items of the old one go with it, though nothing came in their place
    bench.works(&bench.publish("c", ""));
    bench.works(&bench.publish("d", ""));
    bench.works("releases gc --store STORE").says(&["release b (past)", "release b, items (active)"]);
    assert!(page("b").starts_with(":0"));
    assert!(read_items(&server, &[0]).unwrap_err().contains("tonnage.items has no active release"));
    bench.works("releases gc --store STORE").says(&["nothing to remove"]);
}

#[test]
fn a_half_rolled_release_is_named_with_what_can_be_done() {
    let server = RedisServer::start(&[]);
    let bench = Bench::new(server.url());
    bench.works(&bench.publish("a", ""));
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let spec = ReleaseSpec {
            name: "half".to_owned(),
            fingerprint: 7,
            codec: Codec::Int8,
            dim: DIM as u32,
            grace: ReleaseSpec::DEFAULT_GRACE,
        };
        let encode = |rows: &[u32], _: &mut [u8]| if rows[0] < 50_000 { Ok(()) } else { Err("no more".into()) };
        let users = Users { count: USERS as u32, ids: Ids::Dense, encode: &encode };
        let options = PublishOptions { strategy: Strategy::Rolling, ..PublishOptions::default() };
        let kv = server.connect().await;
        let rolling = prepare(&kv, "tonnage", &spec, &users, &options).await.unwrap();
        rolling.run(&mut |_| ()).await.unwrap_err();
    });
    let remedies = ["half", "run the same publish again", "releases retire half"];
    bench.works("releases gc --store STORE").says(&remedies);
    bench.refused(1, "doctor --store STORE", &remedies);
    bench.refused(5, &bench.publish("c", "--strategy rolling"), &remedies[..2]);
    bench.works("releases retire half --store STORE").says(&["release half (rolling) is given up"]);
    bench.works("releases gc --store STORE").says(&["nothing to remove"]);
    bench.refused(1, "doctor --store STORE", &["release half was rolled in by half and given up"]);
    bench.works(&bench.publish("c", "--strategy rolling")).says(&["release c is active"]);
    bench.works("doctor --store STORE");
}
