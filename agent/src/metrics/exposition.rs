//! Pages of metrics, as exporters serve them: Prometheus's text format 0.0.4 and OpenMetrics 1.0.
//!
//! A page is read line by line, in two steps. [`Line::read`] finds the parts of a line and copies nothing; of a sample, the
//! bytes of its series are one part. [`Series::read`] takes those apart, which is needed only where they are new. Both are
//! lenient where exporters are known to be careless and nothing can be misunderstood; [`check`] is not.

mod check;
mod line;
mod number;
pub mod protobuf;
mod reader;
mod series;

use std::borrow::Cow;
use std::fmt;

pub use check::check;
pub use line::{Exemplar, Kind, Line, Sample};
pub use series::{Label, Series};

/// Labels of a series: more than anybody has, and few enough to compare each with each.
pub(crate) const MAX_LABELS: usize = 256;

/// Characters of an exemplar's labels, names and values together (OpenMetrics 1.0, "Exemplars").
pub const EXEMPLAR_CHARACTERS: usize = 128;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Prometheus's text format 0.0.4: tokens stand apart by any number of blanks, times are milliseconds.
    Text,
    /// OpenMetrics 1.0: tokens stand apart by one space, times are seconds, the page ends with `# EOF`.
    OpenMetrics,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Byte of the line, from 0.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageFault {
    /// The line, from 1.
    pub line: usize,
    /// The byte of the line, from 1; none where it is not one place.
    pub column: Option<usize>,
    /// What is wrong there.
    pub what: String,
}

/// Appends a text in quotes, as the values of labels stand on a page.
pub(crate) fn quote(page: &mut String, text: &str) {
    page.push('"');
    for character in text.chars() {
        match character {
            '\\' => page.push_str(r"\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str(r"\n"),
            other => page.push(other),
        }
    }
    page.push('"');
}

/// A value as pages write it; none if this is no number.
pub(crate) fn number(text: &[u8]) -> Option<f64> {
    number::float(text)
}

/// The name of a comment, without its quotes; none if it is no name.
pub(crate) fn plain_name(name: &[u8]) -> Option<Cow<'_, str>> {
    series::metric_name(name).ok()
}

/// The text of a comment, without its escapes.
pub(crate) fn plain_text(text: &[u8]) -> String {
    series::unescape(&String::from_utf8_lossy(text))
}

// === impl Dialect ===

impl Dialect {
    /// The dialect that a content type names; none if it is another type.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next()?.trim().to_ascii_lowercase().as_str() {
            "text/plain" => Some(Dialect::Text),
            "application/openmetrics-text" => Some(Dialect::OpenMetrics),
            _ => None,
        }
    }

    /// The dialect of a page, whatever its content type says: Rust exporters are known to leave that out.
    pub fn of_page(page: &[u8]) -> Self {
        if page.trim_ascii_end().ends_with(b"\n# EOF") || page.trim_ascii_end() == b"# EOF" {
            Dialect::OpenMetrics
        } else {
            Dialect::Text
        }
    }
}

// === impl Fault ===

impl Fault {
    fn new(at: usize, what: &'static str) -> Self {
        Fault { at, what }
    }

    /// The same of a part that begins at `start`.
    fn behind(self, start: usize) -> Self {
        Fault { at: start + self.at, ..self }
    }
}

// === impl PageFault ===

impl fmt::Display for PageFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.what),
            None => write!(f, "line {}: {}", self.line, self.what),
        }
    }
}
