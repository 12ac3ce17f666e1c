//! Pages in Prometheus's protobuf format: `io.prometheus.client.MetricFamily`, each behind its length.
//!
//! Such a page is written out as one of OpenMetrics, which the reader of lines takes from there: few exporters have it, and
//! then for what text has no words for, native histograms. Those stand beside the page, each with the sample that it is of.
//!
//! Source: `io/prometheus/client/metrics.proto` of `prometheus/client_model`.

mod histogram;
mod write;

use super::{Kind, MAX_LABELS};
use crate::delivery::protobuf::{Field, Malformed, fields, length_prefixed};
use histogram::Histogram;
use write::{Exemplar, Page, bound_text, seconds};

/// The content type of such a page; others with the same first part are in another encoding.
pub const CONTENT_TYPE: &str = "application/vnd.google.protobuf";

/// A page written out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// OpenMetrics, though a counter need not end in `_total`.
    pub text: Vec<u8>,
    /// Native histograms: the sample of the page that each is of, counted from 0, and its message as remote write 2.0 has it,
    /// without times. The value of the sample is that of `count`.
    pub histograms: Vec<(usize, Box<[u8]>)>,
}

/// `Metric`, as far as it is common to all kinds.
#[derive(Default)]
struct Metric<'a> {
    labels: Vec<(&'a str, &'a str)>,
    /// The message of its kind.
    value: &'a [u8],
    /// Milliseconds since the epoch.
    timestamp: Option<i64>,
}

/// Why a page cannot be written out. The text is for the pod's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritten {
    /// It is no such page.
    #[error("the page is no list of metric families in protobuf, as its content type says")]
    Malformed,
    /// As text it is longer than a page may be.
    #[error("the page is longer than metrics.body_limit ({0} bytes) as text")]
    TooLong(usize),
}

/// Writes a page out; as text it may have so many bytes.
///
/// # Errors
/// It is none, or too long.
pub fn written(page: &[u8], limit: usize) -> Result<Written, Unwritten> {
    let mut out = Page::new(limit);
    for family in length_prefixed(page) {
        let family = family.and_then(|family| self::family(family, &mut out));
        family.map_err(|Malformed| Unwritten::Malformed)?;
        if out.is_full() {
            return Err(Unwritten::TooLong(limit));
        }
    }
    Ok(out.end())
}

fn family(bytes: &[u8], out: &mut Page) -> Result<(), Malformed> {
    let (mut name, mut help, mut unit, mut kind) = ("", "", "", 0);
    for field in fields(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => name = text(bytes)?,
            (2, Field::Bytes(bytes)) => help = text(bytes)?,
            (3, Field::Varint(number)) => kind = number,
            (5, Field::Bytes(bytes)) => unit = text(bytes)?,
            _ => {}
        }
    }
    if name.is_empty() {
        return Err(Malformed);
    }
    let kind = match kind {
        0 => Kind::Counter,
        1 => Kind::Gauge,
        2 => Kind::Summary,
        4 => Kind::Histogram,
        5 => Kind::GaugeHistogram,
        _ => Kind::Unknown,
    };
    out.describe(name, kind, help, unit);
    for field in fields(bytes) {
        if let (4, Field::Bytes(metric)) = field?
            && !out.is_full()
        {
            let metric = Metric::read(metric)?;
            match kind {
                Kind::Histogram | Kind::GaugeHistogram => {
                    let is_gauge = kind == Kind::GaugeHistogram;
                    Histogram::read(metric.value)?.write(name, is_gauge, &metric, out);
                }
                Kind::Summary => summary(name, &metric, out)?,
                _ => simple(name, &metric, out)?,
            }
        }
    }
    Ok(())
}

/// `Counter`, `Gauge` and `Untyped`.
fn simple(name: &str, metric: &Metric<'_>, out: &mut Page) -> Result<(), Malformed> {
    let (mut value, mut exemplar, mut created) = (0.0, None, None);
    for field in fields(metric.value) {
        match field? {
            (1, Field::Fixed64(bits)) => value = f64::from_bits(bits),
            (2, Field::Bytes(bytes)) => exemplar = Exemplar::read(bytes)?,
            (3, Field::Bytes(bytes)) => created = Some(seconds(bytes)?),
            _ => {}
        }
    }
    out.sample(name, "", metric, &[], value, exemplar.as_ref());
    if let Some(created) = created {
        let stem = name.strip_suffix("_total").unwrap_or(name);
        out.sample(stem, "_created", metric, &[], created, None);
    }
    Ok(())
}

/// `Summary`.
fn summary(name: &str, metric: &Metric<'_>, out: &mut Page) -> Result<(), Malformed> {
    let (mut count, mut sum, mut created) = (0, 0.0, None);
    for field in fields(metric.value) {
        match field? {
            (1, Field::Varint(number)) => count = number,
            (2, Field::Fixed64(bits)) => sum = f64::from_bits(bits),
            (3, Field::Bytes(quantile)) => {
                let [of, value] = doubles(quantile)?;
                out.sample(name, "", metric, &[("quantile", &bound_text(of))], value, None);
            }
            (4, Field::Bytes(bytes)) => created = Some(seconds(bytes)?),
            _ => {}
        }
    }
    out.sample(name, "_sum", metric, &[], sum, None);
    out.sample(name, "_count", metric, &[], count as f64, None);
    if let Some(created) = created {
        out.sample(name, "_created", metric, &[], created, None);
    }
    Ok(())
}

/// Fields 1 and 2, both doubles.
fn doubles(bytes: &[u8]) -> Result<[f64; 2], Malformed> {
    let mut read = [0.0; 2];
    for field in fields(bytes) {
        if let (number @ 1..=2, Field::Fixed64(bits)) = field? {
            read[number as usize - 1] = f64::from_bits(bits);
        }
    }
    Ok(read)
}

/// `LabelPair`
fn label(bytes: &[u8]) -> Result<(&str, &str), Malformed> {
    let (mut name, mut value) = ("", "");
    for field in fields(bytes) {
        match field? {
            (1, Field::Bytes(bytes)) => name = text(bytes)?,
            (2, Field::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    if name.is_empty() { Err(Malformed) } else { Ok((name, value)) }
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

// === impl Metric ===

impl<'a> Metric<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut metric = Metric::default();
        for field in fields(bytes) {
            match field? {
                (1, Field::Bytes(_)) if metric.labels.len() == MAX_LABELS => return Err(Malformed),
                (1, Field::Bytes(pair)) => metric.labels.push(label(pair)?),
                (2..=5 | 7, Field::Bytes(value)) => metric.value = value,
                // 0 is the same as none there.
                (6, Field::Varint(time)) if time > 0 => metric.timestamp = Some(time.cast_signed()),
                _ => {}
            }
        }
        Ok(metric)
    }
}

#[cfg(test)]
mod tests;
