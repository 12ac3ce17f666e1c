//! How a receiver of samples is shown who sends, and the way to it by a proxy.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use form_urlencoded::parse;
use serde_json::json;
use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::http::{Answer, Request, serve, serve_on};
use sidelight_tests::kubelet::{Node, rfc3339};
use sidelight_tests::proxy::Proxy;
use sidelight_tests::remote_write_server::RemoteWriteServer;
use sidelight_tests::sigv4;
use sidelight_tests::tls::Authority;

use crate::BINARY;
use crate::metrics::{ASKS, config, serving};

const SCRAPES: &str = "interval: 1s, timeout: 1s";

/// Gives tokens to who has the id and the secret in the form, as some servers want them, and counts them.
fn token(request: &Request, given: &AtomicUsize) -> Answer {
    let form: Vec<(String, String)> = parse(&request.body).into_owned().collect();
    let has = |name: &str, value: &str| form.iter().any(|pair| pair.0 == name && pair.1 == value);
    let is_right =
        has("grant_type", "client_credentials") && has("scope", "a b") && has("audience", "metrics");
    if !is_right || !has("client_id", "sidelight") || !has("client_secret", "open sesame") {
        return Answer { body: b"{\"error\": \"invalid_client\"}".to_vec(), ..Answer::status(401) };
    }
    let number = given.fetch_add(1, Ordering::SeqCst) + 1;
    let body = json!({"access_token": format!("token-{number}"), "token_type": "bearer", "expires_in": 3600});
    Answer { body: body.to_string().into_bytes(), ..Answer::status(200) }
}

/// Scenario: the receiver and the server of tokens stand behind a proxy with a password, one of them with TLS; then the
/// receiver does not accept the token any more.
/// Guarantee: there is a token for id and secret, kept until it is refused, then another, and nothing is lost; no secret is
/// shown.
#[test]
fn a_receiver_behind_a_proxy_is_shown_a_token() {
    let (node, server, authority) = (Node::new(), RemoteWriteServer::start(), Authority::new());
    authority.write(&node.path().join("ca.pem"));
    std::fs::write(node.path().join("secret"), "open sesame\n").unwrap();
    let proxy = Proxy::start("Basic dXNlcjpwYXNz");
    let given = Arc::new(AtomicUsize::new(0));
    let giving = given.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tls = Some(authority.server("127.0.0.1", None));
    let tokens = serve_on(listener, tls, move |request| token(request, &giving));
    let exporter = Exporter::start("a 1\n");
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let (directory, by) = (node.path().display(), format!("http://user:pass@{}", proxy.address()));
    let keys = format!(
        ", proxy_url: '{by}', oauth2: {{ client_id: sidelight, client_secret_file: {directory}/secret, token_url: 'https://{tokens}/token', \
         scopes: [a, b], endpoint_params: {{ audience: metrics }}, proxy_url: '{by}', tls: {{ enabled: true, ca_file: {directory}/ca.pem }} }}"
    );
    let agent = Agent::start(BINARY, node.path(), &config(&node, &server, SCRAPES, &keys));
    eventually("a few requests", || server.requests() > 3);
    assert_eq!(server.header("authorization").as_deref(), Some("Bearer token-1"));
    assert_eq!(given.load(Ordering::SeqCst), 1);
    server.refuse([Answer::status(401)]);
    eventually("another", || server.header("authorization").as_deref() == Some("Bearer token-2"));
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
    let asked = proxy.asked();
    assert!(asked.contains(&format!("CONNECT {tokens}")), "{asked:?}");
    assert!(asked.contains(&format!("POST {}", server.url())), "{asked:?}");
    let shown = agent.api("/api/v1/config").to_string() + &agent.log();
    assert!(
        shown.contains("client_id") && !shown.contains("sesame") && !shown.contains("user:pass"),
        "{shown}"
    );
}

/// A configuration for a receiver that wants signatures; `keys` are further ones of `sigv4`.
fn signed(node: &Node, receiver: SocketAddr, keys: &str) -> String {
    let unused = RemoteWriteServer::start();
    let sigv4 = format!(", protocol: '1.0', sigv4: {{ region: eu-west-1{keys} }}");
    config(node, &unused, SCRAPES, &sigv4).replace(&unused.url(), &format!("http://{receiver}/w"))
}

/// Scenario: a receiver at AWS, which answers only to requests that the key has signed.
/// Guarantee: they are, head and body, with the key from the config or from the environment.
#[test]
fn a_receiver_at_aws_gets_signed_requests() {
    let exporter = Exporter::start("a 1\n");
    let keys = ", access_key: AKIDEXAMPLE, secret_key: secret";
    for (in_config, in_environment) in [(keys, "none"), ("", "secret")] {
        let node = Node::new();
        node.write_pods(&[serving("web", &exporter, &[ASKS])]);
        let verified = Arc::new(Mutex::new(Vec::new()));
        let verifying = verified.clone();
        let receiver = serve(move |request| {
            let result = sigv4::verify(request, "secret", "eu-west-1", "aps");
            let answer = Answer::status(if result.is_ok() { 204 } else { 403 });
            verifying.lock().unwrap().push(result);
            answer
        });
        let key = format!("AWS_SECRET_ACCESS_KEY={in_environment}");
        let through = ["env", "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", &key];
        let agent = Agent::start_through(&through, BINARY, node.path(), &signed(&node, receiver, in_config));
        eventually("a few requests", || verified.lock().unwrap().len() > 2);
        assert!(verified.lock().unwrap().iter().all(Result::is_ok), "{verified:?}");
        assert!(agent.metric("sidelight_remote_write_samples_total") > 0.0);
    }
}

