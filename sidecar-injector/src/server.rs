//! HTTPS for the API server: limits on everything that a stranger could make long, and connections that do not last.
//!
//! Source: `pkg/util/webhook/client.go` of `k8s.io/apiserver`: POST over HTTP/1.1, connections kept for each Service. Before
//! Kubernetes 1.37 a new replica gets no traffic until old connections end; so they are ended by an answer that says so,
//! never while idle: a request on its way would be lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::webhook::Webhook;

/// The path of the webhook; a query behind it, the API server's timeout, does not matter.
pub const PATH: &str = "/mutate";
/// The longest review: the API server takes objects of 3 MiB, and writes them anew around what it adds.
const MAX_BODY: usize = 8 << 20;
/// Bodies in memory, all connections together, in units: who wants more waits, within the deadline.
const ROOM: usize = 2 * MAX_BODY / UNIT as usize;
const UNIT: u64 = 1024;
/// From the head of a request to its answer; webhooks have no more than that by our chart.
const DEADLINE: Duration = Duration::from_secs(5);
/// From accept to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle: longer than the 90 s after which the API server ends it itself.
const IDLE: Duration = Duration::from_secs(180);
/// The answer after this age ends its connection.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Many times what API servers need at once; above, the one is closed that has not been used for the longest.
const MAX_CONNECTIONS: usize = 512;
/// After a failed accept, most often for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
struct Shared {
    webhook: Arc<Webhook>,
    /// Answers end their connections from now on.
    draining: AtomicBool,
    begun: Instant,
    room: Semaphore,
}

/// When a connection was last used: 0 for never, then milliseconds since the beginning; `BUSY` while it is.
#[derive(Clone, Default)]
struct LastUse(Arc<AtomicU64>);

const BUSY: u64 = u64::MAX;

/// Connections in the order in which they came.
#[derive(Default)]
struct Connections(Vec<(LastUse, JoinHandle<()>)>);

/// Serves until `stop` says so; from then on connections end with their next answer, and after `drain` all of them do.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    webhook: Arc<Webhook>,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let shared = Arc::new(Shared {
        webhook,
        draining: AtomicBool::new(false),
        begun: Instant::now(),
        room: Semaphore::new(ROOM),
    });
    let graceful = GracefulShutdown::new();
    let mut connections = Connections::default();
    let mut end = std::pin::pin!(async {
        let _ = stop.wait_for(|stop| *stop).await;
        shared.draining.store(true, Ordering::Relaxed);
        sleep(drain).await;
    });
    loop {
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let last_use = LastUse::default();
                let served = connection(
                    stream,
                    acceptor.clone(),
                    shared.clone(),
                    last_use.clone(),
                    graceful.watcher(),
                );
                connections.add(last_use, tokio::spawn(served));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // What is being answered gets its answer; by now nobody calls this replica any more, and what is idle ends.
    let _ = timeout(DEADLINE, graceful.shutdown()).await;
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    shared: Arc<Shared>,
    last_use: LastUse,
    watcher: Watcher,
) {
    // An answer is one small write: it must not wait for another.
    let _ = stream.set_nodelay(true);
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, shared, last_use, watcher).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS connection"),
        Err(_) => tracing::debug!(limit = ?HANDSHAKE, "the TLS handshake took too long"),
    }
}

