# Everything is installed into .venv from locks with hashes; a second run installs nothing.

MAKEFLAGS += --no-print-directory
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The newest Python that runs: a shim of a version that is not installed is found as well, but fails.
FIND_PYTHON = for name in $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3; do \
    $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done
EXTENSION := app/headrace/_speedups
# Also builds the extension beside its source. One of an older source would not fit the code, so it is removed first.
INSTALL = rm -f $(EXTENSION).*.so && $(PIP) install --quiet --no-deps --no-build-isolation --editable . && \
    { $(BIN)/python -c 'import headrace._speedups' 2>/dev/null || echo "$(NO_EXTENSION)" >&2; }
NO_EXTENSION := $(EXTENSION).c was not compiled, so an event takes half as much processor time again: \
    apt-get install -y gcc libc6-dev libpython3-dev, and touch $(EXTENSION).c.
# What a process has compiled is kept for the next one, also where the environment says otherwise: a service starts in
# two thirds of the time.
unexport PYTHONDONTWRITEBYTECODE
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
APP ?= shop.service:app
ARGS ?=
TARGET ?=
SEEDS ?= 200
EVENTS ?= 60000
FAULTS ?= 24
MINUTES ?= 30
BROKERS ?= 1

.PHONY: help run test simulate crash mutants chart-tools chart-test cluster-test lint format docs bench load lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## serve the example service on 127.0.0.1:8000 (another: APP=module:app)
	@exec $(BIN)/headrace run $(APP) $(ARGS)

test: $(VENV)/.development ## run every test on servers of its own (some: ARGS="-k name")
	@$(BIN)/python -m tests.support.kafka
	@$(BIN)/python -m tests.support.registry
	@$(BIN)/python -m pytest $(PARALLEL) -rs $(ARGS)

simulate: $(VENV)/.development ## run the engine through seeded faults in virtual time (SEEDS=1000; one: ARGS="--seed 7")
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

crash: SEEDS = 1
crash: $(VENV)/.development ## run workers on real servers through seeded faults (SEEDS=3 EVENTS=60000 FAULTS=24 MINUTES=30 BROKERS=3)
	@$(BIN)/python -m tests.support.kafka
	@$(BIN)/python -m tests.crash --seeds $(SEEDS) --events $(EVENTS) --faults $(FAULTS) --minutes $(MINUTES) \
	    --brokers $(BROKERS) $(ARGS)

mutants: $(VENV)/.development ## make likely mistakes one at a time, and see the simulation find each (ARGS="NAME"; crash machine: ARGS=--servers)
	@$(BIN)/python -m tests.mutants $(ARGS)

chart-tools: $(VENV)/.development ## install helm, kubeconform and promtool for the tests of the chart into build/tools
	@$(BIN)/python -m tests.charts.tools

chart-test: $(VENV)/.development chart-tools ## test the chart alone: values, objects, alerts, dashboards
	@$(BIN)/python -m pytest $(PARALLEL) -rs tests/charts $(ARGS)

cluster-test: $(VENV)/.development ## test the chart through rollouts and failures on the cluster that kubectl reaches
	@$(BIN)/python -m tests.cluster $(ARGS)

lint: $(VENV)/.development ## check style, layout and types
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy $(wildcard app tests bench) || status=1; \
	exit $$status

format: $(VENV)/.development ## lay the code out as lint wants it
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.runtime ## write the pages of docs/reference from the code
	@$(BIN)/python -m headrace.reference docs/reference shop.service:app

bench: $(VENV)/.development ## measure, beside a bare loop in the same run (in less than 90 s: ARGS=--quick)
	@$(BIN)/python -m tests.support.kafka
	@$(BIN)/python -m bench $(ARGS)

load: $(VENV)/.development ## load the example service, or a deployment of yours (TARGET=http://...), and prove it exact
	@if [ -n "$(TARGET)" ]; then exec $(BIN)/headrace load $(TARGET) $(ARGS); fi; \
	$(BIN)/python -m tests.support.kafka && exec $(BIN)/python -m bench.load $(ARGS)

lock: ## resolve the dependencies again and write both locks
	@python=$$($(FIND_PYTHON)); $${python:?needs Python 3.11 or newer} -m venv build/lock
	@build/lock/bin/python -m pip --disable-pip-version-check install --quiet uv
	@for name in requirements requirements-dev; do \
	    groups="--group build"; [ $$name = requirements ] || groups="$$groups --group dev"; \
	    build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $$groups pyproject.toml \
	        --output-file $$name.lock || exit 1; \
	done

clean: ## remove everything that was built, installed or stored (also .headrace, the embedded database)
	rm -rf $(VENV) .headrace build dist app/*.egg-info $(EXTENSION).*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find app tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
	    echo "Headrace needs Python 3.11 or newer: apt-get install -y python3 python3-venv (or name one: make PYTHON=...)." >&2; exit 1; \
	fi; \
	if ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python cannot make virtual environments: apt-get install -y python3-venv." >&2; exit 1; \
	fi; \
	echo "installing into $(VENV) with $$($$python --version) ..."; \
	$$python -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml $(EXTENSION).c | $(BIN)/python
	@$(PIP) install --quiet --require-hashes -r requirements.lock
	@$(INSTALL)
	@touch $@

$(VENV)/.development: requirements-dev.lock pyproject.toml $(EXTENSION).c | $(BIN)/python
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@$(INSTALL)
	@touch $@ $(VENV)/.runtime
