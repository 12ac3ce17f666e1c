//! A reader thread: sweeps the files of its containers, for each output on that output's clock.
//!
//! A container is active while its files grow; one that has not grown for a whole sweep is armed: the kernel wakes
//! the reader at its next write, and until then it costs nothing.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use sidelight_runtime::exit::catching;
use sidelight_runtime::progress::Heartbeat;

use crate::checkpoint::account::DropReason;
use crate::config::{Config, OutputKind, READ_WINDOW};
use crate::logs::container::{Container, Inventory};
use crate::logs::encode::{Forward, JsonLines};
use crate::logs::generation::Generation;
use crate::logs::lane::Lane;
use crate::logs::metrics::LogMetrics;
use crate::logs::pass::{Buffers, Cursor, Outcome, Pass};
use crate::logs::record::{NamespaceLimits, RecordEncoder};
use crate::logs::settings::{Settings, Takes};
use crate::logs::watch::{Watcher, wait};

/// Bytes that one namespace may read in one round while others wait.
const NAMESPACE_QUANTUM: u64 = 4 * READ_WINDOW as u64;
/// How long an old file is kept open after its end was read: its writer may still hold it for a moment.
const LINGER: Duration = Duration::from_secs(10);

/// What readers shall do; a latest value.
#[derive(Debug, Default)]
pub struct Order(AtomicU8);

const READ: u8 = 0;
const FINISH: u8 = 1;
const STOP: u8 = 2;

// === impl Order ===

impl Order {
    /// Read on to where the files end now, then stop.
    pub fn finish(&self) {
        self.0.fetch_max(FINISH, Ordering::Relaxed);
    }

    /// Close the open chunks and stop.
    pub fn stop(&self) {
        self.0.fetch_max(STOP, Ordering::Relaxed);
    }
}

/// One reader thread.
pub struct Reader {
    /// Its number.
    pub index: usize,
    /// The configuration.
    pub config: Arc<Config>,
    /// Where containers come from.
    pub inventory: Arc<Inventory>,
    /// What it shall do.
    pub order: Arc<Order>,
    /// One for each output.
    pub lanes: Vec<Lane>,
    /// The rates of namespaces, shared by all readers.
    pub namespaces: NamespaceLimits,
    /// Counters.
    pub metrics: LogMetrics,
    /// Says that it is alive.
    pub heartbeat: Arc<Heartbeat>,
}

/// One container as its reader sees it.
struct Tail {
    container: Arc<Container>,
    settings: Arc<Settings>,
    generations: Vec<Arc<Generation>>,
    cursors: Vec<Cursor>,
    /// Outputs that have found nothing new in their last pass.
    quiet: Vec<bool>,
    /// When the newest generation was first seen.
    newest_since: Instant,
    watch: Option<i32>,
}

/// One output's clock.
struct Clock {
    interval: Duration,
    due: Instant,
    /// Containers still to be visited in this sweep.
    pending: Vec<usize>,
    blocked: bool,
}

struct Sweeper {
    reader: Reader,
    watcher: Watcher,
    tails: Vec<Option<Tail>>,
    by_watch: HashMap<i32, usize>,
    clocks: Vec<Clock>,
    buffers: Buffers,
    forward: RecordEncoder<Forward>,
    json: RecordEncoder<JsonLines>,
    finishing: bool,
}

// === impl Reader ===

impl Reader {
    /// Runs until it is ordered to stop.
    ///
    /// # Errors
    /// When there is no inotify instance left.
    pub fn run(self) -> std::io::Result<()> {
        let now = Instant::now();
        let clocks = self.config.logs.outputs.iter().map(|output| Clock {
            interval: output.flush_interval(),
            due: now,
            pending: Vec::new(),
            blocked: false,
        });
        let mut sweeper = Sweeper {
            watcher: Watcher::new()?,
            tails: Vec::new(),
            by_watch: HashMap::new(),
            clocks: clocks.collect(),
            buffers: Buffers::default(),
            forward: RecordEncoder::new(&self.config, self.namespaces.clone(), Forward::default()),
            json: RecordEncoder::new(&self.config, self.namespaces.clone(), JsonLines),
            finishing: false,
            reader: self,
        };
        while sweeper.step() {}
        sweeper.close_all();
        Ok(())
    }
}

