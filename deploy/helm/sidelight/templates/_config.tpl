{{/* `logs` and `metrics` as `receivers` and `cluster` say, for agent and sidecars alike. */}}
{{- define "sidelight.receivers" -}}
{{- $logs := dict -}}
{{- $metrics := dict -}}
{{- with .Values.cluster }}
{{- $_ := set $logs "add" (dict "cluster" .) }}
{{- $_ := set $metrics "external_labels" (dict "cluster" .) }}
{{- end }}
{{- with .Values.receivers.forward }}
{{- $upstreams := kindIs "string" . | ternary (list .) . }}
{{- $_ := set $logs "outputs" (list (dict "forward" (dict "upstreams" $upstreams))) }}
{{- end }}
{{- with .Values.receivers.remoteWrite }}
{{- $_ := set $metrics "outputs" (list (dict "remote_write" (dict "url" .))) }}
{{- end }}
{{- dict "logs" $logs "metrics" $metrics | toYaml }}
{{- end }}

{{/* The agent's configuration: what the chart sets, and `agent.config` over it. */}}
{{- define "sidelight.agent.config" -}}
{{- $config := include "sidelight.receivers" . | fromYaml -}}
{{- $_ := set $config "data_dir" "/var/lib/sidelight" -}}
{{- $_ := set $config "admin" (dict "listen" "[::]:9614" "api" "127.0.0.1:9615") -}}
{{- $config = mergeOverwrite $config (deepCopy .Values.agent.config) -}}
{{- if not (dig "logs" "outputs" list $config) }}
{{- fail "\n\nSay where logs go:\n  --set receivers.forward=fluentd.logging.svc:24224\nand, if wanted, samples:\n  --set receivers.remoteWrite=http://prometheus.monitoring.svc:9090/api/v1/write\nOther outputs stand in agent.config.logs.outputs. To see records without any receiver:\n  --set-json 'agent.config.logs.outputs=[{\"stdout\":{}}]'\n" }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* The injector's configuration: what the chart sets, and `injector.config` over it. */}}
{{- define "sidelight.injector.config" -}}
{{- $sidecar := include "sidelight.receivers" . | fromYaml -}}
{{- $sidecar = mergeOverwrite $sidecar (deepCopy .Values.sidecar.config) -}}
{{- range $section := list "logs" "metrics" }}
{{- if not (dig $section "outputs" list $sidecar) }}{{ $_ := unset $sidecar $section }}{{ end }}
{{- end }}
{{- $_ := set $sidecar "image" (include "sidelight.image" (list . "agent")) -}}
{{- $_ := set $sidecar "image_pull_policy" .Values.image.agent.pullPolicy -}}
{{- $_ := set $sidecar "native" .Values.sidecar.native -}}
{{- $_ := set $sidecar "resources" .Values.sidecar.resources -}}
{{- $_ := set $sidecar "log_volume_size" .Values.sidecar.logVolumeSize -}}
{{- $_ := set $sidecar "data_volume_size" .Values.sidecar.dataVolumeSize -}}
{{- $name := include "sidelight.injector.name" . -}}
{{- $certificate := dict "source" "files" "cert_file" "/etc/sidelight-tls/tls.crt" "key_file" "/etc/sidelight-tls/tls.key" -}}
{{- with .Values.injector.certificate }}
{{- if eq .source "self" }}
{{- $certificate = dict "source" "self" "secret" (include "sidelight.injector.secret" $) "lifetime" .lifetime "ca_lifetime" .caLifetime }}
{{- end }}
{{- end }}
{{- $_ := set $certificate "service" $name -}}
{{- $_ := set $certificate "webhook" $name -}}
{{- $config := dict "mode" .Values.injector.mode "image_allow" .Values.injector.imageAllow "certificate" $certificate "sidecar" $sidecar -}}
{{- $_ := set $config "listen" (printf "[::]:%v" .Values.injector.port) -}}
{{- $_ := set $config "admin" (dict "listen" (printf "[::]:%v" .Values.injector.adminPort)) -}}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.injector.config)) }}
{{- end }}

{{/* The name of a ConfigMap that holds a text: another text, another name. Takes a list: the prefix, the text. */}}
{{- define "sidelight.hashed" -}}
{{ index . 0 }}-{{ index . 1 | sha256sum | trunc 10 }}
{{- end }}

{{/* The port of an address. */}}
{{- define "sidelight.port" -}}
{{ splitList ":" . | last }}
{{- end }}

{{/* Annotations by which the agent scrapes a pod of ours: of the root, the port's name. */}}
{{- define "sidelight.scraped" -}}
{{- if (index . 0).Values.monitoring.annotations -}}
sidelight.dev/metrics: "true"
sidelight.dev/metrics.port: {{ index . 1 }}
{{- end }}
{{- end }}
