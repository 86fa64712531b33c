{{- /* Values that contradict each other. */}}
{{- define "tenantry.check" -}}
{{- $variables := list }}
{{- range .Values.envs }}{{ $variables = append $variables .name }}{{ end }}
{{- if not (or .Values.config.target .Values.config.target_loki .Values.config.target_otlp_metrics .Values.config.target_otlp_logs .Values.config.target_otlp_traces (has "CT_TARGET" $variables) .Values.envsFrom) }}
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
{{- if and (ne .Values.tls.clientAuth "none") (not .Values.tls.existingSecret) }}
{{- fail (printf "tls.clientAuth is %s, but needs tls.existingSecret, a secret with a ca.crt" .Values.tls.clientAuth) }}
{{- end }}
{{- $port := include "tenantry.probePort" . }}
{{- if and (eq $port "http-metrics") (include "tenantry.adminFile" .) (not .Values.probes.scheme) }}
{{- $why := "the probes ask at the port of metrics, and config.auth.admin.web_config_file decides about its TLS" }}
{{- fail (printf "probes.scheme is required, HTTP or HTTPS: %s" $why) }}
{{- end }}
{{- range $key := keys (include "tenantry.selectorLabels" . | fromYaml) }}
{{- if hasKey ($.Values.podLabels | default dict) $key }}
{{- fail (printf "podLabels: %s is the chart's own, and the workload selects its pods by it" $key) }}
{{- end }}
{{- end }}
{{- include "tenantry.checkSecrets" . }}
{{- include "tenantry.checkVariables" . }}
{{- include "tenantry.checkResources" . }}
{{- include "tenantry.checkScaling" . }}
{{- include "tenantry.checkSpool" . }}
{{- end }}

{{- /* What is secret must not be in the ConfigMap. */}}
{{- define "tenantry.checkSecrets" -}}
{{- $egress := (.Values.config.auth | default dict).egress | default dict }}
{{- range $key := list "password" "bearer_token" }}
{{- if get $egress $key }}
{{- $how := printf "use secretMounts with config.auth.egress.%s_file, or envs with a valueFrom" $key }}
{{- fail (printf "config.auth.egress.%s would be in the ConfigMap: %s" $key $how) }}
{{- end }}
{{- end }}
{{- if (.Values.config.upstream | default dict).headers }}
{{- fail "config.upstream.headers would be in the ConfigMap, and may be secret: use envs with CT_UPSTREAM_HEADERS" }}
{{- end }}
{{- end }}

{{- /* Variables win over the configuration file. The chart computes other things from these settings. */}}
{{- define "tenantry.checkVariables" -}}
{{- $keys := dict
  "CT_LISTEN" "listen"
  "CT_LISTEN_METRICS_ADDRESS" "listen_metrics_address"
  "CT_LISTEN_PPROF" "listen_pprof"
  "CT_TIMEOUT" "timeout"
  "CT_TIMEOUT_SHUTDOWN" "timeout_shutdown"
  "CT_TLS_CERT_FILE" "auth.ingress.tls_config.cert_file"
  "CT_TLS_KEY_FILE" "auth.ingress.tls_config.key_file"
  "CT_AUTH_INGRESS_TLS_CONFIG_CLIENT_AUTH" "auth.ingress.tls_config.client_auth"
  "CT_AUTH_INGRESS_WEB_CONFIG_FILE" "auth.ingress.web_config_file"
  "CT_AUTH_ADMIN_WEB_CONFIG_FILE" "auth.admin.web_config_file"
  "CT_LIMITS_HEAD_BYTES_MAX" "limits.head_bytes_max"
  "CT_LIMITS_BODY_BYTES_MAX" "limits.body_bytes_max"
  "CT_LIMITS_INFLATED_BYTES_MAX" "limits.inflated_bytes_max"
  "CT_LIMITS_IN_FLIGHT_BYTES_MAX" "limits.in_flight_bytes_max"
  "CT_SPOOL_DIR" "spool.dir"
  "CT_SPOOL_BYTES_MAX" "spool.bytes_max"
  "CT_SPOOL_TENANT_BYTES_MAX" "spool.tenant_bytes_max" }}
{{- if include "tenantry.authSecret" . }}
{{- $keys = merge $keys (dict "CT_AUTH_EGRESS_USERNAME" "auth.username" "CT_AUTH_EGRESS_PASSWORD" "auth.password") }}
{{- end }}
{{- range .Values.envs }}
{{- with get $keys .name }}
{{- fail (printf "envs: set config.%s: the chart would not see a variable" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* An autoscaler that could not work. */}}
{{- define "tenantry.checkScaling" -}}
{{- $resources := include "tenantry.resources" . | fromYaml }}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int64 .minReplica) (int64 .maxReplica) }}
{{- fail (printf "autoscaling.minReplica is %d, but maxReplica is %d" (int64 .minReplica) (int64 .maxReplica)) }}
{{- end }}
{{- range $name, $percent := dict
  "cpu" .targetCPUUtilizationPercentage "memory" .targetMemoryUtilizationPercentage }}
{{- /* Without a request, the API takes the limit. */}}
{{- if and $percent (not (dig "requests" $name "" $resources)) (not (dig "limits" $name "" $resources)) }}
{{- fail (printf "autoscaling by %s needs resources.requests.%s: the target is a share of it" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A spool that a pod would leave behind, or could not have. */}}
{{- define "tenantry.checkSpool" -}}
{{- $spool := .Values.config.spool | default dict }}
{{- if .Values.spool.enabled }}
{{- if .Values.autoscaling.enabled }}
{{- fail "spool.enabled and autoscaling.enabled: what a pod has in its spool would stay behind, unsent" }}
{{- end }}
{{- if (.Values.config.tenant | default dict).accept_all }}
{{- fail "spool.enabled and config.tenant.accept_all: the spool does not work with it" }}
{{- end }}
{{- if and $spool.dir (not (hasPrefix "/var/lib/tenantry/" $spool.dir)) }}
{{- fail (printf "config.spool.dir is %s, but must be a folder in the volume at /var/lib/tenantry" $spool.dir) }}
{{- end }}
{{- $bytes := include "tenantry.spoolBytes" . | int64 }}
{{- if and (not $spool.bytes_max) (lt $bytes 67108864) }}
{{- fail (printf "spool.size is %v, but must be at least 80Mi" .Values.spool.size) }}
{{- end }}
{{- if and $spool.bytes_max (gt (include "tenantry.quantity" $spool.bytes_max | float64)
  (include "tenantry.quantity" .Values.spool.size | float64)) }}
{{- fail (printf "config.spool.bytes_max is %v, but spool.size is %v" $spool.bytes_max .Values.spool.size) }}
{{- end }}
{{- else if $spool.dir }}
{{- fail "config.spool.dir needs spool.enabled, which gives each pod a volume of its own" }}
{{- end }}
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
