//! `tonnage plan`, run as a user would: on real data, with a real server, and where nothing fits.

use std::fmt::Write as _;
use std::path::Path;

use crate::ran::Ran;
use crate::support::RedisServer;
use crate::support::vectors::{numbers, write_npy};
use serde_json::Value;
use tempfile::TempDir;
use tonnage::store::list_bytes;

const DIM: usize = 16;

/// Code, standard output, standard error.
fn run(folder: &Path, line: &str) -> (i32, String, String) {
    let Ran { code, out, err } = crate::ran::run(folder, line);
    (code, out, err)
}

fn plan(folder: &Path, more: &str) -> (i32, String, String) {
    run(folder, &format!("plan --items items.npy --users users.npy {more}"))
}

/// A small model, and a log of a day in which a tenth of the users makes most requests.
fn inputs() -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = |name| folder.path().join(name);
    write_npy(&path("items.npy"), &numbers(400 * DIM, 1), DIM);
    write_npy(&path("users.npy"), &numbers(700 * DIM, 2), DIM);
    let mut log = "user,time\n".to_owned();
    for at in 0..4000_u32 {
        let user = if at % 5 < 4 { at * 7 % 70 } else { at * 11 % 700 };
        writeln!(log, "{user},{}", 1_700_000_000 + at * 20).unwrap();
    }
    std::fs::write(path("log.csv"), log).unwrap();
    folder
}

fn is_number(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value[name].is_number(), "{name} in {value}");
    }
}

#[test]
fn a_plan_for_a_server_is_told_in_every_form_and_leaves_the_server_as_it_was() {
    let folder = inputs();
    let server = RedisServer::start(&["--maxmemory", "64mb", "--maxmemory-policy", "noeviction"]);
    let line = format!(
        "--metric dot --store {} --ram 1GiB --log log.csv --rps 500 --recall 0.9 --out plan.toml --html plan.html --json",
        server.url()
    );
    let (code, out, err) = plan(folder.path(), &line);
    assert_eq!((code, &err[..]), (0, ""), "{out}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["model"]["items"], &json["model"]["users"]), (&400.into(), &700.into()));
    assert!(json["model"]["server"].as_str().unwrap().contains('.'), "{}", json["model"]);
    let fits = &json["outcome"]["fits"];
    let (settings, predicted) = (&fits["plan"]["settings"], &fits["plan"]["predicted"]);
    assert_eq!(settings["maxmemory_bytes"], 64 << 20);
    assert_eq!(settings["users_kept"], 700);
    is_number(predicted, &["rest_bytes", "peak_bytes", "p99_ms", "client_us", "server_us", "cores"]);
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&predicted["rest_bytes"]) <= number(&predicted["peak_bytes"]));
    assert!(number(&predicted["peak_bytes"]) <= 0.95 * f64::from(64 << 20));
    assert_eq!(
        number(&predicted["node_ram_bytes"]),
        (1.35 * f64::from(64 << 20)).ceil(),
        "a server grows to its maxmemory"
    );
    assert!(number(&predicted["recall"]["low"]) >= 0.9);
    assert!(!fits["rejected"].as_array().unwrap().is_empty());
    assert_eq!(json["modes"].as_array().unwrap().len(), 3);
    for mode in json["modes"].as_array().unwrap() {
        assert!(number(&mode["client_us"]) > 0.0 && number(&mode["requests_per_s_per_core"]) > 0.0, "{mode}");
        // the plan's mode has the plan's price
        if mode["mode"] == settings["mode"] {
            assert_eq!([&mode["client_us"], &mode["server_us"]], [&predicted["client_us"], &predicted["server_us"]]);
        }
    }
    // as packed as they are stored
    assert_eq!(json["store"]["list_bytes"], list_bytes(100, 400));
    assert_eq!(json["store"]["candidates_bytes"], list_bytes(400, 400), "there are only 400 items");
    assert!(number(&json["store"]["list"]["server_us"]) > 0.0, "{}", json["store"]);
    assert!(json["traffic"]["basis"]["log"]["requests"] == 4000, "{}", json["traffic"]["basis"]);
    let toml = std::fs::read_to_string(folder.path().join("plan.toml")).unwrap();
    assert!(toml.contains("format = 1") && toml.contains("[plan.settings]"), "{toml}");
    let page = std::fs::read_to_string(folder.path().join("plan.html")).unwrap();
    for word in ["The load line", "Recall against bytes", "Misses of a result cache", "The modes side by side"] {
        assert!(page.contains(word), "{word}");
    }
    assert!(!page.contains("http") && !page.contains("src="), "the page loads something");
    let doctor = format!("doctor --store {} --plan plan.toml", server.url());
    let (code, out, err) = run(folder.path(), &doctor);
    assert!(code == 1 && out.contains("planned: ") && !out.contains("as planned"), "{code} {out}{err}");
    server.say("CONFIG SET maxmemory-policy volatile-random").unwrap();
    let (code, out, err) = run(folder.path(), &doctor);
    assert!(code == 1 && out.contains("set it to noeviction, as planned"), "{code} {out}{err}");
    assert!(server.say("DBSIZE").unwrap().starts_with(":0"), "scratch keys were left: {:?}", server.say("KEYS *"));
}

