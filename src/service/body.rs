//! Bodies: read whole and within bounds, or let go of.
//!
//! The one thing to know: where a connection is closed while its client still sends, the client's system throws the answer
//! away. So what is left of a body that nobody wants is read and dropped beside the answer, as far as a body may go at
//! all; whoever sends more than is allowed may not hear why.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::problem::{Kind, Problem};

/// Bodies longer than this are looked through on a thread that nobody waits for. 16 KiB: below, that takes less than
/// handing it over and back.
const LONG: usize = 16 << 10;

/// Long bodies that are looked through at a time: one a core. More would not be done sooner, and a list of conditions that
/// say next to nothing takes twenty times the memory when it is read.
static LOOKING: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// The memory of all bodies that are here.
#[derive(Debug)]
pub struct Bodies {
    most: usize,
    held: AtomicUsize,
}

impl Bodies {
    /// At most so many bytes.
    pub fn new(most: usize) -> Self {
        Self { most, held: AtomicUsize::new(0) }
    }

    /// Bytes of bodies that are here.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), Problem> {
        if self.held.fetch_add(bytes, Relaxed) + bytes <= self.most {
            return Ok(());
        }
        self.held.fetch_sub(bytes, Relaxed);
        Err(Problem::new(Kind::Overloaded, "bodies of other requests take all the memory that there is for them"))
    }
}

/// A body on its way. It holds its share of the memory for bodies until it is dropped; what was not read by then is read
/// and thrown away.
#[derive(Debug)]
pub struct Upload {
    stream: Option<BodyDataStream>,
    is_short: bool,
    most: usize,
    limit: Duration,
    bodies: Arc<Bodies>,
    held: usize,
}

impl Upload {
    /// A body of at most so many bytes, all of which have to be here within the limit.
    pub fn new(body: Body, most: usize, limit: Duration, bodies: Arc<Bodies>) -> Self {
        let is_short = body.size_hint().upper().is_some_and(|upper| upper <= LONG as u64);
        let stream = (!body.is_end_stream()).then(|| body.into_data_stream());
        Self { stream, is_short, most, limit, bodies, held: 0 }
    }

    /// Has no use for it. What is short is here already, most likely: then it costs less to pass it by than to leave it to
    /// somebody else.
    pub async fn pass_by(&mut self) {
        if self.is_short
            && let Some(stream) = &mut self.stream
            && timeout(self.limit, async { while let Some(Ok(_)) = stream.next().await {} }).await.is_ok()
        {
            self.stream = None;
        }
    }

    /// All of it.
    pub async fn whole(&mut self) -> Result<Bytes, Problem> {
        let limit = self.limit;
        timeout(limit, self.read()).await.unwrap_or_else(|_| {
            let detail = format!("the body did not arrive within {} ms", limit.as_millis());
            Err(Problem::new(Kind::RequestTimeout, detail))
        })
    }

    async fn read(&mut self) -> Result<Bytes, Problem> {
        let (mut first, mut more) = (Bytes::new(), Vec::new());
        while let Some(stream) = &mut self.stream {
            match stream.next().await {
                Some(Ok(chunk)) if self.held + chunk.len() > self.most => {
                    let detail = format!("expected a body of at most {} bytes", self.most);
                    return Err(Problem::new(Kind::TooLarge, detail));
                }
                Some(Ok(chunk)) => {
                    self.bodies.take(chunk.len())?;
                    self.held += chunk.len();
                    // nearly every body comes in one piece, and is not copied
                    if first.is_empty() {
                        first = chunk;
                        continue;
                    }
                    if more.is_empty() {
                        more.extend_from_slice(&first);
                    }
                    more.extend_from_slice(&chunk);
                }
                Some(Err(_)) => {
                    self.stream = None;
                    return Err(Problem::invalid("the body ended before it was whole, or was not well framed"));
                }
                None => self.stream = None,
            }
        }
        Ok(if more.is_empty() { first } else { more.into() })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.bodies.held.fetch_sub(self.held, Relaxed);
        let (most, limit) = (self.most, self.limit);
        if let (Some(mut stream), Ok(runtime)) = (self.stream.take(), Handle::try_current()) {
            runtime.spawn(timeout(limit, async move {
                let mut left = most;
                while left > 0
                    && let Some(Ok(chunk)) = stream.next().await
                {
                    left = left.saturating_sub(chunk.len());
                }
            }));
        }
    }
}

