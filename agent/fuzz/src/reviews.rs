//! What an API server sends to the injector.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sidelight_injector::config::Config;
use sidelight_injector::decide::NoProfile;
use sidelight_injector::metrics::Metrics;
use sidelight_injector::patch;
use sidelight_injector::profile::SidecarProfileSpec;
use sidelight_injector::webhook::{Profiles, Webhook};

const CONFIG: &str = "sidecar: { logs: { outputs: [{ forward: { upstreams: ['f:1'] } }] }, \
                      metrics: { outputs: [{ remote_write: { url: 'http://p/write' } }] } }";

static WEBHOOK: LazyLock<Webhook> = LazyLock::new(|| Webhook {
    config: Config::parse(CONFIG, &|_| None).expect("a valid configuration"),
    profiles: Box::new(NoProfiles),
    kubernetes: AtomicU32::new(34),
    metrics: Metrics::register().expect("each name once"),
    events: None,
});

struct NoProfiles;

impl Profiles for NoProfiles {
    fn find(&self, _: &str, _: &str) -> Result<Arc<SidecarProfileSpec>, NoProfile> {
        Err(NoProfile::Missing)
    }
}

/// The body of a review.
///
/// It is refused as the caller's mistake, left to the webhook's policy, or answered; a patch can be applied to what was asked about,
/// and who asks about what comes of it is answered without a patch.
pub fn reviews(data: &[u8]) {
    let answer = match WEBHOOK.answer(data) {
        Ok(answer) => answer,
        Err((status, error)) => {
            assert!(status.is_client_error() || status.as_u16() == 503, "{status}: {error}");
            return;
        }
    };
    let (_, Some(patch)) = read(&answer) else { return };
    // What the injector passes over need not be text.
    let Ok(mut review) = serde_json::from_slice::<Value>(data) else { return };
    let patch = serde_json::from_slice(&patch).expect("a JSON patch");
    patch::apply(&mut review["request"]["object"], &patch).expect("it can be applied");
    let again = WEBHOOK.answer(review.to_string().as_bytes()).expect("it was answered before");
    assert_eq!(read(&again), (true, None), "not let in as it is: {review}");
}

/// Whether an answer that is one lets the pod in, and its patch.
fn read(answer: &[u8]) -> (bool, Option<Vec<u8>>) {
    let answer: Value = serde_json::from_slice(answer).expect("JSON");
    let response = &answer["response"];
    let allowed = response["allowed"].as_bool().expect("yes or no");
    assert!(response["uid"].is_string(), "{answer}");
    assert_eq!(response["patch"].is_string(), response["patchType"] == "JSONPatch", "{answer}");
    assert_eq!(!allowed, response["status"]["message"].is_string(), "{answer}");
    (allowed, response["patch"].as_str().map(|patch| STANDARD.decode(patch).expect("base64")))
}
