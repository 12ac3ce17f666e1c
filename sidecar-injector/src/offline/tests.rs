use serde_json::Value;

use super::*;
use crate::decide::tests::config;
use crate::template::VERSION;
use crate::yaml::values;

pub(super) fn settings(config: &Config, native: bool) -> Settings<'_> {
    Settings { config, kubernetes: if native { 34 } else { 31 }, namespace: "default" }
}

fn injected_by(text: &str, native: bool) -> (String, Vec<String>) {
    let outcome = inject(text, settings(&config(""), native));
    let lines = outcome.lines;
    (outcome.text.unwrap_or_else(|| panic!("{lines:?}")), lines)
}

fn injected(text: &str) -> String {
    injected_by(text, true).0
}

fn removed(text: &str) -> String {
    let outcome = uninject(text);
    let lines = outcome.lines;
    outcome.text.unwrap_or_else(|| panic!("{lines:?}\n{text}"))
}

fn refused(text: &str) -> String {
    let outcome = inject(text, settings(&config(""), true));
    assert_eq!(outcome.text, None);
    outcome.lines.join("\n")
}

/// The lines that are not in `text`, in their order; every line of `text` has to be there, in its own.
fn new_lines(text: &str, result: &str) -> Vec<String> {
    let mut old = text.split_inclusive('\n').peekable();
    let new = result.split_inclusive('\n').filter(|line| old.next_if(|next| next == line).is_none());
    let new = new.map(|line| line.trim_end().to_owned()).collect();
    assert_eq!(old.next(), None, "a line is gone from\n{result}");
    new
}

const DEPLOYMENT: &str = r#"# The shop's front.
apiVersion: apps/v1
kind: Deployment
metadata:
  namespace: shop
  name: web   # as in the chart
