//! The way of a sample: from a pod's page to a receiver of remote write.

use std::time::Duration;

use serde_json::{Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::http::Answer;
use sidelight_tests::kubelet::{Node, pod};
use sidelight_tests::remote_write_server::RemoteWriteServer;

use crate::BINARY;

pub(crate) const ASKS: (&str, &str) = ("sidelight.dev/metrics", "true");

/// A running pod of the Deployment `NAME-owner` whose container `app` declares the exporter's port.
pub(crate) fn serving(name: &str, exporter: &Exporter, annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<_, _> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let mut pod = pod(name, &annotations.into());
    pod["spec"]["containers"][0]["ports"] = json!([{"name": "metrics", "containerPort": exporter.port()}]);
    pod["status"]["phase"] = json!("Running");
    pod["status"]["podIP"] = json!("127.0.0.1");
    pod["status"]["podIPs"] = json!([{"ip": "127.0.0.1"}]);
    pod
}

/// An agent that scrapes the node's pods each second, and sends ten times a second.
pub(crate) fn start(node: &Node, server: &RemoteWriteServer) -> Agent {
    start_with(node, server, "interval: 1s, timeout: 1s")
}

pub(crate) fn start_with(node: &Node, server: &RemoteWriteServer, metrics: &str) -> Agent {
    Agent::start(BINARY, node.path(), &config(node, server, metrics, ""))
}

/// With these keys of `metrics` and of its output.
pub(crate) fn config(node: &Node, server: &RemoteWriteServer, metrics: &str, remote_write: &str) -> String {
    let (directory, url) = (node.path().display(), server.url());
    format!(
        "node: node-1\ndata_dir: {directory}/data\nadmin: {{ listen: '127.0.0.1:0', api: '127.0.0.1:0' }}\n\
         kubernetes: {{ source: file, file: {directory}/pods.json }}\n\
         logs: {{ root: {directory}/pods, outputs: [ {{ stdout: {{}} }} ] }}\n\
         metrics: {{ {metrics}, outputs: [ {{ remote_write: {{ url: '{url}', flush_interval: 100ms{remote_write} }} }} ] }}\n"
    )
}

/// A series of the pod's target, with these labels of its own.
pub(crate) fn series(name: &str, pod: &str, exporter: &Exporter, own: &str) -> String {
    let port = exporter.port();
    format!(
        "{name}{{container=\"app\",instance=\"127.0.0.1:{port}\",job=\"ns/{pod}-owner\",namespace=\"ns\",node=\"node-1\",pod=\"{pod}\"{own}}}"
    )
}

/// The only target that the API tells of.
fn target(agent: &Agent) -> Value {
    agent.api("/api/v1/targets")["targets"][0].clone()
}

#[test]
fn a_page_arrives_under_the_labels_of_its_pod() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("# TYPE a counter\na_total{x=\"1\"} 5\n# EOF\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let agent = start(&node, &server);
    let a = series("a_total", "web", &exporter, ",x=\"1\"");
    eventually("the sample", || server.value(&a) == Some(5.0));
    for (own, value) in
        [("up", 1.0), ("scrape_samples_scraped", 1.0), ("scrape_samples_post_metric_relabeling", 1.0)]
    {
        assert_eq!(server.value(&series(own, "web", &exporter, "")), Some(value), "{own}");
    }
    exporter.serve("a_total{x=\"1\"} 6\n");
    eventually("the next one", || server.value(&a) == Some(6.0));
    let target = target(&agent);
    assert_eq!(
        (&target["state"], &target["samples"], &target["uid"]),
        (&json!("up"), &json!(1), &json!("uid-web"))
    );
    assert_eq!(target["labels"]["job"], "ns/web-owner");
    let explained = agent.api("/api/v1/explain?pod=ns/web");
    assert_eq!(explained["metrics"][0]["collected"], true, "{explained}");
}

/// Scenario: rules drop one series, rename another and take a label from a third.
/// Guarantee: they apply to the page and not to what the scrape itself makes; external labels are on both.
#[test]
fn series_are_relabelled_as_the_operator_wants_them() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("noise{x=\"1\"} 1\nold_name 2\nkept{secret=\"s\"} 3\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let rules = "interval: 1s, timeout: 1s, external_labels: { cluster: 'c' }, relabel: [ \
        { action: drop, source_labels: [__name__], regex: 'noise|up' }, \
        { source_labels: [__name__], regex: 'old_(.*)', target_label: __name__, replacement: 'new_${1}' }, \
        { action: labeldrop, regex: secret } ]";
    let _agent = start_with(&node, &server, rules);
    // By name, `cluster` comes before `container`.
    let labelled = |name: &str| series(name, "web", &exporter, "").replace('{', "{cluster=\"c\",");
    for (name, value) in [("new_name", 2.0), ("kept", 3.0), ("up", 1.0), ("scrape_samples_scraped", 3.0)] {
        eventually(name, || server.value(&labelled(name)) == Some(value));
    }
    assert_eq!(server.value(&labelled("scrape_samples_post_metric_relabeling")), Some(2.0));
    assert_eq!((server.named("noise").len(), server.named("old_name").len()), (0, 0));
}

/// Scenario: a pod that is not scraped has a container that is killed for its memory and waits to be started again; then
/// the pod is gone.
/// Guarantee: its restarts, its end, what it waits for and its resources are there under the pod's labels, for the receiver
/// and for whoever pulls, and not among the agent's own; they end with the pod.
#[test]
fn the_state_of_the_nodes_containers_is_told() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let mut pod = pod("web", &json!({}));
    pod["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}});
    let status = &mut pod["status"]["containerStatuses"][0];
    status["restartCount"] = json!(4);
    status["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    status["lastState"] = json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}});
    node.write_pods(&[pod.clone()]);
    let agent = start(&node, &server);
    let labels = |own: &str, behind: &str| {
        format!(
            "{{container=\"app\",{own}job=\"ns/web-owner\",namespace=\"ns\",node=\"node-1\",pod=\"web\"{behind}}}"
        )
    };
    let name = |name: &str| format!("sidelight_container_{name}");
    let restarts = name("restarts_total") + &labels("", "");
    let waiting = name("waiting") + &labels("", ",reason=\"CrashLoopBackOff\"");
    let memory = name("resource_limits") + &labels("", ",resource=\"memory\"");
    let told = [
        (&restarts, 4.0),
        (&(name("last_terminated") + &labels("exit_code=\"137\",", ",reason=\"OOMKilled\"")), 1.0),
        (&waiting, 1.0),
        (&(name("resource_requests") + &labels("", ",resource=\"cpu\"")), 0.25),
        (&memory, f64::from(128 << 20)),
    ];
    for (series, value) in told {
        eventually(series, || server.value(series) == Some(value));
    }
    assert_eq!(server.named("up").len(), 0, "it is not scraped");
    let pulled = agent.get("/metrics/containers").1;
    assert!(pulled.contains(&format!("{waiting} 1\n")), "{pulled}");
    assert!(!agent.get("/metrics").1.contains("sidelight_container_"));
    pod["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    pod["status"]["containerStatuses"][0]["restartCount"] = json!(5);
    node.write_pods(&[pod]);
    eventually("it runs", || server.value(&restarts) == Some(5.0) && server.value(&waiting).is_none());
    node.write_pods(&[]);
    eventually("the end", || server.value(&restarts).is_none() && server.value(&memory).is_none());
}

/// Scenario: the receiver wants a tenant and a password; the password is replaced.
/// Guarantee: each request has them, the new one as soon as it is there, and the API shows neither.
#[test]
fn a_receiver_is_told_the_tenant_and_the_password() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let password = node.path().join("password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let keys = format!(
        ", headers: {{ X-Scope-OrgID: team-a }}, basic_auth: {{ username: user, password_file: {} }}",
        password.display()
    );
    let agent =
        Agent::start(BINARY, node.path(), &config(&node, &server, "interval: 1s, timeout: 1s", &keys));
    eventually("a request", || server.requests() > 0);
    assert_eq!(server.header("x-scope-orgid").as_deref(), Some("team-a"));
    assert_eq!(server.header("authorization").as_deref(), Some("Basic dXNlcjpvcGVuIHNlc2FtZQ=="));
    let shown = agent.api("/api/v1/config").to_string();
    assert!(
        shown.contains("X-Scope-OrgID") && !shown.contains("sesame") && !shown.contains("team-a"),
        "{shown}"
    );
    std::fs::write(password.with_extension("new"), "x").unwrap();
    std::fs::rename(password.with_extension("new"), &password).unwrap();
    eventually("the new one", || server.header("authorization").as_deref() == Some("Basic dXNlcjp4"));
}

/// Scenario: the rules of an output drop a series, `up` with it, and take a label from the others; then the pod is gone.
/// Guarantee: the receiver gets the rest, under the labels that are left, and their end; of two that are the same now, the
/// first.
#[test]
fn a_receiver_gets_what_its_rules_leave() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("noise 1\nkept{x=\"1\"} 3\nkept{x=\"2\"} 4\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let rules = ", relabel: [ { action: drop, source_labels: [__name__], regex: 'noise|up' }, \
        { action: labeldrop, regex: 'node|x' } ]";
    let _agent =
        Agent::start(BINARY, node.path(), &config(&node, &server, "interval: 1s, timeout: 1s", rules));
    let kept = series("kept", "web", &exporter, "").replace("node=\"node-1\",", "");
    eventually("what is kept", || server.value(&kept) == Some(3.0));
    node.write_pods(&[]);
    eventually("its end", || server.value(&kept).is_none());
    assert_eq!(["noise", "up"].map(|name| server.named(name).len()), [0, 0]);
    assert_eq!(server.named("kept").len(), 1);
}

/// Scenario: a pod is replaced by one of the same name, as a StatefulSet's is.
/// Guarantee: the series of its containers end before those of the new one begin, which are the same.
#[test]
fn the_end_of_a_replaced_pod_comes_before_its_successor() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let mut pod = pod("db-0", &json!({}));
    node.write_pods(&[pod.clone()]);
    let _agent = start(&node, &server);
    let restarts = "sidelight_container_restarts_total{container=\"app\",job=\"ns/db-0-owner\",namespace=\"ns\",node=\"node-1\",pod=\"db-0\"}";
    for uid in ["second", "third", "fourth"] {
        let count = server.samples(restarts).len();
        eventually("a few samples", || server.samples(restarts).len() > count + 2);
        pod["metadata"]["uid"] = json!(uid);
        node.write_pods(&[pod.clone()]);
    }
    let ends = || server.samples(restarts).iter().filter(|sample| sample.value.is_none()).count();
    eventually("three ends", || ends() == 3);
    let samples = server.samples(restarts);
    let next = samples.iter().rposition(|sample| sample.value.is_none()).unwrap();
    eventually("a sample behind the last", || server.samples(restarts).len() > next + 1);
    let gaps: Vec<_> = samples.windows(2).filter(|pair| pair[0].value.is_none()).collect();
    assert!(gaps.iter().all(|pair| pair[1].timestamp - pair[0].timestamp < 500), "at once: {gaps:?}");
}

/// Scenario: a series is not on the page any more; then the pod is gone.
/// Guarantee: the series is marked as ended with the next scrape, then all of the target's, `up` too.
#[test]
fn what_is_gone_is_marked_as_ended() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\nb 2\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let _agent = start(&node, &server);
    let [a, b, up] = ["a", "b", "up"].map(|name| series(name, "web", &exporter, ""));
    eventually("both", || server.value(&a).is_some() && server.value(&b).is_some());
    exporter.serve("a 1\n");
    eventually("the end of one", || server.value(&b).is_none());
    assert_eq!((server.value(&a), server.value(&up)), (Some(1.0), Some(1.0)));
    node.write_pods(&[]);
    eventually("the end of all", || server.value(&a).is_none() && server.value(&up).is_none());
    let ended: Vec<_> = server.samples(&b).into_iter().filter(|sample| sample.value.is_none()).collect();
    assert_eq!(ended.len(), 1, "once");
}

