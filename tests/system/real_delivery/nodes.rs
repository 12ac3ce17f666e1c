//! More nodes than one.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sidelight_tests::kubelet::rfc3339;

use super::Site;
use super::release::{CHART, NAME, Release};
use crate::real_kubernetes::stage::{kubectl, wait_for};
use crate::real_sidecar::injector::try_apply;

/// A node for the scheduler alone: it has no kubelet, so that what it is given never starts. It goes with the test.
struct Node {
    name: &'static str,
    zone: &'static str,
}

// === impl Node ===

impl Node {
    fn add(name: &'static str, zone: &'static str, taints: &Value) -> Self {
        let node = Node { name, zone };
        let labels = json!({
            "kubernetes.io/os": "linux", "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone,
        });
        let resources = json!({ "cpu": "4", "memory": "8Gi", "pods": "100" });
        let now = rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
        // For less than a minute: then the control plane takes it for lost.
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "Test", "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels }, "spec": { "taints": taints },
            "status": { "capacity": resources, "allocatable": resources, "conditions": [ready] },
        });
        assert_eq!(try_apply(&object.to_string()), Ok(()));
        node
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let kubectl = |arguments: &[&str]| _ = Command::new("kubectl").args(arguments).output();
        kubectl(&["delete", "node", self.name]);
        // Nobody else says that they have ended.
        let of_node = format!("spec.nodeName={}", self.name);
        kubectl(&["delete", "pods", "-A", "--force", "--grace-period=0", "--field-selector", &of_node]);
    }
}

/// What the test has made. The nodes go first: a pod that is deleted waits for the kubelet of its node.
struct Scene {
    nodes: [Node; 4],
    release: Release,
}

// === impl Scene ===

impl Scene {
    /// The nodes that have the pods of a component, once these are so many and each has one.
    fn nodes_of(&self, component: &str, count: usize) -> BTreeSet<String> {
        let mut found = Vec::new();
        wait_for("a node for each pod", || {
            let pods = self.release.pods(component);
            found =
                pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned)).collect();
            found.len() == count
        });
        found.into_iter().collect()
    }
}

fn profile() -> Value {
    let text = std::fs::read_to_string(format!("{CHART}/values-ha.yaml")).unwrap();
    yaml_serde::from_str(&text).unwrap()
}

/// Scenario: the profile for availability where there is one node.
/// Guarantee: all three replicas run. One that waited would count as away, and no node could be drained.
#[test]
#[ignore = "needs a cluster"]
fn replicas_run_where_there_are_fewer_nodes() {
    let site = Site::open("node");
    let release = site.install_with(&profile());
    let is_ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    wait_for("three replicas", || release.pods("injector").iter().filter(|pod| is_ready(pod)).count() == 3);
    wait_for("room for a drain", || {
        let budget = kubectl(&["get", "poddisruptionbudget", "sidelight-injector", "-n", NAME, "-o", "json"]);
        budget["status"]["disruptionsAllowed"] == 1
    });
}

/// Scenario: the profile for availability where there are four more nodes, two of them in another zone, of which one is kept for
/// other work.
/// Guarantee: each of the three replicas gets a node of its own, one is in the other zone, and none where other work is; each of the
/// five nodes gets an agent.
#[test]
#[ignore = "needs a cluster"]
fn replicas_are_spread_over_nodes_and_zones_and_each_node_has_an_agent() {
    let site = Site::open("nodes");
    let none = json!([]);
    let kept = json!([{ "key": "dedicated", "value": "batch", "effect": "NoSchedule" }]);
    let nodes =
        [("node-2", "a", &none), ("node-3", "a", &none), ("node-4", "b", &none), ("node-5", "b", &kept)];
    let nodes = nodes.map(|(name, zone, taints)| Node::add(name, zone, taints));
    let scene = Scene { nodes, release: site.begin_with(&profile()) };
    // Without anything that measures, the autoscaler makes as many as there must be.
    let replicas = scene.nodes_of("injector", 3);
    assert_eq!((replicas.len(), replicas.contains("node-5")), (3, false), "{replicas:?}");
    let is_in_b = |node: &Node| node.zone == "b" && replicas.contains(node.name);
    assert!(scene.nodes.iter().any(is_in_b), "{replicas:?}");
    assert_eq!(scene.nodes_of("agent", 5).len(), 5);
}