/// Does what takes as long as a body is: here when that is short, and aside when everybody here would have to wait.
pub async fn look_through<T: Send + 'static>(
    body: Bytes,
    look: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if body.len() <= LONG {
        return look(&body);
    }
    // never closed
    let _turn = LOOKING.acquire().await;
    aside(move || look(&body)).await
}

/// Does what takes its time where nobody waits for it.
pub fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> impl Future<Output = Result<T, Problem>> {
    let span = tracing::Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work));
    async {
        done.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request was lost");
            Err(Problem::internal())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    const SOON: Duration = Duration::from_mins(1);

    fn room() -> Arc<Bodies> {
        Arc::new(Bodies::new(1_000))
    }

    fn upload(parts: &'static [&'static str], most: usize) -> Upload {
        let parts = stream::iter(parts.iter().map(|part| Ok::<_, Infallible>(Bytes::from_static(part.as_bytes()))));
        Upload::new(Body::from_stream(parts), most, SOON, room())
    }

    #[tokio::test]
    async fn a_body_is_whole_in_however_many_parts_it_comes() {
        for parts in [&["abcdef"][..], &["ab", "cd", "ef"], &["", "abc", "", "def"]] {
            assert_eq!(upload(parts, 6).whole().await.unwrap(), "abcdef", "{parts:?}");
            assert_eq!(upload(parts, 5).whole().await.unwrap_err().kind, Kind::TooLarge, "{parts:?}");
        }
        assert_eq!(Upload::new(Body::empty(), 0, SOON, room()).whole().await.unwrap(), "");
    }

    #[tokio::test]
    async fn bodies_share_what_memory_there_is_and_give_it_back() {
        let room = room();
        let of = |len: usize| Upload::new(Body::from(vec![b' '; len]), 1_000, SOON, Arc::clone(&room));
        let (mut first, mut second, mut third) = (of(600), of(600), of(400));
        assert_eq!(first.whole().await.unwrap().len(), 600);
        assert_eq!(second.whole().await.unwrap_err().kind, Kind::Overloaded);
        assert_eq!(third.whole().await.unwrap().len(), 400);
        assert_eq!(room.held(), 1_000);
        drop((first, second, third));
        assert_eq!(room.held(), 0);
        let mut passed = of(600);
        passed.pass_by().await;
        assert_eq!((room.held(), passed.whole().await.unwrap()), (0, Bytes::new()));
    }

    #[tokio::test]
    async fn long_bodies_are_looked_through_by_no_more_than_there_are_cores() {
        static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
        let cores = std::thread::available_parallelism().unwrap().get();
        let look = |_: &[u8]| {
            let others = AT_ONCE.fetch_add(1, Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            AT_ONCE.fetch_sub(1, Relaxed);
            Ok(others + 1)
        };
        let long = Bytes::from(vec![b' '; LONG + 1]);
        let all = (0..8 * cores).map(|_| look_through(long.clone(), look));
        let most = futures_util::future::join_all(all).await.into_iter().map(Result::unwrap).max().unwrap();
        assert!(most <= cores, "{most} on {cores} cores");
    }

    #[tokio::test]
    async fn what_breaks_off_is_not_too_large_and_what_hangs_is_late() {
        let cut = stream::iter([Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("cut"))]);
        let error = Upload::new(Body::from_stream(cut), 10, SOON, room()).whole().await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidRequest);
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let error = Upload::new(never, 10, Duration::from_millis(1), room()).whole().await.unwrap_err();
        assert_eq!(error.kind, Kind::RequestTimeout);
    }

    #[tokio::test]
    async fn what_nobody_wants_is_read_as_far_as_a_body_may_go() {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let endless = stream::iter(0..).map(move |at| {
            let _ = tell.send(at);
            Ok::<_, Infallible>(Bytes::from_static(&[b' '; 100]))
        });
        drop(Upload::new(Body::from_stream(endless), 1_000, SOON, room()));
        let mut parts = 0;
        while told.recv().await.is_some() {
            parts += 1;
        }
        assert_eq!(parts, 10);
    }
}
