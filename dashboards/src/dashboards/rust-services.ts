// Rust services: are they healthy, and if not, is it the requests, the runtime, or what they may use?

import { CLUSTER, Dashboard, INSTANCE, JOB, NAMESPACE, POD, WORKLOAD, WORKLOAD_IN_JOB, chain, matchers } from "../dashboard.js";
import { bars, graph, number, rows } from "../panels.js";
import { endings } from "./containers.js";

/** Series that the recording rules make. */
const CHOICES = [CLUSTER, NAMESPACE, WORKLOAD, POD, JOB, INSTANCE];
const SERVICE = matchers(...CHOICES);
const RESTARTS = `rust:container_restarts{${matchers(CLUSTER, NAMESPACE, WORKLOAD, POD, JOB)}}`;
/** What the agent says of containers: of no address. */
const CONTAINER = matchers(CLUSTER, NAMESPACE, WORKLOAD_IN_JOB, POD, JOB);
/** What the agent counts in logs: of the workload, not of a pod. */
const LOGS = matchers(CLUSTER, NAMESPACE, WORKLOAD, JOB);

const SERVICE_NAME = "{{namespace}}/{{workload}}";
const NO_LIMIT = "no container has such a limit, or nobody says which: the agent does with `metrics.containers`";

const errorRatio = (by: string) => `
  sum ${by} (rust:request_errors:rate5m{${SERVICE}})
  / sum ${by} (rust:requests:rate5m{${SERVICE}})
`;

/** From the buckets of all together; of services that have none the slowest process's own. */
const latency = (quantile: string, ...labels: string[]) => `
  histogram_quantile(${quantile}, sum by (${["le", ...labels].join(", ")}) (rust:request_duration_seconds_bucket:rate5m{${SERVICE}}))
  or on (${labels.join(", ")})
  max by (${labels.join(", ")}) (rust:request_duration_seconds:summary{quantile="${quantile}", ${SERVICE}})
`;

const healthy = [
  number(
    { title: "Services", description: "Rust services that are known by what they count.", unit: "none", width: 4 },
    `count(group by (cluster, namespace, workload) (rust:service:info{${SERVICE}}))`,
  ),
  number(
    {
      title: "Not readable",
      description: "Pages of metrics of these services that cannot be read now.",
      unit: "none",
      width: 4,
      bad: 1,
    },
    `count(up{${matchers(CLUSTER, NAMESPACE, POD, JOB, INSTANCE)}} == 0 and on (job, instance) max_over_time(rust:service:info{${SERVICE}}[$__range])) or vector(0)`,
  ),
  number(
    { title: "Requests", description: "Requests a second, HTTP and gRPC.", unit: "reqps", width: 4 },
    `sum(rust:requests:rate5m{${SERVICE}})`,
  ),
  number(
    {
      title: "Errors",
      description: "Share of requests that were answered with a server's error: 5xx, or gRPC's codes of that kind.",
      unit: "percentunit",
      width: 4,
      warn: 0.01,
      bad: 0.05,
    },
    errorRatio(""),
  ),
  number(
    {
      title: "Slowest service, p99",
      description: "One of a hundred requests takes longer than that, in the service where that is longest.",
      unit: "s",
      width: 4,
      warn: 0.5,
      bad: 1,
      emptyWhen: "no service measures how long requests take",
    },
    `max(${latency("0.99", "namespace", "workload")} > 0)`,
  ),
  number(
    {
      title: "Restarts and panics",
      description: "Containers that were started again in the time shown, and panics in their logs.",
      unit: "none",
      width: 4,
      warn: 1,
      bad: 5,
      decimals: 0,
    },
    `
      (sum(increase(${RESTARTS}[$__range])) or vector(0))
      + (sum(increase(sidelight_log_panics_total{${LOGS}}[$__range])) or vector(0))
    `,
  ),
];

