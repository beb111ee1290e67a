{{- define "sobranie.name" -}}
{{ printf "%s-%s" .root.Release.Name .name | trimSuffix "-all" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "sobranie.selector" -}}
app.kubernetes.io/name: sobranie
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "sobranie.labels" -}}
{{ include "sobranie.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}
