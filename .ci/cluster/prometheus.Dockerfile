# In place of prom/prometheus: Debian's, with a discovery of pods.
ARG BASE
FROM ${BASE}
COPY prometheus prometheus-start /usr/bin/
RUN chmod 755 /usr/bin/prometheus-start
WORKDIR /data
ENTRYPOINT ["prometheus-start"]