// === impl Sweeper ===

impl Sweeper {
    /// Waits for what comes next and does it; false when it is time to stop.
    fn step(&mut self) -> bool {
        let now = Instant::now();
        let timeout = self.next_due(now);
        if timeout != Some(Duration::ZERO) {
            self.reader.heartbeat.idle();
            let wake = self.reader.inventory.wake(self.reader.index).clone();
            wait(&[self.watcher.as_fd(), wake.as_fd()], timeout);
        }
        self.reader.heartbeat.busy();
        if self.reader.inventory.wake(self.reader.index).take() {
            self.clocks.iter_mut().for_each(|clock| clock.blocked = false);
        }
        self.wake_written();
        for container in self.reader.inventory.take_changed(self.reader.index) {
            self.refresh(container);
        }
        match self.reader.order.0.load(Ordering::Relaxed) {
            READ => {}
            FINISH => self.begin_finish(),
            _ => return false,
        }
        let now = Instant::now();
        for output in 0..self.clocks.len() {
            self.round(output, now);
        }
        !(self.finishing && self.is_finished())
    }

    /// How long until an output has something to do; none when only an event can change that.
    fn next_due(&self, now: Instant) -> Option<Duration> {
        let any_active = self.tails.iter().flatten().any(Tail::is_active);
        let due = self.clocks.iter().filter(|clock| !clock.blocked).map(|clock| {
            if clock.pending.is_empty() { clock.due.saturating_duration_since(now) } else { Duration::ZERO }
        });
        if any_active || self.finishing {
            due.min().or(self.finishing.then_some(Duration::from_millis(50)))
        } else {
            None
        }
    }

    fn wake_written(&mut self) {
        let changes = self.watcher.changes();
        for watch in changes.watches.iter().chain(&changes.removed) {
            if let Some(tail) = self.by_watch.remove(watch).and_then(|index| self.tails[index].as_mut()) {
                tail.activate();
            }
        }
        if changes.overflow {
            self.by_watch.clear();
            self.tails.iter_mut().flatten().for_each(Tail::activate);
        }
    }

    /// Looks at a container of which something has changed.
    fn refresh(&mut self, container: Arc<Container>) {
        let known = self
            .tails
            .iter()
            .position(|tail| tail.as_ref().is_some_and(|tail| Arc::ptr_eq(&tail.container, &container)));
        let outputs = self.clocks.len();
        let index = known.unwrap_or_else(|| {
            let free = self.tails.iter().position(Option::is_none).unwrap_or_else(|| {
                self.tails.push(None);
                self.tails.len() - 1
            });
            self.tails[free] = Some(Tail::new(container.clone(), outputs));
            free
        });
        let Some(tail) = self.tails[index].as_mut() else { return };
        tail.settings = container.settings();
        for cursor in &mut tail.cursors {
            cursor.record.forget();
        }
        tail.set_generations(container.generations());
        if tail.generations.is_empty() && container.is_gone() {
            self.tails[index] = None;
            return;
        }
        if let Some(watch) = tail.watch {
            self.by_watch.remove(&watch);
        }
        tail.activate();
        if !tail.is_active() {
            tail.close_read(Instant::now());
        }
    }

