//! A service that is told to stop answers everybody who has asked, and then ends.

use std::io::Write;
use std::net::TcpStream;

use crate::support::serve::{Client, Trained, many, under_load};

/// Stops under load.
const STOPS: usize = 5;

#[test]
fn no_request_is_dropped_by_a_stop_under_load() {
    let (redis, trained) = Trained::online();
    for stop in 0..many(STOPS) {
        // long enough for every client to be told and to go; it ends sooner when they are gone
        let serving = trained.serve(&redis.url(), "--set listen.drain_ms=600000");
        let load = under_load(serving.public, 4, 40 + 10 * (stop % 5), || {
            serving.wait_until("requests are under way", || {
                serving.metric(r#"tonnage_answers_total{route="recommend",status="200"}"#) > 20.0
            });
            serving.signal("-TERM");
        });
        assert!(load.failed.is_empty() && load.bad(10).is_empty(), "{stop}: {:?} {:?}", load.failed, load.bad(10));
        let (code, log) = serving.end();
        assert_eq!(code, Some(0), "{log}");
    }
}

#[test]
fn clients_that_hang_do_not_keep_it() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "--set listen.drain_ms=500");
    let mut idle = Client::connect(serving.public).unwrap();
    assert_eq!(idle.ask("GET", "/livez", &[], None).unwrap().status, 200);
    let mut half = TcpStream::connect(serving.public).unwrap();
    half.write_all(
        b"POST /v1/recommend HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    )
    .unwrap();
    let mut head = TcpStream::connect(serving.public).unwrap();
    head.write_all(b"GET /livez HTT").unwrap();
    serving.wait_until("they are connected", || serving.metric("tonnage_connections") >= 4.0);
    serving.signal("-TERM");
    assert_eq!(serving.end().0, Some(0));
}
