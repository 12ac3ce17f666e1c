// Logs: how much, how bad, and does what logs it crash? From what the agent counts in the logs.

import { CLUSTER, Dashboard, JOB, NAMESPACE, POD, WORKLOAD, WORKLOAD_IN_JOB, chain, matchers } from "../dashboard.js";
import { graph, number, rows } from "../panels.js";
import { endings } from "./containers.js";

const CHOICES = [CLUSTER, NAMESPACE, WORKLOAD, JOB];
const LOGS = matchers(...CHOICES);
/** What the agent says of containers. */
const CONTAINER = matchers(CLUSTER, NAMESPACE, WORKLOAD_IN_JOB, POD, JOB);
/** The agents' own pages: their `namespace` is that of the agent, and the logs' comes after it. */
const AGENT = 'cluster=~"$cluster", exported_namespace=~"$namespace"';

const WORKLOAD_NAME = "{{namespace}}/{{workload}}";
const BY = "by (namespace, workload)";

const records = (matcher = "") => `rate(sidelight_log_events_total{${matcher}${LOGS}}[$__rate_interval])`;
const ERRORS = 'level="error", ';

const NO_AGENT_PAGES = "nobody reads the agents' own pages";

const healthy = [
  number(
    { title: "Records", description: "Log records a second, of all levels.", unit: "cps", width: 4 },
    `sum(${records()})`,
  ),
  number(
    { title: "Errors", description: "Error records a second.", unit: "cps", width: 4 },
    `sum(${records(ERRORS)}) or vector(0)`,
  ),
  number(
    {
      title: "Share of errors",
      description: "Of all records. Records whose format is not known have no level, and count as none.",
      unit: "percentunit",
      width: 4,
      warn: 0.05,
      bad: 0.2,
    },
    `sum(${records(ERRORS)}) / sum(${records()})`,
  ),
  number(
    {
      title: "Panics",
      description: "Panics of Rust in the time shown.",
      unit: "none",
      width: 4,
      bad: 1,
      decimals: 0,
    },
    `sum(increase(sidelight_log_panics_total{${LOGS}}[$__range]))`,
  ),
  number(
    {
      title: "Restarts",
      description: "Containers that were started again in the time shown.",
      unit: "none",
      width: 4,
      warn: 1,
      bad: 5,
      decimals: 0,
    },
    `sum(increase(sidelight_container_restarts_total{${CONTAINER}}[$__range])) or vector(0)`,
  ),
  number(
    {
      title: "Dropped",
      description:
        "Bytes of these namespaces' logs that were given up in the time shown: by rules and rates, or because a receiver was away for too long. The dashboard of the agent has the reasons.",
      unit: "bytes",
      width: 4,
      warn: 1,
      emptyWhen: NO_AGENT_PAGES,
    },
    `sum(increase(sidelight_log_namespace_bytes_dropped_total{${AGENT}}[$__range]))`,
  ),
];

const volume = [
  graph(
    {
      title: "Records by workload",
      description: "The twenty workloads that log most, in records a second.",
      unit: "cps",
      width: 8,
    },
    [`topk(20, sum ${BY} (${records()}))`, WORKLOAD_NAME],
  ),
  graph(
    {
      title: "Records by level",
      description: "Records a second. `unknown` is what no format was found in.",
      unit: "cps",
      width: 8,
      stack: true,
    },
    [`sum by (level) (${records()})`, "{{level}}"],
  ),
  graph(
    {
      title: "Bytes delivered by namespace",
      description: "Bytes of log files that receivers have acknowledged, a second, summed over outputs.",
      unit: "Bps",
      width: 8,
      stack: true,
      emptyWhen: NO_AGENT_PAGES,
    },
    [
      `sum by (exported_namespace) (rate(sidelight_log_namespace_bytes_delivered_total{${AGENT}}[$__rate_interval]))`,
      "{{exported_namespace}}",
    ],
  ),
];

const errors = [
  graph(
    {
      title: "Errors by workload",
      description: "The twenty workloads with the most error records a second.",
      unit: "cps",
      width: 8,
      emptyWhen: "no workload has logged an error",
    },
    [`topk(20, sum ${BY} (${records(ERRORS)}) > 0)`, WORKLOAD_NAME],
  ),
  graph(
    {
      title: "Share of errors by workload",
      description: "Of each workload's records.",
      unit: "percentunit",
      width: 8,
      bad: 0.2,
      emptyWhen: "no workload has logged an error",
    },
    [`topk(20, sum ${BY} (${records(ERRORS)}) / sum ${BY} (${records()}) > 0)`, WORKLOAD_NAME],
  ),
  graph(
    {
      title: "Panics by workload",
      description: "Panics of Rust in each five minutes.",
      unit: "none",
      width: 8,
      emptyWhen: "nothing has panicked",
    },
    [`sum ${BY} (increase(sidelight_log_panics_total{${LOGS}}[5m])) > 0`, WORKLOAD_NAME],
  ),
  rows(
    {
      title: "Workloads",
      description: "What each workload logs, the one with the most errors first.",
      unit: "none",
      width: 24,
    },
    [
      { title: "Namespace", label: "namespace" },
      { title: "Workload", label: "workload" },
      { title: "Container", label: "container" },
      { title: "Records", expr: `sum by (namespace, workload, container) (${records()})`, unit: "cps" },
      {
        title: "Warnings",
        expr: `sum by (namespace, workload, container) (${records('level="warn", ')})`,
        unit: "cps",
      },
      { title: "Errors", expr: `sum by (namespace, workload, container) (${records(ERRORS)})`, unit: "cps" },
      {
        title: "Panics",
        expr: `sum by (namespace, workload, container) (increase(sidelight_log_panics_total{${LOGS}}[$__range]))`,
        decimals: 0,
      },
    ],
    "Errors",
  ),
];

const crashes = [
  graph(
    {
      title: "Restarts by pod",
      description: "How often containers were started again, in the hour before.",
      unit: "none",
      width: 12,
      emptyWhen: "no container was started again",
    },
    [
      `sum by (namespace, pod, container) (increase(sidelight_container_restarts_total{${CONTAINER}}[1h])) > 0`,
      "{{namespace}}/{{pod}} {{container}}",
    ],
  ),
  endings(
    "How containers have ended, and what they wait for",
    "OOMKilled: more memory than the limit. CrashLoopBackOff: it ends each time it is started. ImagePullBackOff: the image cannot be had.",
    CONTAINER,
  ),
];

const NO_INSTANCE =
  "What the agent counts in logs, and says of containers, is of a workload or a pod, not of an address.";

export const LOGS_DASHBOARD: Dashboard = {
  name: "logs",
  title: "Sidelight / Logs",
  description:
    "How much workloads log, how much of it is errors and panics, and whether they crash. Needs `logs.events`, and for the restarts `metrics.containers`.",
  about: "services",
  variables: [
    ...chain("sidelight_log_events_total", CHOICES),
    {
      ...POD,
      from: `sidelight_container_restarts_total{${matchers(CLUSTER, NAMESPACE, WORKLOAD_IN_JOB)}}`,
    },
  ],
  rows: [
    { title: "Is it quiet?", panels: healthy },
    { title: "How much", panels: volume },
    { title: "How bad", panels: errors },
    { title: "Does it crash?", panels: crashes },
  ],
  exclusions: {
    "template-instance-rule": { reason: NO_INSTANCE },
    "target-instance-rule": { reason: NO_INSTANCE },
    "target-job-rule": {
      reason: "The agents' own series have the agent's job, not that of the workload.",
      panels: ["Dropped", "Bytes delivered by namespace"],
    },
  },
};
