//! A strict Forward receiver: it checks every message, counts every record, and can be unkind.

mod arrivals;
mod gate;
mod message;
mod security;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rmpv::Value;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub use arrivals::Tally;
use arrivals::{Arrivals, Numbered};
use gate::{Gate, Socket};
use message::check;
pub use security::Security;
use security::{Handshake, Verdict};

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
    /// So many acknowledgements name a chunk that was never sent.
    pub foreign_acks: AtomicU64,
    /// Acknowledgements come so many milliseconds late.
    pub ack_delay: AtomicU64,
    /// What it says arrives byte by byte.
    pub dribbles: AtomicBool,
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
    security: Mutex<Option<Security>>,
    tls: Option<Arc<ServerConfig>>,
    /// Clients do not ask for acknowledgements.
    without_acks: bool,
    /// Records are counted and not kept.
    only_counts: bool,
    received: Mutex<Arrivals>,
    violations: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

// === impl ForwardServer ===

impl ForwardServer {
    /// Listens on a free port of the loopback interface.
    pub fn start() -> Self {
        Self::with(Shared::default())
    }

    /// The same with a `<security>` section.
    pub fn secured(security: Security) -> Self {
        Self::with(Shared { security: Mutex::new(Some(security)), ..Shared::default() })
    }

    /// The same behind TLS.
    pub fn encrypted(tls: Arc<ServerConfig>) -> Self {
        Self::with(Shared { tls: Some(tls), ..Shared::default() })
    }

    /// The same for clients with `ack: false`: that one asks for an acknowledgement is wrong here.
    pub fn without_acks() -> Self {
        Self::with(Shared { without_acks: true, ..Shared::default() })
    }

    /// The same, with all that arrives counted and nothing kept: for long runs.
    pub fn counting() -> Self {
        Self::with(Shared { only_counts: true, ..Shared::default() })
    }

    fn with(shared: Shared) -> Self {
        let address = "127.0.0.1:0".parse().unwrap();
        let mut server = ForwardServer { address, shared: Arc::new(shared), thread: None };
        server.listen();
        server
    }

