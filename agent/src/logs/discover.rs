//! What there is to read: containers and the generations of their logs, and the settings that apply to them.
//!
//! The file system says what exists. Every event only says which directory to list again, so that a lost one costs
//! time and nothing else; a rescan a minute makes up for it. Files are opened on sight: whoever deletes them later
//! cannot take what is unread.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::checkpoint::account::{Accounts, DropReason};
use crate::checkpoint::store::Saved;
use crate::cluster::Store;
use crate::config::{Config, MetadataSource, ReadFrom};
use crate::logs::container::{Container, Inventory};
use crate::logs::generation::{Generation, IDENTITY_BYTES, Opened};
use crate::logs::layout::{ContainerPath, LogName};
use crate::logs::metrics::LogMetrics;
use crate::logs::open::Root;
use crate::logs::settings::{Metadata, Settings};
use crate::logs::source::Source;
use crate::logs::start;
use crate::logs::watch::{Watcher, wait};
use crate::wake::Wake;

/// The rescan that makes up for a lost event.
const RESCAN: Duration = Duration::from_secs(60);
/// The rescan while a directory cannot be watched.
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
    /// Where the last run left off.
    pub saved: Saved,
    /// Counters.
    pub accounts: Accounts,
    /// Counters.
    pub metrics: LogMetrics,
    /// Wakes this thread: pods have changed, or it shall stop.
    pub wake: Arc<Wake>,
    /// Set when it shall stop.
    pub stop: Arc<std::sync::atomic::AtomicBool>,
    /// Name or UID of the pod this process runs in.
    pub own_pod: Option<String>,
}

/// The tree as last listed.
struct Tree {
    discovery: Discovery,
    watcher: Watcher,
    root: Option<Root>,
    pods: HashMap<OsString, HashMap<OsString, Known>>,
    watches: HashMap<i32, Watched>,
    unwatched: bool,
    pods_version: Option<u64>,
    first_scan: bool,
}

struct Known {
    container: Arc<Container>,
    seen: Instant,
    waited: bool,
}

#[derive(Clone, Debug)]
enum Watched {
    Root,
    Pod(OsString),
    Container(OsString, OsString),
}

// === impl Discovery ===

impl Discovery {
    /// Runs until it is stopped; `containers` are those of the run before a reload, their files still open.
    ///
    /// # Errors
    /// When there is no inotify instance left.
    pub fn run(self, containers: Vec<Arc<Container>>, scanned: impl FnOnce()) -> io::Result<()> {
        let mut tree = Tree {
            discovery: self,
            watcher: Watcher::new()?,
            root: None,
            pods: HashMap::new(),
            watches: HashMap::new(),
            unwatched: false,
            pods_version: None,
            first_scan: true,
        };
        tree.adopt(containers);
        tree.rescan();
        tree.count_lost();
        tree.first_scan = false;
        scanned();
        let mut rescanned = Instant::now();
        while !tree.discovery.stop.load(Ordering::Relaxed) {
            tree.resolve_settings();
            let holds_deleted = tree.keep_deleted_within_budget();
            let rescan = if tree.unwatched || tree.root.is_none() { POLL } else { RESCAN };
            let mut timeout = rescan.saturating_sub(rescanned.elapsed());
            if holds_deleted || tree.awaits_metadata() {
                timeout = timeout.min(Duration::from_millis(200));
            }
            wait(&[tree.watcher.as_fd(), tree.discovery.wake.as_fd()], Some(timeout));
            tree.discovery.wake.take();
            let overflow = tree.follow_changes();
            if overflow || rescanned.elapsed() >= rescan {
                tree.rescan();
                rescanned = Instant::now();
            }
        }
        Ok(())
    }
}

// === impl Tree ===

