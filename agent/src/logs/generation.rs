//! One generation of a container's log: the bytes between two rotations, whatever its file is called meanwhile.

mod copy;
mod identity;
mod position;

pub use identity::{IDENTITY_BYTES, Identity};
pub use position::{Offsets, Unknown};

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use crate::checkpoint::account::NamespaceAccount;
use crate::logs::generation::position::{CountedEvents, HEADLESS, Position};
use crate::logs::layout::{ContainerPath, LogName};
use crate::logs::source::Source;
use crate::logs::split::Stream;

/// One generation, shared by discovery, its reader, the deliveries and the checkpoints. Offsets are in uncompressed
/// bytes.
#[derive(Debug)]
pub struct Generation {
    container: Arc<ContainerPath>,
    namespace_account: NamespaceAccount,
    /// Device and inode of the file.
    inode: Mutex<(u64, u64)>,
    /// A copy that was made of the file, for when it is truncated.
    copy: Mutex<Option<copy::Copy>>,
    truncated: AtomicBool,
    /// Restart count of the container.
    pub restart: u32,
    /// When it was first opened.
    pub opened: Instant,
    name: Mutex<LogName>,
    path: Mutex<PathBuf>,
    identity: OnceLock<Identity>,
    source: Mutex<Option<Arc<Source>>>,
    size: AtomicU64,
    listed: AtomicBool,
    behind_gap: AtomicBool,
    given_up: AtomicBool,
    /// Nobody reads beyond: where the file ended when the agent was told to stop.
    end: AtomicU64,
    positions: Box<[Position]>,
    events: CountedEvents,
    /// What a checkpoint of another version or config has of it.
    unknown: OnceLock<Unknown>,
}

/// What a generation is opened with.
#[derive(Debug)]
pub struct Opened {
    /// Its container.
    pub container: Arc<ContainerPath>,
    /// The counters of its namespace.
    pub namespace_account: NamespaceAccount,
    /// Device and inode.
    pub inode: (u64, u64),
    /// Its name now.
    pub name: LogName,
    /// Its path now.
    pub path: PathBuf,
    /// The open file.
    pub source: Option<Arc<Source>>,
}

// === impl Generation ===

impl Generation {
    /// A generation with one position for each output, all at 0.
    pub fn new(opened: Opened, outputs: usize) -> Self {
        Generation {
            container: opened.container,
            namespace_account: opened.namespace_account,
            inode: Mutex::new(opened.inode),
            copy: Mutex::default(),
            truncated: AtomicBool::new(false),
            restart: opened.name.restart,
            opened: Instant::now(),
            name: Mutex::new(opened.name),
            path: Mutex::new(opened.path),
            identity: OnceLock::new(),
            source: Mutex::new(opened.source),
            size: AtomicU64::new(0),
            listed: AtomicBool::new(true),
            behind_gap: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            end: AtomicU64::new(u64::MAX),
            positions: (0..outputs).map(|_| Position::new()).collect(),
            events: CountedEvents::default(),
            unknown: OnceLock::new(),
        }
    }

    /// What its checkpoint has that this run does not know.
    pub fn unknown(&self) -> &Unknown {
        self.unknown.get_or_init(Unknown::default)
    }

    /// Keeps what its checkpoint has that this run does not know.
    pub fn set_unknown(&self, unknown: Unknown) {
        let _ = self.unknown.set(unknown);
    }

    /// The same file from its first byte, after it was truncated: another generation.
    pub fn restarted(&self) -> Self {
        let restarted = self.again(self.positions.len());
        restarted.set_behind_gap();
        restarted
    }

    /// The same file for another set of outputs, positions at 0: after a reload.
    pub fn for_outputs(&self, outputs: usize) -> Self {
        let mut again = self.again(outputs);
        if let Some(identity) = self.identity() {
            again.identity = OnceLock::from(identity);
        }
        again.size = AtomicU64::new(self.size());
        again.listed = AtomicBool::new(self.is_listed());
        again.behind_gap = AtomicBool::new(self.is_behind_gap());
        again.skip_events(self.events.offsets());
        again
    }

