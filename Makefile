# Needs Python 3.11 or newer and make; everything else goes into .venv.
#
#   make figures                          all figures of the default profile
#   make figures FIGURES=figure5          one of them, by its name in notebooks/figures.yaml
#   make figures PROFILE=paper            the paper's models and sizes
#   make figures AT_ONCE=1                one notebook after another, with all cores
#   make test PYTHON=/opt/python3.12/bin/python3
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                         PyTorch without CUDA, which the usual Linux wheel brings along (gigabytes)

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
TORCH_INDEX ?=
FIGURES ?=
PROFILE ?= default
AT_ONCE ?= auto

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A process for each core, but no more than four: each may hold the embedded model. A file's tests stay together.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup figures figures-smoke report docs test test-fast test-slow test-sizes lint lock sbom audit explore app clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(READY) ## make .venv with everything in it

$(READY): pyproject.toml requirements.lock requirements.hashes
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# torch by its version alone, since each index has builds of its own; everything else by its hash
	$(BIN)/python -m pip install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep -o '^torch==[0-9.]*' requirements.lock)"
	$(BIN)/python -m pip install --no-deps --require-hashes -r requirements.hashes
	@# the workbench itself, and the CUDA packages that this build of torch asks for, if any
	$(BIN)/python -m pip install -c requirements.lock -e '.[all,dev]'
	@touch $@

figures: $(READY) ## regenerate the figures (FIGURES=names, PROFILE=smoke|default|study|paper, AT_ONCE=N|auto)
	$(BIN)/workbench regenerate $(FIGURES) --profile $(PROFILE) --at-once $(AT_ONCE)

figures-smoke: $(READY) ## run every notebook once, with the smallest sizes
	$(BIN)/workbench regenerate --profile smoke --at-once $(AT_ONCE)

report: $(READY) ## make HTML of the figures that have been run (PROFILE=smoke|default|study|paper)
	$(BIN)/workbench report --profile $(PROFILE)

docs: $(READY) ## build the documentation site into build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: lint test-fast ## lint, and run the tests that take no more than a few seconds

test-fast: $(READY) ## the same without lint
	$(PYTEST) -m "not slow"

test-slow: $(READY) ## run the others: the embedded models, every notebook, a browser, clusters; CI runs both
	$(PYTEST) -m slow

test-sizes: $(READY) ## edit GPT-2 XL and LLaMA-7B with random weights; 24 GiB of memory, 40 GiB of disk, half an hour or more
	WORKBENCH_TRUE_SIZES=1 $(BIN)/python -m pytest tests/test_true_sizes.py

lint: $(READY) ## check style, format, language, layers and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_language.py
	$(BIN)/lint-imports
	$(BIN)/mypy

lock: $(READY) ## pin the newest allowed versions that fit requirements.lock, and their hashes (UPGRADE=1: of all packages)
	$(BIN)/uv pip compile pyproject.toml --extra all --extra quantized --extra dev --universal --python-version 3.11 $(if $(UPGRADE),--upgrade) \
		--quiet --no-annotate --custom-compile-command 'make lock' --no-emit-package pip --generate-hashes \
		--output-file requirements.lock
	@# torch pins its CUDA packages itself, each build other ones; pip takes no hashes in a file of constraints;
	@# torchao is an extra apart, pinned and not installed
	awk '/^[a-z]/ { skip = /^(cuda|nvidia|triton|torch==|torchao==)/ } !skip' requirements.lock > requirements.hashes
	awk '/^[a-z]/ { skip = /^(cuda|nvidia|triton)/ } !skip && !/^ / { sub(/ \\$$/, ""); print }' requirements.lock \
		> requirements.lock.new
	mv requirements.lock.new requirements.lock

sbom: $(READY) ## write build/sbom.json, the software bill of materials of .venv (CycloneDX)
	$(BIN)/python tools/sbom.py build/sbom.json

audit: $(READY) ## look up known vulnerabilities of the locked versions, where a database can be reached
	$(BIN)/python tools/audit.py requirements.lock

explore: $(READY) ## open JupyterLab on notebooks/
	$(BIN)/jupyter lab notebooks/

app: $(READY) ## open the explorer alone, as a web app on this machine
	$(BIN)/workbench app

clean: ## remove what runs leave behind; not .venv, figures/ or the model cache
	rm -rf build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find workbench tests benchmarks tools notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
