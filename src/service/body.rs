//! Bodies: read whole and within bounds, or let go of.
//!
//! The one thing to know: where a connection is closed while its client still sends, the client's system throws the answer
//! away. So what is left of a body that nobody wants is read and dropped beside the answer, as far as a body may go at
//! all; whoever sends more than is allowed may not hear why.

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::problem::{Kind, Problem};

/// Bodies longer than this are looked through on a thread that nobody waits for. 16 KiB: below, that takes less than
/// handing it over and back.
const LONG: usize = 16 << 10;

/// A body on its way. What was not read when it is dropped is read and thrown away.
#[derive(Debug)]
pub struct Upload {
    stream: Option<BodyDataStream>,
    most: usize,
    limit: Duration,
}

impl Upload {
    /// A body of at most so many bytes, all of which have to be here within the limit.
    pub fn new(body: Body, most: usize, limit: Duration) -> Self {
        Self { stream: (!body.is_end_stream()).then(|| body.into_data_stream()), most, limit }
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
                Some(Ok(chunk)) if first.len().max(more.len()) + chunk.len() > self.most => {
                    let detail = format!("expected a body of at most {} bytes", self.most);
                    return Err(Problem::new(Kind::TooLarge, detail));
                }
                // nearly every body comes in one piece, and is not copied
                Some(Ok(chunk)) if first.is_empty() => first = chunk,
                Some(Ok(chunk)) => {
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
    aside(move || look(&body)).await
}

/// Does what takes its time where nobody waits for it.
pub fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> impl Future<Output = Result<T, Problem>> {
    let done = tokio::task::spawn_blocking(work);
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

    fn upload(parts: &'static [&'static str], most: usize) -> Upload {
        let parts = stream::iter(parts.iter().map(|part| Ok::<_, Infallible>(Bytes::from_static(part.as_bytes()))));
        Upload::new(Body::from_stream(parts), most, SOON)
    }

    #[tokio::test]
    async fn a_body_is_whole_in_however_many_parts_it_comes() {
        for parts in [&["abcdef"][..], &["ab", "cd", "ef"], &["", "abc", "", "def"]] {
            assert_eq!(upload(parts, 6).whole().await.unwrap(), "abcdef", "{parts:?}");
            assert_eq!(upload(parts, 5).whole().await.unwrap_err().kind, Kind::TooLarge, "{parts:?}");
        }
        assert_eq!(Upload::new(Body::empty(), 0, SOON).whole().await.unwrap(), "");
    }

    #[tokio::test]
    async fn what_breaks_off_is_not_too_large_and_what_hangs_is_late() {
        let cut = stream::iter([Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("cut"))]);
        let error = Upload::new(Body::from_stream(cut), 10, SOON).whole().await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidRequest);
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let error = Upload::new(never, 10, Duration::from_millis(1)).whole().await.unwrap_err();
        assert_eq!(error.kind, Kind::RequestTimeout);
    }

    #[tokio::test]
    async fn what_nobody_wants_is_read_as_far_as_a_body_may_go() {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let endless = stream::iter(0..).map(move |at| {
            let _ = tell.send(at);
            Ok::<_, Infallible>(Bytes::from_static(&[b' '; 100]))
        });
        drop(Upload::new(Body::from_stream(endless), 1_000, SOON));
        let mut parts = 0;
        while told.recv().await.is_some() {
            parts += 1;
        }
        assert_eq!(parts, 10);
    }
}
