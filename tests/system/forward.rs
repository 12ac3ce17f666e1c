//! The Forward protocol's darker corners: handshakes, TLS, receivers that are several, hung, or odd.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::forward_server::{ForwardServer, Security, assert_complete};
use sidelight_tests::kubelet::{Log, Node};
use sidelight_tests::tls::Authority;

use crate::{BINARY, config, config_of};

/// An agent with further keys of the Forward output, one key a line.
fn agent(node: &Node, server: &ForwardServer, keys: &[&str]) -> Agent {
    let keys: String = keys.iter().map(|key| format!("      {key}\n")).collect();
    Agent::start(BINARY, node.path(), &config(node, server, "", &keys))
}

/// The same with several receivers instead, and a chunk for every few lines.
fn agent_of(node: &Node, upstreams: &[String], ack_timeout: &str) -> Agent {
    let upstreams = upstreams.join(", ");
    let output = format!(
        "  - forward:\n      upstreams: [{upstreams}]\n      flush_interval: 10ms\n      ack_timeout: {ack_timeout}\n"
    );
    Agent::start(BINARY, node.path(), &config_of(node, "", &output))
}

/// Waits for an output that is down, and gives its error.
fn error(agent: &Agent) -> String {
    eventually("the output's error", || {
        let output = agent.output("forward");
        output["up"] == false && output["last_error"].is_string()
    });
    agent.output("forward")["last_error"].as_str().unwrap().to_owned()
}

/// Checks that all lines get through, each once, and that the output says so.
fn assert_recovers(agent: &Agent, server: &ForwardServer, log: &Log) {
    eventually("all lines", || server.count(&log.writer) == log.next);
    agent.settle();
    assert_eq!(server.assert_complete(&log.writer, log.next), 0);
    assert_eq!(agent.output("forward")["up"], true);
}

/// Scenario: both sides know the key, and the receiver wants no user.
/// Guarantee: the handshake is done as Fluentd's receiver checks it, and lines flow.
#[test]
fn a_shared_key_opens_a_secured_receiver() {
    let (node, server) = (Node::new(), ForwardServer::secured(Security::new("opensesame")));
    let mut log = node.container("a");
    log.lines(5_000, 200);
    let agent = agent(&node, &server, &["shared_key: opensesame"]);
    assert_recovers(&agent, &server, &log);
}

/// Scenario: the receiver has another key, until somebody puts it right.
/// Guarantee: nothing is sent; the error says what to check and shows neither key; then all lines come, once.
#[test]
fn a_wrong_shared_key_is_told_without_showing_it_and_costs_nothing() {
    let (node, server) = (Node::new(), ForwardServer::secured(Security::new("their-secret")));
    let mut log = node.container("a");
    log.lines(500, 200);
    let agent = agent(&node, &server, &["shared_key: our-secret"]);
    let error = error(&agent);
    assert!(error.contains("shared_key"), "{error}");
    assert!(server.received().is_empty());
    let told = agent.log() + &error + &agent.api("/api/v1/config").to_string();
    assert!(!told.contains("our-secret") && !told.contains("their-secret"), "{told}");
    server.set_security(Security::new("our-secret"));
    assert_recovers(&agent, &server, &log);
}

/// Scenario: the receiver knows users besides the key; the password is wrong, then right.
/// Guarantee: both are proved; a wrong one is told like a wrong key.
#[test]
fn user_and_password_are_proved_too() {
    let user = |password: &str| Security {
        user: Some(("node".to_owned(), password.to_owned())),
        ..Security::new("opensesame")
    };
    let (node, server) = (Node::new(), ForwardServer::secured(user("another")));
    let mut log = node.container("a");
    log.lines(500, 200);
    let agent = agent(&node, &server, &["shared_key: opensesame", "username: node", "password: our-secret"]);
    let error = error(&agent);
    assert!(error.contains("password") && !error.contains("our-secret"), "{error}");
    server.set_security(user("our-secret"));
    assert_recovers(&agent, &server, &log);
}

