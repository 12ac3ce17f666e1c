//! `metrics`: what is scraped, and how.

use std::path::PathBuf;
use std::time::Duration;

use super::outputs::{matching, unique_names};
use super::pull::pull;
use super::relabel::{external_labels, relabel};
use super::remote_write::remote_write;
use super::{MINUTES, globs};
use crate::config::mistakes::Mistakes;
use crate::config::section::{Section, format_duration};
use crate::config::{Kubelet, MetricOutput, MetricSelect, Metrics, Normalize};
use crate::metrics::discover::label_name;

/// Defaults that depend on how many pods there are to scrape.
struct Default {
    series_limit: u64,
    namespace_percent: u64,
    series_limit_total: u64,
    body_limit: u64,
    containers: bool,
}

const OF_A_NODE: Default = Default {
    series_limit: 50_000,
    namespace_percent: 20,
    series_limit_total: 200_000,
    body_limit: 64 << 20,
    containers: true,
};

/// A sidecar has little memory, and sees no state of containers.
const OF_ONE_POD: Default = Default {
    series_limit: 10_000,
    namespace_percent: 100,
    series_limit_total: 10_000,
    body_limit: 16 << 20,
    containers: false,
};

/// What may stand in braces in `job`.
const PLACEHOLDERS: [&str; 2] = ["namespace", "owner"];

