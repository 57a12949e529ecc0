//! A service under load on one machine, with its Redis and the clients: requests a second at saturation, latency at half
//! of it, and what is left of both when five and ten times as much is asked.
//!
//! `cargo bench --bench service -- [ITEMS] [USERS] [FOLDER] [ADDRESS]`, 1,000,000 of each by default; a folder keeps the
//! index for the next run. At the address another service answers the same requests: it is measured by turns with ours,
//! and no overload is (`tools/stack`). The word `prepare` in its place only makes what is in the folder, and `faults` has
//! the store killed, paused, slowed, out of memory and read-only under half the load.
//! Open loop: a request's latency counts from when it was meant to be sent, however late that was.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench talks, and fails by panicking")]

#[path = "support/faults.rs"]
mod faults;
#[path = "../tests/support/items.rs"]
mod items;
#[path = "support/load.rs"]
mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use items::Random;
use load::{Outcome, closed, open, watch_liveness};
use support::RedisServer;

const DIM: usize = 64;
const CENTRES_PER: usize = 20;
/// Items of every request, of its session, and seen before.
const K: usize = 20;
const SESSION: usize = 5;
const SEEN: usize = 200;
/// Requests that are prepared; each is sent many times.
const BODIES: usize = 5_000;
/// Users whose answers are judged by scoring every item.
const JUDGED: usize = 200;
const CLIENTS: usize = 64;
const CROWD: usize = 1_024;
const SPAN: Duration = Duration::from_secs(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |at: usize| arguments.get(at).map_or(1_000_000, |text| text.parse().unwrap());
    let (items, users) = (number(0), number(1));
    let temporary = tempfile::tempdir().unwrap();
    let folder = arguments.get(2).map_or(temporary.path().to_owned(), PathBuf::from);
    let mut redis = RedisServer::start(&[]);
    prepare(&folder, items, users, &redis.url());
    let other = arguments.get(3).map(String::as_str);
    if other == Some("prepare") {
        return;
    }
    let bodies = bodies(items, users);
    if other == Some("faults") {
        return trouble(&folder, &mut redis, &bodies);
    }
    let service = Service::start(&folder, &redis.url());
    judge(&folder, service.public, items);
    if let Some(other) = other {
        return compare(&folder, items, service.public, other.parse().unwrap(), &bodies);
    }
    println!(
        "{items} items x {DIM}, {users} users, k {K}, session of {SESSION}, {SEEN} seen, one tag of half the items"
    );
    measure(&service, &bodies);
}

/// Half the load through one fault after another.
fn trouble(folder: &Path, redis: &mut RedisServer, bodies: &[Vec<u8>]) {
    let lag = Arc::default();
    let server = redis.url().trim_start_matches("redis://").trim_end_matches("/0").parse().unwrap();
    let way = faults::way_to(server, Arc::clone(&lag));
    let service = Service::start(folder, &format!("redis://{way}/0"));
    closed(service.public, bodies, CLIENTS, SPAN);
    let rate = 0.5 * closed(service.public, bodies, CLIENTS, SPAN).goodput(SPAN);
    println!("{rate:.0} requests/s, half of what saturates it over a way that can be made longer");
    for fault in &faults::FAULTS {
        faults::suffer(fault, redis, &lag, service.public, bodies, rate);
        publish(folder, &redis.url());
    }
}

/// Saturation of both by turns, and how long each takes with one client.
fn compare(folder: &Path, items: usize, ours: SocketAddr, other: SocketAddr, bodies: &[Vec<u8>]) {
    println!("the other:");
    judge(folder, other, items);
    let mut best = [0.0_f64; 2];
    for round in 1..=3 {
        let rates = [ours, other].map(|address| closed(address, bodies, CLIENTS, SPAN).goodput(SPAN));
        println!("round {round}: {:.0} and {:.0} requests/s, {CLIENTS} clients", rates[0], rates[1]);
        best = [best[0].max(rates[0]), best[1].max(rates[1])];
    }
    println!("best {:.0} and {:.0} requests/s: {:.1} times", best[0], best[1], best[0] / best[1]);
    for (name, address) in [("ours", ours), ("the other", other)] {
        println!("{name}, one client: {}", closed(address, bodies, 1, SPAN).line(SPAN));
    }
}

