//! The objects of an API server, and what may be done to them.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{Answer, NAMESPACE, SECRET, SERVICE, State, decode, failure};
use crate::http::Request;

const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
/// `note` of `events.k8s.io/v1`, in bytes.
const MAX_NOTE: usize = 1024;

/// Two webhooks that call the injector's Service, one of another Service, one of the same name elsewhere.
pub(super) fn webhooks() -> Value {
    let webhook = |name: &str, namespace: &str, service: &str| {
        json!({ "name": name, "sideEffects": "NoneOnDryRun", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
            "timeoutSeconds": 5, "clientConfig": { "service": { "name": service, "namespace": namespace, "path": "/mutate" } } })
    };
    let mut other = webhook("other.sidelight.dev", NAMESPACE, "other");
    other["clientConfig"]["caBundle"] = json!("b3RoZXI=");
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": SERVICE, "resourceVersion": "1" },
        "webhooks": [
            webhook("pod.sidelight.dev", NAMESPACE, SERVICE), webhook("namespace.sidelight.dev", NAMESPACE, SERVICE),
            other, webhook("elsewhere.sidelight.dev", "elsewhere", SERVICE),
        ],
    })
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

// === impl State ===

impl State {
    /// What a request gets.
    pub(super) fn answer(&mut self, request: &Request) -> Answer {
        let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let secrets = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
        let webhooks =
            format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{SERVICE}");
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("GET", ["version"]) => (
                200,
                json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": "" }),
            ),
            ("GET", _) if path == format!("{secrets}/{SECRET}") => self.secret_answer(),
            ("POST", _) if path == secrets => self.create_secret(body),
            ("PUT", _) if path == format!("{secrets}/{SECRET}") => self.replace_secret(body),
            ("GET", _) if path == webhooks => (200, self.webhooks.clone()),
            ("PATCH", _) if path == webhooks => self.patch_webhooks(request, &body),
            ("GET", ["apis", "sidelight.dev", "v1alpha1", "sidecarprofiles"]) => self.list_profiles(),
            (
                "GET",
                ["apis", "sidelight.dev", "v1alpha1", "namespaces", namespace, "sidecarprofiles", name],
            ) => {
                let profile = self.profiles.get(&format!("{namespace}/{name}")).cloned();
                profile.map_or_else(
                    || (404, failure(404, "NotFound", "no such profile")),
                    |profile| (200, profile),
                )
            }
            (
                "PATCH",
                [
                    "apis",
                    "sidelight.dev",
                    "v1alpha1",
                    "namespaces",
                    namespace,
                    "sidecarprofiles",
                    name,
                    "status",
                ],
            ) => self.patch_status(request, &format!("{namespace}/{name}"), &body),
            ("POST", ["apis", "events.k8s.io", "v1", "namespaces", namespace, "events"]) => {
                self.create_event(namespace, body)
            }
            ("PATCH", ["apis", "events.k8s.io", "v1", "namespaces", _, "events", name]) => {
                self.patch_event(request, name, &body)
            }
            _ => self.refuse(403, &format!("{} {} is not allowed", request.method, request.path)),
        }
    }

    /// A request that should not have been made.
    fn refuse(&mut self, code: u16, what: &str) -> Answer {
        self.violations.push(what.to_owned());
        (code, failure(code, "Invalid", what))
    }

    fn next_version(&mut self) -> Value {
        self.version += 1;
        json!(self.version.to_string())
    }

    fn secret_answer(&self) -> Answer {
        self.secret
            .clone()
            .map_or_else(|| (404, failure(404, "NotFound", "no such Secret")), |secret| (200, secret))
    }

    fn create_secret(&mut self, mut body: Value) -> Answer {
        if self.secret.is_some() {
            return (409, failure(409, "AlreadyExists", "there is one"));
        }
        let is_right = body["metadata"]["name"] == SECRET
            && body["type"] == "kubernetes.io/tls"
            && ["tls.crt", "tls.key"].iter().all(|name| body["data"][name].is_string());
        if !is_right || !body["metadata"]["resourceVersion"].is_null() {
            return self.refuse(422, "not a Secret that can be created");
        }
        body["metadata"]["resourceVersion"] = self.next_version();
        self.secret = Some(body.clone());
        (201, body)
    }

    fn replace_secret(&mut self, mut body: Value) -> Answer {
        let Some(known) = &self.secret else { return (404, failure(404, "NotFound", "no such Secret")) };
        if !body["metadata"]["resourceVersion"].is_string() {
            return self
                .refuse(422, "a Secret is written without a version: another replica's would be lost");
        }
        if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"] {
            return (409, failure(409, "Conflict", "the object has been modified"));
        }
        if body["type"] != known["type"] {
            return self.refuse(422, "the type of a Secret cannot be changed");
        }
        body["metadata"]["resourceVersion"] = self.next_version();
        self.secret = Some(body.clone());
        (200, body)
    }

    /// `caBundle` of webhooks that call the injector, and nothing else.
    fn patch_webhooks(&mut self, request: &Request, body: &Value) -> Answer {
        let patches = body["webhooks"].as_array().cloned().unwrap_or_default();
        let is_small = |patch: &Value| {
            keys(patch) == ["clientConfig", "name"] && keys(&patch["clientConfig"]) == ["caBundle"]
        };
        let is_strategic =
            request.headers.get("content-type").is_some_and(|content| content == STRATEGIC_PATCH);
        if !is_strategic || keys(body) != ["webhooks"] || !patches.iter().all(is_small) {
            return self.refuse(422, &format!("a patch of more than caBundle: {body}"));
        }
        let service = json!({ "name": SERVICE, "namespace": NAMESPACE, "path": "/mutate" });
        for patch in patches {
            let bundle = &patch["clientConfig"]["caBundle"];
            let webhooks = self.webhooks["webhooks"].as_array_mut().into_iter().flatten();
            let ours = webhooks.filter(|webhook| webhook["clientConfig"]["service"] == service);
            let Some(webhook) = ours.into_iter().find(|webhook| webhook["name"] == patch["name"]) else {
                return self.refuse(422, &format!("a webhook that is not the injector's: {patch}"));
            };
            webhook["clientConfig"]["caBundle"] = bundle.clone();
            let bundle = decode(bundle);
            if self.bundles.last().is_none_or(|(_, last)| *last != bundle) {
                self.bundles.push((Instant::now(), bundle));
            }
        }
        self.webhooks["metadata"]["resourceVersion"] = self.next_version();
        (200, self.webhooks.clone())
    }

    fn list_profiles(&mut self) -> Answer {
        if self.hides_profiles {
            return (500, failure(500, "InternalError", "told to"));
        }
        let items: Vec<&Value> = self.profiles.values().collect();
        let version = self.version.to_string();
        (
            200,
            json!({ "kind": "SidecarProfileList", "apiVersion": "sidelight.dev/v1alpha1",
            "metadata": { "resourceVersion": version }, "items": items }),
        )
    }

    pub(super) fn put_profile(&mut self, key: &str, mut profile: Value) -> Value {
        profile["metadata"]["resourceVersion"] = self.next_version();
        let known = self.profiles.insert(key.to_owned(), profile.clone());
        let kind = if known.is_none() { "ADDED" } else { "MODIFIED" };
        self.history.push((self.version, json!({ "type": kind, "object": profile })));
        profile
    }

    fn patch_status(&mut self, request: &Request, key: &str, body: &Value) -> Answer {
        let is_merge = request.headers.get("content-type").is_some_and(|content| content == MERGE_PATCH);
        if !is_merge || keys(body) != ["status"] {
            return self.refuse(422, &format!("a patch of more than the status: {body}"));
        }
        let Some(mut profile) = self.profiles.get(key).cloned() else {
            return (404, failure(404, "NotFound", "no such profile"));
        };
        for condition in body["status"]["conditions"].as_array().into_iter().flatten() {
            let needed = ["lastTransitionTime", "message", "reason", "status", "type"];
            if needed.iter().any(|name| !condition[name].is_string()) {
                return self.refuse(422, &format!("not a condition: {condition}"));
            }
        }
        profile["status"] = body["status"].clone();
        (200, self.put_profile(key, profile))
    }

    /// What `k8s.io/kubernetes/pkg/apis/core/validation/events.go` asks of a new one.
    fn create_event(&mut self, namespace: &str, body: Value) -> Answer {
        let needed = ["action", "reason", "reportingController", "reportingInstance", "eventTime"];
        let is_right = needed.iter().all(|name| body[name].as_str().is_some_and(|text| !text.is_empty()))
            && ["Normal", "Warning"].iter().any(|kind| body["type"] == **kind)
            && body["regarding"]["namespace"] == namespace
            && body["note"].as_str().is_some_and(|note| note.len() <= MAX_NOTE);
        if !is_right {
            return self.refuse(422, &format!("not an event: {body}"));
        }
        self.events.push(body.clone());
        (201, body)
    }

    fn patch_event(&mut self, request: &Request, name: &str, body: &Value) -> Answer {
        let is_merge = request.headers.get("content-type").is_some_and(|content| content == MERGE_PATCH);
        let known = self.events.iter_mut().find(|event| event["metadata"]["name"] == name);
        match known {
            Some(event) if is_merge => {
                event["series"] = body["series"].clone();
                (200, event.clone())
            }
            _ => self.refuse(
                404,
                &format!("no such event: {:?}", Map::from_iter([(name.to_owned(), body.clone())])),
            ),
        }
    }
}
