{{- /* The pods' template, of the Deployment or the StatefulSet. */}}
{{- define "tenantry.template" -}}
metadata:
  labels:
    {{- include "tenantry.selectorLabels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Tenantry reads its configuration at its start. A change of it replaces the pods.
    checksum/config: {{ include "tenantry.files" . | sha256sum }}
    {{- if and .Values.config.auth.enabled (not .Values.config.auth.existingSecret) }}
    checksum/auth: {{ printf "%s:%s" .Values.config.auth.username .Values.config.auth.password | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "tenantry.pod" . | nindent 2 }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" }}
  {{- with index $.Values $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.podTopologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - {{ include "tenantry.spread" (list . $) | nindent 6 | trim }}
    {{- end }}
  {{- end }}
{{- end }}

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
  {{- $context := dict "seccompProfile" $profile }}
  {{- if and .Values.spool.enabled .Values.podSecurityContext.runAsGroup }}
  {{- /* Without it, the volume belongs to root. */}}
  {{- $group := dict "fsGroup" .Values.podSecurityContext.runAsGroup "fsGroupChangePolicy" "OnRootMismatch" }}
  {{- $context = merge $context $group }}
  {{- end }}
  {{- mergeOverwrite $context .Values.podSecurityContext | toYaml | nindent 2 }}
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
    {{- with .Values.readinessProbe }}
    {{- if .enabled }}
    readinessProbe:
      httpGet:
        path: /alive
        port: {{ include "tenantry.probePort" $ }}
        scheme: {{ include "tenantry.probeScheme" $ }}
      {{- omit . "enabled" | toYaml | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- with .Values.livenessProbe }}
    {{- if .enabled }}
    {{- if $.Values.spool.enabled }}
    # A start reads all that is in the spool. Until that is done, liveness is not asked: for at most 15 minutes.
    startupProbe:
      {{- include "tenantry.liveness" $ | nindent 6 }}
      periodSeconds: 2
      timeoutSeconds: {{ .timeoutSeconds }}
      failureThreshold: 450
    {{- end }}
    # At the port of metrics, which answers when the one of pushes accepts no more connections.
    livenessProbe:
      {{- include "tenantry.liveness" $ | nindent 6 }}
      {{- omit . "enabled" | toYaml | nindent 6 }}
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
      {{- if .Values.spool.enabled }}
      - name: spool
        mountPath: /var/lib/tenantry
      {{- end }}
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
{{- $resources := include "tenantry.resources" . | fromYaml }}
{{- $cpu := "" }}
{{- if dig "requests" "cpu" "" $resources }}{{ $cpu = "requests.cpu" }}{{ end }}
{{- if dig "limits" "cpu" "" $resources }}{{ $cpu = "limits.cpu" }}{{ end }}
{{- if or .Values.config.cores (has "CT_CORES" $names) }}{{ $cpu = "" }}{{ end }}
{{- $secret := include "tenantry.authSecret" . }}
{{- if or $cpu $secret .Values.envs }}
env:
  {{- if $cpu }}
  - name: CT_CORES
    valueFrom:
      resourceFieldRef:
        resource: {{ $cpu }}
  {{- end }}
  {{- if $secret }}
  # Each by itself: without one of these keys, the pod does not start.
  {{- range list "CT_AUTH_EGRESS_USERNAME" "CT_AUTH_EGRESS_PASSWORD" }}
  - name: {{ . }}
    valueFrom:
      secretKeyRef:
        name: {{ $secret }}
        key: {{ . }}
  {{- end }}
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
{{- with .Values.envsFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The section ingress as the configuration file has it. */}}
{{- define "tenantry.ingress" -}}
{{- (include "tenantry.auth" . | fromYaml).ingress | default dict | toYaml }}
{{- end }}

{{- define "tenantry.pushScheme" -}}
{{- ternary "HTTPS" "HTTP" (ne "" (dig "tls_config" "cert_file" "" (include "tenantry.ingress" . | fromYaml))) }}
{{- end }}

{{- /* Whether /alive on the port of pushes is out of the kubelet's reach, or a web configuration decides
    about its TLS. */}}
{{- define "tenantry.probesMetrics" -}}
{{- $ingress := include "tenantry.ingress" . | fromYaml }}
{{- if or (eq "require" (dig "tls_config" "client_auth" "" $ingress)) (dig "web_config_file" "" $ingress) }}yes{{ end }}
{{- end }}

{{- define "tenantry.probePort" -}}
{{- .Values.probes.port | default (ternary "http-metrics" "http" (eq "yes" (include "tenantry.probesMetrics" .))) }}
{{- end }}

{{- /* Whether a web configuration decides about the TLS of the metrics' port. */}}
{{- define "tenantry.adminFile" -}}
{{- ((include "tenantry.auth" . | fromYaml).admin | default dict).web_config_file | default "" }}
{{- end }}

{{- /* What the port of probePort speaks. */}}
{{- define "tenantry.probeScheme" -}}
{{- $scheme := ternary "HTTP" (include "tenantry.pushScheme" .) (eq "http-metrics" (include "tenantry.probePort" .)) }}
{{- .Values.probes.scheme | default $scheme }}
{{- end }}

{{- /* How liveness is asked. If it is unknown whether the port has TLS, that it accepts a connection is enough. */}}
{{- define "tenantry.liveness" -}}
{{- $is_known := and .Values.probes.scheme (eq "http-metrics" (include "tenantry.probePort" .)) }}
{{- if and (include "tenantry.adminFile" .) (not $is_known) -}}
tcpSocket:
  port: http-metrics
{{- else -}}
httpGet:
  path: /alive
  port: http-metrics
  scheme: {{ ternary .Values.probes.scheme "HTTP" (not (not $is_known)) }}
{{- end }}
{{- end }}

{{- /* A topology spread constraint, with the pods' labels if it has none. */}}
{{- define "tenantry.spread" -}}
{{- $selector := dict "matchLabels" (include "tenantry.selectorLabels" (index . 1) | fromYaml) }}
{{- $constraint := deepCopy (index . 0) }}
{{- if not $constraint.labelSelector }}{{ $_ := set $constraint "labelSelector" $selector }}{{ end }}
{{- toYaml $constraint }}
{{- end }}
