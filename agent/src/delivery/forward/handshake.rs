//! HELO, PING, PONG: both sides prove that they know the shared key.

use std::io;

use rmpv::Value;
use sha2::{Digest, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::delivery::forward::Config;
use crate::delivery::forward::frame::{Replies, bytes_of, hex};
use crate::delivery::secret::Secret;

/// What came of it.
#[derive(Debug)]
pub struct Agreed {
    /// The receiver keeps the connection open behind a message.
    pub keepalive: bool,
}

/// Shakes hands over a new connection.
///
/// # Errors
/// What the receiver says, or does not say; never with a secret in it.
pub async fn shake(
    config: &Config,
    key: &Secret,
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    replies: &mut Replies,
) -> io::Result<Agreed> {
    let helo = replies.next(socket).await?;
    let (nonce, auth, keepalive) = read_helo(&helo).ok_or_else(|| {
        io::Error::other("expected HELO, got something else; is this a Forward receiver with <security>?")
    })?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(io::Error::other)?;
    // An ASCII text: Fluent Bit takes nothing else.
    let salt = hex(&salt);
    let key_digest =
        digest(&[salt.as_bytes(), config.self_hostname.as_bytes(), nonce, key.reveal().as_bytes()]);
    let password = config.password.as_ref().map_or("", Secret::reveal);
    let password_digest = match auth {
        [] => String::new(),
        auth => digest(&[auth, config.username.as_bytes(), password.as_bytes()]),
    };
    let ping = ["PING", &config.self_hostname, &salt, &key_digest, &config.username, &password_digest];
    let mut message = Vec::new();
    rmpv::encode::write_value(&mut message, &Value::Array(ping.map(Value::from).to_vec()))
        .map_err(io::Error::other)?;
    socket.write_all(&message).await?;
    socket.flush().await?;
    let pong = replies.next(socket).await?;
    check_pong(&pong, &salt, nonce, key, &config.self_hostname)?;
    Ok(Agreed { keepalive })
}

/// `["HELO", {nonce, auth, keepalive}]`.
fn read_helo(helo: &Value) -> Option<(&[u8], &[u8], bool)> {
    let [kind, options] = helo.as_array()?.as_slice() else { return None };
    if bytes_of(kind)? != b"HELO" {
        return None;
    }
    let nonce = bytes_of(&options["nonce"])?;
    let auth = bytes_of(&options["auth"]).unwrap_or_default();
    Some((nonce, auth, options["keepalive"].as_bool().unwrap_or(true)))
}

/// `["PONG", ok, reason, hostname, digest]`.
fn check_pong(pong: &Value, salt: &str, nonce: &[u8], key: &Secret, own_name: &str) -> io::Result<()> {
    let fields = pong.as_array().filter(|fields| fields.len() == 5 && bytes_of(&fields[0]) == Some(b"PONG"));
    let fields = fields.ok_or_else(|| io::Error::other("expected PONG, got something else"))?;
    let text = |index: usize| bytes_of(&fields[index]).map(String::from_utf8_lossy).unwrap_or_default();
    if fields[1].as_bool() != Some(true) {
        return Err(io::Error::other(format!(
            "the receiver refuses us: {:?}; check shared_key, username and password",
            text(2)
        )));
    }
    let hostname = text(3);
    if hostname == own_name {
        return Err(io::Error::other(format!(
            "the receiver calls itself {hostname:?} as we do; give the node another name"
        )));
    }
    if text(4) != digest(&[salt.as_bytes(), hostname.as_bytes(), nonce, key.reveal().as_bytes()]) {
        return Err(io::Error::other("the receiver does not know the shared key: its digest is wrong"));
    }
    Ok(())
}

/// If a receiver with `<security>` answers a client without a key, why it does.
pub fn wants_security(reply: &Value) -> Option<&'static str> {
    let kind = bytes_of(reply.as_array()?.first()?)?;
    matches!(kind, b"HELO" | b"PONG")
        .then_some("the receiver has a <security> section and wants a shared key; set shared_key")
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha512::new();
    parts.iter().for_each(|part| hasher.update(part));
    hex(&hasher.finalize())
}
