{{/* Names inside the operator's namespace are fixed, because its permissions name them; one release a namespace. */}}
{{- define "drivetrain.labels" -}}
app.kubernetes.io/name: drivetrain
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "drivetrain.selector" -}}
app.kubernetes.io/name: drivetrain
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "drivetrain.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Cluster-wide names carry the namespace: two releases must not share a ClusterRole. */}}
{{- define "drivetrain.clusterName" -}}
drivetrain-operator-{{ .Release.Namespace }}
{{- end }}
