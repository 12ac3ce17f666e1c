//! A strict Forward receiver: it checks every message, counts every record, and can be unkind.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rmpv::Value;

/// One record that arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its tag.
    pub tag: String,
    /// Seconds and nanoseconds.
    pub time: (u32, u32),
    /// The record.
    pub record: Value,
    /// The id of its chunk.
    pub chunk: String,
}

/// How it misbehaves; all can be changed while it runs.
#[derive(Debug, Default)]
pub struct Faults {
    /// So many acknowledgements are not sent.
    pub lose_acks: AtomicU64,
    /// The connection is cut behind so many bytes of messages; 0: never. Used up by one cut.
    pub cut_after: AtomicU64,
    /// Nothing more is taken or acknowledged.
    pub stall: AtomicBool,
    /// A message with this text in it is refused: the connection is closed without an acknowledgement.
    pub refuse: Mutex<Option<String>>,
}

/// The server. Its port stays the same over `stop` and `start`.
pub struct ForwardServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    faults: Faults,
    received: Mutex<Vec<Received>>,
    violations: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

// === impl ForwardServer ===

impl ForwardServer {
    /// Listens on a free port of the loopback interface.
    pub fn start() -> Self {
        let mut server =
            ForwardServer { address: "127.0.0.1:0".parse().unwrap(), shared: Arc::default(), thread: None };
        server.listen();
        server
    }

    /// Listens again on the same port.
    pub fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).unwrap();
        self.address = listener.local_addr().unwrap();
        self.shared.stopping.store(false, Ordering::SeqCst);
        let shared = self.shared.clone();
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let _ = serve(&stream, &shared);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        }));
    }

    /// Goes away: closes all connections and the port.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Everything that arrived, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// How often each sequence number arrived, by writer.
    pub fn sequences(&self) -> BTreeMap<String, BTreeMap<u64, u64>> {
        let mut sequences: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
        for received in self.shared.received.lock().unwrap().iter() {
            if let Some((writer, number)) = sequence(&received.record) {
                *sequences.entry(writer).or_default().entry(number).or_default() += 1;
            }
        }
        sequences
    }

    /// How many different lines of a writer have arrived.
    pub fn count(&self, writer: &str) -> u64 {
        self.sequences().get(writer).map_or(0, |lines| lines.len() as u64)
    }

    /// Checks that exactly the lines 0 to `lines` of a writer have arrived, and gives how many came more than once.
    pub fn assert_complete(&self, writer: &str, lines: u64) -> u64 {
        self.assert_clean();
        let sequences = self.sequences();
        let empty = BTreeMap::new();
        let arrived = sequences.get(writer).unwrap_or(&empty);
        let missing: Vec<u64> = (0..lines).filter(|number| !arrived.contains_key(number)).collect();
        assert!(
            missing.is_empty(),
            "{} of {lines} lines of {writer} are lost: {:?} …",
            missing.len(),
            &missing[..missing.len().min(10)]
        );
        assert_eq!(arrived.len() as u64, lines, "lines of {writer} that were never written");
        arrived.values().map(|times| times - 1).sum()
    }

    /// Checks that no message was wrong.
    pub fn assert_clean(&self) {
        let violations = self.shared.violations.lock().unwrap();
        assert!(violations.is_empty(), "{violations:?}");
    }
}

impl Drop for ForwardServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, Gate { stream, shared });
    loop {
        let message = rmpv::decode::read_value(&mut reader).map_err(io::Error::other)?;
        let records = match check(&message) {
            Ok(records) => records,
            Err(violation) => {
                shared.violations.lock().unwrap().push(violation);
                return Ok(());
            }
        };
        let refused = shared.faults.refuse.lock().unwrap().clone();
        if refused
            .is_some_and(|text| records.iter().any(|received| received.record.to_string().contains(&text)))
        {
            return Ok(());
        }
        let chunk = message[2]["chunk"].clone();
        shared.received.lock().unwrap().extend(records);
        let lose = |left: u64| left.checked_sub(1);
        if shared.faults.lose_acks.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok()
            || chunk.is_nil()
        {
            continue;
        }
        let mut answer = Vec::new();
        rmpv::encode::write_value(&mut answer, &Value::Map(vec![(Value::from("ack"), chunk)]))
            .map_err(io::Error::other)?;
        (&*stream).write_all(&answer)?;
    }
}

/// The socket as the faults let it through.
struct Gate<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
}