const requests = [
  graph({ title: "Requests", description: "Requests a second of each service.", unit: "reqps", width: 8 }, [
    `sum by (namespace, workload) (rust:requests:rate5m{${SERVICE}})`,
    SERVICE_NAME,
  ]),
  graph(
    {
      title: "Errors",
      description: "Share of each service's requests that it answered with an error of its own.",
      unit: "percentunit",
      width: 8,
      bad: 0.05,
    },
    [errorRatio("by (namespace, workload)"), SERVICE_NAME],
  ),
  graph(
    {
      title: "Answers by code",
      description: "Requests a second by status of HTTP or code of gRPC. 4xx are the caller's mistakes.",
      unit: "reqps",
      width: 8,
      stack: true,
    },
    [`sum by (code) (rust:requests:rate5m{${SERVICE}})`, "{{code}}"],
  ),
  graph(
    {
      title: "Duration, p99",
      description:
        "One of a hundred requests takes longer. From buckets; of a service that has summaries only, that of its slowest process.",
      unit: "s",
      width: 8,
      bad: 1,
      emptyWhen: "no service measures how long requests take",
    },
    [latency("0.99", "namespace", "workload"), SERVICE_NAME],
  ),
  graph(
    {
      title: "Duration, all services",
      description: "Half, nineteen of twenty, and 99 of a hundred requests were answered within that. From buckets.",
      unit: "s",
      width: 8,
      emptyWhen: "no service has a histogram of durations",
    },
    ...["0.5", "0.95", "0.99"].map(
      (quantile) =>
        [
          `histogram_quantile(${quantile}, sum by (le) (rust:request_duration_seconds_bucket:rate5m{${SERVICE}}))`,
          `p${Number(quantile) * 100}`,
        ] as const,
    ),
  ),
  graph(
    {
      title: "Requests in flight",
      description: "Requests that are being answered now. When it grows at the same rate, answers have become slower.",
      unit: "none",
      width: 8,
      emptyWhen: "no service counts them",
    },
    [`sum by (namespace, workload) (rust:requests_in_flight{${SERVICE}})`, SERVICE_NAME],
  ),
  bars(
    {
      title: "Slowest processes, p99",
      description:
        "The ten pods in which one of a hundred requests takes longest. One of many: look at its node and its runtime.",
      unit: "s",
      width: 8,
      warn: 0.5,
      bad: 1,
      emptyWhen: "no service measures how long requests take",
    },
    [`topk(10, max by (pod) (rust:request_duration_seconds:quantile{quantile="0.99", ${SERVICE}} > 0))`, "{{pod}}"],
  ),
  rows(
    {
      title: "Routes",
      description:
        "Where the errors and the time are. Routes are as the service names them: one with an id in it is a mistake there.",
      unit: "none",
      width: 16,
    },
    [
      { title: "Namespace", label: "namespace" },
      { title: "Workload", label: "workload" },
      { title: "Route", label: "route" },
      {
        title: "Requests",
        expr: `sum by (namespace, workload, route) (rust:requests:rate5m{${SERVICE}})`,
        unit: "reqps",
      },
      {
        title: "Server errors",
        expr: `sum by (namespace, workload, route) (rust:requests:rate5m{code=~"(?i)5..|unknown|deadline_?exceeded|unimplemented|internal|unavailable|data_?loss", ${SERVICE}})`,
        unit: "reqps",
      },
      {
        title: "p99",
        expr: latency("0.99", "namespace", "workload", "route"),
        unit: "s",
      },
    ],
    "Requests",
  ),
];

const NO_TOKIO = "no service says what its runtime does, as with the crate tokio-metrics";
const NO_UNSTABLE = "no service with tokio-metrics is built with `--cfg tokio_unstable`";

const tokio = [
  graph(
    {
      title: "Workers busy",
      description: "Share of the time in which the workers of a runtime run tasks. Near 1, tasks wait for each other.",
      unit: "percentunit",
      width: 8,
      max: 1,
      bad: 0.9,
      emptyWhen: NO_TOKIO,
    },
    [`max by (pod) (rust:tokio_busy_ratio:rate5m{${SERVICE}})`, "{{pod}}"],
  ),
  graph(
    {
      title: "Tasks in the global queue",
      description: "Tasks that no worker has taken yet. When it grows, the runtime gets more than it can do.",
      unit: "none",
      width: 8,
      emptyWhen: NO_TOKIO,
    },
    [`max by (pod) (rust:tokio_global_queue_depth{${SERVICE}})`, "{{pod}}"],
  ),
  graph(
    {
      title: "Tasks alive",
      description: "Tasks that have not ended. When it only grows, tasks are lost track of.",
      unit: "none",
      width: 8,
      emptyWhen: NO_TOKIO,
    },
    [`max by (pod) (rust:tokio_live_tasks{${SERVICE}})`, "{{pod}}"],
  ),
  graph(
    {
      title: "Mean time of a poll",
      description: "How long a task keeps its worker before it gives it back. Above a millisecond, something blocks.",
      unit: "s",
      width: 8,
      emptyWhen: NO_UNSTABLE,
    },
    [`max by (pod) (rust:tokio_mean_poll_seconds{${SERVICE}})`, "{{pod}}"],
  ),
  graph(
    {
      title: "Blocking calls that wait",
      description: "Calls of spawn_blocking for which there is no thread.",
      unit: "none",
      width: 8,
      emptyWhen: NO_UNSTABLE,
    },
    [`max by (pod) (rust:tokio_blocking_queue_depth{${SERVICE}})`, "{{pod}}"],
  ),
  graph(
    {
      title: "Forced yields",
      description: "How often a second tasks were made to yield, since they had used up their budget.",
      unit: "ops",
      width: 8,
      emptyWhen: NO_UNSTABLE,
    },
    [`max by (pod) (rust:tokio_forced_yields:rate5m{${SERVICE}})`, "{{pod}}"],
  ),
];

