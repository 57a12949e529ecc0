//! The memory model against real servers: what is predicted before a load and what `used_memory` says after it, over
//! layouts, TTLs, counts and payloads. Each server's worst and median error are printed (`--nocapture`).
//!
//! Redis 7.0 is the distribution's; the others come from wheels that `tools/servers` puts into `target/servers`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and may say what it measured")]

use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::RedisServer;
use tonnage::kv::memory::{Dataset, Expiry, Keys, Names, Value, Values};
use tonnage::kv::{Probe, probe};
use tonnage::store::geometry;

const PAYLOADS: [usize; 5] = [36, 68, 132, 260, 516];
const ENTRIES: [u32; 3] = [20_000, 130_000, 300_000];
const LAYOUTS: [Layout; 4] = [Layout::Strings, Layout::Dense, Layout::Hashed, Layout::Lists];

/// Most error on jemalloc and on glibc, as a share.
const JEMALLOC: f64 = 0.005;
const LIBC: f64 = 0.025;

/// Header of a hashed page and fingerprint of a user: `docs/wire-format.md`.
const PAGE_HEADER: usize = 6;
const FINGERPRINT: usize = 5;

#[test]
fn redis_7_0_as_debian_packages_it() {
    grid("redis-server", JEMALLOC);
}

#[test]
fn a_release_costs_what_is_predicted_from_its_publishing_to_its_retirement() {
    for (server, bound) in
        [("redis-server", JEMALLOC), ("redis-8.2", JEMALLOC), ("valkey-8.1", LIBC), ("valkey-9.1", LIBC)]
    {
        for node_of_a_cluster in [false, true] {
            life(server, bound, node_of_a_cluster);
        }
    }
}

#[test]
fn redis_8_2() {
    grid("redis-8.2", JEMALLOC);
}

#[test]
fn valkey_8_1() {
    grid("valkey-8.1", LIBC);
}

#[test]
fn valkey_9_1() {
    grid("valkey-9.1", LIBC);
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    /// One string key a user.
    Strings,
    /// Pages by row.
    Dense,
    /// Pages by hash.
    Hashed,
    /// Result lists, a key a user, of lengths around the payload.
    Lists,
}

/// One load.
#[derive(Clone, Copy, Debug)]
struct Case {
    layout: Layout,
    ttl: bool,
    entries: u32,
    payload: usize,
}

/// The errors of one case, as shares.
struct Errors {
    case: Case,
    /// Of all of `used_memory`.
    absolute: f64,
    /// Of what an entry adds.
    per_entry: f64,
    bytes_per_entry: f64,
}

impl Display for Errors {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let Self { case, absolute, per_entry, bytes_per_entry } = self;
        let (all, each) = (absolute * 100.0, per_entry * 100.0);
        write!(to, "{all:+.3} % of all, {each:+.3} % of {bytes_per_entry:.1} bytes an entry: {case:?}")
    }
}

fn grid(server: &str, bound: f64) {
    let mut found = Vec::new();
    for layout in LAYOUTS {
        for ttl in [false, true] {
            for entries in ENTRIES {
                for payload in PAYLOADS {
                    found.push(measure(server, Case { layout, ttl, entries, payload }));
                }
            }
        }
    }
    println!("{server}, {} loads; errors by load, worst and median", found.len());
    for (of, error) in
        [("per entry", (|errors| errors.per_entry) as fn(&Errors) -> f64), ("of all", |errors| errors.absolute)]
    {
        found.sort_by(|a, b| error(a).abs().total_cmp(&error(b).abs()));
        println!("  {of}: {}\n  {of}: {}", found[found.len() - 1], found[found.len() / 2]);
    }
    let over: Vec<String> = found
        .iter()
        .filter(|errors| errors.absolute.abs().max(errors.per_entry.abs()) > bound)
        .map(ToString::to_string)
        .collect();
    assert!(
        over.is_empty(),
        "{} of {} loads are off by more than {bound}:\n{}",
        over.len(),
        found.len(),
        over.join("\n")
    );
}

