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
        let bytes = text.as_bytes();
        let mut clean = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
                continue;
            }
            self.buffer.extend_from_slice(&bytes[clean..at]);
            clean = at + 1;
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
        self.buffer.extend_from_slice(&bytes[clean..]);
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
