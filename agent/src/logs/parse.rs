//! What a record's text says: fields instead of one string.
//!
//! Fields go straight into the record that is being encoded; a text that turns out not to parse is taken back by the
//! caller and sent raw.

mod json;
mod logfmt;
mod tracing;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use sidelight_contract::annotations::Parse;

use crate::logs::encode::ValueSink;

/// How severe a record is, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the usual levels")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// What became of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its fields are written; its level if it says one.
    Parsed(Option<Level>),
    /// It does not claim to have fields: plain text, no failure.
    Plain,
    /// It looked as if it had fields, and then had not.
    Invalid,
}

/// Keys that records have for themselves.
pub const RESERVED: [&str; 6] = ["log", "stream", "kubernetes", "kubernetes_namespace", "sidelight", "time"];

// === impl Level ===

impl Level {
    /// The lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        }
    }

    /// Reads a level in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let is = |name: &str| text.eq_ignore_ascii_case(name);
        Some(match text.as_bytes().first()? | 0x20 {
            b't' if is("trace") => Level::Trace,
            b'd' if is("debug") => Level::Debug,
            b'i' if is("info") || is("information") => Level::Info,
            b'w' if is("warn") || is("warning") => Level::Warn,
            b'e' if is("error") || is("err") => Level::Error,
            b'f' if is("fatal") => Level::Error,
            b'c' if is("critical") => Level::Error,
            _ => return None,
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Level::parse(text)
            .ok_or_else(|| format!("{text:?} is not allowed: trace, debug, info, warn or error"))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes the fields of `text` to `sink`; those whose key is `taken` by the record itself get a trailing `_`.
pub fn parse(kind: Parse, text: &str, taken: &[String], sink: &mut impl ValueSink) -> Outcome {
    let is_object = text.trim_start().starts_with('{');
    match kind {
        Parse::None => Outcome::Plain,
        Parse::Json if is_object => json::lift(text, taken, sink),
        Parse::Auto | Parse::Tracing if is_object => tracing::json(text, taken, sink),
        Parse::Tracing => tracing::text(text, taken, sink),
        Parse::Auto => match tracing::text(text, taken, sink) {
            Outcome::Plain if logfmt::is_whole(text) => logfmt::lift(text, taken, sink),
            outcome => outcome,
        },
        Parse::Logfmt => logfmt::lift(text, taken, sink),
        Parse::Json => Outcome::Plain,
    }
}

/// The key under which a field goes into the record.
fn field_key<'a>(key: &'a str, taken: &[String]) -> Cow<'a, str> {
    if taken.iter().any(|other| other == key) { Cow::Owned(format!("{key}_")) } else { Cow::Borrowed(key) }
}

/// A word that may be a number, true or false; everything else is a text.
fn scalar(word: &str, sink: &mut impl ValueSink) {
    let could_be_number = word.bytes().next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'-');
    match word {
        "true" => sink.bool(true),
        "false" => sink.bool(false),
        _ if could_be_number => json::number(word, sink).unwrap_or_else(|| sink.str(word)),
        _ => sink.str(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::encode::{Format, Forward, Fragment};
    use crate::logs::split::Time;

    /// What becomes of a text, and its record if it has one, where the keys `env` and `message` are the operator's.
    fn record(kind: Parse, text: &str) -> (Outcome, rmpv::Value) {
        let taken = ["env", "message"].map(str::to_owned);
        let (mut bytes, mut format) = (Vec::new(), Forward::default());
        let mut sink = format.begin(&mut bytes, Time::default(), &Fragment::default());
        let outcome = parse(kind, text, &taken, &mut sink);
        Forward::end(sink);
        let entry = rmpv::decode::read_value(&mut &bytes[..]);
        (outcome, entry.map_or(rmpv::Value::Nil, |entry| entry[1].clone()))
    }

    #[test]
    fn no_field_takes_a_key_of_the_operator_not_even_one_that_is_made_of_a_text() {
        for text in [
            "INFO t: m env=a",
            r#"{"level":"INFO","fields":{"message":"m"},"env":"a"}"#,
            r#"{"level":"INFO","msg":"m","env":"a"}"#,
        ] {
            let (outcome, record) = record(Parse::Tracing, text);
            assert_eq!(outcome, Outcome::Parsed(Some(Level::Info)), "{text}");
            assert_eq!((&record["message_"], &record["env_"]), (&"m".into(), &"a".into()), "{text}");
            assert_eq!(
                (&record["message"], &record["env"]),
                (&rmpv::Value::Nil, &rmpv::Value::Nil),
                "{text}"
            );
        }
    }

    #[test]
    fn a_number_that_would_be_infinite_stays_a_text() {
        assert_eq!(record(Parse::Json, r#"{"a":1e999}"#).0, Outcome::Invalid);
        assert_eq!(record(Parse::Logfmt, "a=-1e999").1["a"], "-1e999".into());
    }
}
