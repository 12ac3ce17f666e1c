//! JSON, one record a line.

use std::io::Write;

use super::{Format, Fragment, ValueSink};
use crate::logs::split::Time;

/// One JSON object a line.
#[derive(Debug, Default)]
pub struct JsonLines;

/// One object in the making.
#[derive(Debug)]
pub struct Json<'a> {
    buffer: &'a mut Vec<u8>,
    /// A value was written before in the innermost map or list: a comma belongs before the next.
    comma: bool,
}

// === impl Json ===

impl Json<'_> {
    fn value(&mut self) {
        if std::mem::replace(&mut self.comma, true) {
            self.buffer.push(b',');
        }
    }

    fn open(&mut self, bracket: u8) {
        self.value();
        self.buffer.push(bracket);
        self.comma = false;
    }

    fn close(&mut self, bracket: u8) {
        self.buffer.push(bracket);
        self.comma = true;
    }

    fn print(&mut self, value: impl std::fmt::Display) {
        self.value();
        // Writing to memory cannot fail.
        let _ = write!(self.buffer, "{value}");
    }

    fn escape(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        loop {
            let (clean, special) = rest.split_at(plain_length(rest));
            self.buffer.extend_from_slice(clean);
            let Some((byte, after)) = special.split_first() else { return };
            rest = after;
            match byte {
                b'"' => self.buffer.extend_from_slice(b"\\\""),
                b'\\' => self.buffer.extend_from_slice(b"\\\\"),
                b'\n' => self.buffer.extend_from_slice(b"\\n"),
                b'\r' => self.buffer.extend_from_slice(b"\\r"),
                b'\t' => self.buffer.extend_from_slice(b"\\t"),
                control => {
                    let _ = write!(self.buffer, "\\u{control:04x}");
                }
            }
        }
    }
}

impl ValueSink for Json<'_> {
    fn key(&mut self, key: &str) {
        self.str(key);
        self.buffer.push(b':');
        self.comma = false;
    }

    fn str(&mut self, text: &str) {
        self.str_begin();
        self.escape(text);
        self.str_end();
    }

    fn str_begin(&mut self) {
        self.value();
        self.buffer.push(b'"');
    }

    fn str_push(&mut self, piece: &str) {
        self.escape(piece);
    }

    fn str_end(&mut self) {
        self.buffer.push(b'"');
    }

    fn i64(&mut self, number: i64) {
        self.print(number);
    }

    fn u64(&mut self, number: u64) {
        self.print(number);
    }

    fn f64(&mut self, number: f64) {
        if !number.is_finite() {
            return self.null();
        }
        self.value();
        // `{:?}` keeps the `.0` of a whole number: it stays a float for whoever reads it.
        let _ = write!(self.buffer, "{number:?}");
    }

    fn bool(&mut self, value: bool) {
        self.print(value);
    }

    fn null(&mut self) {
        self.print("null");
    }

    fn map_begin(&mut self) {
        self.open(b'{');
    }

    fn map_end(&mut self) {
        self.close(b'}');
    }

    fn array_begin(&mut self) {
        self.open(b'[');
    }

    fn array_end(&mut self) {
        self.close(b']');
    }
}

/// How many bytes come before the first that means something in a string: a quote, a backslash, a control character.
/// Eight at a time: in each byte of a word, subtracting borrows into the upper bit where there was nothing, or less than
/// a space; what that says of the bytes above the first such one is not looked at.
pub fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const UPPER_BITS: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & UPPER_BITS;
    let (words, _) = bytes.as_chunks::<8>();
    for (n, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quote | backslash | below(word, b' ');
        if found != 0 {
            return 8 * n + found.trailing_zeros() as usize / 8;
        }
    }
    let rest = 8 * words.len();
    rest + bytes[rest..].iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..b' ')).count()
}

// === impl JsonLines ===

impl Format for JsonLines {
    type Sink<'a> = Json<'a>;

    fn begin<'a>(&'a mut self, buffer: &'a mut Vec<u8>, time: Time, fragment: &Fragment) -> Json<'a> {
        let mut sink = Json { buffer, comma: false };
        sink.open(b'{');
        sink.key("time");
        sink.value();
        let _ = write!(sink.buffer, "\"{time}\"");
        sink.buffer.push(b',');
        sink.buffer.extend_from_slice(&fragment.bytes);
        sink
    }

    fn end(mut sink: Json<'_>) {
        sink.close(b'}');
        sink.buffer.push(b'\n');
    }

    fn fragment(&mut self, write: impl FnOnce(&mut Json<'_>)) -> Fragment {
        let mut bytes = Vec::new();
        write(&mut Json { buffer: &mut bytes, comma: false });
        Fragment { entries: 0, bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_plain_up_to_its_first_quote_backslash_or_control_character() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut bytes = [b'a'; 20];
                bytes[at] = byte;
                let is_plain = byte >= b' ' && byte != b'"' && byte != b'\\';
                assert_eq!(plain_length(&bytes), if is_plain { 20 } else { at }, "{byte} at {at}");
                bytes[19] = 0;
                assert_eq!(plain_length(&bytes), if is_plain && at < 19 { 19 } else { at }, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn a_record_is_one_line_of_valid_json() {
        let mut format = JsonLines;
        let fragment = format.fragment(|sink| {
            sink.key("a");
            sink.map_begin();
            sink.map_end();
        });
        let mut bytes = Vec::new();
        let mut sink = format.begin(&mut bytes, Time { seconds: 1_795_514_400, nanos: 5 }, &fragment);
        sink.key("log");
        sink.str("quote \" slash \\ newline \n bell \u{7} umlaut ä");
        sink.key("list");
        sink.array_begin();
        sink.f64(2.0);
        sink.f64(f64::NAN);
        sink.array_end();
        JsonLines::end(sink);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["time"], "2026-11-24T10:00:00.000000005Z");
        assert_eq!(value["log"], "quote \" slash \\ newline \n bell \u{7} umlaut ä");
        assert_eq!(value["list"], serde_json::json!([2.0, null]));
    }
}
