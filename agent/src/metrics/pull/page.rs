//! A page with the series as the operator wants them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;

use crate::metrics::exposition::{Dialect, Kind, quote};
use crate::metrics::series::{Exemplar, Sample, SeriesLabels};
use crate::metrics::symbols::{Symbol, SymbolTable};

/// Writes samples in the order in which they came. Names may be others than on the page that they are from: what is said of
/// a family stands before its first sample.
pub(super) fn write<'a>(
    samples: impl Iterator<Item = Sample<'a>>,
    table: &SymbolTable,
    dialect: Dialect,
) -> String {
    let (mut page, mut described) = (String::new(), HashSet::new());
    for sample in samples {
        let name = sample.labels.name().map_or("", |name| table.text(name));
        let family = family_of(name, sample.labels.metadata.kind, dialect);
        if !described.contains(family) {
            described.insert(family.to_owned());
            describe(&mut page, family, sample.labels, table, dialect);
        }
        series(&mut page, name, sample.labels, table);
        let _ = write!(page, " {}", number(sample.value));
        if let Some(timestamp) = sample.timestamp {
            page.push(' ');
            time(&mut page, timestamp, dialect);
        }
        if let (Some(found), Dialect::OpenMetrics) = (sample.exemplar, dialect) {
            exemplar(&mut page, found);
        }
        page.push('\n');
    }
    if dialect == Dialect::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

/// The family of a series (OpenMetrics 1.0, "Suffixes"); in text a counter is its own.
fn family_of(name: &str, kind: Option<Kind>, dialect: Dialect) -> &str {
    let suffixes: &[&str] = match kind {
        Some(Kind::Histogram) => &["_bucket", "_count", "_sum", "_created"],
        Some(Kind::GaugeHistogram) => &["_bucket", "_gcount", "_gsum", "_count", "_sum", "_created"],
        Some(Kind::Summary) => &["_count", "_sum", "_created"],
        Some(Kind::Counter) if dialect == Dialect::OpenMetrics => &["_total", "_created"],
        Some(Kind::Info) if dialect == Dialect::OpenMetrics => &["_info"],
        _ => &[],
    };
    suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .filter(|family| !family.is_empty())
        .unwrap_or(name)
}

fn describe(page: &mut String, family: &str, labels: &SeriesLabels, table: &SymbolTable, dialect: Dialect) {
    let metadata = labels.metadata;
    let mut name = String::new();
    if is_metric_name(family) {
        name.push_str(family)
    } else {
        quote(&mut name, family)
    }
    let (help, unit) = (table.text(metadata.help), table.text(metadata.unit));
    if !help.is_empty() {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        let help = if dialect == Dialect::OpenMetrics { help.replace('"', "\\\"") } else { help };
        let _ = writeln!(page, "# HELP {name} {help}");
    }
    if let Some(kind) = metadata.kind {
        let _ = writeln!(page, "# TYPE {name} {}", kind_name(kind, dialect));
    }
    // A unit is the end of the name, or a page of OpenMetrics is wrong; a rule may have changed that.
    if dialect == Dialect::OpenMetrics && !unit.is_empty() && family.ends_with(&format!("_{unit}")) {
        let _ = writeln!(page, "# UNIT {name} {unit}");
    }
}

fn kind_name(kind: Kind, dialect: Dialect) -> &'static str {
    match (kind, dialect) {
        (Kind::Counter, _) => "counter",
        (Kind::Gauge, _) | (Kind::Info | Kind::StateSet, Dialect::Text) => "gauge",
        (Kind::Histogram, _) | (Kind::GaugeHistogram, Dialect::Text) => "histogram",
        (Kind::Summary, _) => "summary",
        (Kind::Unknown, Dialect::Text) => "untyped",
        (Kind::Unknown, Dialect::OpenMetrics) => "unknown",
        (Kind::Info, Dialect::OpenMetrics) => "info",
        (Kind::StateSet, Dialect::OpenMetrics) => "stateset",
        (Kind::GaugeHistogram, Dialect::OpenMetrics) => "gaugehistogram",
    }
}

/// Names of more than ASCII letters stand in quotes, that of the metric among the labels (Prometheus 3).
fn series(page: &mut String, name: &str, labels: &SeriesLabels, table: &SymbolTable) {
    let mut separator = '{';
    if is_metric_name(name) {
        page.push_str(name);
    } else {
        page.push('{');
        quote(page, name);
        separator = ',';
    }
    for pair in labels.plain.chunks_exact(2).filter(|pair| pair[0] != Symbol::NAME) {
        label(page, separator, table.text(pair[0]), table.text(pair[1]));
        separator = ',';
    }
    if separator == ',' {
        page.push('}');
    }
}

fn exemplar(page: &mut String, exemplar: &Exemplar) {
    page.push_str(" # ");
    let mut separator = '{';
    for (name, value) in &exemplar.labels {
        label(page, separator, name, value);
        separator = ',';
    }
    page.push_str(if separator == '{' { "{" } else { "" });
    let _ = write!(page, "}} {}", number(exemplar.value));
    if let Some(timestamp) = exemplar.timestamp {
        page.push(' ');
        time(page, timestamp, Dialect::OpenMetrics);
    }
}

