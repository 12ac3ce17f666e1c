//! The pages of the node's own kubelet.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::http::{Answer, serve_on};
use sidelight_tests::kubelet::{Node, pod};
use sidelight_tests::remote_write_server::RemoteWriteServer;
use sidelight_tests::tls::Authority;

use crate::BINARY;

/// What a kubelet serves, and to whom.
struct Kubelet {
    address: Ipv4Addr,
    served: Arc<Mutex<Served>>,
}

#[derive(Default)]
struct Served {
    token: String,
    cadvisor: String,
}

// === impl Kubelet ===

impl Kubelet {
    /// At the port of every kubelet; the address is this process's own.
    fn start(token: &str) -> Self {
        let [a, b, c, d] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 1 + (a & 63), b ^ c, d.clamp(1, 254));
        let listener = TcpListener::bind((address, 10250)).unwrap();
        let served = Arc::new(Mutex::new(Served { token: token.to_owned(), cadvisor: String::new() }));
        let serving = served.clone();
        serve_on(listener, Some(Authority::new().server("node-1", None)), move |request| {
            let served = serving.lock().unwrap();
            if request.headers.get("authorization") != Some(&format!("Bearer {}", served.token)) {
                return Answer::status(401);
            }
            let page = match request.path.as_str() {
                "/metrics/cadvisor" => served.cadvisor.clone(),
                "/metrics/resource" => "node_cpu_usage_seconds_total 3\n".to_owned(),
                _ => return Answer::status(404),
            };
            let headers = vec![("content-type", "text/plain; version=0.0.4; charset=utf-8".to_owned())];
            Answer { headers, body: page.into_bytes(), ..Answer::status(200) }
        });
        Kubelet { address, served }
    }

    /// From now on cAdvisor says that these containers, each of a namespace and a pod, had so much memory some seconds ago;
    /// gives that time.
    fn serve(&self, containers: &[(&str, &str, u64)]) -> i64 {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64 - 5_000;
        let lines = containers.iter().map(|(namespace, pod, memory)| {
            format!("memory{{container=\"app\",namespace=\"{namespace}\",pod=\"{pod}\"}} {memory} {millis}\n")
        });
        self.served.lock().unwrap().cadvisor = format!("machine_cpu_cores 2\n{}", lines.collect::<String>());
        millis
    }

    fn labels(&self, own: [&str; 3], path: &str) -> String {
        let [container, namespace, pod] = own;
        let address = self.address;
        format!(
            "{{{container}instance=\"{address}:10250\",job=\"kubelet\",metrics_path=\"/metrics/{path}\",{namespace}node=\"node-1\"{pod}}}"
        )
    }

    fn memory(&self, namespace: &str, pod: &str) -> String {
        let (namespace, pod) = (format!("namespace=\"{namespace}\","), format!(",pod=\"{pod}\""));
        format!("memory{}", self.labels(["container=\"app\",", &namespace, &pod], "cadvisor"))
    }

    fn pod(&self, namespace: &str, name: &str) -> Value {
        let mut pod = pod(name, &json!({}));
        pod["metadata"]["namespace"] = json!(namespace);
        pod["metadata"]["labels"] = json!({"team": name});
        pod["status"]["phase"] = json!("Running");
        pod["status"]["hostIP"] = json!(self.address.to_string());
        pod
    }
}