/// Scenario: the receiver has a `<security>` section, the output has no key.
/// Guarantee: the error says which key of the config is missing, and nothing was taken for delivered.
#[test]
fn a_keyless_output_is_told_that_its_receiver_wants_a_key() {
    let (node, server) = (Node::new(), ForwardServer::secured(Security::new("opensesame")));
    node.container("a").lines(1, 100);
    let agent = agent(&node, &server, &[]);
    let error = error(&agent);
    assert!(error.contains("shared_key"), "{error}");
    assert_eq!(agent.metric("sidelight_log_source_bytes_delivered_total"), 0.0);
}

/// Scenario: the output has a key, the receiver no `<security>` section: it says nothing, and waits as the agent does.
/// Guarantee: the waiting ends, and the error says what the receiver lacks.
#[test]
fn a_key_for_a_receiver_without_security_is_an_error_and_no_endless_wait() {
    let (node, server) = (Node::new(), ForwardServer::start());
    node.container("a").lines(1, 100);
    let agent = agent(&node, &server, &["shared_key: opensesame"]);
    let error = error(&agent);
    assert!(error.contains("security"), "{error}");
    assert!(server.received().is_empty());
    server.assert_clean();
}

/// Scenario: the receiver calls itself as the node does, by which Fluentd knows a loop.
/// Guarantee: the agent does not talk to it and says why.
#[test]
fn a_receiver_with_the_nodes_own_name_is_refused() {
    let security = Security { hostname: "node-1".to_owned(), ..Security::new("opensesame") };
    let (node, server) = (Node::new(), ForwardServer::secured(security));
    node.container("a").lines(1, 100);
    let agent = agent(&node, &server, &["shared_key: opensesame"]);
    let error = error(&agent);
    assert!(error.contains("node-1"), "{error}");
    assert!(server.received().is_empty());
}

/// Scenario: the receiver's certificate is of an authority that the operator names; the shared key comes on top.
/// Guarantee: lines flow, encrypted.
#[test]
fn a_receiver_behind_tls_is_trusted_by_its_authority() {
    let (node, authority) = (Node::new(), Authority::new());
    let server = ForwardServer::encrypted(authority.server("127.0.0.1", None));
    server.set_security(Security::new("opensesame"));
    authority.write(&node.path().join("ca.pem"));
    let mut log = node.container("a");
    log.lines(5_000, 200);
    let tls = format!("tls: {{ enabled: true, ca_file: {}/ca.pem }}", node.path().display());
    let agent = agent(&node, &server, &["shared_key: opensesame", &tls]);
    assert_recovers(&agent, &server, &log);
}

/// Scenario: the certificate is of an unknown authority; or of the right one, but for another name.
/// Guarantee: nothing is sent, the error says that it is the certificate; `server_name` puts the name right.
#[test]
fn a_certificate_that_cannot_be_trusted_is_a_clear_error() {
    let (authority, other) = (Authority::new(), Authority::new());
    for (issuer, name, server_name, trusted) in [
        (&other, "127.0.0.1", "", false),
        (&authority, "fluentd.example", "", false),
        (&authority, "fluentd.example", "fluentd.example", true),
    ] {
        let node = Node::new();
        let server = ForwardServer::encrypted(issuer.server(name, None));
        authority.write(&node.path().join("ca.pem"));
        let mut log = node.container("a");
        log.lines(10, 100);
        let ca = node.path().join("ca.pem").display().to_string();
        let tls = format!("tls: {{ enabled: true, ca_file: {ca}, server_name: '{server_name}' }}");
        let agent = agent(&node, &server, &[&tls]);
        if trusted {
            assert_recovers(&agent, &server, &log);
        } else {
            let error = error(&agent);
            assert!(error.contains("TLS") && error.contains("certificate"), "{error}");
            assert!(server.received().is_empty());
        }
    }
}

