{{- define "tenantry.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tenantry.fullname" -}}
{{- $name := include "tenantry.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "tenantry.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tenantry.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "tenantry.labels" -}}
{{ include "tenantry.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "tenantry.serviceAccountName" -}}
{{- $default := ternary (include "tenantry.fullname" .) "default" .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default $default }}
{{- end }}

{{- define "tenantry.image" -}}
{{- with .Values.image }}
{{- $version := ternary (printf "@%s" .digest) (printf ":%s" (.tag | default $.Chart.AppVersion)) (not (not .digest)) }}
{{- .repository }}{{ $version }}
{{- end }}
{{- end }}

{{- /* The port of an address such as 0.0.0.0:8080. */}}
{{- define "tenantry.port" -}}
{{- regexFind "[0-9]+$" . | required (printf "the address %q has no port" .) }}
{{- end }}

{{- /* The secret whose keys become variables, if any. */}}
{{- define "tenantry.authSecret" -}}
{{- with .Values.config.auth }}
{{- if .enabled }}{{ .existingSecret | default (printf "%s-auth" (include "tenantry.fullname" $)) }}{{ end }}
{{- end }}
{{- end }}

{{- /* The container's resources. Null removes a quantity, and the default memory limit gives way to
    a larger request. */}}
{{- define "tenantry.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- range $section := list "requests" "limits" }}
{{- range $name, $quantity := get $resources $section | default dict }}
{{- if kindIs "invalid" $quantity }}{{ $_ := unset (get $resources $section) $name }}{{ end }}
{{- end }}
{{- end }}
{{- $request := dig "requests" "memory" "" $resources }}
{{- if and $request (eq "1Gi" (dig "limits" "memory" "" $resources | toString)) }}
{{- if gt (include "tenantry.bytes" $request | int64) 1073741824 }}
{{- $_ := set $resources.limits "memory" $request }}
{{- end }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- /* The Service with the metrics. They stay in the cluster, so it is one of its own unless both are ClusterIP. */}}
{{- define "tenantry.metricsService" -}}
{{- $name := include "tenantry.fullname" . }}
{{- ternary $name (printf "%s-metrics" (trunc 55 $name | trimSuffix "-")) (eq .Values.service.type "ClusterIP") }}
{{- end }}
