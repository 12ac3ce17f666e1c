//! The files of one container: which of them are known, which are new, and where each output begins in those.

use std::ffi::OsString;
use std::fs::DirEntry;
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rustix::io::Errno;

use super::Tree;
use crate::config::ReadFrom;
use crate::logs::container::Container;
use crate::logs::discover::copies::original_path;
use crate::logs::generation::{Generation, Opened};
use crate::logs::layout::LogName;
use crate::logs::source::Source;
use crate::logs::start;

/// A log file in a directory.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    name: LogName,
    /// None for a link: what it leads to has another.
    inode: Option<u64>,
    path: PathBuf,
}

impl Tree {
    /// Brings the list of generations up to date with what the directory holds; says what could not be opened.
    ///
    /// Between the listing and the opening, the kubelet may have rotated: then a name is another file's, or nobody's. What
    /// is newer must not be read before it, since lines are joined across files in their order: nothing more is opened
    /// until the directory is listed again, for which that change is the event. The same while there is no descriptor
    /// left. A file that cannot be opened at all is passed over, and what comes next is behind a gap.
    pub(super) fn update_generations(
        &mut self,
        container: &Arc<Container>,
        files: Vec<Listed>,
    ) -> Option<String> {
        let mut problem = None;
        let (mut outdated, mut skipped) = (false, false);
        let mut generations = container.generations();
        let known = generations.len();
        let mut listed = vec![false; known];
        for Listed { name, inode, path } in files {
            let mut found = find(&generations, &name, inode);
            if found.is_none() && !outdated {
                match self.open(container, &name, &path) {
                    Ok(opened) if inode.is_some_and(|inode| inode != opened.inode().1) => outdated = true,
                    Ok(opened) => {
                        // The reader may not have come to their first lines yet.
                        generations.iter().for_each(|known| known.identify_by_file());
                        found = same_file(&generations, &opened);
                        if found.is_none() {
                            if std::mem::take(&mut skipped) {
                                opened.set_behind_gap();
                            }
                            self.set_start(&opened);
                            generations.push(Arc::new(opened));
                        }
                    }
                    Err(error) => {
                        // What is no regular file is none that was read.
                        if error.kind() != io::ErrorKind::InvalidInput {
                            self.unseen.in_pod_of(container);
                        }
                        let starved = error.raw_os_error() == Some(Errno::MFILE.raw_os_error());
                        self.starved |= starved;
                        outdated = starved || error.kind() == io::ErrorKind::NotFound;
                        skipped = !outdated;
                        if error.kind() != io::ErrorKind::NotFound {
                            problem = Some(format!("cannot open {}: {error}", path.display()));
                        }
                    }
                }
            }
            if let Some(index) = found {
                generations[index].seen_as(name, path);
                if let Some(listed) = listed.get_mut(index) {
                    *listed = true;
                }
            }
        }
        if outdated {
            self.unseen.in_pod_of(container);
        }
        let gone = generations.iter().zip(listed).filter(|(_, listed)| !listed);
        gone.for_each(|(generation, _)| generation.seen_gone());
        // Merged, not replaced: meanwhile the reader may have put another in the place of a truncated one. What is known
        // keeps its order, in which it is read: a file that is not listed any more has the name that it had before.
        container.update(|list| {
            for new in generations.drain(known..) {
                let is_newer = |one: &Arc<Generation>| one.is_listed() && one.name() > new.name();
                let place = list.iter().position(is_newer).unwrap_or(list.len());
                // The oldest are deleted first: where the one before is there, so is all that came between.
                if list[..place].last().is_some_and(|before| !before.is_listed()) {
                    new.set_behind_gap();
                }
                list.insert(place, new);
            }
            list.retain(|one| one.is_listed() || one.source().is_some() || one.backlog() > 0);
        });
        problem
    }

    fn open(&self, container: &Container, name: &LogName, path: &Path) -> io::Result<Generation> {
        let root = self.root.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let opened = root.open_log(path)?;
        let source = if name.gzip { Source::gzip(opened.file) } else { Source::plain(opened.file) };
        let generation = Generation::new(
            Opened {
                container: container.path.clone(),
                namespace_account: container.namespace_account.clone(),
                inode: opened.inode,
                name: name.clone(),
                path: path.to_owned(),
                source: Some(Arc::new(source)),
            },
            self.discovery.config.logs.outputs.len(),
        );
        generation.identify_by_file();
        generation.refresh();
        Ok(generation)
    }

    /// Where each output begins: where the last run left off, else as `read_from` says for files that an output finds
    /// at its first start, else at the first byte.
    pub(super) fn set_start(&self, generation: &Generation) {
        let mut all_saved = self.discovery.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let is_plain = generation.container().is_plain();
        let copied = || original_path(&generation.path()).filter(|_| is_plain);
        let saved = all_saved
            .take(generation)
            .or_else(|| copied().and_then(|path| all_saved.take_original(generation, &path)));
        for (index, output) in self.discovery.config.logs.outputs.iter().enumerate() {
            let offsets = match saved.as_ref().and_then(|saved| saved.offsets(&output.name)) {
                Some(offsets) => {
                    generation.skip_events(offsets);
                    offsets
                }
                None if self.first_scan && !all_saved.knows_output(&output.name) => {
                    let start = match self.discovery.config.logs.read_from {
                        ReadFrom::Beginning => 0,
                        ReadFrom::End => start::at_end(generation),
                        ReadFrom::Since(age) => start::since(generation, age),
                    };
                    [start; 3]
                }
                None => [0; 3],
            };
            generation.resume(index, offsets);
        }
        if let Some(saved) = saved {
            let names: Vec<&str> =
                self.discovery.config.logs.outputs.iter().map(|output| output.name.as_str()).collect();
            generation.set_unknown(saved.unknown_to(&names));
        }
    }
}

/// The generation that a directory entry is: by inode while it is open (then the inode cannot be used again), by name
/// when it is closed, or by its time stamp when the kubelet has compressed it.
fn find(generations: &[Arc<Generation>], name: &LogName, inode: Option<u64>) -> Option<usize> {
    generations.iter().position(|generation| {
        let known = generation.name();
        let same_inode =
            inode == Some(generation.inode().1) && (generation.source().is_some() || known == *name);
        let compressed =
            name.gzip && known.restart == name.restart && known.stamp.is_some() && known.stamp == name.stamp;
        same_inode || compressed
    })
}

/// The generation that a newly opened file is after all: reached through a link, or compressed under a name that was
/// never seen.
fn same_file(generations: &[Arc<Generation>], opened: &Generation) -> Option<usize> {
    generations.iter().position(|generation| {
        // Two without a first line have nothing in common.
        let same_line = opened.identity().is_some() && generation.identity() == opened.identity();
        let same_inode = generation.inode() == opened.inode() && (generation.source().is_some() || same_line);
        same_inode || (same_line && generation.restart == opened.restart && opened.name().gzip)
    })
}

pub(super) fn directories(path: &Path) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(path)?.filter_map(Result::ok);
    Ok(entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect())
}

pub(super) fn list_logs(directory: &Path) -> io::Result<Vec<Listed>> {
    let listed = |entry: DirEntry| {
        let name = LogName::parse(entry.file_name().to_str()?)?;
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        Some(Listed { name, inode: (!is_link).then(|| entry.ino()), path: entry.path() })
    };
    let mut files: Vec<_> = std::fs::read_dir(directory)?.filter_map(Result::ok).filter_map(listed).collect();
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

#[cfg(test)]
mod tests;
