//! What is changed through a service is in force when it answers, and is kept.

use crate::support::serve::{Answered, Client, DIM, Serving, Trained, USERS};
use serde_json::{Value, json};

fn send(serving: &Serving, method: &str, path: &str, body: &Value) -> Answered {
    Client::connect(serving.public).unwrap().ask(method, path, &[], Some(&body.to_string())).unwrap()
}

fn accepted(answered: &Answered) -> u64 {
    assert_eq!(answered.status, 200, "{answered:?}");
    answered.json()["accepted"].as_u64().unwrap()
}

fn recommended(serving: &Serving, user: &str) -> Vec<String> {
    serving.post("/v1/recommend", &json!({"user_id": user, "k": 10}).to_string()).items()
}

/// The vector of an item that no other is better for a user than.
fn outstanding(user: usize) -> Vec<f32> {
    let users = crate::support::vectors::numbers(USERS * DIM, 2);
    users[user * DIM..][..DIM].iter().map(|x| x * 20.0).collect()
}

#[test]
fn what_users_did_is_not_recommended_again_and_moves_their_vector() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "");
    let before = recommended(&serving, "user-4");
    let event = |item: &str, event: &str| json!({"user_id": "user-4", "item_id": item, "event": event});
    let bought = json!({"events": [event(&before[0], "purchase"), event(&before[1], "purchase")]});
    assert_eq!(accepted(&send(&serving, "POST", "/v1/events", &bought)), 2);
    let after = recommended(&serving, "user-4");
    assert!(!after.contains(&before[0]) && !after.contains(&before[1]), "{before:?} {after:?}");
    let all = json!({"user_id": "user-4", "k": 10, "exclude": {"seen": false}, "explain": true});
    let explained = serving.post("/v1/recommend", &all.to_string());
    assert!(explained.items().contains(&before[0]), "not left out when that is not wanted");
    assert_eq!(explained.json()["explain"]["events"].as_array().unwrap().len(), 2, "{explained:?}");
    assert_eq!(recommended(&serving, "user-5").len(), 10, "nobody else is concerned");
    for wrong in [json!({"events": [event("item-1", "stole")]}), json!({"events": [{"user_id": "u"}]}), json!({})] {
        assert_eq!(send(&serving, "POST", "/v1/events", &wrong).problem(), "invalid-request");
    }
}

#[test]
fn what_many_users_did_is_one_call_to_the_service_and_one_read_of_the_store() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set reload.poll_ms=600000");
    let reads = || serving.metric("tonnage_store_seconds_count{call=\"read\"}");
    for turn in 0..2 {
        let tops: Vec<String> =
            (0..USERS).map(|user| recommended(&serving, &format!("user-{user}"))[0].clone()).collect();
        let bought = |(user, item): (usize, &String)| json!({"user_id": format!("user-{user}"), "item_id": item, "event": "purchase"});
        let all: Vec<Value> = tops.iter().enumerate().map(bought).collect();
        let before = reads();
        let sent = send(&serving, "POST", "/v1/events", &json!({"events": all, "deadline_ms": 600_000}));
        assert_eq!((accepted(&sent), reads() - before), (USERS as u64, 1.0), "{turn}");
        for (user, top) in tops.iter().enumerate() {
            assert!(!recommended(&serving, &format!("user-{user}")).contains(top), "{turn}: {user}");
        }
    }
    let late = json!({"events": [{"user_id": "user-4", "item_id": "item-1", "event": "click"}], "deadline_ms": 0});
    assert_eq!(send(&serving, "POST", "/v1/events", &late).problem(), "overloaded");
}

#[test]
fn a_user_whose_session_cannot_be_kept_is_named_and_takes_nothing_from_others() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "");
    assert_eq!(redis.say("HSET tonnage:s:user-4 field value").unwrap(), ":1\r\n");
    let before = recommended(&serving, "user-5");
    let event = |user: &str, item: &str| json!({"user_id": user, "item_id": item, "event": "purchase"});
    let of_two =
        json!({"events": [event("user-5", &before[0]), event("user-4", "item-1"), event("user-5", &before[1])]});
    let sent = send(&serving, "POST", "/v1/events", &of_two);
    assert_eq!((accepted(&sent), &sent.json()["not_kept"]), (2, &json!(["user-4"])));
    assert!(!recommended(&serving, "user-5").contains(&before[0]));
    let of_one = json!({"events": [event("user-4", "item-1")]});
    assert_eq!(send(&serving, "POST", "/v1/events", &of_one).problem(), "store-unavailable");
    redis.say("DEL tonnage:s:user-4").unwrap();
    let sent = send(&serving, "POST", "/v1/events", &of_two);
    assert_eq!((accepted(&sent), &sent.json()["not_kept"]), (3, &Value::Null));
}

