//! What only a sidecar may say, and what it may not.

use std::path::PathBuf;

use super::super::{
    Config, FileGlob, KnownContainer, KnownPod, KnownPort, Kubelet, MetadataSource, ReadFrom,
};
use crate::cluster::Owner;
use crate::config::mistakes::Mistakes;
use crate::config::section::{Section, scalar};

/// `logs.root`, which only an agent of a node has.
pub(super) fn root(section: &mut Section, mistakes: &mut Mistakes) -> PathBuf {
    let default = if mistakes.in_sidecar() { "" } else { "/var/log/pods" };
    if mistakes.in_sidecar() && section.has("root") {
        mistakes.add(&section.path("root"), "only an agent of a node reads it; a sidecar reads logs.files");
    }
    PathBuf::from(section.text("root", default, mistakes))
}

/// `logs.files`, which only a sidecar has.
pub(super) fn files(section: &mut Section, mistakes: &mut Mistakes) -> Vec<FileGlob> {
    let path = section.path("files");
    if !mistakes.in_sidecar() {
        if section.take("files").is_some() {
            mistakes.add(&path, "only a sidecar reads files; an agent of a node reads logs.root");
        }
        return Vec::new();
    }
    let texts = section.texts("files", &[], mistakes);
    let mut globs = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        match FileGlob::parse(text) {
            Ok(glob) => globs.push(glob),
            Err(message) => mistakes.add(&format!("{path}[{n}]"), message),
        }
    }
    globs
}

/// `kubernetes.pod`, which only a sidecar has.
pub(super) fn pod(section: &mut Section, mistakes: &mut Mistakes) -> Option<KnownPod> {
    if !mistakes.in_sidecar() {
        if section.take("pod").is_some() {
            let path = section.path("pod");
            mistakes
                .add(&path, "only a sidecar is told of its pod; an agent of a node asks kubernetes.source");
        }
        return None;
    }
    let mut pod = section.optional_section("pod", mistakes)?;
    let known = KnownPod { owner: owner(&mut pod, mistakes), containers: containers(&mut pod, mistakes) };
    pod.finish(mistakes);
    Some(known)
}

fn owner(pod: &mut Section, mistakes: &mut Mistakes) -> Option<Owner> {
    let mut section = pod.section("owner", mistakes);
    let owner = Owner { kind: section.text("kind", "", mistakes), name: section.text("name", "", mistakes) };
    section.finish(mistakes);
    (!owner.kind.is_empty() && !owner.name.is_empty()).then_some(owner)
}

fn containers(pod: &mut Section, mistakes: &mut Mistakes) -> Vec<KnownContainer> {
    let items = pod.items("containers", mistakes).unwrap_or_default();
    let container = |(path, item): (String, _)| {
        let mut section = Section::new(&path, item, mistakes);
        let container = KnownContainer {
            name: section.text("name", "", mistakes),
            image: section.text("image", "", mistakes),
            ports: ports(&mut section, mistakes),
        };
        if container.name.is_empty() {
            mistakes.add(&section.path("name"), "needed");
        }
        section.finish(mistakes);
        container
    };
    items.into_iter().map(container).collect()
}

/// Each `{name, port}`, or a number alone.
fn ports(container: &mut Section, mistakes: &mut Mistakes) -> Vec<KnownPort> {
    let items = container.items("ports", mistakes).unwrap_or_default();
    let port = |(path, item): (String, yaml_serde::Value)| {
        let (name, number) = match scalar(&item) {
            Some(number) => (String::new(), number),
            None => {
                let mut section = Section::new(&path, item, mistakes);
                let port = (section.text("name", "", mistakes), section.text("port", "", mistakes));
                section.finish(mistakes);
                port
            }
        };
        match number.parse() {
            Ok(port) if port > 0 => {
                Some(KnownPort { name: Some(name).filter(|name| !name.is_empty()), port })
            }
            _ => {
                mistakes.add(&path, format!("{number:?} is no port: 1 to 65535"));
                None
            }
        }
    };
    items.into_iter().filter_map(port).collect()
}

