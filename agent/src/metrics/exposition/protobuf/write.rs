//! The page that is written out.

use std::fmt::Write;

use super::{Metric, Written, label};
use crate::delivery::protobuf::{Field, Malformed, fields};
use crate::metrics::exposition::{Kind, MAX_LABELS};

/// What a histogram takes beside its message.
const HISTOGRAM: usize = 64;

/// What is written so far.
pub(super) struct Page {
    text: String,
    samples: usize,
    histograms: Vec<(usize, Box<[u8]>)>,
    /// What text and histograms may have together, and what histograms have.
    limit: usize,
    histogram_bytes: usize,
}

/// `Exemplar`
#[derive(Default)]
pub(super) struct Exemplar<'a> {
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
    /// Since the epoch.
    pub(super) seconds: Option<f64>,
}

// === impl Page ===

impl Page {
    /// For so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Page { text: String::new(), samples: 0, histograms: Vec::new(), limit, histogram_bytes: 0 }
    }

    /// Whether it has become too long: by one line at most, which is as long as what it is made of.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() + self.histogram_bytes > self.limit
    }

    pub(super) fn describe(&mut self, name: &str, kind: Kind, help: &str, unit: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
            Kind::Histogram => "histogram",
            Kind::GaugeHistogram => "gaugehistogram",
            _ => "unknown",
        };
        // The family of a counter is called without the suffix in OpenMetrics.
        let family = name.strip_suffix("_total").filter(|_| kind == "counter").unwrap_or(name);
        let family = if is_plain(family) { family.to_owned() } else { quotation(family) };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
        if !help.is_empty() {
            let _ = writeln!(self.text, "# HELP {family} {help}");
        }
        // It is a part of the name; whatever else it is would end the line.
        if is_plain(unit) {
            let _ = writeln!(self.text, "# UNIT {family} {unit}");
        }
    }

    pub(super) fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        metric: &Metric<'_>,
        further: &[(&str, &str)],
        value: f64,
        exemplar: Option<&Exemplar<'_>>,
    ) {
        if self.is_full() {
            return;
        }
        let mut labels = labels_text(metric.labels.iter().chain(further));
        let name = format!("{name}{suffix}");
        // A name with other characters stands in quotes, inside the braces.
        if is_plain(&name) {
            self.text.push_str(&name);
        } else {
            labels.insert(0, quotation(&name));
        }
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = write!(self.text, "{labels} {}", number_text(value));
        if let Some(time) = metric.timestamp {
            let _ = write!(self.text, " {}", time as f64 / 1000.0);
        }
        if let Some(Exemplar { labels, value, seconds }) = exemplar {
            let labels = labels_text(labels.iter()).join(",");
            let _ = write!(self.text, " # {{{labels}}} {}", number_text(*value));
            if let Some(seconds) = seconds {
                let _ = write!(self.text, " {seconds}");
            }
        }
        self.text.push('\n');
        self.samples += 1;
    }

    /// The next sample is of this histogram.
    pub(super) fn histogram(&mut self, message: Vec<u8>) {
        self.histogram_bytes += message.len() + HISTOGRAM;
        self.histograms.push((self.samples, message.into()));
    }

    pub(super) fn end(mut self) -> Written {
        self.text.push_str("# EOF\n");
        Written { text: self.text.into_bytes(), histograms: self.histograms }
    }
}

fn labels_text<'a>(labels: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Vec<String> {
    labels
        .map(|(name, value)| {
            let name =
                if is_plain(name) && !name.contains(':') { (*name).to_owned() } else { quotation(name) };
            format!("{name}={}", quotation(value))
        })
        .collect()
}

/// Whether a name needs no quotes.
fn is_plain(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':');
    name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

fn number_text(number: f64) -> String {
    match number {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => number.to_string(),
    }
}

/// A bound or a quantile as Prometheus has it from protobuf (`formatOpenMetricsFloat`): Go's shortest form, which has an
/// exponent below -4 and from 6 on, and `.0` behind a whole number.
pub(super) fn bound_text(bound: f64) -> String {
    let scientific = format!("{bound:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return number_text(bound) };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        return format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    if bound.fract() == 0.0 { format!("{bound:.1}") } else { number_text(bound) }
}

fn quotation(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"))
}

/// A `google.protobuf.Timestamp` in seconds.
pub(super) fn seconds(bytes: &[u8]) -> Result<f64, Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in fields(bytes) {
        match field? {
            (1, Field::Varint(number)) => seconds = number.cast_signed(),
            (2, Field::Varint(number)) => nanos = number.cast_signed(),
            _ => {}
        }
    }
    Ok(seconds as f64 + nanos as f64 / 1e9)
}

// === impl Exemplar ===

impl<'a> Exemplar<'a> {
    /// None where its labels are wrong: the sample is worth more than what it is an example for.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Option<Self>, Malformed> {
        let (mut exemplar, mut is_right) = (Exemplar::default(), true);
        for field in fields(bytes) {
            match field? {
                (1, Field::Bytes(pair)) if exemplar.labels.len() < MAX_LABELS => match label(pair) {
                    Ok(label) => exemplar.labels.push(label),
                    Err(Malformed) => is_right = false,
                },
                (1, _) => is_right = false,
                (2, Field::Fixed64(bits)) => exemplar.value = f64::from_bits(bits),
                (3, Field::Bytes(time)) => exemplar.seconds = Some(seconds(time)?),
                _ => {}
            }
        }
        Ok(is_right.then_some(exemplar))
    }
}
