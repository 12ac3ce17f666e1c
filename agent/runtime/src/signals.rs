//! Signals from outside, as what they ask for.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: finish and end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// The signals of this process. From its making on they no longer end the process by themselves, even after it is dropped.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

// === impl Signals ===

impl Signals {
    /// Starts to listen; to be called within a tokio runtime.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Several of a kind that come before it is called are one; a stop goes before a reload.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn signals_are_told_by_what_they_ask_for() {
        let mut signals = Signals::new().unwrap();
        for (raw, asked) in [(Raw::HUP, Signal::Reload), (Raw::TERM, Signal::Stop), (Raw::INT, Signal::Stop)]
        {
            kill_process(getpid(), raw).unwrap();
            let next = tokio::time::timeout(Duration::from_secs(30), signals.next()).await;
            assert_eq!(next, Ok(asked), "{raw:?}");
        }
    }
}
