//! What an output tells about itself: for `outputs`, `output_up` and readiness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::account::OutputAccount;

/// How an output fares: latest values, written by its delivery, read by the admin server.
#[derive(Debug, Default)]
pub struct OutputState {
    up: AtomicBool,
    last_error: Mutex<Option<String>>,
}

/// The state and the counters of an output of logs.
#[derive(Debug)]
pub struct OutputStatus {
    /// Not yet up, no error, at the start.
    pub state: OutputState,
    account: Arc<OutputAccount>,
}

// === impl OutputState ===

impl OutputState {
    /// Whether at least one receiver takes what is sent.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Says whether at least one receiver takes what is sent.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// The newest error, without secrets.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps `error` as the newest.
    pub fn set_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

// === impl OutputStatus ===

impl OutputStatus {
    /// Of an output with these counters.
    pub fn new(account: Arc<OutputAccount>) -> Arc<Self> {
        Arc::new(OutputStatus { state: OutputState::default(), account })
    }

    /// The output's counters.
    pub fn account(&self) -> &OutputAccount {
        &self.account
    }
}
