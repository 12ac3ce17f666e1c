//! The agent's parts, each of which does one thing when it is told to.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::world::World;
use crate::checkpoint::account::{Accounts, DropReason, OutputAccount};
use crate::checkpoint::store::{self, Saved};
use crate::delivery::chunk::Chunk;
use crate::delivery::forward::connection::{ConnectionId, Event, Remains};
use crate::delivery::forward::parcel::Parcel;
use crate::delivery::forward::{Dispatcher, tests};
use crate::delivery::memory::Share;
use crate::logs::container::Container;
use crate::logs::cursor::Cursor;
use crate::logs::encode::Forward;
use crate::logs::generation::{Generation, Opened};
use crate::logs::lane::Lane;
use crate::logs::layout::{ContainerPath, LogName};
use crate::logs::metrics::LogMetrics;
use crate::logs::pass::{Buffers, Pass};
use crate::logs::record::{NamespaceLimits, RecordEncoder};
use crate::logs::settings::{Metadata, Settings};
use crate::logs::source::Source;

const CHUNK_BYTES: usize = 1 << 10;
const MEMORY: usize = 8 * CHUNK_BYTES;

/// An agent, as far as it is looked at here.
pub(super) struct Agent {
    pub(super) generations: Vec<Arc<Generation>>,
    pub(super) container: Container,
    settings: Arc<Settings>,
    metrics: LogMetrics,
    pub(super) account: Arc<OutputAccount>,
    accounts: Accounts,
    pub(super) lane: Lane,
    pub(super) share: Arc<Share>,
    encoder: RecordEncoder<Forward>,
    cursor: Cursor,
    buffers: Buffers,
    chunks: mpsc::Receiver<Chunk>,
    pub(super) dispatcher: Dispatcher,
    connections: Vec<Connection>,
}

/// A connection from the receiver's side.
struct Connection {
    id: ConnectionId,
    /// Given to it and not yet sent.
    unsent: mpsc::Receiver<Parcel>,
    /// Taken by the receiver, oldest first, and not acknowledged; the last may have been cut.
    sent: VecDeque<Parcel>,
    is_up: bool,
    retires: bool,
}

// === impl Agent ===

impl Agent {
    pub(super) fn new(world: &World) -> Self {
        let registry = Registry::new();
        let accounts = Accounts::register(&registry).unwrap();
        let account = accounts.output("out");
        let path = Arc::new(ContainerPath::parse("ns_pod_uid", "app").unwrap());
        let settings = Settings::resolve(&world.config, &path, &Metadata::NotAsked, &[]);
        let (sender, chunks) = mpsc::channel(2);
        let share = Share::new(MEMORY, CHUNK_BYTES, Vec::new());
        let namespace = accounts.namespace("ns");
        let container = Container::new(path, "/none".into(), namespace, settings);
        let mut agent = Agent {
            generations: Vec::new(),
            settings: container.settings(),
            container,
            metrics: LogMetrics::register(&registry).unwrap(),
            lane: Lane::new(0, world.compression, sender, share.clone(), account.clone()),
            share,
            encoder: RecordEncoder::new(&world.config, NamespaceLimits::default(), Forward::default()),
            cursor: Cursor::default(),
            buffers: Buffers::default(),
            chunks,
            dispatcher: tests::dispatcher(&world.config, account.clone()),
            connections: Vec::new(),
            account,
            accounts,
        };
        let mut saved = Saved::parse(&world.checkpoint).unwrap_or_default();
        for file in 0..world.files.len() {
            let generation = agent.open(&world.files, file);
            if let Some(offsets) = saved.take(&generation).and_then(|saved| saved.offsets("out")) {
                generation.resume(0, offsets);
            }
            agent.generations.push(generation);
        }
        agent
    }

    pub(super) fn open(&self, files: &[(File, u64)], file: usize) -> Arc<Generation> {
        let opened = Opened {
            container: self.container.path.clone(),
            namespace_account: self.accounts.namespace("ns"),
            inode: (0, file as u64),
            name: LogName::parse("0.log").unwrap(),
            path: "0.log".into(),
            source: Some(Arc::new(Source::plain(files[file].0.try_clone().unwrap()))),
        };
        let generation = Generation::new(opened, 1);
        generation.identify_by_file();
        generation.refresh();
        generation.set_taken(0, true);
        Arc::new(generation)
    }

