{{/* Flags of drivetrain-operator (operator/drivetrain_operator/settings.py), as JSON. */}}
{{- define "drivetrain.arguments" -}}
{{- $image := include "drivetrain.image" . -}}
{{- /* Coordinators run the operator's own image. It brings the runtime into workers' images that were not made for us, too. */ -}}
{{- $all := list (printf "--image=%s" $image) (printf "--runtime-image=%s" $image) -}}
{{- range include "drivetrain.pullSecrets" . | fromJsonArray -}}
{{- $all = append $all (printf "--image-pull-secret=%s" .) -}}
{{- end -}}
{{- $all = append $all "--reports-service=drivetrain-reports" -}}
{{- with include "drivetrain.workerTemplate" . | fromJson -}}
{{- $all = append $all (printf "--worker-template=%s" (toJson .)) -}}
{{- end -}}
{{- with .Values.coordinatorTemplate -}}
{{- $all = append $all (printf "--coordinator-template=%s" (toJson .)) -}}
{{- end -}}
{{- if not .Values.jobDisruptionBudgets -}}
{{- $all = append $all "--no-disruption-budgets" -}}
{{- end -}}
{{- if not .Values.jobHistory -}}
{{- $all = append $all "--no-history" -}}
{{- end -}}
{{- if .Values.allowOwnNamespace -}}
{{- $all = append $all "--allow-own-namespace" -}}
{{- end -}}
{{- range .Values.networkPolicy.scrapers -}}
{{- $all = append $all (printf "--scraper=%s" (toJson .)) -}}
{{- end -}}
{{- if .Values.metrics.tls.secretName -}}
{{- $all = concat $all (list "--metrics-cert-file=/etc/drivetrain/metrics-tls/tls.crt" "--metrics-key-file=/etc/drivetrain/metrics-tls/tls.key") -}}
{{- end -}}
{{- if .Values.metrics.token.secretName -}}
{{- $all = append $all (printf "--metrics-token-file=/etc/drivetrain/metrics-token/%s" .Values.metrics.token.key) -}}
{{- end -}}
{{- $all = append $all (printf "--log-format=%s" .Values.log.format) -}}
{{- $all = append $all (printf "--log-level=%s" .Values.log.level) -}}
{{- $all = append $all (printf "--worker-log-format=%s" .Values.log.workers.format) -}}
{{- $all = append $all (printf "--worker-log-level=%s" .Values.log.workers.level) -}}
{{- with .Values.traces.endpoint -}}
{{- $all = append $all (printf "--trace-endpoint=%s" .) -}}
{{- end -}}
{{- if .Values.energy.settings -}}
{{- $all = append $all "--energy-settings=/etc/drivetrain/energy/energy.yaml" -}}
{{- $all = append $all "--power-limits=drivetrain-power-limits" -}}
{{- end -}}
{{- if .Values.nodeAgent.enabled -}}
{{- $all = append $all "--node-agents" -}}
{{- end -}}
{{- range .Values.watchNamespaces -}}
{{- $all = append $all (printf "--namespace=%s" .) -}}
{{- end -}}
{{- concat $all (.Values.extraArgs | default list) | toJson -}}
{{- end }}
