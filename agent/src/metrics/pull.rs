//! Scraping by others: a list of the node's targets as Prometheus's HTTP service discovery has it, and for each its page, asked
//! for when it is, with the labels and rules of the operator.

mod access;
mod page;
mod proxy;
mod tls;

pub use tls::server_config;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::cluster::Store;
use crate::metrics::exposition::Dialect;
use crate::metrics::pull::access::Access;
use crate::metrics::pull::proxy::Proxies;
use crate::metrics::scraping::{Shared, stopped};

/// Where Prometheus finds the targets, and below which they are.
const TARGETS: &str = "/sd/prometheus";
const PAGES: &str = "/proxy/";
/// Many times what a pair of Prometheus needs.
const MAX_CONNECTIONS: usize = 256;
/// What a connection may buffer of a request.
const MAX_BUFFER: usize = 16 << 10;
/// For a request's head, also between two of one connection: longer than most intervals.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// For the beginning of TLS.
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection ends with the answer that it has after so long, and so long after that it is cut: whoever reads slowly holds a
/// page's memory.
const MAX_AGE: Duration = Duration::from_secs(300);
const LAST_ANSWER: Duration = Duration::from_secs(60);
/// For answers on their way when the server ends.
const END: Duration = Duration::from_millis(500);
/// After a failure to listen or to accept.
const PAUSE: Duration = Duration::from_secs(1);
const TEXT: &str = "text/plain; charset=utf-8";

/// What every connection needs.
struct Server {
    shared: Arc<Shared>,
    pods: Store,
    access: Access,
    proxies: Proxies,
    tls: Option<TlsAcceptor>,
}

/// The connections, the oldest first, and of each whether a request of it was let in.
#[derive(Default)]
struct Connections {
    set: JoinSet<()>,
    all: VecDeque<(AbortHandle, Arc<AtomicBool>)>,
}

/// One group of the list (`prometheus.io/docs/prometheus/latest/http_sd`).
#[derive(Serialize)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// Serves `metrics.pull` until `stop` has a deadline.
pub async fn run(shared: Arc<Shared>, pods: Store, mut stop: watch::Receiver<Option<Instant>>) {
    let pull = &shared.config.metrics.pull;
    // It was tried when the config was read.
    let tls = match pull.tls.as_ref().map(server_config).transpose() {
        Ok(tls) => tls.map(TlsAcceptor::from),
        Err(error) => return tracing::error!(%error, "metrics.pull.tls cannot be used; nobody can scrape"),
    };
    let listener = tokio::select! {
        listener = listen(&pull.listen) => listener,
        () = stopped(&mut stop) => return,
    };
    let (access, proxies) = (Access::new(pull.auth), Proxies::new(shared.clone()));
    let server = Arc::new(Server { shared: shared.clone(), pods, access, proxies, tls });
    let (mut connections, mut changes) = (Connections::default(), server.pods.changes());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => connections.admit(&server, stream, stop.clone()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(PAUSE).await;
                }
            },
            Some(_) = connections.set.join_next() => {}
            Ok(()) = changes.changed() => server.proxies.forget_others(&server.pods),
            () = stopped(&mut stop) => break,
        }
    }
    let _ = timeout(END, async { while connections.set.join_next().await.is_some() {} }).await;
}

