//! From the YAML tree to the valid configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;
use sidelight_contract::annotations::{Allow, Multiline, Parse};
use sidelight_contract::glob::GlobList;
use yaml_serde::Value;

use super::section::{Environment, Mistakes, Section, expand, format_size, parse_duration, scalar};
use super::{
    Admin, Annotations, Config, Forward, KubeletRotation, Kubernetes, Labels, Logs, Match, MetadataSource,
    Output, OutputKind, Rate, ReadFrom, Select, Stdout, Tls, Upstream,
};
use crate::delivery::chunk::Compression;
use crate::delivery::secret::Secret;
use crate::logs::redact::Redactor;
use crate::logs::rules::{DropRule, LabelSelector};
use crate::logs::tag::TagTemplate;

const MINUTES: u64 = 60_000;

pub(super) fn config(text: &str, environment: Environment<'_>) -> Result<Config, Vec<String>> {
    let mut tree: Value =
        yaml_serde::from_str(text).map_err(|error| vec![format!("not valid YAML: {error}")])?;
    let mut mistakes = Mistakes::default();
    expand(&mut tree, "", environment, &mut mistakes);
    let mut watched_files = Vec::new();
    let mut root = Section::new("", tree, &mut mistakes);
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = root.text("node", &environment("NODE_NAME").unwrap_or(hostname), &mut mistakes);
    let config = Config {
        node,
        data_dir: PathBuf::from(root.text("data_dir", "/var/lib/sidelight", &mut mistakes)),
        memory_budget: root.size("memory_budget", 24 << 20, 1 << 20..=1 << 40, &mut mistakes),
        workers: root.read("workers", automatic_workers(), &mut mistakes, workers),
        admin: admin(root.section("admin", &mut mistakes), &mut mistakes),
        kubernetes: kubernetes(root.section("kubernetes", &mut mistakes), &mut mistakes),
        annotations: annotations(root.section("annotations", &mut mistakes), &mut mistakes),
        logs: logs(root.section("logs", &mut mistakes), &mut watched_files, &mut mistakes),
        watched_files,
    };
    root.finish(&mut mistakes);
    check_memory(&config, &mut mistakes);
    if mistakes.is_empty() { Ok(config) } else { Err(mistakes.into_lines()) }
}

/// The CPU limit of the cgroup, 1 to 4.
fn automatic_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4)
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        _ if text == "auto" => Ok(automatic_workers()),
        Ok(workers) if (1..=64).contains(&workers) => Ok(workers),
        _ => Err(format!("{text:?} is not allowed: auto, or 1 to 64")),
    }
}

/// Every reader needs one open chunk for each output, and one on its way so that it can go on reading.
fn check_memory(config: &Config, mistakes: &mut Mistakes) {
    for output in &config.logs.outputs {
        let needed = (config.workers as u64 + 1) * output.chunk_bytes() as u64;
        if config.share() < needed {
            mistakes.add(
                "memory_budget",
                format!(
                    "{} is too small: output {:?} needs {} ({} workers and one chunk on its way, {} each), its share is {}; \
                     raise memory_budget or lower chunk_bytes or workers",
                    format_size(config.memory_budget),
                    output.name,
                    format_size(needed),
                    config.workers,
                    format_size(output.chunk_bytes() as u64),
                    format_size(config.share()),
                ),
            );
        }
    }
}

fn admin(mut section: Section, mistakes: &mut Mistakes) -> Admin {
    let admin = Admin {
        listen: section.text("listen", "[::]:9614", mistakes),
        api: section.text("api", "127.0.0.1:9615", mistakes),
    };
    for (key, address) in [("listen", &admin.listen), ("api", &admin.api)] {
        if address.parse::<std::net::SocketAddr>().is_err() {
            mistakes.add(
                &section.path(key),
                format!("{address:?} is no address; write for example 127.0.0.1:9615 or [::]:9614"),
            );
        }
    }
    section.finish(mistakes);
    admin
}

