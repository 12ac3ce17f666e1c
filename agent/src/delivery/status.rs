//! What an output tells about itself: for `outputs`, `output_up` and readiness.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::checkpoint::account::OutputAccount;

/// One output's state, written by its delivery, read by the admin server.
#[derive(Debug)]
pub struct OutputStatus {
    up: AtomicBool,
    last_error: Mutex<Option<String>>,
    account: Arc<OutputAccount>,
}

impl OutputStatus {
    /// Not yet up, no error.
    pub fn new(account: Arc<OutputAccount>) -> Arc<Self> {
        Arc::new(OutputStatus { up: AtomicBool::new(false), last_error: Mutex::new(None), account })
    }

    /// Whether at least one receiver takes chunks.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Says whether at least one receiver takes chunks.
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

    /// The output's counters.
    pub fn account(&self) -> &OutputAccount {
        &self.account
    }
}
