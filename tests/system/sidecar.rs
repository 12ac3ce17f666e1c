//! The sidecar: log files of an app and its page, without the API server.

mod end;
mod rotation;

use std::sync::atomic::Ordering;

use rmpv::Value;
use sidelight_tests::agent::Agent;
use sidelight_tests::app::Pod;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::fault::Fault;
use sidelight_tests::forward_server::ForwardServer;
use sidelight_tests::remote_write_server::RemoteWriteServer;

use crate::{BINARY, forward_to};

/// A configuration with one Forward output; `logs` are further keys of the section.
fn config(pod: &Pod, server: &ForwardServer, globs: &[&str], logs: &str) -> String {
    let output = forward_to(server, "", "      ack_timeout: 10s\n");
    pod.config(globs, &format!("{logs}  outputs:\n{output}"), "")
}

fn start(pod: &Pod, server: &ForwardServer, globs: &[&str]) -> Agent {
    pod.start(BINARY, &config(pod, server, globs, ""))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Scenario: files are there before the sidecar, come later, come into a directory that comes later, and are no logs.
/// Guarantee: what the globs mean is read, each line once; packed copies, directories, links and FIFOs are not.
#[test]
fn the_files_that_the_globs_mean_are_read() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let fault = Fault::new("sidecar: files and a directory come later");
    let mut early = pod.log("early.log", "early");
    early.lines(100, 200);
    for other in ["early.txt", "packed.log.gz"] {
        std::fs::write(pod.log_path(other), "seq=other:0\n").unwrap();
    }
    std::fs::create_dir(pod.log_path("directory.log")).unwrap();
    std::os::unix::fs::symlink(pod.log_path("early.txt"), pod.log_path("link.log")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, pod.log_path("fifo.log"), rustix::fs::Mode::RUSR).unwrap();
    let agent = fault.watch(start(&pod, &server, &["*.log", "*.log.gz", "later/a?.txt"]));
    eventually("it is ready", || agent.get("/readyz").0 == 200);
    let mut late = pod.log("late.log", "late");
    late.lines(100, 200);
    std::fs::create_dir(pod.log_path("later")).unwrap();
    let mut nested = pod.log("later/a1.txt", "nested");
    nested.lines(100, 200);
    early.lines(100, 200);
    let sent = [(&server, "early", 200), (&server, "late", 100), (&server, "nested", 100)];
    for (server, writer, lines) in sent {
        eventually(writer, || server.count(writer) == lines);
    }
    assert_eq!(fault.survived(&agent, &sent), 0);
    assert_eq!(server.count("other"), 0);
}

/// Scenario: one JSON line, one of text; what the injector knew of the pod, and what the Downward API says of it.
/// Guarantee: the record has all of it and the file's path, no stream, and the time of reading.
#[test]
fn a_record_says_whose_it_is_and_from_which_file() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    pod.describe("labels", &[("app", "web"), ("odd", "a \"b\" \\ c")]);
    pod.describe("annotations", &[("team", "shop"), ("sidelight.dev/logs.redact", "email")]);
    let known = "kubernetes: { pod: { owner: { kind: Deployment, name: web-owner }, containers: [ { name: app, image: 'app:1' } ] } }\n";
    let config = config(&pod, &server, &["app.log"], "  annotations: [team]\n") + known;
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let agent = pod.start(BINARY, &config);
    let mut log = pod.log("app.log", "app");
    log.raw("{\"level\":\"info\",\"n\":7}\nwrite to a@example.com\n");
    eventually("both", || server.received().len() == 2);
    agent.settle();
    let received = server.received();
    let record = &received[0].record;
    assert_eq!((text(&record["level"]), record["n"].as_i64()), ("info", Some(7)));
    assert_eq!(text(&received[1].record["log"]), "write to [REDACTED]");
    assert!(u64::from(received[0].time.0) >= begun);
    let kubernetes = &record["kubernetes"];
    for (key, expected) in [
        ("namespace_name", "ns"),
        ("pod_name", "web"),
        ("pod_id", "uid-web"),
        ("host", "node-1"),
        ("pod_ip", "10.0.0.9"),
        ("owner_kind", "Deployment"),
        ("owner_name", "web-owner"),
    ] {
        assert_eq!(text(&kubernetes[key]), expected, "{key}");
    }
    assert_eq!(text(&kubernetes["labels"]["odd"]), "a \"b\" \\ c");
    assert_eq!(text(&kubernetes["annotations"]["team"]), "shop");
    assert!(kubernetes["container_name"].is_nil(), "nobody knows which container writes there");
    assert!(record["stream"].is_nil());
    assert_eq!(text(&record["sidelight"]["file"]), pod.log_path("app.log").to_str().unwrap());
    assert!(record["sidelight"]["metadata"].is_nil());
}

