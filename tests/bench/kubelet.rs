//! Rotation as the kubelet does it: by size, looked at in intervals, one container after the other.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::writer::{Log, Writer};

/// The kubelet's settings of these names.
#[derive(Clone, Copy)]
pub(crate) struct Rotation {
    /// `containerLogMaxSize`
    pub(crate) max_size: u64,
    /// `containerLogMaxFiles`
    pub(crate) max_files: usize,
    /// `containerLogMonitorInterval`
    pub(crate) interval: Duration,
}

/// A running kubelet; it ends when it is dropped.
pub(crate) struct Kubelet {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

// === impl Kubelet ===

impl Kubelet {
    /// Watches over the logs of writers.
    pub(crate) fn start(writers: &[Writer], rotation: Rotation) -> Self {
        let logs: Vec<Arc<Log>> = writers.iter().map(|writer| writer.log.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut rotations = 0;
            while !stopping.load(Ordering::Relaxed) {
                std::thread::park_timeout(rotation.interval);
                for log in &logs {
                    if fs::metadata(&log.path).unwrap().len() > rotation.max_size {
                        rotations += 1;
                        rotate(log, rotation.max_files, rotations).unwrap();
                    }
                }
            }
        });
        Kubelet { stop, thread: Some(thread) }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        thread.thread().unpark();
        let _ = thread.join();
    }
}

/// Deletes the oldest files, compresses the others, then renames the present one (`rotateLog` in the kubelet's
/// `container_log_manager.go`).
fn rotate(log: &Log, max_files: usize, number: u64) -> io::Result<()> {
    let mut rotated = rotated(&log.path)?;
    // One place is for the new file, one for the file that is renamed now.
    let excess = rotated.len().saturating_sub(max_files - 2);
    for old in rotated.drain(..excess) {
        fs::remove_file(old)?;
    }
    for old in rotated {
        if old.extension().is_none_or(|extension| extension != "gz") {
            compress(&old)?;
        }
    }
    // Names must differ, also of rotations within a second.
    let name = format!("{}.20260101-{number:06}", log.path.display());
    fs::rename(&log.path, name)?;
    log.reopen()
}

/// The rotated files, oldest first.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(log.parent().unwrap())? {
        let path = entry?.path();
        if path != log {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn compress(file: &Path) -> io::Result<()> {
    let temporary = PathBuf::from(format!("{}.tmp", file.display()));
    let mut encoder =
        flate2::write::GzEncoder::new(File::create(&temporary)?, flate2::Compression::default());
    io::copy(&mut File::open(file)?, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&temporary, format!("{}.gz", file.display()))?;
    fs::remove_file(file)
}
