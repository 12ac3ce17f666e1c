//! The pages of the node's own kubelet (`kubernetes.io/docs/reference/instrumentation/node-metrics`).

use std::net::SocketAddr;
use std::sync::Arc;

use sidelight_contract::annotations::Scheme;

use crate::cluster::{Phase, Pod};
use crate::config::{Config, Kubelet};
use crate::metrics::discover::{Target, TargetKey};

/// Where every kubelet serves (`KubeletPort` in its `pkg/cluster/ports`); who moves it has to know what he does.
const PORT: u16 = 10250;
const RESOURCE: &str = "/metrics/resource";
const CADVISOR: &str = "/metrics/cadvisor";

/// What `metrics.kubelet` asks for, labelled as Prometheus's rules for Kubernetes expect it. Nothing until a pod has told the
/// node's address.
pub fn kubelet_targets(pods: &[Arc<Pod>], config: &Config) -> Vec<Target> {
    let paths: &[&str] = match config.metrics.kubelet {
        Kubelet::None => &[],
        Kubelet::Resource => &[RESOURCE],
        Kubelet::Cadvisor => &[CADVISOR],
        Kubelet::All => &[RESOURCE, CADVISOR],
    };
    // What a pod that has ended says may be another machine's address by now. The least: of two families always the same.
    let runs =
        |pod: &&Arc<Pod>| pod.phase == Phase::Running && (pod.node.is_empty() || pod.node == config.node);
    let Some(host) = pods.iter().filter(runs).filter_map(|pod| pod.host_ip).min() else { return Vec::new() };
    let address = SocketAddr::new(host, PORT);
    let target = |path: &&str| {
        let labels = [
            ("instance", address.to_string()),
            ("job", "kubelet".to_owned()),
            ("metrics_path", (*path).to_owned()),
            ("node", config.node.clone()),
        ];
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty());
        Target {
            key: TargetKey { uid: String::new(), port: PORT, path: (*path).to_owned() },
            scheme: Scheme::Https,
            address,
            interval: config.metrics.interval,
            honor_labels: false,
            labels: labels.map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    };
    paths.iter().map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_that_are_asked_for_are_found_at_the_nodes_address() {
        let pod = |ip: &str, node: &str, phase| {
            Arc::new(Pod { host_ip: ip.parse().ok(), node: node.to_owned(), phase, ..Pod::default() })
        };
        let found = |pods: &[Arc<Pod>], kubelet: &str| {
            let text = format!(
                "node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ kubelet: {kubelet}, outputs: [ {{ remote_write: {{ url: 'http://a' }} }} ] }}"
            );
            let config = Config::parse(&text, &|_| None).unwrap();
            let targets = kubelet_targets(pods, &config);
            targets.iter().map(|target| (target.url(), target.labels.clone())).collect::<Vec<_>>()
        };
        let labels = |path: &str| {
            let labels =
                [("instance", "10.0.0.1:10250"), ("job", "kubelet"), ("metrics_path", path), ("node", "n")];
            labels.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
        };
        let url = |path: &str| format!("https://10.0.0.1:10250{path}");
        let pods = [
            pod("none yet", "n", Phase::Running),
            pod("10.0.0.0", "n", Phase::Succeeded),
            pod("9.0.0.1", "another", Phase::Running),
            pod("fd00::1", "n", Phase::Running),
            pod("10.0.0.1", "n", Phase::Running),
        ];
        let one = |path: &str| (url(path), labels(path));
        assert_eq!(found(&pods, "all"), [one("/metrics/resource"), one("/metrics/cadvisor")]);
        assert_eq!(found(&pods, "resource"), [one("/metrics/resource")]);
        assert_eq!(found(&pods, "cadvisor"), [one("/metrics/cadvisor")]);
        assert_eq!(found(&pods, "none"), []);
        assert_eq!(found(&pods[..3], "all"), []);
    }
}