/// Scenario: a page with a line that is wrong, an answer that is no page, nobody who answers.
/// Guarantee: `up` is 0, the series end, and `targets` says why; with the next whole page all is well.
#[test]
fn a_scrape_that_fails_says_so_and_why() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let agent = start(&node, &server);
    let [a, up] = ["a", "up"].map(|name| series(name, "web", &exporter, ""));
    for (answer, reason) in [
        (
            Answer { body: b"a 1\nb{ 2\n".to_vec(), ..Answer::status(200) },
            "line 2, column 2: a brace is not closed",
        ),
        (Answer::status(503), "the answer is 503"),
        (
            Answer { headers: vec![("location", "http://127.0.0.1:1/".to_owned())], ..Answer::status(302) },
            "redirects are not followed",
        ),
    ] {
        exporter.serve("a 1\n");
        eventually("a page", || server.value(&a) == Some(1.0) && server.value(&up) == Some(1.0));
        exporter.answer(answer);
        eventually("up is 0", || server.value(&up) == Some(0.0) && server.value(&a).is_none());
        let target = target(&agent);
        assert_eq!(target["state"], "down");
        assert!(target["last_error"].as_str().unwrap().contains(reason), "{target}");
    }
}

#[test]
fn a_target_cannot_pass_for_another() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a{pod=\"other\",job=\"x\"} 1\nup{node=\"n\"} 7\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS, ("sidelight.dev/metrics.honor-labels", "true")])]);
    let _agent = start(&node, &server);
    let port = exporter.port();
    let a = format!(
        "a{{container=\"app\",exported_job=\"x\",exported_pod=\"other\",instance=\"127.0.0.1:{port}\",job=\"ns/web-owner\",namespace=\"ns\",node=\"node-1\",pod=\"web\"}}"
    );
    eventually("under its own name", || server.value(&a) == Some(1.0));
    assert_eq!(server.value(&series("up", "web", &exporter, "")), Some(1.0));
    assert_eq!(server.named("up").len(), 1);
}