fn label(page: &mut String, separator: char, name: &str, value: &str) {
    page.push(separator);
    if is_metric_name(name) && !name.contains(':') {
        page.push_str(name)
    } else {
        quote(page, name)
    }
    page.push('=');
    quote(page, value);
}

/// Whether a metric's name stands without quotes; a label's has no colon.
fn is_metric_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    name.bytes().all(is_part) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

fn number(value: f64) -> Cow<'static, str> {
    match value {
        f64::INFINITY => "+Inf".into(),
        f64::NEG_INFINITY => "-Inf".into(),
        _ if value.is_nan() => "NaN".into(),
        // What `{}` would write with hundreds of digits.
        _ if value != 0.0 && !(1e-6..1e21).contains(&value.abs()) => format!("{value:e}").into(),
        _ => value.to_string().into(),
    }
}

/// Text has milliseconds, OpenMetrics seconds.
fn time(page: &mut String, timestamp: i64, dialect: Dialect) {
    let _ = match dialect {
        Dialect::Text => write!(page, "{timestamp}"),
        Dialect::OpenMetrics => {
            let (sign, millis) = (if timestamp < 0 { "-" } else { "" }, timestamp.unsigned_abs());
            write!(page, "{sign}{}.{:03}", millis / 1000, millis % 1000)
        }
    };
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::metrics::series::{Limits, SeriesCache, TargetLabels};
    use crate::metrics::symbols::Symbols;

    /// A page of a pod `p`, whose metric `old` is called `new`.
    fn passed_on(page: &str, dialect: Dialect) -> String {
        let rule = "{ source_labels: [__name__], regex: 'old_(.*)', target_label: __name__, replacement: 'new_${1}' }";
        let text = format!(
            "node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ relabel: [ {rule} ] }}"
        );
        let config = Arc::new(Config::parse(&text.replace("${1}", "$1"), &|_| None).unwrap());
        let symbols = Symbols::default();
        let target = vec![("pod".to_owned(), "p".to_owned())];
        let labels =
            TargetLabels { labels: target, honor: false, pods: None, config, symbols: symbols.clone() };
        let mut series = SeriesCache::new(labels, "ns", Arc::new(Limits::new(100, 100, 100)));
        series.read(page.as_bytes(), Dialect::of_page(page.as_bytes())).unwrap();
        write(series.samples(), &symbols.lock(), dialect)
    }

    #[test]
    fn a_page_of_text_keeps_what_is_said_of_its_families() {
        let page = "# HELP old_h Some \"help\".\n# TYPE old_h histogram\nold_h_bucket{le=\"+Inf\"} 2\nold_h_sum 1.5\n\
                    # TYPE c_total counter\nc_total{a=\"x\\\"\\\\\\ny\",pod=\"q\"} 3 1700000000123\nplain NaN\n{\"wé.d\",\"l.é\"=\"1\"} -Inf\n";
        let expected = "# HELP new_h Some \"help\".\n# TYPE new_h histogram\nnew_h_bucket{le=\"+Inf\",pod=\"p\"} 2\nnew_h_sum{pod=\"p\"} 1.5\n\
                        # TYPE c_total counter\nc_total{a=\"x\\\"\\\\\\ny\",exported_pod=\"q\",pod=\"p\"} 3 1700000000123\n\
                        plain{pod=\"p\"} NaN\n{\"wé.d\",\"l.é\"=\"1\",pod=\"p\"} -Inf\n";
        assert_eq!(passed_on(page, Dialect::Text), expected);
    }

    #[test]
    fn a_page_of_open_metrics_keeps_units_times_and_exemplars() {
        let page = "# TYPE c_seconds counter\n# UNIT c_seconds seconds\n# HELP c_seconds \\\"Help\\\".\n\
                    c_seconds_total 3 1700000000.5 # {trace_id=\"t\",\"é\"=\"x\"} 0.5 1.25\n# TYPE old info\nold_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP c_seconds \\\"Help\\\".\n# TYPE c_seconds counter\n# UNIT c_seconds seconds\n\
                        c_seconds_total{pod=\"p\"} 3 1700000000.500 # {trace_id=\"t\",\"é\"=\"x\"} 0.5 1.250\n\
                        # TYPE new info\nnew_info{pod=\"p\",v=\"1\"} 1\n# EOF\n";
        assert_eq!(passed_on(page, Dialect::OpenMetrics), expected);
        let as_text = passed_on(page, Dialect::Text);
        assert!(
            as_text.contains("c_seconds_total{pod=\"p\"} 3 1700000000500\n# TYPE new_info gauge\n"),
            "{as_text}"
        );
    }

    #[test]
    fn numbers_are_read_back_as_they_were() {
        for value in [0.0, -0.0, 1.0, -2.5, 0.1, 1e-300, 5e-7, 1e20, 1e300, f64::MIN_POSITIVE, f64::INFINITY]
        {
            assert_eq!(number(value).parse::<f64>().unwrap().to_bits(), value.to_bits(), "{}", number(value));
        }
    }
}
