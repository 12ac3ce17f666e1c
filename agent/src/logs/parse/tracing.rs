//! The dialects of tracing-subscriber: its JSON, and its text formats `full` and `compact`; env_logger's text as well.
//!
//! Source: `tracing-subscriber` 0.3, `src/fmt/format/{json,mod}.rs`; `env_logger` 0.11, `src/fmt`.

use std::borrow::Cow;

use super::json::Reader;
use super::logfmt::{self, Value};
use super::{Level, Outcome, field_key};
use crate::logs::encode::ValueSink;

/// Lifts a JSON object: `level` in lower case, the event's `fields` flat, everything else as it is.
pub(super) fn json(text: &str, taken: &[String], sink: &mut impl ValueSink) -> Outcome {
    let mut reader = Reader::new(text);
    let mut level = None;
    let lifted = reader.object(|reader, key| {
        let key = key.unescaped();
        match &*key {
            "level" => {
                sink.key(&field_key("level", taken));
                match reader.peek_str().and_then(Level::parse) {
                    Some(read) => {
                        level = Some(read);
                        sink.str(read.name());
                        reader.value(&mut Nowhere)
                    }
                    None => reader.value(sink),
                }
            }
            "fields" if reader.is_object() => reader.object(|reader, key| {
                let key = key.unescaped();
                let is_ours = matches!(&*key, "level" | "target" | "span" | "spans" | "timestamp");
                if is_ours {
                    sink.key(&format!("{key}_"))
                } else {
                    sink.key(&field_key(&key, taken))
                }
                reader.value(sink)
            }),
            "msg" => {
                sink.key(&field_key("message", taken));
                reader.value(sink)
            }
            _ => {
                sink.key(&field_key(&key, taken));
                reader.value(sink)
            }
        }
    });
    match lifted.and_then(|()| reader.end()) {
        Some(()) => Outcome::Parsed(level),
        None => Outcome::Invalid,
    }
}

/// Lifts a line of text: `[TIME] LEVEL [SPANS:] TARGET: MESSAGE key=value …`, or env_logger's
/// `[TIME LEVEL TARGET] MESSAGE`. Anything else is plain text.
pub(super) fn text(text: &str, taken: &[String], sink: &mut impl ValueSink) -> Outcome {
    let text = without_ansi(text);
    match head(&text) {
        Some(head) => {
            head.write(taken, sink);
            Outcome::Parsed(Some(head.level))
        }
        None => Outcome::Plain,
    }
}

struct Head<'a> {
    level: Level,
    /// As they stand there, outermost first.
    spans: &'a str,
    target: Option<&'a str>,
    message: &'a str,
}

fn head(text: &str) -> Option<Head<'_>> {
    if let Some((inside, message)) = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        let mut words = inside.split_whitespace();
        let level = level_word(words.find(|word| level_word(word).is_some())?)?;
        return Some(Head { level, spans: "", target: words.next(), message });
    }
    let mut rest = text.trim_start();
    let (word, after) = rest.split_once(' ')?;
    let level = match level_word(word) {
        Some(level) => {
            rest = after;
            level
        }
        None => {
            let is_time =
                word.bytes().next()?.is_ascii_digit() && (word.contains('T') || word.ends_with('s'));
            let (word, after) = after.trim_start().split_once(' ').filter(|_| is_time)?;
            rest = after;
            level_word(word)?
        }
    };
    let contexts = rest.trim_start();
    rest = contexts;
    let (target, message) = loop {
        match context(rest) {
            Some((name, None, after)) if after.starts_with(' ') => break (Some(name), &after[1..]),
            Some((.., after)) => rest = after.strip_prefix(' ').unwrap_or(after),
            None => break (None, rest),
        }
    };
    let spans = &contexts[..contexts.len() - rest.len()];
    Some(Head { level, spans, target, message })
}

/// The spans of a head: each one's name and fields.
fn spans(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, fields, after) = context(rest)?;
        rest = after.strip_prefix(' ').unwrap_or(after);
        Some((name, fields.unwrap_or_default()))
    })
}

/// The upper-case words that tracing and log write, and nothing else: a sentence that begins with "Info" is no head.
fn level_word(word: &str) -> Option<Level> {
    word.bytes().all(|byte| byte.is_ascii_uppercase()).then(|| Level::parse(word))?
}

