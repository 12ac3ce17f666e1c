//! How the lines of one container are handled: the operator's config and the pod's annotations, resolved once.

use std::sync::Arc;

use sidelight_contract::annotations::{self, LogAnnotations, Parse, Redaction};

use crate::cluster::Pod;
use crate::config::{Config, Match, OutputKind, Select};
use crate::logs::events::EventCounts;
use crate::logs::generation::Generation;
use crate::logs::layout::ContainerPath;
use crate::logs::multiline::Recognizer;
use crate::logs::redact::{BUILTIN, Redactor};
use crate::logs::rules::DropRule;
use crate::logs::split::Stream;
use crate::logs::tag::TagTemplate;

/// Whether lines are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Yes.
    Yes,
    /// No, for this reason.
    No(String),
    /// Not known yet, for this reason; files are held open meanwhile.
    Wait(String),
}

/// What Kubernetes has said about the pod.
#[derive(Clone, Debug)]
pub enum Metadata {
    /// This.
    Known(Arc<Pod>),
    /// Nothing yet.
    Awaited,
    /// Nothing within `metadata_wait`.
    Missing,
    /// It is not asked (`source: none`).
    NotAsked,
}

/// How the lines of one container are handled.
#[derive(Debug)]
pub struct Settings {
    /// Whether they are read at all.
    pub collect: Takes,
    /// The pod, as far as known.
    pub pod: Option<Arc<Pod>>,
    /// Whether records are marked as lacking metadata.
    pub partial_metadata: bool,
    /// How a record's text is parsed.
    pub parse: Parse,
    /// How lines are grouped.
    pub multiline: Option<Recognizer>,
    /// What is taken out of records: the operator's patterns, then the pod's.
    pub redactors: Vec<Redactor>,
    /// Records a second by record time; 0: no limit.
    pub rate: u64,
    /// The records to keep, of all 2^64 hashes.
    pub sample: Option<u64>,
    /// Streams that others' marks exclude.
    pub excluded: [bool; 2],
    /// The operator's rules that apply here.
    pub drop: Vec<DropRule>,
    /// For each output whether it takes the lines, and under which tag.
    pub outputs: Vec<(Takes, Arc<str>)>,
    /// What is wrong with the pod's annotations.
    pub problems: Vec<String>,
    /// Where its records are counted by level, if they are.
    pub events: Option<Arc<EventCounts>>,
}

// === impl Metadata ===

impl Metadata {
    /// The pod, if known.
    pub fn pod(&self) -> Option<&Arc<Pod>> {
        match self {
            Metadata::Known(pod) => Some(pod),
            _ => None,
        }
    }

