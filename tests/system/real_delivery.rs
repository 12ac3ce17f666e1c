//! The chart, installed by Helm in a real Kubernetes, with agent and injector from images.
//!
//! As `real_sidecar`, after `tests/delivery/build`, and with the images `sidelight.test/sidelight:1` and
//! `sidelight.test/sidelight-injector:1` in the cluster (`tests/delivery/image` makes both).

#![allow(clippy::print_stderr, reason = "it measures, and says what it has measured")]

mod dashboards;
mod kustomize;
mod nodes;
mod notes;
mod release;
mod reviews;

use std::net::Ipv6Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sidelight_tests::relay::Relay;
use sidelight_tests::tls::Authority;

use self::release::{NAME, Release};
use self::reviews::{Asking, asking, create, warnings};
use crate::real_kubernetes::stage::{Stage, kubectl, name, text, wait_for};
use crate::real_prometheus::program::Program;
use crate::real_receivers::receiver::Receiver;
use crate::real_sidecar::injector::{sidecar, try_apply, way_to};

/// Receivers of others, and a namespace for apps.
struct Site {
    fluent: Receiver,
    prometheus: Program,
    stage: Stage,
    /// Pods reach the node, not its loopback.
    ways: [Relay; 2],
}

// === impl Site ===

impl Site {
    fn open(test: &str) -> Self {
        Self::open_with(test, Program::newer_prometheus)
    }

    fn open_with(test: &str, prometheus: impl FnOnce(&Path) -> Program) -> Self {
        let stage = Stage::new(test);
        let (fluent, prometheus) = (Receiver::fluent(&[]), prometheus(stage.directory.path()));
        let ways = [fluent.port, prometheus.port].map(way_to);
        Site { fluent, prometheus, stage, ways }
    }

    fn install(&self) -> Release {
        self.install_with(&json!({}))
    }

    /// With further values.
    fn install_with(&self, values: &Value) -> Release {
        let release = self.begin_with(values);
        release.rolled_out();
        release
    }

    /// The same, without waiting until all is ready.
    fn begin_with(&self, values: &Value) -> Release {
        let [logs, metrics] = [0, 1].map(|index: usize| self.ways[index].address());
        Release::install(&logs.to_string(), &format!("http://{metrics}/api/v1/write"), values)
    }

    /// The value of the only series of a query.
    fn value(&self, query: &str) -> Option<f64> {
        let found = self.prometheus.query(query);
        let [series] = found.as_slice() else { return None };
        text(&series["value"][1]).parse().ok()
    }

    /// How many records of a writer have this value in this field.
    fn records_with(&self, writer: &str, field: &str, value: &str) -> usize {
        let arrivals = self.fluent.arrivals.lock().unwrap();
        let is_meant = |record: &&Value| record["kubernetes"]["pod_name"] == writer && record[field] == value;
        arrivals.all.iter().map(|arrived| &arrived.record).filter(is_meant).count()
    }
}

/// A pod that writes numbered lines to its standard output.
fn writer(app: &str, lines: u64, rate: u32) -> Value {
    json!({
        "metadata": { "labels": { "app": app } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "app", "image": "sidelight.test/writer:1", "imagePullPolicy": "Never",
                "env": [
                    { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "LINES", "value": lines.to_string() }, { "name": "RATE", "value": rate.to_string() },
                ],
            }],
        },
    })
}

/// The same into a file, with a page for itself alone; it asks for a sidecar.
fn with_sidecar(app: &str, lines: u64) -> Value {
    let mut pod = writer(app, lines, 200);
    pod["metadata"]["annotations"] = json!({
        "sidelight.dev/inject": "true", "sidelight.dev/inject.logs": "/logs/app.log",
        "sidelight.dev/metrics": "true", "sidelight.dev/metrics.port": "8081",
    });
    let variables = pod["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    variables.extend([
        json!({ "name": "FILE", "value": "/logs/app.log" }),
        json!({ "name": "PORT", "value": "8081" }),
    ]);
    pod
}

