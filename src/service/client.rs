//! New items on their way to services that run: `PUT /v1/items`, in batches.
//!
//! The one thing to know: to add an item twice is to add it once, so what was refused for a moment is sent again.

use std::path::Path;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::tls::{self, TlsError};
use crate::input::Id;

/// Items of a batch at the most. 1,000: a tenth of what a service takes in a list.
const BATCH_ITEMS: usize = 1_000;
/// Bytes that end a batch. Half a mebibyte: half of what a service takes in a body.
const BATCH_BYTES: usize = 512 << 10;
/// For connecting, sending and the answer. 30 s: a batch is taken in milliseconds, and whoever waits longer wants to know.
const PATIENCE: Duration = Duration::from_secs(30);
/// A service that is too busy, or not ready yet, is asked so often.
const TRIES: u32 = 10;
/// And so long after it said so, as it says itself.
const PAUSE: Duration = Duration::from_secs(1);
/// No answer is longer.
const LONGEST_ANSWER: usize = 64 << 10;

/// Why a service did not take what it was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Not an address.
    #[error("{url:?} is not the address of a service: {why}; use http://host:port or https://host:port")]
    BadUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key that cannot be sent.
    #[error("expected a key of visible ASCII characters in one line, got another; see [keys] of the service")]
    BadKey,
    /// The certificates to trust.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection, or one that broke.
    #[error("cannot reach {url}: {detail}; check that it runs and that the address is right")]
    Unreachable {
        /// The service.
        url: String,
        /// What the connection said.
        detail: String,
    },
    /// Connected, and no answer.
    #[error("{url} did not answer within {limit_s} s; check its load")]
    TimedOut {
        /// The service.
        url: String,
        /// The time that passed.
        limit_s: u64,
    },
    /// It said no.
    #[error("{url} refused the items ({status} {kind}): {detail}{}", remedy(*status))]
    Refused {
        /// The service.
        url: String,
        /// HTTP.
        status: u16,
        /// The name of the problem.
        kind: String,
        /// The service's own words.
        detail: String,
    },
    /// Something else answers there.
    #[error("{url} answered {got} where it should have counted the items; is this a tonnage service?")]
    NoService {
        /// The address.
        url: String,
        /// What came.
        got: String,
    },
}

fn remedy(status: u16) -> &'static str {
    match status {
        401 | 403 => "; give a key that may write, of [keys] of the service",
        413 => "; raise limits.list and limits.body_bytes of the service",
        429 | 503 => "; try again when it has recovered",
        _ => "",
    }
}

/// A new item as it is sent.
#[derive(Clone, Debug, Serialize)]
pub struct SentItem<'a> {
    /// Its id.
    #[serde(serialize_with = "id")]
    pub item_id: Id<'a>,
    /// Its vector, as the trainer left it.
    pub vector: &'a [f32],
    /// Its tags.
    pub tags: Vec<&'a str>,
    /// Its numbers, by field.
    #[serde(serialize_with = "by_field")]
    pub numbers: Vec<(&'a str, f64)>,
}

fn id<S: serde::Serializer>(id: &Id, to: S) -> Result<S::Ok, S::Error> {
    match id {
        Id::U64(number) => to.serialize_u64(*number),
        Id::Text(text) => to.serialize_str(text),
    }
}

