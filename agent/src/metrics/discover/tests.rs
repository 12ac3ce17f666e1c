//! Pods as their owners write them, and what of them is scraped.

use serde_json::{Value, json};

use super::*;

fn config(metrics: &str) -> Config {
    let text = format!(
        "node: node-1\nkubernetes: {{ source: none }}\nannotations: {{ allow: ['*'] }}\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\n\
         metrics: {{ {metrics} }}"
    );
    Config::parse(&text, &|_| None).unwrap()
}

/// A running pod `web-1` of the Deployment `web` at 10.0.0.7.
fn pod(annotations: Value, containers: Value) -> Pod {
    serde_json::from_value(json!({
        "uid": "u1", "namespace": "shop", "name": "web-1", "ips": ["10.0.0.7", "fd00::7"], "phase": "Running",
        "owner": {"kind": "Deployment", "name": "web"}, "annotations": annotations, "containers": containers,
    }))
    .unwrap()
}

fn container(name: &str, ports: &[(&str, u16)]) -> Value {
    let port =
        |(name, number): &(&str, u16)| json!({"name": (!name.is_empty()).then_some(name), "number": number});
    json!({"name": name, "ports": ports.iter().map(port).collect::<Vec<_>>()})
}

/// The addresses and containers of its targets, and the reasons.
fn found(pod: &Pod) -> (Vec<String>, Vec<String>) {
    let found = targets(pod, &config(""));
    let label = |target: &Target| {
        let container = target.labels.iter().find(|(name, _)| name == "container");
        format!("{}:{}{}", container.map_or("", |(_, value)| value), target.key.port, target.key.path)
    };
    let reason = |skipped: &Skipped| match &skipped.container {
        Some(container) => format!("{container}: {}", skipped.reason),
        None => skipped.reason.clone(),
    };
    (found.targets.iter().map(label).collect(), found.skipped.iter().map(reason).collect())
}

const YES: (&str, &str) = ("sidelight.dev/metrics", "true");

