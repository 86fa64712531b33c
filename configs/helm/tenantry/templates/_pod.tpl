{{- define "tenantry.pod" -}}
serviceAccountName: {{ include "tenantry.serviceAccountName" . }}
automountServiceAccountToken: false
# Variables of services, such as CT_PORT of a service named `ct`, would look like settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "tenantry.gracePeriod" . }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- $profile := .Values.seccompProfile }}
  {{- if ne $profile.type "Localhost" }}{{ $profile = omit $profile "localhostProfile" }}{{ end }}
  {{- mergeOverwrite (dict "seccompProfile" $profile) .Values.podSecurityContext | toYaml | nindent 2 }}
containers:
  - name: tenantry
    image: {{ include "tenantry.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      - --config
      - /etc/tenantry/tenantry.yml
      {{- with .Values.extraArgs }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with include "tenantry.env" . }}
    {{- . | trim | nindent 4 }}
    {{- end }}
    ports:
      - name: http
        containerPort: {{ include "tenantry.port" .Values.config.listen }}
        protocol: TCP
      - name: http-metrics
        containerPort: {{ include "tenantry.port" .Values.config.listen_metrics_address }}
        protocol: TCP
    {{- range $name := list "readinessProbe" "livenessProbe" }}
    {{- with index $.Values $name }}
    {{- if .enabled }}
    {{ $name }}:
      httpGet:
        path: /alive
        port: {{ include "tenantry.probePort" $ }}
        scheme: {{ include "tenantry.probeScheme" $ }}
      {{- omit . "enabled" | toYaml | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- end }}
    resources:
      {{- include "tenantry.resources" . | nindent 6 }}
    securityContext:
      {{- toYaml .Values.securityContext | nindent 6 }}
    volumeMounts:
      - name: config
        mountPath: /etc/tenantry
        readOnly: true
      {{- if .Values.tls.existingSecret }}
      - name: tls
        mountPath: /etc/tenantry-tls
        readOnly: true
      {{- end }}
      {{- range .Values.secretMounts }}
      - name: secret-{{ . }}
        mountPath: /secrets/{{ . }}
        readOnly: true
      {{- end }}
      {{- with .Values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "tenantry.fullname" . }}
  {{- with .Values.tls.existingSecret }}
  - name: tls
    secret:
      secretName: {{ . }}
  {{- end }}
  {{- range .Values.secretMounts }}
  - name: secret-{{ . }}
    secret:
      secretName: {{ . }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* Variables. A CPU limit is a share of time, and the process would start a thread for each CPU of the node. */}}
{{- define "tenantry.env" -}}
{{- $names := list }}
{{- range .Values.envs }}{{ $names = append $names .name }}{{ end }}
{{- $cpu := "" }}
{{- if dig "requests" "cpu" "" .Values.resources }}{{ $cpu = "requests.cpu" }}{{ end }}
{{- if dig "limits" "cpu" "" .Values.resources }}{{ $cpu = "limits.cpu" }}{{ end }}
{{- if or .Values.config.cores (has "CT_CORES" $names) }}{{ $cpu = "" }}{{ end }}
{{- if or $cpu .Values.envs }}
env:
  {{- if $cpu }}
  - name: CT_CORES
    valueFrom:
      resourceFieldRef:
        resource: {{ $cpu }}
  {{- end }}
  {{- range .Values.envs }}
  - name: {{ .name }}
    {{- if hasKey . "valueFrom" }}
    valueFrom:
      {{- toYaml .valueFrom | nindent 6 }}
    {{- else }}
    value: {{ ternary (.value | int64 | toString) (.value | toString) (kindIs "float64" .value) | quote }}
    {{- end }}
  {{- end }}
{{- end }}
{{- $secret := include "tenantry.authSecret" . }}
{{- if or $secret .Values.envsFrom }}
envFrom:
  {{- if $secret }}
  - secretRef:
      name: {{ $secret }}
  {{- end }}
  {{- with .Values.envsFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* The section ingress as the configuration file has it. */}}
{{- define "tenantry.ingress" -}}
{{- (include "tenantry.auth" . | fromYaml).ingress | default dict | toYaml }}
{{- end }}

{{- define "tenantry.pushScheme" -}}
{{- ternary "HTTPS" "HTTP" (ne "" (dig "tls_config" "cert_file" "" (include "tenantry.ingress" . | fromYaml))) }}
{{- end }}

{{- /* Whether /alive on the port of pushes is out of the kubelet's reach, or nobody knows whether it has TLS. */}}
{{- define "tenantry.probesMetrics" -}}
{{- $ingress := include "tenantry.ingress" . | fromYaml }}
{{- if or (eq "require" (dig "tls_config" "client_auth" "" $ingress)) (dig "web_config_file" "" $ingress) }}yes{{ end }}
{{- end }}

{{- define "tenantry.probePort" -}}
{{- .Values.probes.port | default (ternary "http-metrics" "http" (eq "yes" (include "tenantry.probesMetrics" .))) }}
{{- end }}

{{- define "tenantry.probeScheme" -}}
{{- $scheme := ternary "HTTP" (include "tenantry.pushScheme" .) (eq "http-metrics" (include "tenantry.probePort" .)) }}
{{- .Values.probes.scheme | default $scheme }}
{{- end }}

{{- /* A topology spread constraint, with the pods' labels if it has none. */}}
{{- define "tenantry.spread" -}}
{{- $selector := dict "matchLabels" (include "tenantry.selectorLabels" (index . 1) | fromYaml) }}
{{- $constraint := deepCopy (index . 0) }}
{{- if not $constraint.labelSelector }}{{ $_ := set $constraint "labelSelector" $selector }}{{ end }}
{{- toYaml $constraint }}
{{- end }}
