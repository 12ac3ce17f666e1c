// What a Rust service is, its tokio runtime, and what it uses of what it may.

import { Group, record, tidy } from "../rules.js";
import { CONTAINER, TARGET, first, withWorkload } from "./dialects.js";

const info = withWorkload(`
  group by (${TARGET}) (rust:requests:rate5m)
  or group by (${TARGET}) ({__name__=~"tokio_workers_count|tokio_rt_workers"})
  or group by (${TARGET}) (target_info{telemetry_sdk_language="rust"})
`);

/** A value of each Rust service, with its labels. */
function ofService(vector: string): string {
  return tidy(`
    rust:service:info
    * on (${TARGET}) group_left ()
    max by (${TARGET}) (${vector})
  `);
}

/** What Kubernetes says of the containers of Rust services. */
function ofContainer(...vectors: string[]): string {
  const values = vectors
    .map((vector) => `max by (${CONTAINER}) (${vector})`)
    .join(`\n      or on (${CONTAINER})\n      `);
  return tidy(`
    rust:service:info
    * on (${CONTAINER}) group_left ()
    (
      ${values}
    )
  `);
}

const limit = (resource: string) =>
  ofContainer(
    `sidelight_container_resource_limits{resource="${resource}"}`,
    `kube_pod_container_resource_limits{resource="${resource}"}`,
  );

/** A container that fails has no series of its own meanwhile: it is known by the last hour. */
const restarts = tidy(`
  max by (cluster, namespace, pod, container, job, workload) (max_over_time(rust:service:info[1h]))
  * on (${CONTAINER}) group_left ()
  (
    max by (${CONTAINER}) (sidelight_container_restarts_total)
    or on (${CONTAINER})
    max by (${CONTAINER}) (kube_pod_container_status_restarts_total)
  )
`);

const busy = tidy(`
  (
    max by (${TARGET}, workload) (${ofService("rate(tokio_total_busy_duration[5m]) / 1e6")})
    or
    max by (${TARGET}, workload) (${ofService("rate(tokio_rt_busy_seconds_total[5m])")})
  )
  / on (${TARGET}, workload)
  rust:tokio_workers
`);

export const RUNTIME: Group = {
  name: "sidelight-rust-runtime",
  rules: [
    record("rust:service:info", info),
    record("rust:tokio_workers", ofService('{__name__=~"tokio_workers_count|tokio_rt_workers"}')),
    record("rust:tokio_busy_ratio:rate5m", busy),
    record(
      "rust:tokio_global_queue_depth",
      ofService('{__name__=~"tokio_global_queue_depth|tokio_injection_queue_depth|tokio_rt_injection_queue_depth"}'),
    ),
    record("rust:tokio_live_tasks", ofService("tokio_live_tasks_count")),
    record("rust:tokio_blocking_queue_depth", ofService("tokio_blocking_queue_depth")),
    record(
      "rust:tokio_forced_yields:rate5m",
      first(
        ["rate(tokio_budget_forced_yield_count[5m])", "rate(tokio_rt_budget_forced_yield_total[5m])"].map(ofService),
        TARGET,
      ),
    ),
    record("rust:tokio_mean_poll_seconds", ofService("tokio_mean_poll_duration / 1e6")),
    record(
      "rust:memory_bytes",
      first(
        [ofService("process_resident_memory_bytes"), ofContainer('container_memory_working_set_bytes{container!=""}')],
        TARGET,
      ),
    ),
    record("rust:memory_limit_bytes", limit("memory")),
    record(
      "rust:cpu_cores:rate5m",
      first(
        [
          ofService("rate(process_cpu_seconds_total[5m])"),
          ofContainer('rate(container_cpu_usage_seconds_total{container!=""}[5m])'),
        ],
        TARGET,
      ),
    ),
    record("rust:cpu_limit_cores", limit("cpu")),
    record("rust:open_fds:ratio", ofService("process_open_fds / process_max_fds")),
    record("rust:container_restarts", restarts),
  ],
};
