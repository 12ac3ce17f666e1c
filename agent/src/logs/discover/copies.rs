//! Files that may be copies of others, which are truncated next, as logrotate's copytruncate does: they are not read by
//! themselves, but in the place of what they are copies of.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Tree;
use super::plain::{Found, Inode};
use crate::logs::generation::{Generation, Identity};
use crate::logs::open::{Entry, LogFile};
use crate::logs::source::Source;

/// How long a file that may be a copy is left alone until it has a first line.
const COPY_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
pub(super) const COPY_LOOK: Duration = Duration::from_millis(50);
/// For so long after it was made, a copy is about to be followed by the truncation.
const COPY_FRESH: Duration = Duration::from_secs(60);
/// How often files with a backlog are looked at.
const BACKLOG_LOOK: Duration = Duration::from_secs(1);

/// Files that are open at a time: a sidecar of 32 MiB has room for no more.
const MAX_FILES: usize = 1000;

/// A file that is not read: it is the copy of another one, or may be.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) path: PathBuf,
    pub(super) inode: Inode,
    pub(super) source: Arc<Source>,
    seen: Instant,
    /// What it is a copy of, once that is known.
    pub(super) original: Option<Arc<Generation>>,
}

/// What a file is that was not known before.
enum Verdict {
    /// One that is to be read.
    New,
    /// A copy of this one, which is going to be truncated.
    Copy(Arc<Generation>),
    /// Nobody can say yet.
    Unknown,
}

/// Where the file was written that has been rotated to this path, or copied.
pub(super) fn original_path(path: &Path) -> Option<PathBuf> {
    path.file_name().and_then(original).map(|name| path.with_file_name(name))
}

/// What a rotated file, or a copy of it, was called: `app.log` of `app.log.1`, `app.log-20261124` and `app.log.2026-11-24`.
fn original(name: &OsStr) -> Option<&str> {
    let name = name.to_str()?;
    let is_stamp = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_digit())
            && text.bytes().all(|byte| byte.is_ascii_digit() || b".-_:T".contains(&byte))
    };
    let mut separators = name.match_indices(['.', '-', '_']);
    separators.find(|(at, _)| *at > 0 && is_stamp(&name[at + 1..])).map(|(at, _)| &name[..at])
}

impl Tree {
    /// Looks whether files that have copies, or a backlog, were truncated: while outputs are blocked no reader does, and a file
    /// that has grown again may look like what it was. Says when to look again.
    pub(super) fn look_for_truncated(&self) -> Option<Duration> {
        let mut pause = None;
        for known in self.pods.values().flat_map(HashMap::values) {
            let Some(newest) = known.container.generations().pop() else { continue };
            // No reader may have come to it.
            newest.identify_by_file();
            if !newest.is_truncated() {
                newest.refresh();
            }
            let look = match newest.copied_for() {
                Some(age) if age < COPY_FRESH => COPY_LOOK,
                _ if newest.backlog() > 0 => BACKLOG_LOOK,
                _ => continue,
            };
            pause = Some(pause.map_or(look, |pause: Duration| pause.min(look)));
            if newest.is_truncated() {
                self.discovery.inventory.changed(&known.container);
            }
        }
        pause
    }

    /// Opens a file that is not known.
    pub(super) fn look_at(
        &mut self,
        index: usize,
        entry: &Entry,
        known: &HashMap<Inode, Arc<Generation>>,
        found: &mut Found,
    ) {
        let path = self.directories[index].path.join(&entry.name);
        let aside = self.aside.iter().position(|aside| aside.inode == entry.inode);
        let mut file = match aside.map(|place| self.aside.swap_remove(place)) {
            Some(aside) => Aside { path, ..aside },
            None => {
                if known.len() + found.files.len() + self.aside.len() >= MAX_FILES {
                    found.too_many = true;
                    return;
                }
                let Some(root) = &self.directories[index].root else { return };
                match root.open_file(&entry.name) {
                    // Renamed meanwhile, what is known is here now; or it has two names.
                    Ok(LogFile { inode, .. }) if known.contains_key(&inode) || found.has(inode) => return,
                    Ok(LogFile { file, inode }) => {
                        let source = Arc::new(Source::plain(file));
                        Aside { path, inode, source, seen: Instant::now(), original: None }
                    }
                    Err(error) => return self.cannot_open(index, &entry.name, &error, found),
                }
            }
        };
        match self.judge(index, &entry.name, &file) {
            Verdict::Unknown if file.seen.elapsed() < COPY_WAIT && !self.is_stopping() => {
                self.aside.push(file)
            }
            Verdict::Copy(original) => {
                if file.original.is_none() {
                    tracing::info!(path = %file.path.display(), of = %original.path().display(), "a copy is not read by itself");
                    original.set_copy(file.source.clone(), file.inode);
                }
                file.original = Some(original);
                self.aside.push(file);
            }
            Verdict::New | Verdict::Unknown => found.files.push((entry.name.clone(), file)),
        }
    }

    fn is_stopping(&self) -> bool {
        self.discovery.stop.load(Ordering::Relaxed)
    }

    fn judge(&self, index: usize, name: &str, file: &Aside) -> Verdict {
        if let Some(known) = &file.original {
            // Once the other one is truncated there is nothing left to compare with: what was a copy is one.
            let is_copy =
                known.source().is_none() || known.is_truncated() || known.is_copied_in(&file.source);
            return if is_copy { Verdict::Copy(known.clone()) } else { Verdict::New };
        }
        let streams = self.pods.get(self.directories[index].path.as_os_str());
        let written = original(OsStr::new(name)).and_then(|base| streams?.get(OsStr::new(base)));
        let newest = written.and_then(|known| known.container.generations().pop());
        let Some(newest) = newest else { return Verdict::New };
        newest.identify_by_file();
        if newest.identity().is_none() {
            return Verdict::New;
        }
        match Identity::of_file(&file.source) {
            None => Verdict::Unknown,
            identity if identity == newest.identity() && newest.is_copied_in(&file.source) => {
                Verdict::Copy(newest)
            }
            _ => Verdict::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_name_tells_what_was_rotated() {
        for (name, expected) in [
            ("app.log.1", Some("app.log")),
            ("app.log-20261124", Some("app.log")),
            ("app.log.2026-11-24T10:00", Some("app.log")),
            ("app.log_3", Some("app.log")),
            ("app.log", None),
            ("app-2026.log", None),
            ("app.log.err", None),
            ("app.log.", None),
            (".1", None),
        ] {
            assert_eq!(original(OsStr::new(name)), expected, "{name}");
        }
    }
}
