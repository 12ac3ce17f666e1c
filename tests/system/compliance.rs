//! The cases of the three generations of Prometheus's sender suite (`prometheus/compliance`), as far as one page shows them:
//! each is a pod whose page has what the case is about, and all are scraped by one agent. What a case asks of every request
//! (headers, encoding, order, symbols) the strict receiver checks of each. `tests/README.md` lists all cases.

use std::fmt::Write as _;

use sidelight_tests::agent::Agent;
use sidelight_tests::eventually;
use sidelight_tests::exporter::Exporter;
use sidelight_tests::http::Answer;
use sidelight_tests::kubelet::Node;
use sidelight_tests::remote_write_server::RemoteWriteServer;

use crate::BINARY;
use crate::metrics::{ASKS, config, series, serving};

/// What must have arrived of a pod.
enum Holds {
    /// A series with these labels of its own behind the pod's (`,name="value"`), and its value.
    Value(&'static str, &'static str, f64),
    /// A series with labels of its own before one of the pod's, and its value.
    Before(&'static str, &'static str, &'static str, f64),
    /// A series, and the kind, help and unit that come with it.
    Metadata(&'static str, u64, &'static str, &'static str),
    /// A series with labels before the pod's, an exemplar with this label, and its value.
    Exemplar(&'static str, &'static str, (&'static str, &'static str), f64),
    /// No series of this name.
    Nothing(&'static str),
    /// The scrape has failed.
    Down,
}

use Holds::{Before, Down, Exemplar as HasExemplar, Metadata, Nothing, Value};

/// By the name of the case in its suite, a page and what must be there of it.
type Case = (&'static str, &'static str, &'static [Holds]);

/// Generation A (remote write 1.0).
const A: &[Case] = &[
    ("InvalidTest", "1234notvali}{ 444\n", &[Down]),
    ("RepeatedLabelsTest", "test{a=\"1\",a=\"1\"} 1\n", &[Nothing("test")]),
    ("EmptyLabelsTest", "test{z=\"\"} 1\n", &[Value("test", "", 1.0)]),
    ("NameLabelTest", "{label=\"value\"} 1.0\n", &[Down]),
    (
        "HonorLabelsTest",
        "test{job=\"x\",instance=\"y\"} 1\n",
        &[Before("test", "exported_instance=\"y\",exported_job=\"x\",", "instance=", 1.0)],
    ),
    ("UpTest", "test 1\n", &[Value("up", "", 1.0), Value("test", "", 1.0)]),
    (
        "HistogramTest",
        "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"2\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n",
        &[
            Before("h_bucket", "le=\"1\",", "namespace=", 1.0),
            Before("h_bucket", "le=\"2\",", "namespace=", 2.0),
            Before("h_bucket", "le=\"+Inf\",", "namespace=", 3.0),
            Value("h_sum", "", 4.0),
            Value("h_count", "", 3.0),
        ],
    ),
    (
        "SummaryTest",
        "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"0.99\"} 2\ns_sum 4\ns_count 3\n",
        &[
            Value("s", ",quantile=\"0.5\"", 1.0),
            Value("s", ",quantile=\"0.99\"", 2.0),
            Value("s_count", "", 3.0),
        ],
    ),
];

/// Generation B (remote write 2.0), `samples_test.go`, `labels_test.go`, `metadata_test.go`, `exemplars_test.go` and
/// `edge_cases_test.go`; and generation C, `encoding_cases`.
const B: &[Case] = &[
    ("float_value_encoding", "test 123.45\n", &[Value("test", "", 123.45)]),
    ("integer_value_encoding", "test 42\n", &[Value("test", "", 42.0)]),
    ("zero_value_encoding", "test 0\n", &[Value("test", "", 0.0)]),
    ("negative_value_encoding", "test -15.5\n", &[Value("test", "", -15.5)]),
    ("positive_infinity_encoding", "test +Inf\n", &[Value("test", "", f64::INFINITY)]),
    ("negative_infinity_encoding", "test -Inf\n", &[Value("test", "", f64::NEG_INFINITY)]),
    ("nan_encoding", "test NaN\n", &[Value("test", "", f64::NAN)]),
    ("stale_marker", "test StaleNaN\n", &[Down]),
    ("large_float_values", "test 1.7976931348623157e+308\n", &[Value("test", "", f64::MAX)]),
    ("small_float_values", "test 2.2250738585072014e-308\n", &[Value("test", "", f64::MIN_POSITIVE)]),
    ("scientific_notation", "test 1.23e-4\n", &[Value("test", "", 1.23e-4)]),
    ("precision_preservation", "test 0.1234567890123456\n", &[Value("test", "", 0.123_456_789_012_345_6)]),
    (
        "label_lexicographic_ordering",
        "test{zz=\"1\",rr=\"2\"} 1\n",
        &[Value("test", ",rr=\"2\",zz=\"1\"", 1.0)],
    ),
    ("label_values_may_be_empty", "test{x=\"\",y=\"1\"} 1\n", &[Value("test", ",y=\"1\"", 1.0)]),
    ("unicode_in_label_values", "test{x=\"日本語 🎉\"} 1\n", &[Value("test", ",x=\"日本語 🎉\"", 1.0)]),
    (
        "special_chars_in_label_values",
        "test{x=\"a\\\\b\\\"c\\nd\"} 1\n",
        &[Value("test", ",x=\"a\\\\b\\\"c\\nd\"", 1.0)],
    ),
    ("metric_name_with_colons", "a:b:c 1\n", &[Value("a:b:c", "", 1.0)]),
    ("string_deduplication", "test{x=\"1\"} 1\ntest{x=\"1\"} 1\n", &[Value("test", ",x=\"1\"", 1.0)]),
    ("empty_scrape", "", &[Value("up", "", 1.0), Value("scrape_samples_scraped", "", 0.0)]),
    (
        "metadata_type_counter",
        "# TYPE c_total counter\n# HELP c_total HTTP requests\nc_total 1\n",
        &[Metadata("c_total", 1, "HTTP requests", "")],
    ),
    ("metadata_type_gauge", "# TYPE g gauge\ng 1\n", &[Metadata("g", 2, "", "")]),
    (
        "metadata_type_histogram",
        "# TYPE h histogram\nh_sum 1\nh_count 1\nh_bucket{le=\"+Inf\"} 1\n",
        &[Metadata("h_sum", 3, "", ""), Metadata("h_count", 3, "", "")],
    ),
    ("metadata_type_summary", "# TYPE s summary\ns_sum 1\ns_count 1\n", &[Metadata("s_sum", 5, "", "")]),
    (
        "metadata_unit",
        "# TYPE t_seconds gauge\n# UNIT t_seconds seconds\nt_seconds 1\n# EOF\n",
        &[Metadata("t_seconds", 2, "", "seconds")],
    ),
    (
        "metadata_help_with_newlines",
        "# HELP g One\\ntwo\n# HELP g One\\ntwo\n# TYPE g gauge\ng 1\n",
        &[Metadata("g", 2, "One\ntwo", "")],
    ),
    (
        "metadata_help_with_special_chars",
        "# HELP g a \\\\ \"b\" é\n# TYPE g gauge\ng 1\n",
        &[Metadata("g", 2, "a \\ \"b\" é", "")],
    ),
    (
        "exemplar_with_trace_id",
        "# TYPE c counter\nc_total 1 # {trace_id=\"abc\"} 0.5\n# EOF\n",
        &[HasExemplar("c_total", "", ("trace_id", "abc"), 0.5)],
    ),
    (
        "samples_with_exemplars",
        "# TYPE request_count counter\nrequest_count 1 # {trace_id=\"abc\"} 1\n# EOF\n",
        &[HasExemplar("request_count", "", ("trace_id", "abc"), 1.0)],
    ),
    (
        "exemplar_on_histogram",
        "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1 # {span_id=\"s\"} 7\nh_count 1\nh_sum 7\n# EOF\n",
        &[HasExemplar("h_bucket", "le=\"+Inf\",", ("span_id", "s"), 7.0)],
    ),
    (
        "real_world_scenario",
        "# TYPE up gauge\nup 0\n# TYPE http_requests_total counter\nhttp_requests_total 5\nprocess_cpu_seconds_total 1\n",
        &[Value("up", "", 1.0), Value("exported_up", "", 0.0), Value("http_requests_total", "", 5.0)],
    ),
    ("many_timeseries", "test{n=\"1\"} 1\ntest{n=\"2\"} :\n", &[Down]),
];

/// The name of a case as that of a pod.
fn pod_of(case: &str) -> String {
    case.to_lowercase().replace('_', "-")
}

fn holds(server: &RemoteWriteServer, pod: &str, exporter: &Exporter, expected: &Holds) -> bool {
    let of = |name: &str, own: &str| series(name, pod, exporter, own);
    match expected {
        Value(name, own, value) => {
            let found = server.value(&of(name, own));
            found == Some(*value) || (value.is_nan() && found.is_some_and(f64::is_nan))
        }
        Before(name, own, label, value) => {
            let series = of(name, "").replacen(label, &format!("{own}{label}"), 1);
            server.value(&series) == Some(*value)
        }
        Metadata(name, kind, help, unit) => {
            let found = server.metadata(&of(name, ""));
            server.value(&of(name, "")).is_some()
                && (found.kind, found.help.as_str(), found.unit.as_str()) == (*kind, *help, *unit)
        }
        HasExemplar(name, before, (label, text), value) => {
            let series = of(name, "").replace("namespace=", &format!("{before}namespace="));
            server.exemplar(&series).is_some_and(|exemplar| {
                exemplar.labels == [((*label).to_owned(), (*text).to_owned())] && exemplar.value == *value
            })
        }
        Nothing(name) => {
            server.value(&of("up", "")).is_some()
                && !server.named(name).iter().any(|series| series.contains(&format!("pod=\"{pod}\"")))
        }
        Down => server.value(&of("up", "")) == Some(0.0),
    }
}

/// Guarantee: what each case of the sender suites asks of a page's samples holds.
#[test]
fn the_cases_of_the_sender_suites_hold() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let cases: Vec<_> = A.iter().chain(B).map(|case| (case, Exporter::start(case.1))).collect();
    let pods: Vec<_> =
        cases.iter().map(|((name, ..), exporter)| serving(&pod_of(name), exporter, &[ASKS])).collect();
    node.write_pods(&pods);
    let _agent = Agent::start(BINARY, node.path(), &config(&node, &server, "interval: 1s, timeout: 1s", ""));
    for ((name, _, expected), exporter) in &cases {
        for (index, expected) in expected.iter().enumerate() {
            eventually(&format!("{name}, {index}"), || holds(&server, &pod_of(name), exporter, expected));
        }
    }
}

/// Guarantee: long names and values, and many labels, arrive whole.
#[test]
fn nothing_is_cut() {
    let (node, server) = (Node::new(), RemoteWriteServer::start());
    let (value, name) = ("v".repeat(10 << 10), format!("very_{}long", "long_".repeat(150)));
    let mut many = String::new();
    (0..60).for_each(|number| write!(many, ",x{number:02}=\"{number}\"").unwrap());
    let page = format!("huge{{z=\"{value}\"}} 1\n{name} 2\nmany{{{}}} 3\n", &many[1..]);
    let exporter = Exporter::start(&page);
    node.write_pods(&[serving("web", &exporter, &[ASKS])]);
    let _agent = Agent::start(BINARY, node.path(), &config(&node, &server, "interval: 1s, timeout: 1s", ""));
    let of = |name: &str, own: &str| series(name, "web", &exporter, own);
    for (series, expected) in
        [(of("huge", &format!(",z=\"{value}\"")), 1.0), (of(&name, ""), 2.0), (of("many", &many), 3.0)]
    {
        eventually("the series", || server.value(&series) == Some(expected));
    }
}

/// Guarantee (`retry_test.go`, `error_handling_test.go`): what may never be taken is not sent again; what may be taken later is.
#[test]
fn each_status_is_answered_as_the_specification_wants() {
    for (status, comes_again) in [
        (400, false),
        (401, false),
        (404, false),
        (413, false),
        (429, true),
        (500, true),
        (502, true),
        (503, true),
        (504, true),
        (999, false),
    ] {
        let (node, server) = (Node::new(), RemoteWriteServer::start());
        let exporter = Exporter::start("a 1\n");
        node.write_pods(&[serving("web", &exporter, &[ASKS])]);
        let config = config(&node, &server, "interval: 1s, timeout: 1s, containers: false", "");
        let agent = Agent::start(BINARY, node.path(), &config);
        // Before that, 400 may mean that it does not know the version.
        eventually("it has shown that it knows 2.0", || {
            agent.metric("sidelight_remote_write_samples_total") > 0.0
        });
        let (body, before) = (vec![b'x'; 1 << 20], server.requests());
        server.refuse([Answer { body, ..Answer::status(status) }]);
        let taken = agent.metric("sidelight_remote_write_samples_total");
        eventually("the next request", || server.requests() >= before + 2);
        eventually("it is taken", || agent.metric("sidelight_remote_write_samples_total") > taken);
        let dropped = agent.metric("sidelight_remote_write_dropped_samples_total");
        assert_eq!(dropped > 0.0, !comes_again, "{status}: {dropped} dropped");
        assert_eq!(agent.metric("sidelight_remote_write_retries_total") > 0.0, comes_again, "{status}");
    }
}
