//! What the injector tells of itself, in the clear.

use std::collections::BTreeSet;

use serde_json::json;
use sidelight_tests::caller::review;

use crate::certificate::der;
use crate::{Stage, annotated, pod};

/// Scenario: a ready injector.
/// Guarantee: it lives, is ready, and shows metrics; there is nothing else, and no review is taken in the clear.
#[test]
fn probes_and_metrics_are_there_and_nothing_else() {
    let stage = Stage::new();
    assert_eq!(stage.injector.get("/livez"), (200, "ok\n".to_owned()));
    assert_eq!(stage.injector.get("/readyz"), (200, "ok\n".to_owned()));
    assert!(stage.injector.get("/metrics").1.contains("sidelight_build_info{version="));
    for path in ["/", "/mutate", "/api/v1/config"] {
        assert_eq!(stage.injector.get(path).0, 404, "{path}");
    }
}

/// Scenario: a certificate that the injector has made.
/// Guarantee: the metric says when it ends.
#[test]
fn the_end_of_the_certificate_is_a_metric() {
    let stage = Stage::with("certificate: { lifetime: 2h }\n");
    let certificate = der(&stage.plane.secret()["tls.crt"]);
    let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).unwrap();
    let not_after = certificate.validity().not_after.timestamp();
    assert_eq!(stage.injector.metric("sidelight_injector_certificate_not_after_seconds"), not_after as f64);
}

/// Scenario: pods with names, namespaces and annotations of a tenant's choosing, of which each ends in another way.
/// Guarantee: reviews are counted by what became of them; no metric has a word of the tenant's in it.
#[test]
fn no_metric_has_a_value_that_a_tenant_writes() {
    let stage = Stage::new();
    let mut named = pod();
    named["metadata"]["name"] = json!("tenant-pod");
    let pods = [
        named,
        annotated(&[("inject", "tenant-profile")]),
        annotated(&[("inject", "Tenant!")]),
        annotated(&[("tenant-key", "tenant-value")]),
        annotated(&[("inject", "false")]),
    ];
    for pod in &pods {
        let reply = stage.caller().review(&review("tenant-uid", "tenant-namespace", pod, false)).unwrap();
        assert_eq!(reply.status, 200);
    }
    let broken = stage.caller().review(b"{\"tenant\": 1}").unwrap();
    assert_eq!(broken.status, 400);
    for (result, count) in [("injected", 2.0), ("denied", 1.0), ("skipped", 2.0)] {
        let name = format!("sidelight_injector_reviews_total{{result=\"{result}\"}}");
        assert_eq!(stage.injector.metric(&name), count, "{result}");
    }
    let (_, page) = stage.injector.get("/metrics");
    assert!(!page.to_lowercase().contains("tenant"), "{page}");
    let labels: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.split_once('{')?.1.split_once('}'))
        .flat_map(|(labels, _)| labels.split(','))
        .filter_map(|label| label.split('=').next())
        .collect();
    assert_eq!(labels, BTreeSet::from(["le", "reason", "result", "status", "version"]));
}