/// Scenario: while the sidecar runs, the pod's labels and annotations change.
/// Guarantee: the next records have the new ones, and are handled as they say.
#[test]
fn labels_and_annotations_that_change_count_from_then_on() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let _agent = start(&pod, &server, &["app.log"]);
    let mut log = pod.log("app.log", "app");
    log.raw("{\"n\":1}\n");
    eventually("the first", || server.received().len() == 1);
    pod.describe("labels", &[("app", "web"), ("canary", "true")]);
    pod.describe("annotations", &[("sidelight.dev/logs.parse", "none")]);
    let newest = || server.received().last().map(|received| received.record.clone()).unwrap();
    eventually("what the new ones say", || {
        log.raw("{\"n\":2}\n");
        let newest = newest();
        newest["log"].as_str() == Some("{\"n\":2}") && newest["kubernetes"]["labels"]["canary"].is_str()
    });
}

/// Scenario: a panic with its backtrace is written line by line; the reader looks each second, and its lines have no other
/// time than that.
/// Guarantee: it is one record.
#[test]
fn a_panic_in_a_file_is_one_record() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let config =
        config(&pod, &server, &["app.log"], "").replace("flush_interval: 50ms", "flush_interval: 1s");
    let agent = pod.start(BINARY, &config);
    let mut log = pod.log("app.log", "app");
    let lines = [
        "before",
        "thread 'main' (7) panicked at src/main.rs:2:5:",
        "boom",
        "stack backtrace:",
        "   0: app::main",
        "after",
    ];
    for line in lines {
        log.raw(&format!("{line}\n"));
        std::thread::sleep(std::time::Duration::from_millis(400));
    }
    eventually("all records", || server.received().len() == 3);
    agent.settle();
    assert_eq!(server.texts(), ["before".to_owned(), lines[1..5].join("\n"), "after".to_owned()]);
}

/// Scenario: where a file is to be, there is what may not be opened; a directory is missing.
/// Guarantee: log, `explain` and a metric say so, other files go on; the right file later is read.
#[test]
fn what_cannot_be_read_is_told_and_stops_nobody() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    std::os::unix::fs::symlink("/proc/self/environ", pod.log_path("bad.log")).unwrap();
    let mut good = pod.log("good.log", "good");
    let agent = start(&pod, &server, &["*.log", "none/x.log"]);
    good.lines(100, 100);
    eventually("the good lines", || server.count("good") == 100);
    assert_eq!(agent.metric("sidelight_log_files"), 2.0, "one open, one unreadable");
    assert!(agent.get("/metrics").1.contains("sidelight_log_files{state=\"unreadable\"} 1"));
    let explained = agent.api("/api/v1/explain?pod=ns/web");
    let of = |name: &str| {
        let files = explained["logs"].as_array().unwrap();
        files.iter().find(|file| file["file"].as_str().unwrap().ends_with(name)).cloned().unwrap()
    };
    assert_eq!(explained["verdict"], "partly collected");
    assert_eq!(of("good.log")["collected"], true);
    assert!(of("bad.log")["reason"].as_str().unwrap().contains("a symbolic link"), "{explained}");
    assert!(of("none/x.log")["reason"].as_str().unwrap().contains("No such file"), "{explained}");
    assert!(agent.log().contains("bad.log: a symbolic link"), "{}", agent.log());
    std::fs::remove_file(pod.log_path("bad.log")).unwrap();
    pod.log("bad.log", "mended").lines(10, 100);
    eventually("the right file", || server.count("mended") == 10);
    assert_eq!(agent.api("/api/v1/explain?pod=ns/web")["logs"].as_array().unwrap().len(), 3);
}

