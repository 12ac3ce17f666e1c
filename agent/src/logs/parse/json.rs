//! JSON straight into a record: validated and copied in one pass, without a tree in between.

use super::{Level, Outcome, field_key};
use crate::logs::encode::{ValueSink, plain_length};

/// Deeper nesting is sent raw: receivers refuse it as well.
const MAX_DEPTH: u32 = 128;

/// Reads JSON front to back; every method gives none where the text is not JSON.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

/// A string of the text.
pub(super) enum Text<'a> {
    /// Without escapes.
    Plain(&'a str),
    /// As it stands between its quotes, escapes and all.
    Escaped(&'a str),
}

/// Lifts the keys of an object as they are.
pub(super) fn lift(text: &str, taken: &[String], sink: &mut impl ValueSink) -> Outcome {
    let mut reader = Reader::new(text);
    let mut level = None;
    let lifted = reader.object(|reader, key| {
        let key = key.unescaped();
        if level.is_none() && is_level_key(&key) {
            level = reader.peek_str().and_then(Level::parse);
        }
        sink.key(&field_key(&key, taken));
        reader.value(sink)
    });
    match lifted.and_then(|()| reader.end()) {
        Some(()) => Outcome::Parsed(level),
        None => Outcome::Invalid,
    }
}

pub(super) fn is_level_key(key: &str) -> bool {
    matches!(key, "level" | "severity" | "lvl")
}

/// Writes a JSON number: i64 or u64 if it is one, else f64; none where that would be infinite, which JSON cannot say.
pub(super) fn number(word: &str, sink: &mut impl ValueSink) -> Option<()> {
    if !is_number(word.as_bytes()) {
        return None;
    }
    if let Ok(number) = word.parse::<i64>() {
        sink.i64(number);
    } else if let Ok(number) = word.parse::<u64>() {
        sink.u64(number);
    } else {
        sink.f64(word.parse().ok().filter(|number: &f64| number.is_finite())?);
    }
    Some(())
}

/// RFC 8259, section 6.
fn is_number(word: &[u8]) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = word.strip_prefix(b"-").unwrap_or(word);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Reader { text, at: 0, depth: 0 }
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at)?, b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }

    /// Only white space is left.
    pub(super) fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// An object; `entry` reads the value of each key.
    pub(super) fn object(&mut self, mut entry: impl FnMut(&mut Self, Text<'a>) -> Option<()>) -> Option<()> {
        self.enter(b'{')?;
        if self.peek()? == b'}' {
            return self.leave();
        }
        loop {
            let key = self.string()?;
            self.take(b':')?;
            entry(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => return self.leave(),
                _ => return None,
            }
        }
    }

    /// Whether the next value is an object.
    pub(super) fn is_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }

    /// The next value if it is a string without escapes; it is not taken.
    pub(super) fn peek_str(&mut self) -> Option<&'a str> {
        let at = self.at;
        self.peek();
        let string = self.string();
        self.at = at;
        match string? {
            Text::Plain(text) => Some(text),
            Text::Escaped(_) => None,
        }
    }

    /// Any value, written to the sink.
    pub(super) fn value(&mut self, sink: &mut impl ValueSink) -> Option<()> {
        match self.peek()? {
            b'"' => self.string()?.write(sink),
            b'{' => {
                sink.map_begin();
                self.object(|reader, key| {
                    match key {
                        Text::Plain(key) => sink.key(key),
                        escaped => sink.key(&escaped.unescaped()),
                    }
                    reader.value(sink)
                })?;
                sink.map_end();
                Some(())
            }
            b'[' => self.array(sink),
            _ => self.word(sink),
        }
    }

    fn array(&mut self, sink: &mut impl ValueSink) -> Option<()> {
        sink.array_begin();
        self.enter(b'[')?;
        if self.peek()? == b']' {
            sink.array_end();
            return self.leave();
        }
        loop {
            self.value(sink)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    sink.array_end();
                    return self.leave();
                }
                _ => return None,
            }
        }
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self, sink: &mut impl ValueSink) -> Option<()> {
        let rest = &self.text[self.at..];
        let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        let word = &rest[..rest.as_bytes().iter().position(is_end).unwrap_or(rest.len())];
        self.at += word.len();
        match word {
            "true" => sink.bool(true),
            "false" => sink.bool(false),
            "null" => sink.null(),
            _ => return number(word, sink),
        }
        Some(())
    }

    /// A string; escapes are checked when they are written.
    fn string(&mut self) -> Option<Text<'a>> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(bytes.get(self.at..)?);
            match bytes.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => return None,
            }
        }
        let text = self.text.get(start..self.at)?;
        self.at += 1;
        if !escaped {
            return Some(Text::Plain(text));
        }
        are_escapes(text).then_some(Text::Escaped(text))
    }

    fn enter(&mut self, bracket: u8) -> Option<()> {
        self.take(bracket)?;
        self.depth += 1;
        (self.depth <= MAX_DEPTH).then_some(())
    }

    fn leave(&mut self) -> Option<()> {
        self.at += 1;
        self.depth -= 1;
        Some(())
    }
}

