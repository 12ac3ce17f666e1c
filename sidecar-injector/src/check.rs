//! Whether an installation works, and what became of the pods that rely on it. Pure: what was found goes in, findings come out.

pub mod certificate;
pub mod installation;
pub mod pods;

use serde::Serialize;

/// What was found by one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check.
    pub check: &'static str,
    /// How it is.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: &'static str,
    /// Pods that it is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Not known: whoever asks may not see it.
    Skipped,
    /// Something to look at.
    Warning,
    /// Something that does not work.
    Failed,
}

// === impl Finding ===

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Finding::new(check, Status::Ok, message, "")
    }

    /// With what to do about it.
    pub fn new(check: &'static str, status: Status, message: impl Into<String>, hint: &'static str) -> Self {
        Finding { check, status, message: message.into(), hint, pods: Vec::new() }
    }

    /// What could not be asked for, with the reason.
    pub fn skipped(check: &'static str, reason: &str) -> Self {
        Finding::new(check, Status::Skipped, format!("not checked: {reason}"), "")
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Skipped => "skipped",
            Status::Warning => "warning",
            Status::Failed => "FAILED",
        };
        let hint = if self.hint.is_empty() { String::new() } else { format!("; {}", self.hint) };
        format!("{status:<8} {}: {}{hint}", self.check, self.message)
    }
}
