//! What there is to read: containers and the generations of their logs, and the settings that apply to them.
//!
//! The file system says what exists. Every event only says which directory to list again, so that a lost one costs
//! time and nothing else; a rescan a minute makes up for it. Files are opened on sight: whoever deletes them later
//! cannot take what is unread.

mod copies;
mod files;
mod losses;
mod plain;
mod settings;
mod tree;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sidelight_runtime::progress::Heartbeat;

use crate::checkpoint::account::Accounts;
use crate::checkpoint::store::Saved;
use crate::cluster::Store;
use crate::config::Config;
use crate::logs::container::{Container, Inventory};
use crate::logs::discover::copies::Aside;
use crate::logs::discover::plain::{Directory, directories_of};
use crate::logs::discover::settings::report_problems;
use crate::logs::events::Events;
use crate::logs::generation::Generation;
use crate::logs::layout::ContainerPath;
use crate::logs::metrics::LogMetrics;
use crate::logs::open::Root;
use crate::logs::watch::{Watcher, wait};
use crate::wake::Wake;

/// The rescan that makes up for a lost event.
const RESCAN: Duration = Duration::from_secs(60);
/// The rescan while a directory cannot be watched, or a file waits for a descriptor.
const POLL: Duration = Duration::from_secs(1);

/// What the discovery thread works with.
#[derive(Debug)]
pub struct Discovery {
    /// The configuration.
    pub config: Arc<Config>,
    /// Where containers are put.
    pub inventory: Arc<Inventory>,
    /// What Kubernetes says.
    pub pods: Store,
    /// Where the last run left off: what no file has claimed yet, which the checkpoints keep.
    pub saved: Arc<Mutex<Saved>>,
    /// Counters.
    pub accounts: Accounts,
    /// Counters.
    pub metrics: LogMetrics,
    /// Counters of records by level.
    pub events: Events,
    /// Wakes this thread: pods have changed, or it shall stop.
    pub wake: Arc<Wake>,
    /// Set when it shall stop.
    pub stop: Arc<AtomicBool>,
    /// Names and UIDs of the pod this process runs in.
    pub own_pod: Vec<String>,
    /// Says that it is alive.
    pub heartbeat: Arc<Heartbeat>,
}

/// The tree as last listed.
struct Tree {
    discovery: Discovery,
    watcher: Watcher,
    root: Option<Root>,
    /// By the pod's directory and the container's. In a sidecar, by the directory of files and the name of one.
    pods: HashMap<OsString, HashMap<OsString, Known>>,
    /// In a sidecar, the directories of `logs.files`.
    directories: Vec<Directory>,
    aside: Vec<Aside>,
    watches: HashMap<i32, Watched>,
    unwatched: bool,
    /// There was no descriptor left for a file.
    starved: bool,
    pods_version: Option<u64>,
    /// No listing of an open `logs.root` is done yet.
    first_scan: bool,
    /// It was said that `logs.root` cannot be opened.
    root_missing: bool,
    unseen: Unseen,
}

/// Where the listing that is going on has failed: what was not found there may still exist.
#[derive(Debug, Default)]
struct Unseen {
    /// `logs.root` itself could not be listed.
    everything: bool,
    /// Directories of pods in which something could not be listed or opened.
    pods: HashSet<PathBuf>,
}

struct Known {
    container: Arc<Container>,
    seen: Instant,
    waited: bool,
    /// Since when its newest file is gone and has this size.
    missing: Option<(Instant, u64)>,
}

#[derive(Clone, Debug)]
enum Watched {
    Root,
    Pod(OsString),
    Container(OsString, OsString),
    Files(usize),
}

// === impl Unseen ===

impl Unseen {
    fn in_pod_of(&mut self, container: &Container) {
        self.pods.extend(container.directory.parent().map(Path::to_owned));
    }
}

// === impl Discovery ===

impl Discovery {
    /// Runs until it is stopped; `containers` are those of the run before a reload, their files still open. Calls
    /// `scanned` when everything that exists at the start is known.
    pub fn run(self, containers: Vec<Arc<Container>>, scanned: impl FnOnce()) {
        let mut tree = Tree::new(self);
        tree.discovery.heartbeat.busy();
        tree.adopt(containers);
        tree.rescan();
        let mut scanned = Some(scanned);
        let mut rescanned = Instant::now();
        while !tree.discovery.stop.load(Ordering::Relaxed) {
            if let Some(scanned) = scanned.take_if(|_| tree.has_root()) {
                tree.first_scan = false;
                scanned();
            }
            tree.resolve_settings();
            let holds_deleted = tree.keep_deleted_within_budget();
            let polls = tree.unwatched || tree.starved || !tree.has_root();
            let rescan = if polls { POLL } else { RESCAN };
            let mut timeout = rescan.saturating_sub(rescanned.elapsed());
            if holds_deleted || tree.awaits_metadata() {
                timeout = timeout.min(Duration::from_millis(200));
            }
            if let Some(pause) = tree.look_at_unsettled() {
                timeout = timeout.min(pause);
            }
            tree.discovery.heartbeat.idle();
            wait(tree.watcher.descriptor().into_iter().chain([tree.discovery.wake.as_fd()]), Some(timeout));
            tree.discovery.heartbeat.busy();
            tree.discovery.wake.take();
            let overflow = tree.follow_changes();
            if overflow || rescanned.elapsed() >= rescan {
                tree.rescan();
                rescanned = Instant::now();
            }
        }
        if tree.discovery.config.sidecar {
            // What came last is read before the files go.
            tree.rescan();
        }
    }
}