fn annotated(annotations: &[(&str, &str)]) -> Value {
    annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn a_target_has_the_labels_of_its_pod() {
    let pod = pod(annotated(&[YES]), json!([container("app", &[("metrics", 9090)])]));
    let found = targets(&pod, &config("interval: 30s"));
    let [target] = &found.targets[..] else { panic!("{found:?}") };
    let labels = [
        ("container", "app"),
        ("instance", "10.0.0.7:9090"),
        ("job", "shop/web"),
        ("namespace", "shop"),
        ("node", "node-1"),
        ("pod", "web-1"),
    ];
    assert_eq!(target.labels, labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(target.address, "10.0.0.7:9090".parse().unwrap());
    assert_eq!(
        (target.interval, target.scheme, target.honor_labels),
        (Duration::from_secs(30), Scheme::Http, false)
    );
    assert_eq!(target.key, TargetKey { uid: "u1".into(), port: 9090, path: "/metrics".into() });
}

#[test]
fn series_get_the_labels_of_the_pod_that_are_wanted() {
    let mut pod = pod(annotated(&[YES]), json!([container("app", &[("metrics", 9090)])]));
    pod.labels = [("app.kubernetes.io/name", "shop"), ("team", ""), ("secret", "x")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let found = targets(&pod, &config("labels: [team, app.kubernetes.io/name, version]"));
    let names: Vec<&str> = found.targets[0].labels.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["app_kubernetes_io_name", "container", "instance", "job", "namespace", "node", "pod"];
    assert_eq!(names, expected);
    assert_eq!(found.targets[0].labels[0].1, "shop");
}

#[test]
fn a_sidecar_scrapes_its_own_pod_at_the_loopback_address_under_the_pods() {
    let asks = [YES, ("sidelight.dev/injected-for", "metrics"), ("sidelight.dev/metrics.port", "9090,web")];
    for ips in [vec!["10.0.0.7".parse().unwrap()], vec![]] {
        let instance = if ips.is_empty() { "web-1:9090" } else { "10.0.0.7:9090" };
        let own = Pod { is_own: true, ips, ..pod(annotated(&asks), json!([])) };
        let found = targets(&own, &config(""));
        let [target] = &found.targets[..] else { panic!("{found:?}") };
        assert_eq!(target.address, "127.0.0.1:9090".parse().unwrap());
        assert!(target.labels.contains(&("instance".to_owned(), instance.to_owned())), "{target:?}");
        assert!(found.skipped[0].reason.contains("\"web\""), "{found:?}");
    }
}

#[test]
fn a_pod_whose_sidecar_scrapes_it_is_left_to_the_sidecar() {
    let injected = |what| annotated(&[YES, ("sidelight.dev/injected-for", what)]);
    let app = || container("app", &[("metrics", 9090)]);
    let with_sidecar = |what| pod(injected(what), json!([app(), container("sidelight", &[])]));
    assert_eq!(
        found(&with_sidecar("logs,metrics")),
        (vec![], vec!["the pod's sidecar scrapes it".to_owned()])
    );
    assert_eq!(found(&with_sidecar("logs")).0, ["app:9090/metrics"]);
    assert_eq!(found(&pod(injected("metrics"), json!([app()]))).0, ["app:9090/metrics"]);
}

#[test]
fn the_port_is_the_one_that_is_named_else_the_one_that_can_only_be_meant() {
    let two = || {
        json!([
            container("app", &[("http", 80), ("metrics", 9090)]),
            container("db", &[("sql", 5432), ("db-metrics", 9187)])
        ])
    };
    let port = |value| annotated(&[YES, ("sidelight.dev/metrics.port", value)]);
    assert_eq!(found(&pod(annotated(&[YES]), two())).0, ["app:9090/metrics", "db:9187/metrics"]);
    assert_eq!(found(&pod(port("http,9187"), two())).0, ["app:80/metrics", "db:9187/metrics"]);
    // A container need not declare what it listens on.
    assert_eq!(found(&pod(port("7000"), two())).0, [":7000/metrics"]);
    assert_eq!(found(&pod(port("7000"), json!([container("app", &[])]))).0, ["app:7000/metrics"]);
    assert_eq!(found(&pod(annotated(&[YES]), json!([container("app", &[("", 80)])]))).0, ["app:80/metrics"]);
    // The same port twice is one target.
    assert_eq!(found(&pod(port("metrics,9090"), two())).0, ["app:9090/metrics"]);
}

#[test]
fn whoever_is_not_scraped_is_told_why() {
    let several = json!([container("app", &[("http", 80), ("grpc", 81)])]);
    assert_eq!(
        found(&pod(annotated(&[YES]), several.clone())),
        (vec![], vec!["several ports and none is called metrics: http (80), grpc (81); set sidelight.dev/metrics.port".to_owned()])
    );
    let port = |value| annotated(&[YES, ("sidelight.dev/metrics.port", value)]);
    assert_eq!(
        found(&pod(port("admin"), several)).1,
        ["no container declares a port \"admin\"; there are http (80), grpc (81)"]
    );
    let app = || json!([container("app", &[("", 80)])]);
    assert_eq!(
        found(&pod(annotated(&[YES]), json!([container("app", &[])]))).1,
        ["no container declares a port: set sidelight.dev/metrics.port"]
    );
    assert!(found(&pod(annotated(&[]), app())).1[0].starts_with("no annotation asks for it"));
    assert_eq!(
        found(&pod(annotated(&[("sidelight.dev/metrics", "false")]), app())).1,
        ["the pod's annotation says metrics: false"]
    );
    let mut ended = pod(annotated(&[YES]), app());
    ended.phase = Phase::Succeeded;
    assert_eq!(found(&ended).1, ["the pod has ended"]);
    let mut without = pod(annotated(&[YES]), app());
    without.ips.clear();
    assert_eq!(found(&without).1, ["the pod has no address yet"]);
    let asking = pod(annotated(&[YES]), app());
    assert_eq!(
        targets(&asking, &config("namespaces: ['!shop']")).skipped[0].reason,
        "metrics.namespaces leaves shop out"
    );
    assert_eq!(
        targets(&asking, &config("select: none")).skipped[0].reason,
        "the operator has set metrics.select to none"
    );
}

#[test]
fn neither_init_containers_nor_ended_ones_are_asked() {
    let mut containers = json!([
        container("init", &[("metrics", 1)]),
        container("proxy", &[("metrics", 2)]),
        container("done", &[("metrics", 3)]),
        container("app", &[("metrics", 4)])
    ]);
    containers[0]["kind"] = json!("Init");
    containers[1]["kind"] = json!("Sidecar");
    containers[2]["terminated"] = json!(true);
    assert_eq!(found(&pod(annotated(&[YES]), containers)).0, ["proxy:2/metrics", "app:4/metrics"]);
}

#[test]
fn a_container_speaks_for_itself_and_leaves_the_rest_to_its_pod() {
    let containers = || json!([container("app", &[("http", 80)]), container("db", &[("sql", 5432)])]);
    let own = annotated(&[
        YES,
        ("sidelight.dev/metrics.path", "/m"),
        ("sidelight.dev/metrics.port.db", "9187"),
        ("sidelight.dev/metrics.path.db", "/db"),
    ]);
    assert_eq!(found(&pod(own, containers())).0, ["db:9187/db", "app:80/m"]);
    let only = annotated(&[("sidelight.dev/metrics.app", "true")]);
    assert_eq!(found(&pod(only, containers())), (vec!["app:80/metrics".to_owned()], vec![]));
    let but = annotated(&[YES, ("sidelight.dev/metrics.db", "false")]);
    assert_eq!(
        found(&pod(but, containers())),
        (vec!["app:80/metrics".to_owned()], vec!["db: metrics is false for this container".to_owned()])
    );
}

#[test]
fn in_the_nodes_network_only_declared_ports_are_the_pods() {
    let port = |value| annotated(&[YES, ("sidelight.dev/metrics.port", value)]);
    let mut pod = pod(port("10250,9100"), json!([container("app", &[("metrics", 9100)])]));
    pod.host_network = true;
    assert_eq!(
        found(&pod),
        (
            vec!["app:9100/metrics".to_owned()],
            vec!["port 10250 is not declared by a container: in the node's network only declared ports are scraped".to_owned()]
        )
    );
}

#[test]
fn a_pod_may_ask_for_no_more_than_the_operator_gives() {
    let wishes = annotated(&[
        YES,
        ("sidelight.dev/metrics.interval", "1ms"),
        ("sidelight.dev/metrics.honor-labels", "true"),
        ("prometheus.io/port", "81"),
    ]);
    let greedy = pod(wishes, json!([container("app", &[("", 80)])]));
    let of = |metrics: &str| targets(&greedy, &config(metrics)).targets.pop().unwrap();
    assert_eq!((of("").interval, of("").honor_labels, of("").key.port), (Duration::from_secs(5), false, 81));
    assert!(of("honor_labels_namespaces: [shop]").honor_labels);
    assert_eq!(of("prometheus_io: false").key.port, 80);
}
