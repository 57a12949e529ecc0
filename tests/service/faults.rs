//! A service whose store is killed, paused, restarted empty or read-only answers every request all the same.

use crate::support::RedisServer;
use crate::support::serve::{Serving, Trained, USERS, many, under_load};

/// Clients, and requests of each after the fault at least.
const CLIENTS: usize = 4;
const EACH: usize = 60;
/// A breaker that opens soon and looks again soon, and a store that is not waited for long.
const IMPATIENT: &str = "--set store.timeout_ms=200 --set store.breaker_pause_ms=50 --set store.breaker_failures=3";

fn start(redis: &RedisServer) -> (Trained, Serving) {
    let trained = Trained::new();
    trained.build("monday", "");
    trained.publish("monday", &redis.url());
    let serving = trained.serve(&redis.url(), IMPATIENT);
    (trained, serving)
}

/// What each user is answered on a good day; afterwards the process knows all of them.
fn ask_all(serving: &Serving) -> Vec<Vec<String>> {
    let ask = |user| serving.get(&format!("/v1/recommend/user-{user}?k=10")).items();
    (0..USERS).map(ask).collect()
}

/// Whether a known user is answered from their own vector again.
fn is_well(serving: &Serving) -> bool {
    let answered = serving.post("/v1/recommend", r#"{"user_id":"user-5","k":10}"#).json();
    answered["user_vector"]["origin"] == "page" && answered["degraded"].as_array().unwrap().is_empty()
}

#[test]
fn a_store_that_is_killed_and_comes_back_empty_costs_nobody_an_answer() {
    let mut redis = RedisServer::start(&[]);
    let (trained, serving) = start(&redis);
    let items_of = ask_all(&serving);
    let load = under_load(serving.public, CLIENTS, EACH, || {
        redis.kill();
        serving.wait_until("the breaker is open", || serving.metric("tonnage_breaker_open") == 1.0);
        assert_eq!(serving.get("/readyz").body, "degraded: the store is away\n");
    });
    assert!(load.failed.is_empty() && load.bad(10).is_empty(), "{:?} {:?}", load.failed, load.bad(10));
    let degraded = load.answered.iter().filter(|answered| answered.body.contains("store:")).count();
    assert!(degraded > 0, "nobody was told");
    assert!(load.mixed_up(&items_of).is_empty(), "{:?}", load.mixed_up(&items_of));
    assert!(load.from("last_known") > 0 && load.from("popularity") == 0, "what was known is forgotten");
    // empty: nobody's vector is there, and everybody is answered
    redis.revive();
    let load = under_load(serving.public, CLIENTS, EACH, || {
        serving.wait_until("the breaker is closed", || serving.metric("tonnage_breaker_open") == 0.0);
    });
    assert!(load.failed.is_empty() && load.bad(10).is_empty(), "{:?} {:?}", load.failed, load.bad(10));
    // and once the users are there again, they are served
    trained.publish("monday", &redis.url());
    serving.wait_until("users are known again", || is_well(&serving));
}

#[test]
fn a_store_that_stands_still_is_left_alone_and_taken_up_again() {
    let redis = RedisServer::start(&[]);
    let (_trained, serving) = start(&redis);
    let items_of = ask_all(&serving);
    let load = under_load(serving.public, CLIENTS, EACH, || {
        for _ in 0..many(3) {
            redis.pause();
            serving.wait_until("the breaker is open", || serving.metric("tonnage_breaker_open") == 1.0);
            redis.resume();
            serving.wait_until("the breaker is closed", || serving.metric("tonnage_breaker_open") == 0.0);
        }
    });
    assert!(load.mixed_up(&items_of).is_empty(), "{:?}", load.mixed_up(&items_of));
    assert!(load.failed.is_empty() && load.bad(10).is_empty(), "{:?} {:?}", load.failed, load.bad(10));
    serving.wait_until("users are known again", || is_well(&serving));
    assert!(serving.metric(r#"tonnage_store_errors_total{call="read",error="timed_out"}"#) > 0.0);
    assert!(serving.metric(r#"tonnage_store_errors_total{call="read",error="left_alone"}"#) > 0.0);
}

#[test]
fn a_store_that_refuses_writes_is_read() {
    let redis = RedisServer::start(&[]);
    let (_trained, serving) = start(&redis);
    let load = under_load(serving.public, CLIENTS, EACH, || {
        assert!(redis.say("CONFIG SET maxmemory 1").unwrap().starts_with("+OK"));
        assert!(redis.say("REPLICAOF 127.0.0.1 1").unwrap().starts_with("+OK"));
        // more refusals than failures after which a store is left alone
        for _ in 0..10 {
            let event = r#"{"events":[{"user_id":"user-5","item_id":"item-1","event":"click"}]}"#;
            assert_eq!(serving.post("/v1/events", event).problem(), "store-unavailable");
        }
        assert!(is_well(&serving), "a store that refuses is there");
    });
    assert!(load.failed.is_empty() && load.bad(10).is_empty(), "{:?} {:?}", load.failed, load.bad(10));
    let own = load.from("page");
    assert_eq!(own, load.answered.len(), "{own} from their own vectors");
    assert!(serving.metric(r#"tonnage_store_errors_total{call="write",error="refused"}"#) >= 10.0);
}

#[test]
fn a_service_that_starts_before_its_store_answers_what_is_popular_and_takes_up_the_release_when_it_comes() {
    let mut redis = RedisServer::start(&[]);
    let trained = Trained::new();
    trained.build("monday", "");
    redis.kill();
    let serving = trained.serve(&redis.url(), IMPATIENT);
    assert_eq!(serving.get("/readyz").body, "degraded: the store is away\n");
    let early = serving.post("/v1/recommend", r#"{"user_id":"user-5","k":10}"#);
    assert_eq!((early.status, early.items().len()), (200, 10), "{early:?}");
    let early = early.json();
    assert_eq!((&early["user_vector"]["origin"], &early["release"]), (&"popularity".into(), &"monday".into()));
    assert!(!early["degraded"].as_array().unwrap().is_empty(), "{early:?}");
    let event = r#"{"events":[{"user_id":"user-5","item_id":"item-1","event":"click"}]}"#;
    assert_eq!(serving.post("/v1/events", event).problem(), "store-unavailable");
    redis.revive();
    serving.wait_until("it misses a release", || {
        serving.get("/readyz").body == "degraded: the store has no release that can be served\n"
    });
    trained.publish("monday", &redis.url());
    serving.wait_until("users are known", || is_well(&serving));
    assert_eq!(serving.get("/readyz").body, "ready\n");
    assert_eq!(serving.admin_post("/v1/admin/rollback").problem(), "release-refused", "to nobody");
}

#[test]
fn a_service_that_cannot_know_its_index_without_the_store_waits_for_it() {
    let mut redis = RedisServer::start(&[]);
    let trained = Trained::new();
    trained.build("monday", "");
    redis.kill();
    let serving = trained.start(&redis.url(), &format!("{IMPATIENT} --set index.path=indexes/{{release}}.tng"));
    assert_eq!((serving.get("/readyz").status, serving.get("/livez").status), (503, 200));
    let early = serving.post("/v1/recommend", r#"{"user_id":"user-5"}"#);
    assert_eq!((early.status, early.problem().as_str()), (503, "not-ready"));
    redis.revive();
    trained.publish("monday", &redis.url());
    serving.wait_until("it is ready", || serving.get("/readyz").status == 200);
    assert!(is_well(&serving));
}
