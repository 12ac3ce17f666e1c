//! logfmt: `key=value key="quoted value" flag`.

use super::{Level, Outcome, field_key, scalar};
use crate::logs::encode::ValueSink;
use crate::logs::parse::json::is_level_key;

/// One `key=value`, or a word alone.
pub(super) struct Pair<'a> {
    pub(super) key: &'a str,
    /// None: the word stands alone.
    pub(super) value: Option<Value<'a>>,
}

/// The right side of a pair.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Bare(&'a str),
    /// Between its quotes, escapes and all.
    Quoted(&'a str),
}

/// Lifts the pairs of a line; a word alone is true. A line without any pair is plain text.
pub(super) fn lift(text: &str, taken: &[String], sink: &mut impl ValueSink) -> Outcome {
    if !text.contains('=') {
        return Outcome::Plain;
    }
    let mut level = None;
    for pair in pairs(text) {
        let Some(pair) = pair else { return Outcome::Invalid };
        sink.key(&field_key(pair.key, taken));
        match pair.value {
            None => sink.bool(true),
            Some(value) => {
                if let (true, Value::Bare(word) | Value::Quoted(word)) = (is_level_key(pair.key), value) {
                    level = level.or(Level::parse(word));
                }
                value.write(sink);
            }
        }
    }
    Outcome::Parsed(level)
}

/// Whether a text is nothing but pairs with values, two or more: one alone is more likely prose.
pub(super) fn is_whole(text: &str) -> bool {
    let mut fields = 0;
    pairs(text).all(|pair| {
        fields += 1;
        pair.is_some_and(|pair| pair.value.is_some())
    }) && fields > 1
}

/// The pairs of a text; none where it is not logfmt.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = Option<Pair<'_>>> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (pair, after) = pair(rest).map_or((None, ""), |(pair, after)| (Some(pair), after));
        rest = after;
        Some(pair)
    })
}

/// The first pair of a text that begins with one, and what follows it.
pub(super) fn pair(text: &str) -> Option<(Pair<'_>, &str)> {
    let end = text.find([' ', '=']).unwrap_or(text.len());
    let (key, after) = text.split_at(end);
    if key.is_empty() || key.contains('"') {
        return None;
    }
    let Some(after) = after.strip_prefix('=') else {
        return Some((Pair { key, value: None }, after.trim_start()));
    };
    let (value, after) = value(after)?;
    Some((Pair { key, value: Some(value) }, after.trim_start()))
}

fn value(text: &str) -> Option<(Value<'_>, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        return Some((Value::Bare(&text[..end]), &text[end..]));
    };
    let mut escaped = false;
    let end = quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })?;
    Some((Value::Quoted(&quoted[..end]), &quoted[end + 1..]))
}

// === impl Value ===

impl Value<'_> {
    /// Writes it: a bare word may be a number or a flag, a quoted one is a text.
    pub(super) fn write(self, sink: &mut impl ValueSink) {
        match self {
            Value::Bare(word) => scalar(word, sink),
            Value::Quoted(text) => {
                sink.str_begin();
                let mut rest = text;
                while let Some((before, after)) = rest.split_once('\\') {
                    sink.str_push(before);
                    let Some(kind) = after.chars().next() else { break };
                    match kind {
                        'n' => sink.str_push("\n"),
                        't' => sink.str_push("\t"),
                        'r' => sink.str_push("\r"),
                        _ => sink.str_push(&after[..kind.len_utf8()]),
                    }
                    rest = &after[kind.len_utf8()..];
                }
                sink.str_push(rest);
                sink.str_end();
            }
        }
    }
}
