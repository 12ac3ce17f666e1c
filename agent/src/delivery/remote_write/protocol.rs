//! Which version of remote write an output speaks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.0, `prometheus.WriteRequest`
    V1,
    /// 2.0, `io.prometheus.write.v2.Request`
    V2,
}

/// After this time a receiver that did not know 2.0 is asked again: it may be another one now.
const ASK_AGAIN: Duration = Duration::from_secs(3600);

/// What is wanted, and what the receiver has shown that it knows.
#[derive(Debug)]
pub struct Protocol {
    wanted: config::Protocol,
    /// When it has not known 2.0.
    fell_back: Mutex<Option<Instant>>,
    /// It has said how much it has written.
    is_proven: AtomicBool,
}

// === impl Version ===

impl Version {
    /// `Content-Type`
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Version::V1 => "application/x-protobuf",
            Version::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// `X-Prometheus-Remote-Write-Version`
    pub(super) fn header(self) -> &'static str {
        match self {
            Version::V1 => "0.1.0",
            Version::V2 => "2.0.0",
        }
    }
}

// === impl Protocol ===

impl Protocol {
    /// As the config wants it.
    pub fn new(wanted: config::Protocol) -> Self {
        Protocol { wanted, fell_back: Mutex::default(), is_proven: AtomicBool::new(false) }
    }

    /// What is to be spoken now.
    pub fn version(&self) -> Version {
        let fell_back = *self.fell_back.lock().unwrap_or_else(PoisonError::into_inner);
        match self.wanted {
            config::Protocol::V1 => Version::V1,
            config::Protocol::V2 => Version::V2,
            config::Protocol::Auto if fell_back.is_some_and(|when| when.elapsed() < ASK_AGAIN) => Version::V1,
            config::Protocol::Auto => Version::V2,
        }
    }

    /// The receiver knows 2.0.
    pub(super) fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }

    /// Whether it has shown that.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Ordering::Relaxed)
    }

    /// The receiver does not know 2.0. False when nothing else may be spoken.
    pub fn fall_back(&self) -> bool {
        let may = self.wanted == config::Protocol::Auto;
        if may {
            *self.fell_back.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_did_not_know_the_newer_version_is_asked_again_an_hour_later() {
        let auto = Protocol::new(config::Protocol::Auto);
        assert_eq!(auto.version(), Version::V2);
        assert!(auto.fall_back());
        assert_eq!(auto.version(), Version::V1);
        tokio::time::advance(ASK_AGAIN).await;
        assert_eq!(auto.version(), Version::V2);
        let fixed = Protocol::new(config::Protocol::V2);
        assert!(!fixed.fall_back());
        assert_eq!(fixed.version(), Version::V2);
    }
}