fn measure(service: &Service, bodies: &[Vec<u8>]) {
    closed(service.public, bodies, CLIENTS, Duration::from_secs(3));
    let before = service.stages();
    let saturation = (0..3).map(|_| closed(service.public, bodies, CLIENTS, SPAN).goodput(SPAN)).fold(0.0, f64::max);
    println!("saturation            {saturation:8.0} requests/s, {CLIENTS} clients, best of three");
    for (stage, us) in service.stages_since(&before) {
        println!("  {stage:20} {us:8.0} us mean");
    }
    for share in [0.5, 0.8] {
        let outcome = open(service.public, bodies, CLIENTS, saturation * share, SPAN);
        println!("{:3.0} % of it            {}", share * 100.0, outcome.line(SPAN));
    }
    for times in [5.0, 10.0] {
        let crowd = || open(service.public, bodies, CROWD, saturation * times, SPAN);
        let (outcome, slowest) = watch_liveness(service.admin, crowd);
        let goodput = 100.0 * outcome.goodput(SPAN) / saturation;
        println!("{times:3.0} times               {}", outcome.line(SPAN));
        let (asked, slowest) = (outcome.asked() as f64 / SPAN.as_secs_f64(), slowest.as_secs_f64() * 1e3);
        println!("  goodput {goodput:.0} % of saturation; {asked:.0}/s were asked; slowest /livez {slowest:.1} ms");
        let second = Duration::from_secs(1);
        for after in 1..=5 {
            let outcome = open(service.public, bodies, CLIENTS, saturation * 0.5, second);
            println!("  second {after} after, at 50 %: {}", outcome.line(second));
        }
    }
}

/// Vectors, tags, the index and the users, as far as they are not there.
fn prepare(folder: &Path, items: usize, users: usize, store: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let index = folder.join("items.tng");
    if !index.exists() {
        let mut random = Random(1);
        let mut centres = random.normals((items / CENTRES_PER).max(1) * DIM);
        centres.chunks_mut(DIM).for_each(unit);
        write_rows(&folder.join("items.npy"), items, |row| {
            add(row, centre(&centres, &mut random), 1.0);
            noise(row, 0.8, &mut random);
            unit(row);
            let norm = (0.15 * random.normal()).exp();
            row.iter_mut().for_each(|x| *x *= norm);
        });
        write_rows(&folder.join("users.npy"), users, |row| {
            (0..4).for_each(|_| add(row, centre(&centres, &mut random), 0.5));
            noise(row, 0.7, &mut random);
        });
        let mut tags = "id,tag\n".to_owned();
        (0..items).step_by(2).for_each(|item| writeln!(tags, "{item},color:red").unwrap());
        std::fs::write(folder.join("tags.csv"), tags).unwrap();
        run(
            folder,
            "build --items items.npy --metric dot --users users.npy --tags tags.csv --release bench --out items.tng",
        );
    }
    publish(folder, store);
}

/// The users, unless they are there.
fn publish(folder: &Path, store: &str) {
    run(folder, &format!("publish --index items.tng --users users.npy --release bench --store {store}"));
}

fn unit(row: &mut [f32]) {
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    row.iter_mut().for_each(|x| *x /= norm);
}

fn add(row: &mut [f32], other: &[f32], weight: f32) {
    row.iter_mut().zip(other).for_each(|(x, y)| *x += weight * y);
}

fn noise(row: &mut [f32], size: f32, random: &mut Random) {
    row.iter_mut().for_each(|x| *x += size * random.normal() / (DIM as f32).sqrt());
}

fn centre<'a>(centres: &'a [f32], random: &mut Random) -> &'a [f32] {
    &centres[random.below(centres.len() / DIM) * DIM..][..DIM]
}

fn write_rows(path: &Path, rows: usize, mut fill: impl FnMut(&mut [f32])) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIM}), }}");
    file.write_all(b"\x93NUMPY\x01\x00\x76\x00").unwrap();
    file.write_all(format!("{header:<117}\n").as_bytes()).unwrap();
    for _ in 0..rows {
        let mut row = [0.0; DIM];
        fill(&mut row);
        file.write_all(bytemuck::cast_slice(&row)).unwrap();
    }
    file.flush().unwrap();
}

fn read_rows(path: &Path, rows: usize) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes[128..][..rows * DIM * 4].chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

fn command(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tonnage"));
    command.current_dir(folder).args(line.split_whitespace()).stdin(Stdio::null());
    command
}

fn run(folder: &Path, line: &str) {
    assert!(command(folder, line).stdout(Stdio::null()).status().unwrap().success(), "{line}");
}

/// A request as it is sent.
fn post(body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /v1/recommend HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    format!("{head}{body}").into_bytes()
}