spec:
  replicas: 3
  template:
    metadata:
      labels: {app: web}
      annotations:
        sidelight.dev/inject: "true"
        sidelight.dev/inject.logs: /logs/*.log   # what the app writes
        # nothing more
    spec:
      containers:
        # the app
        - name: web
          image: web:1
          args: ["--port", "8080"]
          # no probes yet

        - name: proxy
          image: proxy:1
          volumeMounts:
            - {name: tmp, mountPath: /logs}
      volumes:
        - name: tmp
          emptyDir: {}
"#;

#[test]
fn every_line_of_a_deployment_stays_and_the_sidecar_comes_between_them() {
    let (result, told) = injected_by(DEPLOYMENT, true);
    let new = new_lines(DEPLOYMENT, &result);
    assert_eq!(new[0], format!("        sidelight.dev/injected: '{VERSION}-{}'", config("").sidecar.hash()));
    assert_eq!(new[3], "        - name: sidelight-data");
    let count = |part: &str| new.iter().filter(|line| line.contains(part)).count();
    assert_eq!(
        (count("initContainers:"), count("- name: sidelight"), count("sizeLimit")),
        (1, 5, 1),
        "{result}"
    );
    let value = values(&result).unwrap().remove(0).unwrap();
    let sidecar = &value["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!(sidecar["name"], "sidelight");
    let environment = sidecar["env"].as_array().unwrap().iter();
    let configs: Vec<&str> = environment
        .filter(|one| one["name"] == "SIDELIGHT_CONFIG")
        .filter_map(|one| one["value"].as_str())
        .collect();
    let document: Value = serde_json::from_str(configs[0]).unwrap();
    assert_eq!(
        document["kubernetes"]["pod"]["owner"],
        serde_json::json!({ "kind": "Deployment", "name": "web" })
    );
    assert_eq!(told, ["Deployment shop/web: a native sidecar is added for logs"]);
}

#[test]
fn taking_the_sidecar_out_gives_the_bytes_back_and_adding_it_twice_is_once() {
    let job = DEPLOYMENT
        .replace("apps/v1", "batch/v1")
        .replace("Deployment", "Job")
        .replace("    spec:\n", "    spec:\n      restartPolicy: Never\n");
    for text in [
        DEPLOYMENT.to_owned(),
        DEPLOYMENT.replace('\n', "\r\n"),
        DEPLOYMENT.trim_end().to_owned(),
        DEPLOYMENT
            .replace(
                "      volumes:\n        - name: tmp\n          emptyDir: {}\n",
                "      volumes:  # none\n",
            )
            .replace("name: tmp, mountPath: /logs", "name: tmp, mountPath: /tmp")
            .replace(
                "sidelight.dev/inject.logs",
                "kubectl.kubernetes.io/default-container: web\n        sidelight.dev/inject.logs",
            ),
        DEPLOYMENT.replace(
            "        # nothing more\n",
            "        cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: 'tmp'\n",
        ),
        format!(
            "---\n# nothing here\n---\n{DEPLOYMENT}---\nkind: ConfigMap\ndata: {{a: 0644}}\n---\n{job}...\n"
        ),
    ] {
        for native in [true, false] {
            let (once, _) = injected_by(&text, native);
            assert_ne!(once, text);
            assert_eq!(injected_by(&once, native).0, once);
            assert_eq!(removed(&once), text, "{once}");
        }
    }
}

#[test]
fn the_default_container_is_taken_out_where_inject_wrote_it_and_stays_where_somebody_else_did() {
    let key = "kubectl.kubernetes.io/default-container";
    let text = DEPLOYMENT.replace("        # nothing more\n", "");
    let (plain, _) = injected_by(&text, false);
    assert!(plain.contains(&format!("{key}: web")), "{plain}");
    assert!(!removed(&plain).contains(key));
    let own = DEPLOYMENT.replace("        # nothing more\n", &format!("        {key}: web\n"));
    let (plain, _) = injected_by(&own, false);
    assert_eq!(removed(&plain), own);
}

#[test]
fn every_kind_that_makes_pods_is_known_and_others_stay_as_they_are() {
    let pod = r#"metadata: {annotations: {sidelight.dev/inject: "true", sidelight.dev/metrics: "true"}}, spec: {containers: [{name: web}]}"#;
    let template = format!("template: {{{pod}}}");
    for (version, kind, body) in [
        ("v1", "Pod", pod.to_owned()),
        ("apps/v1", "StatefulSet", format!("metadata: {{name: x}}, spec: {{{template}}}")),
        ("apps/v1", "DaemonSet", format!("metadata: {{name: x}}, spec: {{{template}}}")),
        ("apps/v1", "ReplicaSet", format!("metadata: {{name: x}}, spec: {{{template}}}")),
        ("batch/v1", "Job", format!("metadata: {{name: x}}, spec: {{{template}}}")),
        (
            "batch/v1",
            "CronJob",
            format!("metadata: {{name: x}}, spec: {{jobTemplate: {{spec: {{{template}}}}}}}"),
        ),
    ] {
        let object = format!("{{apiVersion: {version}, kind: {kind}, {body}}}");
        let list = format!("apiVersion: v1\nkind: List\nitems:\n- {object}\n- {object}\n");
        assert_eq!(injected(&object).matches("name\": \"sidelight\"").count(), 1, "{object}");
        assert_eq!(injected(&list).matches("name\": \"sidelight\"").count(), 2, "{list}");
        assert_eq!(removed(&injected(&list)), list);
        if kind != "Pod" {
            let owner = format!(r#"{{"kind":"{kind}","name":"x"}}"#);
            assert!(injected(&object).replace("\\\"", "\"").contains(&owner), "{}", injected(&object));
        }
    }
    let other = format!("apiVersion: argoproj.io/v1\nkind: Deployment\nspec: {{{template}}}\n");
    assert_eq!(injected(&other), other);
    for text in ["", "# nothing\n", "---\n", "---\n---\n# x", "\n"] {
        assert_eq!(injected(text), text);
    }
}

#[test]
fn json_is_answered_in_json() {
    let value = values(DEPLOYMENT).unwrap().remove(0).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let result = injected(&pretty);
    let parsed: Value = serde_json::from_str(&result).unwrap();
    assert_eq!(parsed["spec"]["template"]["spec"]["initContainers"][0]["name"], "sidelight");
    assert!(result.lines().all(|line| line.len() < 1000), "{result}");
    let back: Value = serde_json::from_str(&removed(&result)).unwrap();
    assert_eq!(back, value);
    assert_eq!(removed(&result), pretty);
}

#[test]
fn a_template_that_is_shared_is_written_out_and_only_what_asks_gets_a_sidecar() {
    let text = "\
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: a}
  spec:
    template: &t
      metadata: &m {annotations: &a {sidelight.dev/inject: 'true', sidelight.dev/metrics: 'true'}}
      spec: &s {containers: [{name: web, args: [0644, yes]}]}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: b}
  spec:
    template: *t
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: c}
  spec:
    template: {metadata: {<<: *m}, spec: *s}
";
    let (result, told) = injected_by(text, true);
    let value = values(&result).unwrap().remove(0).unwrap();
    for index in 0..3 {
        let spec = &value["items"][index]["spec"]["template"]["spec"];
        assert_eq!(spec["initContainers"].as_array().map(Vec::len), Some(1), "{result}");
    }
    assert_eq!(result.matches("0644, yes").count(), 3);
    assert!(told.iter().any(|line| line.contains("the alias is written out")), "{told:?}");
}

#[test]
fn a_profile_is_found_in_the_same_stream_and_its_absence_is_a_refusal_that_prints_nothing() {
    let named = DEPLOYMENT.replace("inject: \"true\"", "inject: small");
    let profile = |namespace: &str| {
        format!(
            "apiVersion: sidelight.dev/v1alpha1\nkind: SidecarProfile\nmetadata: {{name: small, namespace: {namespace}}}\n\
             spec: {{resources: {{limits: {{memory: 48Mi}}}}}}\n---\n{named}"
        )
    };
    assert!(injected(&profile("shop")).contains("memory: 48Mi"));
    for text in [named.clone(), profile("other")] {
        let told = refused(&text);
        assert!(
            told.contains(
                "Deployment shop/web: refused: sidelight.dev/inject: there is no SidecarProfile \"small\""
            ),
            "{told}"
        );
    }
    let broken = profile("shop").replace("spec: {resources", "spec: {labels: 1, resources");
    assert!(refused(&broken).contains("cannot be used: spec:"), "{}", refused(&broken));
}

#[test]
fn annotations_that_stand_in_the_wrong_place_are_told_with_the_right_one() {
    let text = DEPLOYMENT
        .replace("  name: web   #", "  annotations: {sidelight.dev/inject: 'true'}\n  name: web   #");
    let told = injected_by(&text, true).1;
    assert_eq!(
        told[0],
        "Deployment shop/web: warning: sidelight.dev/inject on the Deployment itself has no effect; it belongs in \
         spec.template.metadata.annotations"
    );
}

#[test]
fn what_no_api_server_would_take_is_refused_with_the_reason() {
    let unquoted = DEPLOYMENT.replace("inject: \"true\"", "inject: true");
    assert!(
        refused(&unquoted).contains("sidelight.dev/inject is no text: true; write it in quotes: \"true\"")
    );
    assert!(refused("a: [").contains("not YAML that can be used"));
    assert!(refused("a:\n\tb: c\n").contains("line 2"), "{}", refused("a:\n\tb: c\n"));
    let denied = DEPLOYMENT.replace("/logs/*.log", "/etc/*.log");
    assert!(
        refused(&denied)
            .contains("Deployment shop/web: refused: sidelight.dev/inject.logs: no container mounts")
    );
}

#[test]
fn a_pod_without_a_sidecar_of_ours_is_not_touched_by_uninject() {
    let own = DEPLOYMENT.replace("name: proxy", "name: sidelight");
    assert_eq!(removed(&own), own);
}
