//! What the system tests are made of: a kubelet that writes, a receiver that counts, an agent that can be killed.
//!
//! Nothing here uses the agent's own code: the encodings are read back by other people's libraries.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "in a test harness a failure is a failed test"
)]

pub mod agent;
pub mod api_server;
pub mod app;
pub mod caller;
pub mod control_plane;
pub mod dice;
pub mod exporter;
pub mod fault;
pub mod forward_server;
pub mod http;
pub mod injector;
pub mod kubelet;
pub mod proxy;
pub mod relay;
pub mod remote_write_server;
pub mod sigv4;
pub mod tls;

use std::time::{Duration, Instant};

/// How long to wait for what must happen before the test is called hung.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` holds; a hang is a failed test that says what it waited for.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A line with this number and its checksum, of about `bytes` bytes.
pub(crate) fn numbered(number: &str, bytes: usize) -> String {
    let fill = "x".repeat(bytes.saturating_sub("seq= sum=00000000 ".len() + number.len()));
    format!("seq={number} sum={} {fill}", checksum(number, &fill))
}

/// The checksum of a numbered line: of its number and its text, so that a text under another's number is seen too.
pub(crate) fn checksum(number: &str, text: &str) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(number.as_bytes());
    crc.update(text.as_bytes());
    format!("{:08x}", crc.sum())
}
