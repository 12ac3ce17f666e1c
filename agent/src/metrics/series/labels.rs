//! The labels of a series: its own and its target's, as a write request has them.

use crate::metrics::exposition::Series;
use crate::metrics::protobuf;

/// Names of metrics that a scrape makes itself, or a rule of Prometheus: a target cannot have them.
const RESERVED: [&str; 1] = ["up"];
const RESERVED_PREFIXES: [&str; 2] = ["scrape_", "ALERTS"];
const EXPORTED: &str = "exported_";

/// What a target adds to each of its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetLabels {
    /// Sorted by name; none is empty.
    pub labels: Vec<(String, String)>,
    /// Whether a series's own label wins; else it becomes `exported_NAME`.
    pub honor: bool,
}

/// Encodes the labels of a series as those of a `TimeSeries` of remote write 1.0: field 1, once for each, sorted by name.
/// An empty value is the same as none.
pub fn encode(series: &Series<'_>, target: &TargetLabels) -> Vec<u8> {
    let mut name = series.name.to_string();
    if RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        name.insert_str(0, EXPORTED);
    }
    merge(&name, series, target)
}

/// Encodes the labels of a series that the scrape itself makes, `up` for example.
pub fn encode_own(name: &str, target: &TargetLabels) -> Vec<u8> {
    merge(name, &Series::default(), target)
}

fn merge(name: &str, series: &Series<'_>, target: &TargetLabels) -> Vec<u8> {
    let own = || series.labels.iter().filter(|(name, value)| !value.is_empty() && name != "__name__");
    let mut labels: Vec<(String, &str)> = vec![("__name__".to_owned(), name)];
    for (name, value) in own() {
        let is_taken = |name: &str| target.labels.iter().any(|(other, _)| other == name);
        let mut name = name.to_string();
        if !target.honor && is_taken(&name) {
            name.insert_str(0, EXPORTED);
            while is_taken(&name) || own().any(|(other, _)| *other == name) {
                name.insert_str(0, EXPORTED);
            }
        }
        labels.push((name, value));
    }
    for (name, value) in &target.labels {
        if !labels.iter().any(|(other, _)| other == name) {
            labels.push((name.clone(), value));
        }
    }
    labels.sort_unstable();
    let mut bytes = Vec::new();
    for (name, value) in labels {
        protobuf::label(&mut bytes, &name, value);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::Dialect;

    /// The labels that come out, as `name=value`.
    fn encoded(series: &str, target: &[(&str, &str)], honor: bool) -> Vec<String> {
        let labels = target.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let series = Series::read(series.as_bytes(), Dialect::Text).unwrap();
        let bytes = encode(&series, &TargetLabels { labels, honor });
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while let [0x0a, length, tail @ ..] = rest {
            let (label, tail) = tail.split_at(usize::from(*length));
            let (name, value) = label[2..].split_at(usize::from(label[1]));
            found.push(format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(&value[2..])));
            rest = tail;
        }
        assert!(rest.is_empty());
        found
    }

    #[test]
    fn a_target_cannot_say_that_it_is_another() {
        let target = [("job", "a/b"), ("pod", "p")];
        let forged = r#"m{pod="other",z="1",e="",job="x",exported_job="y"}"#;
        assert_eq!(
            encoded(forged, &target, false),
            [
                "__name__=m",
                "exported_exported_job=x",
                "exported_job=y",
                "exported_pod=other",
                "job=a/b",
                "pod=p",
                "z=1"
            ]
        );
        assert_eq!(
            encoded(forged, &target, true),
            ["__name__=m", "exported_job=y", "job=x", "pod=other", "z=1"]
        );
        assert_eq!(encoded("up", &target[..1], false), ["__name__=exported_up", "job=a/b"]);
        assert_eq!(encoded("scrape_x", &[], true), ["__name__=exported_scrape_x"]);
    }
}
