# Everything a fresh machine needs is made by these targets; only Python 3.11+ and make must be there.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

export KERAS_BACKEND ?= jax

.PHONY: demo test check torture conformance compat bench clean

demo: $(VENV)/.demo
	$(RUN)/keepfit demo

test: $(VENV)/.test
	scripts/test

check: $(VENV)/.test
	scripts/check

# The full number of kills; `make test` runs a sample. `make torture BACKEND=torch` for one of the others.
BACKEND ?= jax
torture: $(VENV)/.test
	$(RUN)/python -m tests.torture --kills 200 --backend $(BACKEND)

# Keras's own tests, with its loop and with ours, on every backend that is installed.
conformance: $(VENV)/.test
	$(RUN)/python -m tests.conformance

# The continuity suites and Keras's own tests with each Keras that is supported, each in an environment of its own.
compat: $(VENV)/.test
	$(RUN)/python -m tests.compat

bench: $(VENV)/.test
	$(RUN)/python benchmarks/spine.py
	$(RUN)/python benchmarks/memory.py
	$(RUN)/python benchmarks/plans.py
	$(RUN)/python benchmarks/partitions.py
	$(RUN)/python benchmarks/frozen_prefix.py

$(VENV)/bin/python:
	$(PYTHON) scripts/make_venv.py $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -e ".[demo]"
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@

clean:
	rm -rf $(VENV) .compat .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
