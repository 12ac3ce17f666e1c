//! `sidelight-injector serve`: puts the parts together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use prometheus::TextEncoder;
use sidelight_runtime::admin::{Handler, Response, Server, StatusCode, listen};
use sidelight_runtime::exit;
use sidelight_runtime::progress::{Heartbeat, Heartbeats};
use sidelight_runtime::signals::{Signal, Signals};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::certificate::{Managed, Served, follow_files, tls};
use crate::config::{Certificate, Config};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::profiles::WatchedProfiles;
use crate::server;
use crate::webhook::{Webhook, mode_name};

/// From SIGTERM on, for so long, new connections are still taken: until every node knows that this replica is leaving.
const DRAIN: Duration = Duration::from_secs(5);
/// An API server that is silent for so long has gone. Longer than a watch lasts.
const SILENCE: Duration = Duration::from_secs(40);
/// The cluster may be upgraded.
const VERSION_INTERVAL: Duration = Duration::from_secs(300);
const VERSION_RETRY: Duration = Duration::from_secs(2);
/// A thread without a turn for so long does not come to itself again.
const STALLED: Duration = Duration::from_secs(30);

/// What readiness depends on.
struct Health {
    served: Arc<Served>,
    /// Whether the API server believes in the certificate.
    trusted: Arc<AtomicBool>,
    webhook: Arc<Webhook>,
    stopping: AtomicBool,
    /// That of the thread which answers.
    heartbeats: Heartbeats,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start.
pub fn run(config: Config) -> anyhow::Result<u8> {
    // One thread: a review takes a fraction of a millisecond, and the limit of the pod is most often a fraction of a core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(serve(config));
    runtime.shutdown_background();
    code
}

async fn serve(config: Config) -> anyhow::Result<u8> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let metrics = Metrics::register()?;
    let mut kubernetes = kube::Config::infer().await.context("there is no API server to talk to")?;
    kubernetes.read_timeout = Some(SILENCE);
    kubernetes.reset_reader_on_write = true;
    // Who asks tries again by himself, and soon: kube's own pauses grow to a quarter of an hour.
    kubernetes.default_retry = false;
    let namespace = kubernetes.default_namespace.clone();
    let client = Client::try_from(kubernetes)?;
    let served = Arc::new(Served::default());
    let trusted = follow_certificate(&config, client.clone(), &namespace, served.clone());
    let listener = TcpListener::from_std(listen(&config.listen)?)?;
    let (address, mode) = (listener.local_addr()?, mode_name(config.mode));
    let webhook = Arc::new(Webhook {
        profiles: Box::new(WatchedProfiles::start(client.clone(), config.clone())),
        kubernetes: AtomicU32::new(0),
        events: Some(Events::start(client.clone(), metrics.clone())),
        metrics,
        config,
    });
    tokio::spawn(learn_version(client, webhook.clone()));
    let heartbeats = Heartbeats::new();
    tokio::spawn(beat(heartbeats.register("reviews")));
    let health = Arc::new(Health {
        served: served.clone(),
        trusted,
        webhook: webhook.clone(),
        stopping: AtomicBool::new(false),
        heartbeats,
    });
    let admin = Server::bind(&webhook.config.admin_listen)?;
    let admin_address = admin.local_addr()?;
    let admin = admin.spawn("admin", handler(health.clone()))?;
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server::serve(listener, tls(served)?, webhook, stopped, DRAIN));
    tracing::info!(%address, admin = %admin_address, mode, namespace, "waiting for reviews");
    while signals.next().await != Signal::Stop {}
    tracing::info!("stopping: answering until the API server has let go");
    health.stopping.store(true, Ordering::Relaxed);
    let _ = stop.send(true);
    serving.await.context("the server has ended badly")?;
    drop(admin);
    Ok(exit::SUCCESS)
}

/// Whether the API server believes in what is served: of files that is for others to see to.
fn follow_certificate(
    config: &Config,
    client: Client,
    namespace: &str,
    served: Arc<Served>,
) -> Arc<AtomicBool> {
    match &config.certificate {
        Certificate::SelfManaged(managed) => {
            let managed = Managed::new(client, namespace, managed.clone(), served);
            let trusted = managed.ready.clone();
            tokio::spawn(managed.run());
            trusted
        }
        Certificate::Files { cert_file, key_file } => {
            let (cert_file, key_file) = (cert_file.clone(), key_file.clone());
            tokio::spawn(async move { follow_files(&cert_file, &key_file, &served).await });
            Arc::new(AtomicBool::new(true))
        }
    }
}

/// As long as this task gets its turn, others do.
async fn beat(heartbeat: Arc<Heartbeat>) {
    heartbeat.busy();
    loop {
        heartbeat.beat();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn learn_version(client: Client, webhook: Arc<Webhook>) {
    loop {
        let pause = match client.apiserver_version().await {
            Ok(version) => {
                // `34+` with some vendors.
                let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
                webhook.kubernetes.store(digits.parse().unwrap_or(0), Ordering::Relaxed);
                VERSION_INTERVAL
            }
            Err(error) => {
                tracing::warn!(%error, "cannot ask the API server for its version; trying again");
                VERSION_RETRY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

fn handler(health: Arc<Health>) -> Handler {
    Arc::new(move |request| match request.path.as_str() {
        "/livez" => match health.heartbeats.stalled(STALLED) {
            None => Response::text("ok\n"),
            Some(_) => Response::text("no review has been answered for too long, nor could have been\n")
                .with_status(StatusCode::SERVICE_UNAVAILABLE),
        },
        "/readyz" => match health.problem() {
            None => Response::text("ok\n"),
            Some(problem) => {
                Response::text(format!("{problem}\n")).with_status(StatusCode::SERVICE_UNAVAILABLE)
            }
        },
        "/metrics" => health.metrics(),
        _ => Response::not_found(),
    })
}

// === impl Health ===

impl Health {
    /// Why no review should come here.
    fn problem(&self) -> Option<&'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            Some("stopping")
        } else if !self.served.is_valid() {
            Some("there is no certificate that is valid now")
        } else if !self.trusted.load(Ordering::Relaxed) {
            Some("the API server has not been told of the certificate's authority yet")
        } else if self.webhook.kubernetes.load(Ordering::Relaxed) == 0 {
            Some("the API server's version is not known yet")
        } else {
            None
        }
    }

    fn metrics(&self) -> Response {
        let metrics = &self.webhook.metrics;
        metrics.not_after.set(self.served.not_after().unwrap_or(0));
        match TextEncoder::new().encode_to_string(&metrics.registry.gather()) {
            Ok(text) => Response::new("text/plain; version=0.0.4; charset=utf-8", text),
            Err(error) => Response::text(format!("{error}\n")).with_status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}
