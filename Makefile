# A name on PATH may be a shim with nothing behind it, so the first Python that really runs.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for name in python3.12 python3.13 python3.11 python3 python; do \
	$$name -c "$(SUPPORTED)" >/dev/null 2>&1 && echo $$name && break; done)

RUN := .venv/bin/
POETRY_VERSION := 2.5.1
POETRY ?= .poetry/bin/poetry
# Poetry does not read pip's settings by itself; the mirror plugin lets it ask the same registry.
REGISTRY = $(shell $(RUN)python -c "from pip._internal.commands import create_command; \
	print(create_command('install').parser.get_default_values().index_url)")
# Poetry would install into an activated environment instead of .venv.
unexport VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV

.DEFAULT_GOAL := help
.PHONY: help install test lint locks demo loop-demo bench bench-alerts bench-batch bench-drift bench-gate \
	bench-pipeline bench-search bench-monitors bench-serving bench-deploy bench-stages clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

install: .venv/.installed ## Create .venv and install what poetry.lock names

# Threads of libraries are slow where tests run side by side; the longest files come first.
test: .venv/.installed ## Prove the kit: every option, real projects, images, workflows, the page
	OMP_NUM_THREADS=1 $(RUN)pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(TESTS)

lint: .venv/.installed ## Check the kit's own Python
	$(RUN)ruff format --check benchmarks hooks scripts tests
	$(RUN)ruff check benchmarks hooks scripts tests

locks: .venv/.installed ## Resolve the locks of all combinations again
	@POETRY_PYPI_MIRROR_URL=$(REGISTRY) $(RUN)python scripts/locks.py

demo: .venv/.installed ## Generate into ./demo, train, serve and ask for one prediction
	@$(RUN)python scripts/demo.py

loop-demo: .venv/.installed ## Generate into ./demo, serve, inject drift: alarm, retraining, swap, in a few minutes
	@$(RUN)python -m scripts.loop

bench: .venv/.installed ## Measure, into benchmarks/RESULTS.md
	@$(RUN)python -m benchmarks.run

bench-alerts: .venv/.installed ## Measure from an alert to the dispatch, with Prometheus and Alertmanager
	@$(RUN)python -m benchmarks.alerts

bench-search: .venv/.installed ## Measure the search beside FLAML, 9 minutes, into the same page
	@$(RUN)python -m benchmarks.search

bench-batch: .venv/.installed ## Measure scoring files beside pandas and scikit-learn
	@$(RUN)python -m benchmarks.batch

bench-deploy: .venv/.installed ## Measure a push until it serves in production, with act, Docker and sshd
	@$(RUN)python -m benchmarks.deploy

bench-drift: .venv/.installed ## Measure false alarms, power and delay of drift, on simulated streams
	@$(RUN)python -m benchmarks.drift

bench-gate: .venv/.installed ## Measure how often the gate promotes an equal model, and a better one
	@$(RUN)python -m benchmarks.gate

bench-monitors: .venv/.installed ## Measure monitoring tools side by side, on the same streams, half an hour
	@$(RUN)python -m benchmarks.monitors

bench-pipeline: .venv/.installed ## Measure the pipeline: all of it, after a change, with nothing to do
	@$(RUN)python -m benchmarks.pipeline

bench-serving: .venv/.installed ## Measure the service beside six others, half an hour, with wrk
	@$(RUN)python -m benchmarks.serving

bench-stages: .venv/.installed ## Measure every stage on a million rows by 50 columns
	@$(RUN)python -m benchmarks.stages

clean: ## Remove everything that make can make again
	rm -rf .venv .poetry .cache .pytest_cache demo

.venv/bin/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c "$(SUPPORTED)" || { echo "Python 3.11, 3.12 or 3.13 \
	is missing: install one (python.org/downloads) or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { \
	echo "$(PYTHON) has no venv module: sudo apt install python3-venv"; exit 1; }
	@command -v git >/dev/null || { echo "git is missing: sudo apt install git"; exit 1; }
	@$(PYTHON) -m venv .venv

.poetry/bin/poetry:
	@echo "Installing Poetry $(POETRY_VERSION) into .poetry"
	@$(RUN)python -m venv .poetry
	@.poetry/bin/python -m pip install --quiet --disable-pip-version-check \
	poetry==$(POETRY_VERSION) poetry-plugin-pypi-mirror==0.6.5

.venv/.installed: pyproject.toml poetry.lock | .venv/bin/python
	@command -v $(POETRY) >/dev/null || $(MAKE) --no-print-directory $(POETRY)
	@echo "Installing poetry.lock into .venv"
	@mkdir -p .cache
# Poetry's --quiet hides the errors, too.
	@POETRY_PYPI_MIRROR_URL=$(REGISTRY) $(POETRY) install --no-interaction >.cache/install.log 2>&1 || \
	{ tail -n 30 .cache/install.log; exit 1; }
	@touch $@
