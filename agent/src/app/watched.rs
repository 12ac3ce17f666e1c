//! Notices that the config file, or a file that a secret or certificate came from, has changed.
//!
//! Compared by what they hold: a ConfigMap changes by swapping a symbolic link two levels above.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::app::Origin;
use crate::config::Config;

/// The files, each with a hash of what it held.
#[derive(Debug)]
pub(super) struct WatchedFiles(Vec<(PathBuf, Option<u64>)>);

// === impl WatchedFiles ===

impl WatchedFiles {
    /// Watches from now on; nothing where there is no config to read again.
    pub(super) fn new(origin: &Origin, config: &Config) -> Self {
        let config_file = match origin {
            Origin::File(file) => Some(file.as_path()),
            Origin::Injector { .. } => None,
            Origin::Memory => return WatchedFiles(Vec::new()),
        };
        let files = config.watched_files.iter().map(PathBuf::as_path).chain(config_file);
        WatchedFiles(files.map(|file| (file.to_owned(), contents(file))).collect())
    }

    /// Whether anything is different since the last call. A file that cannot be read just now is no change.
    pub(super) fn have_changed(&mut self) -> bool {
        let mut changed = false;
        for (file, seen) in &mut self.0 {
            if let Some(now) = contents(file) {
                changed |= seen.replace(now) != Some(now);
            }
        }
        changed
    }
}

fn contents(file: &Path) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    std::fs::read(file).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}
