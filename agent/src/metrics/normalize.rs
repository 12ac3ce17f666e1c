//! One set of names for what Rust's web frameworks count, whatever crate counts it: those of OpenTelemetry's semantic
//! conventions as its Prometheus exporter writes them, which need no translation.
//!
//! Sources: axum-prometheus 0.9, actix-web-prom 0.10, `rocket_prometheus`, the examples of `metrics-exporter-prometheus` (which
//! leaves `_total` out), and OpenTelemetry's conventions for HTTP. `tonic_prometheus_layer` has the names that all gRPC
//! servers have (`grpc_server_handled_total` and so on), and is left as it is.

use crate::metrics::relabel::Labels;

/// Families as crates name them, perhaps behind a prefix, and their name here. Those whose unit is another one are missing:
/// a name can be changed, a value not.
const FAMILIES: [(&str, &str); 8] = [
    ("http_requests_total", "http_server_requests_total"),
    ("http_requests", "http_server_requests_total"),
    ("http_requests_duration_seconds", "http_server_request_duration_seconds"),
    ("http_request_duration_seconds", "http_server_request_duration_seconds"),
    ("http_requests_pending", "http_server_active_requests"),
    ("http_requests_in_flight", "http_server_active_requests"),
    ("http_request_body_size", "http_server_request_body_size_bytes"),
    ("http_response_body_size", "http_server_response_body_size_bytes"),
];

/// Labels of these families, and their name here.
const LABELS: [(&str, &str); 9] = [
    ("method", "http_request_method"),
    ("endpoint", "http_route"),
    ("handler", "http_route"),
    ("path", "http_route"),
    ("route", "http_route"),
    ("uri", "http_route"),
    ("code", "http_response_status_code"),
    ("status", "http_response_status_code"),
    ("status_code", "http_response_status_code"),
];

const SUFFIXES: [&str; 5] = ["_bucket", "_count", "_sum", "_created", ""];

/// Gives a series the common names, if it is of a known family. A label whose new name is taken stays as it is.
pub fn normalize(labels: &mut Labels) {
    let Some(name) = labels.get("__name__").and_then(|name| common_name(name)) else { return };
    labels.insert("__name__".to_owned(), name);
    for (from, to) in LABELS {
        if !labels.contains_key(to)
            && let Some(value) = labels.remove(from)
        {
            labels.insert(to.to_owned(), value);
        }
    }
}

fn common_name(name: &str) -> Option<String> {
    SUFFIXES.into_iter().find_map(|suffix| {
        let stem = name.strip_suffix(suffix)?;
        let (_, family) = FAMILIES.into_iter().find(|(known, _)| {
            let prefix = stem.strip_suffix(known);
            // Requests that a service makes are others than those that it answers.
            prefix.is_some_and(|prefix| {
                prefix.is_empty() || (prefix.ends_with('_') && !prefix.contains("client"))
            })
        })?;
        Some(format!("{family}{suffix}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalized(name: &str, labels: &[(&str, &str)]) -> String {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut all: Labels = labels.chain([("__name__".to_owned(), name.to_owned())]).collect();
        normalize(&mut all);
        let name = all.remove("__name__").unwrap();
        let labels: Vec<String> = all.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{name} {}", labels.join(" "))
    }

    #[test]
    fn each_dialect_comes_out_the_same() {
        let same = "http_request_method=GET http_response_status_code=200 http_route=/x";
        let axum = [("method", "GET"), ("status", "200"), ("endpoint", "/x")];
        let hand = [("method", "GET"), ("code", "200"), ("path", "/x")];
        let semantic =
            [("http_request_method", "GET"), ("http_response_status_code", "200"), ("http_route", "/x")];
        for (name, labels, common) in [
            ("axum_http_requests_total", &axum, "http_server_requests_total"),
            ("api_http_requests_total", &axum, "http_server_requests_total"),
            ("rocket_http_requests_total", &axum, "http_server_requests_total"),
            ("http_requests_total", &hand, "http_server_requests_total"),
            ("http_requests", &hand, "http_server_requests_total"),
            (
                "axum_http_requests_duration_seconds_bucket",
                &axum,
                "http_server_request_duration_seconds_bucket",
            ),
            ("http_request_duration_seconds", &hand, "http_server_request_duration_seconds"),
            (
                "http_server_request_duration_seconds_count",
                &semantic,
                "http_server_request_duration_seconds_count",
            ),
            ("axum_http_requests_pending", &axum, "http_server_active_requests"),
        ] {
            assert_eq!(normalized(name, labels), format!("{common} {same}"), "{name}");
        }
    }

    #[test]
    fn what_is_none_of_them_stays_as_it_is() {
        for name in [
            "grpc_server_handled_total",
            "http_client_http_requests_total",
            "myhttp_requests_total",
            "http_requests_total_other",
            "up",
        ] {
            assert_eq!(normalized(name, &[("method", "GET")]), format!("{name} method=GET"));
        }
        let taken = [("status", "1"), ("http_response_status_code", "2")];
        let kept = "http_server_requests_total http_response_status_code=2 status=1";
        assert_eq!(normalized("http_requests_total", &taken), kept);
    }
}
