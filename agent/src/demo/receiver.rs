//! A Forward receiver that acknowledges, counts and remembers the newest records.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use rmpv::Value;

use super::loopback::listen;

/// Records of each pod kept to be shown.
const REMEMBERED: usize = 2;

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Received {
    /// Sequence numbers by writer.
    pub(super) lines: BTreeMap<String, Seen>,
    /// Records in all.
    pub(super) records: u64,
    /// Sequence numbers that came more than once.
    pub(super) duplicates: u64,
    /// The newest records of each pod, with their tags.
    pub(super) newest: BTreeMap<String, VecDeque<(String, Value)>>,
}

/// The numbers of a writer that have arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// All below this have.
    below: u64,
    /// And these.
    ahead: BTreeSet<u64>,
}

/// The running receiver.
pub(super) struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

// === impl Receiver ===

impl Receiver {
    /// Listens on a free port of the loopback interface.
    pub(super) fn start() -> io::Result<Self> {
        let received = Arc::<Mutex<Received>>::default();
        let taken = received.clone();
        let address = listen("receiver", move |stream| serve(stream, &taken))?;
        Ok(Receiver { address, received })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far.
    pub(super) fn received(&self) -> Received {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(stream: &TcpStream, received: &Mutex<Received>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let message = rmpv::decode::read_value(&mut reader).map_err(io::Error::other)?;
        let (tag, entries, options) = (&message[0], &message[1], &message[2]);
        let bytes = match entries {
            Value::Binary(bytes) => bytes.as_slice(),
            Value::String(text) => text.as_bytes(),
            _ => return Err(io::Error::other("not PackedForward")),
        };
        let mut inflated = Vec::new();
        let bytes = match options["compressed"].as_str() {
            Some("gzip") => {
                flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut inflated)?;
                &inflated
            }
            _ => bytes,
        };
        take(tag.as_str().unwrap_or_default(), bytes, received)?;
        let mut answer = Vec::new();
        let ack = Value::Map(vec![(Value::from("ack"), options["chunk"].clone())]);
        rmpv::encode::write_value(&mut answer, &ack).map_err(io::Error::other)?;
        (&*stream).write_all(&answer)?;
    }
}

fn take(tag: &str, mut entries: &[u8], received: &Mutex<Received>) -> io::Result<()> {
    let mut records = Vec::new();
    while !entries.is_empty() {
        let entry = rmpv::decode::read_value(&mut entries).map_err(io::Error::other)?;
        records.push(entry[1].clone());
    }
    let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
    for record in records {
        received.records += 1;
        if let Some((writer, number)) = sequence(&record) {
            let is_new = received.lines.entry(writer).or_default().insert(number);
            received.duplicates += u64::from(!is_new);
        }
        let pod = record["kubernetes"]["pod_name"].as_str().unwrap_or_default().to_owned();
        let newest = received.newest.entry(pod).or_default();
        newest.push_back((tag.to_owned(), record));
        if newest.len() > REMEMBERED {
            newest.pop_front();
        }
    }
    Ok(())
}

/// The `seq=WRITER:NUMBER` that every line of the demo carries somewhere.
fn sequence(record: &Value) -> Option<(String, u64)> {
    let found = |text: &str| {
        let (writer, rest) = text.split_once("seq=")?.1.split_once(':')?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some((writer.to_owned(), digits.parse().ok()?))
    };
    let texts = ["log", "message"].map(|key| record[key].as_str());
    texts.into_iter().flatten().find_map(found).or_else(|| found(&format!("seq={}", record["seq"].as_str()?)))
}

// === impl Seen ===

impl Seen {
    /// Notes a number; false when it was there already.
    fn insert(&mut self, number: u64) -> bool {
        if number < self.below || !self.ahead.insert(number) {
            return false;
        }
        while self.ahead.remove(&self.below) {
            self.below += 1;
        }
        true
    }

    /// How many of the first `lines` numbers are there.
    pub(super) fn of(&self, lines: u64) -> u64 {
        lines.min(self.below) + self.ahead.range(..lines).count() as u64
    }

    fn len(&self) -> u64 {
        self.below + self.ahead.len() as u64
    }
}

// === impl Received ===

impl Received {
    /// How many lines have arrived, each counted once.
    pub(super) fn arrived(&self) -> u64 {
        self.lines.values().map(Seen::len).sum()
    }

    /// How many of the first `lines` lines of a writer have arrived.
    pub(super) fn arrived_of(&self, writer: &str, lines: u64) -> u64 {
        self.lines.get(writer).map_or(0, |seen| seen.of(lines))
    }

    /// How many of the expected lines are not there.
    pub(super) fn missing(&self, expected: &BTreeMap<String, u64>) -> u64 {
        expected.iter().map(|(writer, lines)| lines - self.arrived_of(writer, *lines)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missing_line_is_seen_whatever_else_has_arrived() {
        let mut received = Received::default();
        let seen = received.lines.entry("w".to_owned()).or_default();
        assert!([0, 3, 1, 4].into_iter().all(|number| seen.insert(number)));
        assert!(!seen.insert(3) && !seen.insert(0));
        assert_eq!(received.missing(&BTreeMap::from([("w".to_owned(), 4)])), 1);
        assert_eq!(received.arrived(), 4);
    }
}
