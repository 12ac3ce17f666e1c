//! MessagePack, and the Forward protocol's entry: `[EventTime, {record}]`.
//!
//! Maps and lists have a head of fixed width that is filled in at their end; MessagePack allows heads that are wider
//! than they need be.

use super::{Format, Fragment, ValueSink};
use crate::logs::split::Time;

/// The Forward protocol's entries.
#[derive(Debug, Default)]
pub struct Forward {
    /// Open maps and lists: where their head is, and how many entries they have. Kept, so that no record allocates.
    open: Vec<(usize, u32)>,
}

/// One entry in the making.
#[derive(Debug)]
pub struct Msgpack<'a> {
    buffer: &'a mut Vec<u8>,
    open: &'a mut Vec<(usize, u32)>,
    text: usize,
}

// === impl Msgpack ===

impl Msgpack<'_> {
    /// The next value is an element of the innermost list.
    fn element(&mut self) {
        if let Some((head, count)) = self.open.last_mut()
            && self.buffer[*head] == ARRAY_32
        {
            *count += 1;
        }
    }

    fn begin(&mut self, marker: u8) {
        self.element();
        self.open.push((self.buffer.len(), 0));
        self.buffer.extend_from_slice(&[marker, 0, 0, 0, 0]);
    }

    fn end(&mut self) {
        if let Some((head, count)) = self.open.pop() {
            self.buffer[head + 1..head + 5].copy_from_slice(&count.to_be_bytes());
        }
    }

    fn text(&mut self, text: &str) {
        let length = text.len();
        match length {
            0..=31 => self.buffer.push(0xa0 | length as u8),
            32..=0xff => self.buffer.extend_from_slice(&[0xd9, length as u8]),
            0x100..=0xffff => {
                let [high, low] = (length as u16).to_be_bytes();
                self.buffer.extend_from_slice(&[0xda, high, low]);
            }
            _ => {
                self.buffer.push(STR_32);
                self.buffer.extend_from_slice(&(length as u32).to_be_bytes());
            }
        }
        self.buffer.extend_from_slice(text.as_bytes());
    }
}

const ARRAY_32: u8 = 0xdd;
const MAP_32: u8 = 0xdf;
const STR_32: u8 = 0xdb;

impl ValueSink for Msgpack<'_> {
    fn key(&mut self, key: &str) {
        if let Some((_, count)) = self.open.last_mut() {
            *count += 1;
        }
        self.text(key);
    }

    fn str(&mut self, text: &str) {
        self.element();
        self.text(text);
    }

    fn str_begin(&mut self) {
        self.element();
        self.text = self.buffer.len();
        self.buffer.extend_from_slice(&[STR_32, 0, 0, 0, 0]);
    }

    fn str_push(&mut self, piece: &str) {
        self.buffer.extend_from_slice(piece.as_bytes());
    }

    fn str_end(&mut self) {
        let length = (self.buffer.len() - self.text - 5) as u32;
        self.buffer[self.text + 1..self.text + 5].copy_from_slice(&length.to_be_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.element();
        match number {
            0..=0x7f => self.buffer.push(number as u8),
            -32..=-1 => self.buffer.push(number as i8 as u8),
            _ => match i32::try_from(number) {
                Ok(small) => {
                    self.buffer.push(0xd2);
                    self.buffer.extend_from_slice(&small.to_be_bytes());
                }
                Err(_) => {
                    self.buffer.push(0xd3);
                    self.buffer.extend_from_slice(&number.to_be_bytes());
                }
            },
        }
    }

    fn u64(&mut self, number: u64) {
        self.element();
        self.buffer.push(0xcf);
        self.buffer.extend_from_slice(&number.to_be_bytes());
    }

    fn f64(&mut self, number: f64) {
        self.element();
        self.buffer.push(0xcb);
        self.buffer.extend_from_slice(&number.to_be_bytes());
    }

    fn bool(&mut self, value: bool) {
        self.element();
        self.buffer.push(if value { 0xc3 } else { 0xc2 });
    }

    fn null(&mut self) {
        self.element();
        self.buffer.push(0xc0);
    }

    fn map_begin(&mut self) {
        self.begin(MAP_32);
    }

    fn map_end(&mut self) {
        self.end();
    }

    fn array_begin(&mut self) {
        self.begin(ARRAY_32);
    }

    fn array_end(&mut self) {
        self.end();
    }
}