    /// One pass.
    pub(super) fn read(&mut self, world: &World, is_last: bool) {
        Pass {
            container: &self.container,
            settings: &self.settings,
            cursor: &mut self.cursor,
            lane: &mut self.lane,
            encoder: &mut self.encoder,
            metrics: &self.metrics,
            max_record: 1 << 20,
            settled: is_last,
            finishing: false,
            now: world.begun.1 + world.begun.0.elapsed(),
        }
        .run(&self.generations, &mut self.buffers);
        self.account.read(self.generations.iter().map(|generation| generation.count_read(0)).sum());
    }

    /// A turn of the dispatcher, as in `Dispatcher::dispatch`, but for the connections.
    pub(super) fn dispatch(&mut self) {
        let now = Instant::now();
        loop {
            for index in self.dispatcher.upstreams.unconnected(now) {
                let (id, unsent) = self.dispatcher.upstreams.open(index);
                let sent = VecDeque::new();
                self.connections.push(Connection { id, unsent, sent, is_up: false, retires: false });
            }
            if self.dispatcher.assign(now) {
                break;
            }
        }
        if self.dispatcher.has_place()
            && let Ok(chunk) = self.chunks.try_recv()
        {
            self.dispatcher.take(chunk);
        }
    }

    /// The receiver takes the next message of a connection, and refuses it for what is in it.
    fn send(&mut self, index: usize, world: &mut World) {
        let connection = &mut self.connections[index];
        let Ok(parcel) = connection.unsent.try_recv() else { return };
        let is_taken = world.take(&parcel);
        connection.sent.push_back(parcel);
        if !is_taken {
            // It says what it has taken before it closes the connection.
            while self.connections[index].sent.len() > 1 {
                self.acknowledge(index, 0);
            }
            self.end(index, true);
        }
    }

    fn acknowledge(&mut self, index: usize, which: usize) {
        let connection = &mut self.connections[index];
        if let Some(parcel) = connection.sent.remove(which) {
            self.dispatcher.handle(Event::Acknowledged(connection.id, parcel));
        }
    }

    fn end(&mut self, index: usize, is_failure: bool) {
        let Connection { id, mut unsent, sent, .. } = self.connections.swap_remove(index);
        unsent.close();
        let unsent = std::iter::from_fn(|| unsent.try_recv().ok()).collect();
        let error = is_failure.then(|| "it is away".to_owned());
        self.dispatcher.handle(Event::Ended(id, Remains { sent: sent.into(), unsent, error }));
    }

    pub(super) fn checkpoint(&self) -> Vec<u8> {
        let newest_first = self.generations.iter().rev().map(Arc::as_ref);
        store::render(newest_first, &["out".to_owned()], &Saved::default())
    }

    /// One thing that a connection does.
    pub(super) fn connection_step(&mut self, world: &mut World, is_kind: bool) {
        if self.connections.is_empty() {
            return;
        }
        let index = world.dice.below(self.connections.len() as u64) as usize;
        let connection = &mut self.connections[index];
        if connection.retires && connection.sent.is_empty() && connection.unsent.is_empty() {
            return self.end(index, false);
        }
        if !connection.is_up {
            if !is_kind && world.dice.one_in(4) {
                return self.end(index, true);
            }
            connection.is_up = true;
            return self.dispatcher.handle(Event::Up(connection.id));
        }
        match world.dice.below(if is_kind { 8 } else { 40 }) {
            0..4 => self.send(index, world),
            4..8 if connection.sent.is_empty() => {}
            4..8 => {
                let which = world.dice.below(connection.sent.len() as u64) as usize;
                self.acknowledge(index, which);
            }
            8 => {
                connection.retires = true;
                connection.unsent.close();
            }
            9 => {
                world.allow_again(connection.sent.iter());
                // One message may have been cut in the middle.
                if world.dice.one_in(2) {
                    connection.sent.extend(connection.unsent.try_recv());
                }
                self.end(index, true);
            }
            _ => {}
        }
    }

    /// Whether nothing is left to do, and every byte is in one counter.
    pub(super) fn is_settled(&self) -> bool {
        let is_acknowledged = |generation: &Arc<Generation>| generation.is_acknowledged();
        self.generations.iter().all(is_acknowledged) && self.account.bytes_in_flight() == 0
    }

    pub(super) fn check_memory(&self) {
        let used = self.share.used();
        assert!(used <= MEMORY, "{used} of {MEMORY} bytes are used");
    }

    /// Bytes of what was given up because it was refused.
    pub(super) fn rejected(&self) -> u64 {
        let mut dropped = self.account.bytes_dropped();
        dropped.find(|(reason, _)| *reason == DropReason::Rejected).map_or(0, |(_, bytes)| bytes)
    }
}
