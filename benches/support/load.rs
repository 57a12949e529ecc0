//! Clients: kept connections that one thread looks after, as little of the machine as clients can take, so that what is
//! measured is the service. It sleeps in `epoll`, to the microsecond, until an answer comes or a request is due.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::epoll;

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
    let (poll, mut all) = (epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(), Outcome::default());
    let mut clients: Vec<Client> = (0..clients).map(|number| Client::new(&poll, number, address)).collect();
    // who has been idle longest is next: nobody is for so long that the service lets them go
    let mut idle: VecDeque<usize> = (0..clients.len()).collect();
    let mut events = Vec::with_capacity(clients.len());
    let (began, mut number) = (Instant::now(), 0);
    let end = began + span;
    loop {
        let now = Instant::now();
        let due = rate.map(|rate| began + Duration::from_secs_f64(number as f64 / rate));
        let over = now.max(due.unwrap_or(now)) >= end;
        if over && idle.len() == clients.len() {
            return all;
        }
        if !over
            && due.is_none_or(|due| due <= now)
            && let Some(free) = idle.pop_front()
        {
            clients[free].send(&bodies[number % bodies.len()], due.unwrap_or(now));
            number += 1;
            continue;
        }
        // for an answer, and for the next request where somebody could send it
        let until = due.filter(|_| !over && !idle.is_empty()).map(|due| due.saturating_duration_since(now));
        events.clear();
        let until = until.map(|until| until.try_into().unwrap());
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), until.as_ref()).unwrap();
        for event in &events {
            let client = &mut clients[event.data.u64() as usize];
            match client.receive() {
                Some(answer) if client.waits => {
                    client.note(answer, &mut all);
                    idle.push_back(client.number);
                }
                Some(_) => client.reconnect(),
                None => {}
            }
        }
    }
}

/// A connection, and the request that is under way on it.
struct Client<'a> {
    poll: &'a OwnedFd,
    number: usize,
    address: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
    read: usize,
    waits: bool,
    meant: Instant,
    sent: Instant,
}

/// Status, and where in the buffer the body is; nothing of a connection that broke.
type Answer = Option<(u16, Range<usize>)>;

impl<'a> Client<'a> {
    fn new(poll: &'a OwnedFd, number: usize, address: SocketAddr) -> Self {
        let (stream, now) = (watched(poll, number, address), Instant::now());
        Self { poll, number, address, stream, buffer: vec![0; 1 << 16], read: 0, waits: false, meant: now, sent: now }
    }

    /// Sends a request; there is room for it, as nothing else is under way.
    fn send(&mut self, request: &[u8], meant: Instant) {
        (self.meant, self.sent, self.read, self.waits) = (meant, Instant::now(), 0, true);
        // of a connection that broke hears whoever reads
        let _ = self.stream.write_all(request);
    }

    /// The answer, once it is there as a whole.
    fn receive(&mut self) -> Option<Answer> {
        match self.stream.read(&mut self.buffer[self.read..]) {
            Ok(more @ 1..) => self.read += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            _ => return Some(None),
        }
        parse(&self.buffer[..self.read]).map(Some)
    }

    fn note(&mut self, answer: Answer, all: &mut Outcome) {
        self.waits = false;
        match answer {
            Some((200, body)) => {
                all.fewer += usize::from(!is_whole(&self.buffer[body]));
                all.answered.push(self.meant.elapsed());
                all.answered_took.push(self.sent.elapsed());
            }
            Some((429, _)) => {
                all.refused.push(self.meant.elapsed());
                all.refused_took.push(self.sent.elapsed());
            }
            _ => {
                all.failed += 1;
                self.reconnect();
            }
        }
    }

    fn reconnect(&mut self) {
        self.stream = watched(self.poll, self.number, self.address);
    }
}

/// A connection that wakes a poll when there is something to read.
fn watched(poll: &OwnedFd, number: usize, address: SocketAddr) -> TcpStream {
    let stream = connect(address);
    stream.set_nonblocking(true).unwrap();
    epoll::add(poll, &stream, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN).unwrap();
    stream
}

/// Whether an answer has as many items as were asked for.
fn is_whole(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    let number = |name: &str| text.rsplit_once(name)?.1.split([',', '}']).next();
    // The service that ours is compared with does not say.
    number("\"requested\":") == number("\"returned\":")
}

impl Outcome {
    /// Requests that were sent.
    pub fn asked(&self) -> usize {
        self.answered.len() + self.refused.len() + self.failed
    }

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
fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> Option<(u16, Range<usize>)> {
    stream.write_all(request).ok()?;
    let mut read = 0;
    loop {
        read += stream.read(&mut buffer[read..]).ok().filter(|&more| more > 0)?;
        if let Some(answer) = parse(&buffer[..read]) {
            return Some(answer);
        }
    }
}

/// The status, and where the body is, once all of it is there.
fn parse(answer: &[u8]) -> Option<(u16, Range<usize>)> {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).ok()?;
    let status = text.get(9..12)?.parse().ok()?;
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
    let body = head + 4..head + 4 + length;
    (answer.len() >= body.end).then_some((status, body))
}