// === impl Forward ===

impl Format for Forward {
    type Sink<'a> = Msgpack<'a>;

    fn begin<'a>(&'a mut self, buffer: &'a mut Vec<u8>, time: Time, fragment: &Fragment) -> Msgpack<'a> {
        // A list of two, EventTime as fixext 8 of type 0: seconds and nanoseconds, big endian (Forward protocol v1).
        let [s1, s2, s3, s4] = u32::try_from(time.seconds).unwrap_or(0).to_be_bytes();
        let [n1, n2, n3, n4] = time.nanos.to_be_bytes();
        let head = [0x92, 0xd7, 0x00, s1, s2, s3, s4, n1, n2, n3, n4, MAP_32, 0, 0, 0, 0];
        buffer.extend_from_slice(&head);
        self.open.clear();
        self.open.push((buffer.len() - 5, fragment.entries));
        buffer.extend_from_slice(&fragment.bytes);
        Msgpack { buffer, open: &mut self.open, text: 0 }
    }

    fn end(mut sink: Msgpack<'_>) {
        sink.end();
    }

    fn fragment(&mut self, write: impl FnOnce(&mut Msgpack<'_>)) -> Fragment {
        let mut bytes = Vec::new();
        self.open.clear();
        let mut sink = Msgpack { buffer: &mut bytes, open: &mut self.open, text: 0 };
        sink.begin(MAP_32);
        write(&mut sink);
        let entries = sink.open.first().map_or(0, |(_, count)| *count);
        Fragment { entries, bytes: bytes.split_off(5) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_an_event_time_and_a_map_that_others_can_read() {
        let mut format = Forward::default();
        let fragment = format.fragment(|sink| {
            sink.key("stream");
            sink.str("stderr");
            sink.key("kubernetes");
            sink.map_begin();
            sink.key("pod_name");
            sink.str("web-1");
            sink.map_end();
        });
        let mut bytes = Vec::new();
        let mut sink = format.begin(&mut bytes, Time { seconds: 7, nanos: 9 }, &fragment);
        sink.key("list");
        sink.array_begin();
        for number in [0, 127, 128, -1, -32, -33, i64::MIN, i64::MAX] {
            sink.i64(number);
        }
        sink.array_begin();
        sink.array_end();
        sink.u64(u64::MAX);
        sink.f64(1.5);
        sink.bool(true);
        sink.null();
        sink.array_end();
        sink.key("text");
        sink.str_begin();
        sink.str_push("a");
        sink.str_push(&"b".repeat(70_000));
        sink.str_end();
        Forward::end(sink);
        let value = rmpv::decode::read_value(&mut &bytes[..]).unwrap();
        let record = &value[1];
        assert_eq!(value[0], rmpv::Value::Ext(0, vec![0, 0, 0, 7, 0, 0, 0, 9]));
        assert_eq!(record["stream"].as_str(), Some("stderr"));
        assert_eq!(record["kubernetes"]["pod_name"].as_str(), Some("web-1"));
        assert_eq!(record["text"].as_str().map(str::len), Some(70_001));
        let numbers: Vec<i64> =
            record["list"].as_array().unwrap().iter().take(8).filter_map(rmpv::Value::as_i64).collect();
        assert_eq!(numbers, [0, 127, 128, -1, -32, -33, i64::MIN, i64::MAX]);
        assert_eq!(record["list"].as_array().unwrap().len(), 13);
        assert_eq!(record["list"][9].as_u64(), Some(u64::MAX));
    }
}
