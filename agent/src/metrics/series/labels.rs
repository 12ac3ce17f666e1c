//! The labels of a series: its own and its target's, as a write request has them.

use std::sync::Arc;

use crate::config::Config;
use crate::metrics::exposition::Series;
use crate::metrics::protobuf;
use crate::metrics::relabel::{Labels, relabel};

/// Names of metrics that a scrape makes itself, or a rule of Prometheus: a target cannot have them.
const RESERVED: [&str; 1] = ["up"];
const RESERVED_PREFIXES: [&str; 2] = ["scrape_", "ALERTS"];
const EXPORTED: &str = "exported_";

/// What becomes of the labels of a target's series.
#[derive(Clone, Debug)]
pub struct TargetLabels {
    /// The target's own, which each series gets; none is empty.
    pub labels: Vec<(String, String)>,
    /// Whether a series's own label wins; else it becomes `exported_NAME`.
    pub honor: bool,
    /// `metrics.relabel` and `metrics.external_labels`.
    pub config: Arc<Config>,
}

/// The labels of a series, encoded as those of a `TimeSeries` of remote write 1.0: field 1, once for each, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// What the series is, and what an output without rules gets.
    pub plain: Arc<[u8]>,
    /// For the outputs with rules, by index: none where they drop it.
    relabelled: Vec<(usize, Option<Arc<[u8]>>)>,
}

// === impl Encoded ===

impl Encoded {
    /// What an output gets; none where its rules drop the series.
    pub fn for_output(&self, output: usize) -> Option<&[u8]> {
        match self.relabelled.iter().find(|(index, _)| *index == output) {
            Some((_, relabelled)) => relabelled.as_deref(),
            None => Some(&self.plain),
        }
    }
}

// === impl TargetLabels ===

impl TargetLabels {
    /// The labels of a series. None when a rule of `metrics.relabel` drops it, or has left it without a name.
    pub fn encode(&self, series: &Series<'_>) -> Option<Encoded> {
        let mut labels = self.merge(unreserved(series.name.to_string()), series);
        if !relabel(&self.config.metrics.relabel, &mut labels) {
            return None;
        }
        if let Some(name) = labels.get_mut("__name__") {
            *name = unreserved(std::mem::take(name));
        }
        Some(self.finish(labels))
    }

    /// The labels of a series that the scrape itself makes, `up` for example. Only the rules of outputs apply to them.
    pub fn encode_own(&self, name: &str) -> Encoded {
        self.finish(self.merge(name.to_owned(), &Series::default()))
    }

    fn merge(&self, name: String, series: &Series<'_>) -> Labels {
        // An empty value is the same as none.
        let own = || series.labels.iter().filter(|(name, value)| !value.is_empty() && name != "__name__");
        let mut labels = Labels::from([("__name__".to_owned(), name)]);
        for (name, value) in own() {
            let is_taken = |name: &str| self.labels.iter().any(|(other, _)| other == name);
            let mut name = name.to_string();
            if !self.honor && is_taken(&name) {
                name.insert_str(0, EXPORTED);
                while is_taken(&name) || own().any(|(other, _)| *other == name) {
                    name.insert_str(0, EXPORTED);
                }
            }
            labels.insert(name, value.to_string());
        }
        for (name, value) in &self.labels {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        labels
    }

    fn finish(&self, mut labels: Labels) -> Encoded {
        for (name, value) in &self.config.metrics.external_labels {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let outputs = self.config.metrics.outputs.iter().map(|output| &output.remote_write.relabel);
        let with_rules = outputs.enumerate().filter(|(_, rules)| !rules.is_empty());
        let relabelled = with_rules.map(|(index, rules)| {
            let mut labels = labels.clone();
            (index, relabel(rules, &mut labels).then(|| encoded(&labels).into()))
        });
        Encoded { relabelled: relabelled.collect(), plain: encoded(&labels).into() }
    }
}

/// A name that no series of a scrape's own has.
fn unreserved(name: String) -> String {
    let is_reserved =
        RESERVED.contains(&&*name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_reserved { format!("{EXPORTED}{name}") } else { name }
}

fn encoded(labels: &Labels) -> Vec<u8> {
    let mut bytes = Vec::new();
    labels.iter().for_each(|(name, value)| protobuf::label(&mut bytes, name, value));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::Dialect;

    /// The labels that come out, as `name=value`.
    fn labelled(series: &str, target: &[(&str, &str)], honor: bool) -> Vec<String> {
        decoded(&labels_of(target, honor, "").encode(&read(series)).unwrap().plain)
    }

    fn read(series: &str) -> Series<'_> {
        Series::read(series.as_bytes(), Dialect::Text).unwrap()
    }

    fn labels_of(target: &[(&str, &str)], honor: bool, metrics: &str) -> TargetLabels {
        let labels = target.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = format!("node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ {metrics} }}");
        TargetLabels { labels, honor, config: Arc::new(Config::parse(&text, &|_| None).unwrap()) }
    }

    fn decoded(mut rest: &[u8]) -> Vec<String> {
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
            labelled(forged, &target, false),
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
            labelled(forged, &target, true),
            ["__name__=m", "exported_job=y", "job=x", "pod=other", "z=1"]
        );
        assert_eq!(labelled("up", &target[..1], false), ["__name__=exported_up", "job=a/b"]);
        assert_eq!(labelled("scrape_x", &[], true), ["__name__=exported_scrape_x"]);
    }

    #[test]
    fn rules_see_the_targets_labels_and_not_what_the_scrape_makes_and_external_labels_come_last() {
        let metrics = "external_labels: { cluster: c, job: other }, \
                       relabel: [ { action: drop, source_labels: [__name__], regex: 'up|x' }, { action: labeldrop, regex: job } ]";
        let labels = labels_of(&[("job", "j"), ("pod", "p")], false, metrics);
        assert!(labels.encode(&read("x")).is_none());
        let forged = "relabel: [ { source_labels: [__name__], regex: 'my_(.*)', target_label: __name__ } ]";
        let forged = labels_of(&[], false, forged).encode(&read("my_up")).unwrap();
        assert_eq!(decoded(&forged.plain), ["__name__=exported_up"]);
        let series = labels.encode(&read("y{cluster=\"own\"}")).unwrap();
        assert_eq!(decoded(&series.plain), ["__name__=y", "cluster=own", "job=other", "pod=p"]);
        assert_eq!(decoded(&labels.encode_own("up").plain), ["__name__=up", "cluster=c", "job=j", "pod=p"]);
    }

    #[test]
    fn the_rules_of_an_output_apply_to_what_it_gets_and_to_nothing_else() {
        let metrics = "outputs: [ { remote_write: { url: 'http://a' } }, { name: b, remote_write: { url: 'http://b', \
                       relabel: [ { action: drop, source_labels: [__name__], regex: x }, { action: labeldrop, regex: pod } ] } } ]";
        let labels = labels_of(&[("pod", "p")], false, metrics);
        let [x, y] = ["x", "y"].map(|name| labels.encode(&read(name)).unwrap());
        assert!(x.for_output(0).is_some() && x.for_output(1).is_none());
        assert_eq!(decoded(y.for_output(0).unwrap()), ["__name__=y", "pod=p"]);
        assert_eq!(decoded(y.for_output(1).unwrap()), ["__name__=y"]);
        assert_eq!(decoded(labels.encode_own("up").for_output(1).unwrap()), ["__name__=up"]);
    }
}