// === impl Text ===

impl<'a> Text<'a> {
    /// The text itself.
    pub(super) fn unescaped(&self) -> std::borrow::Cow<'a, str> {
        match self {
            Text::Plain(text) => std::borrow::Cow::Borrowed(text),
            Text::Escaped(text) => {
                let mut whole = String::with_capacity(text.len());
                unescape(text, |piece| whole.push_str(piece));
                std::borrow::Cow::Owned(whole)
            }
        }
    }

    /// Writes it as a value.
    pub(super) fn write(&self, sink: &mut impl ValueSink) -> Option<()> {
        match self {
            Text::Plain(text) => sink.str(text),
            Text::Escaped(text) => {
                sink.str_begin();
                unescape(text, |piece| sink.str_push(piece));
                sink.str_end();
            }
        }
        Some(())
    }
}

/// Whether every backslash begins an escape of RFC 8259, section 7.
fn are_escapes(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(backslash) = memchr::memchr(b'\\', rest) {
        rest = match &rest[backslash + 1..] {
            [b'u', a, b, c, d, after @ ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => {
                after
            }
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', after @ ..] => after,
            _ => return false,
        };
    }
    true
}

/// Hands out the text piece by piece. A surrogate without its other half becomes U+FFFD.
fn unescape(mut text: &str, mut push: impl FnMut(&str)) {
    let mut character = [0; 4];
    while let Some(backslash) = memchr::memchr(b'\\', text.as_bytes()) {
        push(&text[..backslash]);
        let (kind, mut rest) = text[backslash + 1..].split_at(1);
        let unescaped = match kind {
            "b" => '\u{8}',
            "f" => '\u{c}',
            "n" => '\n',
            "r" => '\r',
            "t" => '\t',
            "u" => {
                let (unescaped, after) = code_point(rest);
                rest = after;
                unescaped
            }
            other => other.chars().next().unwrap_or('\u{fffd}'),
        };
        push(unescaped.encode_utf8(&mut character));
        text = rest;
    }
    push(text);
}

/// The character behind `\u`, and what follows it.
fn code_point(text: &str) -> (char, &str) {
    let unit = |text: &str| u32::from_str_radix(text.get(..4).unwrap_or_default(), 16).ok();
    let (Some(first), rest) = (unit(text), text.get(4..).unwrap_or_default()) else {
        return ('\u{fffd}', text);
    };
    if let Some(character) = char::from_u32(first) {
        return (character, rest);
    }
    let second = rest.strip_prefix("\\u").and_then(unit).filter(|second| (0xdc00..0xe000).contains(second));
    match second {
        Some(second) if first < 0xdc00 => {
            let character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
            (character.unwrap_or('\u{fffd}'), &rest[6..])
        }
        _ => ('\u{fffd}', rest),
    }
}