/// Answers the requests of a connection.
async fn requests(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
    last_use: LastUse,
    watcher: Watcher,
) {
    let begun = Instant::now();
    let service = service_fn(move |request| {
        let (shared, last_use) = (shared.clone(), last_use.clone());
        async move {
            last_use.begin();
            let mut response = respond(request, &shared).await;
            last_use.end(shared.begun);
            if begun.elapsed() >= MAX_AGE || shared.draining.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(serving).await {
        tracing::debug!(%error, "a connection failed");
    }
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let webhook = &shared.webhook;
    let answer = match timeout(DEADLINE, body(request, &shared.room)).await {
        Ok(Ok((body, _room))) => webhook.answer(&body),
        Ok(Err(refusal)) => Err(refusal),
        Err(_) => {
            Err((StatusCode::REQUEST_TIMEOUT, format!("the review took longer than {DEADLINE:?} to arrive")))
        }
    };
    match answer {
        Ok(answer) => {
            let mut response = Response::new(Full::from(answer));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err((status, error)) => {
            tracing::warn!(status = status.as_u16(), error, "a request is not answered with a review");
            webhook.metrics.rejected.with_label_values(&[status.as_str()]).inc();
            let mut response = Response::new(Full::from(format!("{error}\n")));
            *response.status_mut() = status;
            // What is unread of the body would be taken for the next request.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

/// The body of a request that may have one, with the room that it takes.
async fn body<'a>(
    request: Request<Incoming>,
    room: &'a Semaphore,
) -> Result<(Bytes, SemaphorePermit<'a>), (StatusCode, String)> {
    let refuse = |status: StatusCode, text: &str| Err((status, text.to_owned()));
    if request.uri().path() != PATH {
        return refuse(StatusCode::NOT_FOUND, "only /mutate is here");
    }
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only POST");
    }
    let media_type =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some("application/json") {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "only application/json");
    }
    let too_long = || format!("the review is longer than {MAX_BODY} bytes");
    if request.body().size_hint().lower() > MAX_BODY as u64 {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, too_long()));
    }
    let bytes = request.body().size_hint().exact().unwrap_or(MAX_BODY as u64);
    let permits = u32::try_from(bytes / UNIT + 1).unwrap_or(u32::MAX);
    let Ok(taken) = room.acquire_many(permits).await else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    };
    match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => Ok((body.to_bytes(), taken)),
        Err(error) if error.is::<LengthLimitError>() => Err((StatusCode::PAYLOAD_TOO_LARGE, too_long())),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("the review did not arrive whole: {error}"))),
    }
}

// === impl LastUse ===

impl LastUse {
    fn begin(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    fn end(&self, beginning: Instant) {
        let millis = u64::try_from(beginning.elapsed().as_millis()).unwrap_or(BUSY);
        self.0.store(millis.max(1), Ordering::Relaxed);
    }
}

// === impl Connections ===

impl Connections {
    /// One more, for which another one may have to go: of those that were never used the oldest, before all that were.
    fn add(&mut self, last_use: LastUse, task: JoinHandle<()>) {
        self.0.retain(|(_, task)| !task.is_finished());
        if self.0.len() == MAX_CONNECTIONS {
            let uses = self.0.iter().map(|(last_use, _)| last_use.0.load(Ordering::Relaxed));
            if let Some((longest_unused, _)) = uses.enumerate().min_by_key(|(_, last_use)| *last_use) {
                self.0.remove(longest_unused).1.abort();
            }
        }
        self.0.push((last_use, task));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;
    use crate::config::Config;
    use crate::webhook::tests::webhook;

    fn shared() -> Arc<Shared> {
        let webhook = Arc::new(webhook(Config::default()));
        Arc::new(Shared {
            webhook,
            draining: AtomicBool::new(false),
            begun: Instant::now(),
            room: Semaphore::new(ROOM),
        })
    }

    /// The head of the answer to a review of something that is no pod.
    async fn ask(client: &mut DuplexStream) -> String {
        let body = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"kind":"Node"},"operation":"CREATE"}}"#;
        let head = "POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length:";
        client.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = client.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..read].to_vec()).unwrap().to_lowercase()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_the_first_answer_after_its_age() {
        let (mut client, server) = tokio::io::duplex(64 << 10);
        let graceful = GracefulShutdown::new();
        tokio::spawn(requests(server, shared(), LastUse::default(), graceful.watcher()));
        for _ in 0..2 {
            let answer = ask(&mut client).await;
            assert!(answer.starts_with("http/1.1 200") && !answer.contains("connection: close"), "{answer}");
            tokio::time::advance(MAX_AGE / 2 - Duration::from_millis(1)).await;
        }
        tokio::time::advance(Duration::from_millis(2)).await;
        let answer = ask(&mut client).await;
        assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0, "and it does end");
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_goes_that_has_not_been_used_for_the_longest() {
        let mut connections = Connections::default();
        let beginning = Instant::now();
        let uses: Vec<LastUse> = (0..MAX_CONNECTIONS).map(|_| LastUse::default()).collect();
        for last_use in &uses {
            tokio::time::advance(Duration::from_millis(10)).await;
            last_use.end(beginning);
            connections.add(last_use.clone(), tokio::spawn(std::future::pending()));
        }
        uses[0].end(beginning);
        uses[1].begin();
        let never = LastUse::default();
        for _ in 0..2 {
            connections.add(never.clone(), tokio::spawn(std::future::pending()));
            assert_eq!(connections.0.len(), MAX_CONNECTIONS);
        }
        let is_there =
            |last_use: &LastUse| connections.0.iter().any(|(one, _)| Arc::ptr_eq(&one.0, &last_use.0));
        assert!(is_there(&uses[0]) && is_there(&uses[1]) && !is_there(&uses[2]) && is_there(&uses[3]));
    }
}
