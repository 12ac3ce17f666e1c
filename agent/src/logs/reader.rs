//! A reader thread: sweeps the files of its containers, for each output on that output's clock.
//!
//! A container is active while its files grow; one that has not grown for a whole sweep is armed: the kernel wakes
//! the reader at its next write, and until then it costs nothing.

mod finish;

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use sidelight_runtime::exit::catching;
use sidelight_runtime::progress::Heartbeat;

use crate::config::{Config, OutputKind, READ_WINDOW};
use crate::logs::container::{Container, Inventory};
use crate::logs::encode::{Forward, JsonLines};
use crate::logs::lane::Lane;
use crate::logs::metrics::LogMetrics;
use crate::logs::pass::{Buffers, Outcome, Pass};
use crate::logs::record::{NamespaceLimits, RecordEncoder};
use crate::logs::tail::Tail;
use crate::logs::watch::{Watcher, wait};

/// Bytes that one namespace may read in one round while others wait.
const NAMESPACE_QUANTUM: u64 = 4 * READ_WINDOW as u64;
/// While it finishes, a reader looks again this often for room.
const FINISH_PAUSE: Duration = Duration::from_millis(10);

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

/// One output's clock.
struct Clock {
    interval: Duration,
    due: Instant,
    /// Containers still to be visited in this sweep.
    pending: VecDeque<usize>,
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
    pub fn run(self) {
        let now = Instant::now();
        let clocks = self.config.logs.outputs.iter().map(|output| Clock {
            interval: output.flush_interval(),
            due: now,
            pending: VecDeque::new(),
            blocked: false,
        });
        let mut sweeper = Sweeper {
            watcher: Watcher::open(),
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
            wait(self.watcher.descriptor().into_iter().chain([wake.as_fd()]), timeout);
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
        if self.finishing {
            Some(due.min().unwrap_or(FINISH_PAUSE).min(FINISH_PAUSE))
        } else {
            due.min().filter(|_| any_active)
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
        // Here as well: while an output is blocked or waits for metadata, nobody visits it.
        let _ = tail.restart_truncated(&mut self.reader.lanes, Instant::now());
        tail.drop_given_up(&mut self.reader.lanes);
        tail.close_read(Instant::now());
    }

    /// One round of an output: every pending container once, each namespace at most its quantum. Who has more to read
    /// goes behind all others.
    fn round(&mut self, output: usize, now: Instant) {
        let clock = &mut self.clocks[output];
        if clock.blocked {
            return;
        }
        if now >= clock.due || (self.finishing && clock.pending.is_empty()) {
            clock.due = now + clock.interval;
            self.add_due(output);
        } else if clock.pending.is_empty() {
            return;
        }
        let (mut later, mut more) = (VecDeque::new(), VecDeque::new());
        let mut read_by_namespace: HashMap<String, u64> = HashMap::new();
        while let Some(index) = self.clocks[output].pending.pop_front() {
            let Some(namespace) = self.tails[index].as_ref().map(Tail::namespace) else { continue };
            if read_by_namespace.get(namespace).is_some_and(|read| *read >= NAMESPACE_QUANTUM) {
                later.push_back(index);
                continue;
            }
            let namespace = namespace.to_owned();
            let (outcome, bytes) = self.visit(index, output, now);
            *read_by_namespace.entry(namespace).or_default() += bytes;
            self.reader.heartbeat.beat();
            match outcome {
                Outcome::End => {}
                Outcome::More => more.push_back(index),
                Outcome::Blocked => {
                    self.clocks[output].pending.push_front(index);
                    self.clocks[output].blocked = true;
                    break;
                }
            }
        }
        let pending = &mut self.clocks[output].pending;
        pending.append(&mut later);
        pending.append(&mut more);
        if pending.is_empty() {
            self.reader.lanes[output].flush();
        }
        self.say_what_is_open(output);
    }

    /// Adds the active containers that the output takes, those with the same tag together, but for those that still
    /// wait for their turn.
    fn add_due(&mut self, output: usize) {
        let pending = &mut self.clocks[output].pending;
        let mut waits = vec![false; self.tails.len()];
        pending.iter().for_each(|index| waits[*index] = true);
        let is_due = |tail: &&Tail| tail.watch.is_none() && tail.takes(output);
        let mut due: Vec<(&Arc<str>, usize)> = self
            .tails
            .iter()
            .enumerate()
            .filter(|(index, _)| !waits[*index])
            .filter_map(|(index, tail)| {
                Some((&tail.as_ref().filter(is_due)?.settings.outputs[output].1, index))
            })
            .collect();
        due.sort();
        pending.extend(due.into_iter().map(|(_, index)| index));
    }

    /// Says how many bytes are read and not yet in a closed chunk, so that the account can be checked.
    fn say_what_is_open(&self, output: usize) {
        let records: u64 = self.tails.iter().flatten().map(|tail| tail.cursors[output].open_bytes()).sum();
        let lane = &self.reader.lanes[output];
        lane.ledger().set_reading(lane.open_bytes() + records);
    }

    /// One pass over one container; says how it ended and how many bytes it took.
    fn visit(&mut self, index: usize, output: usize, now: Instant) -> (Outcome, u64) {
        let Some(tail) = self.tails[index].as_mut() else { return (Outcome::End, 0) };
        if !tail.restart_truncated(&mut self.reader.lanes, now) {
            return (Outcome::End, 0);
        }
        tail.drop_given_up(&mut self.reader.lanes);
        let outcome = self.pass(index, output, now);
        let Some(tail) = self.tails[index].as_mut() else { return (Outcome::End, 0) };
        let bytes = tail.count_read(output);
        self.reader.lanes[output].account.read(bytes);
        self.reader.metrics.bytes_read.inc_by(bytes);
        tail.quiet[output] = bytes == 0 && outcome == Outcome::End;
        tail.close_read(now);
        if outcome == Outcome::End && tail.is_quiet(now) {
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
        let (settled, finishing) = (tail.is_settled(now), self.finishing);
        let cursor = &mut tail.cursors[output];
        let (container, settings, metrics) = (&*tail.container, &*tail.settings, &reader.metrics);
        let outcome = match &reader.config.logs.outputs[output].kind {
            OutputKind::Forward(_) => {
                let encoder = &mut self.forward;
                catching(|| {
                    Pass {
                        container,
                        settings,
                        cursor,
                        lane,
                        encoder,
                        metrics,
                        max_record,
                        settled,
                        finishing,
                        now,
                    }
                    .run(&tail.generations, buffers)
                })
            }
            OutputKind::Stdout(_) => {
                let encoder = &mut self.json;
                catching(|| {
                    Pass {
                        container,
                        settings,
                        cursor,
                        lane,
                        encoder,
                        metrics,
                        max_record,
                        settled,
                        finishing,
                        now,
                    }
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
                lane.drop_poison(&generation);
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

    fn close_all(&mut self) {
        self.reader.lanes.iter_mut().for_each(Lane::close);
        self.reader.heartbeat.idle();
    }
}

#[cfg(test)]
mod tests;