/// Writes a kubeconfig whose token is in a file, as that of a service account.
fn write_kubeconfig(directory: &Path) {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "test", "user": {"tokenFile": directory.join("token")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(directory.join("kubeconfig"), config.to_string()).unwrap();
}

/// An agent with an output for all but one namespace, and one for the pods of team `web`.
fn start(node: &Node, [all, web]: [&RemoteWriteServer; 2]) -> Agent {
    let directory = node.path().display();
    let output = |name: &str, matching: &str, server: &RemoteWriteServer| {
        let url = server.url();
        format!(
            "{{ name: {name}, match: {{ {matching} }}, remote_write: {{ url: '{url}', flush_interval: 100ms }} }}"
        )
    };
    let outputs = [
        output("all", "namespaces: ['*', '!private']", all),
        output("web", "namespaces: [shop], labels: team=web", web),
    ];
    let outputs = outputs.join(", ");
    let config = format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
         logs: {{ root: {directory}/pods, outputs: [ {{ stdout: {{}} }} ] }}\n\
         metrics: {{ interval: 1s, timeout: 1s, namespaces: ['*', '!left-out'], kubelet: all, outputs: [ {outputs} ] }}\n"
    );
    let kubeconfig = format!("KUBECONFIG={directory}/kubeconfig");
    Agent::start_through(&["env", &kubeconfig], BINARY, node.path(), &config)
}

/// Scenario: the kubelet tells of pods in namespaces of two outputs, of one output, of none, and of the node; then a pod is
/// gone, and the token of the service account is replaced.
/// Guarantee: each series goes where the samples of its pod go, with the labels that the rules for Kubernetes know, its own
/// time once, and a mark at its end; the new token is read by itself, and a page that fails ends nothing.
#[test]
fn the_kubelets_pages_arrive_by_pod() {
    let (node, all, web) = (Node::new(), RemoteWriteServer::start(), RemoteWriteServer::start());
    let kubelet = Kubelet::start("first");
    std::fs::write(node.path().join("token"), "first\n").unwrap();
    write_kubeconfig(node.path());
    let pods = [("shop", "web"), ("shop", "db"), ("private", "x"), ("left-out", "y")];
    node.write_pods(&pods.map(|(namespace, name)| kubelet.pod(namespace, name)));
    let time = kubelet.serve(&pods.map(|(namespace, name)| (namespace, name, 5)));
    let agent = start(&node, [&all, &web]);
    let [of_web, of_db] = ["web", "db"].map(|pod| kubelet.memory("shop", pod));
    eventually("the pods' memory", || all.value(&of_web) == Some(5.0) && all.value(&of_db) == Some(5.0));
    eventually("the same at the other output", || web.value(&of_web) == Some(5.0));
    assert_eq!(all.samples(&of_db)[0].timestamp, time);
    for (name, path) in
        [("machine_cpu_cores", "cadvisor"), ("node_cpu_usage_seconds_total", "resource"), ("up", "resource")]
    {
        let series = format!("{name}{}", kubelet.labels(["", "", ""], path));
        eventually(name, || all.value(&series).is_some());
    }

    std::fs::write(node.path().join("token"), "second\n").unwrap();
    kubelet.served.lock().unwrap().token = "second".to_owned();
    kubelet.serve(&[("shop", "web", 6)]);
    eventually("the next page", || web.value(&of_web) == Some(6.0) && all.value(&of_web) == Some(6.0));
    eventually("the end of a pod", || all.value(&of_db).is_none());

    kubelet.served.lock().unwrap().token = "third".to_owned();
    let error = |agent: &Agent| agent.api("/api/v1/targets")["targets"][0]["last_error"].to_string();
    eventually("the reason", || error(&agent).contains("401"));
    std::fs::remove_file(node.path().join("token")).unwrap();
    eventually("the other reason", || error(&agent).contains("no token"));

    std::fs::write(node.path().join("token"), "third\n").unwrap();
    eventually("pages again", || agent.api("/api/v1/targets")["targets"][0]["last_error"].is_null());
    kubelet.serve(&[("shop", "web", 7)]);
    eventually("what is newer", || all.value(&of_web) == Some(7.0));
    assert_eq!(all.samples(&of_db).len(), 2, "a sample and a mark");

    for (server, is_all) in [(&all, true), (&web, false)] {
        let memory = server.named("memory");
        assert_eq!(memory.len(), if is_all { 2 } else { 1 }, "{memory:?}");
        assert_eq!(server.named("up").is_empty(), !is_all);
        server.assert_clean();
    }
}
