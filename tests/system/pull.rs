//! Scraping by others: the list of targets and their pages.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::http::{Answer, Request, serve};
use sidelight_tests::kubelet::Node;
use sidelight_tests::tls::Authority;

use crate::BINARY;
use crate::metrics::{ASKS, serving};

/// `metrics` and `pull` are further keys; there is no output for samples.
fn config(node: &Node, metrics: &str, pull: &str) -> String {
    let directory = node.path().display();
    format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
         logs: {{ root: {directory}/pods, outputs: [ {{ stdout: {{}} }} ] }}\n\
         metrics: {{ {metrics}pull: {{ listen: '127.0.0.1:0'{pull} }} }}\n"
    )
}

/// Asks for a path, with these headers; the answer's status, head and body.
fn ask(stream: &mut (impl Read + Write), path: &str, headers: &str) -> (u16, String, String) {
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n{headers}\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (status, head.to_owned(), body.to_owned())
}

fn get(agent: &Agent, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(agent.pull_address()).unwrap();
    let (status, _, body) = ask(&mut stream, path, "");
    (status, body)
}

/// The groups of the list, once there are so many.
fn groups(agent: &Agent, count: usize) -> Vec<Value> {
    let list = || get(agent, "/sd/prometheus");
    let groups = |list: &str| serde_json::from_str::<Vec<Value>>(list).unwrap();
    // Until the pods are known, there is none.
    eventually("the list", || matches!(list(), (200, list) if groups(&list).len() == count));
    groups(&list().1)
}

/// Scenario: others scrape a pod, whose page changes, fails and takes long; a pod without a page; the configuration is loaded
/// anew; the pod is gone.
/// Guarantee: the list has the target with its labels, at this agent; its page has them too, and the operator's rules applied; a
/// page that cannot be had is an error with the reason; what is no target is not asked for.
#[test]
fn others_get_the_list_of_targets_and_their_pages() {
    let node = Node::new();
    let exporter = Exporter::start("# TYPE a counter\na_total{pod=\"x\"} 5\nnoise 1\nup 7\n");
    let asked = ("sidelight.dev/metrics.path", "/m%C3%A9?b=2&a=1&match[]=x&flag");
    node.write_pods(&[serving("web", &exporter, &[ASKS, asked]), serving("quiet", &exporter, &[])]);
    let rules = "relabel: [ { action: drop, source_labels: [__name__], regex: noise } ], ";
    let agent = Agent::start(BINARY, node.path(), &config(&node, rules, ""));
    let group = groups(&agent, 1).remove(0);
    let port = exporter.port();
    assert_eq!(group["targets"], json!([agent.pull_address()]));
    let labels = json!({
        "__metrics_path__": format!("/proxy/uid-web/{port}/mé"), "__param_a": "1", "__param_b": "2", "__scheme__": "http",
        "container": "app", "instance": format!("127.0.0.1:{port}"), "job": "ns/web-owner", "namespace": "ns", "node": "node-1",
        "pod": "web",
    });
    assert_eq!(group["labels"], labels);
    // Prometheus sorts them, and cannot say the others.
    let path = format!("/proxy/uid-web/{port}/m%C3%A9?a=1&b=2");
    let own = format!(
        "container=\"app\",instance=\"127.0.0.1:{port}\",job=\"ns/web-owner\",namespace=\"ns\",node=\"node-1\",pod=\"web\""
    );
    let with_forged = own.replace("instance", "exported_pod=\"x\",instance");
    let page = format!("# TYPE a_total counter\na_total{{{with_forged}}} 5\nexported_up{{{own}}} 7\n");
    assert_eq!(get(&agent, &path), (200, page));
    assert_eq!(agent.api("/api/v1/targets")["targets"][1]["state"], "up");

    exporter.serve("# TYPE a counter\na_total 6\n# EOF\n");
    let mut stream = TcpStream::connect(agent.pull_address()).unwrap();
    let (_, head, page) =
        ask(&mut stream, &path, "Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n");
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert_eq!(page, format!("# TYPE a counter\na_total{{{own}}} 6\n# EOF\n"));
    exporter.answer(Answer::status(500));
    let (status, reason) = get(&agent, &path);
    assert!(status == 502 && reason.contains("500"), "{reason}");
    assert_eq!(agent.api("/api/v1/targets")["targets"][1]["state"], "down");

    let slow = Exporter::start("a 7\n");
    slow.hang(true);
    node.write_pods(&[serving("slow", &slow, &[ASKS]), serving("web", &exporter, &[ASKS, asked])]);
    groups(&agent, 2);
    let slow_path = format!("/proxy/uid-slow/{}/metrics", slow.port());
    let mut stream = TcpStream::connect(agent.pull_address()).unwrap();
    let answer = ask(&mut stream, &slow_path, "X-Prometheus-Scrape-Timeout-Seconds: 0.3\r\n");
    assert!(answer.0 == 502 && answer.2.contains("within the timeout of 0."), "{answer:?}");
    slow.hang(false);
    eventually("it answers again", || get(&agent, &slow_path).0 == 200);

    exporter.serve("a 7\n");
    let scrapes = exporter.scrapes();
    for wrong in [
        "/proxy/uid-quiet/1/m",
        "/proxy/uid-web/1/m",
        "/proxy/uid-web/x",
        "/proxy/",
        "/proxy/uid-web",
        "/metrics",
        "/",
    ] {
        assert_eq!(get(&agent, wrong).0, 404, "{wrong}");
    }
    let wrong = [format!("/proxy/uid-web/{port}/m"), format!("/proxy/uid-quiet/{port}/m%C3%A9")];
    assert!(wrong.iter().all(|wrong| get(&agent, wrong).0 == 404));
    assert_eq!(exporter.scrapes(), scrapes);

    agent.reconfigure(node.path(), &config(&node, "", ""));
    eventually("the reload", || agent.log().matches("others can scrape").count() == 2);
    assert!(get(&agent, &path).1.starts_with("a{"));
    node.write_pods(&[]);
    assert!(groups(&agent, 0).is_empty());
    assert_eq!(get(&agent, &path).0, 404);
}

