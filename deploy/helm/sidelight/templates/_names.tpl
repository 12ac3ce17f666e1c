{{/* What names are made from: the release's name, and the chart's unless that is in it already. */}}
{{- define "sidelight.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "sidelight.agent.name" -}}
{{ include "sidelight.fullname" . }}-agent
{{- end }}

{{- define "sidelight.injector.name" -}}
{{ include "sidelight.fullname" . }}-injector
{{- end }}

{{/* By what the pods of a component are selected, which nothing may change: selectors of workloads are immutable. Takes a list: the
root, the component. */}}
{{- define "sidelight.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of a component's objects. Takes a list: the root, the component. */}}
{{- define "sidelight.labels" -}}
{{- $root := index . 0 -}}
{{ include "sidelight.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The image of a component. Takes a list: the root, the component. */}}
{{- define "sidelight.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.image (index . 1) -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default $root.Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- define "sidelight.agent.serviceAccount" -}}
{{- $account := .Values.agent.serviceAccount -}}
{{ if $account.create }}{{ default (include "sidelight.agent.name" .) $account.name }}{{ else }}{{ default "default" $account.name }}{{ end }}
{{- end }}

{{- define "sidelight.injector.serviceAccount" -}}
{{- $account := .Values.injector.serviceAccount -}}
{{ if $account.create }}{{ default (include "sidelight.injector.name" .) $account.name }}{{ else }}{{ default "default" $account.name }}{{ end }}
{{- end }}

{{/* The Secret with the injector's certificate. Another one for each source: whoever fills one is alone in writing it, and it is
there still when a change of the source is rolled back. */}}
{{- define "sidelight.injector.secret" -}}
{{- $certificate := .Values.injector.certificate -}}
{{- $name := include "sidelight.injector.name" . -}}
{{- if eq $certificate.source "secret" -}}
{{ required "injector.certificate.secretName: the name of the Secret with tls.crt and tls.key" $certificate.secretName }}
{{- else -}}
{{ $name }}-{{ if eq $certificate.source "certManager" }}issued{{ else }}tls{{ end }}
{{- end }}
{{- end }}

{{/* Where `helm test` creates a pod: the injector is not called for the release's own namespace. */}}
{{- define "sidelight.tests.namespace" -}}
{{ if eq .Values.tests.namespace .Release.Namespace }}kube-public{{ else }}{{ .Values.tests.namespace }}{{ end }}
{{- end }}