/// Scenario: a cluster in which pods write already; the chart is installed with the addresses of two receivers. Then a pod asks for
/// a sidecar.
/// Guarantee: every line arrives, with what Kubernetes knows about its pod; agent and injector are scraped, without anything
/// else being set; the pod has its sidecar, whose file and page arrive; the commands that Helm proposes work; `helm test` passes
/// and leaves nothing.
#[test]
#[ignore = "needs a cluster"]
fn installed_with_two_addresses_it_delivers_logs_and_samples() {
    let mut site = Site::open("delivery");
    let writers = site.stage.run("writer", 2, &writer("writer", 3_000, 300));
    let begun = Instant::now();
    let release = std::thread::scope(|scope| {
        let arrivals = site.fluent.arrivals.clone();
        let first = scope.spawn(move || {
            wait_quickly("the first line", || !arrivals.lock().unwrap().all.is_empty());
            begun.elapsed()
        });
        let release = site.install();
        let ready = begun.elapsed();
        eprintln!(
            "helm install: first line delivered after {:?}, all ready after {ready:?}",
            first.join().unwrap()
        );
        release
    });
    for pod in &writers {
        wait_for("all lines", || site.fluent.count(name(pod)) == 3_000);
        assert_eq!(site.records_with(name(pod), "cluster", "test"), 3_000);
    }
    for component in ["agent", "injector"] {
        let up = format!(
            "up{{cluster='test',job='{NAME}/{NAME}-{component}',namespace='{NAME}',container='{component}',node='node-1'}}"
        );
        let pods = release.pods(component).len() as f64;
        wait_for("its own metrics", || site.value(&format!("sum({up})")) == Some(pods));
    }
    let pods = site.stage.run("web", 1, &with_sidecar("web", 1_000));
    let web = name(&pods[0]).to_owned();
    assert!(sidecar(&pods[0]).is_object(), "{}", pods[0]["spec"]);
    wait_for("the lines of the file", || site.fluent.count(&web) == 1_000);
    let page =
        format!("written_lines_total{{cluster='test',namespace='{}',pod='{web}'}}", site.stage.namespace);
    wait_for("the page", || site.value(&page) == Some(1_000.0));
    notes::type_all(&release, &site.stage.namespace, name(&writers[0]));
    let told = release.test();
    assert!(told.contains("ok       dry run: a pod that asks comes back with a sidecar"), "{told}");
    assert!(release.pods("test").is_empty());
    print_use();
    // Before the receiver: an agent that ends gives it what it has, and waits for one that is away.
    drop(release);
    site.fluent.assert_complete_of(name(&writers[0]), 3_000);
    site.fluent.assert_complete_of(name(&writers[1]), 3_000);
}

/// Scenario: the annotations of a pod are put on the Deployment or the CronJob that makes it, or where they belong.
/// Guarantee: whoever puts them where nothing reads them is warned, and told where they belong; nothing is refused.
#[test]
#[ignore = "needs a cluster"]
fn annotations_where_nothing_reads_them_are_warned_of() {
    let site = Site::open("misplaced");
    let _release = site.install();
    let template = |restart: &str| {
        json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": {
                "restartPolicy": restart,
                "containers": [{ "name": "app", "image": "sidelight.test/writer:1" }],
            },
        })
    };
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "namespace": site.stage.namespace },
        "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template("Always") },
    });
    let mut cron_job = json!({
        "apiVersion": "batch/v1", "kind": "CronJob",
        "metadata": { "name": "nightly", "namespace": site.stage.namespace },
        "spec": { "schedule": "0 1 * * *", "jobTemplate": { "spec": { "template": template("Never") } } },
    });
    let annotations = json!({ "sidelight.dev/inject": "true", "team": "shop" });
    deployment["spec"]["template"]["metadata"]["annotations"] = annotations.clone();
    assert_eq!(warnings(&deployment), "");
    deployment["metadata"]["annotations"] = annotations.clone();
    cron_job["metadata"]["annotations"] = annotations;
    let of_deployment = "nothing reads sidelight.dev/inject here: annotations of pods stand in spec.template.metadata.annotations";
    let of_cron_job = "stand in spec.jobTemplate.spec.template.metadata.annotations";
    wait_for("a warning, once the API server has the policy", || {
        warnings(&deployment).contains(of_deployment)
    });
    assert!(warnings(&cron_job).contains(of_cron_job), "{}", warnings(&cron_job));
}

