//! Histograms: classic buckets, the native ones, or both.

use super::write::{Exemplar, Page, bound_text, seconds};
use super::{Metric, doubles};
use crate::delivery::protobuf::{Field, Malformed, double, fields, length_delimited, number};

/// `Histogram`
#[derive(Default)]
pub(super) struct Histogram<'a> {
    count: f64,
    sum: f64,
    buckets: Vec<Bucket<'a>>,
    created: Option<f64>,
    /// Of its exemplars, that of no bucket.
    exemplar: Option<Exemplar<'a>>,
    is_native: bool,
    /// What it has in common with remote write's `Histogram`, with the numbers of that one.
    native: Vec<u8>,
    /// Whether counts are doubles there.
    is_float: bool,
    zero_count: Option<ZeroCount>,
}

enum ZeroCount {
    Whole(u64),
    Float(f64),
}

/// `Bucket`
#[derive(Default)]
struct Bucket<'a> {
    count: f64,
    upper_bound: f64,
    exemplar: Option<Exemplar<'a>>,
}

// === impl Histogram ===

impl<'a> Histogram<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Histogram::default();
        let mut whole = 0;
        for field in fields(bytes) {
            match field? {
                (1, Field::Varint(count)) => whole = count,
                (2, Field::Fixed64(bits)) => read.sum = f64::from_bits(bits),
                (3, Field::Bytes(bucket)) => read.buckets.push(Bucket::read(bucket)?),
                (4, Field::Fixed64(bits)) => {
                    read.count = f64::from_bits(bits);
                    read.is_float = read.count > 0.0;
                }
                (15, Field::Bytes(time)) => read.created = Some(seconds(time)?),
                (16, Field::Bytes(exemplar)) => read.exemplar = Some(Exemplar::read(exemplar)?),
                (field, value) => read.native(field, value),
            }
        }
        if !read.is_float {
            read.count = whole as f64;
        }
        read.finish(whole);
        Ok(read)
    }

    /// A field that only native histograms have; a span or a width of the zero bucket is what makes it one.
    fn native(&mut self, field: u32, value: Field<'_>) {
        let out = &mut self.native;
        match (field, value) {
            (5, Field::Varint(schema)) => number(out, 4, schema),
            (6, Field::Fixed64(bits)) => {
                self.is_native |= f64::from_bits(bits) > 0.0;
                double(out, 5, f64::from_bits(bits));
            }
            (7, Field::Varint(count)) => self.zero_count = Some(ZeroCount::Whole(count)),
            (8, Field::Fixed64(bits)) => self.zero_count = Some(ZeroCount::Float(f64::from_bits(bits))),
            // Spans: in both messages an offset and a length.
            (9 | 12, Field::Bytes(span)) => {
                self.is_native = true;
                bytes(out, if field == 9 { 8 } else { 11 }, span);
            }
            // Deltas, then counts as doubles: packed, or one by one.
            (10 | 13, Field::Bytes(packed)) => bytes(out, if field == 10 { 9 } else { 12 }, packed),
            (10 | 13, Field::Varint(delta)) => number(out, if field == 10 { 9 } else { 12 }, delta),
            (11 | 14, Field::Bytes(packed)) => bytes(out, if field == 11 { 10 } else { 13 }, packed),
            (11 | 14, Field::Fixed64(bits)) => {
                double(out, if field == 11 { 10 } else { 13 }, f64::from_bits(bits))
            }
            _ => {}
        }
    }

    /// What is known when all is read.
    fn finish(&mut self, whole: u64) {
        let out = &mut self.native;
        if self.is_float {
            double(out, 2, self.count)
        } else {
            number(out, 1, whole)
        }
        double(out, 3, self.sum);
        match self.zero_count {
            Some(ZeroCount::Float(count)) if self.is_float => double(out, 7, count),
            Some(ZeroCount::Whole(count)) if !self.is_float => number(out, 6, count),
            _ => {}
        }
    }

    /// Classic buckets are written as they are in text, and the native histogram under the name itself.
    pub(super) fn write(mut self, name: &str, metric: &Metric<'_>, out: &mut Page) {
        if self.is_native {
            out.histogram(std::mem::take(&mut self.native));
            out.sample(name, "", metric, &[], self.count, self.exemplar.as_ref());
        }
        if !self.is_native || !self.buckets.is_empty() {
            self.write_classic(name, metric, out);
        }
        if let Some(created) = self.created {
            out.sample(name, "_created", metric, &[], created, None);
        }
    }

    fn write_classic(&self, name: &str, metric: &Metric<'_>, out: &mut Page) {
        for bucket in &self.buckets {
            let bound = bound_text(bucket.upper_bound);
            out.sample(name, "_bucket", metric, &[("le", &bound)], bucket.count, bucket.exemplar.as_ref());
        }
        // The last bucket may be left out, since it has as many as there are.
        if self.buckets.last().is_none_or(|last| last.upper_bound != f64::INFINITY) {
            out.sample(name, "_bucket", metric, &[("le", "+Inf")], self.count, None);
        }
        out.sample(name, "_sum", metric, &[], self.sum, None);
        out.sample(name, "_count", metric, &[], self.count, None);
    }
}

fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    length_delimited(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

// === impl Bucket ===

impl<'a> Bucket<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut bucket = Bucket { upper_bound: doubles(bytes)?[1], ..Bucket::default() };
        for field in fields(bytes) {
            match field? {
                (1, Field::Varint(count)) => bucket.count = count as f64,
                (3, Field::Bytes(exemplar)) => bucket.exemplar = Some(Exemplar::read(exemplar)?),
                (4, Field::Fixed64(bits)) if f64::from_bits(bits) > 0.0 => {
                    bucket.count = f64::from_bits(bits)
                }
                _ => {}
            }
        }
        Ok(bucket)
    }
}
