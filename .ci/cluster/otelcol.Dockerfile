# In place of otel/opentelemetry-collector-contrib: compiled from its Go modules, with the parts that k8s/ uses.
ARG BASE
FROM ${BASE}
COPY otelcol /usr/bin/
ENTRYPOINT ["otelcol"]