/// Scenario: while a pod writes and others that ask for a sidecar are created one after the other, the configuration is changed by
/// an upgrade; then it is taken back by a rollback; then the release is taken away.
/// Guarantee: agent and injector get the new configuration, and the old one again; no pod is refused or comes without a
/// sidecar, no line is lost; in the end nothing is left but the CustomResourceDefinition, and pods can be created.
#[test]
#[ignore = "needs a cluster"]
fn upgrade_and_rollback_lose_nothing_and_uninstall_leaves_nothing() {
    let mut site = Site::open("upgrade");
    let release = site.install();
    let writers = site.stage.run("writer", 1, &writer("writer", 6_000, 100));
    let writer = name(&writers[0]).to_owned();
    wait_for("records of the cluster", || site.records_with(&writer, "cluster", "test") > 0);
    let reviews = Asking::start(&site.stage.namespace);
    wait_for("some pods", || reviews.created() > 5);
    let first = ids(&release);
    release.upgrade(&json!({ "cluster": "changed" }));
    let second = ids(&release);
    assert!(first.iter().all(|id| !second.contains(id)), "all pods are new: {first:?} {second:?}");
    wait_for("the new configuration", || site.records_with(&writer, "cluster", "changed") > 0);
    let before = site.records_with(&writer, "cluster", "test");
    release.roll_back();
    wait_for("the old configuration", || site.records_with(&writer, "cluster", "test") > before);
    let created = reviews.created();
    wait_for("some pods more", || reviews.created() > created + 5);
    eprintln!("{} pods were created meanwhile", reviews.end());
    wait_for("all lines", || site.fluent.count(&writer) == 6_000);
    release.uninstall();
    assert_eq!(
        left_behind(),
        ["customresourcedefinition.apiextensions.k8s.io/sidecarprofiles.sidelight.dev"]
    );
    assert_eq!(try_apply(&asking("late", &site.stage.namespace).to_string()), Ok(()));
    let twice = site.fluent.assert_complete_of(&writer, 6_000);
    assert_eq!(twice, 0, "what was acknowledged comes again");
}

/// Scenario: the agent is user 1000 of root's group, with its positions in an emptyDir.
/// Guarantee: it may read what the kubelet has written, and every line arrives.
#[test]
#[ignore = "needs a cluster"]
fn an_agent_that_is_not_root_reads_as_root_group() {
    let mut site = Site::open("user");
    let release =
        site.install_with(&json!({ "agent": { "runAsUser": 1000, "dataDir": { "type": "emptyDir" } } }));
    let agents = release.pods("agent");
    let context = &agents[0]["spec"]["containers"][0]["securityContext"];
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&json!(1000), &json!(0)));
    let writers = site.stage.run("writer", 1, &writer("writer", 2_000, 400));
    let writer = name(&writers[0]).to_owned();
    wait_for("all lines", || site.fluent.count(&writer) == 2_000);
    drop(release);
    site.fluent.assert_complete_of(&writer, 2_000);
}

/// Scenario: a cluster of both families that prefers IPv4; the webhook's Service is to have addresses of both, IPv6 first, then of
/// IPv6 only.
/// Guarantee: it has them, and pods get their sidecars.
#[test]
#[ignore = "needs a cluster"]
fn the_webhook_has_addresses_of_the_families_that_are_asked_for() {
    let site = Site::open("families");
    let values = |policy: &str, families: &Value| json!({ "injector": { "service": { "ipFamilyPolicy": policy, "ipFamilies": families } } });
    let assert_reached = |families: &Value| {
        let service = kubectl(&["get", "service", "sidelight-injector", "-n", NAME, "-o", "json"]);
        assert_eq!(service["spec"]["ipFamilies"], *families);
        assert!(text(&service["spec"]["clusterIP"]).parse::<Ipv6Addr>().is_ok(), "{}", service["spec"]);
        assert_eq!(create(&asking("asking", &site.stage.namespace)), Ok(()));
    };
    let (both, one) = (json!(["IPv6", "IPv4"]), json!(["IPv6"]));
    let release = site.install_with(&values("RequireDualStack", &both));
    assert_reached(&both);
    release.upgrade(&values("SingleStack", &one));
    assert_reached(&one);
}

