//! Files that grow, and a reader's pass over them for one output, without discovery and delivery.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use prometheus::Registry;
use sidelight_agent::checkpoint::account::{Accounts, OutputAccount};
use sidelight_agent::config::Config;
use sidelight_agent::delivery::chunk::{Chunk, Compression};
use sidelight_agent::delivery::memory::Share;
use sidelight_agent::logs::container::Container;
use sidelight_agent::logs::cursor::Cursor;
use sidelight_agent::logs::encode::Format;
use sidelight_agent::logs::generation::{Generation, Opened};
use sidelight_agent::logs::lane::Lane;
use sidelight_agent::logs::layout::{ContainerPath, LogName};
use sidelight_agent::logs::metrics::LogMetrics;
use sidelight_agent::logs::pass::{Buffers, Outcome, Pass};
use sidelight_agent::logs::record::{NamespaceLimits, RecordEncoder};
use sidelight_agent::logs::settings::{Metadata, Settings};
use sidelight_agent::logs::source::Source;
use sidelight_agent::logs::split::{Stream, Time};
use tokio::sync::mpsc::{Receiver, channel};

use super::{MAX_RECORD, Seen};

/// What a receiver has got: the bytes of each chunk and where its records end.
#[derive(Default)]
pub(super) struct Arrived(Vec<(Vec<u8>, Vec<usize>)>);

/// A record as it was packed.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub(super) time: Time,
    pub(super) fields: serde_json::Value,
}

/// How the lines of the one container are handled.
pub(super) fn settings(config: &Config) -> Settings {
    Settings::resolve(config, &path(), &Metadata::NotAsked, &[])
}

fn path() -> ContainerPath {
    ContainerPath::parse("ns_pod_uid", "app").expect("a valid path")
}

/// A container whose log is written and read by turns.
pub(super) struct Pod<F> {
    container: Container,
    settings: Settings,
    accounts: Accounts,
    account: Arc<OutputAccount>,
    metrics: LogMetrics,
    lane: Lane,
    chunk_bytes: usize,
    delivery: Receiver<Chunk>,
    encoder: RecordEncoder<F>,
    cursor: Cursor,
    buffers: Buffers,
    now: Instant,
    generations: Vec<Arc<Generation>>,
    file: File,
    /// Bytes in all files, and whether some of them were read again.
    written: u64,
    restarted: bool,
    chance: Option<Chance>,
    arrived: Arrived,
}

/// Decides what becomes of chunks (xorshift64).
struct Chance(u64);

// === impl Pod ===

impl<F: Format> Pod<F> {
    /// One with an empty file.
    pub(super) fn new(config: &Arc<Config>, format: F, chunk_bytes: usize) -> Self {
        let registry = Registry::new();
        let accounts = Accounts::register(&registry).expect("an empty registry");
        let metrics = LogMetrics::register(&registry).expect("an empty registry");
        let account = accounts.output("forward");
        let (lane, delivery) = lane(chunk_bytes, &account);
        let namespace_account = accounts.namespace("ns");
        let container =
            Container::new(Arc::new(path()), "/none".into(), namespace_account, self::settings(config));
        let mut pod = Pod {
            container,
            settings: settings(config),
            accounts,
            lane,
            chunk_bytes,
            account,
            metrics,
            delivery,
            encoder: RecordEncoder::new(config, NamespaceLimits::default(), format),
            cursor: Cursor::default(),
            buffers: Buffers::default(),
            now: Instant::now(),
            generations: Vec::new(),
            file: memory(),
            written: 0,
            restarted: false,
            chance: None,
            arrived: Arrived::default(),
        };
        pod.rotate();
        pod
    }

    /// From now on, chunks get lost, or their acknowledgements, until the last file is read.
    pub(super) fn losing(mut self, seed: u64) -> Self {
        self.chance = Some(Chance(seed | 1));
        self
    }

    /// Begins another file.
    pub(super) fn rotate(&mut self) {
        self.file = memory();
        let opened = Opened {
            container: self.container.path.clone(),
            namespace_account: self.accounts.namespace("ns"),
            inode: (0, self.generations.len() as u64),
            name: LogName::parse("0.log").expect("a valid name"),
            path: "0.log".into(),
            source: Some(Arc::new(Source::plain(self.file.try_clone().expect("a descriptor")))),
        };
        self.generations.push(Arc::new(Generation::new(opened, 1)));
    }

