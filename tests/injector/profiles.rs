//! `SidecarProfile`s: what they change, and what their status says.

use std::time::Duration;

use serde_json::{Value, json};
use sidelight_tests::caller::review;
use sidelight_tests::control_plane::ControlPlane;
use sidelight_tests::eventually;

use crate::{Stage, annotated, answer, caller, patched, pod, sidecar, start};

/// The condition of a profile, null while there is none.
fn condition(plane: &ControlPlane, name: &str) -> Value {
    plane.profile("shop", name)["status"]["conditions"][0].clone()
}

fn memory(limit: &str) -> Value {
    json!({ "resources": { "limits": { "memory": limit } } })
}

/// Scenario: a profile that is right, one whose image the operator does not allow, one that is not there.
/// Guarantee: the first shapes the sidecar, the others are refused with the reason; the status of each says the same, is
/// written once, and not again.
#[test]
fn a_profile_shapes_the_sidecar_and_its_status_says_whether_it_can() {
    let stage = Stage::new();
    stage.plane.apply_profile("shop", "small", &memory("48Mi"));
    stage.plane.apply_profile("shop", "foreign", &json!({ "image": "evil:1" }));
    stage.plane.apply_profile("elsewhere", "away", &memory("48Mi"));
    eventually("each has a status", || {
        let is_told = |name: &str| condition(&stage.plane, name).is_object();
        is_told("small")
            && is_told("foreign")
            && !stage.plane.profile("elsewhere", "away")["status"].is_null()
    });
    let small = condition(&stage.plane, "small");
    let told = (&small["type"], &small["status"], &small["observedGeneration"]);
    assert_eq!(told, (&json!("Ready"), &json!("True"), &json!(1)));
    let foreign = condition(&stage.plane, "foreign");
    assert_eq!((&foreign["status"], &foreign["reason"]), (&json!("False"), &json!("Invalid")));
    assert!(foreign["message"].as_str().unwrap().contains("image_allow"), "{foreign}");

    let named = annotated(&[("inject", "small")]);
    let injected = patched(&named, &stage.answer(&named));
    assert_eq!(sidecar(&injected)["resources"]["limits"]["memory"], "48Mi");
    for (name, part) in
        [("foreign", "image_allow"), ("nosuch", "there is no SidecarProfile"), ("away", "namespace")]
    {
        let response = stage.answer(&annotated(&[("inject", name)]));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(response["allowed"] == false && message.contains(part), "{name}: {message}");
    }

    // The injector sees its own writing come back through the watch: that is no news.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(stage.plane.count("PATCH /apis/sidelight.dev"), 3);
}

/// Scenario: a profile is changed, becomes bad, and good again.
/// Guarantee: the next review after the change is seen goes by it; the status follows.
#[test]
fn a_profile_that_is_changed_is_in_force_for_the_next_review() {
    let stage = Stage::new();
    let named = annotated(&[("inject", "small")]);
    for (generation, spec, ready) in
        [(1, memory("48Mi"), "True"), (2, memory("much"), "False"), (3, memory("64Mi"), "True")]
    {
        stage.plane.apply_profile("shop", "small", &spec);
        eventually("its status follows", || {
            let found = condition(&stage.plane, "small");
            found["observedGeneration"] == generation && found["status"] == ready
        });
        let response = stage.answer(&named);
        assert_eq!(response["allowed"], json!(ready == "True"), "{response}");
        if ready == "True" {
            let limits = &spec["resources"]["limits"];
            assert_eq!(
                sidecar(&patched(&named, &response))["resources"]["limits"]["memory"],
                limits["memory"]
            );
        }
    }
}

/// Scenario: the API server does not list the profiles; a pod names one, another pod none.
/// Guarantee: there is no answer for the first, so that the API server decides by its policy; the second is served. Once they
/// are listed, so is the first.
#[test]
fn without_a_list_of_profiles_there_is_no_answer_for_pods_that_name_one() {
    let (plane, directory) = (ControlPlane::new(), tempfile::tempdir().unwrap());
    plane.hide_profiles(true);
    plane.apply_profile("shop", "small", &memory("48Mi"));
    let injector = start(&directory, &plane, "").ready();
    let send = |pod: &Value| caller(&injector, &plane).review(&review("u", "shop", pod, true)).unwrap();
    let named = annotated(&[("inject", "small")]);
    assert_eq!(send(&named).status, 503);
    answer(&send(&pod()));
    plane.hide_profiles(false);
    eventually("the profiles are listed", || send(&named).status == 200);
    assert_eq!(sidecar(&patched(&named, &answer(&send(&named))))["resources"]["limits"]["memory"], "48Mi");
}