fn filter_and_seen(items: usize, random: &mut Random) -> String {
    let seen: Vec<String> = (0..SEEN).map(|_| random.below(items).to_string()).collect();
    format!(r#""filter":{{"all":[{{"field":"color","eq":"red"}}]}},"exclude":{{"items":[{}]}}"#, seen.join(","))
}

fn bodies(items: usize, users: usize) -> Vec<Vec<u8>> {
    let mut random = Random(9);
    let mut body = |_| {
        let event = |_| format!(r#"{{"item_id":{},"event":"click"}}"#, random.below(items));
        let session: Vec<String> = (0..SESSION).map(event).collect();
        let (user, rest) = (random.below(users), filter_and_seen(items, &mut random));
        post(&format!(r#"{{"user_id":{user},"k":{K},"session":[{}],{rest}}}"#, session.join(",")))
    };
    (0..BODIES).map(&mut body).collect()
}

/// Recall of what is answered without a session, whose blend only the service knows, by scoring every item.
fn judge(folder: &Path, address: SocketAddr, items: usize) {
    let vectors = read_rows(&folder.join("items.npy"), items);
    let users = read_rows(&folder.join("users.npy"), JUDGED);
    let mut random = Random(5);
    let mut found = 0;
    for (user, vector) in users.chunks(DIM).enumerate() {
        let rest = filter_and_seen(items, &mut random);
        let document = load::ask(address, &post(&format!(r#"{{"user_id":{user},"k":{K},{rest}}}"#)));
        let document: serde_json::Value = serde_json::from_slice(&document.1).unwrap();
        let seen: Vec<usize> =
            rest.rsplit_once('[').unwrap().1.trim_end_matches("]}").split(',').map(|id| id.parse().unwrap()).collect();
        let score = |item: usize| vectors[item * DIM..][..DIM].iter().zip(vector).map(|(x, y)| x * y).sum::<f32>();
        let mut best: Vec<(f32, usize)> =
            (0..items).step_by(2).filter(|item| !seen.contains(item)).map(|item| (score(item), item)).collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        let exact: Vec<String> = best[..K].iter().map(|(_, item)| item.to_string()).collect();
        let answered = document["items"].as_array().unwrap();
        found += answered.iter().filter(|item| exact.contains(&item["id"].as_str().unwrap().to_owned())).count();
    }
    println!("recall@{K} {:.4}, of {JUDGED} users", found as f64 / (JUDGED * K) as f64);
}

struct Service {
    process: Child,
    public: SocketAddr,
    admin: SocketAddr,
}

impl Service {
    fn start(folder: &Path, store: &str) -> Self {
        let more = std::env::var("SERVE").unwrap_or_default();
        let line = format!("serve --index items.tng --store {store} --listen 127.0.0.1:0 --admin 127.0.0.1:0 {more}");
        let mut process = command(folder, &line).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let addresses: Vec<SocketAddr> = said.split([' ', ',', '\n']).filter_map(|word| word.parse().ok()).collect();
        let service = Self { process, public: addresses[0], admin: addresses[1] };
        while load::ask(service.public, b"GET /readyz HTTP/1.1\r\nHost: bench\r\n\r\n").0 != 200 {
            std::thread::sleep(Duration::from_millis(50));
        }
        service
    }

    /// Sums and counts of the stages so far.
    fn stages(&self) -> Vec<(String, f64, f64)> {
        let (_, text) = load::ask(self.admin, b"GET /metrics HTTP/1.1\r\nHost: bench\r\n\r\n");
        let text = String::from_utf8(text).unwrap();
        let value = |name: String| {
            text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0.0, |value| value.trim().parse().unwrap())
        };
        let stage = |label: &str, name: &str| {
            let of = |what: &str| value(format!("tonnage_{label}_seconds_{what}{{{name}}}"));
            (name.split('"').nth(1).unwrap().to_owned(), of("sum"), of("count"))
        };
        let mut stages: Vec<_> = ["resolve", "blend", "search", "rank"]
            .iter()
            .map(|name| stage("stage", &format!("stage=\"{name}\"")))
            .collect();
        stages.push(stage("store", "call=\"read\""));
        stages.push(stage("latency", "route=\"recommend\",status=\"200\""));
        stages
    }

    /// Mean microseconds of each stage since then.
    fn stages_since(&self, before: &[(String, f64, f64)]) -> Vec<(String, f64)> {
        let since = self.stages().into_iter().zip(before);
        since
            .map(|((name, sum, count), (_, sum0, count0))| (name, 1e6 * (sum - sum0) / (count - count0).max(1.0)))
            .collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Outcome {
    /// Answers a second.
    fn goodput(&self, span: Duration) -> f64 {
        self.answered.len() as f64 / span.as_secs_f64()
    }

    fn line(&self, span: Duration) -> String {
        let ms = |of: &[Duration], share: f64| load::at(of, share).as_secs_f64() * 1e3;
        let refused = if self.refused.is_empty() {
            String::new()
        } else {
            let (count, p99) = (self.refused.len(), ms(&self.refused_took, 0.99));
            format!("; {count} refused, p99 {p99:.2} ms from sending")
        };
        format!(
            "{:6.0}/s, p50 {:.2} ms, p99 {:.2} ms{refused}; accepted p99 {:.2} ms from sending, {} failed",
            self.goodput(span),
            ms(&self.answered, 0.5),
            ms(&self.answered, 0.99),
            ms(&self.answered_took, 0.99),
            self.failed
        )
    }
}
