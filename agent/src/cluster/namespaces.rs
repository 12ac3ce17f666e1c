//! Labels of the namespaces that have pods on this node: asked for by name, never listed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kube::api::GetParams;
use kube::core::Request;
use kube::{Client, Error};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until, timeout};

use super::retry::Outage;
use super::{Metrics, Store};

/// Labels are asked for again when older.
const AGE: Duration = Duration::from_secs(300);
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Namespace {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("no answer within {ANSWER:?}")]
    Silent(#[from] tokio::time::error::Elapsed),
}

/// Keeps the labels up to date, for ever. What is known of a namespace stays when it cannot be asked for, or is gone.
pub(super) async fn run(client: &Client, store: &Store, metrics: &Metrics) {
    let mut outage = Outage::new("cannot read a namespace; its labels stay as last known");
    let mut changes = store.changes();
    let mut due: HashMap<String, Instant> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let present = store.namespaces();
        due.retain(|name, _| present.contains(name));
        for name in present {
            if due.get(&name).is_some_and(|due| *due > Instant::now()) {
                continue;
            }
            let pause = match labels(client, &name).await {
                Ok(labels) => {
                    outage.end();
                    if let Some(labels) = labels {
                        store.label_namespace(&name, labels);
                    }
                    AGE
                }
                Err(failure) => {
                    metrics.errors.inc();
                    outage.failed(&failure)
                }
            };
            due.insert(name, Instant::now() + pause);
        }
        let next = due.values().min().copied().unwrap_or_else(|| Instant::now() + AGE);
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// The labels of a namespace; `None` when there is no such namespace.
async fn labels(client: &Client, name: &str) -> Result<Option<BTreeMap<String, String>>, Failure> {
    let request =
        Request::new("/api/v1/namespaces").get(name, &GetParams::default()).map_err(Error::BuildRequest)?;
    match timeout(ANSWER, client.request_text(request)).await? {
        Ok(text) => {
            let namespace: Namespace = serde_json::from_str(&text).map_err(Error::SerdeError)?;
            Ok(Some(namespace.metadata.labels))
        }
        Err(Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}
