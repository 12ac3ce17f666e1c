// The agent: does everything arrive? If not, is it the receiver, the agent, or the node?

import { CLUSTER, Dashboard, INSTANCE, JOB, NAMESPACE, POD, WORKLOAD_IN_JOB, chain, matchers } from "../dashboard.js";
import { Spec, graph, number, rows } from "../panels.js";

const CHOICES = [CLUSTER, NAMESPACE, WORKLOAD_IN_JOB, POD, JOB, INSTANCE];
const AGENT = matchers(...CHOICES);
const NAME = "{{node}} {{pod}}";
const BY = "by (node, pod)";

const rate = (name: string, matcher = "") => `rate(sidelight_${name}{${matcher}${AGENT}}[$__rate_interval])`;
const increase = (name: string, matcher = "") => `increase(sidelight_${name}{${matcher}${AGENT}}[$__range])`;

/** Reasons for which logs are lost that nobody asked to drop. */
const LOST = 'reason=~"held_deleted|lost_unlinked|rejected|poison", ';
const NO_REMOTE_WRITE = "no agent writes metrics to a receiver";
const NO_LOGS = "no agent reads logs";

const wide = (spec: Omit<Spec, "width">): Spec => ({ width: 8, ...spec });

const healthy = [
  number(
    { title: "Agents", description: "Agents whose page can be read.", unit: "none", width: 4 },
    `count(sidelight_memory_budget_bytes{${AGENT}})`,
  ),
  number(
    {
      title: "Outputs down",
      description: "Outputs, of all agents, whose receiver takes nothing.",
      unit: "none",
      width: 4,
      bad: 1,
    },
    `sum(1 - sidelight_output_up{${AGENT}})`,
  ),
  number(
    {
      title: "Logs lost",
      description: "Bytes of log files that were given up in the time shown, and that nobody asked to drop.",
      unit: "bytes",
      width: 4,
      bad: 1,
      emptyWhen: NO_LOGS,
    },
    `sum(${increase("log_source_bytes_dropped_total", LOST)})`,
  ),
  number(
    {
      title: "Samples lost",
      description: "Samples that were given up in the time shown.",
      unit: "none",
      width: 4,
      bad: 1,
      decimals: 0,
    },
    `sum(${increase("remote_write_dropped_samples_total")}) or vector(0)`,
  ),
  number(
    {
      title: "Logs behind",
      description: "Age of the oldest record that has not been read yet, of the agent that is furthest behind.",
      unit: "s",
      width: 4,
      warn: 60,
      bad: 300,
      emptyWhen: NO_LOGS,
    },
    `max(sidelight_log_oldest_unread_seconds{${AGENT}})`,
  ),
  number(
    {
      title: "Scrapes that fail",
      description: "Share of the pages of pods that could not be read, in the time shown.",
      unit: "percentunit",
      width: 4,
      warn: 0.01,
      bad: 0.05,
      emptyWhen: "no pod is scraped",
    },
    `sum(${increase("scrapes_total", 'result="failure", ')}) / sum(${increase("scrapes_total")})`,
  ),
];