/// A port that is taken may be free again in a moment; and scraping by others is no reason to end.
async fn listen(address: &str) -> TcpListener {
    let mut is_said = false;
    loop {
        match sidelight_runtime::admin::listen(address).and_then(TcpListener::from_std) {
            Ok(listener) => {
                let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
                tracing::info!(pull = address, "others can scrape");
                return listener;
            }
            Err(error) => {
                if !std::mem::replace(&mut is_said, true) {
                    tracing::error!(%error, "metrics.pull.listen: nobody can scrape; trying again every second");
                }
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers the requests of a connection for as long as it may last.
async fn serve<F: Future<Output = Response<Full<Bytes>>>>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request<Incoming>) -> F,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let service = service_fn(|request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(MAX_AGE) => {}
        () = stopped(&mut stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(LAST_ANSWER, connection).await;
}

// === impl Connections ===

impl Connections {
    /// Whoever holds connections open must not keep the others out: above the limit one goes, first of those that nobody was
    /// let in by.
    fn admit(&mut self, server: &Arc<Server>, stream: TcpStream, stop: watch::Receiver<Option<Instant>>) {
        self.all.retain(|(connection, _)| !connection.is_finished());
        if self.all.len() >= MAX_CONNECTIONS {
            let stranger = self.all.iter().position(|(_, is_known)| !is_known.load(Ordering::Relaxed));
            let one = self.all.remove(stranger.unwrap_or(0));
            one.iter().for_each(|(connection, _)| connection.abort());
        }
        let is_known = Arc::<AtomicBool>::default();
        let connection = server.clone().connection(stream, is_known.clone(), stop);
        self.all.push_back((self.set.spawn(connection), is_known));
    }
}

// === impl Server ===

impl Server {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        is_known: Arc<AtomicBool>,
        stop: watch::Receiver<Option<Instant>>,
    ) {
        let Ok(local) = stream.local_addr() else { return };
        // A socket for both families calls an IPv4 address by its IPv6 name.
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let _ = stream.set_nodelay(true);
        match self.tls.clone() {
            None => self.requests(stream, local, &is_known, stop).await,
            Some(tls) => match timeout(TLS_TIMEOUT, tls.accept(stream)).await {
                Ok(Ok(stream)) => self.requests(stream, local, &is_known, stop).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS cannot begin"),
                Err(_) => {}
            },
        }
    }

    async fn requests(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        local: SocketAddr,
        is_known: &AtomicBool,
        stop: watch::Receiver<Option<Instant>>,
    ) {
        let answer = |request| {
            let server = self.clone();
            async move { server.answer(&request, local, is_known).await }
        };
        serve(stream, answer, stop).await;
    }

    async fn answer(
        &self,
        request: &Request<Incoming>,
        local: SocketAddr,
        is_known: &AtomicBool,
    ) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let path = request.uri().path();
        let kind = match path {
            TARGETS => TARGETS,
            _ if path.starts_with(PAGES) => PAGES,
            _ => return text(StatusCode::NOT_FOUND, "not found\n"),
        };
        if let Err((status, reason)) = self.access.admit(request.headers(), kind).await {
            return text(status, reason + "\n");
        }
        is_known.store(true, Ordering::Relaxed);
        if !self.pods.synced() {
            // Prometheus goes on with the targets that it has.
            return text(StatusCode::SERVICE_UNAVAILABLE, "the pods of the node are not known yet\n");
        }
        if kind == TARGETS {
            let groups = serde_json::to_vec(&self.groups(local)).unwrap_or_default();
            return answer(StatusCode::OK, "application/json", groups);
        }
        let asked = request.uri().path_and_query().map_or("", |path| path.as_str());
        let Some(target) = proxy::target_of(&self.pods, &self.shared.config, &asked[PAGES.len()..]) else {
            return text(StatusCode::NOT_FOUND, "no such target: see `sidelight targets`\n");
        };
        let takes = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
        let wanted =
            if takes.contains("application/openmetrics-text") { Dialect::OpenMetrics } else { Dialect::Text };
        match self.proxies.page(target, wanted, proxy::timeout_of(request.headers())).await {
            Ok((page, Dialect::Text)) => {
                answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
            }
            Ok((page, Dialect::OpenMetrics)) => {
                answer(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", page)
            }
            Err(reason) => text(StatusCode::BAD_GATEWAY, reason + "\n"),
        }
    }

    /// The targets, each at the address by which this process was reached: nobody else can serve it.
    fn groups(&self, local: SocketAddr) -> Vec<Group> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut targets = proxy::targets_of(&self.pods, &self.shared.config);
        targets.sort_by(|one, other| one.key.cmp(&other.key));
        let group = |target: &proxy::Target| {
            let key = &target.key;
            let (path, query) = key.path.split_once('?').unwrap_or((&key.path, ""));
            // Scrapers write it with their own escapes.
            let path = percent_decode_str(path).decode_utf8_lossy();
            let mut labels: BTreeMap<String, String> = target.labels.iter().cloned().collect();
            labels.insert("__scheme__".to_owned(), scheme.to_owned());
            labels.insert("__metrics_path__".to_owned(), format!("{PAGES}{}/{}{path}", key.uid, key.port));
            for (name, value) in form_urlencoded::parse(query.as_bytes()) {
                // One label that is none, and Prometheus 2 takes nothing of the list.
                if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !value.is_empty()
                {
                    labels.entry(format!("__param_{name}")).or_insert_with(|| value.into_owned());
                }
            }
            Group { targets: [local.to_string()], labels }
        };
        targets.iter().map(group).collect()
    }
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, TEXT, text)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_read_his_answer_is_cut() {
        let (mut client, server) = duplex(100);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (_stop, stop) = watch::channel(None);
        let begun = Instant::now();
        serve(server, |_| ready(text(StatusCode::OK, "x".repeat(1_000))), stop).await;
        assert_eq!(begun.elapsed(), MAX_AGE + LAST_ANSWER);
    }
}
