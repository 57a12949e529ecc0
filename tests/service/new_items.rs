//! New items go to services that run, from the command line.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::support::serve::{DIM, Serving, Trained, USERS};
use crate::support::vectors::{numbers, write_ids, write_npy};
use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

/// What the command said and its exit code.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(words.iter().all(|word| self.err.contains(word)), "{words:?} in {}", self.err);
    }
}

fn say(trained: &Trained, line: &str) -> Said {
    let output = trained.command(line).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

fn url(serving: &Serving) -> String {
    format!("http://{}", serving.public)
}

/// Items `new-0`.., of which the first is better for user 8 than any other.
fn write_items(trained: &Trained, count: usize) {
    let path = |name: &str| trained.folder.path().join(name);
    write_npy(&path("new.npy"), &vectors(count), DIM);
    write_ids(&path("new.txt"), "new", count);
    std::fs::write(path("new-tags.csv"), "id,tag\nnew-0,color:red\nnew-1,color:blue\nnew-0,fresh\n").unwrap();
    std::fs::write(path("new-numbers.csv"), "id,field,value\nnew-0,price,77.5\nnew-0,weight,-2\n").unwrap();
}

fn vectors(count: usize) -> Vec<f32> {
    let mut items = numbers(count * DIM, 9);
    let users = numbers(USERS * DIM, 2);
    items[..DIM].iter_mut().zip(&users[8 * DIM..]).for_each(|(x, user)| *x = user * 20.0);
    items
}

fn best(serving: &Serving, filter: &Value) -> Vec<String> {
    let asked = json!({"user_id": "user-8", "k": 3, "filter": filter});
    serving.post("/v1/recommend", &asked.to_string()).items()
}

const ITEMS: &str = "publish --items new.npy --ids new.txt --json";

#[test]
fn what_the_readme_shows_is_answered_from_then_on() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "");
    write_parquet(&trained.folder.path().join("new.parquet"), 5);
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let line = readme.lines().find_map(|line| line.strip_prefix("tonnage ").filter(|line| line.contains("--service")));
    let line = line.unwrap().replace("http://127.0.0.1:8080", &url(&serving));
    let said = say(&trained, &line.replace("debian.tng", "indexes/monday.tng"));
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    assert!(said.out.contains(&url(&serving)) && said.out.contains('5'), "{}", said.out);
    assert_eq!(best(&serving, &json!({}))[0], "new-0");
    assert_eq!(best(&serving, &json!({"all": [{"eq": "fresh"}]})), ["new-0"]);
}

#[test]
fn every_item_comes_to_every_service_with_its_tags_and_numbers() {
    let (redis, trained) = Trained::online();
    let services = [trained.serve(&redis.url(), ""), trained.serve(&redis.url(), "")];
    // three batches, the last of which is not full
    write_items(&trained, 2_500);
    let to = services.iter().map(|serving| format!("--service {}", url(serving))).collect::<Vec<_>>().join(" ");
    let more = "--tags new-tags.csv --numbers new-numbers.csv --index indexes/monday.tng";
    let said = say(&trained, &format!("{ITEMS} {to} {more}"));
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    let release = services[0].get("/v1/releases").json()["serving"]["fingerprint"].clone();
    let taken = |serving| json!({"service": url(serving), "taken": 2_500, "error": null});
    let services_said: Vec<Value> = services.iter().map(taken).collect();
    assert_eq!(said.json(), json!({"items": 2_500, "release": release, "services": services_said}));
    for serving in &services {
        assert_eq!(serving.metric("tonnage_added_items"), 2_500.0);
        for filter in [
            json!({"all": [{"field": "price", "min": 77, "max": 78}]}),
            json!({"all": [{"field": "weight", "max": -1}, {"field": "color", "eq": "red"}]}),
            json!({"all": [{"eq": "fresh"}]}),
        ] {
            assert_eq!(best(serving, &filter), ["new-0"], "{filter}");
        }
        assert_eq!(best(serving, &json!({"items": ["new-2499"]})), ["new-2499"]);
        assert_eq!(best(serving, &json!({"all": [{"field": "color", "eq": "blue"}]})), ["new-1"]);
    }
    let again = say(&trained, &format!("{ITEMS} {to} {more}"));
    assert_eq!((again.code, services[0].metric("tonnage_added_items")), (0, 2_500.0), "once more is no more");
}

