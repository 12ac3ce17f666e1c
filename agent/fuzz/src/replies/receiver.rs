//! The other side of a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rmpv::Value;
use sha2::{Digest, Sha512};
use sidelight_agent::config::Tls;
use sidelight_agent::delivery::forward::Config;
use sidelight_agent::delivery::secret::Secret;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const KEY: &str = "key";
const NAME: &str = "receiver";

/// An output that must shake hands.
pub(super) fn config() -> (Config, Secret) {
    let key = Secret::new(KEY.to_owned());
    let config = Config {
        name: "out".to_owned(),
        self_hostname: "node".to_owned(),
        upstreams: Vec::new(),
        ack: true,
        ack_timeout: Duration::from_secs(60),
        shared_key: Some(key.clone()),
        username: "user".to_owned(),
        password: Some(Secret::new("password".to_owned())),
        tls: Tls::default(),
    };
    (config, key)
}

/// Bytes that arrive in pieces; what is written is lost.
pub(super) struct Pieces<'a> {
    bytes: &'a [u8],
    at: usize,
    piece: usize,
}

/// A receiver that knows the key. Where its choice is not 0, one bit of its PONG is wrong.
pub(super) struct Receiver {
    nonce: Vec<u8>,
    keepalive: Option<bool>,
    flipped: Option<usize>,
    wire: Vec<u8>,
    at: usize,
}

// === impl Pieces ===

impl<'a> Pieces<'a> {
    pub(super) fn new(bytes: &'a [u8], piece: usize) -> Self {
        Pieces { bytes, at: 0, piece }
    }

    pub(super) fn taken(&self) -> usize {
        self.at
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.bytes[self.at..];
        let piece = &rest[..rest.len().min(self.piece).min(buffer.remaining())];
        buffer.put_slice(piece);
        self.at += piece.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// === impl Receiver ===

impl Receiver {
    /// Its nonce is from `bytes`: as a text, or not.
    pub(super) fn new(bytes: &[u8], choice: u8) -> Self {
        let nonce = &bytes[..bytes.len().min(64)];
        let text = std::str::from_utf8(nonce).ok().filter(|_| choice & 0x40 == 0);
        let keepalive = [None, Some(false), Some(true)][bytes.len() % 3];
        let mut options = vec![
            (Value::from("nonce"), text.map_or_else(|| Value::from(nonce), Value::from)),
            (Value::from("auth"), Value::from(&nonce[..nonce.len() / 2])),
        ];
        options.extend(keepalive.map(|keepalive| (Value::from("keepalive"), Value::from(keepalive))));
        let mut wire = Vec::new();
        let helo = Value::Array(vec![Value::from("HELO"), Value::Map(options)]);
        rmpv::encode::write_value(&mut wire, &helo).expect("memory");
        let last = bytes.last().copied().unwrap_or_default();
        let flipped = (choice & 0x80 != 0).then(|| usize::from(choice & 0x3f) << 8 | usize::from(last));
        Receiver { nonce: nonce.to_vec(), keepalive, flipped, wire, at: 0 }
    }

    /// What it must be granted: whether connections stay open, if it is to be taken for a receiver that knows the key.
    pub(super) fn deserves(&self) -> Option<bool> {
        self.flipped.is_none().then(|| self.keepalive.unwrap_or(true))
    }

    fn answer(&mut self, mut ping: &[u8]) {
        let ping = rmpv::decode::read_value(&mut ping).expect("PING");
        let salt = ping[2].as_str().expect("a salt");
        let digest = Sha512::new().chain_update(salt).chain_update(NAME).chain_update(&self.nonce);
        let digest = digest.chain_update(KEY).finalize();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let pong = ["PONG".into(), true.into(), "".into(), NAME.into(), digest.into()];
        let mut wire = Vec::new();
        rmpv::encode::write_value(&mut wire, &Value::Array(pong.to_vec())).expect("memory");
        if let Some(bit) = self.flipped {
            // Not in the reason of a refusal, which means nothing here.
            let reason = 1 + 5 + 1;
            let at = Some(bit / 8 % wire.len()).filter(|at| *at != reason).unwrap_or_default();
            wire[at] ^= 1 << (bit % 8);
        }
        self.wire.extend_from_slice(&wire);
    }
}

impl AsyncRead for Receiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.wire[self.at..];
        let piece = &rest[..rest.len().min(buffer.remaining())];
        buffer.put_slice(piece);
        self.at += piece.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Receiver {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answer(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
