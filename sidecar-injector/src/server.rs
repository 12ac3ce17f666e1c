//! HTTPS for the API server: limits on everything that a stranger could make long, and connections that do not last.
//!
//! Source: `pkg/util/webhook/client.go` of `k8s.io/apiserver`: POST over HTTP/1.1, connections kept for each Service. Before
//! Kubernetes 1.37 a new replica gets no traffic until old connections end; so they are ended by an answer that says so,
//! never while idle: a request on its way would be lost.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::webhook::Webhook;

/// The path of the webhook; a query behind it, the API server's timeout, does not matter.
pub const PATH: &str = "/mutate";
/// The longest review: the API server takes objects of 3 MiB, and writes them anew around what it adds.
const MAX_BODY: usize = 8 << 20;
/// From the head of a request to its answer; webhooks have no more than that by our chart.
const DEADLINE: Duration = Duration::from_secs(5);
/// From accept to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle: longer than the 90 s after which the API server ends it itself.
const IDLE: Duration = Duration::from_secs(180);
/// The answer after this age ends its connection.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Many times what API servers need at once; above, the oldest is closed.
const MAX_CONNECTIONS: usize = 512;
/// After a failed accept, most often for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
struct Shared {
    webhook: Arc<Webhook>,
    /// Answers end their connections from now on.
    draining: AtomicBool,
}

/// Serves until `stop` says so; from then on connections end with their next answer, and after `drain` all of them do.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    webhook: Arc<Webhook>,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let acceptor = TlsAcceptor::from(tls);
    let shared = Arc::new(Shared { webhook, draining: AtomicBool::new(false) });
    let graceful = GracefulShutdown::new();
    let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
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
                connections.retain(|connection| !connection.is_finished());
                if connections.len() == MAX_CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                connections.push_back(tokio::spawn(connection(
                    stream,
                    acceptor.clone(),
                    shared.clone(),
                    graceful.watcher(),
                )));
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

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>, watcher: Watcher) {
    let begun = Instant::now();
    // An answer is one small write: it must not wait for another.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS connection"),
        Err(_) => return tracing::debug!(limit = ?HANDSHAKE, "the TLS handshake took too long"),
    };
    let of_service = shared.clone();
    let service = service_fn(move |request| {
        let shared = of_service.clone();
        async move {
            let mut response = respond(request, &shared.webhook).await;
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

async fn respond(request: Request<Incoming>, webhook: &Webhook) -> Response<Full<Bytes>> {
    let answer = match timeout(DEADLINE, body(request)).await {
        Ok(Ok(body)) => webhook.answer(&body),
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

/// The body of a request that may have one.
async fn body(request: Request<Incoming>) -> Result<Bytes, (StatusCode, String)> {
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
    match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err((StatusCode::PAYLOAD_TOO_LARGE, too_long())),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("the review did not arrive whole: {error}"))),
    }
}
