//! `metrics`: what is scraped, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::outputs::{matching, secret, tls, unique_names};
use super::relabel::{external_labels, relabel};
use super::{MINUTES, globs};
use crate::config::section::{Mistakes, Section, format_duration};
use crate::config::{
    BasicAuth, Kubelet, MetricOutput, MetricSelect, Metrics, Normalize, Protocol, RemoteWrite,
};
use crate::delivery::secret::Secret;
use crate::delivery::tls::connector;

/// What may stand in braces in `job`.
const PLACEHOLDERS: [&str; 2] = ["namespace", "owner"];

pub(super) fn metrics(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Metrics {
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
        series_limit: section.number("series_limit", 50_000, 1..=10_000_000, mistakes),
        series_limit_namespace: section.read("series_limit_namespace", 20, mistakes, percent),
        series_limit_total: section.number("series_limit_total", 200_000, 1..=100_000_000, mistakes),
        body_limit: section.size("body_limit", 64 << 20, 1 << 10..=4 << 30, mistakes),
        honor_labels_namespaces: globs(&mut section, "honor_labels_namespaces", &[], mistakes),
        relabel: relabel(&mut section, mistakes),
        normalize: section.read("normalize", Normalize::None, mistakes, |text| match text {
            "none" => Ok(Normalize::None),
            "rust" => Ok(Normalize::Rust),
            other => Err(format!("{other:?} is not allowed: none or rust")),
        }),
        native_histograms: section.flag("native_histograms", false, mistakes),
        containers: section.flag("containers", true, mistakes),
        kubelet: section.read("kubelet", Kubelet::None, mistakes, |text| match text {
            "none" => Ok(Kubelet::None),
            "resource" => Ok(Kubelet::Resource),
            "cadvisor" => Ok(Kubelet::Cadvisor),
            "all" => Ok(Kubelet::All),
            other => Err(format!("{other:?} is not allowed: none, resource, cadvisor or all")),
        }),
        external_labels: external_labels(&mut section, mistakes),
        outputs: outputs(&mut section, files, mistakes),
    };
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

fn remote_write(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> RemoteWrite {
    let output = RemoteWrite {
        url: section.read("url", String::new(), mistakes, url),
        protocol: section.read("protocol", Protocol::Auto, mistakes, |text| match text {
            "auto" => Ok(Protocol::Auto),
            "1.0" => Ok(Protocol::V1),
            "2.0" => Ok(Protocol::V2),
            other => Err(format!("{other:?} is not allowed: auto, 1.0 or 2.0")),
        }),
        headers: headers(&mut section, mistakes),
        basic_auth: basic_auth(&mut section, files, mistakes),
        bearer_token: secret(&mut section, "bearer_token", "bearer_token_file", files, mistakes),
        tls: tls(section.section("tls", mistakes), files, mistakes),
        relabel: relabel(&mut section, mistakes),
        flush_interval: section.duration(
            "flush_interval",
            Duration::from_secs(5),
            10..=10 * MINUTES,
            mistakes,
        ),
        spool: section.size("spool", 256 << 20, 0..=1 << 40, mistakes),
    };
    if (1..LEAST_SPOOL).contains(&output.spool) {
        mistakes.add(&section.path("spool"), "0B, or at least 256KiB");
    }
    if output.url.is_empty() {
        mistakes.add(&section.path("url"), "needed: for example http://prometheus:9090/api/v1/write");
    }
    if output.basic_auth.is_some() && output.bearer_token.is_some() {
        mistakes.add(&section.path("basic_auth"), "set either this or bearer_token, not both");
    }
    if output.url.starts_with("https:") {
        if let Err(error) = connector(&output.tls) {
            mistakes.add(&section.path("tls"), error);
        }
    } else if output.tls.enabled {
        mistakes.add(
            &section.path("tls"),
            "the URL does not begin with https: samples and token would go out in clear",
        );
    }
    if output.tls.server_name.is_some() {
        mistakes.add(
            &section.path("tls.server_name"),
            "not for remote write: the certificate must have the URL's host",
        );
    }
    section.finish(mistakes);
    output
}

/// Less has no room for a request and the next one.
const LEAST_SPOOL: u64 = 256 << 10;

/// Headers that a request has anyway.
const OWN_HEADERS: [&str; 7] = [
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "user-agent",
    "x-prometheus-remote-write-version",
];

fn headers(section: &mut Section, mistakes: &mut Mistakes) -> BTreeMap<String, Secret> {
    let path = section.path("headers");
    let headers = section.mapping("headers", mistakes);
    let mut seen = BTreeSet::new();
    for (name, value) in &headers {
        let lower = name.to_ascii_lowercase();
        if !seen.insert(lower.clone()) {
            mistakes.add(&path, format!("{name} stands here twice"));
        }
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
            mistakes.add(&path, format!("{name:?} is no header of HTTP, or its value is none"));
        } else if lower == "authorization" {
            mistakes.add(&path, "Authorization is set by basic_auth or bearer_token");
        } else if OWN_HEADERS.contains(&lower.as_str()) {
            mistakes.add(&path, format!("{name} is set by remote write itself"));
        }
    }
    headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
}

fn basic_auth(section: &mut Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Option<BasicAuth> {
    let mut inner = section.optional_section("basic_auth", mistakes)?;
    let auth = BasicAuth {
        username: inner.text("username", "", mistakes),
        password: secret(&mut inner, "password", "password_file", files, mistakes),
    };
    if auth.username.contains(':') {
        mistakes.add(&inner.path("username"), "a user's name cannot have a colon (RFC 7617)");
    }
    inner.finish(mistakes);
    (!auth.username.is_empty() || auth.password.is_some()).then_some(auth)
}

/// A scheme that is not known and a host that does not answer are for the run to tell: they may be mended there.
fn url(text: &str) -> Result<String, String> {
    match text.parse::<Uri>() {
        Ok(url) if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Err("a URL with a user in it would show the password: use basic_auth or bearer_token_file"
                .to_owned())
        }
        Ok(url) if url.scheme().is_some() && url.host().is_some() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no URL; write for example http://prometheus:9090/api/v1/write")),
    }
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
            ("outputs: [ { remote_write: {} } ]", "metrics.outputs[0].remote_write.url: needed"),
            (
                "outputs: [ { remote_write: { url: prometheus } } ]",
                "metrics.outputs[0].remote_write.url: \"prometheus\" is no URL",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://a' } }, { remote_write: { url: 'http://b' } } ]",
                "metrics.outputs[1].name:",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://a', tls: { enabled: true } } } ]",
                "metrics.outputs[0].remote_write.tls: the URL",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://u:p@a' } } ]",
                "metrics.outputs[0].remote_write.url: a URL with a user",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://a', headers: { Authorization: x } } } ]",
                "metrics.outputs[0].remote_write.headers: Authorization is set by",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://a', headers: { 'a b': x } } } ]",
                "metrics.outputs[0].remote_write.headers: \"a b\" is no header",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://a', bearer_token: t, basic_auth: { username: u } } } ]",
                "metrics.outputs[0].remote_write.basic_auth: set either",
            ),
            (
                "outputs: [ { name: stdout, remote_write: { url: 'http://a' } } ]",
                "metrics.outputs[0].name: \"stdout\" is taken by an output of logs",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://a', spool: 1KiB } } ]",
                "metrics.outputs[0].remote_write.spool: 0B, or",
            ),
            (
                "outputs: [ { remote_write: { url: 'http://a', protocol: '3.0' } } ]",
                "metrics.outputs[0].remote_write.protocol: \"3.0\" is not allowed",
            ),
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
