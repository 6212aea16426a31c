# The project's commands, for people and for CI alike. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTEST ?= $(BIN)/python -m pytest
# Hundreds of processes start in a run of the tests: without kept bytecode each compiles 500 modules first.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: docs help demo up down test test-long bench bench-parking bench-check bench-scale bench-redrive dlq-million simulate chaos lint env lock env-reference wheel clean fuzz sbom audit

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: env ## stage 20,000 flights through a broker and a worker, account for each, end
	@$(BIN)/python -m demo run

up: env ## the same, but leave broker and worker running
	@$(BIN)/python -m demo up

down: env ## end what `make up` left running
	@$(BIN)/python -m demo down

test: lint ## lint, types, import rules, and all tests but the long ones
	$(PYTEST) --numprocesses 3 --dist loadgroup

test-long: env ## the long versions of the tests; minutes to hours
	$(PYTEST) -m long --timeout 0

bench-redrive: env ## events a second that a redrive gives, and what it costs live events; seven minutes
	$(BIN)/python -m benchmarks.redrive

dlq-million: env ## a million dead letters: every question from a cold process, the index read anew; ten minutes
	$(BIN)/python -m benchmarks.dlq_million

simulate: env ## 10,000 seeds of the simulation, on two cores; SEED=7 runs that one again, LOG=info says what it does
	@if [ -n "$(SEED)" ]; then $(BIN)/python -m tests.simulation $(SEED) $(if $(LOG),--log $(LOG)); \
	else seq 0 250 9750 | xargs -P 2 -I FIRST $(BIN)/python -m tests.simulation FIRST 250; fi

bench: env ## what it costs beside what people would use instead; some 12 minutes of a quiet machine
	$(BIN)/python -m benchmarks run

bench-parking: env ## what parking costs, and what the other targets notice: a million events; some 10 minutes
	$(BIN)/python -m benchmarks.parking

bench-check: env ## a short benchmark, in CI: fails where a ratio is worse than the baseline by a quarter
	$(BIN)/python -m benchmarks check

bench-scale: env ## how the cost of an event grows with tenants, definitions, partitions, ...; half an hour
	$(BIN)/python -m benchmarks scale

chaos: env ## a long run under fire: 100,000 events, three brokers, every fault; CHAOS="--seed 7" replays one
	$(BIN)/python -m tests.chaos $(CHAOS)

lint: env ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

env: $(READY) ## the development environment, .venv, from the lock

$(READY): requirements/dev.lock requirements/data.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "making $(VENV) from requirements/ (once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@awk '/^[^ ]/ {ours = /^uv==/} ours' requirements/dev.lock > $(VENV)/uv.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@$(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.lock || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--require-hashes -r requirements/data.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-annotate

FUZZ ?= 20000
fuzz: env ## hostile input, at length: FUZZ examples for each reader, then a million malformed records
	HYPOTHESIS_FUZZ=$(FUZZ) $(PYTEST) tests/hostile -m 'long or not long' --timeout 0

sbom: env ## the worker's bill of materials, CycloneDX, from its lock, into dist/
	@mkdir -p dist
	$(BIN)/uv venv --quiet --clear build/sbom
	$(BIN)/uv pip install --quiet --python build/sbom --require-hashes -r requirements/sbom.lock
	PYTHONWARNINGS=ignore build/sbom/bin/cyclonedx-py requirements requirements/worker.lock --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/stagepost.cdx.json

audit: env ## ask OSV whether a locked dependency is known to be vulnerable; 1: one is, 2: it could not be asked
	$(BIN)/python -m devtools.audit requirements/worker.lock requirements/dev.lock requirements/sbom.lock

docs: env ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

lock: env ## resolve the locked versions anew
	$(COMPILE) --upgrade --all-extras pyproject.toml --output-file requirements/dev.lock
	echo "cyclonedx-bom>=7,<8" | $(COMPILE) --upgrade - --output-file requirements/sbom.lock
	$(COMPILE) --extra worker pyproject.toml --constraints requirements/dev.lock --output-file requirements/worker.lock

env-reference: env ## write .env.reference from the settings
	$(BIN)/python -m pipeline.settings > .env.reference

wheel: env ## build wheel and source archive into dist/
	$(BIN)/python -m build --no-isolation

clean: ## remove what was made here, but for the broker's jars
	rm -rf $(VENV) dist build site .mypy_cache .ruff_cache .hypothesis .pytest_cache
