//! What Kubernetes says of the node's containers, as series: for dashboards where nobody runs kube-state-metrics.

use std::collections::BTreeMap;
use std::fmt::Write;

use sidelight_contract::quantity;

use crate::cluster::{Container, ContainerKind, Phase, Pod};
use crate::metrics::discover::PodLabels;
use crate::metrics::exposition::quote;

/// Labels of a sample's own, and its value.
pub(super) type Sample = (Vec<(&'static str, String)>, f64);

/// One family: its name, type and help, and what it has of a container, each with labels of its own.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    samples: fn(&Pod, &Container) -> Vec<Sample>,
}

const FAMILIES: [Family; 5] = [
    Family {
        name: "sidelight_container_restarts_total",
        kind: "counter",
        help: "How often the container was restarted.",
        samples: |_, container| vec![(Vec::new(), f64::from(container.restart_count))],
    },
    Family {
        name: "sidelight_container_last_terminated",
        kind: "gauge",
        help: "1 for how the container has ended last.",
        samples: |_, container| {
            let last = container.last_terminated.iter();
            last.map(|last| {
                let labels = vec![("reason", last.reason.clone()), ("exit_code", last.exit_code.to_string())];
                (labels, 1.0)
            })
            .collect()
        },
    },
    Family {
        name: "sidelight_container_waiting",
        kind: "gauge",
        help: "1 for what the container waits for.",
        samples: |_, container| {
            container.waiting.iter().map(|reason| (vec![("reason", reason.clone())], 1.0)).collect()
        },
    },
    Family {
        name: "sidelight_container_resource_requests",
        kind: "gauge",
        help: "What the container requests of a resource, in cores and bytes.",
        samples: |pod, container| resources(pod, &container.requests),
    },
    Family {
        name: "sidelight_container_resource_limits",
        kind: "gauge",
        help: "The container's limit of a resource, in cores and bytes.",
        samples: |pod, container| resources(pod, &container.limits),
    },
];

/// A page in the text format with every container of these pods, the temporary ones for debugging left out.
pub fn page(pods: &[(&Pod, PodLabels)]) -> String {
    let mut page = String::new();
    for family in &FAMILIES {
        let begin = page.len();
        for (pod, labels) in pods {
            let lasting =
                pod.containers.iter().filter(|container| container.kind != ContainerKind::Ephemeral);
            for container in lasting {
                for sample in (family.samples)(pod, container) {
                    write(&mut page, family.name, labels, &container.name, &sample);
                }
            }
        }
        if page.len() > begin {
            let head = format!("# HELP {0} {1}\n# TYPE {0} {2}\n", family.name, family.help, family.kind);
            page.insert_str(begin, &head);
        }
    }
    page
}

/// What has ended holds nothing any more.
fn resources(pod: &Pod, quantities: &BTreeMap<String, String>) -> Vec<Sample> {
    if matches!(pod.phase, Phase::Succeeded | Phase::Failed) {
        return Vec::new();
    }
    let number = |(resource, text): (&String, &String)| {
        Some((vec![("resource", resource.clone())], quantity::parse(text)?))
    };
    quantities.iter().filter_map(number).collect()
}

/// One sample.
pub(super) fn write(
    page: &mut String,
    name: &str,
    labels: &PodLabels,
    container: &str,
    (own, value): &Sample,
) {
    page.push_str(name);
    let of_pod = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    let mut separator = '{';
    for (name, value) in [("container", container)].into_iter().chain(of_pod).chain(own) {
        let _ = write!(page, "{separator}{name}=");
        quote(page, value);
        separator = ',';
    }
    let _ = writeln!(page, "}} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Terminated;

    #[test]
    fn a_container_says_how_it_fares_and_what_it_may_have() {
        let app = Container {
            name: "app".into(),
            restart_count: 3,
            waiting: Some("Crash\"Loop\\".into()),
            last_terminated: Some(Terminated { reason: "OOMKilled".into(), exit_code: 137 }),
            requests: [("cpu".into(), "100m".into()), ("odd".into(), "many".into())].into(),
            limits: [("memory".into(), "64Mi".into())].into(),
            ..Container::default()
        };
        let debug =
            Container { name: "debug".into(), kind: ContainerKind::Ephemeral, ..Container::default() };
        let mut pod = Pod { containers: vec![app, debug], phase: Phase::Running, ..Pod::default() };
        let labels = vec![("pod".to_owned(), "p".to_owned())];
        let samples = |pod: &Pod| {
            let page = page(&[(pod, labels.clone())]);
            page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        let expected = [
            r#"sidelight_container_restarts_total{container="app",pod="p"} 3"#,
            r#"sidelight_container_last_terminated{container="app",pod="p",reason="OOMKilled",exit_code="137"} 1"#,
            r#"sidelight_container_waiting{container="app",pod="p",reason="Crash\"Loop\\"} 1"#,
            r#"sidelight_container_resource_requests{container="app",pod="p",resource="cpu"} 0.1"#,
            r#"sidelight_container_resource_limits{container="app",pod="p",resource="memory"} 67108864"#,
        ];
        assert_eq!(samples(&pod), expected);
        pod.phase = Phase::Failed;
        assert_eq!(samples(&pod), expected[..3]);
    }
}
