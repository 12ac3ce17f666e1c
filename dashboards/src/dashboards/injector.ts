// The injector: do pods get their sidecars, and does it hold nobody up?

import { CLUSTER, Dashboard, INSTANCE, JOB, NAMESPACE, POD, WORKLOAD_IN_JOB, chain, matchers } from "../dashboard.js";
import { Spec, graph, number, rows } from "../panels.js";

const CHOICES = [CLUSTER, NAMESPACE, WORKLOAD_IN_JOB, POD, JOB, INSTANCE];
const INJECTOR = matchers(...CHOICES);

const rate = (name: string, matcher = "") =>
  `rate(sidelight_injector_${name}{${matcher}${INJECTOR}}[$__rate_interval])`;
const increase = (name: string, matcher = "") =>
  `increase(sidelight_injector_${name}{${matcher}${INJECTOR}}[$__range])`;
const ITS = `and on (pod, instance) sidelight_injector_certificate_not_after_seconds{${INJECTOR}}`;

const NO_REVIEWS = "no pod was created in the time shown";
const wide = (spec: Omit<Spec, "width">): Spec => ({ width: 8, ...spec });

const healthy = [
  number(
    {
      title: "Replicas",
      description: "Injectors whose page can be read. With one only, its end refuses pods that ask for a sidecar.",
      unit: "none",
      width: 4,
      low: true,
      bad: 1,
      warn: 2,
    },
    `count(sidelight_injector_certificate_not_after_seconds{${INJECTOR}})`,
  ),
  number(
    { title: "Pods reviewed", description: "Reviews in the time shown.", unit: "none", width: 4, decimals: 0 },
    `sum(${increase("reviews_total")}) or vector(0)`,
  ),
  number(
    {
      title: "Failed",
      description: "Reviews in the time shown that ended with a defect or a limit of the injector's.",
      unit: "none",
      width: 4,
      decimals: 0,
      bad: 1,
    },
    `sum(${increase("reviews_total", 'result="failed", ')}) or vector(0)`,
  ),
  number(
    {
      title: "Denied",
      description: "Pods in the time shown that were refused for what they ask for. The Event says why.",
      unit: "none",
      width: 4,
      decimals: 0,
      warn: 1,
    },
    `sum(${increase("reviews_total", 'result="denied", ')}) or vector(0)`,
  ),
  number(
    {
      title: "Slowest reviews",
      description: "One of a hundred reviews took longer.",
      unit: "s",
      width: 4,
      warn: 0.1,
      bad: 0.5,
      emptyWhen: NO_REVIEWS,
    },
    `histogram_quantile(0.99, sum by (le) (${increase("review_duration_seconds_bucket")})) > 0`,
  ),
  number(
    {
      title: "Certificate",
      description: "Time until the certificate ends that is next to.",
      unit: "s",
      width: 4,
      low: true,
      bad: 86400,
      warn: 604800,
    },
    `min(sidelight_injector_certificate_not_after_seconds{${INJECTOR}}) - time()`,
  ),
];

const reviews = [
  graph(wide({ title: "Reviews by result", description: "Reviews a second.", unit: "ops", stack: true }), [
    `sum by (result) (${rate("reviews_total")})`,
    "{{result}}",
  ]),
  graph(
    wide({
      title: "Duration of reviews",
      description:
        "From the last byte of a review to its answer: half of them, and 99 of a hundred. Pods are held up for that long.",
      unit: "s",
      bad: 0.5,
      emptyWhen: NO_REVIEWS,
    }),
    ...["0.5", "0.99"].map(
      (quantile) =>
        [
          `histogram_quantile(${quantile}, sum by (le) (${rate("review_duration_seconds_bucket")}))`,
          `p${Number(quantile) * 100}`,
        ] as const,
    ),
  ),
  graph(
    wide({ title: "Reviews by replica", description: "Reviews a second that each replica answers.", unit: "ops" }),
    [`sum by (pod) (${rate("reviews_total")})`, "{{pod}}"],
  ),
  rows(
    wide({
      title: "Why pods stay as they are",
      description: "Pods in the time shown that got no sidecar, by reason.",
      unit: "none",
      emptyWhen: "each pod that was reviewed got what it asked for",
    }),
    [
      { title: "Reason", label: "reason" },
      { title: "Pods", expr: `sum by (reason) (${increase("skipped_total")}) > 0`, decimals: 0 },
    ],
    "Pods",
  ),
  graph(
    wide({
      title: "Requests that are no reviews",
      description:
        "Requests a second that were answered with an error, by status: a caller that is not the API server.",
      unit: "ops",
      emptyWhen: "there were none",
    }),
    [`sum by (status) (${rate("rejected_total")})`, "{{status}}"],
  ),
  graph(
    wide({
      title: "Events that were not written",
      description: "Events a second that the API server did not take: what it did with a pod stands in its log only.",
      unit: "ops",
    }),
    [`sum by (pod) (${rate("events_dropped_total")})`, "{{pod}}"],
  ),
];

const costs = [
  graph(wide({ title: "Memory", description: "Resident memory of each replica.", unit: "bytes" }), [
    `max by (pod) (process_resident_memory_bytes{${INJECTOR}} ${ITS})`,
    "{{pod}}",
  ]),
  graph(wide({ title: "CPU", description: "Cores that each replica uses.", unit: "none", decimals: 3 }), [
    `max by (pod) (rate(process_cpu_seconds_total{${INJECTOR}}[$__rate_interval]) ${ITS})`,
    "{{pod}}",
  ]),
  rows(
    wide({ title: "Versions", description: "What runs where, and since when.", unit: "none" }),
    [
      { title: "Pod", label: "pod" },
      { title: "Version", label: "version" },
      {
        title: "Runs for",
        expr: `max by (pod, version) (sidelight_build_info{${INJECTOR}} * on (pod, instance) group_left () (time() - process_start_time_seconds{${INJECTOR}}) ${ITS})`,
        unit: "s",
      },
    ],
    "Pod",
  ),
];

export const INJECTOR_DASHBOARD: Dashboard = {
  name: "sidelight-injector",
  title: "Sidelight / Injector",
  description:
    "Whether pods get the sidecars that they ask for, and whether the injector holds anybody up. From its own pages.",
  about: "injector",
  variables: chain("sidelight_injector_certificate_not_after_seconds", CHOICES),
  rows: [
    { title: "Do pods get what they ask for?", panels: healthy },
    { title: "Reviews", panels: reviews },
    { title: "What it takes", panels: costs },
  ],
  exclusions: {},
};