impl Tree {
    /// Takes over the files of the run before a reload, open as they are; the outputs may be others now.
    fn adopt(&mut self, containers: Vec<Arc<Container>>) {
        for old in containers {
            let Some(pod) = old.directory.parent().and_then(Path::file_name).map(OsString::from) else {
                continue;
            };
            let Some(name) = old.directory.file_name().map(OsString::from) else { continue };
            let Some(container) = self.register(&pod, &name, old.directory.clone()) else { continue };
            for generation in old.generations() {
                let generation = generation.for_outputs(self.discovery.config.logs.outputs.len());
                self.set_start(&generation);
                container.update(|generations| generations.push(Arc::new(generation)));
            }
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
        self.unwatched = false;
        self.scan_root();
        let pods: Vec<OsString> = self.pods.keys().cloned().collect();
        for pod in pods {
            self.scan_pod(&pod);
            let names: Vec<OsString> =
                self.pods.get(&pod).map(|pod| pod.keys().cloned().collect()).unwrap_or_default();
            for name in names {
                self.scan_container(&pod, &name);
            }
        }
        let paths = self.pods.values().flat_map(HashMap::values).map(|known| &known.container.path);
        let on_disk: std::collections::HashSet<(&str, &str, &str)> =
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

    fn scan_root(&mut self) {
        let path = self.discovery.config.logs.root.clone();
        if self.root.is_none() {
            match Root::open(&path) {
                Ok(root) => self.root = Some(root),
                Err(error) => {
                    if self.first_scan {
                        tracing::warn!(root = %path.display(), %error, "cannot open logs.root, trying again every second; mount it or correct the path");
                    }
                    return;
                }
            }
        }
        self.watch(&path, Watched::Root);
        let present = directories(&path).unwrap_or_default();
        for pod in &present {
            if !self.pods.contains_key(pod) {
                self.pods.insert(pod.clone(), HashMap::new());
                self.scan_pod(pod);
            }
        }
        let gone: Vec<OsString> = self.pods.keys().filter(|pod| !present.contains(pod)).cloned().collect();
        for pod in gone {
            self.scan_pod(&pod);
        }
    }

    fn scan_pod(&mut self, pod: &OsString) {
        let directory = self.discovery.config.logs.root.join(pod);
        self.watch(&directory, Watched::Pod(pod.clone()));
        let present = directories(&directory).unwrap_or_default();
        for name in &present {
            if self.pods.get(pod).is_some_and(|containers| !containers.contains_key(name)) {
                self.add_container(pod, name, directory.join(name));
            }
        }
        let containers = self.pods.get(pod).map(|containers| containers.keys().cloned().collect::<Vec<_>>());
        for name in containers.unwrap_or_default() {
            if !present.contains(&name) {
                self.scan_container(pod, &name);
            }
        }
        if self.pods.get(pod).is_some_and(HashMap::is_empty) && !directory.exists() {
            self.pods.remove(pod);
        }
    }

    fn add_container(&mut self, pod: &OsString, name: &OsString, directory: PathBuf) {
        if self.register(pod, name, directory).is_some() {
            self.scan_container(pod, name);
        }
    }

    fn register(&mut self, pod: &OsString, name: &OsString, directory: PathBuf) -> Option<Arc<Container>> {
        let Some(path) = ContainerPath::parse(pod.to_str()?, name.to_str()?) else {
            tracing::debug!(directory = %directory.display(), "not the log directory of a container");
            return None;
        };
        let discovery = &self.discovery;
        let metadata = discovery.metadata(&path, false);
        let settings = Settings::resolve(&discovery.config, &path, &metadata, discovery.own_pod.as_deref());
        let account = discovery.accounts.namespace(&path.namespace);
        let container = Arc::new(Container::new(Arc::new(path), directory, account, settings));
        discovery.inventory.add(container.clone());
        let known = Known { container: container.clone(), seen: Instant::now(), waited: false };
        self.pods.entry(pod.clone()).or_default().insert(name.clone(), known);
        Some(container)
    }

    fn scan_container(&mut self, pod: &OsString, name: &OsString) {
        let Some(container) =
            self.pods.get(pod).and_then(|pod| pod.get(name)).map(|known| known.container.clone())
        else {
            return;
        };
        self.watch(&container.directory, Watched::Container(pod.clone(), name.clone()));
        let mut problem = None;
        match list_logs(&container.directory) {
            Ok(files) => {
                container.set_gone(false);
                problem = self.update_generations(&container, files);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                container.set_gone(true);
                self.update_generations(&container, Vec::new());
                if container.generations().is_empty() {
                    self.discovery.inventory.remove(&container);
                    self.pods.get_mut(pod).map(|containers| containers.remove(name));
                    return;
                }
            }
            Err(error) => {
                problem =
                    Some(format!("cannot list {}: {error}; grant read access", container.directory.display()))
            }
        }
        if container.set_problem(problem.clone())
            && let Some(problem) = problem
        {
            tracing::warn!(
                namespace = container.path.namespace,
                pod = container.path.pod,
                problem,
                "a container's logs cannot be read"
            );
        }
        self.discovery.inventory.changed(&container);
    }

    /// Brings the list of generations up to date with what the directory holds; says what could not be opened.
    fn update_generations(
        &mut self,
        container: &Arc<Container>,
        files: Vec<(LogName, u64, PathBuf)>,
    ) -> Option<String> {
        let mut problem = None;
        let mut generations = container.generations();
        let known_before = generations.len();
        let mut listed = vec![false; known_before];
        for (name, inode, path) in files {
            if let Some(index) = find(&generations, &name, inode) {
                generations[index].seen_as(name, path);
                if let Some(listed) = listed.get_mut(index) {
                    *listed = true;
                }
                continue;
            }
            match self.open(container, &name, &path) {
                Ok(generation) => match same_file(&generations, &generation) {
                    Some(index) => {
                        generations[index].seen_as(name, path);
                        if let Some(listed) = listed.get_mut(index) {
                            *listed = true;
                        }
                    }
                    None => {
                        self.set_start(&generation);
                        generations.push(Arc::new(generation));
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => problem = Some(format!("cannot open {}: {error}", path.display())),
            }
        }
        for (generation, listed) in generations.iter().zip(listed) {
            if !listed {
                generation.seen_gone();
            }
        }
        generations.retain(|generation| {
            generation.is_listed() || generation.source().is_some() || generation.backlog() > 0
        });
        container.update(|list| *list = generations);
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
                source: Arc::new(source),
            },
            self.discovery.config.logs.outputs.len(),
        );
        if let Some(source) = generation.source() {
            let mut start = [0; IDENTITY_BYTES];
            let read = source.read_at(&mut start, 0)?;
            generation.identify(&start[..read]);
            generation.refresh();
        }
        Ok(generation)
    }

    /// Where each output begins: where the last run left off, else as `read_from` says for files that an output finds
    /// at its first start, else at the first byte.
    fn set_start(&mut self, generation: &Generation) {
        let saved = self.discovery.saved.take(generation);
        for (index, output) in self.discovery.config.logs.outputs.iter().enumerate() {
            let offset = match saved.as_ref().and_then(|saved| saved.offset(&output.name)) {
                Some(offset) => offset,
                None if self.first_scan && !self.discovery.saved.knows_output(&output.name) => {
                    match self.discovery.config.logs.read_from {
                        ReadFrom::Beginning => 0,
                        ReadFrom::End => start::at_end(generation),
                        ReadFrom::Since(age) => start::since(generation, age),
                    }
                }
                None => 0,
            };
            generation.resume(index, offset);
        }
        if let Some(saved) = saved {
            let names: Vec<&str> =
                self.discovery.config.logs.outputs.iter().map(|output| output.name.as_str()).collect();
            generation.set_unknown(saved.unknown_to(&names));
        }
    }

    /// What a checkpoint knows and the disk does not have any more is lost, and counted.
    fn count_lost(&mut self) {
        if self.root.is_none() {
            return;
        }
        let outputs = &self.discovery.config.logs.outputs;
        for lost in self.discovery.saved.take_missing() {
            for output in outputs {
                let Some(bytes) = lost
                    .offset(&output.name)
                    .map(|offset| lost.size.saturating_sub(offset))
                    .filter(|bytes| *bytes > 0)
                else {
                    continue;
                };
                tracing::warn!(
                    output = output.name,
                    namespace = lost.namespace,
                    pod = lost.pod,
                    container = lost.container,
                    bytes,
                    "a log file was deleted while no agent ran; its unread end is lost"
                );
                let account = self.discovery.accounts.output(&output.name);
                account.read(bytes);
                account.give_up(
                    &self.discovery.accounts.namespace(&lost.namespace),
                    DropReason::LostUnlinked,
                    0,
                    bytes,
                );
            }
        }
    }

    fn awaits_metadata(&self) -> bool {
        self.pods
            .values()
            .flat_map(HashMap::values)
            .any(|known| !known.waited && known.container.settings().pod.is_none())
    }

    /// Resolves the settings of containers whose pod is news, or has been waited for long enough.
    fn resolve_settings(&mut self) {
        let version = self.discovery.pods.version();
        let is_news = self.pods_version.replace(version) != Some(version);
        let wait = self.discovery.config.kubernetes.metadata_wait;
        for known in self.pods.values_mut().flat_map(HashMap::values_mut) {
            let path = &known.container.path;
            let before = known.container.settings();
            let waited = known.seen.elapsed() >= wait;
            let waited_long_enough = waited && !known.waited && before.pod.is_none();
            known.waited |= waited;
            if !is_news && !waited_long_enough {
                continue;
            }
            let metadata = self.discovery.metadata(path, known.waited);
            let same = match (&before.pod, metadata.pod()) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                // A pod that Kubernetes has forgotten keeps what was known of it.
                (Some(_), None) => true,
                (None, None) => !waited_long_enough,
                (None, Some(_)) => false,
            };
            if same {
                continue;
            }
            if matches!(metadata, Metadata::Missing) {
                self.discovery.metrics.metadata_partial.inc();
            }
            let settings =
                Settings::resolve(&self.discovery.config, path, &metadata, self.discovery.own_pod.as_deref());
            for problem in settings.problems.iter().filter(|problem| !before.problems.contains(problem)) {
                tracing::warn!(
                    namespace = path.namespace,
                    pod = path.pod,
                    container = path.container,
                    problem,
                    "an annotation is ignored"
                );
            }
            known.container.set_settings(settings);
            self.discovery.inventory.changed(&known.container);
        }
    }

    /// Gives up deleted files, oldest first, of the pod that holds most, while all together hold more than
    /// `held_deleted`. True while any deleted file is held.
    fn keep_deleted_within_budget(&self) -> bool {
        let mut held: HashMap<&str, (u64, Vec<Arc<Generation>>)> = HashMap::new();
        for known in self.pods.values().flat_map(HashMap::values) {
            for generation in known.container.generations() {
                if !generation.is_listed() && !generation.is_given_up() && generation.refresh() == Some(true)
                {
                    let (bytes, generations) = held.entry(&known.container.path.uid).or_default();
                    *bytes += generation.backlog();
                    generations.push(generation);
                }
            }
        }
        let any = !held.is_empty();
        let mut total: u64 = held.values().map(|(bytes, _)| bytes).sum();
        self.discovery.metrics.deleted_bytes_held.set(i64::try_from(total).unwrap_or(i64::MAX));
        while total > self.discovery.config.logs.held_deleted {
            let Some((bytes, generations)) = held.values_mut().max_by_key(|(bytes, _)| *bytes) else { break };
            if generations.is_empty() {
                break;
            }
            let oldest = generations.remove(0);
            let freed = oldest.backlog();
            tracing::warn!(path = %oldest.path().display(), bytes = freed, limit = self.discovery.config.logs.held_deleted,
                "deleted files hold more than logs.held_deleted; the oldest of the largest pod is given up");
            oldest.give_up();
            *bytes -= freed;
            total -= freed;
        }
        any
    }
}

impl Discovery {
    fn metadata(&self, path: &ContainerPath, waited: bool) -> Metadata {
        match self.pods.pod(&path.namespace, &path.pod, &path.uid) {
            Some(pod) => Metadata::Known(pod),
            None if self.config.kubernetes.source == MetadataSource::None => Metadata::NotAsked,
            None if waited => Metadata::Missing,
            None => Metadata::Awaited,
        }
    }
}

/// The generation that a directory entry is: by inode while it is open (then the inode cannot be used again), by name
/// when it is closed, or by its time stamp when the kubelet has compressed it.
fn find(generations: &[Arc<Generation>], name: &LogName, inode: u64) -> Option<usize> {
    generations.iter().position(|generation| {
        let known = generation.name();
        let same_inode = generation.inode.1 == inode && (generation.source().is_some() || known == *name);
        let compressed =
            name.gzip && known.restart == name.restart && known.stamp.is_some() && known.stamp == name.stamp;
        same_inode || compressed
    })
}

/// The generation that a newly opened file is after all: reached through a link, or compressed under a name that was
/// never seen.
fn same_file(generations: &[Arc<Generation>], opened: &Generation) -> Option<usize> {
    generations.iter().position(|generation| {
        let same_inode = generation.inode == opened.inode && generation.source().is_some();
        let same_content = opened.identity().is_some()
            && generation.identity() == opened.identity()
            && generation.restart == opened.restart;
        same_inode || (same_content && opened.name().gzip)
    })
}

fn directories(path: &Path) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(path)?.filter_map(Result::ok);
    Ok(entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect())
}

fn list_logs(directory: &Path) -> io::Result<Vec<(LogName, u64, PathBuf)>> {
    let mut files: Vec<_> = std::fs::read_dir(directory)?
        .filter_map(Result::ok)
        .filter_map(|entry| Some((LogName::parse(entry.file_name().to_str()?)?, entry.ino(), entry.path())))
        .collect();
    files.sort();
    Ok(files)
}