    fn again(&self, outputs: usize) -> Self {
        let opened = Opened {
            container: self.container.clone(),
            namespace_account: self.namespace_account.clone(),
            inode: self.inode(),
            name: self.name(),
            path: self.path(),
            source: self.source(),
        };
        Generation { opened: self.opened, ..Generation::new(opened, outputs) }
    }

    /// Whose log it is.
    pub fn container(&self) -> &Arc<ContainerPath> {
        &self.container
    }

    /// The counters of its namespace.
    pub fn namespace_account(&self) -> &NamespaceAccount {
        &self.namespace_account
    }

    /// Device and inode of the file.
    pub fn inode(&self) -> (u64, u64) {
        *self.inode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name as last seen in the directory.
    pub fn name(&self) -> LogName {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its path as last seen.
    pub fn path(&self) -> PathBuf {
        self.path.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The directory was listed: the file is there under this name.
    pub fn seen_as(&self, name: LogName, path: PathBuf) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
        self.listed.store(true, Ordering::Relaxed);
    }

    /// The directory was listed and the file is not there any more.
    pub fn seen_gone(&self) {
        self.listed.store(false, Ordering::Relaxed);
    }

    /// Whether the file, or its compressed copy, was in the directory when it was last listed.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    /// Others may have come and gone between the generation before this one and this one.
    pub fn set_behind_gap(&self) {
        self.behind_gap.store(true, Ordering::Relaxed);
    }

    /// Whether its first lines may not be the ones that follow the last of the generation before.
    pub fn is_behind_gap(&self) -> bool {
        self.behind_gap.load(Ordering::Relaxed)
    }

    /// The identity, once the first line is whole.
    pub fn identity(&self) -> Option<Identity> {
        self.identity.get().copied()
    }

    /// Sets the identity from the file's first bytes, once.
    pub fn identify(&self, start: &[u8]) -> Option<Identity> {
        if let Some(identity) = Identity::of(start) {
            return Some(*self.identity.get_or_init(|| identity));
        }
        self.identity()
    }

    /// Sets the identity from the open file, if it has none and the first line is whole.
    pub fn identify_by_file(&self) {
        if self.identity().is_some() {
            return;
        }
        if let Some(identity) = self.source().and_then(|source| Identity::of_file(&source)) {
            self.identity.get_or_init(|| identity);
        }
    }

    /// Sets the identity of a file that ends inside its first line: what there is.
    pub fn identify_torn(&self, whole: &[u8]) {
        self.identity.get_or_init(|| Identity::digest(whole));
    }

    /// Whether the file still begins with its first line. One that cannot be read may.
    pub fn begins_as_identified(&self, source: &Source) -> bool {
        Identity::of_file(source).is_none_or(|identity| self.identity() == Some(identity))
    }

    /// The open file; none once it is closed.
    pub fn source(&self) -> Option<Arc<Source>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the file.
    pub fn close(&self) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Bytes in the file as last seen.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// The file was seen with at least this size.
    pub fn grown_to(&self, size: u64) {
        self.size.fetch_max(size.min(self.end()), Ordering::Relaxed);
    }

    /// Whether the file is shorter than it was once seen.
    pub fn has_shrunk(&self, source: &Source) -> bool {
        // Before the look: another thread may see the file longer right after it.
        let known = self.size();
        source.stat().is_ok_and(|(size, _)| size < known)
    }

    /// From now on the file ends where it ends now, whatever is written later.
    pub fn end_here(&self) {
        self.refresh();
        self.end.store(self.size(), Ordering::Relaxed);
    }

    /// The file is damaged behind `offset`: that is its end.
    pub fn ends_at(&self, offset: u64) {
        self.size.store(offset, Ordering::Relaxed);
        self.end.store(offset, Ordering::Relaxed);
    }

    /// Nobody reads beyond this offset.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Orders the reader to drop what is unread and close the file: it is deleted, and too much is held.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Where an output reads next.
    pub fn read(&self, output: usize) -> u64 {
        self.positions.get(output).map_or(0, |position| position.read.load(Ordering::Relaxed))
    }

    /// The output has read up to `offset`.
    pub fn set_read(&self, output: usize, offset: u64) {
        if let Some(position) = self.positions.get(output) {
            position.read.store(offset, Ordering::Relaxed);
        }
    }

    /// Bytes that the output has read and that were not counted before; from now on they are.
    pub fn count_read(&self, output: usize) -> u64 {
        let Some(position) = self.positions.get(output) else { return 0 };
        let read = position.read.load(Ordering::Relaxed);
        read.saturating_sub(position.counted.fetch_max(read, Ordering::Relaxed))
    }

    /// Up to where an output's receiver has acknowledged the lines of each stream.
    pub fn acked_by_stream(&self, output: usize) -> Offsets {
        let load = |acked: &AtomicU64| acked.load(Ordering::Acquire);
        self.positions.get(output).map_or([0; 3], |position| position.acked.each_ref().map(load))
    }

    /// Up to where an output's receiver has acknowledged every line.
    pub fn acked(&self, output: usize) -> u64 {
        self.acked_by_stream(output).into_iter().fold(u64::MAX, u64::min)
    }

    /// Whether an output's receiver has acknowledged the line of a stream, or of none, that starts here.
    pub fn is_acked(&self, output: usize, stream: Option<Stream>, start: u64) -> bool {
        let acked = |position: &Position| {
            let index = stream.map_or(HEADLESS, |stream| stream as usize);
            position.acked[index].load(Ordering::Acquire)
        };
        self.positions.get(output).is_some_and(|position| start < acked(position))
    }

    /// The output's receiver has acknowledged the lines of each stream before these offsets.
    pub fn commit(&self, output: usize, offsets: Offsets) {
        let Some(position) = self.positions.get(output) else { return };
        for (acked, offset) in position.acked.iter().zip(offsets) {
            acked.fetch_max(offset, Ordering::Release);
        }
    }

    /// Both positions, as a checkpoint has them.
    pub fn resume(&self, output: usize, offsets: Offsets) {
        self.commit(output, offsets);
        self.set_read(output, self.acked(output));
        self.count_read(output);
    }

    /// Whether a record of a stream, or of none, that starts here is not counted as an event yet; now it is.
    pub fn count_event(&self, stream: Option<Stream>, start: u64) -> bool {
        self.events.is_new(stream, start)
    }

    /// Records before these offsets are counted as events already.
    pub fn skip_events(&self, offsets: Offsets) {
        self.events.skip_to(offsets);
    }

    /// Time of the newest record that an output has read, in seconds since the epoch.
    pub fn last_record(&self, output: usize) -> Option<i64> {
        let seconds = self.positions.get(output)?.last_record.load(Ordering::Relaxed);
        (seconds != 0).then_some(seconds)
    }

    /// The output has read a record of this time.
    pub fn set_last_record(&self, output: usize, seconds: i64) {
        if let Some(position) = self.positions.get(output) {
            position.last_record.store(seconds, Ordering::Relaxed);
        }
    }

    /// Whether an output takes these lines.
    pub fn is_taken(&self, output: usize) -> bool {
        self.positions.get(output).is_some_and(|position| position.taken.load(Ordering::Relaxed))
    }

    /// The output takes these lines, or does not.
    pub fn set_taken(&self, output: usize, taken: bool) {
        if let Some(position) = self.positions.get(output) {
            position.taken.store(taken, Ordering::Relaxed);
        }
    }

    /// Bytes that an output's receiver has not acknowledged.
    pub fn lag(&self, output: usize) -> u64 {
        if self.is_taken(output) { self.size().saturating_sub(self.acked(output)) } else { 0 }
    }

    /// Bytes that the slowest output's receiver has not acknowledged.
    pub fn backlog(&self) -> u64 {
        (0..self.positions.len()).map(|output| self.lag(output)).max().unwrap_or(0)
    }

    /// Whether every output has read every byte.
    pub fn is_read(&self) -> bool {
        (0..self.positions.len())
            .all(|output| !self.is_taken(output) || self.read(output) >= self.size().min(self.end()))
    }

    /// Whether every output's receiver has acknowledged every byte.
    pub fn is_acknowledged(&self) -> bool {
        self.backlog() == 0
    }

    /// When the open file was last written.
    pub fn modified(&self) -> Option<SystemTime> {
        self.source()?.modified()
    }

    /// Looks at the open file: its size, and whether its last link is gone.
    pub fn refresh(&self) -> Option<bool> {
        let (size, links) = self.source()?.stat().ok()?;
        self.grown_to(size);
        Some(links == 0)
    }
}