    /// One round of an output: every pending container once, each namespace at most its quantum.
    fn round(&mut self, output: usize, now: Instant) {
        if self.clocks[output].blocked {
            return;
        }
        if self.clocks[output].pending.is_empty() {
            if now < self.clocks[output].due && !self.finishing {
                return;
            }
            self.clocks[output].due = now + self.clocks[output].interval;
            self.clocks[output].pending = self.sweep_order(output);
        }
        let mut later = Vec::new();
        let mut read_by_namespace: HashMap<String, u64> = HashMap::new();
        let pending = std::mem::take(&mut self.clocks[output].pending);
        for (position, index) in pending.iter().copied().enumerate() {
            let Some(namespace) =
                self.tails[index].as_ref().map(|tail| tail.container.path.namespace.as_str())
            else {
                continue;
            };
            if read_by_namespace.get(namespace).is_some_and(|read| *read >= NAMESPACE_QUANTUM) {
                later.push(index);
                continue;
            }
            let namespace = namespace.to_owned();
            let (outcome, bytes) = self.visit(index, output, now);
            *read_by_namespace.entry(namespace).or_default() += bytes;
            match outcome {
                Outcome::End => {}
                Outcome::More => later.push(index),
                Outcome::Blocked => {
                    later.extend_from_slice(&pending[position..]);
                    self.clocks[output].blocked = true;
                    break;
                }
            }
            self.reader.heartbeat.beat();
        }
        if later.is_empty() {
            self.reader.lanes[output].close();
        }
        self.say_what_is_open(output);
        self.clocks[output].pending = later;
    }

    /// Says how many bytes are read and not yet in a closed chunk, so that the account can be checked.
    fn say_what_is_open(&self, output: usize) {
        let records: u64 = self.tails.iter().flatten().map(|tail| tail.cursors[output].open_bytes()).sum();
        let lane = &self.reader.lanes[output];
        lane.ledger().set_reading(lane.open_bytes() + records);
    }

    /// The active containers that the output takes, those with the same tag together.
    fn sweep_order(&self, output: usize) -> Vec<usize> {
        let is_due = |tail: &&Tail| tail.watch.is_none() && tail.takes(output);
        let mut order: Vec<(&Arc<str>, usize)> = self
            .tails
            .iter()
            .enumerate()
            .filter_map(|(index, tail)| {
                Some((&tail.as_ref().filter(is_due)?.settings.outputs[output].1, index))
            })
            .collect();
        order.sort();
        order.into_iter().map(|(_, index)| index).collect()
    }

    /// One pass over one container; says how it ended and how many bytes it took.
    fn visit(&mut self, index: usize, output: usize, now: Instant) -> (Outcome, u64) {
        let Some(tail) = self.tails[index].as_mut() else { return (Outcome::End, 0) };
        tail.restart_truncated(output, &self.reader.lanes);
        tail.drop_given_up(&self.reader.lanes);
        let before = tail.bytes_read(output);
        let outcome = self.pass(index, output, now);
        let Some(tail) = self.tails[index].as_mut() else { return (Outcome::End, 0) };
        let read = tail.bytes_read(output).saturating_sub(before);
        let bytes = tail.cursors[output].count_fresh(read);
        self.reader.lanes[output].account.read(bytes);
        self.reader.metrics.bytes_read.inc_by(bytes);
        tail.quiet[output] = bytes == 0 && outcome == Outcome::End;
        tail.close_read(now);
        if outcome == Outcome::End && tail.is_quiet() {
            self.arm(index);
        }
        (outcome, bytes)
    }

    /// A pass that panics is repeated over the same lines as raw text; a line that panics again is dropped.
    fn pass(&mut self, index: usize, output: usize, now: Instant) -> Outcome {
        let Some(tail) = self.tails[index].as_mut() else { return Outcome::End };
        let (reader, buffers) = (&mut self.reader, &mut self.buffers);
        let lane = &mut reader.lanes[output];
        let max_record = usize::try_from(reader.config.logs.max_record).unwrap_or(usize::MAX);
        let cursor = &mut tail.cursors[output];
        let (container, settings, metrics) = (&*tail.container, &*tail.settings, &reader.metrics);
        let outcome = match &reader.config.logs.outputs[output].kind {
            OutputKind::Forward(_) => {
                let encoder = &mut self.forward;
                catching(|| {
                    Pass { container, settings, cursor, lane, encoder, metrics, max_record, now }
                        .run(&tail.generations, buffers)
                })
            }
            OutputKind::Stdout(_) => {
                let encoder = &mut self.json;
                catching(|| {
                    Pass { container, settings, cursor, lane, encoder, metrics, max_record, now }
                        .run(&tail.generations, buffers)
                })
            }
        };
        outcome.unwrap_or_else(|_| {
            let (lane, cursor) = (&mut reader.lanes[output], &mut tail.cursors[output]);
            lane.rollback();
            reader.metrics.parse_failures.panic.inc();
            tracing::error!(namespace = tail.container.path.namespace, pod = tail.container.path.pod,
                "reading a line panicked; please report this; the line is sent raw, or dropped as poison if that fails too");
            if !cursor.retreat(output)
                && let Some(generation) = cursor.current().cloned()
            {
                drop_poison(lane, &generation);
            }
            Outcome::More
        })
    }

