{{- /* The rules of configs/prometheus, of which files/ has copies. There they are about the job "tenantry"; here about
    this release alone: its job and its namespace, as a ServiceMonitor sets them. */}}
{{- define "tenantry.alerts" -}}
{{- $of := printf "namespace=%q, job=%q" .Release.Namespace (include "tenantry.metricsService" .) -}}
{{- range $file := list "files/recording.yml" "files/alerts.yml" }}
{{- range (fromYaml ($.Files.Get $file | replace `job="tenantry"` $of)).groups }}
{{- /* Outside of this profile, epoll is what is expected. */}}
{{- if or (ne .name "tenantry-io-uring") (eq $.Values.seccompProfile.type "Localhost") }}
- name: {{ include "tenantry.fullname" $ }}.{{ .name | trimPrefix "tenantry-" }}
  rules:
    {{- toYaml .rules | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
