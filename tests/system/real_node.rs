//! The agent beside a real kubelet: its own pages, and a real Prometheus that scrapes pods through the agent.
//!
//! As `real_exporters`.

use serde_json::{Value, json};

use crate::real_exporters::{IMAGE, PORT};
use crate::real_kubernetes::stage::{Stage, kubectl, name, port_at, text, wait_for};
use crate::real_prometheus::program::Program;

/// A service that serves metrics, and asks to be scraped.
fn service(app: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}, "annotations": {"sidelight.dev/metrics": "true"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "volumes": [{"name": "served", "emptyDir": {}}],
            "containers": [{
                "name": "app", "image": IMAGE, "imagePullPolicy": "Never", "args": ["prometheus"],
                "ports": [{"containerPort": PORT}],
                "env": [{"name": "POD", "value": "service"}],
                "volumeMounts": [{"name": "served", "mountPath": "/served"}],
            }],
        },
    })
}

/// The labels of a series, and its value.
fn only(found: &[Value]) -> Option<(&Value, &Value)> {
    let [series] = found else { return None };
    Some((&series["metric"], &series["value"][1]))
}

/// Scenario: both pages of the kubelet are wanted; then the pod of which they tell is deleted.
/// Guarantee: Prometheus has what the kubelet says of the pod, with the labels that rules for Kubernetes know, and of the node;
/// the pod's series end.
#[test]
#[ignore = "needs a real Kubernetes and a receiver: just cluster up, tests/receivers/build"]
fn what_the_kubelet_says_of_a_container_is_in_prometheus() {
    let stage = Stage::new("kubelet");
    let prometheus = Program::newer_prometheus(stage.directory.path());
    let (namespace, port) = (&stage.namespace, prometheus.port);
    let agent = stage.agent(&format!(
        "metrics: {{ select: none, namespaces: [{namespace}], interval: 2s, timeout: 2s, kubelet: all, outputs: [ {{ remote_write: {{ \
         url: 'http://127.0.0.1:{port}/api/v1/write', flush_interval: 200ms }} }} ] }}\n"
    ));
    let pods = stage.run("service", 1, &service("service"));
    // By a pod that stays the agent knows the node's address, as by its own.
    stage.run("stays", 1, &service("stays"));
    let of_pod = |metric: &str, path: &str| {
        let pod = name(&pods[0]);
        format!("{metric}{{job=\"kubelet\",metrics_path=\"{path}\",namespace=\"{namespace}\",pod=\"{pod}\"}}")
    };
    let queries = [
        of_pod("container_cpu_usage_seconds_total", "/metrics/resource"),
        of_pod("container_memory_working_set_bytes", "/metrics/cadvisor"),
        "node_memory_working_set_bytes{job=\"kubelet\"}".to_owned(),
        "up{job=\"kubelet\",metrics_path=\"/metrics/cadvisor\"} == 1".to_owned(),
    ];
    for query in &queries {
        wait_for(query, || {
            let found = prometheus.query(query);
            only(&found).is_some_and(|(labels, _)| {
                let instance = port_at(&pods[0]["status"]["hostIP"], 10250).to_string();
                (&labels["instance"], &labels["node"]) == (&json!(instance), &pods[0]["spec"]["nodeName"])
            })
        });
    }
    kubectl(&["delete", "deployment", "service", "--namespace", namespace]);
    for query in &queries[..2] {
        wait_for("the end of the pod's series", || prometheus.query(query).is_empty());
    }
    wait_for("the node's go on", || !prometheus.query(&queries[2]).is_empty());
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0, "{}", agent.log());
}

/// A service account, with a role that lets it scrape through agents if it may; its token.
fn account(stage: &Stage, account: &str, may: bool) -> String {
    let namespace = &stage.namespace;
    kubectl(&["create", "serviceaccount", account, "--namespace", namespace]);
    if may {
        let name = format!("{namespace}-{account}");
        kubectl(&[
            "create",
            "clusterrole",
            &name,
            "--verb=get",
            "--non-resource-url=/sd/prometheus,/proxy/*",
        ]);
        let subject = format!("--serviceaccount={namespace}:{account}");
        kubectl(&["create", "clusterrolebinding", &name, &format!("--clusterrole={name}"), &subject]);
    }
    let command = ["create", "token", account, "--namespace", namespace, "--output", "json"];
    let token = kubectl(&command);
    text(&token["status"]["token"]).to_owned()
}

/// Scenario: Prometheus finds the node's pods by the agent's list, and scrapes them through it, with a token that RBAC allows;
/// another Prometheus has a token that it does not; then the pod is deleted.
/// Guarantee: the first has the pod's series under the pod's labels, `up` among them, and their end; the other gets nothing.
#[test]
#[ignore = "needs a real Kubernetes and Debian's prometheus: just cluster up"]
fn prometheus_scrapes_pods_through_the_agent_with_a_token() {
    let stage = Stage::new("pull");
    let namespace = &stage.namespace;
    let agent = stage.agent(&format!(
        "metrics: {{ namespaces: [{namespace}], pull: {{ listen: '127.0.0.1:0', auth: token }} }}\n"
    ));
    let pods = stage.run("service", 1, &service("service"));
    let prometheus = |name: &str, may: bool| {
        let directory = stage.directory.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("token"), account(&stage, name, may)).unwrap();
        let credentials =
            format!("authorization: {{ type: Bearer, credentials_file: {}/token }}", directory.display());
        let text = format!(
            "scrape_configs: [ {{ job_name: pods, honor_labels: true, scrape_interval: 2s, {credentials}, http_sd_configs: [ {{ \
             url: 'http://{}/sd/prometheus', refresh_interval: 2s, {credentials} }} ] }} ]\n",
            agent.pull_address()
        );
        Program::prometheus_with(&directory, &text)
    };
    let (right, wrong) = (prometheus("right", true), prometheus("wrong", false));
    let pod = name(&pods[0]);
    let pages = format!("pages_served_total{{pod=\"{pod}\"}}");
    wait_for("pages", || only(&right.query(&pages)).is_some_and(|(_, value)| value != "1"));
    let instance = port_at(&pods[0]["status"]["podIP"], PORT).to_string();
    for metric in ["pages_served_total", "up"] {
        let found = right.query(&format!("{metric}{{pod=\"{pod}\"}}"));
        let (labels, _) = only(&found).unwrap();
        let labels =
            ["namespace", "job", "instance", "container"].map(|label| text(&labels[label]).to_owned());
        assert_eq!(
            labels,
            [namespace.clone(), format!("{namespace}/service"), instance.clone(), "app".to_owned()]
        );
    }
    assert_eq!(only(&right.query(&format!("up{{pod=\"{pod}\"}}"))).unwrap().1, "1");
    assert!(wrong.query("up").is_empty());
    kubectl(&["delete", "deployment", "service", "--namespace", namespace]);
    wait_for("the end of the pod's series", || right.query(&format!("{{pod=\"{pod}\"}}")).is_empty());
}
