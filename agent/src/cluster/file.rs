//! Pods from a file, as `kubectl get pods -A -o json` prints them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use super::api::List;
use super::{Metrics, Pod, Store};

const INTERVAL: Duration = Duration::from_secs(1);
/// The pods of some thousand nodes; what is larger is another file.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(u64),
    #[error("not a v1 List as kubectl prints it: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not a v1 List as kubectl prints it: {0}")]
    Yaml(#[from] yaml_serde::Error),
    #[error("item {0} has no metadata.uid, namespace or name")]
    Incomplete(usize),
}

/// Reads the file whenever it has changed. A file that is wrong leaves the pods as they are.
pub(super) async fn run(path: &Path, store: &Store, metrics: &Metrics) {
    let mut seen = None;
    loop {
        let state =
            fs::metadata(path).ok().map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        if seen != Some(state) {
            match read(path) {
                Ok(pods) => {
                    metrics.event();
                    store.replace(pods);
                }
                Err(error) => {
                    metrics.errors.inc();
                    tracing::warn!(path = %path.display(), %error, "cannot use the list of pods; what is known stays");
                }
            }
            seen = Some(state);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn read(path: &Path) -> Result<Vec<Pod>, Failure> {
    let size = fs::metadata(path)?.size();
    if size > MAX_BYTES {
        return Err(Failure::TooLarge(size));
    }
    let text = fs::read_to_string(path)?;
    // JSON is YAML as well, but its own parser is faster and says better what is wrong.
    let list: List = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text)?
    } else {
        yaml_serde::from_str(&text)?
    };
    let pods = list.items.into_iter().enumerate().filter(|(_, item)| item.is_pod());
    pods.map(
        |(index, pod)| if pod.is_complete() { Ok(pod.into_pod()) } else { Err(Failure::Incomplete(index)) },
    )
    .collect()
}
