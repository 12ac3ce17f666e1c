//! Receivers that others wrote, as processes that can be killed, and what has arrived there.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::{Map, Value, json};
use sidelight_tests::eventually;
use sidelight_tests::http;
use sidelight_tests::kubelet::Log;

/// The sink's answer to an export.
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// A record as its receiver understood it.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) tag: String,
    /// Seconds and nanoseconds.
    pub(crate) time: (u64, u64),
    pub(crate) record: Value,
}

/// What has arrived so far.
#[derive(Default)]
pub(crate) struct Arrivals {
    pub(crate) all: Vec<Arrived>,
    /// How often each number of each writer came.
    pub(crate) times: BTreeMap<String, BTreeMap<u64, u64>>,
}

// === impl Arrivals ===

impl Arrivals {
    pub(crate) fn take(&mut self, arrived: Arrived) {
        if let Some((writer, number)) = sequence(&arrived.record) {
            *self.times.entry(writer).or_default().entry(number).or_default() += 1;
        }
        self.all.push(arrived);
    }

    pub(crate) fn count(&self, writer: &str) -> u64 {
        self.times.get(writer).map_or(0, |times| times.len() as u64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Fluent,
    Collector,
}

/// A receiver in a process of its own. Its port stays the same over `kill` and `listen`.
pub(crate) struct Receiver {
    pub(crate) kind: Kind,
    pub(crate) port: u16,
    pub(crate) command: Command,
    pub(crate) child: Option<Child>,
    pub(crate) reader: Option<JoinHandle<()>>,
    pub(crate) arrivals: Arc<Mutex<Arrivals>>,
}

// === impl Receiver ===

impl Receiver {
    /// The Fluent organisation's server; `environment` holds what clients must know.
    pub(crate) fn fluent(environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut command = Command::new("node");
        command.arg(folder("fluent").join("server.js")).arg(port.to_string());
        command.envs(environment.iter().copied()).stdout(Stdio::piped());
        Self::start(Kind::Fluent, port, command, Arc::default())
    }

    /// The Collector, and behind it a sink that takes its OTLP.
    pub(crate) fn collector() -> Self {
        let arrivals = Arc::<Mutex<Arrivals>>::default();
        let sink = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink_port = sink.local_addr().unwrap().port();
        let taking = arrivals.clone();
        std::thread::spawn(move || {
            for stream in sink.incoming().flatten() {
                let arrivals = taking.clone();
                std::thread::spawn(move || take_otlp(&stream, &arrivals));
            }
        });
        let (port, folder) = (free_port(), folder("collector"));
        let mut command = Command::new(folder.join("collector"));
        command.arg("--config").arg(folder.join("config.yaml"));
        command.env("FORWARD_PORT", port.to_string()).env("SINK_PORT", sink_port.to_string());
        Self::start(Kind::Collector, port, command, arrivals)
    }

    pub(crate) fn start(kind: Kind, port: u16, command: Command, arrivals: Arc<Mutex<Arrivals>>) -> Self {
        let mut receiver = Receiver { kind, port, command, child: None, reader: None, arrivals };
        receiver.listen();
        receiver
    }

    /// Starts the process and waits until it listens.
    pub(crate) fn listen(&mut self) {
        let mut child = self.command.spawn().unwrap();
        let arrivals = self.arrivals.clone();
        let read = |stdout| std::thread::spawn(move || take_printed(stdout, &arrivals));
        self.reader = child.stdout.take().map(read);
        self.child = Some(child);
        eventually("the receiver listens", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// kill -9; then everything is counted that it had taken.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }

    /// How many different lines of a writer have arrived.
    pub(crate) fn count(&self, writer: &str) -> u64 {
        self.arrivals.lock().unwrap().count(writer)
    }

    /// Waits until every line of a writer has arrived.
    pub(crate) fn wait_for(&self, log: &Log) {
        eventually("all lines", || self.count(&log.writer) == log.next);
    }

    /// Checks that every line of a writer arrived, and no other; gives how many came again. The receiver is gone then.
    pub(crate) fn assert_complete(&mut self, log: &Log) -> u64 {
        self.assert_complete_of(&log.writer, log.next)
    }

    /// The same for a writer of which only the name and the number of lines are at hand.
    pub(crate) fn assert_complete_of(&mut self, writer: &str, lines: u64) -> u64 {
        self.kill();
        let arrivals = self.arrivals.lock().unwrap();
        let times = &arrivals.times[writer];
        let missing: Vec<u64> = (0..lines).filter(|number| !times.contains_key(number)).collect();
        let some = &missing[..missing.len().min(10)];
        assert!(missing.is_empty(), "{} of {lines} lines are lost: {some:?}", missing.len());
        assert_eq!(times.len() as u64, lines, "lines that were never written");
        times.values().map(|times| times - 1).sum()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port below those that the system gives to outgoing connections, so that it stays free while its receiver is away.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 20_000 + std::process::id() as u16 % 10_000 + TRIED.fetch_add(1, Ordering::SeqCst);
        // The Collector's receiver also wants the UDP port of that number, for heartbeats.
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where `tests/receivers/build` has put a receiver.
pub(crate) fn folder(name: &str) -> PathBuf {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/receivers/build");
    let output = Command::new(build).args(["--where", name]).output().unwrap();
    assert!(output.status.success(), "{name} is not built; run tests/receivers/build");
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// Reads what the Fluent server prints. A last line that a kill has cut was not acknowledged.
pub(crate) fn take_printed(stdout: impl Read, arrivals: &Mutex<Arrivals>) {
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
        let printed: Value = serde_json::from_str(&line).unwrap();
        let number = |index: usize| printed["time"][index].as_u64().unwrap();
        let (tag, time) = (printed["tag"].as_str().unwrap().to_owned(), (number(0), number(1)));
        arrivals.lock().unwrap().take(Arrived { tag, time, record: printed["record"].clone() });
        line.clear();
    }
}

/// One connection of the Collector: each request is answered when its records are taken.
pub(crate) fn take_otlp(stream: &TcpStream, arrivals: &Mutex<Arrivals>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = http::read(&mut reader)? {
        let request: Value = serde_json::from_slice(&request.body).unwrap();
        let scopes = items(&request["resourceLogs"]).flat_map(|resource| items(&resource["scopeLogs"]));
        let records = scopes.flat_map(|scope| items(&scope["logRecords"]));
        {
            let mut arrivals = arrivals.lock().unwrap();
            records.for_each(|record| arrivals.take(from_otlp(record)));
        }
        // In one write: the second of several would wait for the peer's delayed ACK, 40 ms for each export.
        let mut stream = stream;
        stream.write_all(TAKEN)?;
    }
    Ok(())
}

pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(crate) fn from_otlp(log: &Value) -> Arrived {
    let nanos: u64 = log["timeUnixNano"].as_str().unwrap().parse().unwrap();
    let mut record = plain_map(&log["attributes"]);
    let tag = record.remove("fluent.tag").unwrap().as_str().unwrap().to_owned();
    record.insert("log".to_owned(), plain(&log["body"]));
    Arrived { tag, time: (nanos / 1_000_000_000, nanos % 1_000_000_000), record: Value::Object(record) }
}

pub(crate) fn plain_map(entries: &Value) -> Map<String, Value> {
    items(entries).map(|entry| (entry["key"].as_str().unwrap().to_owned(), plain(&entry["value"]))).collect()
}

/// OTLP's `AnyValue` without what it says about the type.
pub(crate) fn plain(any: &Value) -> Value {
    let Some((kind, value)) = any.as_object().and_then(|any| any.iter().next()) else { return Value::Null };
    match kind.as_str() {
        "intValue" => json!(value.as_str().unwrap().parse::<i64>().unwrap()),
        "arrayValue" => items(&value["values"]).map(plain).collect(),
        "kvlistValue" => Value::Object(plain_map(&value["values"])),
        _ => value.clone(),
    }
}

/// The `seq=WRITER:NUMBER` of a record's text.
pub(crate) fn sequence(record: &Value) -> Option<(String, u64)> {
    let text = ["log", "message"].into_iter().find_map(|key| record[key].as_str())?;
    let (writer, rest) = text.strip_prefix("seq=")?.split_once(':')?;
    Some((writer.to_owned(), rest.split(' ').next()?.parse().ok()?))
}

/// The count sees a line that is missing between two that arrived.
#[test]
#[should_panic(expected = "1 of 3 lines are lost: [1]")]
fn one_lost_line_is_seen() {
    let (_node, _web, mut bulk) = super::node();
    bulk.lines(3, 10);
    let arrivals = Arc::<Mutex<Arrivals>>::default();
    for number in [0, 2] {
        let printed =
            json!({ "tag": "t", "time": [1, 2], "record": { "log": format!("seq=bulk:{number} x") } });
        take_printed(format!("{printed}\n").as_bytes(), &arrivals);
    }
    let command = Command::new("none");
    let mut receiver = Receiver { kind: Kind::Fluent, port: 0, command, child: None, reader: None, arrivals };
    receiver.assert_complete(&bulk);
}
