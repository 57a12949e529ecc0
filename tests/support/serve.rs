//! A service of one's own: a process of the built binary over a small index and a store, and plain HTTP to talk to it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each includer uses a part; a helper fails by panicking"
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::RedisServer;
use super::vectors::{numbers, write_ids, write_npy};

/// Items of the index.
pub const ITEMS: usize = 600;
/// Users of the release.
pub const USERS: usize = 200;
/// Dimensions.
pub const DIM: usize = 16;
/// What nothing here takes, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// What a trainer left, in a folder that goes with it.
pub struct Trained {
    /// The folder; indexes are in `indexes` below it.
    pub folder: TempDir,
}

impl Trained {
    /// The same, its release `monday` built and published to a server.
    pub fn online() -> (RedisServer, Self) {
        let redis = RedisServer::start(&[]);
        let trained = Self::new();
        trained.build("monday", "");
        trained.publish("monday", &redis.url());
        (redis, trained)
    }

    /// Items `item-0`.. with tags `color:red` (every other), `size:s|m|l` and `rare` (three), the number `price` from 0.5 to
    /// 39.5, users `user-0`...
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_npy(&path("items.npy"), &numbers(ITEMS * DIM, 1), DIM);
        write_npy(&path("users.npy"), &numbers(USERS * DIM, 2), DIM);
        write_ids(&path("items.txt"), "item", ITEMS);
        write_ids(&path("users.txt"), "user", USERS);
        let mut tags = "id,tag\n".to_owned();
        let mut popularity = "id,popularity\n".to_owned();
        let mut prices = "id,field,value\n".to_owned();
        for row in 0..ITEMS {
            if row % 2 == 0 {
                writeln!(tags, "item-{row},color:red").unwrap();
            }
            if row % 200 == 0 {
                writeln!(tags, "item-{row},rare").unwrap();
            }
            writeln!(tags, "item-{row},size:{}", ["s", "m", "l"][row % 3]).unwrap();
            writeln!(prices, "item-{row},price,{}.5", row % 40).unwrap();
            writeln!(popularity, "item-{row},{row}").unwrap();
        }
        std::fs::write(path("tags.csv"), tags).unwrap();
        std::fs::write(path("numbers.csv"), prices).unwrap();
        std::fs::write(path("popularity.csv"), popularity).unwrap();
        std::fs::create_dir(path("indexes")).unwrap();
        Self { folder }
    }

    /// Runs a line of the command, which must succeed.
    pub fn run(&self, line: &str) -> String {
        let output = self.command(line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A line of the command, to be started.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tonnage"));
        command.current_dir(self.folder.path()).args(line.split_whitespace()).stdin(Stdio::null());
        command
    }

    /// Builds `indexes/<name>.tng`; other names are other models.
    pub fn build(&self, name: &str, more: &str) -> PathBuf {
        let file = format!("indexes/{name}.tng");
        self.run(&format!(
            "build --items items.npy --ids items.txt --metric dot --tags tags.csv --numbers numbers.csv \
             --popularity popularity.csv --users users.npy --release {name} --out {file} {more}"
        ));
        self.folder.path().join(file)
    }

    /// Publishes the users for an index, as the active release of that name.
    pub fn publish(&self, name: &str, store: &str) {
        let line = format!("publish --index indexes/{name}.tng --users users.npy --ids users.txt --release {name}");
        self.run(&format!("{line} --store {store}"));
    }

    /// Starts a service, with more flags, and waits until it is ready.
    pub fn serve(&self, store: &str, more: &str) -> Serving {
        let serving = self.start(store, more);
        serving.wait_until("it is ready", || serving.admin_get("/readyz").status == 200);
        serving
    }

    /// Starts a service, with more flags, and waits until it listens.
    pub fn start(&self, store: &str, more: &str) -> Serving {
        let line = format!(
            "serve --index indexes --store {store} --listen 127.0.0.1:0 --admin 127.0.0.1:0 --set reload.poll_ms=50 \
             --set store.timeout_ms=2000 --set run.deadline_ms=60000 --set run.queue_ms=60000 --set run.in_flight=100000 {more}"
        );
        let mut process = self.command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let address = |text: &str| text.trim().trim_end_matches(',').parse::<SocketAddr>().ok();
        let addresses: Vec<SocketAddr> = first.split_whitespace().filter_map(address).collect();
        let [public, admin] = addresses[..] else {
            let mut error = String::new();
            process.stderr.take().unwrap().read_to_string(&mut error).unwrap();
            panic!("it did not start: {first}{error}")
        };
        // read to the end, or a full pipe would stop it
        let mut log = process.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = log.read_to_string(&mut text);
            text
        });
        Serving { process, public, admin, log: Some(log) }
    }
}