#[test]
fn who_has_not_taken_all_is_named_with_the_reason() {
    let (redis, trained) = Trained::online();
    let keys = "--set keys.read=['read-0123456789abcdef'] --set keys.write=['write-0123456789abcdef']";
    let serving = trained.serve(&redis.url(), keys);
    write_items(&trained, 10);
    std::fs::write(trained.folder.path().join("read.key"), "read-0123456789abcdef\n").unwrap();
    std::fs::write(trained.folder.path().join("write.key"), "write-0123456789abcdef\n").unwrap();
    let to = format!("--service {}", url(&serving));
    say(&trained, &format!("{ITEMS} {to}")).refused(10, &["unauthorized", "a key that may write", &url(&serving)]);
    say(&trained, &format!("{ITEMS} {to} --key-file read.key")).refused(10, &["forbidden", "a key that may write"]);
    let key = "--key-file write.key";
    // one is not there, and the other has all
    let gone = "http://127.0.0.1:1";
    let half = say(&trained, &format!("{ITEMS} {to} {key} --service {gone}"));
    half.refused(10, &["1 of 2 services", gone, "check that it runs"]);
    let taken: Vec<u64> =
        half.json()["services"].as_array().unwrap().iter().map(|one| one["taken"].as_u64().unwrap()).collect();
    assert_eq!(taken, [10, 0]);
    // something else answers
    let redis_url = redis.url().replace("redis://", "http://").replace("/0", "");
    say(&trained, &format!("{ITEMS} --service {redis_url}")).refused(10, &[&redis_url, "check that it runs"]);
    // another model
    trained.build("tuesday", "");
    let other = say(&trained, &format!("{ITEMS} {to} {key} --index indexes/tuesday.tng"));
    other.refused(10, &["409", "other-release", "monday"]);
    write_npy(&trained.folder.path().join("short.npy"), &numbers(10 * 7, 1), 7);
    let short = "publish --items short.npy --ids new.txt";
    say(&trained, &format!("{short} {to} {key}")).refused(10, &["invalid-request", "16", "7"]);
    say(&trained, &format!("{short} {to} {key} --index indexes/monday.tng")).refused(3, &["16 dimensions", "7"]);
    // and what cannot be meant is said before anything is sent
    let before = serving.metric("tonnage_added_items");
    say(&trained, &format!("publish --items new.npy {to}")).refused(2, &["--ids"]);
    say(&trained, "publish --items new.npy --ids new.txt").refused(2, &["--service"]);
    say(&trained, &format!("{ITEMS} {to} --store s.redb")).refused(2, &["--store"]);
    say(&trained, "publish --users users.npy --index indexes/monday.tng").refused(2, &["--store"]);
    say(&trained, &format!("{ITEMS} --service redis://127.0.0.1")).refused(2, &["http://host:port"]);
    say(&trained, &format!("{ITEMS} --service https://127.0.0.1")).refused(2, &["certificates"]);
    say(&trained, &format!("{ITEMS} {to} --key-file none.key")).refused(1, &["none.key"]);
    assert_eq!(serving.metric("tonnage_added_items"), before);
}

fn write_parquet(path: &Path, count: usize) {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..count).map(|row| format!("new-{row}"))));
    let values = Arc::new(Float32Array::from(vectors(count)));
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let vector: ArrayRef = Arc::new(FixedSizeListArray::new(item, DIM as i32, values, None));
    let tags: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..count).map(|row| if row == 0 { "fresh" } else { "other" })));
    let batch = RecordBatch::try_from_iter([("id", ids), ("vector", vector), ("tags", tags)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
