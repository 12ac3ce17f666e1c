//! The API server as a webhook sees it: POST over HTTP/1.1 and TLS, the name of the Service, the bundle of its configuration.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use crate::PATIENCE;

/// What is encrypted at once: a session keeps no more than that.
const PART: usize = 16 << 10;

/// Whom to call, and whom to believe.
#[derive(Clone)]
pub struct Caller {
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

/// One connection.
pub struct Line {
    stream: BufReader<Session>,
}

/// TLS that can be read after a write has failed: a server may answer and close before it has all of a body.
struct Session {
    tls: ClientConnection,
    socket: TcpStream,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

// === impl Caller ===

impl Caller {
    /// Calls `address` by a name, and believes the authorities of a bundle, PEM.
    pub fn new(address: SocketAddr, name: &str, bundle: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Caller { address, name: ServerName::try_from(name.to_owned()).unwrap(), tls: Arc::new(tls) }
    }

    /// Connects, and has shaken hands.
    ///
    /// # Errors
    /// The system's, or what is wrong with the certificate.
    pub fn connect(&self) -> io::Result<Line> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(self.tls.clone(), self.name.clone()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Line { stream: BufReader::new(Session { tls, socket }) })
    }

    /// One review over a connection of its own.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn review(&self, body: &[u8]) -> io::Result<Reply> {
        self.connect()?.review(body)
    }
}

// === impl Line ===

impl Line {
    /// Asks as the API server does, with the time that is left in the query.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn review(&mut self, body: &[u8]) -> io::Result<Reply> {
        let length = body.len();
        let head = format!(
            "POST /mutate?timeout=5s HTTP/1.1\r\nHost: injector\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        self.write(&[head.as_bytes(), body].concat())?;
        self.reply()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Session { tls, socket } = self.stream.get_mut();
        for part in bytes.chunks(PART) {
            tls.writer().write_all(part)?;
            while tls.wants_write() {
                tls.write_tls(socket)?;
            }
        }
        Ok(())
    }

    /// The next answer.
    ///
    /// # Errors
    /// When there is none.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {line}")))?;
        let mut headers = BTreeMap::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(Reply { status, headers, body })
    }

    /// The certificate that was shown.
    pub fn certificate(&self) -> Vec<u8> {
        let shown = self.stream.get_ref().tls.peer_certificates();
        shown.and_then(|chain| chain.first()).map(|leaf| leaf.to_vec()).unwrap_or_default()
    }
}

// === impl Session ===

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            self.tls.read_tls(&mut self.socket)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

// === impl Reply ===

impl Reply {
    /// Whether it is the last one on its connection.
    pub fn is_last(&self) -> bool {
        self.headers.get("connection").is_some_and(|value| value == "close")
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// An `AdmissionReview` as the API server writes it.
pub fn review(uid: &str, namespace: &str, pod: &Value, is_dry_run: bool) -> Vec<u8> {
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    let request = json!({
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "namespace": namespace, "operation": "CREATE", "object": pod, "oldObject": null, "dryRun": is_dry_run,
        "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["system:authenticated"] },
        "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
    });
    json!({ "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request })
        .to_string()
        .into_bytes()
}
