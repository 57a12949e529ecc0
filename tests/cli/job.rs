//! The built binary, run as a user would.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::ran::{Ran, command, run};
use crate::support::RedisServer;
use crate::support::vectors::{numbers, write_ids, write_npy};
use serde_json::Value;
use tempfile::TempDir;

const ITEMS: usize = 300;
const USERS: usize = 600;
const DIM: usize = 16;
const BUILD: &str = "build --items items.npy --metric dot --out items.tng --ids items.txt --tags tags.csv \
                     --numbers numbers.csv --popularity popularity.csv --users users.npy --release monday";
const PUBLISH: &str = "publish --index items.tng --users users.npy --ids users.txt --store users.redb";
const RECOMMEND: &str = "recommend --index items.tng --store users.redb";

/// Runs a command that works; not a word on standard error, which is no terminal here.
fn works(folder: &Path, line: &str) -> Ran {
    let ran = run(folder, line);
    assert_eq!((ran.code, &ran.err[..]), (0, ""), "{line}: {ran:?}");
    ran
}

/// A folder with what training left.
fn inputs() -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = |name| folder.path().join(name);
    write_npy(&path("items.npy"), &numbers(ITEMS * DIM, 1), DIM);
    write_npy(&path("users.npy"), &numbers(USERS * DIM, 2), DIM);
    write_ids(&path("items.txt"), "item", ITEMS);
    write_ids(&path("users.txt"), "user", USERS);
    let lines =
        |head: &str, line: &dyn Fn(usize) -> String| head.to_owned() + &(0..ITEMS).map(line).collect::<String>();
    let parity = |row: usize| if row.is_multiple_of(2) { "even" } else { "odd" };
    fs::write(path("tags.csv"), lines("id,tag\n", &|row| format!("item-{row},{}\n", parity(row)))).unwrap();
    let prices = lines("id,field,value\n", &|row| format!("item-{row},price,{}.5\n", row % 50));
    fs::write(path("numbers.csv"), prices + "item-3,year,1999\nitem-4,year,2026\n").unwrap();
    fs::write(path("popularity.csv"), lines("id,popularity\n", &|row| format!("item-{row},{row}\n"))).unwrap();
    folder
}

/// The same, built and published to the embedded store.
fn online() -> TempDir {
    let folder = inputs();
    works(folder.path(), BUILD);
    works(folder.path(), PUBLISH);
    folder
}

fn ids(answer: &Value) -> Vec<String> {
    answer["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

fn is_number(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value[name].is_number(), "{name} in {value}");
    }
}

