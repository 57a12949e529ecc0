//! A new release is taken up under load without a request failing; a bad one is refused and the old one goes on.

use std::cell::Cell;
use std::path::Path;

use crate::support::RedisServer;
use crate::support::serve::{Serving, Trained, many, under_load};
use serde_json::json;

fn release_of(serving: &Serving) -> String {
    let answered = serving.post("/v1/recommend", r#"{"user_id":"user-5","k":10}"#);
    assert_eq!(answered.status, 200, "{answered:?}");
    answered.json()["release"].as_str().unwrap().to_owned()
}

#[test]
fn releases_are_taken_up_under_load_and_no_request_fails() {
    let redis = RedisServer::start(&[]);
    let trained = Trained::new();
    let names = ["monday", "tuesday", "wednesday"];
    for (seed, name) in names.iter().enumerate() {
        trained.build(name, &format!("--seed {}", seed + 1));
        trained.publish(name, &redis.url());
    }
    let serving = trained.serve(&redis.url(), "");
    let reloads = many(9);
    let load = under_load(serving.public, 3, 50, || {
        for name in names.iter().cycle().take(reloads) {
            trained.run(&format!("releases activate {name} --store {}", redis.url()));
            serving.wait_until("the release is served", || release_of(&serving) == *name);
        }
    });
    assert!(load.failed.is_empty() && load.bad(10).is_empty(), "{:?} {:?}", load.failed, load.bad(10));
    // the first of all, and each that was activated
    assert_eq!(serving.metric(r#"tonnage_reloads_total{outcome="served"}"#), 1.0 + reloads as f64);
    for answered in &load.answered {
        assert_eq!(answered.json()["user_vector"]["origin"], "page", "each is of one release: {answered:?}");
    }
    serving.wait_until("two indexes are kept, and no more", || serving.mapped() == 2);
}

#[test]
fn bad_candidates_are_refused_and_what_was_served_is_served() {
    let redis = RedisServer::start(&[]);
    let trained = Trained::new();
    let good = trained.build("monday", "");
    trained.publish("monday", &redis.url());
    let next = trained.build("tuesday", "--seed 2");
    let serving = trained.serve(&redis.url(), "");
    trained.publish("tuesday", &redis.url());
    serving.wait_until("tuesday is served", || release_of(&serving) == "tuesday");
    // every bad candidate stands where the index of wednesday is looked for
    let wednesday = trained.build("wednesday", "--seed 3");
    let sound = std::fs::read(&wednesday).unwrap();
    std::fs::remove_file(&wednesday).unwrap();
    trained.run("build --items items.npy --metric dot --out other.tng --release other --seed 9 --no-profile");
    let tried = Cell::new(0);
    let refuse = |what: &str, bytes: &[u8]| {
        replace(&wednesday, bytes);
        let answered = serving.admin_post("/v1/admin/reload");
        assert_eq!((answered.status, answered.problem().as_str()), (409, "release-refused"), "{what}: {answered:?}");
        assert_eq!(release_of(&serving), "tuesday", "{what}");
        tried.set(tried.get() + 1);
    };
    std::fs::write(&wednesday, &sound).unwrap();
    // published from the sound file while the service sees none
    let aside = trained.folder.path().join("indexes/wednesday.aside");
    std::fs::rename(&wednesday, &aside).unwrap();
    trained.run(&format!(
        "publish --index indexes/wednesday.aside --users users.npy --ids users.txt --release wednesday --store {}",
        redis.url()
    ));
    for share in [0, 1, 2, 5, 9] {
        refuse("truncated", &sound[..sound.len() * share / 10]);
    }
    refuse("a byte short", &sound[..sound.len() - 1]);
    for at in [0, 7, 20, 1_090, sound.len() / 3, sound.len() / 2, sound.len() * 2 / 3, sound.len() - 1] {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x40;
        refuse(&format!("byte {at} changed"), &damaged);
    }
    refuse("longer", &[&sound[..], b"more"].concat());
    refuse("zeros", &vec![0; sound.len()]);
    refuse("another release", &std::fs::read(&good).unwrap());
    refuse("another release, the served one", &std::fs::read(&next).unwrap());
    refuse("another model", &std::fs::read(trained.folder.path().join("other.tng")).unwrap());
    std::fs::remove_file(&wednesday).unwrap();
    std::fs::create_dir(&wednesday).unwrap();
    let answered = serving.admin_post("/v1/admin/reload");
    assert_eq!(answered.problem(), "release-refused", "a folder: {answered:?}");
    std::fs::remove_dir(&wednesday).unwrap();
    assert!(tried.get() + 1 >= 20, "{} candidates", tried.get());
    assert!(serving.metric(r#"tonnage_reloads_total{outcome="refused"}"#) >= 20.0);
    // and the sound one is taken up by itself
    replace(&wednesday, &sound);
    serving.wait_until("wednesday is served", || release_of(&serving) == "wednesday");
}

/// As a publisher of files should: whole or not at all.
fn replace(path: &Path, bytes: &[u8]) {
    let draft = path.with_extension("draft");
    std::fs::write(&draft, bytes).unwrap();
    std::fs::rename(&draft, path).unwrap();
}

#[test]
fn a_rollback_holds_until_the_store_has_yet_another_release() {
    let redis = RedisServer::start(&[]);
    let trained = Trained::new();
    for (seed, name) in ["monday", "tuesday", "wednesday"].iter().enumerate() {
        trained.build(name, &format!("--seed {}", seed + 1));
    }
    trained.publish("monday", &redis.url());
    let serving = trained.serve(&redis.url(), "");
    let nothing = serving.admin_post("/v1/admin/rollback");
    assert_eq!(nothing.problem(), "release-refused", "{nothing:?}");
    trained.publish("tuesday", &redis.url());
    serving.signal("-HUP");
    serving.wait_until("tuesday is served", || release_of(&serving) == "tuesday");
    assert_eq!(serving.admin_post("/v1/admin/rollback").json()["name"], "monday");
    assert_eq!(release_of(&serving), "monday");
    // looked at many times, and not taken up again
    let polls = serving.metric("tonnage_store_seconds_count{call=\"read\"}") + 40.0;
    serving.wait_until("the store was asked", || serving.metric("tonnage_store_seconds_count{call=\"read\"}") > polls);
    assert_eq!(release_of(&serving), "monday");
    assert_eq!(serving.get("/v1/releases").json()["previous"]["name"], json!("tuesday"));
    trained.publish("wednesday", &redis.url());
    serving.wait_until("wednesday is served", || release_of(&serving) == "wednesday");
}