    /// Writes these bytes, and reads on.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.file.write_all(bytes).expect("memory");
        self.written += bytes.len() as u64;
        self.sweep(false);
    }

    /// Reads on from what is acknowledged, as after a reload.
    pub(super) fn restart(&mut self) {
        self.restarted = true;
        self.cursor = Cursor::default();
        (self.lane, self.delivery) = lane(self.chunk_bytes, &self.account);
        self.account.begin();
        for generation in &mut self.generations {
            let again = generation.for_outputs(1);
            again.resume(0, generation.acked_by_stream(0));
            *generation = Arc::new(again);
        }
    }

    /// Reads what is left, when nobody will write any more.
    pub(super) fn finish(mut self) -> Arrived {
        if self.chance.take().is_some() {
            self.restart();
        }
        self.container.set_gone(true);
        self.sweep(true);
        self.all_is_counted();
        self.arrived
    }

    fn sweep(&mut self, is_last: bool) {
        loop {
            let outcome = Pass {
                container: &self.container,
                settings: &self.settings,
                cursor: &mut self.cursor,
                lane: &mut self.lane,
                encoder: &mut self.encoder,
                metrics: &self.metrics,
                max_record: MAX_RECORD,
                settled: is_last,
                finishing: false,
                now: self.now,
            }
            .run(&self.generations, &mut self.buffers);
            self.account.read(self.generations.iter().map(|generation| generation.count_read(0)).sum());
            self.lane.close();
            let taken = self.arrived.take(&mut self.delivery, &mut self.chance);
            assert!(taken || outcome != Outcome::Blocked, "blocked, and nothing is under way");
            if outcome == Outcome::End {
                break;
            }
        }
    }

    fn all_is_counted(&self) {
        let read = self.account.bytes_read();
        assert!(
            if self.restarted { read >= self.written } else { read == self.written },
            "{read} bytes are read"
        );
        let dropped: u64 = self.account.bytes_dropped().map(|(_, bytes)| bytes).sum();
        assert_eq!(self.account.bytes_delivered() + dropped, read, "every byte is delivered or dropped");
        assert_eq!(self.account.bytes_in_flight(), 0);
        let acked: u64 = self.generations.iter().map(|generation| generation.acked(0)).sum();
        assert_eq!(acked, self.written, "every byte is acknowledged");
    }
}

fn lane(chunk_bytes: usize, account: &Arc<OutputAccount>) -> (Lane, Receiver<Chunk>) {
    let (chunks, delivery) = channel(2);
    let share = Share::new(2 * chunk_bytes, chunk_bytes, Vec::new());
    (Lane::new(0, Compression::None, chunks, share, account.clone()), delivery)
}

// === impl Chance ===

impl Chance {
    fn one_in(&mut self, of: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.is_multiple_of(of)
    }
}

fn memory() -> File {
    File::from(rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).expect("memory"))
}

// === impl Arrived ===

impl Arrived {
    /// Takes and acknowledges what is under way, but for what `chance` takes away; false when there is nothing.
    fn take(&mut self, delivery: &mut Receiver<Chunk>, chance: &mut Option<Chance>) -> bool {
        let mut any = false;
        while let Ok(chunk) = delivery.try_recv() {
            any = true;
            let mut is_lost = || chance.as_mut().is_some_and(|chance| chance.one_in(4));
            if is_lost() {
                continue;
            }
            let ends = chunk.marks.iter().map(|mark| mark.end as usize).collect();
            self.0.push((chunk.entries.clone(), ends));
            if !is_lost() {
                chunk.settle(&[]);
            }
        }
        any
    }

    /// The bytes of each record.
    fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flat_map(|(entries, ends)| {
            assert_eq!(ends.last(), Some(&entries.len()), "nothing stands behind the last record");
            let starts = std::iter::once(&0).chain(ends);
            starts.zip(ends).map(|(start, end)| &entries[*start..*end])
        })
    }

    /// The records of a Forward output.
    pub(super) fn unpacked(&self) -> Vec<Record> {
        self.records().map(Record::unpack).collect()
    }

    /// The records of an output that writes JSON, one a line.
    pub(super) fn printed(&self) -> Vec<serde_json::Value> {
        let print = |record| {
            let text = std::str::from_utf8(record).expect("UTF-8");
            assert_eq!(text.find('\n'), Some(text.len() - 1), "one line: {text}");
            serde_json::from_str(text).expect("JSON")
        };
        self.records().map(print).collect()
    }
}

// === impl Record ===

impl Record {
    fn unpack(mut bytes: &[u8]) -> Self {
        let entry = rmpv::decode::read_value(&mut bytes).expect("MessagePack");
        assert!(bytes.is_empty(), "one record");
        let rmpv::Value::Ext(0, time) = &entry[0] else { panic!("an EventTime, not {}", entry[0]) };
        let [a, b, c, d, e, f, g, h] = time[..] else { panic!("eight bytes of time, not {}", time.len()) };
        let time = Time {
            seconds: u32::from_be_bytes([a, b, c, d]).into(),
            nanos: u32::from_be_bytes([e, f, g, h]),
        };
        Record { time, fields: crate::json::of_msgpack(&entry[1]) }
    }

    pub(super) fn seen(&self) -> Seen {
        let stream = match &self.fields["stream"] {
            name if *name == "stdout" => Stream::Stdout,
            name if *name == "stderr" => Stream::Stderr,
            other => panic!("no stream: {other}"),
        };
        Seen {
            time: self.time,
            stream,
            text: self.fields["log"].as_str().expect("a text").to_owned(),
            truncated: self.fields["sidelight"]["truncated"] == true,
        }
    }
}