// === impl Tree ===

impl Tree {
    fn new(discovery: Discovery) -> Self {
        Tree {
            directories: directories_of(&discovery.config.logs.files),
            aside: Vec::new(),
            discovery,
            watcher: Watcher::open(),
            root: None,
            pods: HashMap::new(),
            watches: HashMap::new(),
            unwatched: false,
            starved: false,
            pods_version: None,
            first_scan: true,
            root_missing: false,
            unseen: Unseen::default(),
        }
    }

    /// Whether there is anything to list; the directories of a sidecar's files may come later, each by itself.
    fn has_root(&self) -> bool {
        self.root.is_some() || self.discovery.config.sidecar
    }

    /// Takes over the files of the run before a reload, open as they are; the outputs may be others now.
    fn adopt(&mut self, containers: Vec<Arc<Container>>) {
        for old in containers {
            let Some((outer, inner)) = places(&old) else { continue };
            let container =
                self.register(outer, inner, ContainerPath::clone(&old.path), old.directory.clone());
            if self.discovery.config.logs.events {
                container.go_on_counting(&old);
            }
            for generation in old.generations() {
                let generation = generation.for_outputs(self.discovery.config.logs.outputs.len());
                self.set_start(&generation);
                container.update(|generations| generations.push(Arc::new(generation)));
            }
            self.discovery.inventory.changed(&container);
        }
    }

    /// Lists what has changed; true when the kernel lost events.
    fn follow_changes(&mut self) -> bool {
        let changes = self.watcher.changes();
        for watch in &changes.removed {
            self.watches.remove(watch);
        }
        for watch in changes.watches {
            match self.watches.get(&watch).cloned() {
                Some(Watched::Root) => self.scan_root(),
                Some(Watched::Pod(pod)) => self.scan_pod(&pod),
                Some(Watched::Container(pod, name)) => self.scan_container(&pod, &name),
                Some(Watched::Files(index)) => self.scan_directory(index),
                None => {}
            }
        }
        if changes.overflow {
            tracing::warn!("the kernel's inotify queue overflowed; listing everything again");
            self.discovery.metrics.watch_failures.inc();
        }
        changes.overflow
    }

    fn rescan(&mut self) {
        (self.unwatched, self.starved, self.unseen) = (false, false, Unseen::default());
        if self.discovery.config.sidecar {
            self.scan_directories();
        } else {
            self.scan_tree();
        }
        if self.has_root() {
            self.count_lost();
        }
        let paths = self.pods.values().flat_map(HashMap::values).map(|known| &known.container.path);
        let on_disk: HashSet<(&str, &str, &str)> =
            paths.map(|path| (path.namespace.as_str(), path.pod.as_str(), path.uid.as_str())).collect();
        self.discovery.pods.retain(&|namespace, name, uid| on_disk.contains(&(namespace, name, uid)));
    }

    /// A watch comes before the listing, so that nothing can slip in between.
    fn watch(&mut self, directory: &Path, watched: Watched) {
        match self.watcher.watch_directory(directory) {
            Ok(watch) => {
                self.watches.insert(watch, watched);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if !self.unwatched {
                    tracing::warn!(directory = %directory.display(), %error,
                        "cannot watch a directory, listing it every second instead; raise fs.inotify.max_user_watches or grant read access");
                }
                self.discovery.metrics.watch_failures.inc();
                self.unwatched = true;
            }
        }
    }

    /// Adds a container, at its two places in `pods`.
    fn register(
        &mut self,
        outer: OsString,
        inner: OsString,
        path: ContainerPath,
        directory: PathBuf,
    ) -> Arc<Container> {
        let discovery = &self.discovery;
        let metadata = discovery.metadata(&path, false);
        let settings = discovery.settings(&path, &metadata);
        report_problems(&path, &settings, &[]);
        let account = discovery.accounts.namespace(&path.namespace);
        let container = Arc::new(Container::new(Arc::new(path), directory, account, settings));
        discovery.inventory.add(container.clone());
        let (seen, container_known) = (Instant::now(), container.clone());
        let known = Known { container: container_known, seen, waited: false, missing: None };
        self.pods.entry(outer).or_default().insert(inner, known);
        container
    }
}

/// Where in `pods` a container of the run before belongs.
fn places(container: &Container) -> Option<(OsString, OsString)> {
    let Container { directory, path, .. } = container;
    let places = match &path.file {
        Some(file) => (directory.as_os_str(), Path::new(file).file_name()?),
        None => (directory.parent()?.file_name()?, directory.file_name()?),
    };
    Some((places.0.to_owned(), places.1.to_owned()))
}

/// Whether a listing has found nothing for the reader to do: the same files as before, and every byte of them read. Where
/// the directory is gone there is something to do: to close the files, once they are acknowledged.
fn is_idle(before: &[Arc<Generation>], container: &Container) -> bool {
    let now = container.generations();
    let is_read = |generation: &Arc<Generation>| {
        generation.refresh();
        generation.is_read()
    };
    !container.is_gone()
        && before.len() == now.len()
        && before.iter().zip(&now).all(|(before, now)| Arc::ptr_eq(before, now))
        && now.iter().all(is_read)
}
