{{/* Names, labels, and the environment of the processes. */}}

{{- define "headrace.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "headrace.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "headrace.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "headrace.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of an object: the release's and a suffix; the release's is cut and hashed if both are too long. */}}
{{- define "headrace.objectName" -}}
{{- $base := include "headrace.fullname" .root -}}
{{- $whole := printf "%s-%s" $base .suffix -}}
{{- if gt (len $whole) 63 -}}
{{- $whole = printf "%s-%s-%s" ($base | trunc (int (sub 53 (len .suffix))) | trimSuffix "-") (sha256sum $base | trunc 8) .suffix -}}
{{- end -}}
{{- $whole -}}
{{- end -}}

{{/* What never changes for a component: selectors cannot. */}}
{{- define "headrace.selector" -}}
app.kubernetes.io/name: {{ include "headrace.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "headrace.labels" -}}
{{- with .root.Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* name, labels and annotations of an object; `annotations` adds to the common ones. */}}
{{- define "headrace.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "headrace.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "headrace.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "headrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "headrace.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* "true" if a switch is on; `auto` asks whether the cluster knows the kind. */}}
{{- define "headrace.isOn" -}}
{{- if or (eq (toString .switch) "true") (and (eq (toString .switch) "auto") (.root.Capabilities.APIVersions.Has .kind)) -}}
true
{{- end -}}
{{- end -}}

{{- define "headrace.podMonitorOn" -}}
{{- $on := include "headrace.isOn" (dict "root" . "switch" .Values.metrics.podMonitor.enabled "kind" "monitoring.coreos.com/v1/PodMonitor") -}}
{{- if and $on (not .Values.metrics.serviceMonitor.enabled) -}}
true
{{- end -}}
{{- end -}}

{{/* The groups of workers with all their values, as YAML: what a group says, over workerDefaults. */}}
{{- define "headrace.workers" -}}
{{- $groups := dict -}}
{{- if eq .Values.mode "split" -}}
{{- range $name, $group := (.Values.workers | default (dict "default" (dict))) -}}
{{- if not (kindIs "invalid" $group) -}}
{{- $_ := set $groups $name (mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy $group)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{/* "true" if KEDA chooses the number of a group's pods. */}}
{{- define "headrace.kedaOn" -}}
{{- include "headrace.isOn" (dict "root" .root "switch" .group.keda.enabled "kind" "keda.sh/v1alpha1/ScaledObject") -}}
{{- end -}}

{{/* The settings of every process, as a map of variables; secrets and what one role alone needs are in _pod.tpl. */}}
{{- define "headrace.environment" -}}
{{- $values := .Values -}}
{{- $env := dict "HEADRACE_MANAGEMENT_HOST" "0.0.0.0" "HEADRACE_MANAGEMENT_PORT" $values.management.port -}}
{{- if $values.embedded.enabled -}}
{{- $env = merge $env (dict "HEADRACE_LOG" "embedded" "HEADRACE_DATABASE" "embedded" "HEADRACE_DATA_DIR" "/data" "HEADRACE_DATABASE_MIGRATE_ON_START" true) -}}
{{- else -}}
{{- $env = merge $env (dict "HEADRACE_LOG" (printf "kafka://%s" (join "," $values.kafka.brokers)) "HEADRACE_DATABASE_MIGRATE_ON_START" false) -}}
{{- $_ := set $env "HEADRACE_KAFKA_SECURITY_PROTOCOL" $values.kafka.securityProtocol -}}
{{- $_ := set $env "HEADRACE_KAFKA_SESSION_TIMEOUT_SECONDS" $values.kafka.sessionTimeoutSeconds -}}
{{- $_ := set $env "HEADRACE_KAFKA_HEARTBEAT_SECONDS" $values.kafka.heartbeatSeconds -}}
{{- $_ := set $env "HEADRACE_KAFKA_MAX_POLL_SECONDS" $values.kafka.maxPollSeconds -}}
{{- with $values.kafka.clientRack -}}
{{- $_ := set $env "HEADRACE_KAFKA_CLIENT_RACK" . -}}
{{- end -}}
{{- if hasPrefix "SASL" $values.kafka.securityProtocol -}}
{{- $_ := set $env "HEADRACE_KAFKA_SASL_MECHANISM" $values.kafka.sasl.mechanism -}}
{{- $_ := set $env "HEADRACE_KAFKA_PASSWORD_FILE" "/etc/headrace/kafka/password" -}}
{{- end -}}
{{- with $values.kafka.tls -}}
{{- if .existingSecret -}}
{{- range $variable, $key := dict "CA" .caKey "CERT" .certKey "KEY" .keyKey -}}
{{- if $key -}}
{{- $_ := set $env (printf "HEADRACE_KAFKA_TLS_%s_FILE" $variable) (printf "/etc/headrace/kafka-tls/%s" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $values.apiKeys.allowUnauthenticated -}}
{{- $_ := set $env "HEADRACE_INGEST_ALLOW_UNAUTHENTICATED" true -}}
{{- end -}}
{{- if $values.otel.enabled -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" $values.otel.endpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_PROTOCOL" "http/protobuf" -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER" $values.otel.sampler -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER_ARG" $values.otel.samplerRatio -}}
{{- end -}}
{{- range $name, $value := mergeOverwrite $env (deepCopy $values.settings) }}
{{ $name }}: {{ include "headrace.text" $value | quote }}
{{- end -}}
{{- end -}}

{{/* A number without an exponent, anything else as it is. */}}
{{- define "headrace.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* How a process finds Postgres, as a list for `env`. */}}
{{- define "headrace.databaseEnv" -}}
{{- $database := .Values.database -}}
{{- if $database.host }}
- name: DATABASE_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $database.existingSecret | quote }}, key: {{ $database.usernameKey | quote }}}}
- name: HEADRACE_DATABASE
  value: {{ printf "postgresql://$(DATABASE_USERNAME)@%s:%v/%s?sslmode=%s" $database.host (int64 $database.port) $database.name $database.sslmode }}
  {{- if $database.tls.existingSecret }}&sslrootcert=/etc/headrace/database-tls/{{ $database.tls.caKey }}{{ end }}
- name: HEADRACE_DATABASE_PASSWORD_FILE
  value: /etc/headrace/database/password
{{- else }}
- name: HEADRACE_DATABASE
  valueFrom: {secretKeyRef: {name: {{ $database.existingSecret | quote }}, key: {{ $database.urlKey | quote }}}}
{{- end }}
{{- end -}}

{{- define "headrace.databaseVolumes" -}}
{{- $database := .Values.database -}}
{{- if $database.host }}
- name: database
  secret: {secretName: {{ $database.existingSecret | quote }}, items: [{key: {{ $database.passwordKey | quote }}, path: password}]}
{{- if $database.tls.existingSecret }}
- name: database-tls
  secret: {secretName: {{ $database.tls.existingSecret | quote }}, items: [{key: {{ $database.tls.caKey | quote }}, path: {{ $database.tls.caKey | quote }}}]}
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.databaseMounts" -}}
{{- if .Values.database.host }}
- {name: database, mountPath: /etc/headrace/database, readOnly: true}
{{- if .Values.database.tls.existingSecret }}
- {name: database-tls, mountPath: /etc/headrace/database-tls, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}

{{/* The `restricted` profile, for the pod and for its container. */}}
{{- define "headrace.podSecurityContext" -}}
runAsNonRoot: true
{{- range $name := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- /* null takes the key away, and `get` would make a 0 of it: root. */}}
{{- if hasKey $.Values.podSecurity $name }}
{{ $name }}: {{ int64 (get $.Values.podSecurity $name) }}
{{- end }}
{{- end }}
{{- if hasKey .Values.podSecurity "fsGroup" }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "headrace.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* How pods are replaced. Values are merged, so `rollingUpdate` is still there if only the type was changed. */}}
{{- define "headrace.strategy" -}}
{{- toYaml (ternary (dict "type" "Recreate") . (eq "Recreate" (default "" .type))) -}}
{{- end -}}