    /// Waits for the next write of a container's newest file. It may have been written to just before: hence the look
    /// at its size afterwards.
    fn arm(&mut self, index: usize) {
        let Some(tail) = self.tails[index].as_mut() else { return };
        let Some((generation, source)) =
            tail.generations.last().and_then(|newest| Some((newest, newest.source()?)))
        else {
            return;
        };
        let Ok(watch) = self.watcher.watch_next_write(source.as_fd()) else {
            self.reader.metrics.watch_failures.inc();
            return;
        };
        generation.refresh();
        if !generation.is_read() {
            return;
        }
        tail.watch = Some(watch);
        for cursor in &mut tail.cursors {
            cursor.record.forget();
        }
        self.by_watch.insert(watch, index);
    }

    /// From now on every file ends where it ends now.
    fn begin_finish(&mut self) {
        if std::mem::replace(&mut self.finishing, true) {
            return;
        }
        for tail in self.tails.iter_mut().flatten() {
            tail.generations.iter().for_each(|generation| generation.end_here());
            tail.activate();
        }
        for clock in &mut self.clocks {
            clock.pending.clear();
        }
    }

    fn is_finished(&self) -> bool {
        let is_read = |tail: &Tail| {
            (0..self.clocks.len()).filter(|output| tail.takes(*output)).all(|output| tail.quiet[output])
        };
        self.clocks.iter().all(|clock| clock.pending.is_empty()) && self.tails.iter().flatten().all(is_read)
    }

    fn close_all(&mut self) {
        self.reader.lanes.iter_mut().for_each(Lane::close);
        self.reader.heartbeat.idle();
    }
}

// === impl Tail ===

impl Tail {
    fn new(container: Arc<Container>, outputs: usize) -> Self {
        Tail {
            settings: container.settings(),
            container,
            generations: Vec::new(),
            cursors: (0..outputs).map(|_| Cursor::default()).collect(),
            quiet: vec![false; outputs],
            newest_since: Instant::now(),
            watch: None,
        }
    }

    fn takes(&self, output: usize) -> bool {
        self.settings.collect == Takes::Yes && self.settings.outputs[output].0 == Takes::Yes
    }

    /// Whether it is visited in every sweep.
    fn is_active(&self) -> bool {
        self.watch.is_none() && (0..self.quiet.len()).any(|output| self.takes(output))
    }

    /// An output that waits for metadata has a backlog; one that never takes the lines has none.
    fn set_generations(&mut self, generations: Vec<Arc<Generation>>) {
        let newest = |list: &[Arc<Generation>]| list.last().map(Arc::as_ptr);
        if newest(&generations) != newest(&self.generations) {
            self.newest_since = Instant::now();
        }
        self.generations = generations;
        let refused = |takes: &Takes| matches!(takes, Takes::No(_));
        for (output, (takes, _)) in self.settings.outputs.iter().enumerate() {
            let taken = !refused(&self.settings.collect) && !refused(takes);
            self.generations.iter().for_each(|generation| generation.set_taken(output, taken));
        }
    }

    fn activate(&mut self) {
        self.watch = None;
        self.quiet.fill(false);
    }

