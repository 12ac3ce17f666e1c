//! A service that has living requests: `exporter service DIALECT`.
//!
//! What is counted goes through the library's own middleware, as a request of the network would; only that nobody has to send
//! it. Every minute has its troubles: some requests are slow, some fail, some ask for what is not there, and now and then a task
//! panics. What happens is logged by `tracing`, as JSON. It runs until it is killed, or until it has had `LAST_REQUEST`.

use std::future::Future;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ::metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::{Result, axum_dialect, handmade_dialect, otel_dialect, tonic_dialect};

/// As `PORT`, where another one is asked for by the environment.
const PORT_VARIABLE: &str = "PORT";
const DEFAULT_PORT: u16 = 8080;
/// The number of the request that the service does not survive, if there is to be one.
const LAST_REQUEST: &str = "LAST_REQUEST";
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(20);
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// One request: where it goes to, how long it takes, and what is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) takes: Duration,
    pub(crate) status: StatusCode,
}

/// A library that counts requests.
pub(crate) trait Dialect: Send + Sync + 'static {
    /// Answers one, through the library's middleware.
    fn answer(self: Arc<Self>, request: Request) -> impl Future<Output = ()> + Send;

    /// Its page, if it does not count by `metrics`.
    fn page(&self) -> Result<String> {
        Ok(String::new())
    }
}

/// Runs the service of a dialect.
pub(crate) fn run(dialect: &str) -> Result<()> {
    tracing_subscriber::fmt().json().init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let page = recorder(dialect)?;
        match dialect {
            "axum" => serve(axum_dialect::Axum::new(), page).await,
            "handmade" => serve(handmade_dialect::Handmade, page).await,
            "otel" => serve(otel_dialect::Otel::new()?, page).await,
            "tonic" => serve(tonic_dialect::Tonic::new()?, page).await,
            _ => Err(format!("no such dialect: {dialect:?}").into()),
        }
    })
}

/// Of tokio and of the process; and of dialects that count by `metrics`. By hand no buckets are set: those are summaries.
fn recorder(dialect: &str) -> Result<PrometheusHandle> {
    let mut builder = PrometheusBuilder::new();
    if dialect == "axum" {
        let durations = Matcher::Full(axum_prometheus::AXUM_HTTP_REQUESTS_DURATION_SECONDS.to_owned());
        builder = builder.set_buckets_for_metric(durations, &SECONDS)?;
    }
    let page = builder.install_recorder()?;
    tokio::spawn(
        tokio_metrics::RuntimeMetricsReporterBuilder::default()
            .with_interval(Duration::from_secs(1))
            .describe_and_run(),
    );
    Ok(page)
}

async fn serve(dialect: impl Dialect, page: PrometheusHandle) -> Result<()> {
    let dialect = Arc::new(dialect);
    tokio::spawn(traffic(dialect.clone()));
    let process = metrics_process::Collector::default();
    process.describe();
    let metrics = move || {
        process.collect();
        page.run_upkeep();
        let page = dialect.page().map(|own| page.render() + &own).map_err(|error| error.to_string());
        async move { page.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error)) }
    };
    let port = std::env::var(PORT_VARIABLE).ok().and_then(|port| port.parse().ok()).unwrap_or(DEFAULT_PORT);
    // Of either family.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    axum::serve(listener, Router::new().route("/metrics", get(metrics))).await?;
    Ok(())
}

async fn traffic<D: Dialect>(dialect: Arc<D>) {
    let began = Instant::now();
    let last = std::env::var(LAST_REQUEST).ok().and_then(|number| number.parse().ok());
    for number in 0_u64.. {
        let request = request(number, began.elapsed());
        log(number, request);
        if last == Some(number) {
            tracing::error!("the connection to the database is lost");
            std::process::exit(1);
        }
        let answered = tokio::spawn(dialect.clone().answer(request));
        if number % 3000 == 1500 {
            tokio::spawn(async move { panic!("the stock of article {number} is negative") });
        }
        // Work of the service's own, so that its CPU has something to show.
        tokio::task::spawn_blocking(|| (0..20_000_u64).fold(0, |sum, each| sum ^ each.wrapping_mul(31)));
        if request.takes < PAUSE {
            let _ = answered.await;
        }
        sleep(PAUSE).await;
    }
}

/// What is asked as number so and so. In each fourth minute the shop's stock is in trouble.
fn request(number: u64, elapsed: Duration) -> Request {
    let trouble = elapsed.as_secs() / 60 % 4 == 3;
    let (method, route, takes) = match number % 10 {
        0..=5 => ("GET", "/articles", 2 + number % 7),
        6 | 7 => ("GET", "/articles/{id}", 8 + number % 30),
        8 => ("POST", "/orders", 40 + number % 160),
        _ => ("GET", "/stock", if trouble { 600 + number % 900 } else { 20 + number % 80 }),
    };
    let status = match number % 100 {
        59 if trouble => StatusCode::SERVICE_UNAVAILABLE,
        99 | 18 => StatusCode::INTERNAL_SERVER_ERROR,
        26 | 57 | 77 => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    };
    Request { method, route, takes: Duration::from_millis(takes), status }
}

fn log(number: u64, request: Request) {
    let Request { method, route, takes, status } = request;
    let takes = takes.as_millis() as u64;
    if status.is_server_error() {
        tracing::error!(method, route, takes, status = status.as_u16(), "the stock does not answer");
    } else if status.is_client_error() {
        tracing::warn!(method, route, takes, status = status.as_u16(), "no such article");
    } else if number.is_multiple_of(5) {
        tracing::info!(method, route, takes, status = status.as_u16(), "served");
    }
}
