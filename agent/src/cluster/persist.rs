//! The pods that are known, kept over restarts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Pod, Store};

/// `pods.json` in the data directory.
pub(super) struct Persisted {
    path: PathBuf,
    version: u64,
    failing: bool,
}

// === impl Persisted ===

impl Persisted {
    pub(super) fn open(data_dir: &Path) -> Self {
        Persisted { path: data_dir.join("pods.json"), version: 0, failing: false }
    }

    /// The pods of the last run; none when there was none, or its file is damaged.
    pub(super) fn load(&self) -> Vec<Pod> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %self.path.display(), %error, "what is known of pods is damaged; the API server will tell again");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        }
    }

    /// Writes the file if anything has changed since the last time.
    pub(super) fn save_if_changed(&mut self, store: &Store) {
        let version = store.version();
        if version == self.version {
            return;
        }
        match self.save(store) {
            Ok(()) => {
                self.version = version;
                self.failing = false;
            }
            Err(error) if !std::mem::replace(&mut self.failing, true) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep what is known of pods; free space or make data_dir writable");
            }
            Err(_) => {}
        }
    }

    fn save(&self, store: &Store) -> io::Result<()> {
        let temporary = self.path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&store.all().iter().map(AsRef::as_ref).collect::<Vec<&Pod>>())?)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}
