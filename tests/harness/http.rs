//! As much of an HTTP/1.1 server as the harness needs: requests with a length, answers with a length, kept connections.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Serves on a free port of the loopback interface, each connection on a thread of its own, until the test ends.
pub fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> SocketAddr {
    serve_on(TcpListener::bind("127.0.0.1:0").unwrap(), None, answer)
}

/// The same on a listener, and over TLS.
pub fn serve_on(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, tls) = (answer.clone(), tls.clone());
            std::thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                match tls.map(|tls| ServerConnection::new(tls).unwrap()) {
                    None => connection(stream, &*answer),
                    Some(session) => connection(StreamOwned::new(session, stream), &*answer),
                }
            });
        }
    });
    address
}

fn connection(stream: impl Read + Write, answer: &dyn Fn(&Request) -> Answer) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        let is_last = request.headers.get("connection").is_some_and(|value| value == "close");
        let Answer { status, headers, body } = answer(&request);
        let mut message = format!("HTTP/1.1 {status} -\r\ncontent-length: {}\r\n", body.len()).into_bytes();
        for (name, value) in headers {
            message.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(&body);
        reader.get_mut().write_all(&message)?;
        reader.get_mut().flush()?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// Reads one; none when the peer has closed.
///
/// # Errors
/// When the connection breaks.
pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        ..Request::default()
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        request.headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = request.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

// === impl Answer ===

impl Answer {
    /// One without headers and body.
    pub fn status(status: u16) -> Self {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }
}
