//! One review: read, decide, change the pod here as the API server will there, answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use hyper::StatusCode;
use sidelight_runtime::exit;

use crate::config::{Config, Mode};
use crate::decide::{Context, Decision, Injection, NoProfile, Skip, decide_about};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::patch;
use crate::pod::Pod;
use crate::profile::SidecarProfileSpec;
use crate::review::{self, Request};

/// Where profiles come from.
pub trait Profiles: Send + Sync {
    /// The one of this name in this namespace.
    fn find(&self, namespace: &str, name: &str) -> Result<Arc<SidecarProfileSpec>, NoProfile>;
}

/// Answers reviews.
pub struct Webhook {
    /// The configuration.
    pub config: Config,
    /// The profiles.
    pub profiles: Box<dyn Profiles>,
    /// The minor version of the API server; 0 while it is not known.
    pub kubernetes: AtomicU32,
    /// Counters.
    pub metrics: Metrics,
    /// Where to tell what was done; none where there is no API server to tell.
    pub events: Option<Events>,
}

// === impl Webhook ===

impl Webhook {
    /// The answer to a review's body.
    ///
    /// # Errors
    /// A status and a text for the log of the API server: then its `failurePolicy` says what becomes of the pod.
    pub fn answer(&self, body: &[u8]) -> Result<Vec<u8>, (StatusCode, String)> {
        let begun = Instant::now();
        let request = review::read(body).map_err(|error| (StatusCode::BAD_REQUEST, error))?;
        let answer = exit::catching(|| self.review(request)).unwrap_or_else(|_| {
            self.count("failed");
            Err((StatusCode::INTERNAL_SERVER_ERROR, "a defect of the injector's, see its log".to_owned()))
        });
        self.metrics.duration.observe(begun.elapsed().as_secs_f64());
        answer
    }

    fn review(&self, mut request: Request) -> Result<Vec<u8>, (StatusCode, String)> {
        let is_new_pod =
            request.kind.kind == "Pod" && request.sub_resource.is_none() && request.operation == "CREATE";
        if !is_new_pod {
            // Rules that are wider than needed must not break anything.
            return Ok(review::allow(&request.uid, None, &[]));
        }
        let namespace = request.namespace.clone();
        let find = |name: &str| self.profiles.find(&namespace, name);
        let context = Context {
            config: &self.config,
            kubernetes: self.kubernetes.load(Ordering::Relaxed),
            profile: &find,
        };
        let decision = match Pod::of(&request.object) {
            Ok(pod) => {
                let decision = decide_about(&pod, &request.object, context);
                self.tell(&request, &pod, &decision);
                decision
            }
            Err(error) => Decision::Fail(error),
        };
        match decision {
            Decision::Skip(skip, warnings) => {
                self.count("skipped");
                self.metrics.skipped.with_label_values(&[skip.name()]).inc();
                Ok(review::allow(&request.uid, None, &warnings))
            }
            Decision::Deny(message) => {
                self.count("denied");
                Ok(review::deny(&request.uid, &message))
            }
            Decision::Fail(error) => {
                self.count("failed");
                Err((StatusCode::SERVICE_UNAVAILABLE, error))
            }
            Decision::Inject(Injection { patch, warnings, .. }) => {
                // A patch that fails there refuses the pod even where failures are to be ignored.
                if let Err(error) = patch::apply(&mut request.object, &patch) {
                    self.count("failed");
                    tracing::error!(%error, "a patch of ours cannot be applied; this is a defect");
                    return Err((StatusCode::INTERNAL_SERVER_ERROR, error.to_string()));
                }
                self.count("injected");
                Ok(review::allow(&request.uid, Some(&patch), &warnings))
            }
        }
    }

    fn count(&self, result: &str) {
        self.metrics.reviews.with_label_values(&[result]).inc();
    }

    /// Logs what somebody may ask about, and writes an event: for warnings and refusals reach the controller that creates the
    /// pod, and not the person who wrote its template.
    fn tell(&self, request: &Request, pod: &Pod<'_>, decision: &Decision) {
        let (is_warning, reason, note) = match decision {
            Decision::Inject(injection) => {
                let (purpose, warnings) = (injection.purpose.names(), injection.warnings.join("; "));
                let note = format!("sidecar added for {purpose}{}", behind(&warnings));
                (!injection.is_as_asked, "Injected", note)
            }
            Decision::Skip(Skip::NotAsked | Skip::Already, _) => return,
            Decision::Skip(skip, warnings) => {
                (true, "InjectionSkipped", format!("{}{}", skip.name(), behind(&warnings.join("; "))))
            }
            Decision::Deny(message) => (true, "InjectionDenied", message.clone()),
            Decision::Fail(error) => (true, "InjectionFailed", error.clone()),
        };
        let (namespace, name) = (request.namespace.as_str(), pod.shown_name());
        let is_dry_run = request.dry_run == Some(true);
        if is_warning {
            tracing::warn!(namespace, pod = name, reason, note, dry_run = is_dry_run);
        } else {
            tracing::info!(namespace, pod = name, reason, note, dry_run = is_dry_run);
        }
        if let Some(events) = self.events.as_ref().filter(|_| !is_dry_run) {
            events.tell(pod, namespace, is_warning, reason, &note);
        }
    }
}