pub(super) fn metrics(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Metrics {
    let default = if mistakes.in_sidecar() { &OF_ONE_POD } else { &OF_A_NODE };
    let metrics = Metrics {
        select: section.read("select", MetricSelect::Annotated, mistakes, |text| match text {
            "annotated" => Ok(MetricSelect::Annotated),
            "none" => Ok(MetricSelect::None),
            other => Err(format!("{other:?} is not allowed: annotated or none")),
        }),
        prometheus_io: section.flag("prometheus_io", true, mistakes),
        namespaces: globs(&mut section, "namespaces", &["*"], mistakes),
        interval: section.duration("interval", Duration::from_secs(15), 1_000..=60 * MINUTES, mistakes),
        timeout: section.duration("timeout", Duration::from_secs(10), 100..=60 * MINUTES, mistakes),
        job: section.read("job", "{namespace}/{owner}".to_owned(), mistakes, job),
        labels: labels(&mut section, mistakes),
        series_limit: section.number("series_limit", default.series_limit, 1..=10_000_000, mistakes),
        series_limit_namespace: section.read(
            "series_limit_namespace",
            default.namespace_percent,
            mistakes,
            percent,
        ),
        series_limit_total: section.number(
            "series_limit_total",
            default.series_limit_total,
            1..=100_000_000,
            mistakes,
        ),
        body_limit: section.size("body_limit", default.body_limit, 1 << 10..=4 << 30, mistakes),
        honor_labels_namespaces: globs(&mut section, "honor_labels_namespaces", &[], mistakes),
        relabel: relabel(&mut section, mistakes),
        normalize: section.read("normalize", Normalize::None, mistakes, |text| match text {
            "none" => Ok(Normalize::None),
            "rust" => Ok(Normalize::Rust),
            other => Err(format!("{other:?} is not allowed: none or rust")),
        }),
        native_histograms: section.flag("native_histograms", false, mistakes),
        containers: section.flag("containers", default.containers, mistakes),
        kubelet: section.read("kubelet", Kubelet::None, mistakes, |text| match text {
            "none" => Ok(Kubelet::None),
            "resource" => Ok(Kubelet::Resource),
            "cadvisor" => Ok(Kubelet::Cadvisor),
            "all" => Ok(Kubelet::All),
            other => Err(format!("{other:?} is not allowed: none, resource, cadvisor or all")),
        }),
        external_labels: external_labels(&mut section, mistakes),
        pull: pull(section.section("pull", mistakes), files, mistakes),
        outputs: outputs(&mut section, files, mistakes),
    };
    if metrics.kubelet != Kubelet::None && metrics.outputs.is_empty() {
        mistakes.add(&section.path("kubelet"), "needs an output in metrics.outputs");
    }
    if metrics.timeout > metrics.interval {
        let (timeout, interval) = (format_duration(metrics.timeout), format_duration(metrics.interval));
        mistakes.add(
            &section.path("timeout"),
            format!("{timeout} is longer than the interval of {interval}; a scrape must end before the next begins"),
        );
    }
    section.finish(mistakes);
    metrics
}

/// Labels that targets, containers and parts of a histogram have.
const TAKEN_LABELS: [&str; 12] = [
    "cluster",
    "container",
    "exit_code",
    "instance",
    "job",
    "le",
    "namespace",
    "node",
    "pod",
    "quantile",
    "reason",
    "resource",
];

/// Labels of pods that series get.
fn labels(section: &mut Section, mistakes: &mut Mistakes) -> Vec<String> {
    let labels = section.texts("labels", &[], mistakes);
    let mut taken = TAKEN_LABELS.map(str::to_owned).to_vec();
    for label in &labels {
        let name = label_name(label);
        let is_name = name.starts_with(|first: char| !first.is_ascii_digit()) && !name.starts_with("__");
        if !is_name || taken.contains(&name) {
            let path = section.path("labels");
            mistakes.add(&path, format!("{label:?} would be the label {name:?}, which is taken or no name"));
        }
        taken.push(name);
    }
    labels
}

/// A share in whole percents.
fn percent(text: &str) -> Result<u64, String> {
    let share = text.strip_suffix('%').and_then(|share| share.parse().ok());
    let allowed = share.filter(|share| (1..=100).contains(share));
    allowed.ok_or_else(|| format!("{text:?} is not allowed: 1% to 100%"))
}

/// A template whose braces hold what there is to put in.
fn job(text: &str) -> Result<String, String> {
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('{') {
        let name = behind.split_once('}').filter(|(name, _)| PLACEHOLDERS.contains(name));
        let Some((_, after)) = name else {
            return Err(format!(
                "{text:?} is not allowed: in braces may stand {}",
                PLACEHOLDERS.join(" or ")
            ));
        };
        rest = after;
    }
    Ok(text.to_owned())
}

fn outputs(section: &mut Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Vec<MetricOutput> {
    let path = section.path("outputs");
    let items = section.items("outputs", mistakes).unwrap_or_default();
    let output =
        |(path, item): (String, yaml_serde::Value), mistakes: &mut Mistakes, files: &mut Vec<PathBuf>| {
            let mut section = Section::new(&path, item, mistakes);
            let inner = section.section("remote_write", mistakes);
            let output = MetricOutput {
                name: section.text("name", "remote_write", mistakes),
                matching: matching(&mut section, mistakes),
                remote_write: remote_write(inner, files, mistakes),
            };
            section.finish(mistakes);
            output
        };
    let outputs: Vec<_> = items.into_iter().map(|item| output(item, mistakes, files)).collect();
    unique_names(&path, outputs.iter().map(|output| output.name.as_str()), mistakes);
    outputs
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn mistakes(metrics: &str) -> Vec<String> {
        let text = format!(
            "node: n\nkubernetes: {{ source: none }}\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ {metrics} }}"
        );
        Config::parse(&text, &|_| None).err().unwrap_or_default()
    }

    #[test]
    fn every_mistake_is_told_with_its_path() {
        for (metrics, mistake) in [
            ("interval: 5s", "metrics.timeout: 10s is longer than the interval of 5s"),
            ("job: '{pod}'", "metrics.job: \"{pod}\" is not allowed: in braces may stand namespace or owner"),
            ("select: all", "metrics.select: \"all\" is not allowed"),
            (
                "outputs: [ { remote_write: { url: 'http://a' } }, { remote_write: { url: 'http://b' } } ]",
                "metrics.outputs[1].name:",
            ),
            (
                "outputs: [ { name: stdout, remote_write: { url: 'http://a' } } ]",
                "metrics.outputs[0].name: \"stdout\" is taken by an output of logs",
            ),
            ("kubelet: all", "metrics.kubelet: needs an output"),
            ("labels: [app, job]", "metrics.labels: \"job\" would be the label \"job\", which is taken"),
            ("labels: [a.b, a/b]", "metrics.labels: \"a/b\" would be the label \"a_b\", which is taken"),
            ("relabels: []", "metrics.relabels: unknown key; did you mean `relabel`"),
            (
                "series_limit_namespace: 0%",
                "metrics.series_limit_namespace: \"0%\" is not allowed: 1% to 100%",
            ),
        ] {
            let found = mistakes(metrics);
            assert!(found.iter().any(|line| line.starts_with(mistake)), "{metrics}: {found:?}");
        }
        let right = "job: 'x-{namespace}', outputs: [ { remote_write: { url: 'http://a:9/w?x=y' } }, { name: b, remote_write: { url: 'invalid://a' } } ]";
        assert_eq!(mistakes(right), Vec::<String>::new());
    }
}