/// Scenario: a pod has been told to end; its counters have moved since the last scrape.
/// Guarantee: its page is read once more, then its series end.
#[test]
fn the_last_page_of_a_pod_that_ends_is_not_lost() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    let mut pod = serving("web", &exporter, &[ASKS]);
    node.write_pods(std::slice::from_ref(&pod));
    let _agent = start_with(&node, &server, "interval: 10s, timeout: 1s");
    let a = series("a", "web", &exporter, "");
    eventually("the first page", || server.value(&a) == Some(1.0));
    exporter.serve("a 2\n");
    pod["metadata"]["deletionTimestamp"] = json!("2026-11-24T10:00:00Z");
    node.write_pods(&[pod]);
    eventually("the end", || server.value(&a).is_none());
    let values: Vec<_> = server.samples(&a).into_iter().map(|sample| sample.value).collect();
    assert_eq!(values[values.len() - 2..], [Some(2.0), None]);
    assert!(exporter.scrapes() >= 2);
}

/// Scenario: the receiver is overloaded, then rejects a request, then is well.
/// Guarantee: what it could not take comes again, in order; what it rejects is counted and holds nothing up.
#[test]
fn a_receiver_that_fails_gets_it_again_and_one_that_rejects_does_not() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let wait = Answer { headers: vec![("retry-after", "1".to_owned())], ..Answer::status(429) };
    server.refuse([Answer::status(503), wait, Answer::status(500)]);
    let agent = start(&node, &server);
    let a = series("a", "web", &exporter, "");
    eventually("three scrapes", || server.samples(&a).len() >= 3);
    assert_eq!(agent.metric("sidelight_remote_write_retries_total"), 3.0);
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
    server.refuse([Answer { body: b"it is too old".to_vec(), ..Answer::status(400) }]);
    eventually("the rejection", || agent.metric("sidelight_remote_write_dropped_samples_total") > 0.0);
    eventually("its reason in the log", || agent.log().contains("it is too old"));
    let before = server.samples(&a).len();
    eventually("the next scrape", || server.samples(&a).len() > before);
    assert_eq!(agent.metric("sidelight_remote_write_retries_total"), 3.0);
}

