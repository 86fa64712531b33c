{{- /* The seconds of a duration such as 1m30s. */}}
{{- define "tenantry.seconds" -}}
{{- $units := dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 "us" 0.000001 "µs" 0.000001 "ns" 0.000000001 }}
{{- $seconds := 0.0 }}
{{- range regexFindAll "[0-9.]+[a-zµ]+" (toString .) -1 }}
{{- $seconds = addf $seconds (mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[a-zµ]+$" .))) }}
{{- end }}
{{- $seconds }}
{{- end }}

{{- /* The bytes of a quantity such as 1Gi, as an integer. */}}
{{- define "tenantry.bytes" -}}
{{- if kindIs "string" . }}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[A-Za-z]*$" .)) | int64 }}
{{- else }}
{{- int64 . }}
{{- end }}
{{- end }}

{{- /* How long stopping may take, in seconds: at worst timeout_shutdown + 7 × timeout + 5 s. */}}
{{- define "tenantry.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- $timeout := include "tenantry.seconds" .Values.config.timeout | float64 | default 10.0 }}
{{- $shutdown := include "tenantry.seconds" .Values.config.timeout_shutdown | float64 }}
{{- ceil (addf $shutdown (mulf 7 $timeout) 5 5) | int64 }}
{{- else }}
{{- .Values.terminationGracePeriodSeconds | int64 }}
{{- end }}
{{- end }}

{{- /* Half of the memory limit, but at least 73Mi: one request of the largest size must fit. */}}
{{- define "tenantry.inFlightBytes" -}}
{{- $memory := include "tenantry.bytes" . | int64 }}
{{- if lt $memory 134217728 }}
{{- fail (printf "resources.limits.memory is %v: Tenantry needs at least 128Mi" .) }}
{{- end }}
{{- max (div $memory 2) 76546048 }}
{{- end }}

{{- /* The section auth: without the chart's own keys, and with the files of tls. */}}
{{- define "tenantry.auth" -}}
{{- $auth := omit (deepCopy (.Values.config.auth | default dict)) "enabled" "username" "password" "existingSecret" }}
{{- if .Values.tls.existingSecret }}
{{- $tls := dict "cert_file" "/etc/tenantry-tls/tls.crt" "key_file" "/etc/tenantry-tls/tls.key" }}
{{- if ne .Values.tls.clientAuth "none" }}
{{- $tls = merge $tls (dict "client_ca_file" "/etc/tenantry-tls/ca.crt" "client_auth" .Values.tls.clientAuth) }}
{{- end }}
{{- $auth = mergeOverwrite $auth (dict "ingress" (dict "tls_config" $tls)) }}
{{- end }}
{{- toYaml $auth }}
{{- end }}

{{- /* The configuration file. */}}
{{- define "tenantry.config" -}}
{{- $config := omit (deepCopy .Values.config) "auth" }}
{{- with include "tenantry.auth" . | fromYaml }}
{{- $_ := set $config "auth" . }}
{{- end }}
{{- $limits := $config.limits | default dict }}
{{- $memory := dig "limits" "memory" "" .Values.resources }}
{{- if and $memory (not $limits.in_flight_bytes_max) }}
{{- $_ := set $limits "in_flight_bytes_max" (include "tenantry.inFlightBytes" $memory | int64) }}
{{- end }}
{{- $_ := set $config "limits" $limits }}
{{- if not $limits }}{{ $config = omit $config "limits" }}{{ end }}
{{- toYaml $config }}
{{- end }}

{{- /* All files in /etc/tenantry. */}}
{{- define "tenantry.files" -}}
{{- if hasKey .Values.files "tenantry.yml" }}
{{- fail "files: tenantry.yml is made of `config`" }}
{{- end }}
{{- set (deepCopy .Values.files) "tenantry.yml" (printf "%s\n" (include "tenantry.config" .)) | toYaml }}
{{- end }}

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
{{- with .Values.config.auth }}
{{- if and .enabled (not .existingSecret) (not (and .username .password)) }}
{{- fail "config.auth.enabled needs existingSecret, or username and password" }}
{{- end }}
{{- end }}
{{- end }}
