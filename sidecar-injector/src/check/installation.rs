//! The webhook's registration, and whether the whole way works.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};
use sidelight_contract::annotations::PREFIX;
use sidelight_contract::sidecar::CONTAINER;

use super::{Finding, Status};

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// The webhooks of a configuration that call a Service of this name.
pub fn of_service<'a>(
    configuration: &'a MutatingWebhookConfiguration,
    service: &str,
) -> Vec<&'a MutatingWebhook> {
    let is_ours = |webhook: &&MutatingWebhook| {
        webhook.client_config.service.as_ref().is_some_and(|called| called.name == service)
    };
    configuration.webhooks.iter().flatten().filter(is_ours).collect()
}

/// Whether it is registered.
pub fn registration(
    name: &str,
    configuration: Option<&MutatingWebhookConfiguration>,
    service: &str,
) -> Finding {
    let failed = |message, hint| Finding::new("webhook", Status::Failed, message, hint);
    let Some(configuration) = configuration else {
        return failed(
            format!("there is no MutatingWebhookConfiguration {name}"),
            "install the injector, or give its configuration with --config",
        );
    };
    let Some(webhook) = of_service(configuration, service).into_iter().next() else {
        return failed(
            format!("the MutatingWebhookConfiguration {name} calls no Service {service}"),
            "correct it, or certificate.webhook and certificate.service of the injector's configuration",
        );
    };
    let namespace = webhook.client_config.service.as_ref().map_or("", |service| &service.namespace);
    Finding::ok("webhook", format!("{name} calls the Service {namespace}/{service}"))
}

/// What becomes of pods while the injector is away. `ready` are its replicas, if they may be counted.
pub fn failure_policy(webhooks: &[&MutatingWebhook], ready: Result<usize, &str>) -> Finding {
    let check = "failure policy";
    let fails = |webhook: &&MutatingWebhook| webhook.failure_policy.as_deref() != Some("Ignore");
    let is_unlimited =
        |webhook: &&MutatingWebhook| webhook.match_conditions.iter().flatten().next().is_none();
    let ready = match ready {
        Ok(0) => {
            let hint = "look at its pods: one is ready when it has a certificate and knows the cluster";
            return Finding::new(check, Status::Failed, "no replica of the injector is ready", hint);
        }
        Ok(ready) => ready,
        Err(reason) => return Finding::skipped(check, reason),
    };
    let are = if ready == 1 { "1 replica is".to_owned() } else { format!("{ready} replicas are") };
    if !webhooks.iter().any(fails) {
        let message = format!("Ignore, {are} ready: pods start without a sidecar while the injector is away");
        return Finding::ok(check, message);
    }
    if webhooks.iter().filter(|webhook| fails(webhook)).any(is_unlimited) {
        return Finding::new(
            check,
            Status::Warning,
            "Fail, and no matchConditions: no pod at all can be created while the injector is away",
            "let it be called for pods that ask only, as the chart does",
        );
    }
    if ready == 1 {
        return Finding::new(
            check,
            Status::Warning,
            "Fail, and 1 replica is ready: pods that ask cannot be created while it is away",
            "run two replicas or more",
        );
    }
    Finding::ok(check, format!("Fail, {are} ready: only pods that ask wait for them"))
}

/// Whether any of the webhooks is called for pods of a namespace with these labels.
pub fn calls_for(webhooks: &[&MutatingWebhook], labels: &Labels) -> bool {
    webhooks.iter().any(|webhook| match webhook.namespace_selector.clone().map(Selector::try_from) {
        None => true,
        Some(Ok(selector)) => selector.matches(labels),
        // The API server has accepted it, so it knows more than this version.
        Some(Err(_)) => true,
    })
}

/// Which namespaces the webhooks are not called for.
pub fn namespaces(webhooks: &[&MutatingWebhook], namespaces: &BTreeMap<String, Labels>) -> Finding {
    let out: Vec<&str> = namespaces
        .iter()
        .filter(|(_, labels)| !calls_for(webhooks, labels))
        .map(|(name, _)| name.as_str())
        .collect();
    let message = match out.as_slice() {
        [] => format!("all {} namespaces are served", namespaces.len()),
        out => format!(
            "{} of {} are served; left out: {}",
            namespaces.len() - out.len(),
            namespaces.len(),
            out.join(", ")
        ),
    };
    if out.len() == namespaces.len() && !out.is_empty() {
        return Finding::new(
            "namespaces",
            Status::Failed,
            message,
            "correct the webhook's namespaceSelector",
        );
    }
    Finding::ok("namespaces", message)
}

