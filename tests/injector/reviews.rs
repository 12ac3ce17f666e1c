//! Reviews as the API server sends them, and what is told of them.

use serde_json::{Value, json};
use sidelight_tests::caller::review;
use sidelight_tests::eventually;

use crate::{Stage, annotated, answer, patched, pod, sidecar};

/// Scenario: a pod that asks for a sidecar, and the same pod when it has one.
/// Guarantee: it gets one, fields that nobody knows stay as they are; the second time nothing is added. The answer has the
/// review's uid.
#[test]
fn a_pod_gets_one_sidecar_and_keeps_what_it_has() {
    let stage = Stage::new();
    let mut line = stage.caller().connect().unwrap();
    let response = answer(&line.review(&review("u-7", "shop", &pod(), false)).unwrap());
    assert_eq!(response["uid"], "u-7");
    let injected = patched(&pod(), &response);
    assert_eq!(sidecar(&injected)["image"], "sidelight:test");
    assert_eq!(injected["spec"]["initContainers"][0]["restartPolicy"], "Always", "native, for it is a 1.34");
    for pointer in ["/metadata/futureField", "/spec/futureField", "/spec/containers/0/futureField"] {
        assert_eq!(injected.pointer(pointer), pod().pointer(pointer), "{pointer}");
    }
    let again = answer(&line.review(&review("u-8", "shop", &injected, false)).unwrap());
    assert_eq!(again, json!({ "uid": "u-8", "allowed": true }));
    let plain = json!({ "metadata": {}, "spec": { "containers": [{ "name": "web" }] } });
    let left = answer(&line.review(&review("u-9", "shop", &plain, false)).unwrap());
    assert_eq!(left, json!({ "uid": "u-9", "allowed": true }));
}

/// The events with this reason.
fn events(stage: &Stage, reason: &str) -> Vec<Value> {
    stage.plane.events().into_iter().filter(|event| event["reason"] == reason).collect()
}

/// Scenario: pods that get a sidecar, get one with warnings, are refused, and the same as dry runs.
/// Guarantee: an event on the pod's owner says what was done, as a warning where something is wrong; of dry runs there is none.
#[test]
fn what_was_done_is_told_on_the_owner_and_dry_runs_leave_no_trace() {
    let stage = Stage::new();
    let send = |pod: &Value, is_dry_run| {
        answer(&stage.caller().review(&review("u", "shop", pod, is_dry_run)).unwrap())
    };
    let misspelt = annotated(&[("inject.cpu-limits", "1")]);
    let refused = annotated(&[("inject", "nosuch")]);
    for pod in [&pod(), &misspelt, &refused] {
        send(pod, true);
    }
    let response = send(&misspelt, false);
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.contains("sidelight.dev/inject.cpu-limits") && warning.is_ascii(), "{warning}");
    let response = send(&refused, false);
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(422)));
    assert!(response["status"]["message"].as_str().unwrap().contains("\"nosuch\""), "{response}");
    eventually("both are told", || stage.plane.events().len() >= 2);
    let told = stage.plane.events();
    assert_eq!(told.len(), 2, "{told:#?}");
    let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "uid-web", "namespace": "shop" });
    for (event, reason) in told.iter().zip(["Injected", "InjectionDenied"]) {
        assert_eq!((&event["reason"], &event["type"]), (&json!(reason), &json!("Warning")));
        assert_eq!(event["regarding"], owner);
        assert!(event["series"].is_null(), "told once: {event}");
        assert_eq!(event["reportingController"], "sidelight-injector");
    }
    // What comes again and again, as a ReplicaSet tries, is one event that is counted.
    send(&refused, false);
    eventually("the second refusal is counted", || {
        events(&stage, "InjectionDenied")[0]["series"]["count"] == 2
    });
}

/// Scenario: a pod with much that is wrong, said in letters of three bytes each.
/// Guarantee: the event is cut to what the API server takes, and not lost.
#[test]
fn an_event_is_no_longer_than_the_api_server_takes() {
    let stage = Stage::new();
    let nonsense = "\u{65e5}".repeat(64);
    let names = ["cpu-request", "cpu-limit", "memory-request", "memory-limit", "native", "order", "otlp"];
    let wrong = names.map(|name| (format!("inject.{name}"), nonsense.as_str()));
    stage.answer(&annotated(&wrong.each_ref().map(|(name, value)| (name.as_str(), *value))));
    eventually("the event is written", || {
        assert_eq!(stage.injector.metric("sidelight_injector_events_dropped_total"), 0.0);
        !stage.plane.events().is_empty()
    });
    let told = stage.plane.events()[0]["note"].as_str().unwrap().len();
    assert!(told > 1_000, "as much as there is room for: {told}");
}

/// Scenario: requests that are no reviews, each over a connection of its own.
/// Guarantee: each gets the status that says why, and is counted; the next review is answered.
#[test]
fn what_is_no_review_gets_a_status_that_says_why() {
    let stage = Stage::new();
    let send = |method: &str, path: &str, content: &str, body: &str| {
        let mut line = stage.caller().connect().unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: injector\r\nContent-Type: {content}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        line.write(request.as_bytes()).unwrap();
        line.reply().unwrap()
    };
    let body = String::from_utf8(review("u", "shop", &pod(), false)).unwrap();
    let json = "application/json";
    let older = body.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    for (status, method, path, content, body) in [
        (400, "POST", "/mutate", json, "{\"apiVersion\":"),
        (400, "POST", "/mutate", json, "{}"),
        (400, "POST", "/mutate", json, older.as_str()),
        (415, "POST", "/mutate", "application/yaml", body.as_str()),
        (415, "POST", "/mutate", "application/jsonlines", body.as_str()),
        (405, "GET", "/mutate", json, ""),
        (405, "PUT", "/mutate?timeout=5s", json, body.as_str()),
        (404, "POST", "/", json, body.as_str()),
        (404, "POST", "/mutate/", json, body.as_str()),
    ] {
        let reply = send(method, path, content, body);
        assert_eq!(reply.status, status, "{method} {path} {content} {body}");
        assert!(reply.body.len() > 5, "it says why");
        assert!(reply.is_last());
    }
    for content in [json, "application/json; charset=utf-8", "application/json;charset=UTF-8"] {
        answer(&send("POST", "/mutate?timeout=30s&x=y", content, &body));
    }
    for (status, count) in [("400", 3.0), ("415", 2.0), ("405", 2.0), ("404", 2.0)] {
        let name = format!("sidelight_injector_rejected_total{{status=\"{status}\"}}");
        assert_eq!(stage.injector.metric(&name), count, "{status}");
    }
}
