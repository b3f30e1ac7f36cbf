{{/* What the cluster wants of the environment of its pods: a proxy, and authorities. Lists of EnvVars, as JSON. */}}
{{- define "drivetrain.proxy" -}}
{{- $env := list -}}
{{- with .Values.proxy -}}
{{- if or .http .https -}}
{{- range $name, $value := dict "http_proxy" .http "https_proxy" .https "no_proxy" .except -}}
{{- if $value -}}
{{- $env = concat $env (list (dict "name" (upper $name) "value" $value) (dict "name" $name "value" $value)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $env -}}
{{- end }}

{{/* workerTemplate with both, as JSON. What workerTemplate says itself about the same variable, volume or mount wins. */}}
{{- define "drivetrain.workerTemplate" -}}
{{- $template := deepCopy (.Values.workerTemplate | default dict) -}}
{{- $env := include "drivetrain.proxy" . | fromJsonArray -}}
{{- $mounts := list -}}
{{- with .Values.trustedCA.configMap -}}
{{- $folder := "/etc/drivetrain/trusted-ca" -}}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" "AWS_CA_BUNDLE" -}}
{{- $env = append $env (dict "name" . "value" (printf "%s/%s" $folder $.Values.trustedCA.key)) -}}
{{- end -}}
{{- $mounts = list (dict "name" "trusted-ca" "mountPath" $folder "readOnly" true) -}}
{{- $spec := $template.spec | default dict -}}
{{- $volume := dict "name" "trusted-ca" "configMap" (dict "name" .) -}}
{{- $_ := set $spec "volumes" (include "drivetrain.over" (list (list $volume) $spec.volumes "name") | fromJsonArray) -}}
{{- $_ := set $template "spec" $spec -}}
{{- end -}}
{{- if or $env $mounts -}}
{{- $spec := $template.spec | default dict -}}
{{- $worker := dict "name" "worker" -}}
{{- $others := list -}}
{{- range $spec.containers -}}
{{- if eq .name "worker" -}}{{- $worker = . -}}{{- else -}}{{- $others = append $others . -}}{{- end -}}
{{- end -}}
{{- $_ := set $worker "env" (include "drivetrain.over" (list $env $worker.env "name") | fromJsonArray) -}}
{{- with $mounts -}}
{{- $_ := set $worker "volumeMounts" (include "drivetrain.over" (list . $worker.volumeMounts "mountPath") | fromJsonArray) -}}
{{- end -}}
{{- $_ := set $spec "containers" (concat (list $worker) $others) -}}
{{- $_ := set $template "spec" $spec -}}
{{- end -}}
{{- toJson $template -}}
{{- end }}

{{/* A list and what comes over it, by a key: [base, over, key], as JSON. */}}
{{- define "drivetrain.over" -}}
{{- $key := index . 2 -}}
{{- $over := index . 1 | default list -}}
{{- $taken := dict -}}
{{- range $over -}}{{- $_ := set $taken (get . $key) true -}}{{- end -}}
{{- $kept := list -}}
{{- range index . 0 -}}{{- if not (hasKey $taken (get . $key)) -}}{{- $kept = append $kept . -}}{{- end -}}{{- end -}}
{{- concat $kept $over | toJson -}}
{{- end }}
