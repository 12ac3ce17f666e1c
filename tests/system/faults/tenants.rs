//! A tenant who means harm: annotations, names, links and FIFOs. Its neighbours notice nothing.

use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Map, Value, json};
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::kubelet::{Node, pod};

use crate::{BINARY, config, with_pods};

/// Annotations of a pod that wants to stop the agent, one pod for each.
fn hostile_annotations() -> Vec<Value> {
    let mut many = Map::new();
    for number in 0..1_000 {
        many.insert(format!("sidelight.dev/logs.redact.c{number}"), json!("(a|b|ab)*c{50}"));
    }
    vec![
        json!({ "sidelight.dev/logs.multiline": "((((a{0,99}){0,99}){0,99}){0,99})" }),
        json!({ "sidelight.dev/logs.multiline": "(".repeat(500) }),
        json!({ "sidelight.dev/logs.multiline": "(x+x+)+y" }),
        json!({ "sidelight.dev/logs.multiline": "" }),
        json!({ "sidelight.dev/logs.redact": ".*" }),
        json!({ "sidelight.dev/logs.rate": "0" }),
        json!({ "sidelight.dev/logs.rate": "99999999999999999999999999" }),
        json!({ "sidelight.dev/logs.sample": "NaN" }),
        json!({ "sidelight.dev/logs.sample": "-1e308" }),
        json!({ "sidelight.dev/logs.parse": "x".repeat(200_000) }),
        json!({ "sidelight.dev/logs.tag": "../../\u{0}\n{pod}" }),
        json!({ "sidelight.dev/": "x", "sidelight.dev/logs.": "x", "sidelight.dev/..": "\u{202e}" }),
        Value::Object(many),
    ]
}

/// Scenario: pods with annotations that are made to cost time or memory, to break the tag, or make no sense.
/// Guarantee: the agent stays alive, the neighbour gets every line, and so do those pods whose annotation is no valid
/// order to hide something.
#[test]
fn hostile_annotations_harm_nobody_else() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("tenant: hostile annotations");
    let mut pods = vec![pod("good", &json!({}))];
    let mut names = Vec::new();
    for (number, annotations) in hostile_annotations().iter().enumerate() {
        let name = format!("bad-{number}");
        pods.push(pod(&name, annotations));
        names.push(name);
    }
    node.write_pods(&pods);
    let config = with_pods(&node, &config(&node, &server, "", "      ack_timeout: 10m\n"));
    let agent = fault.watch(Agent::start(BINARY, node.path(), &config));
    let mut bad: Vec<_> = names.iter().map(|name| node.container(name)).collect();
    let mut good = node.container("good");
    for _ in 0..10 {
        bad.iter_mut().for_each(|log| log.lines(50, 2_000));
        good.lines(500, 200);
    }
    eventually("the neighbour's lines", || server.count("good") == good.next);
    // What is redacted to nothing has no number any more.
    let redacts_all = hostile_annotations().iter().position(|one| one["sidelight.dev/logs.redact"] == ".*");
    names.remove(redacts_all.unwrap());
    eventually("the other lines", || names.iter().all(|name| server.count(name) == 500));
    assert_eq!(agent.get("/livez").0, 200);
    let tenants = names.iter().map(|name| (&server, name.as_str(), 500));
    let sent: Vec<_> = tenants.chain([(&server, "good", good.next)]).collect();
    assert_eq!(fault.survived(&agent, &sent), 0);
    assert!(server.received().iter().all(|received| received.tag == "kube.ns"));
}

/// Scenario: symbolic links to a secret, to itself, up and out of the tree, to a device, a FIFO, a socket, a directory, a
/// loop of directories, in the place of log files and of whole directories; names that are none; thousands of files that
/// are none of ours.
/// Guarantee: nothing outside of the tree is read, nobody waits, and the neighbour gets every line once.
#[test]
fn hostile_paths_lead_nowhere() {
    let (node, server) = (Node::new(), ForwardServer::start());
    let fault = Fault::new("tenant: links, FIFOs, sockets, hostile names");
    let secret = node.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("0.log"), "2026-01-01T00:00:00Z stdout F the secret\n").unwrap();
    let bad = node.container("bad");
    std::fs::remove_file(bad.path()).unwrap();
    let at = |name: &str| bad.directory.join(name);
    symlink(secret.join("0.log"), at("0.log")).unwrap();
    symlink("1.log", at("1.log")).unwrap();
    symlink("../../../secret/0.log", at("2.log")).unwrap();
    symlink("/dev/zero", at("3.log")).unwrap();
    mknodat(CWD, at("4.log"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("5.log")).unwrap();
    std::fs::create_dir(at("6.log")).unwrap();
    symlink("/proc/self/environ", at("7.log.20260101-000000.gz")).unwrap();
    for name in [
        "-1.log",
        "99999999999999999999.log",
        "0.log.\u{202e}",
        "8.log\n",
        "0.log.20260101-000000.tmp",
        "é.log",
    ] {
        std::fs::write(at(name), "2026-01-01T00:00:00Z stdout F a name that is none\n").unwrap();
    }
    (0..2_000).for_each(|number| std::fs::write(at(&format!("junk-{number}")), "x").unwrap());
    let pods = node.path().join("pods");
    symlink(&secret, pods.join("ns_linked_uid-linked")).unwrap();
    std::fs::create_dir_all(pods.join("ns_half_uid-half")).unwrap();
    symlink(&secret, pods.join("ns_half_uid-half/app")).unwrap();
    symlink("..", pods.join("ns_half_uid-half/loop")).unwrap();
    for name in ["__", "ns_x", "ns_a_b_c_d", "..._..._...", "ns_\u{1b}[31m_uid"] {
        std::fs::create_dir_all(pods.join(name).join("app")).unwrap();
        std::fs::write(pods.join(name).join("app/0.log"), "no head\n").unwrap();
    }
    let mut good = node.container("good");
    let agent = fault.watch(crate::start(&node, &server));
    for _ in 0..10 {
        good.lines(500, 200);
        good.rotate();
    }
    eventually("the neighbour's lines", || server.count("good") == good.next);
    eventually("the reason", || {
        let explained = agent.explain("ns/bad");
        explained["collected"] == false && explained["reason"].as_str().unwrap().contains(".log")
    });
    assert_eq!(agent.get("/livez").0, 200);
    assert_eq!(fault.survived(&agent, &[(&server, "good", good.next)]), 0);
    assert!(!server.texts().iter().any(|text| text.contains("secret") || text.contains("none")));
}
