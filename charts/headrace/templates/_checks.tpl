{{/* Every rule that several values share, each with one sentence that says what to change. */}}
{{- define "headrace.checks" -}}
{{- $values := .Values -}}
{{- $groups := include "headrace.workers" . | fromYaml -}}

{{- if $values.embedded.enabled -}}
  {{- if ne $values.mode "all" -}}
    {{- fail "embedded.enabled keeps everything in one pod: set mode: all, or name kafka.brokers and disable embedded." -}}
  {{- end -}}
  {{- if $values.kafka.brokers -}}
    {{- fail "embedded.enabled and kafka.brokers are both set: choose where the events are kept." -}}
  {{- end -}}
  {{- if $values.ingest.autoscaling.enabled -}}
    {{- fail "embedded.enabled has exactly one pod: set ingest.autoscaling.enabled to false." -}}
  {{- end -}}
{{- else -}}
  {{- if not $values.kafka.brokers -}}
    {{- fail "kafka.brokers is empty: name host:port of a broker, or set embedded.enabled and mode: all to try things out." -}}
  {{- end -}}
  {{- if not $values.database.existingSecret -}}
    {{- fail "database.existingSecret is empty: name the Secret that holds the address, or user and password, of Postgres." -}}
  {{- end -}}
{{- end -}}

{{- if and (hasPrefix "SASL" $values.kafka.securityProtocol) (not (and $values.kafka.sasl.mechanism $values.kafka.sasl.existingSecret)) -}}
  {{- fail (printf "kafka.securityProtocol %s needs kafka.sasl.mechanism and kafka.sasl.existingSecret." $values.kafka.securityProtocol) -}}
{{- end -}}
{{- if and $values.kafka.tls.existingSecret (not (has $values.kafka.securityProtocol (list "SSL" "SASL_SSL"))) -}}
  {{- fail "kafka.tls.existingSecret is set, and kafka.securityProtocol uses no TLS: choose SSL or SASL_SSL." -}}
{{- end -}}
{{- if ne (not $values.kafka.tls.certKey) (not $values.kafka.tls.keyKey) -}}
  {{- fail "kafka.tls.certKey and kafka.tls.keyKey belong together: set both, or none." -}}
{{- end -}}
{{- if gt (mulf 3 $values.kafka.heartbeatSeconds) (float64 $values.kafka.sessionTimeoutSeconds) -}}
  {{- fail (printf "kafka.heartbeatSeconds (%v) must be at most a third of kafka.sessionTimeoutSeconds (%v)." $values.kafka.heartbeatSeconds $values.kafka.sessionTimeoutSeconds) -}}
{{- end -}}
{{- if and (hasPrefix "verify" $values.database.sslmode) (not $values.database.tls.existingSecret) -}}
  {{- fail (printf "database.sslmode %s needs database.tls.existingSecret with the authority's certificate." $values.database.sslmode) -}}
{{- end -}}
{{- if and $values.database.tls.existingSecret (not $values.database.host) -}}
  {{- fail "database.tls.existingSecret is used with database.host only: in a whole address, name sslrootcert yourself and mount the file with extraVolumes." -}}
{{- end -}}

{{- if and $values.ingest.enabled (not $values.apiKeys.existingSecret) (not $values.apiKeys.allowUnauthenticated) -}}
  {{- fail "apiKeys.existingSecret is empty: name the Secret with the API keys, or set apiKeys.allowUnauthenticated if something in front decides who comes in." -}}
{{- end -}}
{{- if and (eq $values.mode "all") (not $values.ingest.enabled) -}}
  {{- fail "mode: all runs in the pods of ingest: set ingest.enabled to true, or mode: split." -}}
{{- end -}}
{{- if and (eq $values.mode "all") $values.ingest.autoscaling.enabled -}}
  {{- fail "mode: all would be scaled on CPU, and each change stops the handlers for a moment: set mode: split, or ingest.autoscaling.enabled to false." -}}
{{- end -}}
{{- if and (eq $values.mode "all") (lt (int $values.ingest.pool.maxSize) 10) -}}
  {{- fail (printf "mode: all applies events with ingest.pool.maxSize (%v), which is too few: set it to the partitions that a pod works on, and two more, at least 10." $values.ingest.pool.maxSize) -}}
{{- end -}}
{{- if gt (int $values.ingest.autoscaling.minReplicas) (int $values.ingest.autoscaling.maxReplicas) -}}
  {{- fail "ingest.autoscaling.minReplicas is above ingest.autoscaling.maxReplicas." -}}
{{- end -}}
{{- if and (not $values.ingest.enabled) (or $values.ingress.enabled (include "headrace.isOn" (dict "root" . "switch" $values.httpRoute.enabled "kind" "gateway.networking.k8s.io/v1/HTTPRoute"))) -}}
  {{- fail "ingress and httpRoute lead to the pods of ingest: set ingest.enabled to true, or disable them." -}}
{{- end -}}
{{- if and $values.ingress.enabled (not $values.ingress.hosts) -}}
  {{- fail "ingress.hosts is empty: name the host that the Ingress serves." -}}
{{- end -}}
{{- if and (include "headrace.isOn" (dict "root" . "switch" $values.httpRoute.enabled "kind" "gateway.networking.k8s.io/v1/HTTPRoute")) (not $values.httpRoute.parentRefs) -}}
  {{- fail "httpRoute.parentRefs is empty: name the gateway." -}}
{{- end -}}