/// Scenario: the receiver takes only clients with a certificate; the output has none, then one.
/// Guarantee: without, the error speaks of the certificate; with it, lines flow.
#[test]
fn a_receiver_that_wants_a_certificate_gets_the_configured_one() {
    let (node, authority) = (Node::new(), Authority::new());
    let server = ForwardServer::encrypted(authority.server("127.0.0.1", Some(&authority)));
    let at = |name: &str| node.path().join(name).display().to_string();
    authority.write(Path::new(&at("ca.pem")));
    authority.issue("node-1").write(Path::new(&at("cert.pem")), Path::new(&at("key.pem")));
    let mut log = node.container("a");
    log.lines(500, 100);
    let without = agent(&node, &server, &[&format!("tls: {{ enabled: true, ca_file: {} }}", at("ca.pem"))]);
    // The alert may be overtaken by the end of the connection; one of the attempts hears it.
    eventually("what the receiver wants", || {
        let output = without.output("forward");
        output["last_error"].as_str().is_some_and(|error| error.to_lowercase().contains("certificate"))
    });
    assert!(server.received().is_empty());
    without.kill();
    let tls = format!(
        "tls: {{ enabled: true, ca_file: {}, cert_file: {}, key_file: {} }}",
        at("ca.pem"),
        at("cert.pem"),
        at("key.pem")
    );
    let agent = agent(&node, &server, &[&tls]);
    assert_recovers(&agent, &server, &log);
}

/// Scenario: the receiver announces `keepalive: false` and closes the connection behind each message.
/// Guarantee: that is honoured: no line is lost, none is sent twice.
#[test]
fn a_receiver_that_keeps_no_connection_open_gets_every_line_once() {
    let security = Security { keepalive: false, ..Security::new("opensesame") };
    let (node, server) = (Node::new(), ForwardServer::secured(security));
    let mut log = node.container("a");
    let agent = agent(&node, &server, &["shared_key: opensesame", "chunk_bytes: 16KiB", "compress: none"]);
    log.lines(2_000, 200);
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    assert_eq!(server.assert_complete("a", log.next), 0);
    assert_eq!(agent.metric("sidelight_log_records_retried_total"), 0.0);
}

/// Scenario: the same receiver, when everything is delivered and no connection is open.
/// Guarantee: the output counts as up all the while: nothing is wrong with a receiver that has closed in peace.
#[test]
fn a_receiver_that_has_closed_in_peace_is_up() {
    let security = Security { keepalive: false, ..Security::new("opensesame") };
    let (node, server) = (Node::new(), ForwardServer::secured(security));
    let mut log = node.container("a");
    log.lines(100, 200);
    let agent = agent(&node, &server, &["shared_key: opensesame"]);
    assert_recovers(&agent, &server, &log);
    assert_eq!(agent.metric("sidelight_output_up"), 1.0);
}

/// Scenario: HELO, PONG and acknowledgements arrive byte by byte.
/// Guarantee: they are understood as if they came whole.
#[test]
fn replies_byte_by_byte_are_understood() {
    let (node, server) = (Node::new(), ForwardServer::secured(Security::new("opensesame")));
    server.faults().dribbles.store(true, Ordering::SeqCst);
    let mut log = node.container("a");
    log.lines(3_000, 200);
    let agent = agent(&node, &server, &["shared_key: opensesame", "chunk_bytes: 64KiB", "compress: none"]);
    assert_recovers(&agent, &server, &log);
}

/// Scenario: an acknowledgement names a chunk that was never sent.
/// Guarantee: nothing is taken for delivered by it; the connection is closed and the chunk sent again.
#[test]
fn an_acknowledgement_of_a_foreign_chunk_closes_and_sends_again() {
    let (node, server) = (Node::new(), ForwardServer::start());
    server.faults().foreign_acks.store(1, Ordering::SeqCst);
    let mut log = node.container("a");
    log.lines(500, 200);
    let agent = agent(&node, &server, &[]);
    eventually("the acknowledgement", || agent.metric("sidelight_log_records_delivered_total") >= 500.0);
    agent.settle();
    assert!(server.assert_complete("a", log.next) > 0, "the chunk must have come twice");
    assert!(agent.metric("sidelight_log_records_retried_total") > 0.0);
}

/// Scenario: `ack: false`.
/// Guarantee: no acknowledgement is asked for; what is sent is delivered, and the account is balanced.
#[test]
fn without_acknowledgements_sent_is_delivered() {
    let (node, server) = (Node::new(), ForwardServer::without_acks());
    let mut log = node.container("a");
    log.lines(5_000, 200);
    let agent = agent(&node, &server, &["ack: false"]);
    assert_recovers(&agent, &server, &log);
}

