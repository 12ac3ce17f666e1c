//! The files of a sidecar: what there is below its globs. Each path is a log of its own, and what was under it before and is
//! called otherwise now belongs to it.
//!
//! A file stays open for as long as it is there, so that its inode tells it from all others, whatever it is called.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sidelight_contract::sidecar::container_of;

use super::copies::{Aside, COPY_LOOK};
use super::{Tree, Watched, is_idle};
use crate::config::FileGlob;
use crate::logs::container::Container;
use crate::logs::generation::{Generation, Opened};
use crate::logs::layout::{ContainerPath, LogName};
use crate::logs::open::{Entry, Root};
use crate::logs::tail::LINGER;

/// A file that is gone is looked at this often, until nobody can be writing it.
const GONE_LOOK: Duration = Duration::from_secs(1);

pub(super) type Inode = (u64, u64);

/// A directory of `logs.files`.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    globs: Vec<FileGlob>,
    pub(super) root: Option<Root>,
    /// It was said that it has too many files.
    crowded: bool,
}

/// The directories of these globs.
pub(super) fn directories_of(globs: &[FileGlob]) -> Vec<Directory> {
    let mut directories: Vec<Directory> = Vec::new();
    for glob in globs {
        match directories.iter_mut().find(|directory| directory.path == glob.directory()) {
            Some(directory) => directory.globs.push(glob.clone()),
            None => directories.push(Directory {
                path: glob.directory().to_owned(),
                globs: vec![glob.clone()],
                root: None,
                crowded: false,
            }),
        }
    }
    directories
}

/// Where in the container a file is, and which that is, if the injector has mounted it.
fn path_in_container(path: &Path) -> (String, String) {
    let path = path.to_string_lossy();
    match container_of(&path) {
        Some((container, file)) => (container.to_owned(), file.to_owned()),
        None => (String::new(), path.into_owned()),
    }
}

// === impl Tree ===

impl Tree {
    /// Whether all that there is in a directory was seen in the last listing.
    pub(super) fn has_listed(&self, directory: &Path) -> bool {
        self.directories.iter().any(|known| known.path == directory) && !self.unseen.pods.contains(directory)
    }

    pub(super) fn scan_directories(&mut self) {
        (0..self.directories.len()).for_each(|index| self.scan_directory(index));
    }

    /// Lists a directory and opens what is new in it.
    pub(super) fn scan_directory(&mut self, index: usize) {
        self.discovery.heartbeat.beat();
        let path = self.directories[index].path.clone();
        let entries = match self.list(index) {
            Ok(entries) => entries,
            Err(error) => {
                self.cannot_list(&path, &error);
                if error.kind() != io::ErrorKind::NotFound {
                    return;
                }
                Vec::new()
            }
        };
        let streams = self.streams(&path);
        let before: Vec<_> = streams.iter().map(|stream| (stream.clone(), stream.generations())).collect();
        let known = self.open_generations();
        let mut found = Found::default();
        for entry in &entries {
            match known.get(&entry.inode) {
                Some(generation) => generation.seen_as(LogName::PLAIN, path.join(&entry.name)),
                None => self.look_at(index, entry, &known, &mut found),
            }
        }
        let present: HashSet<Inode> = entries.iter().map(|entry| entry.inode).collect();
        self.aside.retain(|aside| {
            aside.path.parent() != Some(&path)
                || (present.contains(&aside.inode) && !known.contains_key(&aside.inode))
        });
        let is_gone = |generation: &&Arc<Generation>| {
            generation.path().parent() == Some(&path) && !present.contains(&generation.inode())
        };
        known.values().filter(is_gone).for_each(|generation| generation.seen_gone());
        self.tell_crowded(index, found.too_many);
        self.add(&path, found);
        self.tell_changed(&path, &before);
    }

    fn list(&mut self, index: usize) -> io::Result<Vec<Entry>> {
        let directory = &mut self.directories[index];
        // Another may have been put in its place.
        if !directory.root.as_ref().is_some_and(Root::is_in_place) {
            directory.root = None;
            directory.root = Some(Root::open_of_app(&directory.path)?);
        }
        let Some(own_path) = directory.root.as_ref().map(Root::own_path) else { return Ok(Vec::new()) };
        self.watch(&own_path, Watched::Files(index));
        let Directory { path, globs, root, .. } = &self.directories[index];
        let Some(root) = root else { return Ok(Vec::new()) };
        let entries = root.entries(|name| globs.iter().any(|glob| glob.matches(name)))?;
        self.discovery.inventory.set_unlisted(path, None);
        Ok(entries)
    }

