//! The receiver of a run: it acknowledges and counts, and looks into records only when it is to verify.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rmpv::Value;

/// A running receiver. It ends with the process.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    verify: bool,
    records: AtomicU64,
    /// By pod, how often each number has arrived.
    seen: Mutex<HashMap<String, Vec<u8>>>,
}

// === impl Receiver ===

impl Receiver {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(verify: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let receiver = Receiver {
            address: listener.local_addr()?,
            shared: Arc::new(Shared { verify, ..Shared::default() }),
        };
        let shared = receiver.shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // The sender sees a connection that breaks, and its run does not end.
                std::thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Ok(receiver)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Records so far.
    pub(crate) fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// How many of `records` numbers of a pod did not arrive exactly once.
    pub(crate) fn wrong(&self, pod: &str, records: u64) -> u64 {
        let seen = self.shared.seen.lock().unwrap();
        let once = seen.get(pod).map_or(0, |seen| seen.iter().filter(|times| **times == 1).count() as u64);
        records.abs_diff(once)
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut entries = Vec::new();
    loop {
        let mut head = [0];
        reader.read_exact(&mut head)?;
        let _tag = rmpv::decode::read_value(&mut reader).map_err(io::Error::other)?;
        let length = rmp::decode::read_bin_len(&mut reader).map_err(io::Error::other)?;
        entries.resize(length as usize, 0);
        reader.read_exact(&mut entries)?;
        let options = rmpv::decode::read_value(&mut reader).map_err(io::Error::other)?;
        if shared.verify {
            look_into(&entries, shared)?;
        }
        shared.records.fetch_add(options["size"].as_u64().unwrap_or(0), Ordering::Relaxed);
        if !options["chunk"].is_nil() {
            let mut answer = Vec::new();
            let ack = Value::Map(vec![(Value::from("ack"), options["chunk"].clone())]);
            rmpv::encode::write_value(&mut answer, &ack).map_err(io::Error::other)?;
            (&*stream).write_all(&answer)?;
        }
    }
}

fn look_into(mut entries: &[u8], shared: &Shared) -> io::Result<()> {
    while !entries.is_empty() {
        let entry = rmpv::decode::read_value(&mut entries).map_err(io::Error::other)?;
        let record = &entry[1];
        let text =
            record["log"].as_str().or(record["message"].as_str()).or(record["fields"]["message"].as_str());
        let sequence =
            text.and_then(|text| text.split_once("seq=")?.1.split([' ', '"']).next()?.split_once(':'));
        let (pod, number) =
            sequence.ok_or_else(|| io::Error::other(format!("a record without seq: {record}")))?;
        let named = record["kubernetes"]["pod_name"].as_str() == Some(pod);
        let number: usize = number.parse().map_err(io::Error::other)?;
        let mut seen = shared.seen.lock().unwrap();
        let seen = seen.entry(pod.to_owned()).or_default();
        if seen.len() <= number {
            seen.resize(number + 1, 0);
        }
        seen[number] = if named { seen[number].saturating_add(1) } else { u8::MAX };
    }
    Ok(())
}