fn kubernetes(mut section: Section, mistakes: &mut Mistakes) -> Kubernetes {
    let kubernetes = Kubernetes {
        source: section.read("source", MetadataSource::Cluster, mistakes, |text| match text {
            "cluster" => Ok(MetadataSource::Cluster),
            "file" => Ok(MetadataSource::File),
            "none" => Ok(MetadataSource::None),
            other => Err(format!("{other:?} is not allowed: cluster, file or none")),
        }),
        file: Some(section.text("file", "", mistakes)).filter(|file| !file.is_empty()).map(PathBuf::from),
        metadata_wait: section.duration("metadata_wait", Duration::from_secs(5), 0..=10 * MINUTES, mistakes),
    };
    if kubernetes.source == MetadataSource::File && kubernetes.file.is_none() {
        mistakes.add(&section.path("file"), "needed with `source: file`: the path of a v1 List of pods");
    }
    section.finish(mistakes);
    kubernetes
}

fn annotations(mut section: Section, mistakes: &mut Mistakes) -> Annotations {
    let allow =
        section.texts("allow", &["*", "!logs.tag", "!metrics.honor-labels", "!inject.image"], mistakes);
    let annotations = Annotations {
        allow: Allow::new(&allow).unwrap_or_else(|message| {
            mistakes.add(&section.path("allow"), message);
            Allow::default()
        }),
        mandatory_namespaces: globs(&mut section, "mandatory_namespaces", &[], mistakes),
        honour_others: section.flag("honour_others", true, mistakes),
    };
    section.finish(mistakes);
    annotations
}

fn globs(section: &mut Section, key: &'static str, default: &[&str], mistakes: &mut Mistakes) -> GlobList {
    GlobList::new(&section.texts(key, default, mistakes))
}

