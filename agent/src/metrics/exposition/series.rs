//! What identifies a time series: name and labels.

use std::borrow::Cow;

use super::reader::Reader;
use super::{Dialect, Fault, MAX_LABELS};

/// Name and value.
pub type Label<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A series taken apart. Quotes and escapes are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series<'a> {
    /// The name.
    pub name: Cow<'a, str>,
    /// Names and values, in the order of the page; no name stands twice.
    pub labels: Vec<Label<'a>>,
}

// === impl Series ===

impl<'a> Series<'a> {
    /// Reads what [`super::Sample::series`] gives: `name`, `name{label="value"}`, or `{"name",label="value"}`, where a name
    /// in quotes may have any characters.
    ///
    /// # Errors
    /// The first thing that is wrong; offsets are from the first byte of the series.
    pub fn read(bytes: &'a [u8], dialect: Dialect) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes, dialect);
        let mut name = None;
        if reader.peek() != Some(b'{') {
            name = Some(reader.bare_name(is_metric_letter)?);
            reader.skip_blanks();
        }
        let labels = if reader.at == bytes.len() { Vec::new() } else { reader.labels(&mut name)? };
        let name = name.filter(|name| !name.is_empty()).ok_or(Fault::new(0, "the series has no name"))?;
        Ok(Series { name, labels })
    }

    /// Reads labels in braces, as an exemplar has them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read_labels(bytes: &'a [u8], dialect: Dialect) -> Result<Vec<Label<'a>>, Fault> {
        // A name in quotes would stand for the metric, and there is none here.
        Reader::new(bytes, dialect).labels(&mut Some(Cow::Borrowed("")))
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_ref())
    }
}

/// A name, without its quotes if it has them.
///
/// # Errors
/// It is empty, or has characters that need quotes.
pub(super) fn metric_name(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
    let mut reader = Reader::new(bytes, Dialect::OpenMetrics);
    let name = match reader.peek() {
        Some(b'"') => reader.text()?,
        _ => reader.bare_name(is_metric_letter)?,
    };
    if reader.at < bytes.len() {
        reader.fault("a name that is not in quotes cannot have this")
    } else {
        Ok(name)
    }
}

fn is_metric_letter(byte: u8) -> bool {
    is_label_letter(byte) || byte == b':'
}

fn is_label_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// A name without quotes: a letter, then letters and digits.
    fn bare_name(&mut self, is_letter: fn(u8) -> bool) -> Result<Cow<'a, str>, Fault> {
        let rest = &self.bytes[self.at..];
        if !rest.first().is_some_and(|byte| is_letter(*byte)) {
            return self.fault("a name begins with a letter or an underscore, or stands in quotes");
        }
        let length =
            rest.iter().position(|byte| !is_letter(*byte) && !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += length;
        Ok(String::from_utf8_lossy(&rest[..length]))
    }

    /// Labels in braces. A name in quotes without a value is that of the metric.
    fn labels(&mut self, name: &mut Option<Cow<'a, str>>) -> Result<Vec<Label<'a>>, Fault> {
        self.expect(b'{', "a brace is expected here")?;
        let mut labels: Vec<Label<'a>> = Vec::new();
        loop {
            self.skip_blanks();
            if self.peek() == Some(b'}') && (self.dialect == Dialect::Text || self.bytes[self.at - 1] == b'{')
            {
                break;
            }
            let start = self.at;
            let is_quoted = self.peek() == Some(b'"');
            let label = if is_quoted { self.text()? } else { self.bare_name(is_label_letter)? };
            self.skip_blanks();
            if self.peek() == Some(b'=') {
                self.at += 1;
                self.skip_blanks();
                if self.peek() != Some(b'"') {
                    return self.fault("the value of a label stands in quotes");
                }
                let value = self.text()?;
                if labels.len() == MAX_LABELS {
                    return Err(Fault::new(start, "a series has at most 256 labels"));
                }
                if label.is_empty() {
                    return Err(Fault::new(start, "a label has a name"));
                }
                if labels.iter().any(|(other, _)| *other == label) {
                    return Err(Fault::new(start, "a label stands twice"));
                }
                labels.push((label, value));
            } else if is_quoted && name.is_none() {
                *name = Some(label);
            } else {
                return self.fault("a label has a value behind =");
            }
            self.skip_blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                // As Prometheus reads it.
                Some(_) if self.dialect == Dialect::Text => {}
                _ => return self.fault("a comma or a brace is expected here"),
            }
        }
        self.at += 1;
        if self.at < self.bytes.len() { self.fault("a space is expected here") } else { Ok(labels) }
    }

    /// A text in quotes, without them and its escapes: `\\`, `\"`, `\n`. Any other backslash stands for itself.
    fn text(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let Ok(text) = std::str::from_utf8(self.quoted()?) else {
            return Err(Fault::new(start, "this is no UTF-8"));
        };
        Ok(if text.contains('\\') { Cow::Owned(unescape(text)) } else { Cow::Borrowed(text) })
    }
}

/// A text without its escapes.
pub(super) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let next = rest.as_str().chars().next();
        match (character, next) {
            ('\\', Some('n')) => plain.push('\n'),
            ('\\', Some(escaped @ ('\\' | '"'))) => plain.push(escaped),
            _ => {
                plain.push(character);
                continue;
            }
        }
        rest.next();
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_without_quotes_and_escapes() {
        let read = |bytes: &'static str, dialect| Series::read(bytes.as_bytes(), dialect).unwrap();
        let series = read(r#"a:b{c="\\ \" \n \t é",_d=""}"#, Dialect::OpenMetrics);
        assert_eq!(series.name, "a:b");
        assert_eq!(series.labels, [("c".into(), "\\ \" \n \\t é".into()), ("_d".into(), "".into())]);
        assert_eq!(series.label("_d"), Some(""));
        let series = read("{ \"a.b \\\"c\\\"\" , \"d.e\" = \"f\" , }", Dialect::Text);
        assert_eq!((series.name.as_ref(), series.label("d.e")), ("a.b \"c\"", Some("f")));
        assert_eq!(read("a{}", Dialect::OpenMetrics), read("a", Dialect::OpenMetrics));
    }

    #[test]
    fn a_wrong_series_is_told_with_its_place() {
        for (bytes, at) in [
            (&b"0a"[..], 0),
            (b"a.b", 1),
            (b"a{1=\"1\"}", 2),
            (b"a{a=1}", 4),
            (b"a{a}", 3),
            (b"a{a=\"1\"b=\"2\"}", 7),
            (b"a{a=\"1\",,b=\"2\"}", 8),
            (b"a{a=\"1\",}", 8),
            (b"a{a=\"1\",a=\"2\"}", 8),
            (b"a{\"b\"}", 5),
            (b"{a=\"1\"}", 0),
            (b"a{a=\"\xff\"}", 4),
        ] {
            let fault = Series::read(bytes, Dialect::OpenMetrics).unwrap_err();
            assert_eq!(fault.at, at, "{}: {}", String::from_utf8_lossy(bytes), fault.what);
        }
    }
}