/// Scenario: two receivers with weights 3 and 1, chunks one after the other.
/// Guarantee: the first gets roughly three quarters.
#[test]
fn receivers_share_by_their_weights() {
    let (node, heavy, light) = (Node::new(), ForwardServer::start(), ForwardServer::start());
    let weighted =
        |server: &ForwardServer, weight| format!("{{ address: '{}', weight: {weight} }}", server.address());
    let mut log = node.container("a");
    let agent = agent_of(&node, &[weighted(&heavy, 3), weighted(&light, 1)], "60s");
    for _ in 0..60 {
        log.lines(10, 100);
        eventually("the lines", || heavy.count("a") + light.count("a") == log.next);
    }
    agent.settle();
    assert_eq!(assert_complete(&[&heavy, &light], "a", log.next), 0);
    let share = heavy.count("a") as f64 / log.next as f64;
    assert!((0.6..0.9).contains(&share), "{share}");
}

/// Scenario: the only receiver that is no standby goes away and comes back.
/// Guarantee: the standby gets lines only meanwhile, and none is lost.
#[test]
fn a_standby_is_used_only_while_the_others_are_away() {
    let (node, mut primary, standby) = (Node::new(), ForwardServer::start(), ForwardServer::start());
    let upstreams = [
        format!("'{}'", primary.address()),
        format!("{{ address: '{}', standby: true }}", standby.address()),
    ];
    let mut log = node.container("a");
    let agent = agent_of(&node, &upstreams, "60s");
    log.lines(500, 100);
    eventually("lines at the primary", || primary.count("a") == log.next);
    assert_eq!(standby.count("a"), 0);
    primary.stop();
    log.lines(500, 100);
    eventually("lines at the standby", || standby.count("a") == 500);
    primary.listen();
    eventually("lines at the primary again", || {
        log.lines(1, 100);
        primary.count("a") > 500
    });
    // What was on its way to the standby when the primary came back has arrived.
    eventually("all lines", || primary.count("a") + standby.count("a") >= log.next);
    let at_standby = standby.count("a");
    for _ in 0..20 {
        log.lines(10, 100);
        std::thread::sleep(Duration::from_millis(20));
    }
    eventually("all lines", || primary.count("a") + standby.count("a") >= log.next);
    agent.settle();
    assert_complete(&[&primary, &standby], "a", log.next);
    assert_eq!(standby.count("a"), at_standby, "nothing more goes to the standby");
}

/// Scenario: one of two receivers takes connections and then nothing more, ever.
/// Guarantee: the other gets everything, and no record is blamed for it and dropped.
#[test]
fn a_hung_receiver_does_not_stop_the_others() {
    let (node, hung, healthy) = (Node::new(), ForwardServer::start(), ForwardServer::start());
    hung.faults().stall.store(true, Ordering::SeqCst);
    let mut log = node.container("a");
    let upstreams = [&hung, &healthy].map(|server| format!("'{}'", server.address()));
    let agent = agent_of(&node, &upstreams, "1s");
    for _ in 0..60 {
        log.lines(10, 100);
        std::thread::sleep(Duration::from_millis(30));
    }
    eventually("all lines", || healthy.count("a") == log.next);
    agent.settle();
    healthy.assert_complete("a", log.next);
    assert_eq!(agent.metric("sidelight_log_records_dropped_total"), 0.0);
}

/// Scenario: the receiver gets a new key; later the file does that the output's key stands in.
/// Guarantee: the new key is taken without a restart, and no line is lost.
#[test]
fn a_key_file_that_changes_is_taken_without_a_restart() {
    let (node, mut server) = (Node::new(), ForwardServer::secured(Security::new("old-secret")));
    let file = node.path().join("key");
    std::fs::write(&file, "old-secret\n").unwrap();
    let mut log = node.container("a");
    log.lines(100, 100);
    let agent = agent(&node, &server, &[&format!("shared_key_file: {}", file.display())]);
    eventually("the first lines", || server.count("a") == log.next);
    server.set_security(Security::new("new-secret"));
    server.stop();
    server.listen();
    log.lines(100, 100);
    let error = error(&agent);
    assert!(!error.contains("secret"), "{error}");
    std::fs::write(&file, "new-secret\n").unwrap();
    eventually("all lines", || server.count("a") == log.next);
    agent.settle();
    server.assert_complete("a", log.next);
}
