//! The receiver of a run: it acknowledges and counts, and looks into records only as far as it is told to.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::tally::{Look, Tally};
use crate::{forward, http};

/// How often a receiver looks for connections, and whether it is to be away.
const LISTEN: Duration = Duration::from_millis(5);

/// What senders speak to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Fluentd's, with acknowledgements.
    Forward,
    /// HTTP/1.1; any body in which records are text.
    Http,
}

/// A running receiver. It ends with the process.
pub(crate) struct Receiver {
    address: SocketAddr,
    away: Arc<AtomicBool>,
    /// What has arrived.
    pub(crate) tally: Arc<Tally>,
}

// === impl Receiver ===

impl Receiver {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(protocol: Protocol, look: Look) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let receiver = Receiver { address, away: Arc::default(), tally: Arc::new(Tally::new(look)) };
        let (away, tally) = (receiver.away.clone(), receiver.tally.clone());
        std::thread::spawn(move || {
            let mut listener = Ok(listener);
            while let Ok(open) = listener {
                listen(open, protocol, &away, &tally).unwrap();
                while away.load(Ordering::Relaxed) {
                    std::thread::sleep(LISTEN);
                }
                listener = TcpListener::bind(address);
            }
        });
        Ok(receiver)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Refuses and breaks connections from now on, or no longer.
    pub(crate) fn be_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }
}

/// Serves until it is to be away.
fn listen(
    listener: TcpListener,
    protocol: Protocol,
    away: &AtomicBool,
    tally: &Arc<Tally>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut connections: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
    while !away.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(LISTEN);
            continue;
        };
        let (ours, tally) = (stream.try_clone()?, tally.clone());
        let serving = std::thread::spawn(move || match serve(&stream, protocol, &tally) {
            Err(error) if matches!(error.kind(), ErrorKind::Other | ErrorKind::InvalidData) => {
                tally.broken(&error)
            }
            // A connection may end at any time.
            _ => {}
        });
        // There are programs that open one for every chunk.
        connections.retain(|(_, serving)| !serving.is_finished());
        connections.push((ours, serving));
    }
    for (connection, _) in connections {
        let _ = connection.shutdown(Shutdown::Both);
    }
    Ok(())
}

fn serve(stream: &TcpStream, protocol: Protocol, tally: &Tally) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match protocol {
        Protocol::Forward => forward::serve(stream, tally),
        Protocol::Http => http::serve(stream, tally),
    }
}
