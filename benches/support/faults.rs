//! What becomes of requests while the store is in trouble: at half load for half a minute, with the trouble in its middle.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::load::{self, Outcome};
use crate::support::RedisServer;

/// Before the trouble, while it lasts, and afterwards.
const PHASE: Duration = Duration::from_secs(10);
const CLIENTS: usize = 64;
/// In the answer of a known user on a good day.
const WELL: &str = r#""user_vector":{"origin":"page"#;

/// One kind of trouble: how it begins and how it ends. `lag` is what the way to the store adds, in milliseconds.
pub struct Fault {
    name: &'static str,
    begin: fn(&mut RedisServer, lag: &AtomicU64),
    end: fn(&mut RedisServer, lag: &AtomicU64),
}

fn say(redis: &RedisServer, command: &str) {
    let said = redis.say(command).unwrap();
    assert!(said.starts_with("+OK"), "{command}: {said}");
}

pub const FAULTS: [Fault; 5] = [
    Fault { name: "killed, back empty", begin: |redis, _| redis.kill(), end: |redis, _| redis.revive() },
    Fault { name: "paused", begin: |redis, _| redis.pause(), end: |redis, _| redis.resume() },
    Fault { name: "50 ms away", begin: |_, lag| lag.store(50, Relaxed), end: |_, lag| lag.store(0, Relaxed) },
    Fault {
        name: "out of memory",
        begin: |redis, _| say(redis, "CONFIG SET maxmemory 1mb"),
        end: |redis, _| say(redis, "CONFIG SET maxmemory 0"),
    },
    Fault {
        name: "read-only",
        begin: |redis, _| say(redis, "REPLICAOF 127.0.0.1 1"),
        end: |redis, _| say(redis, "REPLICAOF NO ONE"),
    },
];

/// Asks `rate` requests a second of a service through all of a fault, and says what became of them.
pub fn suffer(
    fault: &Fault,
    redis: &mut RedisServer,
    lag: &AtomicU64,
    address: SocketAddr,
    bodies: &[Vec<u8>],
    rate: f64,
) {
    let ask = |span| load::open(address, bodies, CLIENTS, rate, span);
    let during = std::thread::scope(|scope| {
        let during = scope.spawn(|| [ask(PHASE), ask(PHASE)]);
        std::thread::sleep(PHASE);
        (fault.begin)(redis, lag);
        during.join().unwrap()
    });
    (fault.end)(redis, lag);
    let ended = Instant::now();
    let well = std::thread::scope(|scope| {
        let after = scope.spawn(|| ask(PHASE));
        let mut well = None;
        while well.is_none() && ended.elapsed() < PHASE {
            let (_, body) = load::ask(address, &bodies[0]);
            well = String::from_utf8_lossy(&body).contains(WELL).then(|| ended.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        (well, after.join().unwrap())
    });
    let [before, in_trouble] = during;
    let phases = [&before, &in_trouble, &well.1];
    let asked: usize = phases.iter().map(|of| of.asked()).sum();
    let whole: usize = phases.iter().map(|of| of.answered.len() - of.fewer).sum();
    let sum = |of: fn(&Outcome) -> usize| phases.map(of).iter().sum::<usize>();
    let (refused, failed) = (sum(|of| of.refused.len()), sum(|of| of.failed));
    let p99 = |of: &Outcome| of.answered_at(0.99).as_secs_f64() * 1e3;
    println!(
        "{:20} {whole} of {asked} answered with all items ({:.3} %), {refused} refused, {failed} failed, \
         p99 {:.2} ms before, {:.2} in it, {:.2} after, {}",
        fault.name,
        100.0 * whole as f64 / asked as f64,
        p99(&before),
        p99(&in_trouble),
        p99(&well.1),
        well.0.map_or("no user known again".into(), |took| format!("users known again after {} ms", took.as_millis())),
    );
}

/// A way to a server that can be made longer: what is sent arrives so much later, in order, and nothing waits for it.
pub fn way_to(server: SocketAddr, lag: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(server) else { continue };
            let (there, back) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
            let lag = Arc::clone(&lag);
            std::thread::spawn(move || carry(there, &lag));
            std::thread::spawn(move || carry(back, &AtomicU64::new(0)));
        }
    });
    address
}

fn carry((mut from, mut to): (TcpStream, TcpStream), lag_ms: &AtomicU64) {
    to.set_nodelay(true).unwrap();
    let (sender, receiver) = channel::<(Instant, Vec<u8>)>();
    let arrive = move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    };
    let arriving = std::thread::spawn(arrive);
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let due = Instant::now() + Duration::from_millis(lag_ms.load(Relaxed));
        if sender.send((due, buffer[..read].to_vec())).is_err() {
            break;
        }
    }
    drop(sender);
    let _ = (arriving.join(), from.shutdown(Shutdown::Both));
}