    /// It is listed every second until that succeeds.
    fn cannot_list(&mut self, directory: &Path, error: &io::Error) {
        self.unwatched = true;
        self.unseen.pods.insert(directory.to_owned());
        let problem = format!("cannot list {}: {error}{}", directory.display(), hint(error));
        if self.discovery.inventory.set_unlisted(directory, Some(problem.clone())) {
            tracing::warn!(problem, "a directory of logs.files is waited for");
        }
    }

    fn tell_crowded(&mut self, index: usize, is_crowded: bool) {
        let Directory { path, crowded, .. } = &mut self.directories[index];
        let is_news = std::mem::replace(crowded, is_crowded) != is_crowded;
        if is_crowded {
            let problem =
                format!("{} has more files than can be open; remove old ones, or name fewer", path.display());
            if is_news {
                tracing::warn!(problem, "files are not read");
            }
            self.discovery.inventory.set_unlisted(path, Some(problem));
        }
    }

    /// The logs of a directory.
    fn streams(&self, directory: &Path) -> Vec<Arc<Container>> {
        let streams = self.pods.get(directory.as_os_str()).into_iter().flat_map(HashMap::values);
        streams.map(|known| known.container.clone()).collect()
    }

    /// All files that are open, wherever they are by now.
    fn open_generations(&self) -> HashMap<Inode, Arc<Generation>> {
        let streams = self.pods.values().flat_map(HashMap::values);
        let generations = streams.flat_map(|known| known.container.generations());
        let open = generations.filter(|generation| generation.source().is_some());
        // Of two with one inode, the later: the earlier was truncated.
        open.map(|generation| (generation.inode(), generation)).collect()
    }

    pub(super) fn cannot_open(&mut self, index: usize, name: &str, error: &io::Error, found: &mut Found) {
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        let directory = self.directories[index].path.clone();
        // What is no regular file is none that was read.
        if error.kind() != io::ErrorKind::InvalidInput {
            self.unseen.pods.insert(directory.clone());
        }
        self.starved |= error.raw_os_error() == Some(Errno::MFILE.raw_os_error());
        let problem = format!("cannot open {}: {error}{}", directory.join(name).display(), hint(error));
        found.unreadable.insert(name.to_owned(), problem);
    }

    /// Adds what was found to the logs of the directory.
    fn add(&mut self, directory: &Path, found: Found) {
        let Found { files, unreadable, .. } = found;
        let mut fresh = Vec::new();
        for (name, Aside { path, inode, source, .. }) in files {
            let Some(container) = self.stream(directory, &name) else { continue };
            let opened = Opened {
                container: container.path.clone(),
                namespace_account: container.namespace_account.clone(),
                inode,
                name: LogName::PLAIN,
                path,
                source: Some(source),
            };
            let generation = Generation::new(opened, self.discovery.config.logs.outputs.len());
            generation.identify_by_file();
            generation.refresh();
            fresh.push((container, generation));
        }
        {
            let saved = self.discovery.saved.lock().unwrap_or_else(PoisonError::into_inner);
            // A copy is not to take what is saved of another file; of several, the oldest is the one of what was read.
            fresh.sort_by_key(|(_, generation)| (!saved.has(generation), generation.modified()));
        }
        for (container, generation) in fresh {
            self.set_start(&generation);
            container.set_gone(false);
            container.update(|list| list.push(Arc::new(generation)));
        }
        for name in unreadable.keys() {
            self.stream(directory, name);
        }
        for known in self.pods.get(directory.as_os_str()).into_iter().flat_map(HashMap::values) {
            let name = known.container.path.file_name();
            let problem = name.and_then(|name| unreadable.get(name)).cloned();
            if known.container.set_problem(problem.clone())
                && let Some(problem) = problem
            {
                tracing::warn!(problem, "a log file cannot be read");
            }
        }
    }

    /// The log that is written under this name.
    fn stream(&mut self, directory: &Path, name: &str) -> Option<Arc<Container>> {
        let key = (directory.as_os_str().to_owned(), OsString::from(name));
        if let Some(known) = self.pods.get(&key.0).and_then(|streams| streams.get(&key.1)) {
            return Some(known.container.clone());
        }
        let (container, file) = path_in_container(&directory.join(name));
        let pod = self.discovery.pods.present().pop()?;
        let path = ContainerPath {
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
            container,
            file: Some(file),
        };
        Some(self.register(key.0, key.1, path, directory.to_owned()))
    }

