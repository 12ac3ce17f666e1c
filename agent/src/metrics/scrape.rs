//! One scrape: a request to a target, and its page.
//!
//! A target is a tenant's: it may hang, drip, send without end, or redirect. All of a scrape happens within one timeout
//! and one limit of bytes, compressed or not; redirects are answers like any other wrong status.

mod tls;

pub use tls::any_certificate;

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::write::MultiGzDecoder;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sidelight_contract::annotations::Scheme;
use tokio::net::TcpStream;

use crate::metrics::discover::Target;
use crate::{cluster, delivery};

/// What we read, in the order in which we like it.
const TEXTS: &str =
    "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.8,*/*;q=0.1";
const WITH_PROTOBUF: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
     application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.8,*/*;q=0.1";
/// The target is on this node: compressing costs it more than the bytes cost anybody.
const ACCEPTED_ENCODINGS: &str = "identity, gzip;q=0.5";

/// Bytes that a connection reads at once. It keeps the buffer between scrapes, and there are as many as there are targets.
const READ_BUFFER: usize = 16 << 10;

/// A connection to one target, kept from scrape to scrape.
#[derive(Debug)]
pub struct Client {
    timeout: Duration,
    /// Bytes of a page, before and after it is unpacked.
    body_limit: usize,
    tls: Arc<rustls::ClientConfig>,
    /// It says who asks: to the kubelet, and to nobody else.
    shows_token: bool,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

/// Which pages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// Text, of either format.
    Text,
    /// Native histograms, which only protobuf has.
    WithHistograms,
}

/// Why there is no page. The text is for the pod's owner.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// There is nothing to show who asks.
    #[error("{0}")]
    Credentials(String),
    /// Nobody listens, or nobody answers.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The connection ended, or what came is no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// Not 200.
    #[error("the answer is {0}; 200 is expected, and redirects are not followed")]
    Status(StatusCode),
    /// It took too long.
    #[error("no whole page within the timeout of {}", Seconds(*.0))]
    Timeout(Duration),
    /// The page is too long.
    #[error("the page is longer than metrics.body_limit ({0} bytes)")]
    TooLong(usize),
    /// There is no memory for it just now.
    #[error(
        "the pages of this namespace, or of all, that are on their way together have reached their limit"
    )]
    NoRoom,
    /// It is packed in a way that was not asked for, or the packing is damaged.
    #[error("the page cannot be unpacked: {0}")]
    Encoding(String),
}

struct Seconds(Duration);

/// What a page may take of memory that it shares with others.
pub trait Room {
    /// Takes so many bytes more; false when there are not so many.
    fn take(&mut self, bytes: usize) -> bool;
}

/// A page on its way.
enum Arriving<'a> {
    Plain(Limited<'a>),
    Gzip(Box<MultiGzDecoder<Limited<'a>>>),
}

/// A page that grows no longer than its limit.
struct Limited<'a> {
    page: &'a mut Vec<u8>,
    limit: usize,
    room: &'a mut (dyn Room + Send),
}

// === impl Client ===

impl Client {
    /// Not yet connected.
    pub fn new(timeout: Duration, body_limit: usize, tls: Arc<rustls::ClientConfig>) -> Self {
        Client { timeout, body_limit, tls, shows_token: false, connection: None }
    }

    /// From now on it waits no longer than that.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// One that says who asks: for the kubelet, at the address that the API server gives for the node.
    #[must_use]
    pub fn with_token(self) -> Self {
        Client { shows_token: true, ..self }
    }

    /// Reads the target's page into `page`, which is emptied before, as far as there is room; gives its content type.
    ///
    /// # Errors
    /// Why there is none; the connection is given up then.
    pub async fn scrape(
        &mut self,
        target: &Target,
        formats: Formats,
        page: &mut Vec<u8>,
        room: &mut (dyn Room + Send),
    ) -> Result<Option<String>, ScrapeError> {
        page.clear();
        let timeout = self.timeout.min(target.interval);
        let result = tokio::time::timeout(timeout, self.fetch(target, formats, timeout, page, room)).await;
        let result = result.unwrap_or(Err(ScrapeError::Timeout(timeout)));
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn fetch(
        &mut self,
        target: &Target,
        formats: Formats,
        timeout: Duration,
        page: &mut Vec<u8>,
        room: &mut (dyn Room + Send),
    ) -> Result<Option<String>, ScrapeError> {
        let kept = self.connection.take();
        let response = match kept {
            Some(connection) => match self.ask(connection, target, formats, timeout).await {
                Ok(response) => response,
                // Servers close idle connections, and may do so just now.
                Err(error) if is_closed(&error) => self.ask_anew(target, formats, timeout).await?,
                Err(error) => return Err(error),
            },
            None => self.ask_anew(target, formats, timeout).await?,
        };
        if response.status() != StatusCode::OK {
            return Err(ScrapeError::Status(response.status()));
        }
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let content_type = text(CONTENT_TYPE).map(str::to_owned);
        let page = Limited { page, limit: self.body_limit, room };
        let page = match text(CONTENT_ENCODING) {
            None | Some("" | "identity") => Arriving::Plain(page),
            Some("gzip" | "x-gzip") => Arriving::Gzip(Box::new(MultiGzDecoder::new(page))),
            Some(other) => return Err(ScrapeError::Encoding(format!("{other} was not asked for"))),
        };
        read(response.into_body(), page, self.body_limit).await?;
        Ok(content_type)
    }

    async fn ask_anew(
        &mut self,
        target: &Target,
        formats: Formats,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ScrapeError> {
        let stream = TcpStream::connect(target.address).await.map_err(ScrapeError::Connect)?;
        stream.set_nodelay(true).map_err(ScrapeError::Connect)?;
        let connection = match target.scheme {
            Scheme::Http => connected(stream).await?,
            Scheme::Https => {
                let name = target.address.ip().into();
                let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
                connected(connector.connect(name, stream).await.map_err(ScrapeError::Connect)?).await?
            }
        };
        self.ask(connection, target, formats, timeout).await
    }

    async fn ask(
        &mut self,
        mut connection: SendRequest<Empty<Bytes>>,
        target: &Target,
        formats: Formats,
        timeout: Duration,
    ) -> Result<Response<Incoming>, ScrapeError> {
        let mut request = Request::get(&target.key.path)
            .header(HOST, target.address.to_string())
            .header(ACCEPT, if formats == Formats::Text { TEXTS } else { WITH_PROTOBUF })
            .header(ACCEPT_ENCODING, ACCEPTED_ENCODINGS)
            .header(USER_AGENT, delivery::USER_AGENT)
            .header("X-Prometheus-Scrape-Timeout-Seconds", Seconds(timeout).to_string())
            .body(Empty::new())
            .map_err(|error| ScrapeError::Encoding(error.to_string()))?;
        if self.shows_token {
            let token = cluster::token().await.map_err(ScrapeError::Credentials)?;
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            let mut bearer = bearer
                .map_err(|_| ScrapeError::Credentials("the token cannot stand in a header".to_owned()))?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        self.connection = Some(connection);
        Ok(response)
    }
}

async fn connected(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Empty<Bytes>>, ScrapeError> {
    let (sender, connection) =
        Builder::new().max_buf_size(READ_BUFFER).handshake(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped, or the other side closes.
    tokio::spawn(connection);
    Ok(sender)
}

/// Whether a request went into a connection that was no more.
fn is_closed(error: &ScrapeError) -> bool {
    matches!(error, ScrapeError::Http(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message())
}

async fn read(mut body: Incoming, mut page: Arriving<'_>, limit: usize) -> Result<(), ScrapeError> {
    let mut arrived = 0;
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame?.into_data() else { continue };
        arrived += bytes.len();
        if arrived > limit {
            return Err(ScrapeError::TooLong(limit));
        }
        page.add(&bytes).map_err(|error| unusable(&error, limit))?;
    }
    page.finish().map_err(|error| unusable(&error, limit))
}

fn unusable(error: &io::Error, limit: usize) -> ScrapeError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => ScrapeError::TooLong(limit),
        io::ErrorKind::OutOfMemory => ScrapeError::NoRoom,
        _ => ScrapeError::Encoding(error.to_string()),
    }
}

// === impl Arriving ===

impl Arriving<'_> {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Arriving::Plain(page) => page.write_all(bytes),
            Arriving::Gzip(decoder) => decoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Arriving::Plain(_) => Ok(()),
            Arriving::Gzip(mut decoder) => decoder.try_finish(),
        }
    }
}

// === impl Limited ===

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.page.len() + bytes.len() > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if !self.room.take(bytes.len()) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.page.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Seconds ===

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
