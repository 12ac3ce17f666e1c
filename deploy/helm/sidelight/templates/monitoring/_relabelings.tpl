{{/* The labels that the agent gives to what it scrapes itself: dashboards and rules count on them. */}}
{{- define "sidelight.relabelings" -}}
- { sourceLabels: [__meta_kubernetes_pod_node_name], targetLabel: node }
- sourceLabels: [__meta_kubernetes_namespace, __meta_kubernetes_pod_label_app_kubernetes_io_component]
  separator: /
  regex: (.+)/(.+)
  replacement: $1/{{ include "sidelight.fullname" . }}-$2
  targetLabel: job
{{- end }}