    /// Tells readers of what has changed in a directory, and forgets logs of which nothing is left.
    fn tell_changed(&mut self, directory: &Path, before: &[(Arc<Container>, Vec<Arc<Generation>>)]) {
        for container in self.streams(directory) {
            container.update(|list| {
                list.retain(|one| one.is_listed() || one.source().is_some() || one.backlog() > 0);
            });
            let name = container.path.file_name();
            if container.generations().is_empty() && container.problem().is_none() {
                container.set_gone(true);
                self.discovery.inventory.remove(&container);
                let streams = self.pods.get_mut(directory.as_os_str());
                streams.zip(name).map(|(streams, name)| streams.remove(OsStr::new(name)));
                continue;
            }
            let known = before.iter().find(|(stream, _)| Arc::ptr_eq(stream, &container));
            if !known.is_some_and(|(_, generations)| is_idle(generations, &container)) {
                self.discovery.inventory.changed(&container);
            }
        }
    }

    /// Looks at files that are aside, truncated or gone; says when to do it again.
    pub(super) fn look_at_unsettled(&mut self) -> Option<Duration> {
        if !self.discovery.config.sidecar {
            return None;
        }
        let undecided: HashSet<PathBuf> = self
            .aside
            .iter()
            .filter(|aside| aside.original.is_none())
            .filter_map(|aside| aside.path.parent().map(Path::to_owned))
            .collect();
        for index in 0..self.directories.len() {
            if undecided.contains(&self.directories[index].path) {
                self.scan_directory(index);
            }
        }
        let looks = [
            (!undecided.is_empty()).then_some(COPY_LOOK),
            self.close_gone().then_some(GONE_LOOK),
            self.look_for_truncated(),
        ];
        looks.into_iter().flatten().min()
    }

    /// A log of which the newest file is gone, deleted or renamed to what no glob means, ends when nobody has written to it for a
    /// while. True while there is one that has not ended.
    fn close_gone(&mut self) -> bool {
        let mut any = false;
        for known in self.pods.values_mut().flat_map(HashMap::values_mut) {
            let newest = known.container.generations().pop();
            let is_gone = |newest: &Arc<Generation>| !newest.is_listed() && newest.source().is_some();
            if newest.as_ref().is_some_and(|newest| newest.is_listed()) {
                known.container.set_gone(false);
            }
            let Some(newest) = newest.filter(is_gone) else {
                known.missing = None;
                continue;
            };
            any = true;
            newest.refresh();
            let (since, size) = *known.missing.get_or_insert((Instant::now(), newest.size()));
            if newest.size() != size {
                known.missing = Some((Instant::now(), newest.size()));
                known.container.set_gone(false);
            } else if since.elapsed() >= LINGER && !known.container.is_gone() {
                known.container.set_gone(true);
                self.discovery.inventory.changed(&known.container);
            }
        }
        any
    }
}

/// What a listing has found that was not known.
#[derive(Default)]
pub(super) struct Found {
    pub(super) files: Vec<(String, Aside)>,
    /// By name, why it cannot be opened.
    unreadable: HashMap<String, String>,
    /// There was no room for all.
    pub(super) too_many: bool,
}

// === impl Found ===

impl Found {
    pub(super) fn has(&self, inode: Inode) -> bool {
        self.files.iter().any(|(_, file)| file.inode == inode)
    }
}

/// What to do where a file or directory may not be read.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; give the pod an fsGroup that may read it, or the sidecar the runAsUser of the container that writes it"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_file_tells_its_container_and_its_path_there() {
        let place = |path: &str| path_in_container(Path::new(path));
        assert_eq!(place("/var/log/sidelight/web/srv/a.log"), ("web".to_owned(), "/srv/a.log".to_owned()));
        assert_eq!(place("/srv/a.log"), (String::new(), "/srv/a.log".to_owned()));
    }

    #[test]
    fn who_may_not_read_is_told_what_to_change() {
        assert!(hint(&io::Error::from(io::ErrorKind::PermissionDenied)).contains("fsGroup"));
        assert_eq!(hint(&io::Error::from(io::ErrorKind::NotFound)), "");
    }
}