/// A pod that asks for a sidecar; every namespace takes it.
pub fn probe() -> Value {
    json!({
        "metadata": { "generateName": "sidelight-check-", "annotations": {
            format!("{PREFIX}inject"): "true", format!("{PREFIX}inject.logs"): "/sidelight-check/*.log" } },
        "spec": {
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65_532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "app",
                "image": "sidelight-check",
                "resources": { "requests": { "cpu": "1m", "memory": "1Mi" }, "limits": { "cpu": "1m", "memory": "1Mi" } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    })
}

/// The API server's answer to the creation of [`probe`], as a dry run: the pod, or its status and message.
pub fn dry_run(answer: &Result<Value, (u16, String)>) -> Finding {
    let check = "dry run";
    let failed = |message: String, hint| Finding::new(check, Status::Failed, message, hint);
    match answer {
        Ok(pod) => match injected(pod) {
            Some(version) => {
                Finding::ok(check, format!("a pod that asks comes back with a sidecar, {version}"))
            }
            None => failed(
                "a pod that asks comes back without a sidecar".to_owned(),
                "the webhook is not called for this namespace (see its selectors and matchConditions), or fails and is ignored",
            ),
        },
        Err((_, message)) if message.contains("failed calling webhook") => failed(
            message.clone(),
            "the API server does not reach the injector, or does not believe its certificate",
        ),
        Err((_, message)) if message.contains("denied the request") && message.contains(PREFIX) => {
            Finding::new(
                check,
                Status::Warning,
                format!("the webhook answers, and refuses: {message}"),
                "give the injector an output for logs, or leave outputs to profiles",
            )
        }
        Err((code @ (401 | 403 | 404), message)) => {
            let hint = "name a namespace with --namespace where you may create pods";
            Finding { hint, ..Finding::skipped(check, &format!("{code}: {message}")) }
        }
        Err((code, message)) => {
            let hint = "something else than the webhook may refuse it; try another --namespace";
            Finding::new(check, Status::Warning, format!("the pod is refused with {code}: {message}"), hint)
        }
    }
}

/// What the webhook has written on a pod, if it has a sidecar.
pub fn injected(pod: &Value) -> Option<&str> {
    let lists = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array());
    let mut containers = lists.into_iter().flatten().flatten();
    containers.find(|container| container["name"] == CONTAINER)?;
    pod["metadata"]["annotations"][format!("{PREFIX}injected")].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(webhook: &Value) -> MutatingWebhookConfiguration {
        let mut one = json!({ "name": "pod.sidelight.dev", "sideEffects": "NoneOnDryRun", "admissionReviewVersions": ["v1"],
            "clientConfig": { "service": { "name": "injector", "namespace": "sidelight" } },
            "matchConditions": [{ "name": "asks", "expression": "true" }] });
        let changes = webhook.as_object().unwrap().clone();
        one.as_object_mut().unwrap().extend(changes);
        serde_json::from_value(json!({ "metadata": { "name": "w" }, "webhooks": [one] })).unwrap()
    }

    fn labelled(names: &[&str]) -> BTreeMap<String, Labels> {
        let labels = |name: &str| Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())]);
        names.iter().map(|name| ((*name).to_owned(), labels(name))).collect()
    }

    #[test]
    fn a_registration_that_calls_somebody_else_fails() {
        let found = configuration(&json!({}));
        assert_eq!(
            registration("w", Some(&found), "injector").message,
            "w calls the Service sidelight/injector"
        );
        assert_eq!(registration("w", Some(&found), "other").status, Status::Failed);
        assert_eq!(registration("w", None, "injector").status, Status::Failed);
    }

    #[test]
    fn fail_needs_two_replicas_and_to_be_called_for_few() {
        for (webhook, ready, expected) in [
            (json!({}), Ok(2), Status::Ok),
            (json!({}), Ok(1), Status::Warning),
            (json!({}), Ok(0), Status::Failed),
            (json!({}), Err("forbidden"), Status::Skipped),
            (json!({ "failurePolicy": "Ignore" }), Ok(1), Status::Ok),
            (json!({ "failurePolicy": "Fail", "matchConditions": [] }), Ok(3), Status::Warning),
        ] {
            let found = configuration(&webhook);
            assert_eq!(
                failure_policy(&of_service(&found, "injector"), ready).status,
                expected,
                "{webhook} {ready:?}"
            );
        }
    }

    #[test]
    fn namespaces_that_are_left_out_are_named() {
        let not = json!({ "namespaceSelector": { "matchExpressions": [
            { "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"] }] } });
        let found = configuration(&not);
        let finding = namespaces(&of_service(&found, "injector"), &labelled(&["a", "kube-system"]));
        assert_eq!(finding.line(), "ok       namespaces: 1 of 2 are served; left out: kube-system");
        let none = configuration(&json!({ "namespaceSelector": { "matchLabels": { "x": "y" } } }));
        assert_eq!(namespaces(&of_service(&none, "injector"), &labelled(&["a"])).status, Status::Failed);
    }

    #[test]
    fn the_dry_run_proves_the_whole_way_or_says_where_it_ends() {
        let mut pod = probe();
        assert_eq!(dry_run(&Ok(pod.clone())).status, Status::Failed);
        pod["spec"]["initContainers"] = json!([{ "name": "sidelight" }]);
        pod["metadata"]["annotations"]["sidelight.dev/injected"] = json!("0.1.0-abc");
        assert_eq!(
            dry_run(&Ok(pod)).line(),
            "ok       dry run: a pod that asks comes back with a sidecar, 0.1.0-abc"
        );
        for (code, message, expected) in [
            (500, "Internal error occurred: failed calling webhook \"w\": x509", Status::Failed),
            (
                422,
                "admission webhook \"w\" denied the request: sidelight.dev/inject.logs: no output",
                Status::Warning,
            ),
            (403, "pods is forbidden: User \"x\" cannot create", Status::Skipped),
            (404, "namespaces \"x\" not found", Status::Skipped),
            (422, "Pod is invalid", Status::Warning),
        ] {
            assert_eq!(dry_run(&Err((code, message.to_owned()))).status, expected, "{message}");
        }
    }
}