fn by_field<S: serde::Serializer>(numbers: &[(&str, f64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(numbers.iter().copied())
}

/// Items that are sent together.
#[derive(Debug)]
pub struct Batch {
    release: Option<String>,
    items: usize,
    body: Vec<u8>,
}

impl Batch {
    /// An empty one, of vectors of that release where it is known which.
    pub fn new(release: Option<String>) -> Self {
        Self { release, items: 0, body: Vec::new() }
    }

    /// Adds an item; says whether the batch is to be sent before the next.
    pub fn push(&mut self, item: &SentItem<'_>) -> Result<bool, serde_json::Error> {
        if self.items > 0 {
            self.body.push(b',');
        }
        serde_json::to_writer(&mut self.body, item)?;
        self.items += 1;
        Ok(self.items >= BATCH_ITEMS || self.body.len() >= BATCH_BYTES)
    }

    /// The request's body, and begins anew. `None` when there are no items.
    pub fn take(&mut self) -> Result<Option<Bytes>, serde_json::Error> {
        if self.items == 0 {
            return Ok(None);
        }
        let mut body = b"{\"release\":".to_vec();
        serde_json::to_writer(&mut body, &self.release)?;
        body.extend_from_slice(b",\"items\":[");
        body.append(&mut self.body);
        body.extend_from_slice(b"]}");
        self.items = 0;
        Ok(Some(body.into()))
    }
}

/// A service that runs somewhere.
pub struct Remote {
    url: String,
    host: String,
    port: u16,
    target: Uri,
    authority: HeaderValue,
    key: Option<HeaderValue>,
    tls: Option<TlsConnector>,
}

/// What a service says of a problem.
#[derive(Debug, Default, Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

/// What it says when it has taken something.
#[derive(Debug, Deserialize)]
struct Taken {
    accepted: usize,
}

impl Remote {
    /// The service at `http://host:port`, or at `https://` when the certificates of `trusted` (PEM) are to be trusted:
    /// there are no others.
    pub fn new(url: &str, key: Option<&str>, trusted: Option<&Path>) -> Result<Self, ClientError> {
        let bad = |why| ClientError::BadUrl { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(bad("expected a scheme and a host"));
        };
        if authority.as_str().contains('@') {
            return Err(ClientError::BadUrl { url: authority.host().to_owned(), why: "a key does not belong into it" });
        }
        let (tls, usual) = match (scheme, trusted) {
            ("http", _) => (None, 80),
            ("https", Some(trusted)) => (Some(tls::connector(trusted)?), 443),
            ("https", None) => return Err(bad("name a file with the certificates to trust")),
            _ => return Err(bad("expected http or https")),
        };
        let target = format!("{}/v1/items", uri.path().trim_end_matches('/'));
        let header = |text: &str| HeaderValue::from_str(text).map_err(|_| ClientError::BadKey);
        Ok(Self {
            url: url.to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(usual),
            target: target.parse().map_err(|_| bad("its path cannot be read"))?,
            authority: header(authority.as_str())?,
            key: key.map(|key| header(&format!("Bearer {key}"))).transpose()?,
            tls,
        })
    }

    /// Its address, as given.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a batch; says how many it took. One that is busy, or not ready, is asked again for a while.
    pub async fn put(&self, body: &Bytes) -> Result<usize, ClientError> {
        let mut tries = 1;
        loop {
            match self.once(body.clone()).await {
                Err(ClientError::Refused { status: 429 | 503, .. }) if tries < TRIES => tries += 1,
                done => return done,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn once(&self, body: Bytes) -> Result<usize, ClientError> {
        let late = || ClientError::TimedOut { url: self.url.clone(), limit_s: PATIENCE.as_secs() };
        let (status, answer) = tokio::time::timeout(PATIENCE, self.exchange(body)).await.map_err(|_| late())??;
        let url = self.url.clone();
        if status == StatusCode::OK
            && let Ok(Taken { accepted }) = serde_json::from_slice(&answer)
        {
            return Ok(accepted);
        }
        match serde_json::from_slice::<Said>(&answer) {
            Ok(Said { kind, detail }) if !status.is_success() => {
                let kind = kind.rsplit(':').next().unwrap_or_default().to_owned();
                Err(ClientError::Refused { url, status: status.as_u16(), kind, detail })
            }
            _ => Err(ClientError::NoService { url, got: status.to_string() }),
        }
    }

    /// A connection for every batch: one that is kept may be closed by a service that is about to stop.
    async fn exchange(&self, body: Bytes) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| self.away(&e))?;
        let Some(tls) = &self.tls else { return self.ask(stream, body).await };
        let name = ServerName::try_from(self.host.clone()).map_err(|e| self.away(&e))?;
        self.ask(tls.connect(name, stream).await.map_err(|e| self.away(&e))?, body).await
    }

    async fn ask<S>(&self, stream: S, body: Bytes) -> Result<(StatusCode, Bytes), ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut request = Request::put(self.target.clone())
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key);
        }
        let request = request.body(Body::from(body)).map_err(|e| self.away(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.away(&e))?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|e| self.away(&e))?;
        let status = response.status();
        let answer = to_bytes(Body::new(response.into_body()), LONGEST_ANSWER).await.map_err(|e| self.away(&e))?;
        connection.abort();
        Ok((status, answer))
    }

    /// The innermost cause says most: what is around it names a step of ours.
    fn away(&self, error: &dyn std::error::Error) -> ClientError {
        let mut cause = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        ClientError::Unreachable { url: self.url.clone(), detail: cause.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_their_bodies_are_json() {
        let item =
            |vector| SentItem { item_id: Id::Text("a\"b"), vector, tags: vec!["x"], numbers: vec![("price", 0.5)] };
        let mut batch = Batch::new(Some("monday".to_owned()));
        assert!(batch.take().unwrap().is_none());
        assert!((1..BATCH_ITEMS).all(|_| !batch.push(&item(&[0.1])).unwrap()) && batch.push(&item(&[0.1])).unwrap());
        let document: serde_json::Value = serde_json::from_slice(&batch.take().unwrap().unwrap()).unwrap();
        assert_eq!(document["items"].as_array().unwrap().len(), BATCH_ITEMS);
        let first = serde_json::json!({"item_id": "a\"b", "vector": [0.1], "tags": ["x"], "numbers": {"price": 0.5}});
        assert_eq!((&document["release"], &document["items"][0]), (&"monday".into(), &first));
        assert!(batch.push(&item(&vec![0.123_456_7; BATCH_BYTES / 4])).unwrap(), "and by bytes");
        assert!(batch.take().unwrap().is_some() && batch.take().unwrap().is_none());
    }

    #[test]
    fn addresses_are_read_and_others_refused() {
        let of = |url| Remote::new(url, None, None).map(|remote| (remote.host, remote.port, remote.target.to_string()));
        assert_eq!(of("http://host").unwrap(), ("host".to_owned(), 80, "/v1/items".to_owned()));
        assert_eq!(of("http://[::1]:8080/items/").unwrap(), ("::1".to_owned(), 8080, "/items/v1/items".to_owned()));
        for url in ["host:8080", "redis://host", "http://", "", "https://host"] {
            assert!(matches!(of(url), Err(ClientError::BadUrl { .. })), "{url}");
        }
        let secret = of("http://user:s3cret@host").unwrap_err().to_string();
        assert!(!secret.contains("s3cret"), "{secret}");
        assert!(matches!(Remote::new("http://host", Some("a\nb"), None), Err(ClientError::BadKey)));
    }
}
