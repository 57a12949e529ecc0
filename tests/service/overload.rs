//! More than can be answered in time, bodies that come slowly, and what a service watches and bounds by itself.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::RedisServer;
use crate::support::serve::{Answered, Client, PATIENCE, Serving, Trained};
use serde_json::json;

const ASKED: &str = r#"{"user_id":"user-3","k":10}"#;
/// One thread, and nobody may wait for it.
const IMPATIENT: &str = "--set run.threads=1 --set run.queue_ms=0.001";

fn ask(serving: &Serving) -> Answered {
    serving.post("/v1/recommend", ASKED)
}

/// The answer to a request that waits for the store, and what `meanwhile` says.
fn held<T>(redis: &RedisServer, serving: &Serving, meanwhile: impl FnOnce() -> T) -> (Answered, T) {
    redis.pause();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(serving));
        serving.wait_until("a request is under way", || serving.metric("tonnage_pending") >= 1.0);
        let said = meanwhile();
        redis.resume();
        (first.join().unwrap(), said)
    })
}

#[test]
fn who_would_wait_too_long_is_told_at_once_and_who_comes_later_is_answered() {
    let (redis, trained) = Trained::online();
    // the store is waited for as long as it takes: the test ends it
    let patient = "--set store.timeout_ms=60000 --set store.breaker_failures=1000000";
    for (flags, reason) in [(IMPATIENT, "busy"), ("--set run.in_flight=1", "in_flight")] {
        let serving = trained.serve(&redis.url(), &format!("{patient} {flags}"));
        let (first, (refused, live)) = held(&redis, &serving, || (ask(&serving), serving.get("/livez").status));
        assert_eq!((refused.status, refused.problem().as_str(), live), (429, "overloaded", 200), "{refused:?}");
        assert!(refused.head.to_lowercase().contains("retry-after: 1"), "{refused:?}");
        assert_eq!((first.status, first.items().len()), (200, 10), "who was let in is answered");
        assert!(serving.metric(&format!("tonnage_refused_total{{reason=\"{reason}\"}}")) >= 1.0);
        assert!(serving.metric(r#"tonnage_latency_seconds_count{route="recommend",status="429"}"#) >= 1.0);
        serving.wait_until("there is room again", || ask(&serving).status == 200);
        serving.wait_until("nothing is left behind", || serving.metric("tonnage_pending") == 0.0);
        assert_eq!(serving.metric("tonnage_in_flight"), 0.0);
    }
}

#[test]
fn effort_falls_to_the_floor_is_never_raised_and_an_ef_that_is_named_stays() {
    let (redis, trained) = Trained::online();
    let efforts = "--set run.ef=300 --set run.recall_floor=0.9";
    let idle = trained.serve(&redis.url(), efforts);
    let busy = trained.serve(&redis.url(), &format!("{efforts} {IMPATIENT}"));
    let of = |serving: &Serving, more: serde_json::Value| {
        let mut asked = json!({"user_id": "user-3", "k": 10});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let document = serving.post("/v1/recommend", &asked.to_string()).json();
        let lowered = document["degraded"].as_array().unwrap().contains(&json!("effort:lowered"));
        (document["ef"].as_u64().unwrap(), lowered)
    };
    assert_eq!(of(&idle, json!({})), (300, false));
    let (floor, lowered) = of(&busy, json!({}));
    assert!(floor < 300 && lowered, "{floor} {lowered}");
    assert_eq!(of(&busy, json!({"ef": 200})), (200, false));
    // more than the service takes by itself falls as well, and less than the floor is not lifted to it
    assert_eq!(of(&busy, json!({"recall": 1.0})), (floor, true));
    let little = of(&idle, json!({"recall": 0.01}));
    assert!(little.0 <= floor, "{little:?}");
    assert_eq!(of(&busy, json!({"recall": 0.01})), little);
    assert_eq!(busy.metric("tonnage_effort"), 0.0);
    assert_eq!(idle.metric("tonnage_effort"), 1.0);
}

#[test]
fn a_refusal_waits_for_no_long_body_and_a_connection_outlives_a_short_one() {
    let (redis, trained) = Trained::online();
    let patient = "--set store.timeout_ms=60000 --set store.breaker_failures=1000000 --set run.in_flight=1";
    let serving = trained.serve(&redis.url(), patient);
    let long = format!("{{\"user_id\":\"{}\"}}", "x".repeat(200_000));
    let (first, ()) = held(&redis, &serving, || {
        let mut stream = begin(&serving, "", &long);
        assert!(read_until(&mut stream, "overloaded").starts_with("HTTP/1.1 429"));
        assert_eq!(serving.metric("tonnage_body_bytes"), ASKED.len() as f64, "only who has a place takes memory");
        let mut client = Client::connect(serving.public).unwrap();
        for _ in 0..3 {
            assert_eq!(client.ask("POST", "/v1/recommend", &[], Some(ASKED)).unwrap().status, 429);
        }
        assert_eq!(client.ask("GET", "/livez", &[], None).unwrap().status, 200);
    });
    assert_eq!(first.status, 200);
}

#[test]
fn bodies_take_no_more_memory_than_there_is_for_them() {
    let (redis, trained) = Trained::online();
    let limits = "--set limits.body_bytes=1000 --set limits.bodies_bytes=1000 --set listen.body_timeout_ms=600000";
    let serving = trained.serve(&redis.url(), limits);
    let of = |bytes: usize| format!("{}{ASKED}", " ".repeat(bytes - ASKED.len()));
    let mut slow = begin(&serving, "", &of(900));
    slow.write_all(&[b' '; 799]).unwrap();
    serving.wait_until("most of it is here", || serving.metric("tonnage_body_bytes") == 800.0);
    assert_eq!(serving.post("/v1/recommend", &of(300)).problem(), "overloaded");
    assert_eq!(serving.post("/v1/recommend", &of(100)).status, 200);
    assert_eq!(serving.metric("tonnage_refused_total{reason=\"bodies\"}"), 1.0);
    slow.write_all(&of(900).as_bytes()[800..]).unwrap();
    assert!(read_until(&mut slow, "\"items\"").starts_with("HTTP/1.1 200"));
    serving.wait_until("it is let go", || serving.metric("tonnage_body_bytes") == 0.0);
    assert_eq!(serving.post("/v1/recommend", &of(300)).status, 200);
}

/// Sends a head and the first byte of a body, on a connection of its own.
fn begin(serving: &Serving, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(serving.public).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n{head}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body.as_bytes()[..1]).unwrap();
    stream
}

/// Reads what there is of an answer until a text is in it.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let (mut read, mut buffer) = (String::new(), [0; 4_096]);
    while !read.contains(text) {
        let more = stream.read(&mut buffer).unwrap();
        assert!(more > 0, "it was closed: {read}");
        read.push_str(std::str::from_utf8(&buffer[..more]).unwrap());
    }
    read
}

