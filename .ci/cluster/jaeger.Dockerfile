# In place of jaegertracing/jaeger: compiled from its Go module.
ARG BASE
FROM ${BASE}
COPY jaeger /usr/bin/
ENTRYPOINT ["jaeger"]
