{{/* The name of every object. */}}
{{- define "rstscope.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "rstscope" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-rstscope" (.Release.Name | trunc 43 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{/* What a selector may name: it can never change. */}}
{{- define "rstscope.selector" -}}
app.kubernetes.io/name: rstscope
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rstscope.labels" -}}
{{ include "rstscope.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "rstscope.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "rstscope.fullname" . -}}
{{- else -}}
default
{{- end -}}
{{- end }}

{{- define "rstscope.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{- define "rstscope.subject" -}}
- kind: ServiceAccount
  name: {{ include "rstscope.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* The sinks, or the one there is where none was named; as JSON, which is how a template hands on more than a text. */}}
{{- define "rstscope.sinks" -}}
{{- default (dict "stdout" (dict "type" "stdout")) .Values.sinks | toJson -}}
{{- end }}

{{/* `true` if a sink has a spool. */}}
{{- define "rstscope.spools" -}}
{{- range $name, $sink := include "rstscope.sinks" . | fromJson -}}
{{- if has $sink.type (list "loki" "splunk" "otlp") -}}true{{- end -}}
{{- end -}}
{{- end }}

{{/* A value in TOML. A text in JSON is one in TOML, and so are numbers and booleans. */}}
{{- define "rstscope.toml" -}}
{{- if kindIs "map" . -}}
{ {{- range $index, $key := keys . | sortAlpha }}{{ if $index }},{{ end }} {{ $key | toJson }} = {{ include "rstscope.toml" (get $ $key) }}{{ end }} }
{{- else if kindIs "slice" . -}}
[{{ range $index, $value := . }}{{ if $index }}, {{ end }}{{ include "rstscope.toml" $value }}{{ end }}]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}

{{/* `true` where AppArmor's profile is a field; before it was an annotation. */}}
{{- define "rstscope.hasAppArmor" -}}
{{- if semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version -}}true{{- end -}}
{{- end }}
