# In place of apache/kafka: takes the same KAFKA_... variables.
ARG BASE
FROM ${BASE}
COPY jars /opt/kafka/jars
COPY java-runtime /opt/java
COPY kafka-start /usr/local/bin/
RUN chmod 755 /usr/local/bin/kafka-start /opt/java/bin/* && chmod -R a+rX /opt && mkdir /opt/kafka/config && chmod 777 /opt/kafka/config
ENV PATH=/opt/java/bin:$PATH
ENTRYPOINT ["kafka-start"]
