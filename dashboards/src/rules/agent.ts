import { RuleFile, alert } from "../rules.js";

const NODE = "{{ $labels.node }} ({{ $labels.pod }})";

const delivery = [
  alert("critical", "SidelightLogsLost", {
    expr: `
      increase(sidelight_log_source_bytes_dropped_total{reason=~"held_deleted|lost_unlinked|rejected|poison"}[15m]) > 0
    `,
    summary: "Logs were lost that nobody asked to drop.",
    description: `The agent on ${NODE} has given up {{ $value | humanize1024 }}B of logs for output {{ $labels.output }}: {{ $labels.reason }}.`,
  }),
  alert("critical", "SidelightLogRetentionLow", {
    expr: "sidelight_log_retention_left_seconds < 600",
    wait: "2m",
    summary: "Unread logs will soon be deleted by the kubelet.",
    description: `In {{ $value | humanizeDuration }} the kubelet deletes logs that the agent on ${NODE} has not read.`,
  }),
  alert("warning", "SidelightLogsLate", {
    expr: "sidelight_log_oldest_unread_seconds > 300",
    wait: "5m",
    summary: "Logs arrive late.",
    description: `Output {{ $labels.output }} of the agent on ${NODE} is {{ $value | humanizeDuration }} behind.`,
  }),
  alert("warning", "SidelightDeletedFilesHeld", {
    expr: "sidelight_log_deleted_bytes_held > 0.5 * 1024 * 1024 * 1024",
    wait: "5m",
    summary: "Much of what is unread is in files that are deleted already.",
    description: `The agent on ${NODE} holds {{ $value | humanize1024 }}B in deleted files; above held_deleted it gives the oldest up.`,
  }),
  alert("critical", "SidelightOutputDown", {
    expr: "sidelight_output_up == 0",
    wait: "5m",
    summary: "No receiver of an output takes anything.",
    description: `Output {{ $labels.output }} of the agent on ${NODE} has not delivered for five minutes.`,
  }),
  alert("warning", "SidelightLogUnreadable", {
    expr: 'sidelight_log_files{state="unreadable"} > 0',
    wait: "5m",
    summary: "There are logs that the agent may not read.",
    description: `The agent on ${NODE} cannot read {{ $value }} logs.`,
  }),
  alert("critical", "SidelightBytesUnaccounted", {
    expr: "sidelight_log_source_bytes_unaccounted > 0",
    wait: "1m",
    summary: "The account of what was read does not balance: a defect.",
    description: `{{ $value | humanize1024 }}B that the agent on ${NODE} read for output {{ $labels.output }} are in no counter.`,
  }),
];

const metrics = [
  alert("critical", "SidelightSamplesDropped", {
    expr: "increase(sidelight_remote_write_dropped_samples_total[15m]) > 0",
    summary: "Samples were lost.",
    description: `The agent on ${NODE} has given up {{ printf "%.0f" $value }} samples for output {{ $labels.output }}: {{ $labels.reason }}.`,
  }),
  alert("warning", "SidelightSeriesDropped", {
    expr: "increase(sidelight_series_dropped_total[15m]) > 0",
    summary: "A target or a namespace has more series than it may.",
    description: `The agent on ${NODE} leaves out new series: {{ $labels.reason }}.`,
  }),
  alert("warning", "SidelightScrapesFailing", {
    expr: `
      sum by (cluster, namespace, pod, node) (rate(sidelight_scrapes_total{result="failure"}[5m]))
      / sum by (cluster, namespace, pod, node) (rate(sidelight_scrapes_total[5m])) > 0.05
    `,
    wait: "15m",
    summary: "Pages of metrics cannot be read.",
    description: `{{ $value | humanizePercentage }} of the scrapes of the agent on ${NODE} fail.`,
  }),
  alert("warning", "SidelightRemoteWriteBehind", {
    expr: "sidelight_remote_write_lag_seconds > 120",
    wait: "10m",
    summary: "Samples arrive late.",
    description: `Output {{ $labels.output }} of the agent on ${NODE} is {{ $value | humanizeDuration }} behind.`,
  }),
  alert("warning", "SidelightSpoolFilling", {
    expr: `
      predict_linear(sidelight_spool_bytes[30m], 4 * 3600) > 256 * 1024 * 1024
      and sidelight_spool_bytes > 16 * 1024 * 1024
    `,
    wait: "10m",
    summary: "What waits on disk for a receiver will be full in four hours.",
    description: `The spool of output {{ $labels.output }} on ${NODE} grows; when it is full the oldest samples go.`,
  }),
];

/**
 * Nodes where an agent was within the hour and is none now. Where kube-state-metrics says which nodes there are, these;
 * but not where agents are scraped by somebody who does not say their node.
 */
const missing = `
  (
    group by (cluster, node) (max_over_time(sidelight_memory_budget_bytes[1h]))
    unless on (cluster, node) sidelight_memory_budget_bytes
    unless on (cluster) kube_node_info
  )
  or
  (
    group by (cluster, node) (kube_node_info)
    unless on (cluster, node) sidelight_memory_budget_bytes
    and on (cluster) max_over_time(sidelight_memory_budget_bytes{node!=""}[1h])
  )
`;

const itself = [
  alert("critical", "SidelightAgentMissing", {
    expr: missing,
    wait: "10m",
    summary: "A node has no agent.",
    description: "Nothing is heard of an agent on node {{ $labels.node }}: its logs and metrics do not arrive.",
  }),
  alert("warning", "SidelightAgentRestarting", {
    expr: "changes(process_start_time_seconds[1h]) > 2 and on (pod, instance) sidelight_memory_budget_bytes",
    summary: "An agent is started again and again.",
    description: `The agent on ${NODE} was started {{ $value }} times in an hour.`,
  }),
  alert("warning", "SidelightConfigReloadFailed", {
    expr: "sidelight_config_last_reload_successful == 0",
    wait: "5m",
    summary: "A configuration has mistakes, and the old one is in force.",
    description: `The agent on ${NODE} could not take its new configuration.`,
  }),
  alert("warning", "SidelightWatchErrors", {
    expr: "increase(sidelight_cluster_watch_errors_total[15m]) > 10",
    summary: "An agent does not hear of new pods.",
    description: `The agent on ${NODE} failed {{ printf "%.0f" $value }} times in 15 minutes to watch pods: new ones will lack metadata.`,
  }),
  alert("warning", "SidelightMemoryBudgetFull", {
    expr: "sidelight_memory_used_bytes / sidelight_memory_budget_bytes > 0.95",
    wait: "15m",
    summary: "An agent's memory is full of what receivers do not take.",
    description: `The agent on ${NODE} uses {{ $value | humanizePercentage }} of its memory budget, and reads no further.`,
  }),
];

export const AGENT_RULES: RuleFile = {
  name: "sidelight-agent",
  about: "Alerts for the agent. Thresholds that belong to a setting are for its default.",
  groups: [{ name: "sidelight-agent", rules: [...delivery, ...metrics, ...itself] }],
};
