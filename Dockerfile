# The worker: the locked dependencies, then the project, in an image that holds neither pip's cache nor a compiler.
# It runs as a user without rights, and with a read-only root where /data (tables, indexes) and /tmp can be written.
# A catalog of your own: COPY it, or mount it, and name it by STREAMING_CATALOG.
FROM python:3.12-slim AS build
COPY requirements/worker.lock /build/requirements/
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes -r /build/requirements/worker.lock
COPY pyproject.toml README.md LICENSE /build/
COPY pipeline /build/pipeline
COPY agents /build/agents
COPY catalog /build/catalog
RUN /venv/bin/pip install --no-cache-dir --no-deps /build

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin worker \
    && mkdir /data && chown 10001:10001 /data
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 STREAMING_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 6066
# SIGTERM lets work in hand end (STREAMING_DRAIN_TIMEOUT_S): give it 30 seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('STREAMING_WEB_PORT', '6066')}/health/live\", timeout=4)"]
CMD ["faust", "-A", "pipeline", "-L", "uvloop", "worker", "-l", "info"]
