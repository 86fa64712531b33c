{{- /* The seconds of a duration such as 1m30s. */}}
{{- define "tenantry.seconds" -}}
{{- $units := dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 "us" 0.000001 "µs" 0.000001 "ns" 0.000000001 }}
{{- $seconds := 0.0 }}
{{- range regexFindAll "[0-9.]+[a-zµ]+" (toString .) -1 }}
{{- $seconds = addf $seconds (mulf (regexFind "^[0-9.]+" . | float64) (get $units (regexFind "[a-zµ]+$" .))) }}
{{- end }}
{{- $seconds }}
{{- end }}

{{- /* A quantity such as 1Gi, 500m or 1e9 as a number. Sizes of the configuration file are quantities, too. */}}
{{- define "tenantry.quantity" -}}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 }}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" (toString .) | float64 }}
{{- mulf $number (get $units (regexFind "[A-Za-z]*$" (toString .))) }}
{{- end }}

{{- /* The bytes of a quantity, as an integer. */}}
{{- define "tenantry.bytes" -}}
{{- include "tenantry.quantity" . | float64 | int64 }}
{{- end }}

{{- /* How long stopping may take, in seconds: at worst timeout_shutdown + 7 × timeout + 5 s, with a spool 8 ×. */}}
{{- define "tenantry.gracePeriod" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- $timeout := include "tenantry.seconds" .Values.config.timeout | float64 | default 10.0 }}
{{- $shutdown := include "tenantry.seconds" .Values.config.timeout_shutdown | float64 }}
{{- ceil (addf $shutdown (mulf (ternary 8 7 .Values.spool.enabled) $timeout) 5 5) | int64 }}
{{- else }}
{{- .Values.terminationGracePeriodSeconds | int64 }}
{{- end }}
{{- end }}

{{- /* The bytes of one request of the largest size. The program demands that they fit. */}}
{{- define "tenantry.requestBytes" -}}
{{- $limits := .Values.config.limits | default dict }}
{{- $head := $limits.head_bytes_max | default "16Ki" }}
{{- $body := $limits.body_bytes_max | default "8Mi" }}
{{- $inflated := $limits.inflated_bytes_max | default "64Mi" }}
{{- add (include "tenantry.bytes" $head) (include "tenantry.bytes" $body) (include "tenantry.bytes" $inflated) }}
{{- end }}

{{- /* Half of the memory limit, or more, if one request of the largest size needs it: but at most 4/7. */}}
{{- define "tenantry.inFlightBytes" -}}
{{- $limit := (include "tenantry.resources" . | fromYaml).limits.memory }}
{{- $memory := include "tenantry.bytes" $limit | int64 }}
{{- $request := include "tenantry.requestBytes" . | int64 }}
{{- $needed := div (mul $request 7) 4 }}
{{- if lt $memory $needed }}
{{- $is := printf "resources.limits.memory is %v, but must be at least %dMi" $limit (add1 (div $needed 1048576)) }}
{{- $why := printf "one request of the largest size takes %d bytes and may take 4/7 of the memory" $request }}
{{- fail (printf "%s: %s (limits.head_bytes_max + body_bytes_max + inflated_bytes_max)" $is $why) }}
{{- end }}
{{- max (div $memory 2) $request }}
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

{{- /* The section spool: its folder is on the pod's volume. It may use four fifths of it, as a file system does not
    have all of its size for files. A tenant may use a fifth of that, as by default. */}}
{{- define "tenantry.spool" -}}
{{- $spool := deepCopy (.Values.config.spool | default dict) }}
{{- if .Values.spool.enabled }}
{{- $defaults := dict "dir" "/var/lib/tenantry/spool" "bytes_max" (include "tenantry.spoolBytes" . | int64) }}
{{- range $key, $value := $defaults }}
{{- if not (get $spool $key) }}{{ $_ := set $spool $key $value }}{{ end }}
{{- end }}
{{- if not $spool.tenant_bytes_max }}
{{- $_ := set $spool "tenant_bytes_max" (div (include "tenantry.bytes" $spool.bytes_max | int64) 5) }}
{{- end }}
{{- end }}
{{- toYaml $spool }}
{{- end }}

{{- define "tenantry.spoolBytes" -}}
{{- div (mul (include "tenantry.bytes" .Values.spool.size | int64) 4) 5 }}
{{- end }}

{{- /* The configuration file. */}}
{{- define "tenantry.config" -}}
{{- $config := omit (deepCopy .Values.config) "auth" }}
{{- with include "tenantry.auth" . | fromYaml }}
{{- $_ := set $config "auth" . }}
{{- end }}
{{- $limits := $config.limits | default dict }}
{{- $memory := dig "limits" "memory" "" (include "tenantry.resources" . | fromYaml) }}
{{- if and $memory (not $limits.in_flight_bytes_max) }}
{{- $_ := set $limits "in_flight_bytes_max" (include "tenantry.inFlightBytes" . | int64) }}
{{- end }}
{{- $_ := set $config "limits" $limits }}
{{- if not $limits }}{{ $config = omit $config "limits" }}{{ end }}
{{- with include "tenantry.spool" . | fromYaml }}
{{- $_ := set $config "spool" . }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{- /* All files in /etc/tenantry. */}}
{{- define "tenantry.files" -}}
{{- if hasKey .Values.files "tenantry.yml" }}
{{- fail "files: tenantry.yml is made of `config`" }}
{{- end }}
{{- set (deepCopy .Values.files) "tenantry.yml" (printf "%s\n" (include "tenantry.config" .)) | toYaml }}
{{- end }}
