//! The `<security>` section of a Forward receiver: HELO, PING, PONG as Fluentd's `in_forward.rb` has them.

use rmpv::Value;
use sha2::{Digest, Sha512};

/// What a client has to prove, and what the receiver says about itself.
#[derive(Clone, Debug)]
pub struct Security {
    /// Both sides know it.
    pub shared_key: String,
    /// Name and password that a client has to know besides.
    pub user: Option<(String, String)>,
    /// What the receiver calls itself.
    pub hostname: String,
    /// When false, it says so and closes the connection behind each message.
    pub keepalive: bool,
}

/// One handshake: what was sent in its HELO.
pub(super) struct Handshake {
    nonce: [u8; 16],
    auth: [u8; 16],
}

/// What became of a PING.
pub(super) enum Verdict {
    /// The client has proved itself.
    Welcome,
    /// It has not, and the PONG says why.
    Refused,
    /// It does not speak the protocol.
    Violation(String),
}

// === impl Security ===

impl Security {
    /// A receiver with this key that wants no user and keeps connections open.
    pub fn new(shared_key: &str) -> Self {
        Security {
            shared_key: shared_key.to_owned(),
            user: None,
            hostname: "receiver".to_owned(),
            keepalive: true,
        }
    }
}

// === impl Handshake ===

impl Handshake {
    pub(super) fn new() -> Self {
        let random = rustls::crypto::ring::default_provider().secure_random;
        let mut handshake = Handshake { nonce: [0; 16], auth: [0; 16] };
        random.fill(&mut handshake.nonce).unwrap();
        random.fill(&mut handshake.auth).unwrap();
        handshake
    }

    /// `["HELO", {nonce, auth, keepalive}]`; `auth` is never empty.
    pub(super) fn helo(&self, security: &Security) -> Value {
        let options = vec![
            (Value::from("nonce"), Value::from(&self.nonce[..])),
            (Value::from("auth"), Value::from(&self.auth[..])),
            (Value::from("keepalive"), Value::from(security.keepalive)),
        ];
        Value::Array(vec![Value::from("HELO"), Value::Map(options)])
    }

    /// Checks `["PING", hostname, salt, key digest, user, password digest]` and answers it.
    pub(super) fn answer(&self, ping: &Value, security: &Security) -> (Value, Verdict) {
        let refused = |reason: &str| {
            let texts = [reason, "", ""].map(Value::from);
            Value::Array([Value::from("PONG"), Value::from(false)].into_iter().chain(texts).collect())
        };
        // A client without a key does not know that it is to say PING: Fluentd tells it, and closes.
        let Some(fields) = ping.as_array().filter(|fields| fields[0].as_str() == Some("PING")) else {
            return (refused("invalid ping message"), Verdict::Refused);
        };
        let texts: Option<Vec<&str>> = fields.iter().map(Value::as_str).collect();
        let Some(&[_, hostname, salt, key_digest, user, password_digest]) = texts.as_deref() else {
            let what = format!("not a PING of six texts: {ping}");
            return (refused("invalid ping message"), Verdict::Violation(what));
        };
        let expected = |key: &[u8]| digest(&[salt.as_bytes(), hostname.as_bytes(), &self.nonce, key]);
        if salt.is_empty() || !is_digest(key_digest) || !is_digest(password_digest) {
            return (refused("invalid ping message"), Verdict::Violation(format!("a bad PING: {ping}")));
        }
        if key_digest != expected(security.shared_key.as_bytes()) {
            return (refused("shared_key mismatch"), Verdict::Refused);
        }
        if let Some((name, password)) = &security.user
            && (user != name
                || password_digest != digest(&[&self.auth, name.as_bytes(), password.as_bytes()]))
        {
            return (refused("username/password mismatch"), Verdict::Refused);
        }
        let own = &security.hostname;
        let proof = digest(&[salt.as_bytes(), own.as_bytes(), &self.nonce, security.shared_key.as_bytes()]);
        let texts = ["", own, &proof].map(Value::from);
        let pong = [Value::from("PONG"), Value::from(true)].into_iter().chain(texts).collect();
        (Value::Array(pong), Verdict::Welcome)
    }
}

/// Lower-case hex of a SHA-512.
fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha512::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_digest(text: &str) -> bool {
    text.len() == 128 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