fn logs(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Logs {
    let logs = Logs {
        select: section.read("select", Select::All, mistakes, |text| match text {
            "all" => Ok(Select::All),
            "annotated" => Ok(Select::Annotated),
            other => Err(format!("{other:?} is not allowed: all or annotated")),
        }),
        namespaces: globs(&mut section, "namespaces", &["*"], mistakes),
        root: PathBuf::from(section.text("root", "/var/log/pods", mistakes)),
        read_from: section.read("read_from", ReadFrom::Beginning, mistakes, read_from),
        max_record: section.size("max_record", 512 << 10, 1 << 10..=64 << 20, mistakes),
        held_deleted: section.size("held_deleted", 1 << 30, 0..=1 << 50, mistakes),
        kubelet: kubelet(section.section("kubelet", mistakes), mistakes),
        parse: section.read("parse", Parse::Json, mistakes, |text| text.parse()),
        parse_into: section.text("parse_into", "", mistakes),
        keep_log: section.flag("keep_log", false, mistakes),
        multiline: section.read("multiline", Multiline::Auto, mistakes, |text| text.parse()),
        labels: labels(&mut section, mistakes),
        labels_dedot: section.flag("labels_dedot", false, mistakes),
        annotations: section.texts("annotations", &[], mistakes),
        namespace_labels: section.flag("namespace_labels", false, mistakes),
        add: add(&mut section, mistakes),
        redact: section.texts("redact", &[], mistakes),
        drop: drop_rules(&mut section, mistakes),
        rate: rate(section.section("rate", mistakes), mistakes),
        outputs: outputs(&mut section, files, mistakes),
    };
    if let Multiline::Start(pattern) = &logs.multiline
        && let Err(error) = regex::bytes::Regex::new(pattern)
    {
        mistakes
            .add(&section.path("multiline"), format!("neither a preset nor a valid start pattern: {error}"));
    }
    if let Err(error) = Redactor::compile(&logs.redact) {
        mistakes.add(&section.path("redact"), error);
    }
    section.finish(mistakes);
    logs
}

fn read_from(text: &str) -> Result<ReadFrom, String> {
    match text {
        "beginning" => Ok(ReadFrom::Beginning),
        "end" => Ok(ReadFrom::End),
        age => parse_duration(age)
            .map(ReadFrom::Since)
            .map_err(|_| format!("{age:?} is not allowed: beginning, end, or an age such as 10m")),
    }
}

fn kubelet(mut section: Section, mistakes: &mut Mistakes) -> KubeletRotation {
    let kubelet = KubeletRotation {
        max_size: section.size("max_size", 10 << 20, 1..=1 << 50, mistakes),
        max_files: section.number("max_files", 5, 2..=10_000, mistakes),
    };
    section.finish(mistakes);
    kubelet
}

fn rate(mut section: Section, mistakes: &mut Mistakes) -> Rate {
    let rate = Rate {
        container: section.number("container", 0, 0..=1 << 40, mistakes),
        namespace: section.number("namespace", 0, 0..=1 << 40, mistakes),
    };
    section.finish(mistakes);
    rate
}

fn labels(section: &mut Section, mistakes: &mut Mistakes) -> Labels {
    match section.take("labels") {
        None => Labels::Every(true),
        Some(Value::Bool(every)) => Labels::Every(every),
        Some(Value::Sequence(names)) if names.iter().all(|name| scalar(name).is_some()) => {
            Labels::Named(names.iter().filter_map(scalar).collect())
        }
        Some(_) => {
            mistakes.add(&section.path("labels"), "expected true, false or a list of label names");
            Labels::Every(true)
        }
    }
}

fn add(section: &mut Section, mistakes: &mut Mistakes) -> std::collections::BTreeMap<String, Json> {
    let path = section.path("add");
    let Some(value) = section.take("add") else { return Default::default() };
    yaml_serde::from_value(value).unwrap_or_else(|error| {
        mistakes.add(&path, format!("expected a mapping of static fields: {error}"));
        Default::default()
    })
}

fn drop_rules(section: &mut Section, mistakes: &mut Mistakes) -> Vec<DropRule> {
    let items = section.items("drop", mistakes).unwrap_or_default();
    items
        .into_iter()
        .filter_map(|(path, item)| drop_rule(Section::new(&path, item, mistakes), mistakes))
        .collect()
}

fn drop_rule(mut section: Section, mistakes: &mut Mistakes) -> Option<DropRule> {
    let namespaces = globs(&mut section, "namespaces", &["*"], mistakes);
    let labels = selector(&mut section, mistakes);
    let level = section.read("level", None, mistakes, |text| text.parse().map(Some));
    let matches = section.read("matches", None, mistakes, |text| {
        regex::bytes::Regex::new(text).map(Some).map_err(|error| error.to_string())
    });
    section.finish(mistakes);
    Some(DropRule { namespaces, labels, level, matches })
}

fn selector(section: &mut Section, mistakes: &mut Mistakes) -> LabelSelector {
    section.read("labels", LabelSelector::default(), mistakes, |text| text.parse())
}

fn outputs(section: &mut Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Vec<Output> {
    let path = section.path("outputs");
    let items = section.items("outputs", mistakes).unwrap_or_default();
    let outputs: Vec<Output> = items
        .into_iter()
        .filter_map(|(path, item)| output(Section::new(&path, item, mistakes), &path, files, mistakes))
        .collect();
    if outputs.is_empty() && mistakes.is_empty() {
        mistakes.add(&path, "at least one output is needed: forward or stdout");
    }
    for (n, output) in outputs.iter().enumerate() {
        if outputs[..n].iter().any(|other| other.name == output.name) {
            mistakes.add(
                &format!("{path}[{n}].name"),
                format!("{:?} is taken by another output; names are unique", output.name),
            );
        }
    }
    outputs
}

fn output(
    mut section: Section,
    path: &str,
    files: &mut Vec<PathBuf>,
    mistakes: &mut Mistakes,
) -> Option<Output> {
    let forward_section = section.optional_section("forward", mistakes);
    let stdout_section = section.optional_section("stdout", mistakes);
    let kind = match (forward_section, stdout_section) {
        (Some(inner), None) => Some(OutputKind::Forward(Box::new(forward(inner, files, mistakes)))),
        (None, Some(inner)) => {
            inner.finish(mistakes);
            Some(OutputKind::Stdout(Stdout {}))
        }
        _ => {
            mistakes.add(path, "expected exactly one of forward, stdout");
            None
        }
    };
    let default_name = match kind {
        Some(OutputKind::Stdout(_)) => "stdout",
        _ => "forward",
    };
    let name = section.text("name", default_name, mistakes);
    let mut inner = section.section("match", mistakes);
    let matching = Match {
        namespaces: globs(&mut inner, "namespaces", &["*"], mistakes),
        labels: selector(&mut inner, mistakes),
    };
    inner.finish(mistakes);
    section.finish(mistakes);
    Some(Output { name, matching, kind: kind? })
}

fn forward(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Forward {
    let forward = Forward {
        upstreams: upstreams(&mut section, mistakes),
        tag: section.read("tag", "kube.{namespace}".to_owned(), mistakes, |text| {
            text.parse::<TagTemplate>().map(|_| text.to_owned())
        }),
        ack: section.flag("ack", true, mistakes),
        ack_timeout: section.duration("ack_timeout", Duration::from_secs(60), 100..=60 * MINUTES, mistakes),
        compress: section.read("compress", Compression::Gzip, mistakes, |text| text.parse()),
        shared_key: secret(&mut section, "shared_key", "shared_key_file", files, mistakes),
        username: section.text("username", "", mistakes),
        password: secret(&mut section, "password", "password_file", files, mistakes),
        tls: tls(section.section("tls", mistakes), files, mistakes),
        flush_interval: section.duration(
            "flush_interval",
            Duration::from_secs(1),
            10..=10 * MINUTES,
            mistakes,
        ),
        // Fluent Bit's receiver takes 6,144,000 bytes, compressed or not.
        chunk_bytes: section.size("chunk_bytes", 1 << 20, 16 << 10..=5_000_000, mistakes),
    };
    section.finish(mistakes);
    forward
}

fn upstreams(section: &mut Section, mistakes: &mut Mistakes) -> Vec<Upstream> {
    let path = section.path("upstreams");
    let items = section.items("upstreams", mistakes).unwrap_or_default();
    let upstreams: Vec<Upstream> = items
        .into_iter()
        .map(|(path, item)| {
            let mut upstream = match scalar(&item) {
                Some(address) => Upstream { address, weight: 1, standby: false },
                None => {
                    let mut section = Section::new(&path, item, mistakes);
                    let address = section.text("address", "", mistakes);
                    let weight = section.number("weight", 1, 1..=1_000, mistakes);
                    let standby = section.flag("standby", false, mistakes);
                    section.finish(mistakes);
                    Upstream { address, weight: u32::try_from(weight).unwrap_or(1), standby }
                }
            };
            upstream.address = upstream.address.trim().to_owned();
            if !is_host_and_port(&upstream.address) {
                mistakes.add(
                    &path,
                    format!("{:?} is no address; write host:port, IPv6 in brackets", upstream.address),
                );
            }
            upstream
        })
        .collect();
    if upstreams.is_empty() {
        mistakes.add(&path, "at least one is needed, for example [\"fluentd.logging.svc:24224\"]");
    } else if upstreams.iter().all(|upstream| upstream.standby) {
        mistakes.add(&path, "at least one must not be a standby");
    }
    upstreams
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_right = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', ' ']),
    };
    host_is_right && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn secret(
    section: &mut Section,
    key: &'static str,
    file_key: &'static str,
    files: &mut Vec<PathBuf>,
    mistakes: &mut Mistakes,
) -> Option<Secret> {
    let value = section.text(key, "", mistakes);
    let file = section.text(file_key, "", mistakes);
    if file.is_empty() {
        return (!value.is_empty()).then(|| Secret::new(value));
    }
    if !value.is_empty() {
        mistakes.add(&section.path(key), format!("set either this or {file_key}, not both"));
    }
    let file = PathBuf::from(file);
    let content = std::fs::read_to_string(&file);
    files.push(file.clone());
    match content {
        Ok(content) => Some(Secret::new(content.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) => {
            mistakes.add(&section.path(file_key), format!("cannot read {}: {error}", file.display()));
            None
        }
    }
}

fn tls(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Tls {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let tls = Tls {
        enabled: section.flag("enabled", false, mistakes),
        ca_file: given(section.text("ca_file", "", mistakes)).map(PathBuf::from),
        cert_file: given(section.text("cert_file", "", mistakes)).map(PathBuf::from),
        key_file: given(section.text("key_file", "", mistakes)).map(PathBuf::from),
        server_name: given(section.text("server_name", "", mistakes)),
    };
    if tls.cert_file.is_some() != tls.key_file.is_some() {
        mistakes.add(&section.path("cert_file"), "cert_file and key_file belong together: set both or none");
    }
    for (key, file) in [("ca_file", &tls.ca_file), ("cert_file", &tls.cert_file), ("key_file", &tls.key_file)]
    {
        let Some(file) = file else { continue };
        files.push(file.clone());
        if tls.enabled
            && let Err(error) = std::fs::File::open(file)
        {
            mistakes.add(&section.path(key), format!("cannot read {}: {error}", file.display()));
        }
    }
    section.finish(mistakes);
    tls
}
