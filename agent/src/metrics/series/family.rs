//! What the comments of a page say of the series below them.

use crate::metrics::exposition::{Kind, Line, plain_name, plain_text};
use crate::metrics::symbols::{Symbol, SymbolTable};

/// What remote write 2.0 tells of a series: the kind of its family, help and unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The kind; none where the page says nothing.
    pub kind: Option<Kind>,
    /// The help.
    pub help: Symbol,
    /// The unit.
    pub unit: Symbol,
}

/// Bytes of a help that are passed on, and of a name or unit that are looked at: they are looked at for each new series.
const MAX_HELP: usize = 4 << 10;
const MAX_NAME: usize = 1 << 10;

/// The family whose comments came last, as written.
#[derive(Debug, Default)]
pub(super) struct Family<'a> {
    name: &'a [u8],
    kind: Option<Kind>,
    help: &'a [u8],
    unit: &'a [u8],
}

// === impl Family ===

impl<'a> Family<'a> {
    /// Reads a comment.
    pub(super) fn heed(&mut self, comment: &Line<'a>) {
        match *comment {
            Line::Help { name, text } => self.of(name).help = &text[..text.len().min(MAX_HELP)],
            Line::Type { name, kind } => self.of(name).kind = Some(kind),
            Line::Unit { name, unit } => self.of(name).unit = &unit[..unit.len().min(MAX_NAME)],
            _ => {}
        }
    }

    fn of(&mut self, name: &'a [u8]) -> &mut Self {
        if self.name != name {
            *self = Family { name, ..Family::default() };
        }
        self
    }

    /// What is said of a series of this name, held in the table.
    pub(super) fn metadata(&self, series: &str, table: &mut SymbolTable) -> Metadata {
        if !self.suffix_of(series).is_some_and(|suffix| self.has(suffix)) {
            return Metadata { kind: None, help: table.hold(""), unit: table.hold("") };
        }
        let mut hold = |text| table.hold(&plain_text(text));
        Metadata { kind: self.kind, help: hold(self.help), unit: hold(self.unit) }
    }

    /// Whether a series of this name says when the others of its family began.
    pub(super) fn dates_others(&self, series: &str) -> bool {
        matches!(self.kind, Some(Kind::Counter | Kind::Histogram | Kind::Summary | Kind::GaugeHistogram))
            && self.suffix_of(series).is_some_and(|suffix| suffix == "_created")
    }

    fn suffix_of<'s>(&self, series: &'s str) -> Option<&'s str> {
        let name = plain_name(self.name).filter(|_| self.name.len() <= MAX_NAME)?;
        series.strip_prefix(name.as_ref())
    }

    /// Whether its series have this suffix (OpenMetrics 1.0, "Suffixes"; a text page's counters have none of their own).
    fn has(&self, suffix: &str) -> bool {
        let suffixes: &[&str] = match self.kind {
            Some(Kind::Counter) => &["", "_total", "_created"],
            // A native histogram has the name itself.
            Some(Kind::Histogram) => &["_bucket", "_count", "_sum", "_created", ""],
            // In protobuf the totals are called as those of a histogram.
            Some(Kind::GaugeHistogram) => &["_bucket", "_gcount", "_gsum", "_count", "_sum", "_created", ""],
            Some(Kind::Summary) => &["", "_count", "_sum", "_created"],
            Some(Kind::Info) => &["_info"],
            Some(Kind::Gauge | Kind::StateSet | Kind::Unknown) | None => &[""],
        };
        suffixes.contains(&suffix)
    }
}
