//! An HTTP proxy that lets in whoever has its password, and remembers what for.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The proxy.
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

// === impl Proxy ===

impl Proxy {
    /// Wants this as `Proxy-Authorization`.
    pub fn start(authorization: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let asking = asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let asked = asking.clone();
                std::thread::spawn(move || pass(&client, authorization, &asked));
            }
        });
        Proxy { address, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The first lines of the requests that it let through, without the version.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Passes one connection on: a tunnel as it is, a request in the origin form. What comes behind it belongs to the same
/// server.
fn pass(client: &TcpStream, authorization: &str, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut headers, mut is_let_in) = (String::new(), false);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("proxy-authorization") => {
                is_let_in = value.trim() == authorization;
            }
            _ => headers.push_str(&line),
        }
    }
    let mut client = client;
    if !is_let_in {
        return client.write_all(b"HTTP/1.1 407 -\r\ncontent-length: 0\r\n\r\n");
    }
    let words: Vec<&str> = first.split_whitespace().collect();
    asked.lock().unwrap().push(words[..2].join(" "));
    let server = if words[0] == "CONNECT" {
        let server = TcpStream::connect(words[1])?;
        client.write_all(b"HTTP/1.1 200 -\r\n\r\n")?;
        server
    } else {
        let (server, path) = words[1].strip_prefix("http://").unwrap().split_once('/').unwrap();
        let mut server = TcpStream::connect(server)?;
        // So that the next request comes with its own line.
        write!(server, "{} /{path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n", words[0])?;
        server
    };
    let mut back = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut back.0, &mut back.1);
        let _ = back.1.shutdown(std::net::Shutdown::Both);
    });
    io::copy(&mut reader, &mut &server)?;
    Ok(())
}
