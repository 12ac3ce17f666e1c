//! The labels of a series: its own and its target's.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::Store;
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
    /// Where a page has series of many pods, which the kubelet's have: the pods. Whose a series is, its own labels say, and it
    /// goes to the outputs that get the samples of that pod. Its samples have times of their own, and it is told all the same
    /// that it has ended: containers come and go.
    pub pods: Option<Store>,
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
    /// For the outputs with rules, and those that do not get it, by index: none where it is dropped. Mostly there are no
    /// such outputs.
    relabelled: Option<Box<Relabelled>>,
    /// What its page says of it.
    pub metadata: Metadata,
    symbols: Symbols,
}

// === impl SeriesLabels ===

impl SeriesLabels {
    /// What an output gets; none where it does not get the series.
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
    /// The labels of a series. None when nobody gets it: a rule of `metrics.relabel` drops it, or has left it without a name.
    pub(super) fn of(&self, series: &Series<'_>, family: &Family<'_>) -> Option<SeriesLabels> {
        let excluded = self.excluded(series)?;
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
        Some(self.finish(labels, &excluded, |table| family.metadata(&series.name, table)))
    }

    /// The labels of a series that the scrape itself makes, `up` for example. Only the rules of outputs apply to them.
    pub fn of_own(&self, name: &str) -> SeriesLabels {
        let series = Series::default();
        let excluded = self.excluded(&series).unwrap_or_default();
        self.finish(self.merge(name.to_owned(), &series), &excluded, |table| Metadata {
            kind: Some(Kind::Gauge),
            help: table.hold(""),
            unit: table.hold(""),
        })
    }

    /// Indices of the outputs that do not get a series of a page with many pods; none when its namespace is left out. What is
    /// of no pod goes where pods of any name go.
    fn excluded(&self, series: &Series<'_>) -> Option<Vec<usize>> {
        let Some(pods) = &self.pods else { return Some(Vec::new()) };
        let label =
            |name| series.labels.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value);
        let (namespace, pod) = (label("namespace"), label("pod"));
        let metrics = &self.config.metrics;
        if !namespace.is_empty() && !metrics.namespaces.matches(namespace) {
            return None;
        }
        let (found, unknown) = (pods.find(namespace, pod), BTreeMap::new());
        let labels = found.first().map_or(&unknown, |pod| &pod.labels);
        let outputs = metrics.outputs.iter().enumerate();
        let excluded = outputs.filter(|(_, output)| !output.matching.takes(namespace, labels));
        Some(excluded.map(|(index, _)| index).collect())
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
        excluded: &[usize],
        metadata: impl FnOnce(&mut SymbolTable) -> Metadata,
    ) -> SeriesLabels {
        for (name, value) in &self.config.metrics.external_labels {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let outputs = self.config.metrics.outputs.iter().map(|output| &output.remote_write.relabel);
        let apart =
            outputs.enumerate().filter(|(index, rules)| !rules.is_empty() || excluded.contains(index));
        let mut table = self.symbols.lock();
        let relabelled = apart.map(|(index, rules)| {
            let mut labels = labels.clone();
            let is_got = !excluded.contains(&index) && relabel(rules, &mut labels);
            (index, is_got.then(|| held(&labels, &mut table)))
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
    use crate::cluster::Pod;
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
        TargetLabels { labels, honor, pods: None, config, symbols: Symbols::default() }
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
    fn a_series_of_many_pods_page_goes_where_its_pods_samples_go() {
        let metrics = "namespaces: ['*', '!c'], outputs: [ { match: { namespaces: ['*', '!b'] }, remote_write: { url: 'http://a' } }, \
                       { name: b, match: { namespaces: [a], labels: app=x }, remote_write: { url: 'http://b' } } ]";
        let mut labels = labels_of(&[], false, metrics);
        let pods = Store::new();
        let pod = |namespace: &str, app: &str| Pod {
            uid: format!("{namespace}-{app}"),
            namespace: namespace.into(),
            name: app.into(),
            labels: [("app".into(), app.into())].into(),
            ..Pod::default()
        };
        pods.replace(vec![pod("a", "x"), pod("a", "y"), pod("b", "x")]);
        labels.pods = Some(pods);
        let outputs = |series: &str| {
            let labels = labels.of(&read(series), &Family::default())?;
            Some([0, 1].map(|output| labels.for_output(output).is_some()))
        };
        assert_eq!(outputs(r#"m{namespace="a",pod="x"}"#), Some([true, true]));
        assert_eq!(outputs(r#"m{namespace="a",pod="y"}"#), Some([true, false]));
        assert_eq!(outputs(r#"m{namespace="a",pod="unknown"}"#), Some([true, false]));
        assert_eq!(outputs(r#"m{namespace="b",pod="x"}"#), Some([false, false]));
        assert_eq!(outputs(r#"m{namespace="c",pod="x"}"#), None);
        assert_eq!(outputs("m"), Some([true, false]));
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
