{{- define "xray-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "xray-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "xray-operator.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "xray-operator.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "xray-operator.serviceAccountName" -}}
{{- default (include "xray-operator.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "xray-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "xray-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "xray-operator.labels" -}}
{{ include "xray-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Reference of an image: arguments (image, default tag). */}}
{{- define "xray-operator.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default (index . 1) $image.tag }}
{{- end -}}
{{- end -}}

{{/* Labels of what prometheus-operator reads. */}}
{{- define "xray-operator.monitoringLabels" -}}
{{ include "xray-operator.labels" . }}
{{- with .Values.metrics.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Fails where the API server has no such kinds: arguments (root, value that wants them). */}}
{{- define "xray-operator.needsPrometheusOperator" -}}
{{- if not ((index . 0).Capabilities.APIVersions.Has "monitoring.coreos.com/v1") -}}
{{- fail (printf "metrics.%s.enabled: the cluster has no monitoring.coreos.com/v1: expected the CRDs of prometheus-operator; without them leave it false and see docs/metrics.md (`helm template` asks no cluster: add --api-versions monitoring.coreos.com/v1)" (index . 1)) -}}
{{- end -}}
{{- end -}}
