//! Clients: a thread and a kept connection each, because a thread wakes within some 50 us of when it meant to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What came of requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of those answered with 200, the time from when they were meant to be sent,
    pub answered: Vec<Duration>,
    /// and from when they were.
    pub answered_took: Vec<Duration>,
    /// How many of them had fewer items than were asked for.
    pub fewer: usize,
    /// Of those refused with 429, the same.
    pub refused: Vec<Duration>,
    /// From when they were sent.
    pub refused_took: Vec<Duration>,
    /// Any other end.
    pub failed: usize,
}

/// Each client sends its next request when it has the answer to the last.
pub fn closed(address: SocketAddr, bodies: &[Vec<u8>], clients: usize, span: Duration) -> Outcome {
    run(address, bodies, clients, span, None)
}

/// So many requests a second, whatever becomes of them; late only when every client waits.
pub fn open(address: SocketAddr, bodies: &[Vec<u8>], clients: usize, rate: f64, span: Duration) -> Outcome {
    run(address, bodies, clients, span, Some(rate))
}

fn run(address: SocketAddr, bodies: &[Vec<u8>], clients: usize, span: Duration, rate: Option<f64>) -> Outcome {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Outcome::default()));
    let began = Instant::now();
    let client = || {
        let (mut stream, mut buffer, mut own) = (connect(address), vec![0; 1 << 16], Outcome::default());
        loop {
            let number = next.fetch_add(1, Relaxed);
            let meant = match rate {
                Some(rate) => began + Duration::from_secs_f64(number as f64 / rate),
                None => Instant::now(),
            };
            if meant >= began + span || Instant::now() >= began + span {
                break;
            }
            std::thread::sleep(meant.saturating_duration_since(Instant::now()));
            let sent = Instant::now();
            match exchange(&mut stream, &bodies[number % bodies.len()], &mut buffer) {
                Some((200, body)) => {
                    own.fewer += usize::from(!is_whole(&buffer[body]));
                    own.answered.push(meant.elapsed());
                    own.answered_took.push(sent.elapsed());
                }
                Some((429, _)) => {
                    own.refused.push(meant.elapsed());
                    own.refused_took.push(sent.elapsed());
                }
                _ => {
                    own.failed += 1;
                    stream = connect(address);
                }
            }
        }
        let mut all = all.lock().unwrap();
        all.answered.append(&mut own.answered);
        all.answered_took.append(&mut own.answered_took);
        all.refused.append(&mut own.refused);
        all.refused_took.append(&mut own.refused_took);
        all.failed += own.failed;
        all.fewer += own.fewer;
    };
    std::thread::scope(|scope| (0..clients).for_each(|_| drop(scope.spawn(client))));
    all.into_inner().unwrap()
}

/// Whether an answer has as many items as were asked for.
fn is_whole(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let number = |name: &str| text.rsplit_once(name)?.1.split([',', '}']).next();
    // The service that ours is compared with does not say.
    number("\"requested\":") == number("\"returned\":")
}

impl Outcome {
    /// The time within which a share of the answers came.
    pub fn answered_at(&self, share: f64) -> Duration {
        at(&self.answered, share)
    }
}

/// The time that a share of some times is within.
pub fn at(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// Asks whether the service lives every 20 ms while something goes on; says how long the slowest answer took.
pub fn watch_liveness<T>(address: SocketAddr, during: impl FnOnce() -> T) -> (T, Duration) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !over.load(Relaxed) {
                let began = Instant::now();
                ask(address, b"GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n");
                slowest = slowest.max(began.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            slowest
        });
        let result = during();
        over.store(true, Relaxed);
        (result, watcher.join().unwrap())
    })
}

/// One request over a connection of its own: status and body.
pub fn ask(address: SocketAddr, request: &[u8]) -> (u16, Vec<u8>) {
    let mut buffer = vec![0; 1 << 20];
    let (status, body) = exchange(&mut connect(address), request, &mut buffer).unwrap();
    (status, buffer[body].to_vec())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Sends a request; the status, and where in the buffer the body is.
fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> Option<(u16, std::ops::Range<usize>)> {
    stream.write_all(request).ok()?;
    let mut read = 0;
    loop {
        let more = stream.read(&mut buffer[read..]).ok().filter(|&more| more > 0)?;
        read += more;
        let Some(head) = buffer[..read].windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head]).ok()?;
        let status = text.get(9..12)?.parse().ok()?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
        let body = head + 4..head + 4 + length;
        if read >= body.end {
            return Some((status, body));
        }
    }
}
