{{/*
A PodDisruptionBudget; nothing if there can be fewer than two pods, since it would block `kubectl drain` for ever.
Takes root, component, name, own and fewest.
*/}}
{{- define "headrace.pdb" -}}
{{- if and .own.pdb.enabled (ge (int .fewest) 2) -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "headrace.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .own.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "headrace.selector" . | nindent 6 }}
{{- end -}}
{{- end -}}
