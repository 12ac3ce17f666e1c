//! `AdmissionReview` of `admission.k8s.io/v1`, as much of it as a webhook for pods needs.
//!
//! Types of our own: kube's write the patch as an array of numbers, and would parse the pod into a type that drops the fields
//! which are newer than it.

mod outline;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// What a message may have: they go into an HTTP header, where the API server drops one with others, and cuts long ones.
const MAX_WARNING: usize = 120;
/// How many warnings: more are not read.
const MAX_WARNINGS: usize = 8;

/// What the API server sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    request: Request,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Echoed in the answer.
    pub uid: String,
    /// The object's namespace. Older API servers say it here alone.
    #[serde(default)]
    pub namespace: String,
    /// The object's kind.
    pub kind: Kind,
    /// Part of the object that is asked for; none for the object itself.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// `CREATE`, …
    pub operation: String,
    /// Nothing may be changed anywhere: no events.
    #[serde(default)]
    pub dry_run: Option<bool>,
    /// The pod, without what no decision and no patch of ours can be about.
    #[serde(default, deserialize_with = "outline::read")]
    pub object: Value,
}

/// A kind of objects.
#[derive(Debug, Deserialize)]
pub struct Kind {
    /// `Pod`, …
    pub kind: String,
}

/// The answer. An error of ours is no answer but an HTTP status: then the webhook's `failurePolicy` decides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    /// Both or none.
    #[serde(flatten)]
    patch: Option<Patch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Read by the API server only where the object is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Patch {
    patch_type: &'static str,
    patch: String,
}

#[derive(Debug, Serialize)]
struct Status<'a> {
    code: u16,
    reason: &'static str,
    message: &'a str,
}

/// Reads a review.
///
/// # Errors
/// What is wrong with it, for the log of the API server.
pub fn read(body: &[u8]) -> Result<Request, String> {
    let question: Question<'_> =
        serde_json::from_slice(body).map_err(|error| format!("not an AdmissionReview: {error}"))?;
    if question.api_version != API_VERSION || question.kind != KIND {
        let (kind, version) = (question.kind, question.api_version);
        return Err(format!("{kind} of {version} is not supported; only {KIND} of {API_VERSION} is"));
    }
    Ok(question.request)
}

/// Lets the pod in, changed by the patch where there is one.
pub fn allow(uid: &str, patch: Option<&json_patch::Patch>, warnings: &[String]) -> Vec<u8> {
    let patch = patch.map(|patch| Patch {
        patch_type: "JSONPatch",
        patch: STANDARD.encode(serde_json::to_vec(patch).unwrap_or_default()),
    });
    let warnings = warnings.iter().take(MAX_WARNINGS).map(|warning| fit(warning)).collect();
    write(Response { uid, allowed: true, patch, warnings, status: None })
}

/// Refuses the pod, with a message that its creator reads.
pub fn deny(uid: &str, message: &str) -> Vec<u8> {
    let status = Some(Status { code: 422, reason: "Invalid", message });
    write(Response { uid, allowed: false, patch: None, warnings: Vec::new(), status })
}

fn write(response: Response<'_>) -> Vec<u8> {
    serde_json::to_vec(&Answer { api_version: API_VERSION, kind: KIND, response }).unwrap_or_default()
}

/// A warning as the API server passes it on: with other characters than printable ASCII it would be dropped in silence.
fn fit(warning: &str) -> String {
    let plain = warning.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
    let cut: String = plain.clone().take(MAX_WARNING).collect();
    if plain.count() > MAX_WARNING { format!("{}...", &cut[..MAX_WARNING - 3]) } else { cut }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(answer: &[u8]) -> Value {
        serde_json::from_slice(answer).unwrap()
    }

    #[test]
    fn an_answer_is_what_the_api_server_accepts() {
        let patch: json_patch::Patch =
            serde_json::from_value(json!([{ "op": "add", "path": "/a", "value": 1 }])).unwrap();
        let answer = parsed(&allow("u-1", Some(&patch), &["careful".to_owned()]));
        assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!(API_VERSION), &json!(KIND)));
        let response = &answer["response"];
        assert_eq!(response["uid"], "u-1");
        assert_eq!(response["patchType"], "JSONPatch");
        let decoded = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        assert_eq!(parsed(&decoded), json!([{ "op": "add", "path": "/a", "value": 1 }]));
        assert_eq!(response["warnings"], json!(["careful"]));
        assert_eq!(parsed(&allow("u-1", None, &[]))["response"], json!({ "uid": "u-1", "allowed": true }));
    }

    #[test]
    fn a_refusal_has_a_code_a_reason_and_a_message() {
        let response = &parsed(&deny("u-1", "no"))["response"];
        let status = json!({ "code": 422, "reason": "Invalid", "message": "no" });
        assert_eq!(*response, json!({ "uid": "u-1", "allowed": false, "status": status }));
    }

    #[test]
    fn warnings_survive_the_header_that_they_travel_in() {
        assert_eq!(fit("a\nb\u{e9}c"), "a?b?c");
        let long = fit(&"x".repeat(500));
        assert!(long.len() == MAX_WARNING && long.ends_with("..."));
        let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let response = parsed(&allow("u", None, &many));
        assert_eq!(response["response"]["warnings"].as_array().unwrap().len(), MAX_WARNINGS);
    }

    #[test]
    fn only_reviews_of_version_1_are_read() {
        let review = |version: &str| {
            let request = json!({ "uid": "u", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE" });
            json!({ "apiVersion": version, "kind": KIND, "request": request }).to_string()
        };
        assert_eq!(read(review(API_VERSION).as_bytes()).unwrap().uid, "u");
        assert!(read(review("admission.k8s.io/v1beta1").as_bytes()).unwrap_err().contains("v1beta1"));
        for bad in ["", "{}", "[]", "{\"apiVersion\":1}", "\u{0}"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
