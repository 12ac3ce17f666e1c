//! The labels of a series: its own and its target's.

use std::sync::Arc;

use crate::config::{Config, Normalize};
use crate::metrics::exposition::{Kind, Series};
use crate::metrics::normalize::normalize;
use crate::metrics::relabel::{Labels, relabel};
use crate::metrics::series::family::{Family, Metadata};
use crate::metrics::symbols::{Symbol, SymbolTable, Symbols};

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
    /// `metrics.normalize`, `relabel` and `external_labels`.
    pub config: Arc<Config>,
    /// Where texts are held.
    pub symbols: Symbols,
}

/// Names and values in turn, sorted by the text of the name.
pub type LabelSymbols = Box<[Symbol]>;

type Relabelled = Vec<(usize, Option<LabelSymbols>)>;

/// What is known of a series before its first sample: it holds its texts until it goes.
#[derive(Debug)]
pub struct SeriesLabels {
    /// What the series is, and what an output without rules gets.
    pub plain: LabelSymbols,
    /// For the outputs with rules, by index: none where they drop it. Mostly there are no such outputs.
    relabelled: Option<Box<Relabelled>>,
    /// What its page says of it.
    pub metadata: Metadata,
    symbols: Symbols,
}

// === impl SeriesLabels ===

impl SeriesLabels {
    /// What an output gets; none where its rules drop the series.
    pub fn for_output(&self, output: usize) -> Option<&[Symbol]> {
        match self.relabelled.iter().flat_map(|all| all.iter()).find(|(index, _)| *index == output) {
            Some((_, relabelled)) => relabelled.as_deref(),
            None => Some(&self.plain),
        }
    }

    /// The metric's name.
    pub fn name(&self) -> Option<Symbol> {
        self.plain.chunks_exact(2).find(|pair| pair[0] == Symbol::NAME).map(|pair| pair[1])
    }

    /// Whether another one is of the same metric: all labels are equal, but for what tells the parts of a histogram or of a
    /// summary from each other.
    pub fn is_of_metric(&self, other: &SeriesLabels) -> bool {
        let parts = [Symbol::NAME, Symbol::LE, Symbol::QUANTILE];
        let lasting = |labels: &SeriesLabels| {
            let pairs = labels.plain.chunks_exact(2).filter(|pair| !parts.contains(&pair[0]));
            pairs.map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()
        };
        lasting(self) == lasting(other)
    }
}

impl Drop for SeriesLabels {
    fn drop(&mut self) {
        let mut table = self.symbols.lock();
        let relabelled = self.relabelled.iter().flat_map(|all| all.iter());
        let relabelled = relabelled.filter_map(|(_, labels)| labels.as_deref());
        let all = relabelled.chain([&*self.plain]).flatten().copied();
        all.chain([self.metadata.help, self.metadata.unit]).for_each(|symbol| table.release(symbol));
    }
}

// === impl TargetLabels ===

impl TargetLabels {
    /// The labels of a series. None when a rule of `metrics.relabel` drops it, or has left it without a name.
    pub(super) fn of(&self, series: &Series<'_>, family: &Family<'_>) -> Option<SeriesLabels> {
        let mut labels = self.merge(unreserved(series.name.to_string()), series);
        if self.config.metrics.normalize == Normalize::Rust {
            normalize(&mut labels);
        }
        if !relabel(&self.config.metrics.relabel, &mut labels) {
            return None;
        }
        if let Some(name) = labels.get_mut("__name__") {
            *name = unreserved(std::mem::take(name));
        }
        Some(self.finish(labels, |table| family.metadata(&series.name, table)))
    }

