//! What several test files and benches need: a Redis server of one's own, and a place for an embedded store.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each includer uses a part; a helper fails by panicking

pub mod cluster;
pub mod double;
pub mod releases;
pub mod rolls;
pub mod serve;
pub mod vectors;
pub mod world;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tonnage::kv::{EmbeddedKv, RedisKv, RedisOptions};

/// A `redis-server` on a free loopback port, without persistence, in a folder of its own. It dies with this value.
pub struct RedisServer {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl RedisServer {
    /// Starts one, with more `redis-server` arguments, and waits until it answers.
    pub fn start(more: &[&str]) -> Self {
        Self::start_other("redis-server", more)
    }

    /// The same of another server of the family: a program that `tools/servers` puts into `target/servers`.
    pub fn start_other(program: &str, more: &[&str]) -> Self {
        let path = match program {
            "redis-server" => program.into(),
            other => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers").join(other),
        };
        // the port is free when we look and may be taken when the server does; then another is tried
        for _ in 0..10 {
            if let Some(server) = Self::try_start(&path, more) {
                return server;
            }
        }
        panic!("{program} did not come up on any of ten ports");
    }

    fn try_start(program: &Path, more: &[&str]) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| {
                let remedy = "apt-get install redis-server, and tools/servers for the others";
                panic!("{} must be there for these tests ({e}): {remedy}", program.display())
            });
        let mut server = Self { process, port, folder };
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && server.process.try_wait().unwrap().is_none() {
            // its own process id, so that a stranger on the same port is not taken for it
            let id = format!("process_id:{}\r", server.process.id());
            if server.say("INFO server").is_some_and(|info| info.contains(&id)) {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// One inline command and the beginning of the answer.
    pub fn say(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
        let mut answer = vec![0; 1 << 14];
        let length = stream.read(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer[..length]).into_owned())
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// A client, with longer timeouts than the defaults: the test machine is busy.
    pub async fn connect(&self) -> RedisKv {
        let patient =
            RedisOptions { connect_timeout_ms: 10_000, response_timeout_ms: 10_000, ..RedisOptions::default() };
        RedisKv::connect(&self.url(), patient).await.unwrap()
    }

    /// Ends the process; its port is free until it is [revived](Self::revive).
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again where it was, empty, and waits until it answers.
    pub fn revive(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            self.process = Command::new("redis-server")
                .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no", "--dir"])
                .arg(self.folder.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            // it ends by itself when the port is not free yet
            while self.process.try_wait().unwrap().is_none() {
                if self.say("PING").is_some_and(|said| said.starts_with("+PONG")) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("redis-server did not come up again on port {}", self.port);
    }

    /// Stops the process in its tracks; its sockets stay open and silent.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        // what the shell has built in: the program of that name may not be there
        assert!(Command::new("sh").args(["-c", &format!("kill {name} {id}")]).status().unwrap().success());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An embedded store in a folder that goes with it.
pub async fn embedded() -> (EmbeddedKv, TempDir) {
    let folder = TempDir::new().unwrap();
    let kv = EmbeddedKv::open(folder.path().join("users.redb")).await.unwrap();
    (kv, folder)
}

/// As [`on_both_homes`], and on a cluster of six nodes: one cluster, emptied between one function and the next, because
/// it takes seconds to form.
#[macro_export]
macro_rules! on_every_home {
    ($($name:ident),+ $(,)?) => {
        $crate::on_both_homes!($($name),+);
        mod cluster {
            #[tokio::test]
            async fn does_all_of_this() {
                let cluster = $crate::support::cluster::TestCluster::start();
                $(
                    eprintln!("on a cluster: {}", stringify!($name));
                    super::$name(cluster.connect().await).await;
                    cluster.clear();
                )+
            }
        }
    };
}

/// Makes two tests of one async function that takes a `Kv` home: `redis::name` and `embedded::name`.
#[macro_export]
macro_rules! on_both_homes {
    ($($name:ident),+ $(,)?) => {
        mod redis {
            $(#[tokio::test]
            async fn $name() {
                let server = $crate::support::RedisServer::start(&[]);
                super::$name(server.connect().await).await;
            })+
        }
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                let (kv, _folder) = $crate::support::embedded().await;
                super::$name(kv).await;
            })+
        }
    };
}
