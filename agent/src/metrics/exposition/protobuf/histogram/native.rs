//! The native part of a histogram. It is taken apart and encoded anew, for it goes into a request together with the samples of
//! other tenants: what a receiver could not read, or would find inconsistent, would take those along.

use crate::delivery::protobuf::{
    Field, Malformed, double, fields, length_delimited, number, varint, varints,
};

/// Of either sign. A histogram with more is left out.
const MAX_BUCKETS: usize = 10_000;
/// Exponential buckets (`model/histogram` of Prometheus); other schemas have bounds of their own, which stand elsewhere.
const SCHEMAS: std::ops::RangeInclusive<i64> = -4..=8;
/// `ResetHint.RESET_HINT_GAUGE`
const GAUGE: u64 = 3;

/// Fields 5 to 14 of `Histogram`.
#[derive(Debug, Default)]
pub(super) struct Native {
    schema: i64,
    zero_threshold: f64,
    zero_count: u64,
    zero_count_float: f64,
    negative: Side,
    positive: Side,
}

/// Buckets of one sign.
#[derive(Debug, Default)]
struct Side {
    /// Offsets, and how many buckets follow each other there.
    spans: Vec<(i64, u64)>,
    /// Counts, each less the one before.
    deltas: Vec<i64>,
    /// Counts of histograms of floats.
    counts: Vec<f64>,
    /// There are more buckets than are kept.
    is_too_long: bool,
}

// === impl Native ===

impl Native {
    /// Adds a field; others are passed over.
    pub(super) fn add(&mut self, field: u32, value: Field<'_>) -> Result<(), Malformed> {
        match (field, value) {
            (5, Field::Varint(schema)) => self.schema = zigzag(schema),
            (6, Field::Fixed64(bits)) => self.zero_threshold = f64::from_bits(bits),
            (7, Field::Varint(count)) => self.zero_count = count,
            (8, Field::Fixed64(bits)) => self.zero_count_float = f64::from_bits(bits),
            (9..=11, value) => self.negative.add(field - 9, value)?,
            (12..=14, value) => self.positive.add(field - 12, value)?,
            _ => {}
        }
        Ok(())
    }

    /// Whether there is one, by Prometheus's rule (`protobufparse.go`, `isNativeHistogram`).
    pub(super) fn is_native(&self) -> bool {
        self.zero_threshold > 0.0
            || self.zero_count > 0
            || self.zero_count_float > 0.0
            || !self.negative.spans.is_empty()
            || !self.positive.spans.is_empty()
    }

    /// A `Histogram` of remote write 2.0 without its times; none where its parts do not fit together.
    pub(super) fn encoded(&self, count: u64, count_float: f64, sum: f64, is_gauge: bool) -> Option<Vec<u8>> {
        let sides = [&self.negative, &self.positive];
        let has_counts = sides.iter().any(|side| !side.counts.is_empty());
        let is_float = count_float > 0.0 || self.zero_count_float > 0.0 || has_counts;
        if !SCHEMAS.contains(&self.schema) || !(0.0..f64::INFINITY).contains(&self.zero_threshold) {
            return None;
        }
        if is_float {
            let counts = [count_float, self.zero_count_float];
            let are_counts = counts.iter().all(|count| (0.0..f64::INFINITY).contains(count));
            if !are_counts || !sides.iter().all(|side| side.has_counts()) {
                return None;
            }
        } else {
            let [negative, positive] = sides.map(Side::sum);
            let parts = self.zero_count.checked_add(negative?)?.checked_add(positive?)?;
            // An observation that is no number is counted, and is in no bucket.
            if parts > count || (parts < count && !sum.is_nan()) {
                return None;
            }
        }
        let mut out = Vec::new();
        if is_float {
            double(&mut out, 2, count_float)
        } else {
            number(&mut out, 1, count)
        }
        // One NaN for all: other bits are stale markers.
        double(&mut out, 3, if sum.is_nan() { f64::NAN } else { sum });
        number(&mut out, 4, unzigzag(self.schema));
        double(&mut out, 5, self.zero_threshold);
        if is_float {
            double(&mut out, 7, self.zero_count_float)
        } else {
            number(&mut out, 6, self.zero_count)
        }
        self.negative.encode(8, is_float, &mut out);
        self.positive.encode(11, is_float, &mut out);
        if is_gauge {
            number(&mut out, 14, GAUGE);
        }
        Some(out)
    }
}