    /// The labels of a series that the scrape itself makes, `up` for example. Only the rules of outputs apply to them.
    pub fn of_own(&self, name: &str) -> SeriesLabels {
        self.finish(self.merge(name.to_owned(), &Series::default()), |table| Metadata {
            kind: Some(Kind::Gauge),
            help: table.hold(""),
            unit: table.hold(""),
        })
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

    fn finish(
        &self,
        mut labels: Labels,
        metadata: impl FnOnce(&mut SymbolTable) -> Metadata,
    ) -> SeriesLabels {
        for (name, value) in &self.config.metrics.external_labels {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let outputs = self.config.metrics.outputs.iter().map(|output| &output.remote_write.relabel);
        let with_rules = outputs.enumerate().filter(|(_, rules)| !rules.is_empty());
        let mut table = self.symbols.lock();
        let relabelled = with_rules.map(|(index, rules)| {
            let mut labels = labels.clone();
            (index, relabel(rules, &mut labels).then(|| held(&labels, &mut table)))
        });
        let relabelled: Relabelled = relabelled.collect();
        SeriesLabels {
            relabelled: (!relabelled.is_empty()).then(|| Box::new(relabelled)),
            plain: held(&labels, &mut table),
            metadata: metadata(&mut table),
            symbols: self.symbols.clone(),
        }
    }
}

/// A name that no series of a scrape's own has.
fn unreserved(name: String) -> String {
    let is_reserved =
        RESERVED.contains(&&*name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if is_reserved { format!("{EXPORTED}{name}") } else { name }
}

fn held(labels: &Labels, table: &mut SymbolTable) -> LabelSymbols {
    labels.iter().flat_map(|(name, value)| [name, value]).map(|text| table.hold(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::{Dialect, Line};

    /// The labels that come out, as `name=value`.
    fn labelled(series: &str, target: &[(&str, &str)], honor: bool) -> Vec<String> {
        let labels = labels_of(target, honor, "");
        let series = labels.of(&read(series), &Family::default()).unwrap();
        texts(&labels, &series.plain)
    }

    fn read(series: &str) -> Series<'_> {
        Series::read(series.as_bytes(), Dialect::Text).unwrap()
    }

    fn labels_of(target: &[(&str, &str)], honor: bool, metrics: &str) -> TargetLabels {
        let labels = target.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = format!("node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ {metrics} }}");
        let config = Arc::new(Config::parse(&text, &|_| None).unwrap());
        TargetLabels { labels, honor, config, symbols: Symbols::default() }
    }

    fn texts(labels: &TargetLabels, symbols: &[Symbol]) -> Vec<String> {
        let table = labels.symbols.lock();
        let pairs = symbols.chunks_exact(2);
        pairs.map(|pair| format!("{}={}", table.text(pair[0]), table.text(pair[1]))).collect()
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
        let of = |labels: &TargetLabels, name| labels.of(&read(name), &Family::default());
        assert!(of(&labels, "x").is_none());
        let normalizing = format!("normalize: rust, {}", metrics.replace("up|x", "http_server_.*"));
        assert!(of(&labels_of(&[], false, &normalizing), "http_requests_total").is_none());
        let forged = "relabel: [ { source_labels: [__name__], regex: 'my_(.*)', target_label: __name__ } ]";
        let forging = labels_of(&[], false, forged);
        assert_eq!(texts(&forging, &of(&forging, "my_up").unwrap().plain), ["__name__=exported_up"]);
        let series = of(&labels, "y{cluster=\"own\"}").unwrap();
        assert_eq!(texts(&labels, &series.plain), ["__name__=y", "cluster=own", "job=other", "pod=p"]);
        let own = labels.of_own("up");
        assert_eq!(texts(&labels, &own.plain), ["__name__=up", "cluster=c", "job=j", "pod=p"]);
    }

    #[test]
    fn the_rules_of_an_output_apply_to_what_it_gets_and_to_nothing_else() {
        let metrics = "outputs: [ { remote_write: { url: 'http://a' } }, { name: b, remote_write: { url: 'http://b', \
                       relabel: [ { action: drop, source_labels: [__name__], regex: x }, { action: labeldrop, regex: pod } ] } } ]";
        let labels = labels_of(&[("pod", "p")], false, metrics);
        let [x, y] = ["x", "y"].map(|name| labels.of(&read(name), &Family::default()).unwrap());
        let decoded = |symbols| texts(&labels, symbols);
        assert!(x.for_output(0).is_some() && x.for_output(1).is_none());
        assert_eq!(decoded(y.for_output(0).unwrap()), ["__name__=y", "pod=p"]);
        assert_eq!(decoded(y.for_output(1).unwrap()), ["__name__=y"]);
        assert_eq!(decoded(labels.of_own("up").for_output(1).unwrap()), ["__name__=up"]);
    }
    #[test]
    fn a_series_that_goes_lets_go_of_its_texts() {
        let metrics = "outputs: [ { remote_write: { url: 'http://a', relabel: [ { action: labeldrop, regex: x } ] } } ]";
        let labels = labels_of(&[("pod", "p")], false, metrics);
        let before = labels.symbols.lock().len();
        let mut family = Family::default();
        family.heed(&Line::read(b"# HELP m some help", Dialect::Text).unwrap());
        let series = labels.of(&read("m{x=\"1\"}"), &family).unwrap();
        assert_eq!(labels.symbols.lock().len() - before, ["m", "x", "1", "pod", "p", "some help"].len());
        drop(series);
        assert_eq!(labels.symbols.lock().len(), before);
    }
}