const resources = [
  graph(
    {
      title: "Memory",
      description: "Resident memory of each process; where it does not say, the working set of its container.",
      unit: "bytes",
      width: 8,
      emptyWhen:
        "no service has `process_*`, and nobody reads the kubelet's pages: the agent does with `metrics.kubelet`",
    },
    [`max by (pod, container) (rust:memory_bytes{${SERVICE}})`, "{{pod}} {{container}}"],
  ),
  graph(
    {
      title: "Memory, of the limit",
      description: "At 1 the kernel kills the container.",
      unit: "percentunit",
      width: 8,
      bad: 0.9,
      emptyWhen: NO_LIMIT,
    },
    [
      `max by (pod, container) (rust:memory_bytes{${SERVICE}} / rust:memory_limit_bytes{${SERVICE}})`,
      "{{pod}} {{container}}",
    ],
  ),
  graph(
    {
      title: "Open files and sockets, of the limit",
      description: "At 1 no connection is accepted, and no file opened.",
      unit: "percentunit",
      width: 8,
      bad: 0.8,
      emptyWhen: "no service has `process_*`",
    },
    [`max by (pod) (rust:open_fds:ratio{${SERVICE}})`, "{{pod}}"],
  ),
  graph(
    {
      title: "CPU",
      description: "Cores that each process uses.",
      unit: "none",
      width: 8,
      decimals: 3,
      emptyWhen:
        "no service has `process_*`, and nobody reads the kubelet's pages: the agent does with `metrics.kubelet`",
    },
    [`max by (pod, container) (rust:cpu_cores:rate5m{${SERVICE}})`, "{{pod}} {{container}}"],
  ),
  graph(
    {
      title: "CPU, of the limit",
      description: "Near 1 the kernel makes the process wait, and its answers get slower.",
      unit: "percentunit",
      width: 8,
      bad: 0.9,
      emptyWhen: NO_LIMIT,
    },
    [
      `max by (pod, container) (rust:cpu_cores:rate5m{${SERVICE}} / rust:cpu_limit_cores{${SERVICE}})`,
      "{{pod}} {{container}}",
    ],
  ),
  graph(
    {
      title: "Restarts",
      description: "How often the containers of each service were started again, in the hour before.",
      unit: "none",
      width: 8,
      emptyWhen: "nobody says what Kubernetes does with containers: the agent does with `metrics.containers`",
    },
    [
      `sum by (namespace, workload) (increase(${RESTARTS}[1h]))`,
      SERVICE_NAME,
    ],
  ),
];

const why = [
  graph(
    {
      title: "Log records by level",
      description: "Records a second, of these services' logs.",
      unit: "cps",
      width: 12,
      stack: true,
      emptyWhen: "the agent does not count them: `logs.events` is off",
    },
    [`sum by (level) (rate(sidelight_log_events_total{${LOGS}}[$__rate_interval]))`, "{{level}}"],
  ),
  endings(
    "How containers have ended",
    "The last end of each container that was started again, what waiting ones wait for, and how often they were started in the time shown.",
    CONTAINER,
  ),
];

const OF_CONTAINERS = "What the agent says of containers and workloads has no `instance`: it is no target's page.";

export const RUST_SERVICES: Dashboard = {
  name: "rust-services",
  title: "Sidelight / Rust services",
  description:
    "Requests, errors, durations, tokio, memory and CPU of Rust services, whatever crate counts them. Needs the recording rules in rules/rust-services.yaml.",
  about: "services",
  variables: chain("rust:service:info", CHOICES),
  rows: [
    { title: "Are they healthy?", panels: healthy },
    { title: "Requests", panels: requests },
    { title: "tokio", panels: tokio },
    { title: "What they use of what they may", panels: resources },
    { title: "What they say", panels: why },
  ],
  exclusions: {
    "target-instance-rule": {
      reason: OF_CONTAINERS,
      panels: ["Restarts and panics", "Restarts", "Log records by level", "How containers have ended"],
    },
  },
};