/// Scenario: the agent is told to stop.
/// Guarantee: what it has is sent at once, and no series is marked as ended: another agent will go on with them.
#[test]
fn a_stop_sends_what_there_is_and_ends_no_series() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let agent = start(&node, &server);
    let a = series("a", "web", &exporter, "");
    eventually("a scrape", || server.value(&a).is_some());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(agent.stop(), 0);
    assert_eq!(server.value(&a), Some(1.0));
    let (scrapes, samples) = (exporter.scrapes(), server.samples(&a).len() as u64);
    assert_eq!(scrapes, samples, "every scrape has arrived");
}

#[test]
fn what_is_not_scraped_is_listed_with_the_reason() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    let mut several = serving("web", &exporter, &[ASKS]);
    several["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}, {"containerPort": 81}]);
    node.write_pods(&[several]);
    let agent = start(&node, &server);
    eventually("the pod is known", || target(&agent)["state"] == "skipped");
    let reason = "several ports and none is called metrics: 80, 81; set sidelight.dev/metrics.port";
    assert_eq!(target(&agent)["reason"], reason);
    assert_eq!(agent.api("/api/v1/explain?pod=ns/web")["metrics"][0]["reason"], reason);
    assert_eq!(exporter.scrapes(), 0);
}

/// Scenario: a label of one target explodes.
/// Guarantee: what is above the limit is dropped and counted, the log says so, `up` stays 1, and what was known goes on.
#[test]
fn a_label_that_explodes_takes_nothing_else_away() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a 1\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let agent = start_with(&node, &server, "interval: 1s, timeout: 1s, series_limit: 10, containers: false");
    let [a, up] = ["a", "up"].map(|name| series(name, "web", &exporter, ""));
    eventually("the first page", || server.value(&a) == Some(1.0));
    let flood: String = (0..1_000).map(|user| format!("b{{user=\"{user}\"}} 1\n")).collect();
    exporter.serve(&format!("{flood}a 2\n"));
    eventually("the known series", || server.value(&a) == Some(2.0));
    assert_eq!(server.value(&up), Some(1.0));
    assert_eq!(server.named("b").len(), 9);
    assert!(agent.metric("sidelight_series_dropped_total") >= 991.0);
    assert!(agent.log().contains("there is no place for new series of a page"));
    assert_eq!(agent.metric("sidelight_series"), 10.0);
}
