//! Connections: accepted, bounded, timed, drained.
//!
//! The one thing to know: a stop is in three steps, so that nobody who has sent a request goes without an answer. First
//! every answer says that its connection closes, while new ones are still taken; then idle connections are closed and
//! the door with them; last, what is left when the time is over is cut.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::config::Listen;
use super::metrics::Metrics;

/// The most that a request's head may take. 32 kB: every proxy's limit is lower.
const HEAD_BYTES: usize = 32 << 10;
/// How much of the time to drain is given to clients that keep a connection to send one more request.
const LINGER: u32 = 10;
/// For which there is no connection before it is taken that no more will come.
const QUIET: Duration = Duration::from_millis(100);
/// For which a connection that has sent nothing yet is still listened to when all are closed: whoever has just connected
/// is about to send.
const SILENCE: Duration = Duration::from_millis(200);
/// After a failed accept, which is nearly always a lack of file descriptors: for others to close theirs.
const BREATH: Duration = Duration::from_millis(20);

/// A door: where it listens, and what is behind it.
pub struct Door {
    /// The listening socket.
    pub listener: TcpListener,
    /// What answers.
    pub router: Router,
    /// Bounds.
    pub listen: Listen,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
    /// Said by this door when it begins to stop; whoever asks for readiness wants to know.
    pub draining: Arc<AtomicBool>,
    /// For connections that begin with a handshake.
    pub tls: Option<TlsAcceptor>,
}

/// What all connections of a door share.
struct Inside {
    router: Router,
    head_timeout: Duration,
    tls: Option<TlsAcceptor>,
    /// Says to all connections that they close.
    closing: watch::Sender<bool>,
}

impl Door {
    /// Answers until `stop`, then drains.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { listener, router, listen, metrics, draining, tls } = self;
        let room = Arc::new(Semaphore::new(listen.connections));
        let head_timeout = Duration::from_millis(listen.head_timeout_ms);
        let inside = Inside { router, head_timeout, tls, closing: watch::Sender::new(false) };
        let count = |permit: OwnedSemaphorePermit| Connection::count(permit, &metrics);
        tokio::pin!(stop);
        tokio::select! {
            () = &mut stop => {}
            never = accept(&listener, &room, |stream, permit| inside.spawn(stream, count(permit))) => match never {},
        }
        draining.store(true, Relaxed);
        let drain = Duration::from_millis(listen.drain_ms);
        let end = Instant::now() + drain;
        let quiet = async {
            let mut since = Instant::now();
            while since.elapsed() < QUIET {
                tokio::time::sleep(QUIET / 10).await;
                // whoever accepts holds one
                if room.available_permits() + 1 < listen.connections {
                    since = Instant::now();
                }
            }
        };
        tokio::select! {
            () = sleep_until(Instant::now() + drain / LINGER) => {}
            () = quiet => {}
            never = accept(&listener, &room, |stream, permit| inside.spawn(stream, count(permit))) => match never {},
        }
        // those who knocked and were not let in yet; the system is asked, and not what the runtime has heard of it
        if let Ok(listener) = listener.into_std() {
            while let (Ok((stream, _)), Ok(permit)) = (listener.accept(), Arc::clone(&room).try_acquire_owned()) {
                if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                    inside.spawn(stream, count(permit));
                }
            }
        }
        inside.closing.send_replace(true);
        // all that there are: every connection is at its end
        let all = u32::try_from(listen.connections).unwrap_or(u32::MAX);
        if timeout_at(end, room.acquire_many(all)).await.is_err() {
            tracing::warn!("connections were cut: they did not end within the time to drain");
        }
    }
}

/// Lets connections in, one by one, for ever.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    admit: impl Fn(TcpStream, OwnedSemaphorePermit),
) -> Infallible {
    loop {
        let Ok(permit) = Arc::clone(room).acquire_owned().await else {
            return std::future::pending().await; // never closed
        };
        match listener.accept().await {
            Ok((stream, _)) => admit(stream, permit),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// An open connection, counted.
struct Connection {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Connection {
    fn count(permit: OwnedSemaphorePermit, metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self { _permit: permit, metrics: Arc::clone(metrics) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Inside {
    fn spawn(&self, stream: TcpStream, counted: Connection) {
        // answers are small and whole; waiting to fill a packet only delays them
        let _ = stream.set_nodelay(true);
        let (router, head_timeout) = (self.router.clone(), self.head_timeout);
        let (closing, tls) = (self.closing.subscribe(), self.tls.clone());
        tokio::spawn(async move {
            match tls {
                None => talk(TokioIo::new(stream), router, head_timeout, closing).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(head_timeout, tls.accept(stream)).await {
                        talk(TokioIo::new(stream), router, head_timeout, closing).await;
                    }
                }
            }
            drop(counted);
        });
    }
}

/// Answers what comes over a connection, until one side closes it.
async fn talk<I: Read + Write + Unpin>(
    io: I,
    router: Router,
    head_timeout: Duration,
    mut closing: watch::Receiver<bool>,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let router = TowerToHyperService::new(router);
    let answer = service_fn({
        let asked = Arc::clone(&asked);
        move |request| {
            asked.store(true, Relaxed);
            router.call(request)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(io, answer));
    // how a connection ends is its client's affair
    tokio::select! {
        biased;
        _ = &mut connection => return,
        _ = closing.wait_for(|closing| *closing) => {}
    }
    // one that is closed before its first request would lose it, and the client could not know
    if !asked.load(Relaxed) {
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = sleep(SILENCE) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_let_in_at_the_last_moment_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
        let router = Router::new().route("/", get(|| async { "here" }));
        let inside =
            Inside { router, head_timeout: Duration::from_mins(1), tls: None, closing: watch::Sender::new(false) };
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        inside.spawn(stream, Connection::count(permit, &Arc::default()));
        inside.closing.send_replace(true);
        let read = move || {
            let mut answer = String::new();
            client.read_to_string(&mut answer).map(|_| answer)
        };
        let answer = tokio::task::spawn_blocking(read).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer:?}");
    }
}
