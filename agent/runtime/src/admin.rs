//! A small HTTP server for probes, metrics and status, on a thread of its own: it answers when everything else is busy.
//!
//! HTTP/1 only, GET and HEAD only, one request a connection, no TLS. Handlers are plain functions that answer from memory; a slow one
//! keeps the others waiting.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::Method;
pub use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// Many times what probes, scrapers and a few people need at once.
const MAX_CONNECTIONS: usize = 64;
/// A request's head is one packet; this is patience for a bad network.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From accept to close: long enough for a page of some megabytes over a port-forward.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// What a connection may buffer of a request; longer heads are refused.
const MAX_BUFFER: usize = 16 * 1024;
/// After a failed accept, most often for want of descriptors, which come back when others close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers every request; unknown paths with [`Response::not_found`].
pub type Handler = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

/// A listener that is bound and not yet served. Connections wait in its backlog.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

/// A server that runs. It stops, and its thread ends, when this is dropped.
#[derive(Debug)]
pub struct Handle {
    /// The server stops when this is gone.
    running: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// A GET or HEAD request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As it was sent, not decoded; begins with `/`.
    pub path: String,
    /// The query's pairs in their order, decoded.
    pub query: Vec<(String, String)>,
}

/// What a handler answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 unless [`Response::with_status`] says otherwise.
    pub status: StatusCode,
    /// With charset where it is text.
    pub content_type: &'static str,
    /// Left out by the server when the request was HEAD.
    pub body: Vec<u8>,
}

// === impl Server ===

impl Server {
    /// Binds `addr`, `HOST:PORT`. `[::]:PORT` is for both IP versions, and falls back to `0.0.0.0:PORT` where IPv6 is off.
    ///
    /// # Errors
    /// When the address is no address or cannot be bound; the text names it.
    pub fn bind(addr: &str) -> io::Result<Server> {
        Ok(Server { listener: listen(addr)? })
    }

    /// Where it listens; tells the port where 0 was asked for.
    ///
    /// # Errors
    /// As the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on a new thread called `name`.
    ///
    /// # Errors
    /// When there is no thread or no descriptor to be had.
    pub fn spawn(self, name: &str, handler: Handler) -> io::Result<Handle> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _within = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let (running, stop) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || runtime.block_on(serve(&listener, &handler, stop)))?;
        Ok(Handle { running: Some(running), thread: Some(thread) })
    }
}

/// A listener that does not block; `addr` as [`Server::bind`] has it.
///
/// # Errors
/// As there.
pub fn listen(addr: &str) -> io::Result<TcpListener> {
    let listener = match addr.parse() {
        Ok(addr) => bind_with_fallback(addr, TcpListener::bind),
        Err(_) => TcpListener::bind(addr),
    };
    listener
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}")))
}

fn bind_with_fallback<L>(addr: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<L>) -> io::Result<L> {
    match bind(addr) {
        // Switched off, IPv6 fails in one of several ways; these two have nothing to do with it.
        Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
            if addr.ip() == Ipv6Addr::UNSPECIFIED {
                bind((Ipv4Addr::UNSPECIFIED, addr.port()).into())
            } else {
                Err(error)
            }
        }
        result => result,
    }
}

async fn serve(
    listener: &tokio::net::TcpListener,
    handler: &Handler,
    mut stop: oneshot::Receiver<Infallible>,
) {
    let mut connections = Connections::default();
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.admit(tokio::spawn(serve_connection(stream, handler.clone())));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Those being served, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<tokio::task::JoinHandle<()>>);

impl Connections {
    /// Adds one. Above [`MAX_CONNECTIONS`] the oldest is closed: whoever holds connections open must not keep the probes out.
    fn admit(&mut self, connection: tokio::task::JoinHandle<()>) {
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() == MAX_CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection);
    }
}

async fn serve_connection(stream: TcpStream, handler: Handler) {
    let service = service_fn(move |request| {
        let response = respond(&request, &handler);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection failed"),
        Err(_) => tracing::debug!(limit = ?CONNECTION_TIMEOUT, "connection took too long"),
    }
}

fn respond(request: &hyper::Request<Incoming>, handler: &Handler) -> hyper::Response<Full<Bytes>> {
    let allowed = [Method::GET, Method::HEAD].contains(request.method());
    let response = if allowed {
        handler(&Request::new(request.uri()))
    } else {
        Response::text("only GET and HEAD\n").with_status(StatusCode::METHOD_NOT_ALLOWED)
    };
    let mut answer = hyper::Response::new(Full::from(response.body));
    *answer.status_mut() = response.status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(response.content_type));
    // Status pages quote what strangers wrote: no browser is to guess a type that runs it.
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !allowed {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    answer
}

// === impl Handle ===

impl Handle {
    /// Stops the server and waits for its thread. Answers on their way are cut off.
    pub fn stop(self) {}
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.running = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the server's thread has panicked");
        }
    }
}

// === impl Request ===

impl Request {
    fn new(uri: &hyper::Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        Request {
            path: uri.path().to_owned(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        }
    }

    /// The first value of `name` in the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

// === impl Response ===

impl Response {
    /// Status 200.
    pub fn new(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Response { status: StatusCode::OK, content_type, body: body.into() }
    }

    /// Plain text.
    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Response::new("text/plain; charset=utf-8", body)
    }

    /// JSON, already written.
    pub fn json(body: impl Into<Vec<u8>>) -> Self {
        Response::new("application/json", body)
    }

    /// HTML.
    pub fn html(body: impl Into<Vec<u8>>) -> Self {
        Response::new("text/html; charset=utf-8", body)
    }

    /// Status 404.
    pub fn not_found() -> Self {
        Response::text("not found\n").with_status(StatusCode::NOT_FOUND)
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

#[cfg(test)]
mod tests;