fn measure(program: &str, case: Case) -> Errors {
    let server = start(program, &[]);
    let (sizes, keys) = plan(case);
    let mut scale = Scale::of(&server);
    let before = scale.weigh();
    let mut dataset = scale.server.dataset();
    dataset.add(&keys);
    let growth = dataset.rest_bytes() - scale.server.used_bytes + scale.server.first_use_bytes(&["set"]);
    load(&server, case, &sizes);
    let after = scale.weigh();
    let grown = (after - before) as f64;
    Errors {
        case,
        absolute: (before + growth) as f64 / after as f64 - 1.0,
        per_entry: growth as f64 / grown - 1.0,
        bytes_per_entry: grown / f64::from(case.entries),
    }
}

/// The bytes of each value, and what the model is told of them.
fn plan(Case { layout, ttl, entries, payload }: Case) -> (Vec<usize>, Keys) {
    let sizes: Vec<usize> = match layout {
        Layout::Strings => vec![payload; entries as usize],
        Layout::Lists => (0..entries).map(|row| payload / 2 + hash(row) as usize % payload).collect(),
        Layout::Dense => {
            let slots = geometry::dense_slots(geometry::Home::REFERENCE, payload);
            (0..entries).step_by(slots as usize).map(|first| slots.min(entries - first) as usize * payload).collect()
        }
        Layout::Hashed => {
            let mean = geometry::hashed_mean(geometry::Home::REFERENCE, PAGE_HEADER, FINGERPRINT + payload);
            let mut pages = vec![PAGE_HEADER; (f64::from(entries) / mean).ceil() as usize];
            for row in 0..entries {
                let page = (u128::from(hash(row)) * pages.len() as u128) >> 64;
                pages[page as usize] += FINGERPRINT + payload;
            }
            pages
        }
    };
    let names = Names::numbered(prefix(layout).len(), 0..sizes.len() as u64);
    let values = Values::mixed(sizes.iter().map(|&bytes| (Value::String(bytes), 1.0)));
    let expiry = if ttl { Expiry::Set } else { Expiry::None };
    (sizes, Keys { names, values, expiry })
}

