{{/* Names inside the operator's namespace are fixed, because its permissions name them; one release a namespace. */}}
{{- define "drivetrain.selector" -}}
app.kubernetes.io/name: "drivetrain"
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: "operator"
{{- end }}

{{/* `+` may stand in a version, not in a label. */}}
{{- define "drivetrain.labels" -}}
app.kubernetes.io/name: "drivetrain"
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end }}

{{/* Metadata of an object: {root, name, namespace, labels, annotations}. The chart's own labels win, then the object's. */}}
{{- define "drivetrain.metadata" -}}
name: {{ .name | quote }}
{{- with .namespace }}
namespace: {{ . | quote }}
{{- end }}
labels:
  {{- $own := include "drivetrain.labels" .root | fromYaml }}
  {{- merge $own (deepCopy (.labels | default dict)) (.root.Values.commonLabels | default dict) | toYaml | nindent 2 }}
{{- with merge (deepCopy (.annotations | default dict)) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The same in the operator's namespace: a list of root and name. */}}
{{- define "drivetrain.here" -}}
{{- $root := index . 0 -}}
{{- include "drivetrain.metadata" (dict "root" $root "name" (index . 1) "namespace" $root.Release.Namespace) -}}
{{- end }}

{{/* Cluster-wide names carry the namespace: two releases must not share a ClusterRole. */}}
{{- define "drivetrain.clusterName" -}}
drivetrain-operator-{{ .Release.Namespace }}
{{- end }}

{{- define "drivetrain.account" -}}
{{ .Values.serviceAccount.name | default "drivetrain-operator" }}
{{- end }}

{{/* How the operator's metrics and probes are asked for. */}}
{{- define "drivetrain.scheme" -}}
{{ empty .Values.metrics.tls.secretName | ternary "http" "https" }}
{{- end }}

{{- define "drivetrain.image" -}}
{{- $registry := (.Values.global).imageRegistry | default .Values.image.registry | trimSuffix "/" -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* Names of all pull secrets, as JSON. Those of `global` may be names, too: other charts that share it take both. */}}
{{- define "drivetrain.pullSecrets" -}}
{{- $names := list -}}
{{- range concat ((.Values.global).imagePullSecrets | default list) (.Values.imagePullSecrets | default list) -}}
{{- $names = append $names (kindIs "string" . | ternary . (get (kindIs "map" . | ternary . dict) "name")) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end }}