// === impl Side ===

impl Side {
    /// Spans, deltas and counts have three numbers behind each other; numbers are packed, or one by one.
    fn add(&mut self, part: u32, value: Field<'_>) -> Result<(), Malformed> {
        match (part, value) {
            (0, Field::Bytes(bytes)) => {
                let span = span(bytes)?;
                push(&mut self.spans, span, &mut self.is_too_long);
            }
            (1, Field::Varint(delta)) => push(&mut self.deltas, zigzag(delta), &mut self.is_too_long),
            (1, Field::Bytes(packed)) => {
                for delta in varints(packed) {
                    push(&mut self.deltas, zigzag(delta?), &mut self.is_too_long);
                }
            }
            (2, Field::Fixed64(bits)) => push(&mut self.counts, f64::from_bits(bits), &mut self.is_too_long),
            (2, Field::Bytes(packed)) => {
                let (counts, rest) = packed.as_chunks();
                if !rest.is_empty() {
                    return Err(Malformed);
                }
                for bytes in counts {
                    push(&mut self.counts, f64::from_le_bytes(*bytes), &mut self.is_too_long);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the spans have so many buckets, follow each other, and stay within 32 bits.
    fn spans(&self, buckets: usize) -> bool {
        let (mut index, mut length) = (0_i64, 0_u64);
        for (number, (offset, buckets)) in self.spans.iter().enumerate() {
            let (Ok(offset), Ok(buckets)) = (i32::try_from(*offset), u32::try_from(*buckets)) else {
                return false;
            };
            if (number > 0 && offset < 0) || offset == i32::MIN {
                return false;
            }
            index += i64::from(offset) + i64::from(buckets);
            length += u64::from(buckets);
            if index > i64::from(i32::MAX) {
                return false;
            }
        }
        length == buckets as u64 && !self.is_too_long
    }

    /// Observations; none where a count is below zero, or the spans do not fit.
    fn sum(&self) -> Option<u64> {
        let (mut count, mut sum) = (0_i64, 0_u64);
        for delta in &self.deltas {
            count = count.checked_add(*delta)?;
            sum = sum.checked_add(u64::try_from(count).ok()?)?;
        }
        (self.counts.is_empty() && self.spans(self.deltas.len())).then_some(sum)
    }

    /// Whether it is one of floats, whose spans fit. Receivers do not compare their sum, which depends on the order.
    fn has_counts(&self) -> bool {
        let are_counts = self.counts.iter().all(|count| (0.0..f64::INFINITY).contains(count));
        are_counts && self.deltas.is_empty() && self.spans(self.counts.len())
    }

    /// From this field on: spans, deltas, counts.
    fn encode(&self, first: u32, is_float: bool, out: &mut Vec<u8>) {
        for (offset, length) in &self.spans {
            let mut span = Vec::new();
            number(&mut span, 1, unzigzag(*offset));
            number(&mut span, 2, *length);
            length_delimited(out, first, span.len());
            out.append(&mut span);
        }
        let mut packed = Vec::new();
        if is_float {
            self.counts.iter().for_each(|count| packed.extend_from_slice(&count.to_le_bytes()));
        } else {
            self.deltas.iter().for_each(|delta| varint(&mut packed, unzigzag(*delta)));
        }
        if !packed.is_empty() {
            length_delimited(out, first + if is_float { 2 } else { 1 }, packed.len());
            out.append(&mut packed);
        }
    }
}

fn push<T>(numbers: &mut Vec<T>, number: T, is_too_long: &mut bool) {
    if numbers.len() < MAX_BUCKETS {
        numbers.push(number);
    } else {
        *is_too_long = true;
    }
}

/// `BucketSpan`
fn span(bytes: &[u8]) -> Result<(i64, u64), Malformed> {
    let (mut offset, mut length) = (0, 0);
    for field in fields(bytes) {
        match field? {
            (1, Field::Varint(number)) => offset = zigzag(number),
            (2, Field::Varint(number)) => length = number,
            _ => {}
        }
    }
    Ok((offset, length))
}

/// A signed number, as `sint32` and `sint64` are written.
fn zigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn unzigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}