/// Scenario: no receiver can be reached, of logs or of samples.
/// Guarantee: the sidecar is alive and ready all the same: the pod's start waits for it.
#[test]
fn it_is_ready_without_any_receiver() {
    let pod = Pod::new();
    let away = "  outputs: [ { forward: { upstreams: ['127.0.0.1:1'] } } ]\n";
    let metrics = "metrics: { outputs: [ { remote_write: { url: 'http://127.0.0.1:1/w' } } ] }\n";
    let agent = pod.start(BINARY, &pod.config(&["*.log"], away, metrics));
    for path in ["/readyz", "/livez"] {
        eventually(path, || agent.get(path).0 == 200);
    }
}

/// Scenario: an app listens on the loopback address only; by its annotations it is scraped by its sidecar.
/// Guarantee: its samples arrive with the labels that the agent of the node would give them.
#[test]
fn a_page_on_localhost_arrives_under_the_labels_of_its_pod() {
    let (pod, server) = (Pod::new(), RemoteWriteServer::start());
    let exporter = Exporter::start("a_total 5\n");
    let port = exporter.port();
    let asks = [("sidelight.dev/metrics", "true"), ("sidelight.dev/injected-for", "logs,metrics")];
    pod.describe("annotations", &asks);
    let config = format!(
        "kubernetes: {{ pod: {{ owner: {{ kind: Deployment, name: web-owner }}, containers: [ {{ name: app, ports: [ {{ name: metrics, port: {port} }} ] }} ] }} }}\n\
         metrics: {{ interval: 1s, timeout: 1s, outputs: [ {{ remote_write: {{ url: '{}', flush_interval: 100ms }} }} ] }}\n",
        server.url()
    );
    let agent = pod.start(BINARY, &pod.config(&[], "", &config));
    let series = |container: &str| {
        format!(
            "a_total{{{container}instance=\"10.0.0.9:{port}\",job=\"ns/web-owner\",namespace=\"ns\",node=\"node-1\",pod=\"web\"}}"
        )
    };
    let of_app = series("container=\"app\",");
    eventually("the sample", || server.value(&of_app) == Some(5.0));
    assert_eq!(agent.api("/api/v1/targets")["targets"][0]["url"], format!("http://127.0.0.1:{port}/metrics"));
    assert_eq!(server.named("sidelight_container_restarts_total").len(), 0);
    assert_eq!(agent.stop(), 0);

    // Without what the injector knew, a number is taken as it is, and a name is nobody's.
    let start = config.find("metrics:").unwrap();
    pod.describe("annotations", &[asks[0], ("prometheus.io/port", &port.to_string())]);
    let agent = pod.start(BINARY, &pod.config(&[], "", &config[start..]));
    let of_nobody = series("").replace("web-owner", "web");
    eventually("the sample", || server.value(&of_nobody) == Some(5.0));
    pod.describe("annotations", &[asks[0], ("sidelight.dev/metrics.port", "metrics")]);
    eventually("the reason", || {
        let target = agent.api("/api/v1/targets")["targets"][0].clone();
        target["state"] == "skipped" && target["reason"].as_str().unwrap().contains("\"metrics\"")
    });
}