const logs = [
  graph(
    wide({
      title: "Read and delivered",
      description:
        "Bytes of log files a second, over all agents. Delivered below read: a receiver is slower than the writers.",
      unit: "Bps",
      emptyWhen: NO_LOGS,
    }),
    [`sum by (output) (${rate("log_source_bytes_read_total")})`, "{{output}} read"],
    [`sum by (output) (${rate("log_source_bytes_delivered_total")})`, "{{output}} delivered"],
  ),
  graph(
    wide({
      title: "Dropped by reason",
      description:
        "Bytes a second. `rate`, `sample` and `filter` were asked for, `truncated` are records that are too long; all others are losses.",
      unit: "Bps",
      emptyWhen: "nothing was dropped",
    }),
    [`sum by (output, reason) (${rate("log_source_bytes_dropped_total")}) > 0`, "{{output}} {{reason}}"],
  ),
  graph(
    wide({
      title: "Not acknowledged",
      description: "Bytes in the log files that the receivers have not acknowledged.",
      unit: "bytes",
      emptyWhen: NO_LOGS,
    }),
    [`sum by (node, pod, output) (sidelight_log_lag_bytes{${AGENT}})`, `${NAME} {{output}}`],
  ),
  graph(
    wide({
      title: "Behind",
      description: "Age of the newest record that was read in the container that is furthest behind.",
      unit: "s",
      bad: 300,
      emptyWhen: NO_LOGS,
    }),
    [`max by (node, pod, output) (sidelight_log_oldest_unread_seconds{${AGENT}})`, `${NAME} {{output}}`],
  ),
  graph(
    wide({
      title: "Retention left",
      description:
        "Until the kubelet deletes the first unread byte. Below ten minutes files will have to be held open after they are deleted.",
      unit: "s",
      low: true,
      bad: 600,
      emptyWhen: "nothing is unread, so that nothing can be lost",
    }),
    [`min ${BY} (sidelight_log_retention_left_seconds{${AGENT}} < +Inf)`, NAME],
  ),
  graph(
    wide({
      title: "Held though deleted",
      description:
        "Unread bytes of files that the kubelet has deleted. Above `held_deleted` (1 GiB, if not set) the oldest are given up.",
      unit: "bytes",
      bad: 536870912,
      emptyWhen: NO_LOGS,
    }),
    [`sum ${BY} (sidelight_log_deleted_bytes_held{${AGENT}})`, NAME],
  ),
  graph(
    wide({
      title: "Records sent again",
      description: "Records a second that were sent again, since no acknowledgement came: they may arrive twice.",
      unit: "cps",
      emptyWhen: NO_LOGS,
    }),
    [`sum by (output) (${rate("log_records_retried_total")})`, "{{output}}"],
  ),
  graph(
    wide({
      title: "Lines that do not parse",
      description:
        "Lines a second that were sent as text, or with bytes replaced. `format`: the configured format is another one; `head`: not written by a container runtime.",
      unit: "cps",
      emptyWhen: NO_LOGS,
    }),
    [`sum by (kind) (${rate("log_parse_failures_total")})`, "{{kind}}"],
  ),
  graph(
    wide({
      title: "Log files",
      description:
        "Files that are open; that are held open though they are deleted; that are closed; and that cannot be read.",
      unit: "none",
      emptyWhen: NO_LOGS,
    }),
    [`sum by (state) (sidelight_log_files{${AGENT}})`, "{{state}}"],
  ),
];

const metrics = [
  graph(
    wide({
      title: "Scrapes",
      description: "Pages a second that were read, and that could not be.",
      unit: "ops",
      emptyWhen: "no agent scrapes",
    }),
    [`sum by (result) (${rate("scrapes_total")})`, "{{result}}"],
  ),
  graph(
    wide({
      title: "Duration of scrapes",
      description: "From the request to the last line of the page: half of them, and 99 of a hundred.",
      unit: "s",
      emptyWhen: "no pod is scraped",
    }),
    ...["0.5", "0.99"].map(
      (quantile) =>
        [
          `histogram_quantile(${quantile}, sum by (le) (${rate("scrape_duration_seconds_bucket")}))`,
          `p${Number(quantile) * 100}`,
        ] as const,
    ),
  ),
  graph(
    wide({
      title: "Series",
      description: "Series of all targets that are alive. Above the limits of `metrics` new ones are dropped.",
      unit: "short",
      emptyWhen: "no agent scrapes",
    }),
    [`sum ${BY} (sidelight_series{${AGENT}})`, NAME],
  ),
  graph(
    wide({
      title: "Samples written",
      description: "Samples a second that receivers have taken.",
      unit: "cps",
      emptyWhen: NO_REMOTE_WRITE,
    }),
    [`sum by (output) (${rate("remote_write_samples_total")})`, "{{output}}"],
  ),
  graph(
    wide({
      title: "Remote write behind",
      description: "Since the oldest request that waits was closed.",
      unit: "s",
      bad: 120,
      emptyWhen: NO_REMOTE_WRITE,
    }),
    [`max by (node, pod, output) (sidelight_remote_write_lag_seconds{${AGENT}})`, `${NAME} {{output}}`],
  ),
  graph(
    wide({
      title: "Waiting on disk",
      description: "Requests that wait in the spool. Above its size (256 MiB, if not set) the oldest go.",
      unit: "bytes",
      emptyWhen: NO_REMOTE_WRITE,
    }),
    [`sum by (node, pod, output) (sidelight_spool_bytes{${AGENT}})`, `${NAME} {{output}}`],
  ),
  graph(
    wide({
      title: "Requests sent again",
      description: "Requests of remote write a second that a receiver did not take at first.",
      unit: "ops",
      emptyWhen: NO_REMOTE_WRITE,
    }),
    [`sum by (output) (${rate("remote_write_retries_total")})`, "{{output}}"],
  ),
  graph(
    wide({
      title: "Samples dropped",
      description: "Samples a second by reason: `rejected` by the receiver, `spool_full` while it was away.",
      unit: "cps",
      emptyWhen: "no sample was dropped",
    }),
    [`sum by (output, reason) (${rate("remote_write_dropped_samples_total")}) > 0`, "{{output}} {{reason}}"],
  ),
  graph(
    wide({
      title: "Series above a limit",
      description:
        "Samples a second of series that were not taken: a target or a namespace has more than it may. The agent's log says which.",
      unit: "cps",
      emptyWhen: "no limit was reached",
    }),
    [`sum by (node, pod, reason) (${rate("series_dropped_total")}) > 0`, `${NAME} {{reason}}`],
  ),
];

