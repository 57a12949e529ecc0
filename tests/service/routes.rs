//! What the routes of a service take and give.

use std::collections::HashSet;

use crate::support::RedisServer;
use crate::support::serve::{Client, ITEMS, Serving, Trained};
use serde_json::{Value, json};

struct World {
    _redis: RedisServer,
    trained: Trained,
    store: String,
}

impl World {
    fn new() -> Self {
        let redis = RedisServer::start(&[]);
        let (trained, store) = (Trained::new(), redis.url());
        trained.build("monday", "");
        trained.publish("monday", &store);
        Self { _redis: redis, trained, store }
    }

    fn serve(&self, more: &str) -> Serving {
        self.trained.serve(&self.store, more)
    }
}

/// The ids that the command answers to the same user.
fn by_command(world: &World, user: &str, more: &str) -> Vec<String> {
    let line = format!("recommend --index indexes/monday.tng --store {} --user {user} --json {more}", world.store);
    let document: Value = serde_json::from_str(&world.trained.run(&line)).unwrap();
    document["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn routes_answer_in_their_shapes() {
    let world = World::new();
    let serving = world.serve("");
    an_answer_is_the_commands_and_says_what_it_is(&world, &serving);
    filters_and_exclusions_hold(&world, &serving);
    ranges_hold(&world, &serving);
    a_batch_answers_as_one_by_one(&serving);
    a_stranger_gets_popular_items(&serving);
    fewer_than_asked_for_is_explained(&serving);
    similar_items_and_given_items_are_ranked(&serving);
    the_service_tells_of_itself(&serving);
    requests_have_names(&serving);
    pages_follow_one_another(&serving);
}

fn an_answer_is_the_commands_and_says_what_it_is(world: &World, serving: &Serving) {
    for user in ["user-0", "user-77", "user-199"] {
        let answered = serving.post("/v1/recommend", &json!({"user_id": user, "k": 10}).to_string());
        assert_eq!(answered.status, 200, "{answered:?}");
        assert_eq!(answered.items(), by_command(world, user, "-k 10"));
        assert_eq!(answered.items(), serving.get(&format!("/v1/recommend/{user}?k=10")).items());
        let document = answered.json();
        assert_eq!(document["release"], "monday");
        assert_eq!(document["user_vector"]["origin"], "page");
        assert_eq!(document["degraded"], json!([]));
        assert_eq!((&document["requested"], &document["returned"]), (&json!(10), &json!(10)));
        assert!(document["took_us"].as_u64().unwrap() > 0 && document["reason"].is_null());
        let items = document["items"].as_array().unwrap();
        for (at, item) in items.iter().enumerate() {
            assert_eq!((&item["rank"], &item["source"]), (&json!(at + 1), &json!("personal")));
            assert!(at == 0 || item["score"].as_f64() <= items[at - 1]["score"].as_f64());
        }
    }
    let answered = serving.post("/v1/recommend", r#"{"user_id":"user-0"}"#);
    assert_eq!(answered.items().len(), 20, "what is asked for when nothing is said");
}

fn filters_and_exclusions_hold(world: &World, serving: &Serving) {
    let row = |id: &str| id.strip_prefix("item-").unwrap().parse::<usize>().unwrap();
    let red = json!({"user_id": "user-3", "k": 10, "filter": {"all": [{"field": "color", "eq": "red"}]}});
    let answered = serving.post("/v1/recommend", &red.to_string());
    assert_eq!(answered.items(), by_command(world, "user-3", "-k 10 --tag color:red"));
    assert_eq!(answered.items(), serving.get("/v1/recommend/user-3?k=10&tag=color%3Ared").items());
    let first = answered.items()[0].clone();
    let filter = json!({"all": [{"field": "size", "in": ["s", "m"]}], "none": [{"field": "color", "eq": "red"}]});
    let asked = json!({"user_id": "user-3", "k": 50, "filter": filter, "exclude": {"items": [first]}});
    let items = serving.post("/v1/recommend", &asked.to_string()).items();
    assert_eq!(items.len(), 50);
    assert!(items.iter().all(|id| row(id) % 2 == 1 && row(id) % 3 != 2 && *id != first), "{items:?}");
    let asked = json!({"user_id": "user-3", "k": 3, "filter": {"items": ["item-5", "item-8", "item-13", "nothing"]}});
    let items: HashSet<String> = serving.post("/v1/recommend", &asked.to_string()).items().into_iter().collect();
    assert_eq!(items, ["item-5", "item-8", "item-13"].map(str::to_owned).into());
    let unknown = serving.post("/v1/recommend", r#"{"user_id":"user-3","filter":{"any":[{"eq":"evne"}]}}"#);
    assert_eq!((unknown.status, unknown.problem().as_str()), (422, "unknown-tag"));
}

fn ranges_hold(world: &World, serving: &Serving) {
    let row = |id: &String| id.strip_prefix("item-").unwrap().parse::<usize>().unwrap();
    let ask = |filter: Value| {
        serving.post("/v1/recommend", &json!({"user_id": "user-3", "k": 600, "filter": filter}).to_string())
    };
    // 15 items of each price, both ends within
    let answered = ask(json!({"all": [{"field": "price", "min": 1.5, "max": 4.5}]}));
    let items = answered.items();
    assert_eq!((items.len(), &answered.json()["reason"]), (60, &json!("filter")));
    assert!(items.iter().all(|id| (1..=4).contains(&(row(id) % 40))), "{items:?}");
    assert_eq!(items, by_command(world, "user-3", "-k 600 --range price:1.5..4.5"));
    assert_eq!(items, serving.get("/v1/recommend/user-3?k=600&range=price:1.5..4.5").items());
    let either =
        ask(json!({"any": [{"field": "price", "max": 0.5}, {"eq": "rare"}], "none": [{"field": "price", "min": 39}]}));
    assert_eq!(either.items().len(), 15, "the rare ones are of the lowest price");
    let few = ask(json!({"all": [{"field": "color", "eq": "red"}, {"field": "price", "min": 39}]}));
    assert_eq!((few.items().len(), &few.json()["reason"]), (0, &json!("filter")), "those are odd");
    let similar = json!({"item_id": "item-1", "k": 600, "filter": {"all": [{"field": "price", "max": 0.5}]}});
    assert_eq!(serving.post("/v1/similar", &similar.to_string()).items().len(), 15);
    for (wrong, problem) in [
        (json!({"field": "weight", "min": 1}), "unknown-tag"),
        (json!({"field": "price", "min": 2, "max": 1}), "invalid-request"),
        (json!({"field": "price", "min": "1"}), "invalid-request"),
        (json!({"field": "price", "min": 1, "eq": 1}), "invalid-request"),
        (json!({"field": "price", "min": 1, "most": 1}), "invalid-request"),
        (json!({"min": 1}), "invalid-request"),
    ] {
        assert_eq!(ask(json!({"none": [wrong]})).problem(), problem, "{wrong}");
    }
    let large = serving.post("/v1/recommend", r#"{"filter":{"all":[{"field":"price","min":1e400}]}}"#);
    assert_eq!(large.problem(), "invalid-request");
    assert_eq!(ask(json!({"none": vec![json!({"field": "price", "min": 1}); 33]})).problem(), "invalid-request");
    for query in ["price", "price:2..1", "price:1..inf", "price:.."] {
        assert_eq!(serving.get(&format!("/v1/recommend/user-3?range={query}")).problem(), "invalid-request", "{query}");
    }
}

fn a_batch_answers_as_one_by_one(serving: &Serving) {
    let requests: Vec<Value> = (0..30).map(|user| json!({"user_id": format!("user-{user}"), "k": 5})).collect();
    let batch = serving.post("/v1/recommend", &json!(requests).to_string()).json();
    for (request, answer) in requests.iter().zip(batch.as_array().unwrap()) {
        let one = serving.post("/v1/recommend", &request.to_string()).json();
        assert_eq!((&answer["items"], &answer["release"]), (&one["items"], &one["release"]));
    }
    assert_eq!(batch.as_array().unwrap().len(), 30);
    let answered = serving.post("/v1/recommend", r#"[{"user_id":"user-1"},{"user_id":"user-1","k":0}]"#);
    assert_eq!(answered.problem(), "invalid-request");
    assert!(answered.body.contains("request 1: `k`"), "{answered:?}");
    assert_eq!(serving.post("/v1/recommend", "[]").json(), json!([]));
}

fn a_stranger_gets_popular_items(serving: &Serving) {
    let expected: Vec<String> = (0..4).map(|at| format!("item-{}", ITEMS - 1 - at)).collect();
    let nobody = [r#"{"user_id":"nobody","k":4}"#, r#"{"k":4}"#, r#"{"user_id":"user-1","consent":false,"k":4}"#];
    for asked in nobody {
        let answered = serving.post("/v1/recommend", asked);
        assert_eq!(answered.items(), expected, "{asked}");
        let document = answered.json();
        assert_eq!(document["user_vector"]["origin"], "popularity");
        assert_eq!(document["items"][0]["source"], "popular");
    }
}

fn fewer_than_asked_for_is_explained(serving: &Serving) {
    let asked = r#"{"user_id":"user-1","k":10,"filter":{"all":[{"eq":"rare"}]}}"#;
    let document = serving.post("/v1/recommend", asked).json();
    assert_eq!((&document["returned"], &document["reason"]), (&json!(3), &json!("filter")));
    assert!(document["reason_detail"].as_str().unwrap().contains("3 of 10"));
}

fn similar_items_and_given_items_are_ranked(serving: &Serving) {
    let similar = serving.post("/v1/similar", r#"{"item_id":"item-7","k":12}"#);
    let items = similar.items();
    assert_eq!(items.iter().collect::<HashSet<_>>().len(), 12);
    assert!(!items.contains(&"item-7".to_owned()));
    assert_eq!(similar.json()["user_vector"]["origin"], "item");
    let unknown = serving.post("/v1/similar", r#"{"item_id":"nothing"}"#);
    assert_eq!((unknown.status, unknown.problem().as_str()), (422, "unknown-item"));
    let seen = serving.post("/v1/similar", r#"{"item_id":"item-7","exclude":{"seen":true}}"#);
    assert_eq!(seen.problem(), "invalid-request", "by whom?");
    // what recommend ranks high, score ranks in the same order
    let best = serving.post("/v1/recommend", r#"{"user_id":"user-9","k":8}"#);
    let mut shuffled = best.items();
    shuffled.reverse();
    shuffled.push("nothing".to_owned());
    let scored = serving.post("/v1/score", &json!({"user_id": "user-9", "items": shuffled}).to_string());
    assert_eq!(scored.items(), best.items());
}

fn the_service_tells_of_itself(serving: &Serving) {
    let releases = serving.get("/v1/releases").json();
    assert_eq!((&releases["serving"]["name"], &releases["serving"]["items"]), (&json!("monday"), &json!(ITEMS)));
    assert_eq!(releases["store"][0]["state"], "active");
    let capacity = serving.get("/v1/capacity").json();
    assert!(capacity["store_used_bytes"].as_u64().unwrap() > 0 && capacity["users"] == 200);
    assert_eq!(serving.get("/livez").status, 200);
    assert_eq!(serving.get("/readyz").body, "ready\n");
    let metrics = serving.admin_get("/metrics");
    for name in
        ["tonnage_answers_total", "tonnage_stage_seconds_bucket", "tonnage_rungs_total", "tonnage_index_items 600"]
    {
        assert!(metrics.body.contains(name), "{name}: {}", metrics.body);
    }
    let api = serving.get("/openapi.json").json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"), "{}", api["openapi"]);
    let described: HashSet<&str> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    for path in [
        "/v1/recommend",
        "/v1/recommend/{user}",
        "/v1/similar",
        "/v1/score",
        "/v1/events",
        "/v1/items",
        "/v1/items/availability",
        "/v1/releases",
        "/v1/capacity",
    ] {
        assert!(described.contains(path), "{path}");
    }
    assert_eq!(serving.get("/metrics").problem(), "not-found");
    assert_eq!(serving.get("/v1/admin/reload").problem(), "not-found");
    assert_eq!(serving.get("/v1/similar").problem(), "method-not-allowed");
}

/// To the end of the catalogue, whatever the length of a page.
fn pages_follow_one_another(serving: &Serving) {
    for (k, pages) in [(20, 12), (100, ITEMS / 100)] {
        let (mut met, mut page) = (HashSet::new(), Value::Null);
        for number in 1..=pages {
            let asked = json!({"user_id": "user-6", "k": k, "page": page});
            let answered = serving.post("/v1/recommend", &asked.to_string());
            assert_eq!(answered.status, 200, "page {number} of {k}: {answered:?}");
            met.extend(answered.items());
            assert_eq!(met.len(), number * k, "page {number} of {k}");
            page = answered.json()["next"].clone();
        }
        let other = json!({"user_id": "user-7", "k": k, "page": page});
        assert_eq!(serving.post("/v1/recommend", &other.to_string()).problem(), "invalid-request", "of somebody else");
    }
}

fn requests_have_names(serving: &Serving) {
    let mut client = Client::connect(serving.public).unwrap();
    let ask = |client: &mut Client, headers: &[(&str, &str)]| {
        client.ask("POST", "/v1/recommend", headers, Some("{}")).unwrap()
    };
    let named = ask(&mut client, &[("X-Request-Id", "mine-1")]);
    assert!(named.head.contains("x-request-id: mine-1") && named.json()["request_id"] == "mine-1", "{named:?}");
    let refused = client.ask("POST", "/v1/recommend", &[("X-Request-Id", "mine-2")], Some("nothing")).unwrap();
    assert_eq!((refused.problem(), &refused.json()["request_id"]), ("invalid-request".to_owned(), &json!("mine-2")));
    let (one, two) = (ask(&mut client, &[]).json(), ask(&mut client, &[("X-Request-Id", "\u{e4}")]).json());
    assert_ne!(one["request_id"], two["request_id"]);
    assert_eq!(two["request_id"].as_str().unwrap().len(), 16);
}

#[test]
fn candidates_that_were_found_answer_again_where_there_is_memory_for_them() {
    let world = World::new();
    for (flags, cached) in [("", 0.0), ("--set run.cache_bytes=1000000", 2.0)] {
        let serving = world.serve(flags);
        let ask = || serving.post("/v1/recommend", r#"{"user_id":"user-6","k":10}"#).items();
        let first = ask();
        assert_eq!((ask(), ask()), (first.clone(), first));
        assert_eq!(serving.metric("tonnage_cached_total"), cached, "{flags}");
    }
}

#[test]
fn every_route_wants_the_right_key() {
    let world = World::new();
    let keys = "--set keys.read=['read-0123456789abcdef'] --set keys.write=['write-0123456789abcdef'] \
                --set keys.admin=['admin-0123456789abcdef']";
    let serving = world.serve(keys);
    // the route, what it takes, who may
    let (all, read) = ([true; 4], [false, true, true, true]);
    let (write, admin) = ([false, false, true, true], [false, false, false, true]);
    let table = [
        (serving.public, "GET", "/livez", None, all),
        (serving.public, "GET", "/readyz", None, all),
        (serving.public, "GET", "/openapi.json", None, all),
        (serving.public, "POST", "/v1/recommend", Some(r#"{"user_id":"user-1"}"#), read),
        (serving.public, "GET", "/v1/recommend/user-1", None, read),
        (serving.public, "POST", "/v1/similar", Some(r#"{"item_id":"item-1"}"#), read),
        (serving.public, "POST", "/v1/score", Some(r#"{"items":["item-1"]}"#), read),
        (serving.public, "POST", "/v1/events", Some(r#"{"events":[]}"#), write),
        (serving.public, "PUT", "/v1/items/availability", Some(r#"{"available":["item-1"]}"#), write),
        (serving.public, "PUT", "/v1/items", Some(r#"{"items":[]}"#), write),
        (serving.public, "DELETE", "/v1/items", Some(r#"{"items":["nothing"]}"#), write),
        (serving.public, "GET", "/v1/releases", None, read),
        (serving.public, "GET", "/v1/capacity", None, read),
        (serving.admin, "GET", "/livez", None, all),
        (serving.admin, "GET", "/readyz", None, all),
        (serving.admin, "GET", "/metrics", None, read),
        (serving.admin, "POST", "/v1/admin/reload", Some("{}"), admin),
    ];
    let keys = [None, Some("read"), Some("write"), Some("admin")];
    for (address, method, path, body, may) in table {
        for (key, may) in keys.into_iter().zip(may) {
            for header in ["X-Api-Key", "Authorization"] {
                let scheme = if header == "Authorization" { "Bearer " } else { "" };
                let value = key.map(|key| format!("{scheme}{key}-0123456789abcdef"));
                let headers: Vec<_> = value.iter().map(|value| (header, value.as_str())).collect();
                let answered = Client::connect(address).unwrap().ask(method, path, &headers, body).unwrap();
                let expected = if may { 200 } else { key.map_or(401, |_| 403) };
                assert_eq!(answered.status, expected, "{method} {path} with {key:?}: {answered:?}");
            }
        }
        let wrong = [("X-Api-Key", "read-0123456789abcdee")];
        let answered = Client::connect(address).unwrap().ask(method, path, &wrong, body).unwrap();
        assert_eq!(answered.status, if may[0] { 200 } else { 401 }, "{path}");
    }
}