#[test]
fn who_sends_slowly_takes_nobodys_place() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set run.in_flight=1 --set listen.body_timeout_ms=600000");
    let mut slow: Vec<TcpStream> = (0..4).map(|_| begin(&serving, "", ASKED)).collect();
    serving.wait_until("they are connected", || serving.metric("tonnage_connections") >= 5.0);
    assert_eq!(ask(&serving).status, 200);
    slow[0].write_all(&ASKED.as_bytes()[1..]).unwrap();
    assert!(read_until(&mut slow[0], "\"items\"").starts_with("HTTP/1.1 200"));
}

#[test]
fn a_body_that_does_not_come_is_late_and_one_that_breaks_off_is_not_too_large() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set listen.body_timeout_ms=100");
    assert!(read_until(&mut begin(&serving, "", ASKED), "request-timeout").starts_with("HTTP/1.1 408"));
    let chunked = "POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
                   Transfer-Encoding: chunked\r\n\r\nno length\r\n";
    let answered = Client::connect(serving.public).unwrap().raw(chunked.as_bytes()).unwrap();
    assert_eq!((answered.status, answered.problem().as_str()), (400, "invalid-request"));
}

#[test]
fn a_refusal_before_the_body_is_there_reaches_whoever_goes_on_sending() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set keys.read=['read-0123456789abcdef']");
    let body = format!("{{\"user_id\":\"{}\"}}", "x".repeat(200_000));
    let mut stream = begin(&serving, "", &body);
    for part in body.as_bytes()[1..].chunks(1_000) {
        stream.write_all(part).unwrap();
    }
    assert!(read_until(&mut stream, "unauthorized").starts_with("HTTP/1.1 401"));
    // the answer is there before the body is
    let mut stream = begin(&serving, "", &body);
    assert!(read_until(&mut stream, "unauthorized").starts_with("HTTP/1.1 401"));
    stream.write_all(&body.as_bytes()[1..]).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, "alive").starts_with("HTTP/1.1 200"));
}

#[test]
fn limits_are_those_of_the_configuration() {
    let (redis, trained) = Trained::online();
    let limits = "--set limits.k=7 --set limits.batch=2 --set limits.list=3 --set limits.text_bytes=16 \
                  --set limits.candidates=50 --set limits.body_bytes=1000";
    let serving = trained.serve(&redis.url(), limits);
    let ask = |body: &str| {
        let answered = serving.post("/v1/recommend", body);
        if answered.status == 200 { "ok".to_owned() } else { answered.problem() }
    };
    let long = format!("{}{ASKED}", " ".repeat(1_001 - ASKED.len()));
    let cases = [
        (r#"{"k":7}"#, "ok"),
        (r#"{"k":8}"#, "invalid-request"),
        ("[{\"k\":1},{\"k\":1}]", "ok"),
        ("[{\"k\":1},{\"k\":1},{\"k\":1}]", "too-large"),
        (r#"{"k":1,"exclude":{"items":[1,2,3]}}"#, "ok"),
        (r#"{"k":1,"exclude":{"items":[1,2,3,4]}}"#, "too-large"),
        (r#"{"k":1,"user_id":"0123456789abcdef"}"#, "ok"),
        (r#"{"k":1,"user_id":"0123456789abcdefg"}"#, "invalid-request"),
        (r#"{"k":1,"ef":51}"#, "invalid-request"),
        (&long[1..], "invalid-request"),
        (&long, "too-large"),
    ];
    for (body, expected) in cases {
        assert_eq!(ask(body), expected, "{}", body.trim_start());
    }
}

#[test]
fn recall_is_watched_by_what_is_asked() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set probe.every_ms=10 --set probe.k=10");
    assert_eq!(ask(&serving).status, 200);
    serving.wait_until("recall was measured", || serving.metric("tonnage_probes_total") >= 3.0);
    let recall = serving.metric("tonnage_recall_ratios");
    assert!(recall > 0.5 && recall <= 1.0, "{recall}");
}

#[test]
fn a_service_may_be_told_not_to_be_ready_without_its_store() {
    let (mut redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set store.ready_without=false --set store.breaker_failures=3");
    redis.kill();
    serving.wait_until("it says so", || serving.get("/readyz").status == 503);
    assert_eq!(serving.get("/readyz").body, "degraded: the store is away\n");
    assert_eq!(ask(&serving).status, 200, "whoever asks is answered all the same");
    redis.revive();
    serving.wait_until("it is ready", || serving.get("/readyz").status == 200);
}