/// What a sidecar cannot do, since it has no way to the API server and its lines have no time of their own.
pub(super) fn check(config: &Config, mistakes: &mut Mistakes) {
    if !config.sidecar {
        return;
    }
    let age = matches!(config.logs.read_from, ReadFrom::Since(_));
    let cannot = [
        (
            "kubernetes.source",
            config.kubernetes.source != MetadataSource::None,
            "a sidecar asks nobody: none",
        ),
        (
            "kubernetes.file",
            config.kubernetes.file.is_some(),
            "a sidecar knows its own pod only; leave it out",
        ),
        ("logs.namespace_labels", config.logs.namespace_labels, "a sidecar cannot ask for them: false"),
        ("logs.read_from", age, "lines of plain files have no time of their own: beginning or end"),
        ("metrics.kubelet", config.metrics.kubelet != Kubelet::None, "only for an agent of a node: none"),
        ("metrics.containers", config.metrics.containers, "only for an agent of a node: false"),
    ];
    for (path, _, message) in cannot.into_iter().filter(|(_, is_wrong, _)| *is_wrong) {
        mistakes.add(path, message);
    }
    if !config.logs.files.is_empty() && config.logs.outputs.is_empty() {
        mistakes.add("logs.outputs", "at least one output is needed: forward or stdout");
    }
    if config.logs.files.is_empty() && config.metrics.outputs.is_empty() {
        mistakes.warn("logs.files", "neither these nor metrics.outputs: there is nothing to do");
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, FileGlob};

    const LOGS: &str = "logs: { files: [/srv/*.d/a], outputs: [ { stdout: {} } ] }";

    fn parse(text: &str) -> Result<(Config, Vec<String>), Vec<String>> {
        Config::parse_sidecar(text, &|_| None)
    }

    #[test]
    fn what_only_a_newer_sidecar_knows_is_told_and_what_is_wrong_is_a_mistake() {
        let text = "node: n\nfuture: { a: 1 }\nlogs: { files: [/srv/a.log], colour: red, outputs: [ { stdout: { x: 1 } } ] }";
        let (config, warnings) = parse(text).unwrap();
        assert_eq!(config.logs.files, [FileGlob::parse("/srv/a.log").unwrap()]);
        let keys: Vec<&str> = warnings.iter().filter_map(|line| line.split(": ").next()).collect();
        assert_eq!(keys, ["logs.outputs[0].stdout.x", "logs.colour", "future"]);
        for (text, mistake) in [
            (LOGS, "logs.files[0]: \"/srv/*.d/a\" is not allowed: an absolute path"),
            ("logs: { files: [/srv/a] }", "logs.outputs: at least one"),
            ("logs: { root: /x }", "logs.root: only an agent of a node"),
            ("logs: { read_from: 10m }", "logs.read_from: lines of plain files"),
            ("logs: { parse: jsno }", "logs.parse: "),
            ("logs: { namespace_labels: true }", "logs.namespace_labels: a sidecar cannot"),
            ("kubernetes: { source: cluster }", "kubernetes.source: a sidecar asks nobody"),
            (
                "kubernetes: { pod: { containers: [ { image: x } ] } }",
                "kubernetes.pod.containers[0].name: needed",
            ),
            (
                "kubernetes: { pod: { containers: [ { name: x, ports: [ { port: 0 } ] } ] } }",
                "kubernetes.pod.containers[0].ports[0]: \"0\" is no port",
            ),
            ("metrics: { containers: true }", "metrics.containers: only for"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.iter().any(|line| line.starts_with(mistake)), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_the_injector_knew_of_the_pod_is_read_and_only_by_a_sidecar() {
        let text = "kubernetes: { pod: { owner: { kind: Job, name: j }, containers: [ { name: web, image: i, ports: [ { name: metrics, port: 9090 } ] } ] } }";
        let pod = parse(text).unwrap().0.kubernetes.pod.unwrap();
        assert_eq!(pod.owner.unwrap().name, "j");
        assert_eq!((pod.containers[0].name.as_str(), pod.containers[0].ports[0].port), ("web", 9090));
        let found = Config::parse(&format!("{text}\n{LOGS}"), &|_| None).unwrap_err();
        for mistake in ["kubernetes.pod: only a sidecar", "logs.files: only a sidecar"] {
            assert!(found.iter().any(|line| line.starts_with(mistake)), "{found:?}");
        }
    }

    #[test]
    fn no_file_that_the_config_names_is_read_where_the_sidecar_does_not_run() {
        let text = "logs: { files: [/srv/a], outputs: [ { forward: { upstreams: ['h:1'], shared_key_file: /none/key, \
            tls: { enabled: true, ca_file: /none/ca } } } ] }\nmetrics: { outputs: [ { remote_write: { url: 'https://a', \
            proxy_url_file: /none/proxy, bearer_token_file: /none/token } } ] }";
        assert_eq!(parse(text).unwrap().1, Vec::<String>::new());
        let found = Config::load_sidecar(text, &|_| None).unwrap_err();
        for file in ["/none/key", "/none/ca", "/none/proxy", "/none/token"] {
            assert!(found.iter().any(|line| line.contains(file)), "{file}: {found:?}");
        }
    }

    #[test]
    fn a_sidecar_takes_little_and_has_its_nodes_name_from_the_injector() {
        let text = "logs: { files: [/srv/a], outputs: [ { forward: { upstreams: ['h:1'] } } ] }\n\
            metrics: { outputs: [ { remote_write: { url: 'http://a' } } ] }";
        let environment = |name: &str| (name == "SIDELIGHT_NODE").then(|| "node-1".to_owned());
        let (config, _) = Config::parse_sidecar(text, &environment).unwrap();
        assert_eq!((config.node.as_str(), config.memory_budget, config.workers), ("node-1", 8 << 20, 1));
        let needs: u64 = config.memory_needs().iter().map(|(_, bytes)| bytes).sum();
        assert!(needs <= 32 << 20, "{needs}");
    }
}