/// What an API server answers to the two questions about a token.
fn review(request: &Request) -> Answer {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let mut answer = body.clone();
    answer["status"] = match request.path.split('?').next().unwrap() {
        "/apis/authentication.k8s.io/v1/tokenreviews" => match body["spec"]["token"].as_str().unwrap() {
            "of nobody" => json!({"authenticated": false}),
            owner => json!({"authenticated": true, "user": {"username": owner, "groups": ["g"]}}),
        },
        "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let attributes = &body["spec"]["nonResourceAttributes"];
            assert_eq!((&attributes["verb"], &body["spec"]["groups"]), (&json!("get"), &json!(["g"])));
            let may = body["spec"]["user"] == "prometheus" || attributes["path"] == "/sd/prometheus";
            json!({"allowed": may})
        }
        other => panic!("{other}"),
    };
    let headers = vec![("content-type", "application/json".to_owned())];
    Answer { headers, body: answer.to_string().into_bytes(), ..Answer::status(201) }
}

/// Scenario: tokens of an owner who may get everything, of one who may get the list only, of nobody, and none at all; then
/// Kubernetes does not answer.
/// Guarantee: each gets what RBAC allows and no more; Kubernetes is not asked again for each request.
#[test]
fn a_token_lets_in_whom_kubernetes_allows() {
    let (node, exporter) = (Node::new(), Exporter::start("a 1\n"));
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let (asked, is_away) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(false)));
    let (asking, being_away) = (asked.clone(), is_away.clone());
    let api = serve(move |request| {
        asking.fetch_add(1, Ordering::SeqCst);
        if *being_away.lock().unwrap() { Answer::status(500) } else { review(request) }
    });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://{api}")}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    std::fs::write(node.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let kubeconfig = format!("KUBECONFIG={}/kubeconfig", node.path().display());
    let agent =
        Agent::start_through(&["env", &kubeconfig], BINARY, node.path(), &config(&node, "", ", auth: token"));
    let page = format!("/proxy/uid-web/{}/metrics", exporter.port());
    let status = |path: &str, token: &str| {
        let mut stream = TcpStream::connect(agent.pull_address()).unwrap();
        ask(&mut stream, path, &format!("Authorization: Bearer {token}\r\n")).0
    };
    eventually("the list", || status("/sd/prometheus", "prometheus") == 200);
    let before = asked.load(Ordering::SeqCst);
    assert_eq!([status("/sd/prometheus", "prometheus"), status(&page, "prometheus")], [200, 200]);
    assert_eq!(asked.load(Ordering::SeqCst), before + 2, "only about the page");
    assert_eq!([status("/sd/prometheus", "tenant"), status(&page, "tenant")], [200, 403]);
    assert_eq!([status("/sd/prometheus", "of nobody"), status(&page, "of nobody")], [401, 401]);
    assert_eq!(get(&agent, &page).0, 401);
    *is_away.lock().unwrap() = true;
    assert_eq!([status(&page, "another"), status(&page, "prometheus")], [503, 200]);
}

