//! Whatever is sent to a service: an answer that says what is wrong, never a fault of ours, and it goes on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use crate::items::Random;
use crate::support::serve::{Client, Serving, Trained};

/// Documents for each route.
const DOCUMENTS: usize = 1_000;
/// Requests that are not even HTTP.
const RAW: usize = 300;

/// Values that are seldom what is meant.
const ODD: [&str; 36] = [
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "1.5",
    "-0.0",
    "1e40",
    "-1e40",
    "1e400",
    "1e-400",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "NaN",
    "Infinity",
    "\"\"",
    "\"user-1\"",
    "\"item-1\"",
    "\"NaN\"",
    "\"click\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\u202e\"",
    "\"../../etc/passwd\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "[\"item-1\"]",
    "{\"a\":1}",
    "\"\u{1f600}\"",
];

/// A method, a path, and the fields of what it takes with a sound value of each.
type Route = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const ROUTES: [Route; 7] = [
    (
        "POST",
        "/v1/recommend",
        &[
            ("user_id", "\"user-1\""),
            ("segment", "\"de\""),
            ("k", "5"),
            ("deadline_ms", "60000"),
            ("recall", "0.9"),
            ("ef", "50"),
            ("session", r#"[{"item_id":"item-1","event":"click","ts":1700000000}]"#),
            ("blend", r#"{"session_weight":0.4,"half_life_s":1800,"inertia":4,"weights":{"click":1}}"#),
            ("exclude", r#"{"items":["item-3"],"seen":true}"#),
            (
                "filter",
                r#"{"all":[{"field":"color","eq":"red"}],"any":[{"field":"size","in":["s"]}],"none":[{"field":"price","min":3.5,"max":20}],"items":null}"#,
            ),
            ("diversity", r#"{"mmr_lambda":0.7,"candidates":100,"max_per":{"size":3}}"#),
            ("mix", r#"{"quotas":[{"source":"popular","count":2}],"pins":[{"rank":1,"item_id":"item-4"}]}"#),
            ("page", "\"abc\""),
            ("explain", "true"),
            ("consent", "true"),
        ],
    ),
    (
        "POST",
        "/v1/similar",
        &[
            ("item_id", "\"item-1\""),
            ("k", "5"),
            ("ef", "50"),
            ("exclude", r#"{"items":["item-3"]}"#),
            ("filter", r#"{"all":[{"field":"color","eq":"red"},{"field":"price","max":20}]}"#),
            ("diversity", r#"{"mmr_lambda":0.2}"#),
        ],
    ),
    (
        "POST",
        "/v1/score",
        &[
            ("user_id", "\"user-1\""),
            ("items", r#"["item-1","item-2"]"#),
            ("session", r#"[{"item_id":"item-1","event":"cart"}]"#),
            ("blend", r#"{"session_weight":1}"#),
        ],
    ),
    ("POST", "/v1/events", &[("events", r#"[{"user_id":"user-1","item_id":"item-1","event":"click","ts":1}]"#)]),
    ("PUT", "/v1/items/availability", &[("available", r#"["item-1"]"#), ("unavailable", r#"["item-2","nothing"]"#)]),
    (
        "PUT",
        "/v1/items",
        &[(
            "items",
            r#"[{"item_id":"new-1","vector":[1,2,3,0.4,0.7,1,1,1,1,1,1,1,1,1,1,1],"tags":["color:red"],"numbers":{"price":3.5}}]"#,
        )],
    ),
    ("DELETE", "/v1/items", &[("items", r#"["new-1","item-3"]"#)]),
];

struct Hostile {
    random: Random,
}

impl Hostile {
    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.random.below(list.len())]
    }

    /// Some fields of a route, with sound values and odd ones, in a document that may be no document.
    fn document(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut text = "{".to_owned();
        for &(name, sound) in fields {
            if self.random.below(3) > 0 {
                continue;
            }
            let name = if self.random.below(40) == 0 { "unknown" } else { name };
            let value = match self.random.below(8) {
                0 => (*self.one_of(&ODD)).to_owned(),
                1 => self.bent(sound),
                _ => sound.to_owned(),
            };
            let comma = if text.len() > 1 { "," } else { "" };
            write!(text, "{comma}\"{name}\":{value}").unwrap();
        }
        text.push('}');
        match self.random.below(48) {
            0 => text.truncate(text.floor_char_boundary(self.random.below(text.len()))),
            1 => text = format!("[{text}]"),
            2 => text = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)),
            3 => text = format!("{text}{text}"),
            4 => text = text.replace("\"user-1\"", &format!("\"{}\"", "x".repeat(2_000))),
            5 => (*self.one_of(&ODD)).clone_into(&mut text),
            _ => {}
        }
        let mut bytes = text.into_bytes();
        if self.random.below(24) == 0 && !bytes.is_empty() {
            let at = self.random.below(bytes.len());
            bytes[at] = self.random.next() as u8;
        }
        bytes
    }

    /// A sound value with one of its parts exchanged for an odd one.
    fn bent(&mut self, sound: &str) -> String {
        let odd = *self.one_of(&ODD);
        let parts: Vec<(usize, &str)> = [
            "\"click\"",
            "\"item-1\"",
            "\"item-3\"",
            "\"red\"",
            "\"color\"",
            "\"popular\"",
            "\"price\"",
            "\"max\"",
            "3.5",
            "20",
            "0.4",
            "0.7",
            "100",
            "1",
            "2",
            "3",
            "[]",
            "true",
            "null",
        ]
        .iter()
        .filter_map(|part| Some((sound.find(part)?, *part)))
        .collect();
        if parts.is_empty() {
            return odd.to_owned();
        }
        let (at, part) = *self.one_of(&parts);
        format!("{}{odd}{}", &sound[..at], &sound[at + part.len()..])
    }
}

/// Counts answers by status, and fails at one of ours.
#[derive(Default)]
struct Tally(BTreeMap<u16, usize>);

impl Tally {
    fn take(&mut self, status: u16, what: &str) {
        assert!(status < 500, "{status} for {what}");
        *self.0.entry(status).or_default() += 1;
    }

    fn total(&self) -> usize {
        self.0.values().sum()
    }
}

fn ask(serving: &Serving, method: &str, path: &str, kind: &str, body: &[u8]) -> u16 {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    Client::connect(serving.public).unwrap().raw(&request).unwrap_or_else(|error| panic!("{path}: {error}")).status
}

#[test]
fn nothing_that_is_sent_is_a_fault_of_ours() {
    let (redis, trained) = Trained::online();
    let serving = trained.serve(&redis.url(), "");
    let mut hostile = Hostile { random: Random(7) };
    let mut tally = Tally::default();
    documents(&serving, &mut hostile, &mut tally);
    paths_and_queries(&serving, &mut hostile, &mut tally);
    methods_kinds_and_sizes(&serving, &mut tally);
    let raw = not_even_http(&serving, &mut hostile);
    eprintln!("{} requests and {raw} that were not even HTTP; by status {:?}", tally.total(), tally.0);
    assert!(tally.0[&200] > 500 && tally.0[&400] > 500, "both sides of the door were tried: {:?}", tally.0);
    assert_eq!(serving.post("/v1/recommend", r#"{"user_id":"user-1","k":10}"#).items().len(), 10);
    serving.signal("-TERM");
    let (code, log) = serving.end();
    assert!(code == Some(0) && !log.contains("panicked"), "{log}");
}

fn documents(serving: &Serving, hostile: &mut Hostile, tally: &mut Tally) {
    for (method, path, fields) in ROUTES {
        let mut client = Client::connect(serving.public).unwrap();
        for _ in 0..DOCUMENTS {
            let body = hostile.document(fields);
            let mut request = format!(
                "{method} {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes();
            request.extend_from_slice(&body);
            let answered = client.raw(&request).unwrap();
            tally.take(answered.status, &format!("{path} {}", String::from_utf8_lossy(&body)));
            if answered.status == 200 && body[0] == b'{' && answered.body.contains("\"items\"") {
                let items = answered.items();
                let distinct: std::collections::HashSet<_> = items.iter().collect();
                assert_eq!(distinct.len(), items.len(), "{}", String::from_utf8_lossy(&body));
            } else if answered.status != 200 {
                answered.problem();
            }
        }
    }
}

fn paths_and_queries(serving: &Serving, hostile: &mut Hostile, tally: &mut Tally) {
    let odd = [
        "..",
        "../..",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "..%5c..%5cwindows",
        "%00",
        "a%00b",
        "%ff",
        "%c0%ae%c0%ae%2f",
        "%25%32%65",
        "....//....//",
        "%2fetc%2fpasswd",
        "file:%2f%2f%2fetc%2fpasswd",
        "%5c%5chost%5cshare",
        "C:%5c",
        "~",
        "~root",
        "$HOME",
        "%24%7bHOME%7d",
        "`id`",
        "%0d%0aX-Injected:%201",
        "%0a",
        ".",
        "...",
        "%F0%9F%98%80",
        "%E2%80%AE",
        "{user}",
        "*",
        "?",
        "%",
        "%2",
        "%zz",
        "current",
        "r:monday",
        "tonnage:current",
        "tonnage%3Ar%3Amonday",
        "user-1/..",
        "user-1/../../releases",
        "%2e",
        "%252e%252e%252f",
        "..;",
        "..%00/",
        "%e0%80%ae",
        "\\..\\..",
        "0",
        "18446744073709551616",
    ];
    for place in ["/v1/recommend/", "/v1/", "/", "/v1/admin/", "/indexes/", "/openapi.json/"] {
        for text in odd {
            let path = format!("{place}{text}");
            let status = ask(serving, "GET", &path, "application/json", b"");
            tally.take(status, &path);
        }
        let long = format!("{place}{}", "a".repeat(20_000));
        tally.take(ask(serving, "GET", &long, "application/json", b""), "a long path");
    }
    let keys = ["k", "tag", "not_tag", "range", "segment", "seen", "explain", "deadline_ms", "ef", "user_id", "K", ""];
    for _ in 0..600 {
        let mut path = "/v1/recommend/user-1?".to_owned();
        for _ in 0..=hostile.random.below(3) {
            let (key, value) = (*hostile.one_of(&keys), *hostile.one_of(&odd));
            let value = if hostile.random.below(3) == 0 { "5" } else { value };
            write!(path, "{key}={}&", value.replace('?', "%3f").replace(' ', "+")).unwrap();
        }
        tally.take(ask(serving, "GET", &path, "application/json", b""), &path);
    }
}

fn methods_kinds_and_sizes(serving: &Serving, tally: &mut Tally) {
    let paths = [
        "/v1/recommend",
        "/v1/recommend/user-1",
        "/v1/similar",
        "/v1/score",
        "/v1/releases",
        "/v1/capacity",
        "/livez",
        "/openapi.json",
    ];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW"] {
        for path in paths {
            // the answer to HEAD has a length and no body
            if method == "HEAD" || method == "CONNECT" {
                continue;
            }
            tally.take(ask(serving, method, path, "application/json", b"{}"), &format!("{method} {path}"));
        }
    }
    for kind in ["text/plain", "application/xml", "", "application/jsonp", "multipart/form-data; boundary=x", "\u{1f}"]
    {
        let status = ask(serving, "POST", "/v1/recommend", kind, b"{}");
        tally.take(status, kind);
        assert!(status == 415 || status == 400, "{kind:?}: {status}");
    }
    assert_eq!(ask(serving, "POST", "/v1/recommend", "Application/JSON; charset=utf-8", b"{}"), 200);
    let list = |count| format!(r#"{{"exclude":{{"items":[{}0]}}}}"#, "0,".repeat(count));
    assert_eq!(ask(serving, "POST", "/v1/recommend", "application/json", list(9_000).as_bytes()), 200);
    assert_eq!(ask(serving, "POST", "/v1/recommend", "application/json", list(10_000).as_bytes()), 413);
    let batch = format!("[{}{{}}]", "{},".repeat(256));
    assert_eq!(ask(serving, "POST", "/v1/recommend", "application/json", batch.as_bytes()), 413);
    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(ask(serving, "POST", "/v1/recommend", "application/json", &large), 413);
}

/// Sends bytes that are not HTTP, or not quite; says how many were tried.
fn not_even_http(serving: &Serving, hostile: &mut Hostile) -> usize {
    let sound =
        b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            .to_vec();
    let lines: [&[u8]; 10] = [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"POST /v1/recommend HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"GET /livez HTTP/1.1\r\nHost: t\r\nX: \x00\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
    ];
    for turn in 0..RAW {
        let mut bytes = match lines.get(turn) {
            Some(line) => line.to_vec(),
            None => sound.clone(),
        };
        if turn >= lines.len() {
            for _ in 0..=hostile.random.below(6) {
                let at = hostile.random.below(bytes.len());
                bytes[at] = hostile.random.next() as u8;
            }
        }
        let mut stream = TcpStream::connect(serving.public).unwrap();
        stream.write_all(&bytes).unwrap();
        // the service must not wait for more than it was sent, or for ever
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.set_read_timeout(Some(crate::support::serve::PATIENCE));
        let _ = stream.read_to_end(&mut answer);
        let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.first());
        assert!(status != Some(&b'5'), "{}: {}", String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&answer));
    }
    RAW
}
