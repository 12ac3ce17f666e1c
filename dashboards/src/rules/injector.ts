import { RuleFile, alert } from "../rules.js";

const POD = "{{ $labels.namespace }}/{{ $labels.pod }}";

export const INJECTOR_RULES: RuleFile = {
  name: "sidelight-injector",
  about: "Alerts for the injector.",
  groups: [
    {
      name: "sidelight-injector",
      rules: [
        alert("critical", "SidelightInjectorDown", {
          expr: `
            group by (cluster, namespace) (max_over_time(sidelight_injector_certificate_not_after_seconds[1h]))
            unless on (cluster, namespace) sidelight_injector_certificate_not_after_seconds
          `,
          wait: "5m",
          summary: "No injector answers: pods that ask for a sidecar are refused.",
          description: "Nothing is heard of an injector in {{ $labels.namespace }}.",
        }),
        alert("warning", "SidelightInjectorFailing", {
          expr: `sum by (cluster, namespace) (increase(sidelight_injector_reviews_total{result="failed"}[15m])) > 0`,
          summary: "The injector cannot review pods.",
          description: 'Reviews that failed in 15 minutes: {{ printf "%.0f" $value }}.',
        }),
        alert("info", "SidelightInjectorDenying", {
          expr: `sum by (cluster, namespace) (increase(sidelight_injector_reviews_total{result="denied"}[15m])) > 5`,
          summary: "Pods are refused for what they ask for.",
          description: 'Pods that were refused in 15 minutes: {{ printf "%.0f" $value }}.',
        }),
        alert("warning", "SidelightInjectorSlow", {
          expr: `
            histogram_quantile(0.99, sum by (cluster, namespace, le) (rate(sidelight_injector_review_duration_seconds_bucket[5m]))) > 0.5
          `,
          wait: "10m",
          summary: "The injector holds up the creation of pods.",
          description: "One of a hundred reviews takes longer than {{ $value | humanizeDuration }}.",
        }),
        alert("critical", "SidelightInjectorCertificateEnding", {
          expr: "sidelight_injector_certificate_not_after_seconds - time() < 3 * 24 * 3600",
          wait: "1h",
          summary: "The injector's certificate is not renewed.",
          description: `The certificate of ${POD} ends in {{ $value | humanizeDuration }}; then pods that ask for a sidecar are refused.`,
        }),
        alert("warning", "SidelightInjectorRejecting", {
          expr: "sum by (cluster, namespace, status) (rate(sidelight_injector_rejected_total[15m])) > 0.1",
          wait: "15m",
          summary: "The injector is asked what is no review.",
          description: 'Requests a second that are answered with {{ $labels.status }}: {{ printf "%.1f" $value }}.',
        }),
        alert("info", "SidelightInjectorEventsDropped", {
          expr: "sum by (cluster, namespace) (increase(sidelight_injector_events_dropped_total[15m])) > 0",
          wait: "15m",
          summary: "Users do not see why their pods were changed or not.",
          description: 'Events that could not be written in 15 minutes: {{ printf "%.0f" $value }}.',
        }),
      ],
    },
  ],
};
