//! Notices that the config file, or a file that a secret or certificate came from, has changed.
//!
//! Compared by what they hold: a ConfigMap changes by swapping a symbolic link two levels above.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::config::Config;

/// The files and a hash of what they held.
#[derive(Debug)]
pub(super) struct WatchedFiles {
    files: Vec<PathBuf>,
    seen: u64,
}

// === impl WatchedFiles ===

impl WatchedFiles {
    /// Watches from now on.
    pub(super) fn new(config_file: Option<&Path>, config: &Config) -> Self {
        let mut files = config.watched_files.clone();
        files.extend(config_file.map(Path::to_owned));
        if config_file.is_none() {
            files.clear();
        }
        let seen = contents(&files);
        WatchedFiles { files, seen }
    }

    /// Whether anything is different since the last call. A file that cannot be read just now is no change.
    pub(super) fn have_changed(&mut self) -> bool {
        if self.files.iter().any(|file| !file.exists()) {
            return false;
        }
        let now = contents(&self.files);
        std::mem::replace(&mut self.seen, now) != now
    }
}

fn contents(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}
