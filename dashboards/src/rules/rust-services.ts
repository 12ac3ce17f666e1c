import { RuleFile, alert } from "../rules.js";
import { REQUESTS } from "./requests.js";
import { RUNTIME } from "./runtime.js";

const WORKLOAD = "cluster, namespace, workload";
const SERVICE = "{{ $labels.namespace }}/{{ $labels.workload }}";
const POD = "{{ $labels.namespace }}/{{ $labels.pod }}";

const requests = [
  alert("warning", "RustServiceErrorsHigh", {
    expr: `
      sum by (${WORKLOAD}) (rust:request_errors:rate5m) / sum by (${WORKLOAD}) (rust:requests:rate5m) > 0.05
      and
      sum by (${WORKLOAD}) (rust:requests:rate5m) > 0.1
    `,
    wait: "10m",
    summary: "A Rust service answers many requests with errors of its own.",
    description: `${SERVICE} answers {{ $value | humanizePercentage }} of its requests with a server's error.`,
  }),
  alert("warning", "RustServiceLatencyHigh", {
    expr: `
      (
        histogram_quantile(0.99, sum by (${WORKLOAD}, le) (rust:request_duration_seconds_bucket:rate5m))
        or
        max by (${WORKLOAD}) (rust:request_duration_seconds:summary{quantile="0.99"})
      ) > 1
      and
      sum by (${WORKLOAD}) (rust:requests:rate5m) > 0.1
    `,
    wait: "15m",
    summary: "A Rust service is slow.",
    description: `One of a hundred requests to ${SERVICE} takes longer than {{ $value | humanizeDuration }}.`,
  }),
  alert("critical", "RustServiceDown", {
    expr: `up == 0 and on (cluster, namespace, pod, container, job, instance) max_over_time(rust:service:info[1h])`,
    wait: "5m",
    summary: "A Rust service's page of metrics cannot be read.",
    description: `The page of ${POD} at {{ $labels.instance }} could not be read for five minutes.`,
  }),
];

const crashes = [
  alert("warning", "RustServicePanics", {
    expr: `sum by (${WORKLOAD}, container) (increase(sidelight_log_panics_total[15m])) > 0`,
    summary: "A Rust service has panicked.",
    description: `Panics of ${SERVICE}, container {{ $labels.container }}, in 15 minutes: {{ printf "%.0f" $value }}.`,
  }),
  alert("warning", "RustServiceRestarting", {
    expr: `max by (cluster, namespace, pod, container, workload) (increase(rust:container_restarts[1h])) > 3`,
    summary: "A Rust service is started again and again.",
    description: `Container {{ $labels.container }} of ${POD} was started {{ printf "%.0f" $value }} times in an hour.`,
  }),
  alert("info", "RustServiceErrorLogs", {
    expr: `
      sum by (${WORKLOAD}) (rate(sidelight_log_events_total{level="error"}[5m]))
      / sum by (${WORKLOAD}) (rate(sidelight_log_events_total[5m])) > 0.2
      and
      sum by (${WORKLOAD}) (rate(sidelight_log_events_total{level="error"}[5m])) > 0.1
    `,
    wait: "15m",
    summary: "A service writes many errors into its log.",
    description: `{{ $value | humanizePercentage }} of what ${SERVICE} logs are errors.`,
  }),
];

const runtime = [
  alert("warning", "RustServiceTokioBusy", {
    expr: "rust:tokio_busy_ratio:rate5m > 0.9",
    wait: "10m",
    summary: "The workers of a tokio runtime have no time left.",
    description: `The workers of ${POD} are busy {{ $value | humanizePercentage }} of the time.`,
  }),
  alert("warning", "RustServiceTokioQueueGrowing", {
    expr: "min_over_time(rust:tokio_global_queue_depth[10m]) > 10 and deriv(rust:tokio_global_queue_depth[10m]) > 0",
    wait: "5m",
    summary: "Tasks wait for a tokio runtime, and become more.",
    description: `At least ten tasks have waited in the global queue of ${POD} for ten minutes, and they become more.`,
  }),
  alert("warning", "RustServiceTokioBlockingQueue", {
    expr: "min_over_time(rust:tokio_blocking_queue_depth[5m]) > 0",
    wait: "5m",
    summary: "Blocking work waits for a thread.",
    description: `All threads for blocking work of ${POD} are taken, and {{ $value | humanize }} calls wait.`,
  }),
  alert("info", "RustServiceTokioForcedYields", {
    expr: "rust:tokio_forced_yields:rate5m > 100",
    wait: "15m",
    summary: "Tasks use up their budget.",
    description: `Tasks of ${POD} are made to yield {{ $value | humanize }} times a second.`,
  }),
];

const resources = [
  alert("warning", "RustServiceMemoryNearLimit", {
    expr: "rust:memory_bytes / rust:memory_limit_bytes > 0.9",
    wait: "10m",
    summary: "A Rust service will be killed for its memory.",
    description: `${POD} uses {{ $value | humanizePercentage }} of its memory limit.`,
  }),
  alert("warning", "RustServiceCpuNearLimit", {
    expr: "rust:cpu_cores:rate5m / rust:cpu_limit_cores > 0.9",
    wait: "15m",
    summary: "A Rust service is held back by its CPU limit.",
    description: `${POD} uses {{ $value | humanizePercentage }} of its CPU limit.`,
  }),
  alert("warning", "RustServiceFilesNearLimit", {
    expr: "rust:open_fds:ratio > 0.8",
    wait: "10m",
    summary: "A Rust service will soon be unable to open files and sockets.",
    description: `${POD} has {{ $value | humanizePercentage }} of the files open that it may.`,
  }),
];

export const RUST_SERVICES: RuleFile = {
  name: "rust-services",
  about: "Rust services: one set of names for what they count, and alerts.",
  groups: [REQUESTS, RUNTIME, { name: "rust-services", rules: [...requests, ...crashes, ...runtime, ...resources] }],
};
