//! Pods from a file, as `kubectl get pods -A -o json` prints them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::api::ApiPod;
use super::{Metrics, Store};

const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct List {
    items: Vec<ApiPod>,
}

/// Reads the file whenever it has changed. A file that is wrong leaves the pods as they are.
pub(super) async fn run(path: &Path, store: &Store, metrics: &Metrics) {
    let mut seen = None;
    loop {
        let state = std::fs::metadata(path).ok().map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        if state != seen || seen.is_none() {
            match read(path) {
                Ok(list) => {
                    metrics.event();
                    store.replace(list.items.into_iter().map(ApiPod::into_pod).collect());
                }
                Err(error) if seen != state || !store.synced() => {
                    metrics.errors.inc();
                    tracing::warn!(path = %path.display(), error, "cannot use the list of pods; what is known stays");
                }
                Err(_) => {}
            }
            seen = state;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn read(path: &Path) -> Result<List, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    // JSON is YAML as well, but its own parser is faster and says better what is wrong.
    if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(|error| error.to_string())
    } else {
        yaml_serde::from_str(&text).map_err(|error| error.to_string())
    }
}
