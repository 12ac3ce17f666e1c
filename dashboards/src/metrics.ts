// Every metric that a dashboard or a rule may name, and where it is from. A name that is missing here is a mistake.

/** The agent's own: README.md, "Endpoints and metrics". */
export const AGENT = [
  "sidelight_build_info",
  "sidelight_cluster_watch_errors_total",
  "sidelight_config_last_reload_successful",
  "sidelight_log_deleted_bytes_held",
  "sidelight_log_files",
  "sidelight_log_lag_bytes",
  "sidelight_log_namespace_bytes_delivered_total",
  "sidelight_log_namespace_bytes_dropped_total",
  "sidelight_log_oldest_unread_seconds",
  "sidelight_log_parse_failures_total",
  "sidelight_log_records_retried_total",
  "sidelight_log_retention_left_seconds",
  "sidelight_log_source_bytes_delivered_total",
  "sidelight_log_source_bytes_dropped_total",
  "sidelight_log_source_bytes_read_total",
  "sidelight_log_source_bytes_unaccounted",
  "sidelight_memory_budget_bytes",
  "sidelight_memory_used_bytes",
  "sidelight_output_up",
  "sidelight_remote_write_dropped_samples_total",
  "sidelight_remote_write_lag_seconds",
  "sidelight_remote_write_retries_total",
  "sidelight_remote_write_samples_total",
  "sidelight_scrape_duration_seconds_bucket",
  "sidelight_scrapes_total",
  "sidelight_series",
  "sidelight_series_dropped_total",
  "sidelight_spool_bytes",
];

/** What the agent says of containers and of logs: README.md, "Metrics". */
export const NODE = [
  "sidelight_container_last_terminated",
  "sidelight_container_resource_limits",
  "sidelight_container_restarts_total",
  "sidelight_container_waiting",
  "sidelight_log_events_total",
  "sidelight_log_panics_total",
];

/** The injector's own: sidecar-injector/README.md. */
export const INJECTOR = [
  "sidelight_injector_certificate_not_after_seconds",
  "sidelight_injector_events_dropped_total",
  "sidelight_injector_rejected_total",
  "sidelight_injector_review_duration_seconds_bucket",
  "sidelight_injector_reviews_total",
  "sidelight_injector_skipped_total",
];

/** Of each process that says so, ours among them: agent/runtime/src/process.rs. */
export const PROCESS = [
  "process_cpu_seconds_total",
  "process_max_fds",
  "process_open_fds",
  "process_resident_memory_bytes",
  "process_start_time_seconds",
];

/** What Rust services count, by the crate that names it so; some with any prefix. */
export const DIALECTS = [
  // The agent's `normalize: rust`; and OpenTelemetry's conventions, now and before.
  "http_server_requests_total",
  "http_server_request_duration_seconds",
  "http_server_request_duration_seconds_bucket",
  "http_server_request_duration_seconds_count",
  "http_server_active_requests",
  "http_server_duration_milliseconds_bucket",
  "http_server_duration_milliseconds_count",
  "target_info",
  // axum-prometheus, rocket_prometheus.
  "axum_http_requests_total",
  "axum_http_requests_duration_seconds_bucket",
  "rocket_http_requests_total",
  "rocket_http_requests_duration_seconds_bucket",
  // Hand-rolled, axum-metrics, metrics-exporter-prometheus; with a prefix actix-web-prom.
  "http_requests",
  "http_requests_total",
  "http_requests_duration_seconds_bucket",
  "http_requests_duration_seconds_count",
  "http_request_duration_seconds_bucket",
  "http_request_duration_seconds_count",
  ".+_http_requests_total",
  ".+_http_requests?_duration_seconds_bucket",
  "(.+_)?http_requests?_duration_seconds",
  "(.+_)?http_requests_(pending|in_flight)",
  // tonic_prometheus_layer.
  "grpc_server_handled_total",
  "grpc_server_handling_seconds",
  "grpc_server_handling_seconds_bucket",
  // tokio-metrics.
  "tokio_budget_forced_yield_count",
  "tokio_blocking_queue_depth",
  "tokio_global_queue_depth",
  "tokio_injection_queue_depth",
  "tokio_live_tasks_count",
  "tokio_mean_poll_duration",
  "tokio_total_busy_duration",
  "tokio_workers_count",
  // kubert-prometheus-tokio.
  "tokio_rt_budget_forced_yield_total",
  "tokio_rt_busy_seconds_total",
  "tokio_rt_injection_queue_depth",
  "tokio_rt_workers",
];

/** What runtimes of other languages say of themselves. */
export const LANGUAGES = [
  "dotnet_build_info",
  "go_info",
  "jvm_info",
  "jvm_runtime_info",
  "nodejs_version_info",
  "python_info",
  "ruby_info",
];

/** Of the kubelet, of kube-state-metrics, and of each scrape. */
export const KUBERNETES = [
  "container_cpu_usage_seconds_total",
  "container_memory_working_set_bytes",
  "kube_node_info",
  "kube_pod_container_resource_limits",
  "kube_pod_container_status_restarts_total",
  "up",
];
