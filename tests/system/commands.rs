//! The commands: what they print and how they exit.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use sidelight_tests::eventually;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::Node;

use crate::{BINARY, config, start};

fn sidelight(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

#[test]
fn the_demo_ends_by_itself_and_says_that_every_line_and_the_newest_samples_arrived() {
    let output = sidelight(&["demo", "--for", "3s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("every line arrived; 0 came twice"), "{text}");
    assert!(text.contains("of 28 series; the newest of each pod as counted"), "{text}");
}

#[test]
fn check_prints_every_mistake_with_its_path_and_exits_with_64() {
    let node = Node::new();
    let file = node.path().join("bad.yaml");
    let bad = "logs:\n  root: /x\n  parse: jsno\n  max_record: lots\n  colour: red\n  outputs:\n  - forward: { upstreams: [nohost], tag: '{what}' }\n    match: { labels: 'a in b' }\n";
    std::fs::write(&file, bad).unwrap();
    let output = sidelight(&["check", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64));
    for path in [
        "node:",
        "logs.parse:",
        "logs.max_record:",
        "logs.colour:",
        "upstreams[0]:",
        ".tag:",
        ".match.labels:",
    ] {
        assert!(text.contains(path), "{path} is missing:\n{text}");
    }
    assert!(text.contains("7 mistakes"), "{text}");
}

#[test]
fn check_shows_what_is_in_force_and_the_memory_but_no_secret() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let file = node.path().join("good.yaml");
    std::fs::write(&file, config(&node, &server, "", "      shared_key: hunter2\n")).unwrap();
    let output = sidelight(&["check", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("memory_budget: 24MiB") && text.contains("sum"),
        "{text}"
    );
    assert!(!text.contains("hunter2"));
}

#[test]
fn files_outputs_and_explain_answer_in_tables_and_in_json() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("web");
    log.lines(100, 100);
    let agent = start(&node, &server);
    eventually("all lines", || server.count("web") == 100);
    agent.settle();
    let admin = format!("http://{}", agent.api_address());
    let ask = |arguments: &[&str]| {
        let output = sidelight(&[arguments, &["--admin", &admin]].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, files) = ask(&["files"]);
    assert!(code == Some(0) && files.contains("NAMESPACE") && files.contains("0.log"), "{files}");
    let (_, outputs) = ask(&["outputs", "-o", "json"]);
    let outputs: serde_json::Value = serde_json::from_str(&outputs).unwrap();
    assert_eq!(outputs["outputs"][0]["name"], "forward");
    assert_eq!(outputs["outputs"][0]["delivered"], std::fs::metadata(log.path()).unwrap().len());
    let (code, why) = ask(&["explain", "ns/web"]);
    assert!(code == Some(0) && why.contains("ns/web: collected") && why.contains("tag kube.ns"), "{why}");
    assert_eq!(ask(&["explain", "ns/none"]).0, Some(1));
    assert_eq!(sidelight(&["files", "--admin", "http://127.0.0.1:1"]).status.code(), Some(69));
}

/// Scenario: pages of metrics on standard input.
/// Guarantee: 0 and silence for a page that is right; 1, with line and reason, for one that is not.
#[test]
fn parse_metrics_says_where_a_page_is_wrong() {
    let parse = |arguments: &[&str], page: &str| {
        let mut child = Command::new(BINARY)
            .arg("parse-metrics")
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let silence = (Some(0), String::new());
    assert_eq!(parse(&["--format", "text"], "# a comment\na{b=\"c\"}  1 1395066363000\n"), silence);
    assert_eq!(parse(&["--format", "openmetrics"], "# TYPE a counter\na_total 1\n# EOF\n"), silence);
    assert_eq!(parse(&[], "# TYPE a info\na_info 1\n# EOF"), silence);
    let (code, why) = parse(&[], "# TYPE a counter\na_total -1\n# EOF\n");
    assert_eq!((code, why.as_str()), (Some(1), "line 2: what counts is neither negative nor NaN\n"));
    let (code, why) = parse(&[], "a 1\na{b=c} 1\n");
    assert_eq!((code, why.as_str()), (Some(1), "line 2, column 5: the value of a label stands in quotes\n"));
}

#[test]
fn a_bad_reload_keeps_the_old_config_and_a_good_one_takes_effect() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let mut log = node.container("a");
    let agent = start(&node, &server);
    log.lines(100, 100);
    eventually("the first lines", || server.count("a") == 100);
    let file = node.path().join("sidelight.yaml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "logs: nonsense").unwrap();
    eventually("the bad one is refused", || agent.metric("sidelight_config_last_reload_successful") == 0.0);
    log.lines(100, 100);
    eventually("lines still flow", || server.count("a") == 200);
    std::fs::write(&file, good.replace("upstreams:", "tag: changed\n      upstreams:")).unwrap();
    eventually("the good one is taken", || agent.metric("sidelight_config_last_reload_successful") == 1.0);
    log.lines(100, 100);
    eventually("lines with the new tag", || {
        server.received().iter().filter(|received| received.tag == "changed").count() == 100
    });
    agent.settle();
    assert_eq!(server.assert_complete("a", 300), 0);
}

/// The reference in the README, with an upstream put in, is the same configuration as one that says nothing else.
#[test]
fn the_readme_states_every_default_as_it_is() {
    let readme = include_str!("../../README.md");
    let reference = readme.split("```").find(|block| block.starts_with("yaml\nnode: ${NODE_NAME}")).unwrap();
    let reference = reference.trim_start_matches("yaml").replace("upstreams: [] ", "upstreams: ['h:1'] ");
    let minimal = "logs: { outputs: [ { forward: { upstreams: ['h:1'] } } ] }";
    let node = Node::new();
    let effective = |text: &str| {
        let file = node.path().join("sidelight.yaml");
        std::fs::write(&file, text).unwrap();
        let output = Command::new(BINARY).arg("check").arg(&file).env("NODE_NAME", "n").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(effective(&reference), effective(minimal));
}
