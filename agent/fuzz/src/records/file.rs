//! A file that grows, and a reader's pass over it for one output, without discovery and delivery.

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

/// Reads a file that grows by `pieces` until nobody will write it any more.
pub(super) fn read<F: Format>(
    config: &Arc<Config>,
    pieces: &[Vec<u8>],
    format: F,
    chunk_bytes: usize,
) -> Arrived {
    let registry = Registry::new();
    let accounts = Accounts::register(&registry).expect("an empty registry");
    let metrics = LogMetrics::register(&registry).expect("an empty registry");
    let account = accounts.output("forward");
    let (chunks, mut delivery) = channel(2);
    let share = Share::new(2 * chunk_bytes, Vec::new());
    let mut lane = Lane::new(0, chunk_bytes, Compression::None, chunks, share, account.clone());
    let settings = settings(config);
    let namespace_account = accounts.namespace("ns");
    let container =
        Container::new(Arc::new(path()), "/none".into(), namespace_account.clone(), self::settings(config));
    let memory = rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    let mut file = File::from(memory);
    let opened = Opened {
        container: container.path.clone(),
        namespace_account,
        inode: (0, 0),
        name: LogName::parse("0.log").expect("a valid name"),
        path: "0.log".into(),
        source: Some(Arc::new(Source::plain(file.try_clone().expect("a descriptor")))),
    };
    let generations = [Arc::new(Generation::new(opened, 1))];
    let mut encoder = RecordEncoder::new(config, NamespaceLimits::default(), format);
    let (mut cursor, mut buffers, now) = (Cursor::default(), Buffers::default(), Instant::now());
    let mut arrived = Arrived::default();
    let mut sweep = |is_last: bool| loop {
        let outcome = Pass {
            container: &container,
            settings: &settings,
            cursor: &mut cursor,
            lane: &mut lane,
            encoder: &mut encoder,
            metrics: &metrics,
            max_record: MAX_RECORD,
            settled: is_last,
            now,
        }
        .run(&generations, &mut buffers);
        account.read(generations[0].count_read(0));
        lane.close();
        let taken = arrived.take(&mut delivery);
        assert!(taken || outcome != Outcome::Blocked, "blocked, and nothing is under way");
        if outcome == Outcome::End {
            break;
        }
    };
    for piece in pieces {
        file.write_all(piece).expect("memory");
        sweep(false);
    }
    container.set_gone(true);
    sweep(true);
    all_is_counted(&account, &generations[0], pieces.iter().map(|piece| piece.len() as u64).sum());
    arrived
}

fn all_is_counted(account: &OutputAccount, generation: &Generation, size: u64) {
    let dropped: u64 = account.bytes_dropped().map(|(_, bytes)| bytes).sum();
    assert_eq!(account.bytes_read(), size, "every byte is read once");
    assert_eq!(account.bytes_delivered() + dropped, size, "every byte is delivered or dropped");
    assert_eq!(account.bytes_in_flight(), 0);
    assert_eq!(generation.acked(0), size, "every byte is acknowledged");
}

// === impl Arrived ===

impl Arrived {
    /// Takes and acknowledges what is under way; false when there is nothing.
    fn take(&mut self, delivery: &mut Receiver<Chunk>) -> bool {
        let before = self.0.len();
        while let Ok(chunk) = delivery.try_recv() {
            let ends = chunk.marks.iter().map(|mark| mark.end as usize).collect();
            self.0.push((chunk.entries.clone(), ends));
            chunk.settle(&[]);
        }
        self.0.len() > before
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
