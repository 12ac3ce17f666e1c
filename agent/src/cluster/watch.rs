//! One list and one watch of the pods on this node.
//!
//! Not `kube::runtime::watcher`, for what it does in kube 5.0: with a page size it drops `resourceVersion=0`, so that
//! every list is a quorum read; an HTTP 410 to a watch is tried again for ever with the same version; a watch that the
//! server ends at once is opened again without a pause; and a list that is never answered is waited for without end.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{Request, Status};
use kube::{Client, Config, Error};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::api::{ApiPod, List};
use super::retry::Outage;
use super::{Metrics, Store, namespaces};

const PODS: &str = "/api/v1/pods";
const CONNECT: Duration = Duration::from_secs(10);
/// For a whole list, and for a watch to begin.
const ANSWER: Duration = Duration::from_secs(60);
/// The server is asked to end a watch after so many seconds.
const WATCH_SECONDS: u32 = 290;
/// Without a word, nor an end, for this long the connection is dead.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// A watch that has stood this long works, whether there was something to tell or not.
const SETTLED: Duration = Duration::from_secs(5);

/// The watch of one node's pods.
struct Watch<'a> {
    client: &'a Client,
    selector: String,
    store: &'a Store,
    metrics: &'a Metrics,
    outage: Outage,
    /// The state that is known; `None`: list first.
    version: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{} {}", .0.code, .0.message)]
    Refused(Box<Status>),
    #[error("the watch was ended: {} {}", .0.code, .0.message)]
    Ended(Box<Status>),
    #[error("the watch was ended as soon as it was open")]
    EndedAtOnce,
    #[error("no answer within {ANSWER:?}")]
    NoAnswer,
    #[error("no word on the watch within {SILENCE:?}")]
    Silence,
    #[error("a list without a resourceVersion")]
    NoVersion,
    #[error("no way to the API server: {0}; run in a cluster or set KUBECONFIG")]
    Config(String),
    #[error(transparent)]
    Other(Error),
}

/// Watches for ever; every failure is taken up again after a pause.
pub(super) async fn run(
    kubeconfig: Option<&Path>,
    node: &str,
    namespace_labels: bool,
    store: &Store,
    metrics: &Metrics,
) {
    let mut outage =
        Outage::new("no word from the API server; pods known before keep their metadata, new ones wait");
    let client = loop {
        match connect(kubeconfig).await {
            Ok(client) => break client,
            Err(failure) => {
                metrics.errors.inc();
                sleep(outage.failed(&failure)).await;
            }
        }
    };
    let watch = Watch {
        client: &client,
        selector: format!("spec.nodeName={node}"),
        store,
        metrics,
        outage,
        version: None,
    };
    if namespace_labels {
        tokio::join!(watch.run(), namespaces::run(&client, store, metrics));
    } else {
        watch.run().await;
    }
}

async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Failure> {
    let no_config = |error: &dyn std::error::Error| Failure::Config(error.to_string());
    let mut config = match kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| no_config(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| no_config(&error))?
        }
        None => Config::infer().await.map_err(|error| no_config(&error))?,
    };
    // The client's own retries take minutes and say nothing.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    Ok(Client::try_from(config)?)
}

// === impl Watch ===

impl Watch<'_> {
    async fn run(mut self) {
        loop {
            if let Err(failure) = self.turn().await {
                self.metrics.errors.inc();
                if failure.loses_track() {
                    self.version = None;
                }
                sleep(self.outage.failed(&failure)).await;
            }
        }
    }

    /// Lists if it must, then follows until the watch ends.
    async fn turn(&mut self) -> Result<(), Failure> {
        let version = match self.version.take() {
            Some(version) => version,
            None => self.list().await?,
        };
        self.version = Some(version.clone());
        self.follow(&version).await
    }

    /// `resourceVersion=0` and no limit: the server answers from its memory, never from etcd.
    async fn list(&self) -> Result<String, Failure> {
        let params = ListParams::default().fields(&self.selector).match_any();
        let request = Request::new(PODS).list(&params).map_err(Error::BuildRequest)?;
        // `Client::request` would log the whole body if it could not be decoded, with what secrets are in it.
        let text =
            timeout(ANSWER, self.client.request_text(request)).await.map_err(|_| Failure::NoAnswer)??;
        let list: List = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        let version = list.metadata.resource_version;
        if version.is_empty() {
            return Err(Failure::NoVersion);
        }
        self.metrics.event();
        self.store.replace(list.items.into_iter().map(ApiPod::into_pod).collect());
        Ok(version)
    }

    async fn follow(&mut self, version: &str) -> Result<(), Failure> {
        let params = WatchParams::default().fields(&self.selector).timeout(WATCH_SECONDS);
        let request = Request::new(PODS).watch(&params, version).map_err(Error::BuildRequest)?;
        let events =
            timeout(ANSWER, self.client.request_events(request)).await.map_err(|_| Failure::NoAnswer)??;
        let mut events = pin!(events);
        let settled = Instant::now() + SETTLED;
        let mut works = false;
        loop {
            tokio::select! {
                event = timeout(SILENCE, events.try_next()) => match event.map_err(|_| Failure::Silence)?? {
                    Some(event) => self.take(event)?,
                    None if works => return Ok(()),
                    None => return Err(Failure::EndedAtOnce),
                },
                () = sleep_until(settled), if !works => {}
            }
            works = true;
            self.outage.end();
        }
    }

    fn take(&mut self, event: WatchEvent<ApiPod>) -> Result<(), Failure> {
        let version = match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                let version = pod.version().to_owned();
                self.store.apply(pod.into_pod());
                version
            }
            WatchEvent::Deleted(pod) => {
                let version = pod.version().to_owned();
                self.store.delete(pod.into_pod());
                version
            }
            WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version,
            WatchEvent::Error(status) => return Err(Failure::Ended(status)),
        };
        self.metrics.event();
        if !version.is_empty() {
            self.version = Some(version);
        }
        Ok(())
    }
}

// === impl Failure ===

impl Failure {
    /// Whether the watch cannot be taken up where it was: the version is too old, unknown to a restored server, or an
    /// event was lost.
    fn loses_track(&self) -> bool {
        match self {
            // These say nothing about the version.
            Failure::Refused(status) => !matches!(status.code, 401 | 403 | 429 | 500 | 502 | 503),
            Failure::Ended(_) | Failure::NoVersion | Failure::Other(Error::SerdeError(_)) => true,
            _ => false,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(status) => Failure::Refused(status),
            error => Failure::Other(error),
        }
    }
}
