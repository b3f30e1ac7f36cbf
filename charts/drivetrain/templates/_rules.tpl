{{/* All lists are operator/drivetrain_operator/rbac.py, rule by rule; tests/unit/chart holds them to it. */}}
{{- define "drivetrain.rules.jobs" -}}
- apiGroups: [drivetrain.dev]
  resources: [trainingjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [drivetrain.dev]
  resources: [trainingjobs/status]
  verbs: [patch]
# To own its children where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [drivetrain.dev]
  resources: [trainingjobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
# Credentials of a job: created, never read.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
# Each job's own copy of its script, and its history, which is patched once a minute.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "drivetrain.rules.own" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [drivetrain-operator]
  verbs: [get, patch]
# The root of trust, made once.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [drivetrain-root]
  verbs: [get]
# The reports Service, and its EndpointSlice, which points at the leader.
- apiGroups: [""]
  resources: [services]
  resourceNames: [drivetrain-reports]
  verbs: [get]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [create]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  resourceNames: [drivetrain-reports]
  verbs: [get, patch]
{{- end }}

{{- /* The ConfigMaps by which operator and node agents talk, a JSON list: as many as drivetrain_api.power has. */}}
{{- define "drivetrain.power.names" -}}
{{- $what := . -}}
{{- $names := list -}}
{{- range until 16 -}}
{{- $names = append $names (printf "drivetrain-power-%s-%d" $what .) -}}
{{- end -}}
{{- toJson $names -}}
{{- end }}

{{- define "drivetrain.rules.power" -}}
# What node agents say of their nodes, and what they are told.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: {{ include "drivetrain.power.names" "reports" }}
  verbs: [get, patch]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: {{ include "drivetrain.power.names" "caps" }}
  verbs: [get, patch]
{{- end }}

{{- define "drivetrain.rules.places" -}}
# Where workers are steered to nodes.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end }}
