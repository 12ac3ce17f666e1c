//! The HTTP side of a receiver, and the API server for other programs' metadata: as much of HTTP/1.1 as they need.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::node::{Node, pod, pod_name};
use crate::tally::{Tally, unpacked};

struct Request {
    /// Path and query.
    target: String,
    encoding: String,
    body: Vec<u8>,
}

/// Takes bodies and counts the records in them until the sender closes.
///
/// # Errors
/// When the connection breaks, or a body is not what it should be.
pub(crate) fn serve(stream: &TcpStream, tally: &Tally) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    loop {
        let request = read_request(&mut reader)?;
        tally.add(tally.scan(&unpacked(&request.body, &request.encoding)?));
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    }
}

/// Serves a node's pods as an API server does, without TLS. It ends with the process.
///
/// # Errors
/// The system's.
pub(crate) fn serve_api(node: &Node) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let pods: Vec<Value> = (0..node.pods).map(|number| pod(number, node.containers)).collect();
    let (pods, list) = (Arc::new(pods), Arc::new(node.pod_list()));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (pods, list) = (pods.clone(), list.clone());
            std::thread::spawn(move || drop(answer(&stream, &pods, &list)));
        }
    });
    Ok(address)
}

fn answer(stream: &TcpStream, pods: &[Value], list: &Value) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let target = read_request(&mut reader)?.target;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        if query.contains("watch=") {
            // Nothing ever changes.
            (&*stream).write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            return reader.read(&mut [0]).map(drop);
        }
        let named = |name: &str| json!({ "metadata": { "name": name } });
        let body = match path {
            "/api/v1/pods" => list.clone(),
            "/api/v1/nodes" => json!({ "items": [named("bench")] }),
            "/api/v1/namespaces" => json!({ "items": [named("shop")] }),
            _ => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let pod = pods.iter().enumerate().find(|(number, _)| pod_name(*number as u64) == name);
                pod.map_or_else(|| named(name), |(_, pod)| pod.clone())
            }
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        (&*stream).write_all((head + &body).as_bytes())?;
    }
}

fn read_request(reader: &mut impl BufRead) -> io::Result<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut encoding) = (0, String::new());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "content-encoding" => encoding = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { target, encoding, body })
}
