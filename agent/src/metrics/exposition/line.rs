//! One line: what it is, and where its parts are.

use memchr::{memchr, memchr2, memchr3};

use super::reader::Reader;
use super::{Dialect, Fault, number};

/// A line, without its newline.
#[derive(Debug, PartialEq)]
pub enum Line<'a> {
    /// Nothing.
    Blank,
    /// A comment that says nothing to us.
    Comment,
    /// `# HELP NAME TEXT`; the text as written, with escapes.
    Help {
        /// Of the metric family; in quotes, if it was.
        name: &'a [u8],
        /// The text.
        text: &'a [u8],
    },
    /// `# TYPE NAME KIND`
    Type {
        /// Of the metric family; in quotes, if it was.
        name: &'a [u8],
        /// The kind.
        kind: Kind,
    },
    /// `# UNIT NAME UNIT`, only in OpenMetrics.
    Unit {
        /// Of the metric family; in quotes, if it was.
        name: &'a [u8],
        /// The unit; may be empty.
        unit: &'a [u8],
    },
    /// `# EOF`, only in OpenMetrics.
    Eof,
    /// A sample.
    Sample(Sample<'a>),
}

/// The kinds of metric families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the formats")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Info,
    StateSet,
    GaugeHistogram,
    /// `unknown`, or `untyped` in the text format.
    Unknown,
}

/// A sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Name and labels as written.
    pub series: &'a [u8],
    /// The value as written.
    pub value: &'a [u8],
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
    /// The exemplar.
    pub exemplar: Option<Exemplar<'a>>,
}

/// An exemplar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar<'a> {
    /// Its labels as written, with the braces.
    pub labels: &'a [u8],
    /// Its value.
    pub value: f64,
    /// Milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

// === impl Line ===

impl<'a> Line<'a> {
    /// Reads a line without its newline. The value of a sample is not yet looked at, nor are its name and labels.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(line: &'a [u8], dialect: Dialect) -> Result<Self, Fault> {
        let mut reader = Reader::new(line, dialect);
        reader.skip_blanks();
        match reader.peek() {
            None => Ok(Line::Blank),
            Some(b'#') => reader.comment(),
            Some(_) => reader.sample().map(Line::Sample),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The kind of this name.
    pub fn parse(name: &[u8], dialect: Dialect) -> Option<Self> {
        Some(match (name, dialect) {
            (b"counter", _) => Kind::Counter,
            (b"gauge", _) => Kind::Gauge,
            (b"histogram", _) => Kind::Histogram,
            (b"summary", _) => Kind::Summary,
            (b"untyped", Dialect::Text) | (b"unknown", _) => Kind::Unknown,
            (b"info", Dialect::OpenMetrics) => Kind::Info,
            (b"stateset", Dialect::OpenMetrics) => Kind::StateSet,
            (b"gaugehistogram", Dialect::OpenMetrics) => Kind::GaugeHistogram,
            _ => return None,
        })
    }
}

// === impl Sample ===

impl Sample<'_> {
    /// The value; none if it is no number.
    pub fn value(&self) -> Option<f64> {
        number::float(self.value)
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// Passes what stands between two tokens; false where the line ends instead.
    fn gap(&mut self) -> Result<bool, Fault> {
        match self.dialect {
            Dialect::Text => self.skip_blanks(),
            Dialect::OpenMetrics if self.at == self.bytes.len() => return Ok(false),
            Dialect::OpenMetrics => {
                self.expect(b' ', "a space is expected here")?;
                if self.at == self.bytes.len() {
                    return self.fault("the line should end before the space");
                }
            }
        }
        Ok(self.at < self.bytes.len())
    }

    /// A token, up to the next blank or the end.
    fn token(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let end = match self.dialect {
            Dialect::Text => memchr2(b' ', b'\t', rest),
            Dialect::OpenMetrics => memchr(b' ', rest),
        };
        let token = &rest[..end.unwrap_or(rest.len())];
        self.at += token.len();
        token
    }

    fn comment(&mut self) -> Result<Line<'a>, Fault> {
        let is_text = self.dialect == Dialect::Text;
        self.at += 1;
        let is_apart = matches!(self.peek(), Some(b' ')) || (is_text && self.peek() == Some(b'\t'));
        if !is_apart {
            return if is_text { Ok(Line::Comment) } else { self.fault("a space is expected behind #") };
        }
        self.gap()?;
        let keyword = self.token();
        if keyword == b"EOF" && !is_text {
            return if self.at == self.bytes.len() {
                Ok(Line::Eof)
            } else {
                self.fault("the line should end here")
            };
        }
        // In text, a comment may begin with one of these words and mean nothing.
        let is_known = matches!(keyword, b"HELP" | b"TYPE") || (keyword == b"UNIT" && !is_text);
        if !is_known || (is_text && self.at == self.bytes.len()) {
            return if is_text {
                Ok(Line::Comment)
            } else {
                self.fault("HELP, TYPE, UNIT or EOF is expected behind #")
            };
        }
        if !self.gap()? {
            return self.fault("the name of a metric is missing");
        }
        let name = self.family_name()?;
        match self.dialect {
            Dialect::Text => self.skip_blanks(),
            // What follows may be empty.
            Dialect::OpenMetrics => self.expect(b' ', "a space is expected here")?,
        }
        let text = self.rest();
        match keyword {
            b"HELP" => Ok(Line::Help { name, text }),
            b"UNIT" => Ok(Line::Unit { name, unit: text }),
            _ => match Kind::parse(text, self.dialect) {
                Some(kind) => Ok(Line::Type { name, kind }),
                None => self.fault("no kind of metric has this name"),
            },
        }
    }