/// Scenario: an injector of another version sets a key and a variable that this one does not know; then a key is wrong.
/// Guarantee: the first are told and passed over; the second ends it with 64 and its path.
#[test]
fn what_another_version_says_is_passed_over_and_what_is_wrong_is_refused() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let agent = pod.start(BINARY, &config(&pod, &server, &["a.log"], "  colour: red\n"));
    assert!(agent.log().contains("logs.colour: unknown key"), "{}", agent.log());
    assert_eq!(agent.stop(), 0);
    let (code, log) = pod.run(BINARY, &config(&pod, &server, &["*/a.log"], "  parse: jsno\n"));
    assert_eq!(code, 64, "{log}");
    assert!(log.contains("logs.files[0]: ") && log.contains("logs.parse: "), "{log}");
}

/// Scenario: an operator looks at what the injector writes, where neither secrets nor files of it are.
/// Guarantee: `check --sidecar` finds what is wrong and nothing else; `check` refuses it for a node, and says why.
#[test]
fn check_knows_a_sidecars_configuration() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let file = pod.path().join("sidecar.yaml");
    let secret =
        "      shared_key: '${SIDELIGHT_SECRET_0}'\n      tls: { enabled: true, ca_file: /none/ca }\n";
    let output = forward_to(&server, "", secret);
    let document = pod.config(&["*.log"], &format!("  outputs:\n{output}"), "kubernetes: { pod: {} }\n");
    let check = |arguments: &[&str], document: &str| {
        std::fs::write(&file, document).unwrap();
        let output =
            std::process::Command::new(BINARY).arg("check").args(arguments).arg(&file).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, text) = check(&["--sidecar"], &document);
    assert!(
        code == Some(0) && text.contains("memory_budget: 8MiB") && text.contains("/logs/*.log"),
        "{text}"
    );
    let (code, text) = check(&["--sidecar"], &document.replace("*.log", "*/log"));
    assert!(code == Some(64) && text.contains("logs.files[0]: "), "{text}");
    let (code, text) = check(&[], &document);
    assert_eq!(code, Some(64));
    for mistake in ["logs.files: only a sidecar", "kubernetes.pod: only a sidecar"] {
        assert!(text.contains(mistake), "{text}");
    }
}

/// Scenario: the receiver of logs stalls and that of samples is away while the app writes 24 MiB and serves 2,000 series.
/// Guarantee: the sidecar stays within its 32 MiB; when they go on, every line arrives.
#[test]
fn it_stays_within_32_mib_while_receivers_are_away() {
    let (pod, server) = (Pod::new(), ForwardServer::start());
    let samples = RemoteWriteServer::start();
    samples.be_away(true);
    let page: String = (0..2_000).map(|n| format!("a_total{{n=\"{n}\"}} {{scrape}}\n")).collect();
    let exporter = Exporter::start(&page);
    let port = exporter.port().to_string();
    pod.describe("annotations", &[("sidelight.dev/metrics", "true"), ("sidelight.dev/metrics.port", &port)]);
    let metrics = format!(
        "metrics: {{ interval: 1s, timeout: 1s, outputs: [ {{ remote_write: {{ url: '{}' }} }} ] }}\n",
        samples.url()
    );
    server.faults().stall.store(true, Ordering::SeqCst);
    let config = config(&pod, &server, &["*.log"], "")
        .replace("      ack_timeout: 10s", "      compress: none\n      ack_timeout: 10m");
    let agent = pod.start(BINARY, &(config + &metrics));
    let mut log = pod.log("app.log", "app");
    let filling = format!("{}\n", "x".repeat(1_023)).repeat(1_024);
    for _ in 0..24 {
        log.raw(&filling);
    }
    log.lines(100, 200);
    eventually("ten scrapes", || exporter.scrapes() >= 10);
    assert!(agent.peak_memory() <= 32 << 20, "{} bytes", agent.peak_memory());
    samples.be_away(false);
    server.faults().stall.store(false, Ordering::SeqCst);
    eventually("all lines", || server.count("app") == log.next);
    assert!(agent.peak_memory() <= 32 << 20, "{} bytes", agent.peak_memory());
    assert_eq!((server.assert_complete("app", 100), server.received().len()), (0, 24 * 1_024 + 100));
}
