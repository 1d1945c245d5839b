{{/*
The pod of every role. Takes root, component, name, role (all, ingest, worker), subscriptions (a list, of workers) and
own (the values of the role or of the group of workers).
*/}}
{{- define "headrace.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $own := .own -}}
{{- $serves := ne .role "worker" -}}
metadata:
  labels:
    {{- include "headrace.labels" . | nindent 4 }}
    {{- with merge (dict) $own.podLabels $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "headrace.environment" $root | sha256sum }}
    {{- with merge (dict) $own.podAnnotations $values.podAnnotations $values.commonAnnotations }}
    {{- tpl (toYaml .) $root | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "headrace.serviceAccountName" $root }}
  automountServiceAccountToken: {{ $values.serviceAccount.automount }}
  enableServiceLinks: false
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with default $values.priorityClassName $own.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- /* The drain, then at most 30 s for the other steps of a stop, and 5 s to spare. */}}
  terminationGracePeriodSeconds: {{ add (ternary $own.preStopSeconds 0 $serves) $own.drainSeconds 35 }}
  securityContext:
    {{- include "headrace.podSecurityContext" $root | nindent 4 }}
  {{- with concat $values.initContainers $own.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: headrace
      image: {{ include "headrace.image" $root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: {{ toJson $values.app.command }}
      args: {{ toJson (concat (list "run" $values.app.module "--role" .role) (ternary (list "--host" "0.0.0.0") (list) $serves)) }}
      envFrom:
        - configMapRef: {name: {{ include "headrace.fullname" $root }}}
        {{- with concat $values.extraEnvFrom $own.extraEnvFrom }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        {{- include "headrace.podEnv" . | trim | nindent 8 }}
        {{- with concat $values.extraEnv $own.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- if $serves }}
        - {name: http, containerPort: 8000}
        {{- end }}
        - {name: management, containerPort: {{ $values.management.port }}}
      {{- range $kind, $path := dict "startup" "/health/live?startup" "liveness" "/health/live" "readiness" "/health/ready" }}
      {{ $kind }}Probe:
        httpGet: {path: {{ $path | quote }}, port: management}
        {{- toYaml (get $values.probes $kind) | nindent 8 }}
      {{- end }}
      {{- if and $serves (gt (int $own.preStopSeconds) 0) }}
      lifecycle:
        preStop:
          exec: {command: [sleep, {{ $own.preStopSeconds | toString | quote }}]}
      {{- end }}
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      securityContext:
        {{- include "headrace.containerSecurityContext" $root | nindent 8 }}
      volumeMounts:
        {{- include "headrace.podMounts" . | trim | nindent 8 }}
        {{- with concat $values.extraVolumeMounts $own.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with concat $values.sidecars $own.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "headrace.podVolumes" . | trim | nindent 4 }}
    {{- with concat $values.extraVolumes $own.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if $own.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      matchLabelKeys: [pod-template-hash]
      labelSelector:
        matchLabels:
          {{- include "headrace.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with merge (dict) $own.nodeSelector $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with concat $values.tolerations $own.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with default $values.affinity $own.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* What is secret, and what one role alone needs. */}}
{{- define "headrace.podEnv" -}}
{{- $values := .root.Values -}}
{{- $own := dict "HEADRACE_ENGINE_DRAIN_SECONDS" .own.drainSeconds "HEADRACE_DATABASE_POOL_SIZE" .own.pool.maxSize -}}
{{- if eq .role "worker" -}}
{{- $_ := set $own "HEADRACE_SUBSCRIPTIONS" (join "," .subscriptions) -}}
{{- end -}}
{{- if include "headrace.apiKeys" . -}}
{{- $_ := set $own "HEADRACE_API_KEYS_FILE" (printf "/etc/headrace/api-keys/%s" $values.apiKeys.key) -}}
{{- end -}}
{{- range $name, $value := mergeOverwrite $own (deepCopy .own.settings) }}
- {name: {{ $name }}, value: {{ include "headrace.text" $value | quote }}}
{{- end }}
{{- if not $values.embedded.enabled }}
{{- include "headrace.databaseEnv" .root }}
{{- if hasPrefix "SASL" $values.kafka.securityProtocol }}
- name: HEADRACE_KAFKA_USERNAME
  valueFrom: {secretKeyRef: {name: {{ $values.kafka.sasl.existingSecret | quote }}, key: {{ $values.kafka.sasl.usernameKey | quote }}}}
{{- end }}
{{- end }}
{{- if $values.otel.enabled }}
{{- range $name, $path := dict "POD_NAME" "metadata.name" "POD_NAMESPACE" "metadata.namespace" "POD_UID" "metadata.uid" "NODE_NAME" "spec.nodeName" }}
- {name: {{ $name }}, valueFrom: {fieldRef: {fieldPath: {{ $path }}}}}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.uid=$(POD_UID),k8s.node.name=$(NODE_NAME)
  {{- range $name, $value := $values.otel.resourceAttributes }},{{ $name }}={{ $value }}{{ end }}
{{- with $values.otel.headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: headers}}
{{- end }}
{{- end }}
{{- end -}}

{{/* The Secret of the API keys, for pods that serve HTTP. */}}
{{- define "headrace.apiKeys" -}}
{{- if ne .role "worker" -}}
{{- .root.Values.apiKeys.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "headrace.podVolumes" -}}
{{- $values := .root.Values }}
- {name: tmp, emptyDir: {}}
{{- with include "headrace.apiKeys" . }}
- name: api-keys
  secret: {secretName: {{ . | quote }}, items: [{key: {{ $values.apiKeys.key | quote }}, path: {{ $values.apiKeys.key | quote }}}]}
{{- end }}
{{- if $values.embedded.enabled }}
{{- $claim := $values.embedded.persistence.existingClaim }}
{{- if eq $claim "none" }}
- {name: data, emptyDir: {}}
{{- else }}
- {name: data, persistentVolumeClaim: {claimName: {{ default (include "headrace.fullname" .root) $claim }}}}
{{- end }}
{{- else }}
{{- include "headrace.databaseVolumes" .root }}
{{- if hasPrefix "SASL" $values.kafka.securityProtocol }}
- name: kafka
  secret: {secretName: {{ $values.kafka.sasl.existingSecret | quote }}, items: [{key: {{ $values.kafka.sasl.passwordKey | quote }}, path: password}]}
{{- end }}
{{- with $values.kafka.tls.existingSecret }}
- {name: kafka-tls, secret: {secretName: {{ . | quote }}}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "headrace.podMounts" -}}
{{- $values := .root.Values }}
- {name: tmp, mountPath: /tmp}
{{- if include "headrace.apiKeys" . }}
- {name: api-keys, mountPath: /etc/headrace/api-keys, readOnly: true}
{{- end }}
{{- if $values.embedded.enabled }}
- {name: data, mountPath: /data}
{{- else }}
{{- include "headrace.databaseMounts" .root }}
{{- if hasPrefix "SASL" $values.kafka.securityProtocol }}
- {name: kafka, mountPath: /etc/headrace/kafka, readOnly: true}
{{- end }}
{{- if $values.kafka.tls.existingSecret }}
- {name: kafka-tls, mountPath: /etc/headrace/kafka-tls, readOnly: true}
{{- end }}
{{- end }}
{{- end -}}