    fn family_name(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        if self.peek() == Some(b'"') {
            self.quoted()?;
        } else {
            self.token();
        }
        Ok(&self.bytes[start..self.at])
    }

    fn sample(&mut self) -> Result<Sample<'a>, Fault> {
        let series = self.series()?;
        if !self.gap()? {
            return self.fault("a value is missing");
        }
        let value = self.token();
        if value.is_empty() {
            return self.fault("a value is missing");
        }
        let mut sample = Sample { series, value, timestamp: None, exemplar: None };
        if !self.gap()? {
            return Ok(sample);
        }
        if self.peek() != Some(b'#') {
            sample.timestamp = Some(self.timestamp(self.dialect)?);
            if !self.gap()? {
                return Ok(sample);
            }
        }
        sample.exemplar = Some(self.exemplar()?);
        Ok(sample)
    }

    /// Name and labels.
    fn series(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        let Some(end) = memchr3(b'{', b' ', b'\t', self.rest()) else {
            self.at = self.bytes.len();
            return self.fault("a value is missing");
        };
        self.at += end;
        let name_end = self.at;
        self.skip_blanks();
        if self.peek() != Some(b'{') {
            self.at = name_end;
            let name = &self.bytes[start..name_end];
            return if name.is_empty() { self.fault("a name is missing") } else { Ok(name) };
        }
        self.braces()?;
        Ok(&self.bytes[start..self.at])
    }

    /// Passes labels in braces.
    fn braces(&mut self) -> Result<(), Fault> {
        let start = self.at;
        loop {
            match memchr2(b'"', b'}', self.rest()) {
                Some(offset) if self.rest()[offset] == b'"' => {
                    self.at += offset;
                    self.quoted()?;
                }
                Some(offset) => {
                    self.at += offset + 1;
                    return Ok(());
                }
                None => return Err(Fault::new(start, "a brace is not closed")),
            }
        }
    }

    fn timestamp(&mut self, dialect: Dialect) -> Result<i64, Fault> {
        let start = self.at;
        let token = self.token();
        let timestamp = match dialect {
            Dialect::Text => number::milliseconds(token),
            Dialect::OpenMetrics => number::seconds(token),
        };
        timestamp.ok_or(Fault::new(start, "this is no time"))
    }

    /// An exemplar is OpenMetrics's, but exporters put it on pages of text as well: its time is in seconds there too.
    fn exemplar(&mut self) -> Result<Exemplar<'a>, Fault> {
        if self.peek() != Some(b'#') {
            return self.fault("the line should end here");
        }
        self.at += 1;
        self.gap()?;
        let start = self.at;
        if self.peek() != Some(b'{') {
            return self.fault("an exemplar begins with a brace");
        }
        self.braces()?;
        let labels = &self.bytes[start..self.at];
        if !self.gap()? {
            return self.fault("the exemplar's value is missing");
        }
        let at = self.at;
        let value = number::float(self.token()).ok_or(Fault::new(at, "the exemplar's value is no number"))?;
        let timestamp = if self.gap()? { Some(self.timestamp(Dialect::OpenMetrics)?) } else { None };
        if self.gap()? {
            return self.fault("the line should end here");
        }
        Ok(Exemplar { labels, value, timestamp })
    }
}

#[cfg(test)]
mod tests;