/// Whether the request is signed with the key of this name: its secret and its token are called after it.
fn is_signed_with(request: &Request, key: &str) -> bool {
    let token = request.headers.get("x-amz-security-token");
    token == Some(&format!("token of {key}")) && sigv4::verify(request, key, "eu-west-1", "aps").is_ok()
}

/// Scenario: the key stands in a file, with a token of its session; it is replaced there, and the old one is refused.
/// Guarantee: the request that was refused comes again at once, with the new key; nothing is dropped.
#[test]
fn a_key_that_was_replaced_in_its_file_is_read_again() {
    let (node, exporter) = (Node::new(), Exporter::start("a 1\n"));
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let file = node.path().join("credentials");
    let write = |key: &str| {
        let text = format!("aws_secret_access_key = {key}\naws_session_token = token of {key}\n");
        std::fs::write(&file, format!("[work]\naws_access_key_id = AKIDEXAMPLE\n{text}")).unwrap();
    };
    write("old");
    let (valid, seen) = (Arc::new(Mutex::new("old")), Arc::new(Mutex::new(Vec::new())));
    let (validating, seeing) = (valid.clone(), seen.clone());
    let receiver = serve(move |request| {
        let status = if is_signed_with(request, *validating.lock().unwrap()) { 204 } else { 403 };
        seeing.lock().unwrap().push((status, request.body.clone()));
        Answer::status(status)
    });
    let through = format!("AWS_SHARED_CREDENTIALS_FILE={}", file.display());
    let config = signed(&node, receiver, ", profile: work");
    let agent = Agent::start_through(&["env", &through], BINARY, node.path(), &config);
    eventually("a few requests", || seen.lock().unwrap().len() > 2);
    write("new");
    *valid.lock().unwrap() = "new";
    let refused = || seen.lock().unwrap().iter().position(|(status, _)| *status == 403);
    eventually("a refusal, and two more", || {
        refused().is_some_and(|refused| seen.lock().unwrap().len() > refused + 2)
    });
    let (refused, seen) = (refused().unwrap(), seen.lock().unwrap().clone());
    assert!(seen.iter().skip(refused + 1).all(|(status, _)| *status == 204));
    assert!(seen[refused].1 == seen[refused + 1].1, "the same request");
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
}

/// Scenario: the container's role gives keys that last for a moment; then it gives none for a while.
/// Guarantee: a key is used for as long as it lasts, and renewed before it ends; while there is none, samples wait.
#[test]
fn a_key_that_ends_is_renewed_in_time() {
    let (node, exporter) = (Node::new(), Exporter::start("a 1\n"));
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let (given, is_away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (giving, being_away) = (given.clone(), is_away.clone());
    let keys = serve(move |_| {
        if being_away.load(Ordering::SeqCst) {
            return Answer::status(500);
        }
        let key = format!("key-{}", giving.fetch_add(1, Ordering::SeqCst) + 1);
        // Two minutes before it ends, another one is asked for.
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(126);
        let body = json!({
            "AccessKeyId": key, "SecretAccessKey": key, "Token": format!("token of {key}"),
            "Expiration": rfc3339(end.as_nanos() as u64),
        });
        Answer { body: body.to_string().into_bytes(), ..Answer::status(200) }
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (seeing, newest) = (seen.clone(), given.clone());
    let receiver = serve(move |request| {
        let newest = newest.load(Ordering::SeqCst);
        let is_right = is_signed_with(request, &format!("key-{newest}"));
        seeing.lock().unwrap().push((is_right, newest));
        Answer::status(if is_right { 204 } else { 403 })
    });
    let from = format!("AWS_CONTAINER_CREDENTIALS_FULL_URI=http://{keys}/");
    let through = ["env", "-u", "AWS_ACCESS_KEY_ID", "-u", "AWS_WEB_IDENTITY_TOKEN_FILE", &from];
    let agent = Agent::start_through(&through, BINARY, node.path(), &signed(&node, receiver, ""));
    eventually("a second key", || given.load(Ordering::SeqCst) == 2);
    is_away.store(true, Ordering::SeqCst);
    eventually("it is missed", || agent.output("remote_write")["up"] == false);
    is_away.store(false, Ordering::SeqCst);
    eventually("it is there", || agent.output("remote_write")["up"] == true);
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(is_right, _)| *is_right), "{seen:?}");
    assert!(seen.iter().filter(|(_, key)| *key == 1).count() > 1, "used more than once: {seen:?}");
    assert_eq!(agent.metric("sidelight_remote_write_dropped_samples_total"), 0.0);
}
