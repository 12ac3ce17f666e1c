//! A way to a server that can be cut in the middle of a request, or lead nowhere.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They lead to the server.
    Open,
    /// They break when so many bytes of requests have passed.
    CutAfter(usize),
    /// They are taken, and nobody answers.
    Nowhere,
}

/// The relay.
pub struct Relay {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
    connections: Arc<Mutex<usize>>,
}

// === impl Relay ===

impl Relay {
    /// To this server.
    pub fn start(server: SocketAddr, way: Way) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), server, way)
    }

    /// The same on another address than loopback's.
    pub fn start_on(address: IpAddr, server: SocketAddr, way: Way) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (way, connections) = (Arc::new(Mutex::new(way)), Arc::new(Mutex::new(0)));
        let (leading, counting) = (way.clone(), connections.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                *counting.lock().unwrap() += 1;
                let way = *leading.lock().unwrap();
                std::thread::spawn(move || pass(client, server, way));
            }
        });
        Relay { address, way, connections }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it was asked for.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// For the connections from now on.
    pub fn lead(&self, way: Way) {
        *self.way.lock().unwrap() = way;
    }
}

fn pass(mut client: TcpStream, server: SocketAddr, way: Way) -> io::Result<()> {
    let mut left = match way {
        Way::Open => usize::MAX,
        Way::CutAfter(bytes) => bytes,
        Way::Nowhere => {
            // Until the client has had enough of it.
            io::copy(&mut client, &mut io::sink())?;
            return Ok(());
        }
    };
    let mut server = TcpStream::connect(server)?;
    let (mut answers, mut back) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || io::copy(&mut answers, &mut back));
    let mut buffer = [0; 4096];
    while left > 0 {
        let room = buffer.len().min(left);
        let read = client.read(&mut buffer[..room])?;
        if read == 0 {
            break;
        }
        server.write_all(&buffer[..read])?;
        left -= read;
    }
    server.shutdown(Shutdown::Both)?;
    client.shutdown(Shutdown::Both)
}