#[test]
fn publish_takes_a_plan_as_it_is_and_refuses_one_for_another_model() {
    let folder = inputs();
    let (code, out, err) = run(folder.path(), "build --items items.npy --metric dot --out items.tng --users users.npy");
    assert_eq!(code, 0, "{out}{err}");
    let (code, out, err) =
        plan(folder.path(), "--index items.tng --redis 32MiB --ram 1GiB --recall 0.5 --out plan.toml");
    assert_eq!(code, 0, "{out}{err}");
    let toml = std::fs::read_to_string(folder.path().join("plan.toml")).unwrap();
    let codec = toml.lines().find_map(|line| line.strip_prefix("users = \"")).unwrap().trim_end_matches('"');
    let publish = "publish --index items.tng --users users.npy --store users.redb --json --plan plan.toml";
    let (code, out, err) = run(folder.path(), publish);
    assert_eq!((code, &err[..]), (0, ""), "{out}");
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["codec"], &json["users"]), (&codec.into(), &700.into()));
    std::fs::write(folder.path().join("plan.toml"), toml.replace("users_kept = 700", "users_kept = 600")).unwrap();
    let (code, _, err) = run(folder.path(), publish);
    assert!(code == 3 && err.contains("keeps 600 of the users, the most deserving, got 700"), "{code} {err}");
}

#[test]
fn without_a_server_and_a_log_the_plan_says_what_it_assumed() {
    let folder = inputs();
    let (code, out, err) = plan(folder.path(), "--metric dot --redis 32MiB --ram 1GiB --recall 0.9");
    assert_eq!((code, &err[..]), (0, ""), "{out}");
    for words in ["maxmemory", "at the peak", "not chosen", "assumed, not measured", "--store", "--log", "rank^-0.8"] {
        assert!(out.contains(words), "{words} in {out}");
    }
}

#[test]
fn where_nothing_fits_the_exit_code_is_9_and_what_would_help_is_named() {
    let folder = inputs();
    let (code, out, err) = plan(folder.path(), "--metric dot --redis 1MB --ram 1GiB --html no.html --out no.toml");
    assert_eq!(code, 9, "{out}{err}");
    assert!(err.contains("nothing fits") && err.lines().count() == 1, "{err}");
    for words in ["nothing fits", "bytes of a node", "what would help", "--redis "] {
        assert!(out.contains(words), "{words} in {out}");
    }
    assert!(std::fs::read_to_string(folder.path().join("no.html")).unwrap().contains("Nothing fits"));
    assert!(!folder.path().join("no.toml").exists(), "there is no plan to write");
    // what is printed is enough, as it is printed
    let line = out.lines().find(|line| line.starts_with("  --redis ") && !line.contains(", and ")).unwrap();
    let (flag, _) = line.split_once(" instead of ").unwrap();
    let (code, out, err) = plan(folder.path(), &format!("--metric dot --ram 1GiB {flag}"));
    assert_eq!(code, 0, "{line}: {out}{err}");
}

#[test]
fn what_is_missing_or_contradicts_is_refused_before_anything_is_measured() {
    let folder = inputs();
    let refused = |more: &str, code: i32, word: &str| {
        let (got, out, err) = plan(folder.path(), more);
        assert!(got == code && out.is_empty() && err.contains(word), "{more}: {got} {out}{err}");
    };
    refused("--metric dot", 2, "--redis is needed");
    refused("--redis 1GiB", 2, "--metric");
    refused("--metric dot --redis 5elephants", 2, "5elephants");
    refused("--metric dot --redis 1GiB --store redis://127.0.0.1:1/0", 5, "127.0.0.1");
    refused("--metric dot --redis 1GiB --index gone.tng", 4, "gone.tng");
    refused("--metric dot --redis 1GiB --log gone.csv", 3, "gone.csv");
    let nonsense = [
        ("--recall 95", "floor of quality: expected 0 to 1, got 95"),
        ("--coverage 90", "coverage: expected 0 to 1, got 90"),
        ("--rps nan", "requests per second"),
        ("--nodes 0", "nodes: expected 1 or more, got 0"),
        ("--releases-kept 17", "releases kept"),
        ("--zipf nan", "from 0 to 4"),
        ("--zipf 9", "from 0 to 4"),
        ("--growth=-1", "from 0 to 10000"),
        ("-k 0", "1..=100"),
        ("-k 101", "1..=100"),
    ];
    for (flags, word) in nonsense {
        refused(&format!("--metric dot --redis 1GiB {flags}"), 2, word);
    }
}

#[test]
fn a_ceiling_for_lost_ranking_that_nothing_can_be_held_against_is_refused_with_the_remedy() {
    let folder = inputs();
    let path = |name| folder.path().join(name);
    let refused = |held: &str, word: &str| {
        std::fs::write(path("held.csv"), held).unwrap();
        let line = "--metric dot --redis 32MiB --heldout held.csv --ranking-loss 0.1";
        let (code, out, err) = plan(folder.path(), line);
        assert!(code == 2 && out.is_empty() && err.contains(word), "{code} {out}{err}");
    };
    refused("user,item\n7000,1\n", "ids those of --users and --items");
    write_npy(&path("items.npy"), &numbers(50_001 * DIM, 1), DIM);
    refused("user,item\n1,1\n", "--ranking-loss needs --index with more than 50000 items");
}