{{- $seen := dict -}}
{{- range $group, $own := $groups -}}
  {{- range $subscription := $own.subscriptions -}}
    {{- if and (eq $subscription "*") (or (gt (len $groups) 1) (gt (len $own.subscriptions) 1)) -}}
      {{- fail (printf "workers.%s.subscriptions has \"*\", which stands for every subscription: name its subscriptions, since it is not alone." $group) -}}
    {{- end -}}
    {{- with get $seen $subscription -}}
      {{- fail (printf "the subscription %s is in workers.%s and in workers.%s: leave it in one group." $subscription . $group) -}}
    {{- end -}}
    {{- $_ := set $seen $subscription $group -}}
  {{- end -}}
  {{- if include "headrace.kedaOn" (dict "root" $ "group" $own) -}}
    {{- $keda := $own.keda -}}
    {{- if not $keda.topics -}}
      {{- fail (printf "workers.%s.keda.topics is empty: name the topics whose lag is looked at." $group) -}}
    {{- end -}}
    {{- if gt (int $keda.minReplicas) (int $keda.maxReplicas) -}}
      {{- fail (printf "workers.%s.keda.minReplicas is above its maxReplicas." $group) -}}
    {{- end -}}
    {{- if and (eq (int $keda.minReplicas) 0) (not $keda.acknowledgeTimersStop) -}}
      {{- fail (printf "workers.%s.keda.minReplicas is 0, and without a pod no parked event is tried again: set acknowledgeTimersStop to true if that is wanted." $group) -}}
    {{- end -}}
    {{- if and (eq $keda.trigger "prometheus") (not $keda.prometheusAddress) -}}
      {{- fail (printf "workers.%s.keda.trigger prometheus needs keda.prometheusAddress." $group) -}}
    {{- end -}}
    {{- if and (eq $keda.trigger "prometheus") (eq (int $keda.minReplicas) 0) -}}
      {{- fail (printf "workers.%s.keda.trigger prometheus needs keda.minReplicas of at least 1, since without a pod nothing is measured." $group) -}}
    {{- end -}}
    {{- range $broker := ternary $values.kafka.brokers list (eq $keda.trigger "kafka") -}}
      {{- $host := regexReplaceAll ":[0-9]+$" $broker "" -}}
      {{- if not (regexMatch "[.:]" $host) -}}
        {{- fail (printf "workers.%s.keda: only pods of its own namespace find the broker %s, and KEDA asks from another one: write %s.NAMESPACE in kafka.brokers, and let the broker advertise that name." $group $broker $host) -}}
      {{- end -}}
    {{- end -}}
    {{- range $topic, $about := $keda.topics -}}
      {{- if and $about.partitions (gt (int $keda.maxReplicas) (int $about.partitions)) -}}
        {{- fail (printf "workers.%s.keda.maxReplicas (%v) is above the partitions of %s (%v): further pods would have nothing to do." $group $keda.maxReplicas $topic $about.partitions) -}}
      {{- end -}}
      {{- if has "*" (default $own.subscriptions $about.subscriptions) -}}
        {{- fail (printf "workers.%s.keda asks for the lag of a subscription: name it in workers.%s.subscriptions instead of \"*\"." $group $group) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}

{{- include "headrace.checkConnections" (dict "root" . "groups" $groups) -}}
{{- include "headrace.checkEnv" (dict "root" . "where" "extraEnv" "env" $values.extraEnv) -}}
{{- include "headrace.checkEnv" (dict "root" . "where" "ingest.extraEnv" "env" $values.ingest.extraEnv) -}}
{{- range $group, $own := $groups -}}
  {{- include "headrace.checkEnv" (dict "root" $ "where" (printf "workers.%s.extraEnv" $group) "env" $own.extraEnv) -}}
{{- end -}}

{{- if and $values.metrics.serviceMonitor.enabled (eq (toString $values.metrics.podMonitor.enabled) "true") -}}
  {{- fail "metrics.podMonitor and metrics.serviceMonitor are both enabled, and every sum would be doubled: choose one." -}}
{{- end -}}
{{- if and $values.otel.enabled (not $values.otel.endpoint) -}}
  {{- fail "otel.endpoint is empty: name the collector's HTTP address, such as http://collector:4318." -}}
{{- end -}}
{{- if $values.networkPolicy.enabled -}}
  {{- if and (not $values.embedded.enabled) (not (and $values.networkPolicy.egress.kafka $values.networkPolicy.egress.postgres)) -}}
    {{- fail "networkPolicy.enabled would cut the pods off: set networkPolicy.egress.kafka and networkPolicy.egress.postgres." -}}
  {{- end -}}
  {{- if and $values.otel.enabled (not $values.networkPolicy.egress.otlp) -}}
    {{- fail "networkPolicy.enabled would cut the pods off from the collector: set networkPolicy.egress.otlp, or otel.enabled to false." -}}
  {{- end -}}
{{- end -}}
{{- $alerts := list -}}
{{- range $path, $_ := .Files.Glob "alerts/*.yaml" -}}
  {{- $alerts = append $alerts (base $path | trimSuffix ".yaml") -}}
{{- end -}}
{{- range $name := concat $values.alerts.disabled (keys $values.alerts.overrides) -}}
  {{- if not (has $name $alerts) -}}
    {{- fail (printf "alerts.disabled or alerts.overrides names %s, and there is no such alert; the alerts are the files of alerts/." $name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* All pods together, also during a rollout, must fit into Postgres. */}}
{{- define "headrace.checkConnections" -}}
{{- $values := .root.Values -}}
{{- $parts := list -}}
{{- $sum := 0 -}}
{{- if not $values.embedded.enabled -}}
  {{- if $values.ingest.enabled -}}
    {{- $scaling := $values.ingest.autoscaling -}}
    {{- $pods := int (ternary $scaling.maxReplicas $values.ingest.replicas $scaling.enabled) -}}
    {{- $all := add $pods (include "headrace.surge" (dict "strategy" $values.ingest.strategy "pods" $pods)) -}}
    {{- $sum = add $sum (mul $all $values.ingest.pool.maxSize) -}}
    {{- $parts = append $parts (printf "ingest %v pods x %v" $all $values.ingest.pool.maxSize) -}}
  {{- end -}}
  {{- range $group, $own := .groups -}}
    {{- $pods := int (ternary $own.keda.maxReplicas $own.replicas (eq "true" (include "headrace.kedaOn" (dict "root" $.root "group" $own)))) -}}
    {{- $all := add $pods (include "headrace.surge" (dict "strategy" $own.strategy "pods" $pods)) -}}
    {{- $sum = add $sum (mul $all $own.pool.maxSize) -}}
    {{- $parts = append $parts (printf "workers.%s %v pods x %v" $group $all $own.pool.maxSize) -}}
  {{- end -}}
  {{- $sum = add $sum 2 $values.database.reservedConnections -}}
  {{- if gt (int $sum) (int $values.database.maxConnections) -}}
    {{- fail (printf "Postgres would need %v connections (%s, the migration 2, reserved %v), and database.maxConnections is %v: use fewer pods, smaller pool.maxSize, or a larger max_connections." $sum (join ", " $parts) $values.database.reservedConnections $values.database.maxConnections) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Pods that a rollout adds; a share is rounded up, as Kubernetes does. */}}
{{- define "headrace.surge" -}}
{{- $surge := 0 -}}
{{- if ne (default "RollingUpdate" .strategy.type) "Recreate" -}}
  {{- $given := toString (dig "rollingUpdate" "maxSurge" "25%" .strategy) -}}
  {{- if hasSuffix "%" $given -}}
    {{- $surge = ceil (divf (mulf .pods (trimSuffix "%" $given | float64)) 100.0) | int -}}
  {{- else -}}
    {{- $surge = int $given -}}
  {{- end -}}
{{- end -}}
{{- $surge -}}
{{- end -}}

{{/* Of two variables with one name the last wins in silence. */}}
{{- define "headrace.checkEnv" -}}
{{- $taken := list "HEADRACE_DATABASE" "HEADRACE_DATABASE_PASSWORD_FILE" "HEADRACE_DATABASE_POOL_SIZE" "HEADRACE_ENGINE_DRAIN_SECONDS" "HEADRACE_API_KEYS_FILE" "HEADRACE_ROLE" "HEADRACE_SUBSCRIPTIONS" "HEADRACE_KAFKA_USERNAME" "OTEL_RESOURCE_ATTRIBUTES" -}}
{{- $taken = concat $taken (keys (include "headrace.environment" .root | fromYaml)) -}}
{{- range .env -}}
  {{- if has .name $taken -}}
    {{- fail (printf "%s sets %s, which the chart sets: use the value that it comes from, or settings." $.where .name) -}}
  {{- end -}}
  {{- if hasPrefix "HEADRACE_" .name -}}
    {{- if not (hasKey . "valueFrom") -}}
      {{- fail (printf "%s sets %s: put it into settings, where its name and its value are checked." $.where .name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end -}}