impl Read for Gate<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let faults = &self.shared.faults;
        let cut_after = faults.cut_after.load(Ordering::SeqCst) as usize;
        let read = (&*self.stream).read(buffer)?;
        // Behind the read: what was waited for inside the kernel stalls too.
        while faults.stall.load(Ordering::SeqCst) && !self.shared.stopping.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if cut_after > 0 && read > 0 {
            let left = cut_after.saturating_sub(read);
            faults.cut_after.store(left as u64, Ordering::SeqCst);
            if left == 0 {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(read)
    }
}

/// Checks one message against the specification and unpacks its records.
fn check(message: &Value) -> Result<Vec<Received>, String> {
    let fields = message.as_array().filter(|fields| fields.len() == 3).ok_or("not an array of three")?;
    let tag = fields[0].as_str().ok_or("the tag is no text")?;
    let packed = fields[1].as_slice().ok_or("the entries are neither bin nor str")?;
    let options = &fields[2];
    let chunk = options["chunk"].as_str().unwrap_or_default().to_owned();
    let inflated = match options["compressed"].as_str() {
        None => packed.to_vec(),
        Some("gzip") => {
            let mut bytes = Vec::new();
            flate2::read::MultiGzDecoder::new(packed)
                .read_to_end(&mut bytes)
                .map_err(|error| error.to_string())?;
            bytes
        }
        Some("zstd") => zstd::decode_all(packed).map_err(|error| error.to_string())?,
        Some(other) => return Err(format!("compressed by {other}")),
    };
    let mut rest = inflated.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let entry =
            rmpv::decode::read_value(&mut rest).map_err(|error| format!("an entry is broken: {error}"))?;
        let entry = entry.as_array().filter(|entry| entry.len() == 2).ok_or("an entry is no pair")?;
        let time = match &entry[0] {
            Value::Ext(0, bytes) if bytes.len() == 8 => {
                let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
                (number(&bytes[..4]), number(&bytes[4..]))
            }
            other => return Err(format!("the time is no EventTime: {other}")),
        };
        let record = entry[1].clone();
        check_texts(&record)?;
        if !record.is_map() {
            return Err(format!("the record is no map: {record}"));
        }
        records.push(Received { tag: tag.to_owned(), time, record, chunk: chunk.clone() });
    }
    match options["size"].as_u64() {
        Some(size) if size == records.len() as u64 => Ok(records),
        size => Err(format!("size says {size:?}, there are {}", records.len())),
    }
}

/// Every text is UTF-8, every key a text and there once.
fn check_texts(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.as_str().is_none() => Err(format!("not UTF-8: {text:?}")),
        Value::Array(items) => items.iter().try_for_each(check_texts),
        Value::Map(entries) => {
            let mut keys: Vec<&str> = entries.iter().filter_map(|(key, _)| key.as_str()).collect();
            if keys.len() != entries.len() {
                return Err(format!("a key is no text: {value}"));
            }
            keys.sort_unstable();
            if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("the key {} is there twice", twice[0]));
            }
            entries.iter().try_for_each(|(_, value)| check_texts(value))
        }
        _ => Ok(()),
    }
}

/// The `seq=WRITER:NUMBER` of a record's text.
fn sequence(record: &Value) -> Option<(String, u64)> {
    let found = |text: &str| {
        let (writer, rest) = text.split_once("seq=")?.1.split_once(':')?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((writer.to_owned(), digits.parse().ok()?))
    };
    ["log", "message"].into_iter().find_map(|key| found(record[key].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "1 of 3 lines of w are lost: [1]")]
    fn one_lost_line_is_seen() {
        let server = ForwardServer::start();
        for number in [0, 2] {
            let record = Value::Map(vec![(Value::from("log"), Value::from(format!("seq=w:{number} x")))]);
            let received = Received { tag: String::new(), time: (0, 0), record, chunk: String::new() };
            server.shared.received.lock().unwrap().push(received);
        }
        server.assert_complete("w", 3);
    }

    #[test]
    fn a_wrong_size_and_a_key_twice_are_violations() {
        let entry = |record: Value| {
            let mut bytes = Vec::new();
            let time = Value::Ext(0, vec![0; 8]);
            rmpv::encode::write_value(&mut bytes, &Value::Array(vec![time, record])).unwrap();
            bytes
        };
        let message = |bytes: Vec<u8>, size: u64| {
            Value::Array(vec![
                Value::from("t"),
                Value::Binary(bytes),
                Value::Map(vec![(Value::from("size"), Value::from(size))]),
            ])
        };
        let twice = Value::Map(vec![(Value::from("a"), Value::Nil), (Value::from("a"), Value::Nil)]);
        assert!(check(&message(entry(Value::Map(vec![])), 1)).is_ok());
        assert!(check(&message(entry(Value::Map(vec![])), 2)).is_err());
        assert!(check(&message(entry(twice), 1)).is_err());
    }
}
