//! One container's log directory, as discovery, its reader and the admin server share it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::account::NamespaceAccount;
use crate::logs::generation::Generation;
use crate::logs::layout::ContainerPath;
use crate::logs::settings::Settings;

/// A container. Discovery writes, the others read the latest value.
#[derive(Debug)]
pub struct Container {
    /// What its path says.
    pub path: Arc<ContainerPath>,
    /// Its log directory.
    pub directory: PathBuf,
    /// The counters of its namespace.
    pub namespace_account: NamespaceAccount,
    generations: Mutex<Vec<Arc<Generation>>>,
    settings: Mutex<Arc<Settings>>,
    problem: Mutex<Option<String>>,
    directory_gone: AtomicBool,
}

// === impl Container ===

impl Container {
    /// A container without files.
    pub fn new(
        path: Arc<ContainerPath>,
        directory: PathBuf,
        namespace_account: NamespaceAccount,
        settings: Settings,
    ) -> Self {
        Container {
            path,
            directory,
            namespace_account,
            generations: Mutex::default(),
            settings: Mutex::new(Arc::new(settings)),
            problem: Mutex::default(),
            directory_gone: AtomicBool::new(false),
        }
    }

    /// Its generations, oldest first.
    pub fn generations(&self) -> Vec<Arc<Generation>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the list of generations.
    pub fn update<T>(&self, change: impl FnOnce(&mut Vec<Arc<Generation>>) -> T) -> T {
        change(&mut self.generations.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a generation in the place of another: discovery may have added newer ones meanwhile, and their order is that
    /// in which they are read.
    pub fn replace(&self, old: &Arc<Generation>, new: Arc<Generation>) {
        self.update(|generations| {
            if let Some(place) = generations.iter_mut().find(|generation| Arc::ptr_eq(generation, old)) {
                *place = new;
            }
        });
    }

    /// Puts a generation behind another.
    pub fn insert_behind(&self, old: &Arc<Generation>, new: Arc<Generation>) {
        self.update(|generations| {
            let place = generations.iter().position(|generation| Arc::ptr_eq(generation, old));
            generations.insert(place.map_or(generations.len(), |place| place + 1), new);
        });
    }

    /// How its lines are handled now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on its lines are handled so.
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    /// While its pod is not known, its records are counted where those of the same container were before.
    pub fn go_on_counting(&self, before: &Container) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(settings) = Arc::get_mut(&mut settings)
            && settings.events.is_none()
        {
            settings.events.clone_from(&before.settings().events);
        }
    }

    /// Why a file of it cannot be read.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets why a file of it cannot be read; true when that is news.
    pub fn set_problem(&self, problem: Option<String>) -> bool {
        let mut current = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *current != problem;
        *current = problem;
        is_news
    }

    /// Whether the directory has been removed: no line will follow.
    pub fn is_gone(&self) -> bool {
        self.directory_gone.load(Ordering::Relaxed)
    }

    /// The directory is there, or not any more.
    pub fn set_gone(&self, gone: bool) {
        self.directory_gone.store(gone, Ordering::Relaxed);
    }
}

/// All containers of the node, and for each reader those of which something has changed.
#[derive(Debug)]
pub struct Inventory {
    containers: Mutex<Vec<Arc<Container>>>,
    /// Why a directory of a sidecar's files cannot be listed.
    unlisted: Mutex<BTreeMap<PathBuf, String>>,
    readers: Vec<Inbox>,
}

/// What a reader has yet to look at: latest values, so at most one entry for each container.
#[derive(Debug)]
pub struct Inbox {
    changed: Mutex<Vec<Arc<Container>>>,
    /// Wakes the reader.
    pub wake: Arc<crate::wake::Wake>,
}

// === impl Inventory ===

impl Inventory {
    /// An empty one for the readers that these wake.
    pub fn new(wakes: Vec<Arc<crate::wake::Wake>>) -> Self {
        let readers = wakes.into_iter().map(|wake| Inbox { changed: Mutex::default(), wake }).collect();
        Inventory { containers: Mutex::default(), unlisted: Mutex::default(), readers }
    }

    /// The containers.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a directory of a sidecar's files cannot be listed.
    pub fn unlisted(&self, directory: &Path) -> Option<String> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner).get(directory).cloned()
    }

    /// Sets why a directory of a sidecar's files cannot be listed; true when that is news.
    pub fn set_unlisted(&self, directory: &Path, problem: Option<String>) -> bool {
        let mut unlisted = self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = unlisted.get(directory) != problem.as_ref();
        match problem {
            Some(problem) => unlisted.insert(directory.to_owned(), problem),
            None => unlisted.remove(directory),
        };
        is_news
    }

    /// Adds a container.
    pub fn add(&self, container: Arc<Container>) {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner).push(container);
    }

    /// Removes a container.
    pub fn remove(&self, container: &Arc<Container>) {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| !Arc::ptr_eq(other, container));
        self.changed(container);
    }

    /// Tells the container's reader to look at it again.
    pub fn changed(&self, container: &Arc<Container>) {
        let inbox = &self.readers[self.reader_of(&container.path)];
        let mut changed = inbox.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if !changed.iter().any(|other| Arc::ptr_eq(other, container)) {
            changed.push(container.clone());
        }
        drop(changed);
        inbox.wake.wake();
    }

    /// What has changed for a reader since it last asked.
    pub fn take_changed(&self, reader: usize) -> Vec<Arc<Container>> {
        std::mem::take(&mut *self.readers[reader].changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The wake-up of a reader.
    pub fn wake(&self, reader: usize) -> &Arc<crate::wake::Wake> {
        &self.readers[reader].wake
    }

    /// All containers of a pod belong to one reader, so that joins need no locks; of a sidecar's files, each by itself.
    fn reader_of(&self, path: &ContainerPath) -> usize {
        let bytes = path.uid.bytes().chain(path.file.iter().flat_map(|file| file.bytes()));
        let hash = bytes.fold(0usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        hash % self.readers.len()
    }
}