    /// While metadata is awaited, wait; afterwards `otherwise`.
    fn or_wait(&self, otherwise: Takes) -> Takes {
        match self {
            Metadata::Awaited => Takes::Wait("waiting for the pod's metadata".to_owned()),
            _ => otherwise,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Resolves the settings of a container; `own_pod` are the names and UIDs of the
    /// pod this process runs in.
    pub fn resolve(config: &Config, path: &ContainerPath, metadata: &Metadata, own_pod: &[String]) -> Self {
        let pod = metadata.pod();
        let mandatory = config.annotations.mandatory_namespaces.matches(&path.namespace);
        let pairs: Vec<(&str, &str)> = pod.map_or_else(Vec::new, |pod| {
            pod.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
        });
        let (allow, builtin) = (&config.annotations.allow, BUILTIN.map(|(name, _)| name));
        let own = annotations::log_annotations(pairs.iter().copied(), &path.container, allow, &builtin);
        let containers: Vec<&str> =
            pod.iter().flat_map(|pod| &pod.containers).map(|container| container.name.as_str()).collect();
        let mut problems: Vec<String> =
            annotations::problems(pairs.iter().copied(), &containers, allow, &builtin)
                .into_iter()
                .map(|problem| format!("{}: {}", problem.key, problem.message))
                .collect();
        let excluded = excluded(config, path, pod, &pairs, mandatory);
        let mut collect = collect(config, path, metadata, &own, excluded, mandatory, own_pod);
        let redactors = redactors(config, &own).unwrap_or_else(|error| {
            problems.push(format!("logs.redact: {error}"));
            if collect == Takes::Yes {
                collect = Takes::Wait(format!("held until its logs.redact annotation is right: {error}"));
            }
            Vec::new()
        });
        let own_multiline = own.multiline.as_ref().map(Recognizer::new);
        if let Some(Err(error)) = &own_multiline {
            problems.push(format!("logs.multiline: {error}; the operator's setting is used"));
        }
        let multiline = match own_multiline {
            Some(Ok(recognizer)) => recognizer,
            // It was compiled when the config was validated.
            _ => Recognizer::new(&config.logs.multiline).ok().flatten(),
        };
        Settings {
            collect,
            partial_metadata: matches!(metadata, Metadata::Missing | Metadata::Awaited),
            parse: own.parse.unwrap_or(config.logs.parse),
            multiline,
            redactors,
            rate: lower_rate(config.logs.rate.container, own.rate.map_or(0, u64::from)),
            sample: own
                .sample
                .filter(|share| *share < 1.0 && !mandatory)
                .map(|share| (share * 2f64.powi(64)) as u64),
            excluded,
            drop: applicable(&config.logs.drop, path, pod),
            outputs: config
                .logs
                .outputs
                .iter()
                .map(|output| takes(output, config, path, metadata, &own))
                .collect(),
            problems,
            pod: pod.cloned(),
            events: None,
        }
    }

    /// Whether Kubernetes says that the run of the container that wrote this file is over.
    pub fn has_ended(&self, generation: &Generation) -> bool {
        let mut containers = self.pod.iter().flat_map(|pod| &pod.containers);
        containers.any(|container| {
            container.name == generation.container().container
                && container.restart_count == generation.restart
                && container.terminated
        })
    }

    /// Whether lines of a stream are left out.
    pub fn excludes(&self, stream: Stream) -> bool {
        self.excluded[stream as usize]
    }
}

/// The operator's patterns, then the pod's; or why the pod's cannot be used.
fn redactors(config: &Config, own: &LogAnnotations) -> Result<Vec<Redactor>, String> {
    let pattern = |redaction: &Redaction| match redaction {
        Redaction::Builtin(pattern) | Redaction::Regex(pattern) => Ok(pattern.clone()),
        Redaction::Unusable(reason) => Err(reason.clone()),
    };
    let own = own.redact.iter().map(pattern).collect::<Result<Vec<_>, _>>()?;
    let patterns = [&config.logs.redact, &own].into_iter().filter(|patterns| !patterns.is_empty());
    patterns.map(|patterns| Redactor::compile(patterns)).collect()
}

/// A pod may only lower the operator's rate.
fn lower_rate(operator: u64, own: u64) -> u64 {
    match (operator, own) {
        (0, rate) | (rate, 0) => rate,
        (operator, own) => operator.min(own),
    }
}

fn excluded(
    config: &Config,
    path: &ContainerPath,
    pod: Option<&Arc<Pod>>,
    pairs: &[(&str, &str)],
    mandatory: bool,
) -> [bool; 2] {
    let Some(pod) = pod.filter(|_| config.annotations.honour_others && !mandatory) else { return [false; 2] };
    let labels = pod.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let exclusion = annotations::excluded_by_others(pairs.iter().copied(), labels, &path.container);
    if path.is_plain() && !(exclusion.stdout && exclusion.stderr) {
        return [false; 2];
    }
    [exclusion.stdout, exclusion.stderr]
}

fn collect(
    config: &Config,
    path: &ContainerPath,
    metadata: &Metadata,
    own: &LogAnnotations,
    excluded: [bool; 2],
    mandatory: bool,
    own_pod: &[String],
) -> Takes {
    let writes_to_stdout =
        config.logs.outputs.iter().any(|output| matches!(output.kind, OutputKind::Stdout(_)));
    // A sidecar's files are another's, whatever it writes itself.
    if writes_to_stdout && !path.is_plain() && own_pod.iter().any(|own| *own == path.pod || *own == path.uid)
    {
        return Takes::No("this agent's own pod is not read while an output is stdout".to_owned());
    }
    if !config.logs.namespaces.matches(&path.namespace) {
        return Takes::No(format!("namespace {} is not in logs.namespaces", path.namespace));
    }
    if mandatory {
        // Its redactions and its tag are not known before its metadata.
        return metadata.or_wait(Takes::Yes);
    }
    if excluded == [true; 2] {
        return Takes::No("an exclude mark of Fluent Bit or Vector on the pod".to_owned());
    }
    match (own.collect, config.logs.select) {
        (Some(false), _) => Takes::No("the pod's annotation sidelight.dev/logs is false".to_owned()),
        (Some(true), _) => Takes::Yes,
        (None, Select::All) => metadata.or_wait(Takes::Yes),
        (None, Select::Annotated) => metadata.or_wait(match metadata {
            Metadata::Known(_) => Takes::No(
                "logs.select is annotated and the pod has no sidelight.dev/logs: \"true\"".to_owned(),
            ),
            _ => Takes::Wait("logs.select is annotated and the pod's metadata is not known".to_owned()),
        }),
    }
}

fn applicable(rules: &[DropRule], path: &ContainerPath, pod: Option<&Arc<Pod>>) -> Vec<DropRule> {
    let selected = |rule: &&DropRule| {
        let by_labels = rule.labels.is_empty() || pod.is_some_and(|pod| rule.labels.matches(&pod.labels));
        by_labels && rule.namespaces.matches(&path.namespace)
    };
    rules.iter().filter(selected).cloned().collect()
}

fn takes(
    output: &crate::config::Output,
    config: &Config,
    path: &ContainerPath,
    metadata: &Metadata,
    own: &LogAnnotations,
) -> (Takes, Arc<str>) {
    let pod = metadata.pod();
    let template = match &output.kind {
        OutputKind::Forward(forward) => forward.tag.parse::<TagTemplate>().ok(),
        OutputKind::Stdout(_) => None,
    };
    let needs_pod =
        !matches!(metadata, Metadata::NotAsked) && template.as_ref().is_some_and(TagTemplate::needs_metadata);
    let Match { namespaces, labels } = &output.matching;
    let takes = match pod {
        _ if !namespaces.matches(&path.namespace) => {
            Takes::No(format!("namespace {} is not in the output's match.namespaces", path.namespace))
        }
        Some(pod) if !labels.matches(&pod.labels) => {
            Takes::No("the pod's labels are not selected by the output's match.labels".to_owned())
        }
        None if !labels.is_empty() => {
            Takes::Wait("the output selects by labels and the pod's metadata is not known".to_owned())
        }
        None if needs_pod => {
            Takes::Wait("the output's tag is made of the pod's metadata, which is not known".to_owned())
        }
        _ => Takes::Yes,
    };
    let tag = template.map_or_else(String::new, |template| {
        template.render(&config.node, path, pod.map(Arc::as_ref), own.tag.as_deref())
    });
    (takes, tag.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_writes_to_stdout_never_reads_its_own_pod() {
        let resolve = |output: &str, own: &str| {
            let text = format!("kubernetes: {{ source: none }}\nlogs: {{ outputs: [ {output} ] }}");
            let config = Config::parse(&text, &|_| None).unwrap();
            let path = ContainerPath::parse("ns_agent-1_uid-1", "app").unwrap();
            Settings::resolve(&config, &path, &Metadata::NotAsked, &[own.to_owned()]).collect
        };
        for own in ["agent-1", "uid-1"] {
            assert!(matches!(resolve("{ stdout: {} }", own), Takes::No(_)), "{own}");
        }
        assert_eq!(resolve("{ stdout: {} }", "another"), Takes::Yes);
        assert_eq!(resolve("{ forward: { upstreams: ['h:1'] } }", "agent-1"), Takes::Yes);
    }
}