/// One `name{fields}:` or `path::to::target:`; what follows begins behind the colon.
fn context(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b':' if bytes.get(at + 1) == Some(&b':') => at += 2,
            b':' | b'{' => break,
            byte if is_name(*byte) => at += 1,
            _ => return None,
        }
    }
    if at == 0 {
        return None;
    }
    let (name, rest) = text.split_at(at);
    if let Some(after) = rest.strip_prefix(':') {
        return Some((name, None, after));
    }
    let end = closing_brace(rest)?;
    let after = rest[end + 1..].strip_prefix(':')?;
    Some((name, Some(&rest[1..end]), after))
}

/// The brace that closes the one at the start, but for those inside quotes.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    text.bytes().position(|byte| {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => depth -= 1,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
        depth == 0
    })
}

// === impl Head ===

impl Head<'_> {
    fn write(&self, taken: &[String], sink: &mut impl ValueSink) {
        sink.key(&field_key("level", taken));
        sink.str(self.level.name());
        if let Some(target) = self.target {
            sink.key(&field_key("target", taken));
            sink.str(target);
        }
        if let Some(innermost) = spans(self.spans).last() {
            sink.key(&field_key("span", taken));
            span(innermost, sink);
            sink.key(&field_key("spans", taken));
            sink.array_begin();
            spans(self.spans).for_each(|one| span(one, sink));
            sink.array_end();
        }
        let fields_at = fields_start(self.message);
        sink.key(&field_key("message", taken));
        sink.str(self.message[..fields_at].trim_end());
        for pair in logfmt::pairs(&self.message[fields_at..]).flatten() {
            let is_ours = matches!(pair.key, "level" | "target" | "span" | "spans" | "message");
            if is_ours {
                sink.key(&format!("{}_", pair.key))
            } else {
                sink.key(&field_key(pair.key, taken))
            }
            pair.value.unwrap_or(Value::Bare("true")).write(sink);
        }
    }
}

fn span((name, fields): (&str, &str), sink: &mut impl ValueSink) {
    sink.map_begin();
    sink.key("name");
    sink.str(name);
    for pair in logfmt::pairs(fields).flatten() {
        sink.key(pair.key);
        pair.value.unwrap_or(Value::Bare("true")).write(sink);
    }
    sink.map_end();
}

/// Where the `key=value` pairs at the end of a message begin: the longest tail that is pairs only.
fn fields_start(message: &str) -> usize {
    let mut start = None;
    let mut rest = message;
    while !rest.is_empty() {
        let field = logfmt::pair(rest).filter(|(pair, _)| pair.value.is_some() && is_field_name(pair.key));
        rest = match field {
            Some((_, after)) => {
                start.get_or_insert(message.len() - rest.len());
                after
            }
            None => {
                start = None;
                rest.split_once(' ').map_or("", |(_, after)| after)
            }
        };
    }
    start.unwrap_or(message.len())
}

fn is_field_name(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
}

/// The text without terminal colours (ECMA-48 control sequences).
fn without_ansi(text: &str) -> Cow<'_, str> {
    if memchr::memchr(0x1b, text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        clean.push_str(before);
        rest = match after.strip_prefix('[') {
            Some(sequence) => {
                let end =
                    sequence.find(|c: char| ('@'..='~').contains(&c)).map_or(sequence.len(), |end| end + 1);
                &sequence[end..]
            }
            None => after,
        };
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

/// Takes values and forgets them.
struct Nowhere;

impl ValueSink for Nowhere {
    fn key(&mut self, _: &str) {}
    fn str(&mut self, _: &str) {}
    fn str_begin(&mut self) {}
    fn str_push(&mut self, _: &str) {}
    fn str_end(&mut self) {}
    fn i64(&mut self, _: i64) {}
    fn u64(&mut self, _: u64) {}
    fn f64(&mut self, _: f64) {}
    fn bool(&mut self, _: bool) {}
    fn null(&mut self) {}
    fn map_begin(&mut self) {}
    fn map_end(&mut self) {}
    fn array_begin(&mut self) {}
    fn array_end(&mut self) {}
}