/// A service that runs. It dies with this value.
pub struct Serving {
    process: Child,
    /// Where requests go.
    pub public: SocketAddr,
    /// Where administration is.
    pub admin: SocketAddr,
    log: Option<std::thread::JoinHandle<String>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answered {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The ids of the items.
    pub fn items(&self) -> Vec<String> {
        let document = self.json();
        let items = document["items"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The name of the problem.
    pub fn problem(&self) -> String {
        assert!(self.head.to_lowercase().contains("application/problem+json"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status, "{self:?}");
        document["type"].as_str().unwrap().strip_prefix("urn:tonnage:problem:").unwrap().to_owned()
    }
}

impl Serving {
    pub fn get(&self, path: &str) -> Answered {
        Client::connect(self.public).unwrap().ask("GET", path, &[], None).unwrap()
    }

    pub fn post(&self, path: &str, body: &str) -> Answered {
        Client::connect(self.public).unwrap().ask("POST", path, &[], Some(body)).unwrap()
    }

    pub fn admin_get(&self, path: &str) -> Answered {
        Client::connect(self.admin).unwrap().ask("GET", path, &[], None).unwrap()
    }

    pub fn admin_post(&self, path: &str) -> Answered {
        Client::connect(self.admin).unwrap().ask("POST", path, &[], Some("{}")).unwrap()
    }

    /// The value of a metric, its name with labels as it is written; 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.admin_get("/metrics").body;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Looks again and again until something holds.
    #[allow(clippy::unused_self, reason = "it reads as what is waited for")]
    pub fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "it never was that {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, as in `-TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.id();
        // what the shell has built in: the program of that name may not be there
        assert!(Command::new("sh").args(["-c", &format!("kill {name} {id}")]).status().unwrap().success());
    }

    /// Index files that it has mapped.
    pub fn mapped(&self) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.process.id())).unwrap();
        let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        let files = paths.filter(|path| path.contains("/indexes/"));
        files.collect::<std::collections::HashSet<_>>().len()
    }

    /// Waits for its end; says the exit code and what it wrote to standard error.
    pub fn end(mut self) -> (Option<i32>, String) {
        let code = self.process.wait().unwrap().code();
        (code, self.log.take().unwrap().join().unwrap())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One connection, kept.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request and reads the answer. A body is JSON unless a header says otherwise.
    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> std::io::Result<Answered> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n");
        if let Some(body) = body {
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                head.push_str("Content-Type: application/json\r\n");
            }
            write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        head.push_str("\r\n");
        head.push_str(body.unwrap_or_default());
        self.raw(head.as_bytes())
    }

    /// Sends bytes and reads one answer.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<Answered> {
        self.stream.get_mut().write_all(bytes)?;
        self.read()
    }

    /// Reads one answer.
    pub fn read(&mut self) -> std::io::Result<Answered> {
        let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the answer was cut");
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(cut());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().map_err(|_| cut())?;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
        Ok(Answered { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// What came of requests that went on while something happened.
#[derive(Debug, Default)]
pub struct Load {
    /// Answers, whatever they say.
    pub answered: Vec<Answered>,
    /// Whom each is for.
    pub users: Vec<usize>,
    /// Requests that were sent and not answered.
    pub failed: Vec<String>,
    /// Connections that could not be made.
    pub turned_away: usize,
}

impl Load {
    /// Answers that are not what a healthy request gets: 200 with `k` items, none twice.
    pub fn bad(&self, k: usize) -> Vec<&Answered> {
        let good = |answered: &&Answered| {
            answered.status == 200 && answered.items().iter().collect::<std::collections::HashSet<_>>().len() == k
        };
        self.answered.iter().filter(|answered| !good(answered)).collect()
    }

    /// Answers from a user's own vector that are not that user's.
    pub fn mixed_up(&self, items_of: &[Vec<String>]) -> Vec<&Answered> {
        let own = |answered: &Answered| {
            let origin = &answered.json()["user_vector"]["origin"];
            *origin == "page" || *origin == "last_known"
        };
        let pairs = self.answered.iter().zip(&self.users);
        let wrong = pairs.filter(|(answered, user)| own(answered) && answered.items() != items_of[**user]);
        wrong.map(|(answered, _)| answered).collect()
    }

    /// Answers from a rung of the ladder.
    pub fn from(&self, origin: &str) -> usize {
        self.answered.iter().filter(|answered| answered.json()["user_vector"]["origin"] == origin).count()
    }
}

/// So many, or as many as the environment variable `MANY` says: what takes long is tried a few times in every run of the
/// tests, and many times when somebody wants to know.
pub fn many(few: usize) -> usize {
    std::env::var("MANY").map_or(few, |text| text.parse().unwrap())
}

/// Sends requests for ten items from several clients, each over a kept connection, while `during` runs and at least so many
/// each. A client that is told that its connection closes makes another; one that can make none any more stops.
pub fn under_load(public: SocketAddr, clients: usize, at_least: usize, during: impl FnOnce()) -> Load {
    let over = std::sync::atomic::AtomicBool::new(false);
    let load = std::sync::Mutex::new(Load::default());
    let client = |number: usize| {
        let mut client = None;
        for turn in 0.. {
            if turn >= at_least && over.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let Some(open) = client.as_mut() else {
                let Ok(open) = Client::connect(public) else {
                    load.lock().unwrap().turned_away += 1;
                    return;
                };
                client = Some(open);
                continue;
            };
            let user = (number * 31 + turn) % USERS;
            let body = format!(r#"{{"user_id":"user-{user}","k":10}}"#);
            match open.ask("POST", "/v1/recommend", &[], Some(&body)) {
                Ok(answered) => {
                    if answered.head.to_lowercase().contains("connection: close") {
                        client = None;
                    }
                    let mut load = load.lock().unwrap();
                    load.answered.push(answered);
                    load.users.push(user);
                }
                Err(error) => {
                    load.lock().unwrap().failed.push(error.to_string());
                    client = None;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let client = &client;
        (0..clients).for_each(|number| drop(scope.spawn(move || client(number))));
        during();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    load.into_inner().unwrap()
}
