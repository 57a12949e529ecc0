//! A call to the store that is on its way while the caller does something else.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

/// A call begun: its answer, or what is left to wait for. One that is dropped may still be carried out.
pub(super) enum Flight<'a, T> {
    Landed(T),
    /// Nobody locks it: it is there so that who holds a flight can be lent out while it waits, and its task still go from
    /// thread to thread.
    Under(Mutex<Pin<Box<dyn Future<Output = T> + Send + 'a>>>),
}

impl<'a, T> Flight<'a, T> {
    /// Begins a call and lets what it sends go out, so that the server works while the caller does.
    pub(super) async fn begin(call: impl Future<Output = T> + Send + 'a) -> Self {
        let mut call: Pin<Box<dyn Future<Output = T> + Send + 'a>> = Box::pin(call);
        for _ in 0..2 {
            if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await {
                return Self::Landed(answer);
            }
            // the connection is a task of its own, which has to run
            tokio::task::yield_now().await;
        }
        Self::Under(Mutex::new(call))
    }

    /// Its answer.
    pub(super) async fn end(self) -> T {
        match self {
            Self::Landed(answer) => answer,
            Self::Under(call) => call.into_inner().unwrap_or_else(PoisonError::into_inner).await,
        }
    }
}
