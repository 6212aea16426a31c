# The worker as docker-compose.yml runs it: the locked dependencies, then the project.
FROM python:3.12-slim
WORKDIR /app
COPY requirements/worker.lock requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/worker.lock
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY agents agents
COPY catalog catalog
RUN pip install --no-cache-dir --no-deps .
RUN useradd --create-home worker && mkdir /data && chown worker /data
USER worker
WORKDIR /data
CMD ["faust", "-A", "pipeline", "-L", "uvloop", "worker", "-l", "info"]