const costs = [
  graph(
    wide({
      title: "Memory budget in use",
      description: "Payload in memory, of the budget. At 1 the agent waits for receivers.",
      unit: "percentunit",
      max: 1,
      warn: 0.9,
    }),
    [`max ${BY} (sidelight_memory_used_bytes{${AGENT}} / sidelight_memory_budget_bytes{${AGENT}})`, NAME],
  ),
  graph(wide({ title: "Memory", description: "Resident memory of each agent.", unit: "bytes" }), [
    `max ${BY} (process_resident_memory_bytes{${AGENT}} and on (pod, instance) sidelight_memory_budget_bytes{${AGENT}})`,
    NAME,
  ]),
  graph(wide({ title: "CPU", description: "Cores that each agent uses.", unit: "none", decimals: 3 }), [
    `max ${BY} (rate(process_cpu_seconds_total{${AGENT}}[$__rate_interval]) and on (pod, instance) sidelight_memory_budget_bytes{${AGENT}})`,
    NAME,
  ]),
  graph(
    wide({
      title: "Open files",
      description: "Of the files that each agent may have open.",
      unit: "percentunit",
      bad: 0.8,
    }),
    [
      `max ${BY} (process_open_fds{${AGENT}} / process_max_fds{${AGENT}} and on (pod, instance) sidelight_memory_budget_bytes{${AGENT}})`,
      NAME,
    ],
  ),
  graph(
    wide({
      title: "Errors of the watch of pods",
      description: "Failures a second to hear from the API server. While it fails, new pods have no metadata.",
      unit: "ops",
    }),
    [`sum ${BY} (${rate("cluster_watch_errors_total")})`, NAME],
  ),
  rows(
    wide({
      title: "Versions and configuration",
      description: "What runs where, and whether its newest configuration is in force.",
      unit: "none",
    }),
    [
      { title: "Node", label: "node" },
      { title: "Pod", label: "pod" },
      { title: "Version", label: "version" },
      {
        title: "Newest config",
        expr: `
          max by (node, pod, version) (
            sidelight_build_info{${AGENT}} * on (pod, instance) group_left () sidelight_config_last_reload_successful{${AGENT}}
          )
        `,
        unit: "bool_yes_no",
      },
    ],
    "Node",
  ),
];

export const AGENT_DASHBOARD: Dashboard = {
  name: "sidelight-agent",
  title: "Sidelight / Agent",
  description:
    "Whether all logs and samples arrive, and if not, whether it is a receiver, the agent or the node. From the agents' own pages.",
  about: "agent",
  variables: chain("sidelight_memory_budget_bytes", CHOICES),
  rows: [
    { title: "Does everything arrive?", panels: healthy },
    { title: "Logs", panels: logs },
    { title: "Metrics", panels: metrics },
    { title: "What it takes", panels: costs },
  ],
  exclusions: {},
};