fn behind(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// Whether bad annotations are refused, for the log at the start.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Warn => "warn",
        Mode::Deny => "deny",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    struct NoProfiles;

    impl Profiles for NoProfiles {
        fn find(&self, _: &str, _: &str) -> Result<Arc<SidecarProfileSpec>, NoProfile> {
            Err(NoProfile::Missing)
        }
    }

    /// One without an API server.
    pub(crate) fn webhook(config: Config) -> Webhook {
        let metrics = Metrics::register().unwrap();
        let (profiles, kubernetes) = (Box::new(NoProfiles), AtomicU32::new(34));
        Webhook { config, profiles, kubernetes, metrics, events: None }
    }

    /// The review of a pod that gets a sidecar.
    fn review() -> String {
        let annotations = json!({ "sidelight.dev/inject": "true", "sidelight.dev/metrics": "true", "sidelight.dev/inject.logs": "/logs/*" });
        let pod = json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [{ "name": "web", "volumeMounts": [] }] } });
        let request = json!({ "uid": "u", "kind": { "kind": "Pod" }, "operation": "CREATE", "namespace": "shop", "object": pod });
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request })
            .to_string()
    }

    /// A review with something else at one place: bytes that are no JSON, or a value that has no business there.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let values = [
            "null",
            "1e999",
            "-1",
            "[[]]",
            "{}",
            "\"\"",
            "\"true\"",
            "true",
            "\"\\ud800\"",
            "9223372036854775808",
        ];
        let piece = prop_oneof![
            any::<Vec<u8>>(),
            proptest::sample::select(values.to_vec()).prop_map(|value| value.as_bytes().to_vec())
        ];
        (any::<proptest::sample::Index>(), 0_usize..40, piece).prop_map(|(at, length, piece)| {
            let mut review = review().into_bytes();
            let at = at.index(review.len());
            let end = (at + length).min(review.len());
            review.splice(at..end, piece);
            review
        })
    }

    /// A review in which one value of the pod is another.
    fn misshapen() -> impl Strategy<Value = Vec<u8>> {
        let places = [
            "/metadata",
            "/metadata/annotations",
            "/metadata/annotations/sidelight.dev~1inject",
            "/spec",
            "/spec/containers",
            "/spec/containers/0",
            "/spec/containers/0/name",
            "/spec/containers/0/volumeMounts",
        ];
        let values = [
            json!(null),
            json!(-1),
            json!([]),
            json!([[]]),
            json!({}),
            json!({ "a": null }),
            json!("x"),
            json!([null]),
        ];
        (proptest::sample::select(places.to_vec()), proptest::sample::select(values.to_vec())).prop_map(
            |(place, value)| {
                let mut review: Value = serde_json::from_str(&review()).unwrap();
                if let Some(found) = review.pointer_mut(&format!("/request/object{place}")) {
                    *found = value;
                }
                review.to_string().into_bytes()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        /// 503 is for a pod of a shape that no API server lets through: the webhook's policy decides.
        #[test]
        fn any_body_gets_a_refusal_or_a_whole_answer(body in prop_oneof![any::<Vec<u8>>(), damaged(), misshapen()]) {
            let text = "sidecar: { metrics: { outputs: [{ remote_write: { url: 'http://p/write' } }] } }";
            let config = Config::parse(text, &|_| None).unwrap();
            match webhook(config).answer(&body) {
                Err((status, error)) => {
                    prop_assert!(status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE, "{status}");
                    prop_assert!(!error.is_empty());
                }
                Ok(answer) => {
                    let answer: Value = serde_json::from_slice(&answer).unwrap();
                    let response = &answer["response"];
                    prop_assert!(response["uid"].is_string() && response["allowed"].is_boolean(), "{answer}");
                    prop_assert_eq!(response["patch"].is_string(), response["patchType"] == "JSONPatch");
                    prop_assert_eq!(response["allowed"] == false, response["status"]["message"].is_string());
                }
            }
        }
    }
}
