{{- /* Values that contradict each other. */}}
{{- define "tenantry.check" -}}
{{- $variables := list }}
{{- range .Values.envs }}{{ $variables = append $variables .name }}{{ end }}
{{- if not (or .Values.config.target .Values.config.target_loki (has "CT_TARGET" $variables) .Values.envsFrom) }}
{{- fail "config.target is required: the URL of the upstream, such as http://mimir-distributor:8080/api/v1/push" }}
{{- end }}
{{- range list
  (list "service.targetPort" .Values.service.targetPort "config.listen" .Values.config.listen)
  (list "serviceMonitor.targetPort" .Values.serviceMonitor.targetPort
    "config.listen_metrics_address" .Values.config.listen_metrics_address) }}
{{- $port := include "tenantry.port" (index . 3) }}
{{- if and (index . 1) (ne (index . 1 | int64 | toString) $port) }}
{{- fail (printf "%s is %v, but %s is %s" (index . 0) (index . 1) (index . 2) (index . 3)) }}
{{- end }}
{{- end }}
{{- $service := .Values.service }}
{{- if and (eq $service.type "ClusterIP") (eq (int64 $service.port) (int64 $service.metricsPort)) }}
{{- fail (printf "service.port and service.metricsPort are both %d" (int64 $service.port)) }}
{{- end }}
{{- with .Values.config.auth }}
{{- if and .enabled (not .existingSecret) (not (and .username .password)) }}
{{- fail "config.auth.enabled needs existingSecret, or username and password" }}
{{- end }}
{{- end }}
{{- include "tenantry.checkResources" . }}
{{- end }}

{{- /* The API refuses requests beyond limits. */}}
{{- define "tenantry.checkResources" -}}
{{- $resources := include "tenantry.resources" . | fromYaml }}
{{- $limits := $resources.limits | default dict }}
{{- range $name, $request := $resources.requests | default dict }}
{{- $limit := get $limits $name | default "" }}
{{- if and $request $limit }}
{{- if gt (include "tenantry.quantity" $request | float64) (include "tenantry.quantity" $limit | float64) }}
{{- fail (printf "resources.requests.%s is %v, but resources.limits.%s is %v: set both" $name $request $name $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