/// Scenario: clients with a certificate of the right authority, of another one, and with none.
/// Guarantee: only the first is served.
#[test]
fn a_certificate_lets_in_whose_authority_is_known() {
    let (node, exporter) = (Node::new(), Exporter::start("a 1\n"));
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let directory = node.path();
    servers.issue("127.0.0.1").write(&directory.join("cert.pem"), &directory.join("key.pem"));
    clients.write(&directory.join("ca.pem"));
    let directory = directory.display();
    let tls = format!(
        ", auth: mtls, tls: {{ cert_file: {directory}/cert.pem, key_file: {directory}/key.pem, client_ca_file: {directory}/ca.pem }}"
    );
    let agent = Agent::start(BINARY, node.path(), &config(&node, "", &tls));
    let list = |own| {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(servers.client(own), name).unwrap();
        let stream = TcpStream::connect(agent.pull_address()).unwrap();
        ask(&mut StreamOwned::new(session, stream), "/sd/prometheus", "")
    };
    eventually("the list", || list(Some(clients.issue("prometheus"))).0 == 200);
    assert!(list(Some(clients.issue("prometheus"))).2.contains("\"__scheme__\":\"https\""));
    assert_eq!([list(Some(strangers.issue("prometheus"))).0, list(None).0], [0, 0]);
}

/// Asks for a path and keeps the connection.
fn asking(agent: &Agent, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(agent.pull_address()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\n\r\n").unwrap();
    stream
}

/// Scenario: a scraper that keeps its connection, then three hundred connections on which nobody says anything.
/// Guarantee: no more than 256 stay open, whoever comes next is served, and the scraper keeps its connection.
#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let (node, exporter) = (Node::new(), Exporter::start("a 1\n"));
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let agent = Agent::start(BINARY, node.path(), &config(&node, "", ""));
    groups(&agent, 1);
    let mut scraper = asking(&agent, "/sd/prometheus");
    assert!(scraper.read(&mut [0; 1_000]).unwrap() > 0);
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(agent.pull_address()).unwrap()).collect();
    silent.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    let is_open = |mut stream: &TcpStream| matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    let open = || silent.iter().filter(|stream| is_open(stream)).count();
    eventually("those above the limit are cut", || open() <= 256);
    assert_eq!(get(&agent, "/sd/prometheus").0, 200);
    assert!(open() > 250 && is_open(&silent[299]));
    assert_eq!(ask(&mut scraper, "/sd/prometheus", "").0, 200);
}

/// Scenario: scrapers of a large page do not read it, more and more of them, while others ask for that page and for one of
/// another namespace; then they are gone.
/// Guarantee: the page is refused with the reason when those on their way have reached their limit, the other one is
/// served, memory is bounded; afterwards the page is served again.
#[test]
fn whoever_does_not_read_his_page_holds_up_no_other_namespace() {
    let node = Node::new();
    let page: String = (0..200).map(|n| format!("a{{n=\"{n}\",x=\"{}\"}} 1\n", "x".repeat(30_000))).collect();
    let (large, small) = (Exporter::start(&page), Exporter::start("b 1\n"));
    let mut other = serving("other", &small, &[ASKS]);
    other["metadata"]["namespace"] = json!("other");
    node.write_pods(&[serving("web", &large, &[ASKS]), other]);
    // Written pages of a namespace may have four times that together: five of these.
    let agent = Agent::start(BINARY, node.path(), &config(&node, "body_limit: 8MiB, ", ""));
    groups(&agent, 2);
    let path = format!("/proxy/uid-web/{}/metrics", large.port());
    let other = || get(&agent, &format!("/proxy/uid-other/{}/metrics", small.port())).0;
    assert_eq!(get(&agent, &path).0, 200);
    let mut lazy = Vec::new();
    let mut answer = (0, String::new());
    eventually("no room", || {
        lazy.push(asking(&agent, &path));
        answer = get(&agent, &path);
        assert_eq!(other(), 200);
        answer.0 != 200
    });
    assert!(answer.0 == 502 && answer.1.contains("have reached their limit"), "{answer:?}");
    for _ in 0..20 {
        lazy.push(asking(&agent, &path));
        assert_eq!((get(&agent, &path).0, other()), (502, 200));
    }
    let targets = agent.api("/api/v1/targets");
    let target =
        targets["targets"].as_array().unwrap().iter().find(|target| target["uid"] == "uid-web").unwrap();
    assert_eq!((&target["state"], &target["last_error"]), (&json!("down"), &json!(answer.1.trim_end())));
    let memory = agent.peak_memory();
    assert!(memory < 64 << 20, "{memory} bytes of memory");
    drop(lazy);
    eventually("the page again", || get(&agent, &path).0 == 200);
}
