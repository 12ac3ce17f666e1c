//! Pages of metrics: any bytes, and series that the bytes make.

use std::collections::BTreeMap;
use std::io;

use prometheus_parse::{Scrape, Value};
use sidelight_agent::metrics::exposition::{Dialect, Line, Series, check};

const DIALECTS: [Dialect; 2] = [Dialect::Text, Dialect::OpenMetrics];
const NAMES: [&str; 6] = ["a", "http_requests_total", "a:b_c", "_", "le", "quantile"];
/// The other parser knows no escapes and takes labels apart at every comma: only plain values are for it.
const PLAIN: [&str; 6] = ["", "x", "200", "/orders/7", "two words", "\u{e9}\u{2028}"];
const OTHER: [&str; 6] = ["\\", "\"", "\n", "a=\"b\",c", "} # {", "\\n\t,"];

/// A sample that the bytes make.
struct Made {
    name: &'static str,
    labels: BTreeMap<&'static str, String>,
    value: f64,
    milliseconds: Option<i64>,
    is_plain: bool,
}

/// Bytes as choices.
struct Choices<'a>(&'a [u8]);

/// A page of any bytes ends in no panic, and a fault has its place on the page. What is read from a line is read again from
/// what it was printed as. Samples that are made and printed are read as they were made, by us and by another parser.
pub fn exposition(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    for dialect in DIALECTS {
        if let Err(fault) = check(data, dialect) {
            assert!((1..=lines).contains(&fault.line), "{fault}");
        }
        data.split(|byte| *byte == b'\n').for_each(|line| is_read_again(line, dialect));
    }
    let mut choices = Choices(data);
    let mut made = Vec::new();
    while !choices.0.is_empty() {
        made.push(choices.sample());
    }
    made.iter().for_each(Made::is_read_as_made);
    let plain: Vec<&Made> = made.iter().filter(|made| made.is_plain).collect();
    let page = plain.iter().map(|made| Ok(made.print(Dialect::Text)));
    let read = Scrape::parse(page.collect::<Vec<io::Result<String>>>().into_iter()).expect("lines in memory");
    assert_eq!(read.samples.len(), plain.len());
    for (other, made) in read.samples.iter().zip(plain) {
        assert_eq!(other.metric, made.name);
        let labels: BTreeMap<&str, String> =
            other.labels.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(labels, made.labels);
        assert!(matches!(other.value, Value::Untyped(value) if same(value, made.value)));
    }
}

fn is_read_again(line: &[u8], dialect: Dialect) {
    let Ok(Line::Sample(sample)) = Line::read(line, dialect) else { return };
    let Ok(series) = Series::read(sample.series, dialect) else { return };
    let labels: Vec<String> =
        series.labels.iter().map(|(name, value)| format!("{}={}", quoted(name), quoted(value))).collect();
    let mut parts = vec![quoted(&series.name)];
    parts.extend(labels);
    let printed = format!("{{{}}}", parts.join(","));
    assert_eq!(Series::read(printed.as_bytes(), dialect).as_ref(), Ok(&series), "{printed}");
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn same(one: f64, other: f64) -> bool {
    one == other || (one.is_nan() && other.is_nan())
}

// === impl Made ===

impl Made {
    fn print(&self, dialect: Dialect) -> String {
        let labels: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let time = match (self.milliseconds, dialect) {
            (Some(time), Dialect::Text) => format!(" {time}"),
            (Some(time), Dialect::OpenMetrics) => format!(" {}", time as f64 / 1_000.0),
            (None, _) => String::new(),
        };
        format!("{}{labels} {:?}{time}", self.name, self.value)
    }

    fn is_read_as_made(&self) {
        for dialect in DIALECTS {
            let printed = self.print(dialect);
            let line = Line::read(printed.as_bytes(), dialect);
            let Ok(Line::Sample(sample)) = line else { panic!("{printed}: {line:?}") };
            let series = Series::read(sample.series, dialect).expect("a series");
            let labels = series.labels.iter().map(|(name, value)| (name.as_ref(), value.to_string()));
            assert_eq!((series.name.as_ref(), labels.collect()), (self.name, self.labels.clone()));
            assert!(sample.value().is_some_and(|value| same(value, self.value)), "{printed}");
            assert_eq!(sample.timestamp, self.milliseconds, "{printed}");
        }
    }
}

// === impl Choices ===

impl Choices<'_> {
    /// 0 when there is nothing left.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    fn sample(&mut self) -> Made {
        let is_plain = self.byte() & 1 == 0;
        let values = if is_plain { &PLAIN } else { &OTHER };
        // The other parser takes a name for word characters alone.
        let name = self.of(if is_plain { &NAMES[..2] } else { &NAMES });
        let labels =
            (0..self.byte() % 4).map(|_| (self.of(&NAMES[3..]), self.of(values).to_owned())).collect();
        let value = f64::from_bits(u64::from_le_bytes([(); 8].map(|()| self.byte())));
        let milliseconds =
            (self.byte() & 1 == 1).then(|| i64::from(self.byte()) * 1_000 + i64::from(self.byte()));
        Made { name, labels, value, milliseconds, is_plain }
    }
}
