//! From the YAML tree to the valid configuration.

mod metrics;
mod outputs;
mod pull;
mod relabel;
mod remote_write;
mod sidecar;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;
use sidelight_contract::annotations::{Allow, Multiline, Parse};
use sidelight_contract::glob::GlobList;
use yaml_serde::Value;

use super::mistakes::{Mistakes, Purpose};
use super::section::{Section, format_size, parse_duration, scalar};
use super::variables::{Environment, expand};
use super::{
    Admin, Annotations, Config, KubeletRotation, Kubernetes, Labels, Logs, MetadataSource, Rate, ReadFrom,
    Select,
};
use crate::logs::multiline::Recognizer;
use crate::logs::parse::RESERVED;
use crate::logs::redact::Redactor;
use crate::logs::rules::{DropRule, LabelSelector};

const MINUTES: u64 = 60_000;

/// The config, and what is only to be told of it.
pub(super) fn config(
    text: &str,
    environment: Environment<'_>,
    purpose: Purpose,
) -> Result<(Config, Vec<String>), Vec<String>> {
    let mut tree: Value =
        yaml_serde::from_str(text).map_err(|error| vec![format!("not valid YAML: {error}")])?;
    let mut mistakes = Mistakes::reading_for(purpose);
    expand(&mut tree, "", environment, &mut mistakes);
    let mut watched_files = Vec::new();
    let tree_has_node = tree.get("node").is_some();
    let mut root = Section::new("", tree, &mut mistakes);
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let variable = if mistakes.in_sidecar() { sidelight_contract::sidecar::NODE } else { "NODE_NAME" };
    let named = environment(variable).filter(|name| !name.is_empty());
    let is_named = named.is_some() || tree_has_node;
    let node = root.text("node", &named.unwrap_or(hostname), &mut mistakes);
    let (budget, workers_here) =
        if mistakes.in_sidecar() { (8 << 20, 1) } else { (24 << 20, automatic_workers()) };
    let config = Config {
        node,
        data_dir: PathBuf::from(root.text("data_dir", "/var/lib/sidelight", &mut mistakes)),
        memory_budget: root.size("memory_budget", budget, 1 << 20..=1 << 40, &mut mistakes),
        workers: root.read("workers", workers_here, &mut mistakes, workers),
        admin: admin(root.section("admin", &mut mistakes), &mut mistakes),
        kubernetes: kubernetes(root.section("kubernetes", &mut mistakes), &mut mistakes),
        annotations: annotations(root.section("annotations", &mut mistakes), &mut mistakes),
        logs: logs(root.section("logs", &mut mistakes), &mut watched_files, &mut mistakes),
        metrics: metrics::metrics(root.section("metrics", &mut mistakes), &mut watched_files, &mut mistakes),
        sidecar: mistakes.in_sidecar(),
        watched_files,
    };
    root.finish(&mut mistakes);
    if config.kubernetes.source == MetadataSource::Cluster && !is_named {
        // The host name is the pod's: the API server would be asked for the pods of a node that does not exist.
        mistakes.add("node", "needed with `source: cluster`: set it, or NODE_NAME, to the node's name");
    }
    check_memory(&config, &mut mistakes);
    check_names(&config, &mut mistakes);
    sidecar::check(&config, &mut mistakes);
    if mistakes.is_empty() { Ok((config, mistakes.into_warnings())) } else { Err(mistakes.into_lines()) }
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

/// Every reader needs one open chunk for each output, one on its way so that it can go on reading, and the output the
/// memory of one to unpack what is refused.
fn check_memory(config: &Config, mistakes: &mut Mistakes) {
    for output in &config.logs.outputs {
        let needed = (config.workers as u64 + 2) * output.chunk_bytes() as u64;
        if config.share() < needed {
            mistakes.add(
                "memory_budget",
                format!(
                    "{} is too small: output {:?} needs {} ({} workers, one chunk on its way and one to unpack, {} each), its \
                     share is {}; \
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

/// Metrics tell outputs apart by their names, whatever they are for.
fn check_names(config: &Config, mistakes: &mut Mistakes) {
    for (number, output) in config.metrics.outputs.iter().enumerate() {
        if config.logs.outputs.iter().any(|other| other.name == output.name) {
            let path = format!("metrics.outputs[{number}].name");
            mistakes.add(&path, format!("{:?} is taken by an output of logs; names are unique", output.name));
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
    let source = if mistakes.in_sidecar() { MetadataSource::None } else { MetadataSource::Cluster };
    let kubernetes = Kubernetes {
        pod: sidecar::pod(&mut section, mistakes),
        source: section.read("source", source, mistakes, |text| match text {
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
    let add = add(&mut section, mistakes);
    let logs = Logs {
        taken_keys: RESERVED.into_iter().map(str::to_owned).chain(add.keys().cloned()).collect(),
        add,
        select: section.read("select", Select::All, mistakes, |text| match text {
            "all" => Ok(Select::All),
            "annotated" => Ok(Select::Annotated),
            other => Err(format!("{other:?} is not allowed: all or annotated")),
        }),
        namespaces: globs(&mut section, "namespaces", &["*"], mistakes),
        root: sidecar::root(&mut section, mistakes),
        files: sidecar::files(&mut section, mistakes),
        read_from: section.read("read_from", ReadFrom::Beginning, mistakes, read_from),
        // A message must stay below 5 MB, record and metadata together.
        max_record: section.size("max_record", 512 << 10, 1 << 10..=4 << 20, mistakes),
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
        redact: section.texts("redact", &[], mistakes),
        drop: drop_rules(&mut section, mistakes),
        rate: rate(section.section("rate", mistakes), mistakes),
        events: section.flag("events", false, mistakes),
        outputs: outputs::outputs(&mut section, files, mistakes),
    };
    if RESERVED.contains(&logs.parse_into.as_str()) || logs.add.contains_key(&logs.parse_into) {
        mistakes
            .add(&section.path("parse_into"), format!("{:?} is taken; choose another key", logs.parse_into));
    }
    if let Err(error) = Recognizer::new(&logs.multiline) {
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
    let fields: std::collections::BTreeMap<String, Json> =
        yaml_serde::from_value(value).unwrap_or_else(|error| {
            mistakes.add(&path, format!("expected a mapping of static fields: {error}"));
            Default::default()
        });
    for reserved in RESERVED.into_iter().filter(|reserved| fields.contains_key(*reserved)) {
        mistakes.add(&format!("{path}.{reserved}"), "records have this key for themselves; choose another");
    }
    fields
}

fn drop_rules(section: &mut Section, mistakes: &mut Mistakes) -> Vec<DropRule> {
    let items = section.items("drop", mistakes).unwrap_or_default();
    for (path, _) in items.iter().filter(|(_, item)| item.as_mapping().is_none_or(|rule| rule.is_empty())) {
        mistakes.add(
            path,
            "a rule without a condition would drop everything; give namespaces, labels, level or matches",
        );
    }
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