#[test]
fn build_prints_a_table_or_json() {
    let folder = inputs();
    let text = works(folder.path(), BUILD).out;
    let words = ["items.tng: 300 items of 16 dimensions as int8 + residual", "release monday", "measured on 600 users"];
    assert!(words.iter().all(|words| text.contains(words)), "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq(["ef", "recall@10", "recall@100", "distances"])));
    let json = works(folder.path(), &format!("{BUILD} --json")).json();
    assert_eq!((&json["out"], &json["release"]), (&"items.tng".into(), &"monday".into()));
    assert_eq!((&json["items"], &json["dim"], &json["metric"]), (&300.into(), &16.into(), &"dot".into()));
    assert_eq!((&json["codec"], &json["finer"], &json["choice"]), (&"int8".into(), &"int8".into(), &Value::Null));
    assert_eq!(json["fingerprint"].as_str().unwrap().len(), 16);
    is_number(&json, &["bytes", "working_bytes", "repaired", "build_s"]);
    for section in json["bytes_per_item"].as_array().unwrap() {
        assert!(section["name"].is_string());
        is_number(section, &["bytes", "per_item"]);
    }
    let profile = &json["profile"];
    assert_eq!((&profile["source"], &profile["queries"]), (&"users".into(), &600.into()));
    is_number(profile, &["codec_recall_at_10"]);
    is_number(&profile["rungs"][0], &["ef", "recall_at_10", "recall_at_100", "distances"]);
}

#[test]
fn the_same_inputs_make_the_same_file() {
    let folder = inputs();
    works(folder.path(), BUILD);
    let first = fs::read(folder.path().join("items.tng")).unwrap();
    works(folder.path(), &format!("{BUILD} --threads 1"));
    assert!(first == fs::read(folder.path().join("items.tng")).unwrap());
}

#[test]
fn codec_auto_takes_the_first_that_reaches_the_floor_and_shows_the_table() {
    let folder = inputs();
    let line = format!("{BUILD} --codec auto --min-recall 0.9");
    let text = works(folder.path(), &line).out;
    let header = text.lines().next().unwrap();
    assert!(header.split_whitespace().eq(["codec", "bytes/item", "recall@10"]), "{text}");
    assert_eq!(text.lines().filter(|line| line.trim_end().ends_with("chosen")).count(), 1, "{text}");
    let json = works(folder.path(), &format!("{line} --json")).json();
    let table = json["choice"].as_array().unwrap();
    assert!(table.len() >= 4);
    for row in table {
        is_number(row, &["bytes_per_item", "recall_at_10"]);
    }
    let good = table.iter().find(|row| row["recall_at_10"].as_f64().unwrap() >= 0.9).unwrap();
    assert_eq!((&json["codec"], &json["finer"]), (&good["codec"], &good["finer"]));
}

#[test]
fn inspect_shows_the_file_and_walks_it() {
    let folder = online();
    let text = works(folder.path(), "inspect items.tng").out;
    assert!(text.contains("release monday") && text.contains("bytes/item") && text.contains("codes"), "{text}");
    let text = works(folder.path(), "inspect items.tng --verify").out;
    assert!(text.contains("; 0 items unreachable"), "{text}");
    let json = works(folder.path(), "inspect items.tng --json").json();
    assert_eq!((&json["file"], &json["graph"]), (&"items.tng".into(), &Value::Null));
    is_number(&json, &["bytes", "items", "dim", "m", "ef_construction", "seed", "repaired", "tags"]);
    assert_eq!((&json["text_ids"], &json["tags"]), (&true.into(), &2.into()));
    is_number(&json["sections"][0], &["bytes", "per_item"]);
    let numbers: Value = serde_json::from_str(
        r#"[{"field":"price","items":300,"min":0.5,"max":49.5},{"field":"year","items":2,"min":1999.0,"max":2026.0}]"#,
    )
    .unwrap();
    assert_eq!(json["numbers"], numbers);
    assert!(["price", "49.5", "year", "2026"].iter().all(|says| text.contains(says)), "{text}");
    let json = works(folder.path(), "inspect items.tng --verify --json").json();
    assert_eq!(json["graph"]["unreachable"], 0);
    is_number(&json["graph"], &["mean_degree"]);
}

#[test]
fn publish_says_what_it_wrote_and_both_homes_answer_alike() {
    let folder = inputs();
    let server = RedisServer::start(&[]);
    works(folder.path(), BUILD);
    let text = works(folder.path(), PUBLISH).out;
    assert!(text.contains("release monday is active: 600 users as int8") && text.contains("bytes a user"), "{text}");
    let redis = PUBLISH.replace("users.redb", &server.url());
    let json = works(folder.path(), &format!("{redis} --json")).json();
    assert_eq!((&json["store"], &json["namespace"]), (&server.url().into(), &"tonnage".into()));
    assert_eq!((&json["active"], &json["name"]), (&true.into(), &"monday".into()));
    assert_eq!((&json["users"], &json["codec"], &json["dim"]), (&600.into(), &"int8".into(), &16.into()));
    is_number(&json, &["bytes", "bytes_per_user", "users_per_s"]);
    let ask = format!("{RECOMMEND} --user user-7 --json");
    let answers = [ask.clone(), ask.replace("users.redb", &server.url())].map(|line| works(folder.path(), &line).out);
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_release_that_is_not_activated_does_not_answer() {
    let folder = inputs();
    works(folder.path(), BUILD);
    let text = works(folder.path(), &format!("{PUBLISH} --no-activate")).out;
    assert!(text.contains("is published, not active"), "{text}");
    run(folder.path(), &format!("{RECOMMEND} --user user-7")).refused(5, &["no active release", "publish one"]);
}

#[test]
fn recommend_answers_one_user() {
    let folder = online();
    let text = works(folder.path(), &format!("{RECOMMEND} --user user-7 -k 3")).out;
    assert!(text.starts_with("for user-7\n") && text.matches("item-").count() == 3, "{text}");
    let json = works(folder.path(), &format!("{RECOMMEND} --user user-7 -k 3 --json")).json();
    assert_eq!((&json["user"], &json["rung"], &json["short"]), (&"user-7".into(), &"page".into(), &Value::Null));
    let resident = works(folder.path(), &format!("{RECOMMEND} --user user-7 -k 3 --json --resident")).json();
    assert_eq!(resident, json);
    is_number(&json, &["distances"]);
    is_number(&json["items"][0], &["score"]);
    assert_eq!(ids(&json).len(), 3);
    assert!(ids(&json).iter().all(|id| text.contains(id)));
    let text = works(folder.path(), &format!("{RECOMMEND} --user nobody -k 2")).out;
    assert!(text.contains("not known") && text.contains("item-299") && text.contains("item-298"), "{text}");
    let json = works(folder.path(), &format!("{RECOMMEND} --user nobody -k 400 --json")).json();
    assert_eq!(json["rung"], "popularity");
    assert!(json["short"].as_str().unwrap().contains("300 of 400"));
}

#[test]
fn recommend_answers_a_file_of_users_as_json_lines() {
    let folder = online();
    let mut names: Vec<String> = (0..USERS).rev().map(|row| format!("user-{row}")).collect();
    names.insert(3, "nobody".to_owned());
    fs::write(folder.path().join("ask.txt"), names.join("\n")).unwrap();
    let out = works(folder.path(), &format!("{RECOMMEND} --users ask.txt -k 4")).out;
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let users: Vec<&str> = lines.iter().map(|line| line["user"].as_str().unwrap()).collect();
    assert_eq!(users, names);
    assert!(lines.iter().all(|line| ids(line).len() == 4));
    assert_eq!(lines[3]["rung"], "popularity");
}

#[test]
fn seen_items_and_tags_are_respected() {
    let folder = online();
    let ask = |more: &str| ids(&works(folder.path(), &format!("{RECOMMEND} --user user-7 --json {more}")).json());
    let best = ask("");
    // what another user has seen does not count
    let log = format!("user,item\nuser-7,{}\nuser-8,{}\nuser-7,gone\n", best[0], best[1]);
    fs::write(folder.path().join("seen.csv"), log).unwrap();
    let unseen = ask("--seen seen.csv");
    assert!(unseen.len() == 10 && !unseen.contains(&best[0]) && unseen.contains(&best[1]));
    fs::write(folder.path().join("ask.txt"), "user-7\n").unwrap();
    let many = works(folder.path(), &format!("{RECOMMEND} --users ask.txt --seen seen.csv")).json();
    assert_eq!(ids(&many), unseen);
    let number = |id: &String| id.strip_prefix("item-").unwrap().parse::<usize>().unwrap();
    assert!(ask("--tag odd").iter().all(|id| number(id) % 2 == 1));
    assert!(ask("--not-tag odd").iter().all(|id| number(id).is_multiple_of(2)));
    assert_eq!(ask("--tag odd --tag even"), best);
    assert!(ask("--range price:10.5..12.5").iter().all(|id| (10..=12).contains(&(number(id) % 50))));
    assert_eq!(ask("--range year:1999.. --range price:..3.5"), ["item-3"]);
}

#[test]
fn every_verb_has_help_and_completions_are_printed() {
    let folder = TempDir::new().unwrap();
    let help = works(folder.path(), "--help").out;
    assert!(help.contains("Exit codes:"), "{help}");
    for verb in ["build", "inspect", "plan", "publish", "recommend", "demo", "completions"] {
        assert!(help.contains(verb));
        assert!(works(folder.path(), &format!("{verb} --help")).out.contains(&format!("tonnage {verb}")));
    }
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef tonnage"), ("fish", "complete -c tonnage")] {
        assert!(works(folder.path(), &format!("completions {shell}")).out.contains(word));
    }
}

#[test]
fn exit_2_says_what_is_wrong_with_the_command_line() {
    let folder = online();
    let one = format!("{RECOMMEND} --user user-7");
    run(folder.path(), &format!("{one} -k 0")).refused(2, &["k is 0", "1 to 10000"]);
    run(folder.path(), &format!("{one} --tag evne")).refused(2, &["\"evne\"", "2 tags", "even, odd"]);
    run(folder.path(), &format!("{one} --range weight:1..2")).refused(2, &["\"weight\"", "2 fields", "price, year"]);
    let ran = run(folder.path(), &format!("{one} --range price:2..1"));
    assert!(ran.code == 2 && ran.err.contains("not before its beginning, got price:2..1"), "{ran:?}");
    run(folder.path(), &format!("{BUILD} --m 2")).refused(2, &["m is 2", "4 to 128"]);
    run(folder.path(), &format!("{PUBLISH} --namespace a:b")).refused(2, &["namespace", "a:b", "1 to 32"]);
    let words = [("build --items items.npy --metric near --out x", "dot, cosine or l2"), (RECOMMEND, "--user")];
    for (line, word) in words {
        let ran = run(folder.path(), line);
        assert!(ran.code == 2 && ran.err.contains(word), "{ran:?}");
    }
}

#[test]
fn exit_3_names_the_row_and_column_of_a_bad_number() {
    let folder = online();
    for (name, rows) in [("items.npy", ITEMS), ("users.npy", USERS)] {
        let mut bad = numbers(rows * DIM, 1);
        bad[17 * DIM + 5] = f32::NAN;
        write_npy(&folder.path().join(name), &bad, DIM);
    }
    let words = ["row 17, column 5", "expected", "got NaN"];
    let ran = run(folder.path(), &BUILD.replace("--users users.npy", ""));
    ran.refused(3, &[&words[..], &["items.npy"]].concat());
    let ran = run(folder.path(), &format!("{PUBLISH} --release tuesday"));
    ran.refused(3, &[&words[..], &["users.npy"]].concat());
    // the release before it still answers
    works(folder.path(), &format!("{RECOMMEND} --user user-7"));
    let ran = run(folder.path(), &BUILD.replace("items.npy", "none.npy"));
    ran.refused(3, &["none.npy", "No such file"]);
    assert_eq!(ran.err.matches("No such file").count(), 1, "{}", ran.err);
    let ran = run(folder.path(), &BUILD.replace("--ids items.txt", "--ids users.txt"));
    ran.refused(3, &["users.txt for items.npy", "expected 300 rows, got 600"]);
}

#[test]
fn exit_4_says_which_part_of_an_index_is_damaged() {
    let folder = online();
    let path = folder.path().join("items.tng");
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let words = ["items.tng", "is damaged", "expected", "build it again"];
    run(folder.path(), "inspect items.tng").refused(4, &words);
    run(folder.path(), &format!("{RECOMMEND} --user user-7")).refused(4, &words);
    run(folder.path(), PUBLISH).refused(4, &words);
    fs::write(&path, &whole[..middle]).unwrap();
    let length = format!("{middle} bytes long where {} are expected", whole.len());
    run(folder.path(), "inspect items.tng").refused(4, &["items.tng", &length, "build it again"]);
    run(folder.path(), "inspect none.tng").refused(4, &["none.tng", "No such file"]);
    run(folder.path(), "inspect users.npy").refused(4, &["users.npy", "not a .tng file"]);
}

#[test]
fn exit_5_says_which_store_and_what_to_check() {
    let folder = online();
    let nowhere = "redis://127.0.0.1:1/0";
    for line in [PUBLISH.to_owned(), format!("{RECOMMEND} --user user-7")] {
        let ran = run(folder.path(), &line.replace("users.redb", nowhere));
        ran.refused(5, &[nowhere, "cannot reach", "check that it runs"]);
    }
    let ran = run(folder.path(), &format!("{RECOMMEND} --user user-7").replace("users.redb", "none.redb"));
    ran.refused(5, &["none.redb", "there is no such file", "check the path"]);
    assert!(!folder.path().join("none.redb").exists());
    works(folder.path(), &BUILD.replace("items.tng", "other.tng").replace("--metric dot", "--metric dot --seed 2"));
    let ran = run(folder.path(), &PUBLISH.replace("items.tng", "other.tng"));
    ran.refused(5, &["release monday exists", "expected", "choose another name"]);
}

#[test]
fn exit_6_says_how_far_the_best_codec_gets() {
    let folder = inputs();
    let ran = run(folder.path(), &format!("{BUILD} --codec auto --min-recall 1.01"));
    ran.refused(6, &["recall@10 1.01", "reaches 1.0000", "lower the floor"]);
    assert!(!folder.path().join("items.tng").exists());
}

#[test]
fn exit_7_names_both_releases() {
    let folder = online();
    let line = BUILD.replace("items.tng", "other.tng").replace("monday", "tuesday");
    works(folder.path(), &line);
    let ran = run(folder.path(), &format!("{RECOMMEND} --user user-7").replace("items.tng", "other.tng"));
    ran.refused(7, &["\"tuesday\"", "\"monday\"", "publish the users for this index"]);
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let folder = online();
    let many = format!("{RECOMMEND} --users users.txt -k 100");
    for line in [&many, "completions bash", "inspect items.tng --json", "recommend --help"] {
        let mut child = command(folder.path(), line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{line}");
    }
}

#[test]
fn the_demo_measures_what_it_promises() {
    let folder = TempDir::new().unwrap();
    let json = works(folder.path(), "demo --json --keep kept").json();
    let recall = |name: &str| json["recall_at_10"][name].as_f64().unwrap();
    assert!(recall("f16") >= 0.999 && recall("int8") >= 0.98 && recall("int4") >= 0.9, "{json}");
    assert!(recall("served") >= 0.98, "{json}");
    let hits = ["exact", "served"].map(|name| json["hit_rate_at_10"][name].as_f64().unwrap());
    assert!(hits[0] > 0.56 && hits[0] - hits[1] <= 0.005, "{hits:?}");
    is_number(&json["bytes_per_item"], &["codes", "finer", "links", "scales"]);
    is_number(&json, &["bytes_per_user", "p50_us", "p99_us", "items", "users", "ef", "held_out", "build_s"]);
    let shown = json["recommendations"]["r-cran-ggplot2"].as_array().unwrap();
    let r = shown.iter().filter(|id| id.as_str().unwrap().starts_with("r-cran-")).count();
    assert!(shown.len() == 10 && r >= 8, "{shown:?}");
    // what it keeps can be used
    assert!(works(folder.path(), "inspect kept/debian.tng").out.contains("release demo"));
    let ask = "recommend --index kept/debian.tng --store kept/users.redb --namespace demo --user r-cran-ggplot2";
    assert!(works(folder.path(), ask).out.contains("r-cran-"));
}
