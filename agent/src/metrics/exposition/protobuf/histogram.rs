//! Histograms: classic buckets, a native one, or both.

mod native;

use super::write::{Exemplar, Page, bound_text, seconds};
use super::{Metric, doubles};
use crate::delivery::protobuf::{Field, Malformed, fields};
use native::Native;

/// More buckets than any histogram has: a page is a tenant's.
const MAX_BUCKETS: usize = 10_000;

/// `Histogram`
#[derive(Default)]
pub(super) struct Histogram<'a> {
    count: u64,
    count_float: f64,
    sum: f64,
    buckets: Vec<Bucket<'a>>,
    created: Option<f64>,
    /// The newest of its exemplars that belong to no bucket.
    exemplar: Option<Exemplar<'a>>,
    native: Native,
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
        for field in fields(bytes) {
            match field? {
                (1, Field::Varint(count)) => read.count = count,
                (2, Field::Fixed64(bits)) => read.sum = f64::from_bits(bits),
                (3, Field::Bytes(_)) if read.buckets.len() == MAX_BUCKETS => return Err(Malformed),
                (3, Field::Bytes(bucket)) => read.buckets.push(Bucket::read(bucket)?),
                (4, Field::Fixed64(bits)) => read.count_float = f64::from_bits(bits),
                (15, Field::Bytes(time)) => read.created = Some(seconds(time)?),
                (16, Field::Bytes(exemplar)) => {
                    let Some(exemplar) = Exemplar::read(exemplar)? else { continue };
                    let known = read.exemplar.as_ref().and_then(|exemplar| exemplar.seconds);
                    // Those without a time would be new with each scrape.
                    if exemplar.seconds.is_some() && known <= exemplar.seconds {
                        read.exemplar = Some(exemplar);
                    }
                }
                (field, value) => read.native.add(field, value)?,
            }
        }
        Ok(read)
    }

    /// Classic buckets are written as they are in text, and the native histogram under the name itself. One whose parts do not
    /// fit together is left out: receivers reject all that comes with it.
    pub(super) fn write(&self, name: &str, is_gauge: bool, metric: &Metric<'_>, out: &mut Page) {
        let is_native = self.native.is_native();
        let encoded = self.native.encoded(self.count, self.count_float, self.sum, is_gauge);
        if let Some(native) = encoded.filter(|_| is_native) {
            out.histogram(native);
            out.sample(name, "", metric, &[], self.observations(), self.exemplar.as_ref());
        }
        if !is_native || !self.buckets.is_empty() {
            self.write_classic(name, metric, out);
        }
        if let Some(created) = self.created {
            out.sample(name, "_created", metric, &[], created, None);
        }
    }

    fn observations(&self) -> f64 {
        if self.count_float > 0.0 { self.count_float } else { self.count as f64 }
    }

    fn write_classic(&self, name: &str, metric: &Metric<'_>, out: &mut Page) {
        for bucket in &self.buckets {
            let bound = bound_text(bucket.upper_bound);
            out.sample(name, "_bucket", metric, &[("le", &bound)], bucket.count, bucket.exemplar.as_ref());
        }
        // The last bucket may be left out, since it has as many as there are.
        if self.buckets.last().is_none_or(|last| last.upper_bound != f64::INFINITY) {
            out.sample(name, "_bucket", metric, &[("le", "+Inf")], self.observations(), None);
        }
        out.sample(name, "_sum", metric, &[], self.sum, None);
        out.sample(name, "_count", metric, &[], self.observations(), None);
    }
}

// === impl Bucket ===

impl<'a> Bucket<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut bucket = Bucket { upper_bound: doubles(bytes)?[1], ..Bucket::default() };
        for field in fields(bytes) {
            match field? {
                (1, Field::Varint(count)) => bucket.count = count as f64,
                (3, Field::Bytes(exemplar)) => bucket.exemplar = Exemplar::read(exemplar)?,
                (4, Field::Fixed64(bits)) if f64::from_bits(bits) > 0.0 => {
                    bucket.count = f64::from_bits(bits)
                }
                _ => {}
            }
        }
        Ok(bucket)
    }
}
