// Requests: one set of series for all dialects, each target counted once.
//
// A target that counts in several dialects is taken in the first of the lists below that it has. So what the agent has
// named (`normalize: rust`) goes before what Prometheus reads raw from the same pod, and the two are not added up.

import { Group, record, tidy } from "../rules.js";
import { ENDPOINT, TARGET, first, indent, named, rustOnly, withLabel, withWorkload } from "./dialects.js";

const COUNTERS = [
  // What the agent's `normalize: rust` gives.
  "http_server_requests_total",
  // OpenTelemetry's conventions have no counter: the histogram's count is one.
  "http_server_request_duration_seconds_count",
  "axum_http_requests_total",
  "rocket_http_requests_total",
  // Hand-rolled, axum-metrics; and metrics-exporter-prometheus, which adds no suffix.
  "http_requests_total",
  "http_requests",
  // actix-web-prom and others with a prefix of their own.
  prefixed("http_requests_total"),
  // OpenTelemetry's conventions before 2023.
  "http_server_duration_milliseconds_count",
  // Services that only time their requests.
  "http_requests_duration_seconds_count",
  "http_request_duration_seconds_count",
];

const BUCKETS = [
  "http_server_request_duration_seconds_bucket",
  "axum_http_requests_duration_seconds_bucket",
  "rocket_http_requests_duration_seconds_bucket",
  "http_requests_duration_seconds_bucket",
  "http_request_duration_seconds_bucket",
  prefixed("http_requests?_duration_seconds_bucket"),
  "http_server_duration_milliseconds_bucket",
];

/** Names with a prefix that are not in the lists, and not what a service asks of others. */
function prefixed(name: string): string {
  return `{__name__=~".+_${name}", __name__!~"(axum|rocket)_http_.*|.*client.*"}`;
}

/** A rate drops the name, and fails where two series of one page differ in nothing else: so it is kept as a label. */
function rate(series: string): string {
  if (series.startsWith("{")) return `rate(label_replace(${series}, "family", "$1", "__name__", "(.+)")[5m:1m])`;
  return series.includes("milliseconds_bucket") ? inSeconds(series) : `rate(${series}[5m])`;
}

function counted(http: string[], grpc: string): string {
  const vector = named(both(first(http.map(rate)), rate(grpc)), ["method", "route", "code"]);
  return withWorkload(`sum by (${TARGET}, protocol, method, route, code) (\n${indent(vector)}\n)`);
}

function bucketed(http: string[], grpc: string): string {
  const vector = named(both(first(http.map(rate)), rate(grpc)), ["route"]);
  return withWorkload(`sum by (${TARGET}, protocol, route, le) (\n${indent(vector)}\n)`);
}

function both(http: string, grpc: string): string {
  return rustOnly(`${withLabel(http, "protocol", "http")}\nor\n${withLabel(grpc, "protocol", "grpc")}`);
}

/** A bound in whole milliseconds, as it stands in `le`, in seconds. */
function inSeconds(buckets: string): string {
  const shifts = [
    ["([0-9])", "0.00$1"],
    ["([0-9]{2})", "0.0$1"],
    ["([0-9]{3})", "0.$1"],
    ["([0-9]+)([0-9]{3})", "$1.$2"],
  ];
  const shifted = shifts.reduce(
    (vector, [from, to]) => `label_replace(${vector}, "seconds", "${to}", "le", "${from}([.]0)?")`,
    `rate(${buckets}[5m])`,
  );
  return `label_replace(${shifted}, "le", "$1", "seconds", "(.+)")`;
}

/** What has no buckets: quantiles of one process, which cannot be added up. */
const SUMMARIES = `{__name__=~"(.+_)?http_requests?_duration_seconds|http_server_request_duration_seconds|grpc_server_handling_seconds", __name__!~".*client.*", quantile=~"0.5|0.95|0.99"}`;

const summaries = withWorkload(
  `max by (${TARGET}, route, quantile) (\n${indent(
    named(rustOnly(`${SUMMARIES}\nunless on (${ENDPOINT}) rust:request_duration_seconds_bucket:rate5m`), ["route"]),
  )}\n)`,
);

const inFlight = withWorkload(
  rustOnly(
    first(
      [
        "http_server_active_requests",
        '{__name__=~"(.+_)?http_requests_(pending|in_flight)", __name__!~".*client.*"}',
      ].map((series) => `sum by (${TARGET}) (${series})`),
    ),
  ),
);

/** Codes by which a server says that it is to blame; of gRPC as OpenTelemetry's conventions have it. */
const SERVER_ERRORS = "(?i)5..|unknown|deadline_?exceeded|unimplemented|internal|unavailable|data_?loss";

const errors = tidy(`
  sum by (${TARGET}, workload, protocol) (rust:requests:rate5m{code=~"${SERVER_ERRORS}"})
  or
  sum by (${TARGET}, workload, protocol) (rust:requests:rate5m) * 0
`);

/** Estimated from buckets, else what the service says. */
function quantile(quantile: string): string {
  return tidy(`
    histogram_quantile(${quantile}, sum by (${TARGET}, workload, le) (rust:request_duration_seconds_bucket:rate5m))
    or
    max by (${TARGET}, workload) (rust:request_duration_seconds:summary{quantile="${quantile}"})
  `);
}

/** By what other languages' runtimes, and OpenTelemetry, say of a process. */
const otherLanguage = tidy(`
  group by (${ENDPOINT}) (
    {__name__=~"go_info|python_info|jvm_info|jvm_runtime_info|nodejs_version_info|dotnet_build_info|ruby_info"}
    or target_info{telemetry_sdk_language!~"|rust"}
  )
`);

export const REQUESTS: Group = {
  name: "sidelight-rust-requests",
  rules: [
    record("rust:other_language:info", otherLanguage),
    record("rust:requests:rate5m", counted(COUNTERS, "grpc_server_handled_total")),
    record("rust:request_errors:rate5m", errors),
    record("rust:requests_in_flight", inFlight),
    record("rust:request_duration_seconds_bucket:rate5m", bucketed(BUCKETS, "grpc_server_handling_seconds_bucket")),
    record("rust:request_duration_seconds:summary", summaries),
    ...["0.5", "0.95", "0.99"].map((each) =>
      record("rust:request_duration_seconds:quantile", quantile(each), { quantile: each }),
    ),
  ],
};
