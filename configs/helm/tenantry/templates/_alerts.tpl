{{- /* The alerts of this chart. Each expression is about this release alone: its job and its namespace, as a
    ServiceMonitor sets them. */}}
{{- define "tenantry.alerts" -}}
{{- $of := printf "namespace=%q, job=%q" .Release.Namespace (include "tenantry.metricsService" .) -}}
- alert: TenantryDown
  expr: up{ {{- $of -}} } == 0 or absent(up{ {{- $of -}} })
  for: 5m
  labels: {severity: critical}
  annotations:
    summary: >-
      {{ `{{ with $labels.pod }}Tenantry's pod {{ . }} cannot be{{ else }}No pod of Tenantry is{{ end }} scraped.` }}
- alert: TenantryUpstreamFails
  expr: |-
    sum by (namespace, job) (
      rate(tenantry_upstream_outcomes_total{ {{- $of }}, outcome=~"5xx|unreachable|timeout|expired"}[5m])
    ) / sum by (namespace, job) (
      rate(tenantry_upstream_outcomes_total{ {{- $of -}} }[5m])
    ) > 0.05
  for: 10m
  labels: {severity: critical}
  annotations:
    summary: "{{ `{{ $value | humanizePercentage }}` }} of Tenantry's upstream requests fail. Senders retry them."
    description: "`sum by (outcome) (rate(tenantry_upstream_outcomes_total[5m]))` says how."
- alert: TenantryUpstreamRefuses
  expr: |-
    sum by (namespace, job) (
      rate(tenantry_upstream_outcomes_total{ {{- $of }}, outcome="4xx"}[5m])
    ) / sum by (namespace, job) (
      rate(tenantry_upstream_outcomes_total{ {{- $of -}} }[5m])
    ) > 0.05
  for: 10m
  labels: {severity: critical}
  annotations:
    summary: "The upstream refuses {{ `{{ $value | humanizePercentage }}` }} of Tenantry's requests."
    description: "It answers 4xx, but not 429, or a redirect. Senders drop such data. log_response_errors logs the answers."
- alert: TenantryUpstreamAddressRests
  expr: sum by (namespace, job, pod) (tenantry_upstream_addresses_in_backoff{ {{- $of -}} }) > 0
  for: 15m
  labels: {severity: warning}
  annotations:
    summary: An upstream address has failed for 15 minutes, and Tenantry passes it over. The log names it.
- alert: TenantryOverloaded
  expr: |-
    sum by (namespace, job, reason) (
      rate(tenantry_rejections_total{ {{- $of }}, reason=~"concurrency|memory|fragments|password_checks"}[5m])
    ) > 0
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: Tenantry answers 503 for lack of room ({{ `{{ $labels.reason }}` }}). Senders retry.
    description: Raise the limit that the answer names, add replicas, or find out what is slow upstream.
- alert: TenantryRefusesTenants
  expr: |-
    sum by (namespace, job, reason) (
      rate(tenantry_rejections_total{ {{- $of }}, reason=~"missing_tenant|invalid_tenant|denied_tenant"}[5m])
    ) > 0
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: Tenantry refuses requests for their tenants ({{ `{{ $labels.reason }}` }}), and Prometheus drops them.
    description: The answer names a series, and Prometheus logs it.
- alert: TenantryDropsSeries
  expr: |-
    sum by (namespace, job, reason) (
      rate(tenantry_series_dropped_total{ {{- $of }}, reason!="mapped"}[5m])
    ) > 0
  for: 10m
  labels: {severity: warning}
  annotations:
    summary: Tenantry leaves out series for their tenants ({{ `{{ $labels.reason }}` }}), as it is told to.
- alert: TenantryTenantOverShare
  expr: sum by (namespace, job) (rate(tenantry_over_share_total{ {{- $of -}} }[5m])) > 0
  for: 15m
  labels: {severity: info}
  annotations:
    summary: A tenant gets 503 because it uses up its share (limits.tenant_share_percent).
- alert: TenantryConfigRefused
  expr: tenantry_config_last_reload_successful{ {{- $of -}} } == 0
  for: 5m
  labels: {severity: warning}
  annotations:
    summary: Tenantry's pod {{ `{{ $labels.pod }}` }} was told to reload and has found mistakes.
- alert: TenantryFilesRefused
  expr: |-
    sum by (namespace, job) (increase(tenantry_tls_reloads_total{ {{- $of }}, result="refused"}[1h])) > 0
    or sum by (namespace, job) (increase(tenantry_secret_reloads_total{ {{- $of }}, result="refused"}[1h])) > 0
  labels: {severity: warning}
  annotations:
    summary: A certificate or secret has changed and has mistakes. The old one stays in use.
- alert: TenantryCertificateExpires
  expr: min by (namespace, job, direction) (tenantry_tls_certificate_days_left{ {{- $of -}} }) < 7
  for: 1h
  labels: {severity: warning}
  annotations:
    summary: Tenantry's certificate ({{ `{{ $labels.direction }}` }}) expires in {{ `{{ $value | humanize }}` }} days.
{{- if eq .Values.seccompProfile.type "Localhost" }}
- alert: TenantryWithoutIoUring
  expr: tenantry_build_info{ {{- $of }}, driver="epoll"} == 1
  for: 15m
  labels: {severity: info}
  annotations:
    summary: Tenantry's pod {{ `{{ $labels.pod }}` }} runs on epoll, though its seccomp profile should allow io_uring.
{{- end }}
{{- end }}