/// SplitMix64's finalizer.
fn hash(row: u32) -> u64 {
    let mixed = (u64::from(row) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn prefix(layout: Layout) -> &'static str {
    match layout {
        Layout::Strings => "u:",
        Layout::Dense | Layout::Hashed => "tng:0123456789ab:",
        Layout::Lists => "tng:list:",
    }
}

/// Writes the values.
fn load(server: &RedisServer, case: Case, sizes: &[usize]) {
    let content = vec![b'x'; sizes.iter().copied().max().unwrap_or(0)];
    send(server, sizes.len(), |row, to| {
        let key = format!("{}{row}", prefix(case.layout));
        set(to, &key, &content[..sizes[row]], case.ttl);
    });
}

fn set(to: &mut Vec<u8>, key: &str, value: &[u8], ttl: bool) {
    let (arguments, end) = if ttl { (5, "\r\n$2\r\nPX\r\n$7\r\n9000000\r\n") } else { (3, "\r\n") };
    write!(to, "*{arguments}\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len()).unwrap();
    to.extend_from_slice(value);
    to.extend_from_slice(end.as_bytes());
}

/// Sends a command for each of `count`, 256 KiB at a time. The answers are "OK" or 1.
fn send(server: &RedisServer, count: usize, command: impl Fn(usize, &mut Vec<u8>)) {
    let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut to = &stream;
    let (mut commands, mut waiting) = (Vec::new(), 0);
    for row in 0..count {
        command(row, &mut commands);
        waiting += 1;
        if commands.len() > 1 << 18 || row + 1 == count {
            to.write_all(&commands).unwrap();
            for _ in 0..waiting {
                let answer = answers.next().unwrap().unwrap();
                assert!(matches!(answer.as_str(), "+OK" | ":1"), "{answer}");
            }
            commands.clear();
            waiting = 0;
        }
    }
}

/// Publish with a TTL, take it off, publish the next, retire the first: at each step what the model says it costs.
fn life(program: &str, bound: f64, node_of_a_cluster: bool) {
    const PAGES: usize = 70_000;
    let more: &[&str] = if node_of_a_cluster { &["--cluster-enabled", "yes"] } else { &[] };
    let server = start(program, more);
    if node_of_a_cluster {
        server.say("CLUSTER ADDSLOTSRANGE 0 16383").unwrap();
        while !server.say("CLUSTER INFO").unwrap().contains("cluster_state:ok") {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let mut scale = Scale::of(&server);
    let (begun, before) = (scale.server.clone(), scale.weigh());
    assert_eq!(begun.server.cluster_slots, node_of_a_cluster.then_some(16_384));
    let name = |release: char, page: usize| format!("tng:{release}bcdef012345:{page}");
    let group = |release| {
        let names = Names::numbered(name(release, 0).len() - 1, 0..PAGES as u64);
        Keys::strings(names, 500, Expiry::Set)
    };
    let (mut first, mut second) = (group('a'), group('b'));
    let mut dataset = begun.dataset();
    let mut called = Vec::new();
    let mut step = |what: &str, command: &'static str, release: char, dataset: &Dataset| {
        let word = command.to_uppercase();
        send(&server, PAGES, |page, to| {
            let key = name(release, page);
            if command == "set" {
                set(to, &key, &[b'x'; 500], true);
            } else {
                write!(to, "*2\r\n${}\r\n{word}\r\n${}\r\n{key}\r\n", word.len(), key.len()).unwrap();
            }
        });
        called.push(command);
        let predicted = before + dataset.rest_bytes() - begun.used_bytes + begun.first_use_bytes(&called);
        let measured = scale.weigh();
        let error = predicted as f64 / measured as f64 - 1.0;
        println!("{program}, cluster {node_of_a_cluster}, {what}: {:+.3} % of {measured}", error * 100.0);
        assert!(error.abs() <= bound, "{program}, {what}: {predicted} for {measured}");
    };
    dataset.add(&first);
    step("published", "set", 'a', &dataset);
    dataset.persist(&mut first);
    step("activated", "persist", 'a', &dataset);
    dataset.add(&second);
    step("next one published", "set", 'b', &dataset);
    dataset.persist(&mut second);
    step("next one activated", "persist", 'b', &dataset);
    dataset.remove(&first);
    step("first one retired", "unlink", 'a', &dataset);
}

/// A server whose entries move into a grown table at each turn of a fast clock.
fn start(program: &str, more: &[&str]) -> RedisServer {
    RedisServer::start_other(program, &[&["--hz", "500"], more].concat())
}

/// `used_memory` without what connections have in it. It is one connection, open from before a load to after it.
struct Scale {
    answers: BufReader<TcpStream>,
    server: Probe,
}

impl Scale {
    /// Its commands are called once before the server is probed, and so belong to what was there.
    fn of(server: &RedisServer) -> Self {
        let answers = BufReader::new(TcpStream::connect(("127.0.0.1", server.port())).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let probed = || runtime.block_on(async { probe(&server.connect().await).await.unwrap() });
        let mut scale = Self { answers, server: probed() };
        scale.look();
        scale.server = probed();
        scale
    }

    /// Once nobody else is connected, and the bytes stand still.
    fn weigh(&mut self) -> u64 {
        let (mut last, mut still) = (0, 0);
        for _ in 0..2_000 {
            std::thread::sleep(Duration::from_millis(10));
            let (used, connections) = self.look();
            // glibc gives out a few bytes more each time that a buffer comes and goes
            still = if connections == 1 && used.abs_diff(last) <= 256 { still + 1 } else { 0 };
            last = used;
            if still == 4 {
                return used;
            }
        }
        panic!("used_memory does not come to rest: {last}");
    }

    /// The bytes now, and how many are connected. `mem_clients_normal` lags behind; the list is of this moment.
    fn look(&mut self) -> (u64, usize) {
        self.answers.get_mut().write_all(b"INFO memory\r\nCLIENT LIST\r\n").unwrap();
        let used = field(&self.answer(), "\nused_memory:");
        let clients = self.answer();
        let theirs: u64 = clients.lines().map(|client| field(client, " tot-mem=")).sum();
        (used - theirs, clients.lines().count())
    }

    fn answer(&mut self) -> String {
        let mut head = String::new();
        self.answers.read_line(&mut head).unwrap();
        let mut text = vec![0; head.trim_start_matches('$').trim_end().parse::<usize>().unwrap() + 2];
        self.answers.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap().trim_end().to_owned()
    }
}

fn field(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap();
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}
