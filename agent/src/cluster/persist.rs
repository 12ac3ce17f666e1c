//! The pods that are known, kept over restarts.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::{Pod, Store};

/// What is kept is written to disk at most this often.
const INTERVAL: Duration = Duration::from_secs(5);

/// `pods.json` in the data directory.
pub(super) struct Persisted {
    path: PathBuf,
}

// === impl Persisted ===

impl Persisted {
    pub(super) fn open(data_dir: &Path) -> Self {
        Persisted { path: data_dir.join("pods.json") }
    }

    /// The pods of the last run; none when there was none, or its file is damaged.
    pub(super) fn load(&self) -> Vec<Pod> {
        let read = || -> io::Result<Vec<Pod>> { Ok(serde_json::from_slice(&fs::read(&self.path)?)?) };
        read().unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %self.path.display(), %error, "cannot read what was known of pods; the API server will tell again");
            }
            Vec::new()
        })
    }

    /// Writes the file when something has changed, and for the last time when `stop` is true. To be run to its end: a
    /// write that is left alone goes on, and the next would share its temporary file.
    pub(super) async fn keep(&self, store: &Store, mut stop: watch::Receiver<bool>) {
        let mut changes = store.changes();
        let mut saved = store.version();
        let mut failing = false;
        loop {
            let change = async {
                let _ = changes.wait_for(|version| *version != saved).await;
                tokio::time::sleep(INTERVAL).await;
            };
            let stopping = tokio::select! {
                () = change => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            let version = store.version();
            if version != saved {
                match self.save(store).await {
                    Ok(()) => (saved, failing) = (version, false),
                    Err(error) if !std::mem::replace(&mut failing, true) => {
                        tracing::warn!(path = %self.path.display(), %error, "cannot keep what is known of pods; free space or make data_dir writable");
                    }
                    Err(_) => {}
                }
            }
            if stopping {
                return;
            }
        }
    }

    async fn save(&self, store: &Store) -> io::Result<()> {
        let (path, pods) = (self.path.clone(), store.all());
        // A sync may take as long as the disk likes, and others run on this thread.
        tokio::task::spawn_blocking(move || write(&path, &pods)).await.map_err(io::Error::other)?
    }
}

fn write(path: &Path, pods: &[Arc<Pod>]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    // Annotations are not for everybody on the node to read.
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let mut out = BufWriter::new(file);
    serde_json::to_writer(&mut out, &pods.iter().map(AsRef::as_ref).collect::<Vec<&Pod>>())?;
    out.into_inner()?.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