#[test]
fn availability_and_new_items_survive_the_process_however_it_ends() {
    let (redis, trained) = Trained::online();
    let journal = "--set index.journal=changes.log";
    let serving = trained.serve(&redis.url(), journal);
    let before = recommended(&serving, "user-8");
    let hidden = json!({"unavailable": [before[0], before[1], "no-such-item"], "available": [before[2]]});
    assert_eq!(accepted(&send(&serving, "PUT", "/v1/items/availability", &hidden)), 4);
    // far out in the direction of the user's best item, so that it is the best of all
    let best = serving.post("/v1/score", &json!({"user_id": "user-8", "items": [before[2]]}).to_string());
    assert!(best.json()["items"][0]["score"].as_f64().unwrap() > 0.0);
    let new = json!({"items": [{"item_id": "brand-new", "vector": outstanding(8), "tags": ["color:red"], "numbers": {"price": 77.5, "weight": 2}}]});
    assert_eq!(accepted(&send(&serving, "PUT", "/v1/items", &new)), 1);
    assert_eq!(accepted(&send(&serving, "DELETE", "/v1/items", &json!({"items": [before[3]]}))), 1);
    let expected = recommended(&serving, "user-8");
    assert_eq!((expected.len(), expected[0].as_str()), (10, "brand-new"));
    assert!([0, 1, 3].iter().all(|&at| !expected.contains(&before[at])), "{before:?} {expected:?}");
    for range in [json!({"field": "price", "min": 40}), json!({"field": "weight", "min": 2, "max": 2})] {
        let asked = json!({"user_id": "user-8", "k": 10, "filter": {"all": [range]}});
        assert_eq!(serving.post("/v1/recommend", &asked.to_string()).items(), ["brand-new"], "{range}");
    }
    let short = json!({"items": [{"item_id": "odd", "vector": [1.0, 2.0]}]});
    assert_eq!(send(&serving, "PUT", "/v1/items", &short).problem(), "invalid-request");
    // nobody else may have the journal while this one has
    let another =
        format!("serve --index indexes --store {} --listen 127.0.0.1:0 --admin 127.0.0.1:0 {journal}", redis.url());
    let refused = trained.command(&another).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    let words = ["changes.log", &format!("process {}", serving.id()), "stop that one"];
    assert!(!refused.status.success() && words.iter().all(|word| said.contains(word)), "{said}");
    serving.signal("-KILL");
    serving.end();
    let serving = trained.serve(&redis.url(), journal);
    assert_eq!(recommended(&serving, "user-8"), expected);
    let dear = json!({"user_id": "user-8", "k": 10, "filter": {"all": [{"field": "price", "min": 77.5}]}});
    assert_eq!(serving.post("/v1/recommend", &dear.to_string()).items(), ["brand-new"]);
    // and back
    let back = json!({"available": [before[0], before[1]]});
    assert_eq!(accepted(&send(&serving, "PUT", "/v1/items/availability", &back)), 2);
    let after = recommended(&serving, "user-8");
    assert!(after.contains(&before[0]) && after.contains(&before[1]), "{after:?}");
}

#[test]
fn vectors_of_another_release_are_refused_by_name_or_by_fingerprint() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "");
    let monday = serving.get("/v1/releases").json()["serving"].clone();
    let of =
        |release: &Value| json!({"release": release, "items": [{"item_id": "brand-new", "vector": outstanding(8)}]});
    trained.build("tuesday", "");
    trained.publish("tuesday", &redis.url());
    serving.wait_until("tuesday is served", || serving.get("/v1/releases").json()["serving"]["name"] == "tuesday");
    let tuesday = serving.get("/v1/releases").json()["serving"].clone();
    for wrong in [&monday["name"], &monday["fingerprint"], &json!("Tuesday")] {
        let refused = send(&serving, "PUT", "/v1/items", &of(wrong));
        assert_eq!((refused.status, refused.problem().as_str()), (409, "other-release"));
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        let both = [wrong, &tuesday["name"], &tuesday["fingerprint"]];
        assert!(both.iter().all(|part| detail.contains(part.as_str().unwrap())), "{detail}");
    }
    assert_eq!(serving.metric("tonnage_added_items"), 0.0);
    for right in [&tuesday["name"], &tuesday["fingerprint"], &Value::Null] {
        assert_eq!(accepted(&send(&serving, "PUT", "/v1/items", &of(right))), 1, "{right}");
    }
    assert_eq!(recommended(&serving, "user-8")[0], "brand-new");
}

#[test]
fn a_rollback_after_a_restart_finds_what_was_added_to_that_release() {
    let (redis, trained) = Trained::online();
    let journal = "--set index.journal=changes.log";
    let serving = trained.serve(&redis.url(), journal);
    let new = json!({"items": [{"item_id": "brand-new", "vector": outstanding(8)}]});
    assert_eq!(accepted(&send(&serving, "PUT", "/v1/items", &new)), 1);
    let publish = |name: &str| {
        trained.build(name, "");
        trained.publish(name, &redis.url());
    };
    let serves = |serving: &Serving, name: &str| {
        serving
            .wait_until(&format!("{name} is served"), || serving.get("/v1/releases").json()["serving"]["name"] == name);
    };
    publish("tuesday");
    serves(&serving, "tuesday");
    serving.signal("-KILL");
    serving.end();
    let serving = trained.serve(&redis.url(), journal);
    serves(&serving, "tuesday");
    assert_ne!(recommended(&serving, "user-8")[0], "brand-new");
    trained.run(&format!("releases rollback --store {}", redis.url()));
    serves(&serving, "monday");
    assert_eq!(recommended(&serving, "user-8")[0], "brand-new");
    // and once nobody goes back to it any more it is let go
    let added = || serving.metric("tonnage_added_items");
    publish("wednesday");
    serves(&serving, "wednesday");
    assert_eq!(added(), 1.0);
    publish("thursday");
    serving.wait_until("it is forgotten", || added() == 0.0);
}

#[test]
fn events_are_refused_while_the_store_is_away_and_nothing_else_is() {
    let (mut redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set store.timeout_ms=200");
    redis.kill();
    let event = json!({"events": [{"user_id": "user-4", "item_id": "item-1", "event": "click"}]});
    let refused = send(&serving, "POST", "/v1/events", &event);
    assert_eq!((refused.status, refused.problem().as_str()), (503, "store-unavailable"));
    assert_eq!(accepted(&send(&serving, "PUT", "/v1/items/availability", &json!({"unavailable": ["item-1"]}))), 1);
    assert_eq!(recommended(&serving, "user-4").len(), 10);
}