/// Scenario: while pods that ask for a sidecar are created one after the other, a Secret with a certificate of others takes the place
/// of the injector's own; the API server is told of both authorities.
/// Guarantee: none is refused or comes without a sidecar; what the injector made for itself is gone.
#[test]
#[ignore = "needs a cluster"]
fn a_certificate_of_others_takes_the_place_of_the_injectors_own() {
    let site = Site::open("certificate");
    let release = site.install();
    let file = |name: &str| site.stage.directory.path().join(name);
    let authority = Authority::new();
    authority.write(&file("ca.crt"));
    let own = "go-template={{ index .data \"ca.crt\" | base64decode }}";
    let own = run(&["get", "secret", "sidelight-injector-tls", "-n", NAME, "--output", own]).1;
    std::fs::write(file("both.crt"), std::fs::read_to_string(file("ca.crt")).unwrap() + &own).unwrap();
    authority.issue("sidelight-injector.sidelight.svc").write(&file("tls.crt"), &file("tls.key"));
    let parts =
        ["both.crt", "tls.crt", "tls.key"].map(|name| format!("--from-file={}", file(name).display()));
    let mut arguments = vec!["create", "secret", "generic", "mine", "-n", NAME];
    arguments.extend(parts.iter().map(String::as_str));
    assert!(run(&arguments).0);
    let bundle = kubectl(&["get", "secret", "mine", "-n", NAME, "-o", "json"])["data"]["both.crt"].clone();
    let certificate = json!({ "source": "secret", "secretName": "mine", "caBundle": bundle });
    let reviews = Asking::start(&site.stage.namespace);
    release.upgrade(&json!({ "injector": { "certificate": certificate } }));
    let created = reviews.created();
    wait_for("pods that the new replicas alone have reviewed", || reviews.created() > created + 20);
    reviews.end();
    let told = release.test();
    assert!(told.contains("ok       dry run: a pod that asks comes back with a sidecar"), "{told}");
    let rest = run(&[
        "get",
        "secrets,roles",
        "-n",
        NAME,
        "-l",
        "app.kubernetes.io/component=injector",
        "-o",
        "name",
    ]);
    assert_eq!(rest, (true, String::new()));
}

/// Whether kubectl succeeds, and what it prints.
fn run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("kubectl").args(arguments).stderr(Stdio::inherit()).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// The ids of the release's pods, without those that are about to go.
fn ids(release: &Release) -> Vec<String> {
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    release.pods("").iter().filter(stays).map(|pod| text(&pod["metadata"]["uid"]).to_owned()).collect()
}

/// What the API server still has of the release, by its label.
fn left_behind() -> Vec<String> {
    let kinds = run(&["api-resources", "--verbs=list", "-o", "name"]).1;
    let kinds: Vec<&str> = kinds.lines().collect();
    assert!(kinds.len() > 40, "{kinds:?}");
    let labels = format!("app.kubernetes.io/instance={NAME}");
    let left = run(&["get", &kinds.join(","), "-A", "-l", &labels, "-o", "name"]).1;
    let named = run(&["get", "secrets,configmaps,serviceaccounts", "-n", NAME, "-o", "name"]).1;
    let is_of_the_release = |object: &&str| object.contains(NAME);
    left.lines().chain(named.lines().filter(is_of_the_release)).map(str::to_owned).collect()
}

/// As `wait_for`, for what is measured.
fn wait_quickly(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(120), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Prints what the kubelet says that the release's containers use.
fn print_use() {
    let output = Command::new("kubectl")
        .args(["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics/resource"])
        .output()
        .unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    let uses = ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"];
    let is_use = |line: &&str| uses.iter().any(|metric| line.starts_with(metric));
    let of_ours = format!("namespace=\"{NAME}\"");
    let is_ours = |line: &&str| line.contains(&of_ours);
    page.lines().filter(is_use).filter(is_ours).for_each(|line| eprintln!("{line}"));
}
