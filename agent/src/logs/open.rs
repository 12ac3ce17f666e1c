//! Opens log files so that nobody who can only write into a log directory can make the agent read anything else.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use sidelight_contract::sidecar::LOGS_PATH;

/// Where Docker keeps the files that it links into the log directories.
const DOCKER_ROOT: &str = "/var/lib/docker/containers";

/// Descriptors that log files leave to receivers, checkpoints and admin servers, of a limit that has so many to spare.
const RESERVED_DESCRIPTORS: u64 = 64;

/// How often a directory is listed in which files are being renamed.
const LISTINGS: usize = 100;

/// The log directory tree, opened once; files are opened below it.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    directory: OwnedFd,
}

/// A file of a directory, before it is opened.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Device and inode.
    pub inode: (u64, u64),
}

/// An open log file with its device and inode.
#[derive(Debug)]
pub struct LogFile {
    /// Open for reading.
    pub file: File,
    /// Device and inode.
    pub inode: (u64, u64),
}

// === impl Root ===

impl Root {
    /// Opens the tree.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { path: path.to_owned(), directory: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens a directory of files that the apps of a pod write. Below the place where the injector mounts them no link is
    /// followed: an app that can write there could lead to anywhere.
    ///
    /// # Errors
    /// The system's.
    pub fn open_of_app(path: &Path) -> io::Result<Self> {
        let Ok(relative) = path.strip_prefix(LOGS_PATH) else { return Root::open(path) };
        let mounts = Root::open(Path::new(LOGS_PATH))?;
        let directory = open_beneath(&mounts.directory, relative, OFlags::DIRECTORY)?;
        Ok(Root { path: path.to_owned(), directory })
    }

    /// Where the system has this very directory, whatever its path leads to by now.
    pub fn own_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }

    /// The files whose names are `wanted`, and whatever else has such a name but for directories; sorted by name.
    ///
    /// # Errors
    /// The system's.
    pub fn entries(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<Entry>> {
        for _ in 0..LISTINGS {
            if let Some(entries) = self.try_entries(&wanted)? {
                return Ok(entries);
            }
        }
        Err(io::Error::other("files are renamed faster than they can be listed"))
    }

    /// None where a file went between the listing and the look at it: it may have another name now, which was listed before it
    /// had it.
    fn try_entries(&self, wanted: &impl Fn(&str) -> bool) -> io::Result<Option<Vec<Entry>>> {
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !wanted(name) {
                continue;
            }
            let stat = match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                entries.push(Entry { name: name.to_owned(), inode: (stat.st_dev, stat.st_ino) });
            }
        }
        entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(Some(entries))
    }

    /// Opens a regular file of this directory; no link is followed.
    ///
    /// # Errors
    /// As for [`Root::open_log`].
    pub fn open_file(&self, name: &str) -> io::Result<LogFile> {
        match open_file_beneath(&self.directory, Path::new(name)) {
            Err(error) if is_link(&error) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link: none is followed"))
            }
            opened => regular(opened?),
        }
    }

    /// Whether the path leads to this very directory, and not to one that was put in its place.
    pub fn is_in_place(&self) -> bool {
        let opened = rustix::fs::fstat(&self.directory).map(|stat| (stat.st_dev, stat.st_ino));
        let now = std::fs::metadata(&self.path).map(|metadata| (metadata.dev(), metadata.ino()));
        matches!((opened, now), (Ok(opened), Ok(now)) if opened == now)
    }

    /// Opens a regular file below the tree. Symbolic links are not followed, but for Docker's own into its directory.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for what is no regular file. EMFILE comes early, so that descriptors are left for
    /// everything else.
    pub fn open_log(&self, path: &Path) -> io::Result<LogFile> {
        let relative = path.strip_prefix(&self.path).unwrap_or(path);
        match open_file_beneath(&self.directory, relative) {
            Err(error) if is_link(&error) => open_docker_link(path),
            opened => regular(opened?),
        }
    }
}

fn open_file_beneath(directory: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    // Without NONBLOCK, opening a FIFO would wait for its writer.
    open_beneath(directory, path, OFlags::NONBLOCK | OFlags::NOCTTY)
}

fn open_beneath(directory: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(directory, path, flags, Mode::empty(), resolve).map_err(explained)
}

/// Whether a symbolic link was in the way.
fn is_link(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

/// What the system says; and what to do where it does not know `openat2`, without which no file is opened safely.
fn explained(error: Errno) -> io::Error {
    if error == Errno::NOSYS {
        return io::Error::new(
            io::ErrorKind::Unsupported,
            "the kernel has no openat2: Linux 5.6 or newer is needed",
        );
    }
    error.into()
}

fn open_docker_link(path: &Path) -> io::Result<LogFile> {
    let target = std::fs::read_link(path)?;
    let relative = target.strip_prefix(DOCKER_ROOT).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a symbolic link to {}: only links into {DOCKER_ROOT} are followed", target.display()),
        )
    })?;
    let directory = Root::open(Path::new(DOCKER_ROOT))?;
    regular(open_file_beneath(&directory.directory, relative)?)
}

fn regular(descriptor: OwnedFd) -> io::Result<LogFile> {
    // The lowest free number is taken: a high one means that few are left.
    if is_reserved(descriptor.as_raw_fd(), getrlimit(Resource::Nofile).current) {
        return Err(Errno::MFILE.into());
    }
    let file = File::from(descriptor);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(LogFile { inode: (metadata.dev(), metadata.ino()), file })
}

fn is_reserved(descriptor: i32, limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| {
        u64::try_from(descriptor).is_ok_and(|number| number >= limit - RESERVED_DESCRIPTORS.min(limit / 4))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_not_for_log_files() {
        assert!(!is_reserved(1_000_000, None));
        assert!(!is_reserved(959, Some(1_024)) && is_reserved(960, Some(1_024)));
        assert!(!is_reserved(74, Some(100)) && is_reserved(75, Some(100)));
    }

    #[test]
    fn a_kernel_that_is_too_old_is_told_by_its_version() {
        let told = |error| explained(error).to_string();
        assert!(told(Errno::NOSYS).contains("Linux 5.6"));
        assert!(told(Errno::ACCESS).contains("Permission denied"));
    }

    #[test]
    fn links_fifos_and_ways_out_of_the_tree_are_refused_without_waiting() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let tree = tempfile::tempdir().unwrap();
        let at = |name: &str| tree.path().join(name);
        std::fs::write(at("0.log"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), at("1.log")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("2.log"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let root = Root::open(tree.path()).unwrap();
        assert!(root.open_log(&at("0.log")).is_ok());
        assert!(root.is_in_place());
        for refused in ["1.log", "2.log", "link/secret", "../secret", "none"] {
            assert!(root.open_log(&at(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_tree_that_was_replaced_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pods");
        std::fs::create_dir(&path).unwrap();
        let root = Root::open(&path).unwrap();
        assert!(root.is_in_place());
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        assert!(!root.is_in_place());
        std::fs::create_dir(&path).unwrap();
        assert!(!root.is_in_place());
    }
}