    /// Puts another `<security>` section in force, for connections that come from now on.
    pub fn set_security(&self, security: Security) {
        *self.shared.security.lock().unwrap() = Some(security);
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

    /// Whether it is there.
    pub fn is_listening(&self) -> bool {
        self.thread.is_some()
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
        self.shared.received.lock().unwrap().records.clone()
    }

    /// How often each sequence number arrived, by writer.
    pub fn sequences(&self) -> BTreeMap<String, BTreeMap<u64, u64>> {
        self.shared.received.lock().unwrap().sequences.clone()
    }

    /// The raw texts of all records, in the order of their arrival.
    pub fn texts(&self) -> Vec<String> {
        self.received()
            .iter()
            .filter_map(|received| Some(received.record["log"].as_str()?.to_owned()))
            .collect()
    }

    /// How many different lines of a writer have arrived.
    pub fn count(&self, writer: &str) -> u64 {
        self.shared.received.lock().unwrap().sequences.get(writer).map_or(0, |lines| lines.len() as u64)
    }

    /// Whether this line of a writer has arrived.
    pub fn has(&self, writer: &str, number: u64) -> bool {
        let received = self.shared.received.lock().unwrap();
        received.sequences.get(writer).is_some_and(|lines| lines.contains_key(&number))
    }

    /// Checks that exactly the lines 0 to `lines` of a writer have arrived, all undamaged, and gives how many came more
    /// than once.
    pub fn assert_complete(&self, writer: &str, lines: u64) -> u64 {
        assert_complete(&[self], writer, lines)
    }

    /// Counts what has arrived of the lines 0 to `sent` of a writer; all of it must be undamaged, and nothing else.
    pub fn tally(&self, writer: &str, sent: u64) -> Tally {
        self.assert_clean();
        self.shared.received.lock().unwrap().tally(writer, sent)
    }

    /// Which of the lines 0 to `sent` of a writer have not arrived.
    pub fn missing(&self, writer: &str, sent: u64) -> Vec<u64> {
        self.shared.received.lock().unwrap().missing(writer, sent)
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

/// Checks that exactly the lines 0 to `lines` of a writer have arrived at these servers together, all undamaged, and
/// gives how many came more than once.
pub fn assert_complete(servers: &[&ForwardServer], writer: &str, lines: u64) -> u64 {
    let mut arrived: BTreeMap<u64, u64> = BTreeMap::new();
    for server in servers {
        server.assert_clean();
        let received = server.shared.received.lock().unwrap();
        received.assert_undamaged(writer);
        for (number, times) in received.sequences.get(writer).into_iter().flatten() {
            *arrived.entry(*number).or_default() += times;
        }
    }
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

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket: Box<dyn Socket> = match &shared.tls {
        None => Box::new(stream.try_clone()?),
        Some(config) => {
            let connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(connection, stream.try_clone()?))
        }
    };
    let mut gate = BufReader::with_capacity(64 << 10, Gate { socket, shared });
    let security = shared.security.lock().unwrap().clone();
    if let Some(security) = &security {
        shake(&mut gate, security)?;
    }
    loop {
        let message = rmpv::decode::read_value(&mut gate).map_err(io::Error::other)?;
        let records = check(&message).and_then(|records| match message[2]["chunk"].as_str() {
            None if !shared.without_acks => Err("no chunk id: no acknowledgement is asked for".to_owned()),
            Some(_) if shared.without_acks => Err("a chunk id, though nobody waits".to_owned()),
            _ => Ok(records),
        });
        let records = match records {
            Ok(records) => records,
            Err(violation) => return shared.violation(violation),
        };
        let refused = shared.faults.refuse.lock().unwrap().clone();
        if refused
            .is_some_and(|text| records.iter().any(|received| received.record.to_string().contains(&text)))
        {
            return Ok(());
        }
        shared.take(records);
        std::thread::sleep(Duration::from_millis(shared.faults.ack_delay.load(Ordering::SeqCst)));
        if !shared.without_acks && !use_up(&shared.faults.lose_acks) {
            let is_foreign = use_up(&shared.faults.foreign_acks);
            let id = if is_foreign { Value::from("of another") } else { message[2]["chunk"].clone() };
            say(&mut gate, &Value::Map(vec![(Value::from("ack"), id)]))?;
        }
        if security.as_ref().is_some_and(|security| !security.keepalive) {
            return Ok(());
        }
    }
}

/// The handshake; an error ends the connection.
fn shake(gate: &mut BufReader<Gate<'_>>, security: &Security) -> io::Result<()> {
    let handshake = Handshake::new();
    say(gate, &handshake.helo(security))?;
    let ping = rmpv::decode::read_value(gate).map_err(io::Error::other)?;
    let (pong, verdict) = handshake.answer(&ping, security);
    let shared = gate.get_ref().shared;
    if matches!(verdict, Verdict::Welcome) && !gate.buffer().is_empty() {
        shared.violation("something was sent before PONG".to_owned())?;
    }
    say(gate, &pong)?;
    match verdict {
        Verdict::Welcome => return Ok(()),
        Verdict::Refused => {}
        Verdict::Violation(what) => shared.violation(what)?,
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Sends a message, whole or byte by byte.
fn say(gate: &mut BufReader<Gate<'_>>, message: &Value) -> io::Result<()> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, message).map_err(io::Error::other)?;
    let Gate { socket, shared } = gate.get_mut();
    if !shared.faults.dribbles.load(Ordering::SeqCst) {
        socket.write_all(&bytes)?;
        return socket.flush();
    }
    for byte in bytes {
        socket.write_all(&[byte])?;
        socket.flush()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// One of a fault that is there a number of times.
fn use_up(fault: &AtomicU64) -> bool {
    fault.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

// === impl Shared ===

impl Shared {
    fn take(&self, records: Vec<Received>) {
        // Before the lock: those who wait for lines are not to wait for checksums.
        let numbered = records.iter().filter_map(Numbered::of).collect();
        let mut received = self.received.lock().unwrap();
        received.add(numbered);
        if !self.only_counts {
            received.records.extend(records);
        }
    }

    fn violation(&self, what: String) -> io::Result<()> {
        self.violations.lock().unwrap().push(what);
        Ok(())
    }
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
            server.shared.take(vec![received]);
        }
        server.assert_complete("w", 3);
    }

    #[test]
    #[should_panic(expected = "line 0 of w is damaged")]
    fn a_damaged_line_is_seen() {
        let server = ForwardServer::start();
        let text = format!("seq=w:0 sum={} whole", crate::checksum("w:0", "whole"));
        for text in [text.clone(), text.replace("whole", "hole")] {
            let record = Value::Map(vec![(Value::from("log"), Value::from(text))]);
            let received = Received { tag: String::new(), time: (0, 0), record, chunk: String::new() };
            server.shared.take(vec![received]);
        }
        server.assert_complete("w", 1);
    }
}
