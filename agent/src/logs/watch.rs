//! inotify: one instance for the structure of the log tree, and one for each reader's idle files.
//!
//! The `inotify` system calls come from rustix, which the agent needs for openat2 and flock anyway. The notify crate
//! asks for every write of every file; here a busy file must cost no event at all.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
pub use rustix::fs::inotify::WatchFlags;

/// An inotify instance, or none where the system has none left: then nothing can be watched, and callers poll.
#[derive(Debug)]
pub struct Watcher {
    fd: io::Result<OwnedFd>,
    buffer: Vec<MaybeUninit<u8>>,
}

/// What happened since the last look.
#[derive(Debug, Default)]
pub struct Changes {
    /// Watches that have fired, each once.
    pub watches: Vec<i32>,
    /// Watches that the kernel has removed.
    pub removed: Vec<i32>,
    /// The kernel's queue was full: anything may have happened.
    pub overflow: bool,
}

// === impl Watcher ===

impl Watcher {
    /// A new instance.
    pub fn open() -> Self {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
        if let Err(error) = &fd {
            tracing::warn!(%error, "no inotify instance; listing and reading every second instead; raise fs.inotify.max_user_instances");
        }
        Watcher { fd: fd.map_err(Into::into), buffer: vec![MaybeUninit::uninit(); 16 << 10] }
    }

    fn fd(&self) -> io::Result<&OwnedFd> {
        self.fd.as_ref().map_err(|error| error.kind().into())
    }

    /// Watches a directory for what comes, goes or is renamed in it.
    ///
    /// # Errors
    /// ENOSPC when `fs.inotify.max_user_watches` is reached, EACCES when the directory may not be read.
    pub fn watch_directory(&self, directory: &Path) -> io::Result<i32> {
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        Ok(inotify::add_watch(self.fd()?, directory, flags)?)
    }

    /// Watches an open file for its next write. Through `/proc/self/fd` it is this very file, whatever its name is by now.
    ///
    /// # Errors
    /// ENOSPC when `fs.inotify.max_user_watches` is reached.
    pub fn watch_next_write(&self, file: BorrowedFd<'_>) -> io::Result<i32> {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(inotify::add_watch(self.fd()?, path, WatchFlags::MODIFY | WatchFlags::ONESHOT)?)
    }

    /// What becomes readable when something has happened.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().ok().map(AsFd::as_fd)
    }

    /// What happened since the last call.
    pub fn changes(&mut self) -> Changes {
        let mut changes = Changes::default();
        let Ok(fd) = &self.fd else { return changes };
        let mut reader = inotify::Reader::new(fd, &mut self.buffer);
        while let Ok(event) = reader.next() {
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                changes.overflow = true;
            } else if event.events().contains(inotify::ReadFlags::IGNORED) {
                changes.removed.push(event.wd());
            } else if changes.watches.last() != Some(&event.wd()) {
                changes.watches.push(event.wd());
            }
        }
        changes.watches.sort_unstable();
        changes.watches.dedup();
        changes
    }
}

/// Waits until one of the descriptors can be read or the time is over.
pub fn wait<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>, timeout: Option<Duration>) {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN)).collect();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    // Interrupted is as good as over: the caller looks at everything anyway.
    let _ = poll(&mut polled, timeout.as_ref());
}