    fn bytes_read(&self, output: usize) -> u64 {
        self.generations.iter().map(|generation| generation.read(output)).sum()
    }

    /// Whether no output has anything to do here until the next write.
    fn is_quiet(&self) -> bool {
        let done =
            |output: usize| !self.takes(output) || (self.quiet[output] && !self.cursors[output].is_open());
        let lingering = self.generations.len() > 1
            && self.generations.iter().rev().skip(1).any(|old| old.source().is_some());
        (0..self.quiet.len()).all(done) && !lingering
    }

    /// A file that is shorter than what was read of it was truncated: what follows is another generation.
    fn restart_truncated(&mut self, output: usize, lanes: &[Lane]) {
        let Some(newest) = self.generations.last() else { return };
        let read = newest.read(output);
        if read == 0 || newest.identity().is_none() {
            return;
        }
        let Some(source) = newest.source().filter(|source| !source.is_gzip()) else { return };
        let is_shorter = source.stat().is_ok_and(|(size, _)| size < read);
        if !is_shorter {
            return;
        }
        tracing::info!(path = %newest.path().display(), "a log file was truncated; reading it from its start");
        let old = newest.clone();
        drop_unread(&old, lanes, DropReason::LostUnlinked);
        let new = Arc::new(old.restarted());
        (0..self.cursors.len()).for_each(|output| new.set_taken(output, old.is_taken(output)));
        self.container.update(|generations| {
            generations.retain(|generation| !Arc::ptr_eq(generation, &old));
            generations.push(new.clone());
        });
        self.set_generations(self.container.generations());
    }

    /// Drops what is unread of files that discovery has given up.
    fn drop_given_up(&mut self, lanes: &[Lane]) {
        for generation in self
            .generations
            .iter()
            .filter(|generation| generation.is_given_up() && generation.source().is_some())
        {
            drop_unread(generation, lanes, DropReason::HeldDeleted);
            generation.close();
        }
    }

    /// Closes old files that every output has read to their end, once nobody can be writing them any more.
    fn close_read(&mut self, now: Instant) {
        let gone = self.container.is_gone();
        let newest = self.generations.len().saturating_sub(1);
        let settled = now.duration_since(self.newest_since) >= LINGER;
        for (index, generation) in self.generations.iter().enumerate() {
            let Some(source) = generation.source() else { continue };
            let no_writer = source.is_gzip() || settled;
            let old = index < newest || gone;
            let needed = self.cursors.iter().any(|cursor| cursor.needs(generation));
            if old
                && no_writer
                && !needed
                && generation.is_read()
                && generation.refresh().is_some()
                && generation.is_read()
            {
                generation.close();
            }
        }
    }
}

/// Counts what no output will ever read of a file.
fn drop_unread(generation: &Generation, lanes: &[Lane], reason: DropReason) {
    for lane in lanes.iter().filter(|lane| generation.is_taken(lane.output)) {
        let unread = generation.size().saturating_sub(generation.read(lane.output));
        lane.account.read(unread);
        lane.drop_bytes(generation, reason, 0, unread);
        generation.set_read(lane.output, generation.size());
    }
}

/// Drops the line at which an output stands.
fn drop_poison(lane: &mut Lane, generation: &Arc<Generation>) {
    let Some(source) = generation.source() else { return };
    let start = generation.read(lane.output);
    let mut end = start;
    let mut window = vec![0; READ_WINDOW];
    loop {
        let read = source.read_at(&mut window, end).unwrap_or(0);
        match memchr::memchr(b'\n', &window[..read]) {
            Some(newline) => {
                end += newline as u64 + 1;
                break;
            }
            None if read == 0 => break,
            None => end += read as u64,
        }
    }
    tracing::error!(path = %generation.path().display(), offset = start, bytes = end - start, "a line is dropped as poison");
    lane.drop_bytes(generation, DropReason::Poison, 1, end - start);
    generation.set_read(lane.output, end);
    lane.advance(generation, end);
}
