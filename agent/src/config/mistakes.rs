//! What is wrong with a config, all of it at once, each with its path.

/// What a config is read for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To run on a node.
    #[default]
    Node,
    /// To run as a sidecar. The injector that wrote it may be newer: unknown keys are told and passed over.
    Sidecar,
    /// To see whether a sidecar could run with it, where it does not: no file that it names is read.
    SidecarElsewhere,
}

/// Everything that is wrong with a config, each line with the path of its key.
#[derive(Debug, Default)]
pub struct Mistakes {
    purpose: Purpose,
    lines: Vec<String>,
    warnings: Vec<String>,
}

// === impl Mistakes ===

impl Mistakes {
    /// None yet in what is read for this.
    pub fn reading_for(purpose: Purpose) -> Self {
        Mistakes { purpose, ..Mistakes::default() }
    }

    /// Whether the config is a sidecar's.
    pub fn in_sidecar(&self) -> bool {
        self.purpose != Purpose::Node
    }

    /// Whether the files that the config names are here.
    pub fn reads_files(&self) -> bool {
        self.purpose != Purpose::SidecarElsewhere
    }

    /// Adds one.
    pub fn add(&mut self, path: &str, message: impl std::fmt::Display) {
        self.lines.push(line(path, message));
    }

    /// Adds what is only to be told.
    pub fn warn(&mut self, path: &str, message: impl std::fmt::Display) {
        self.warnings.push(line(path, message));
    }

    /// Adds a key that is not known.
    pub(super) fn add_unknown(&mut self, path: &str, message: impl std::fmt::Display) {
        if self.in_sidecar() { self.warn(path, message) } else { self.add(path, message) }
    }

    /// Nothing wrong so far.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// One line each.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// What is only to be told, one line each.
    pub fn into_warnings(self) -> Vec<String> {
        self.warnings
    }
}

fn line(path: &str, message: impl std::fmt::Display) -> String {
    if path.is_empty() { message.to_string() } else { format!("{path}: {message}") }
}
