# Needs only Python >= 3.11, git and make: every target sets up what it uses in .venv.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin
UV_VERSION := 0.13.8
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
# Imports are most of a short job: let Python keep the bytecode that it compiles.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-dev demo test lint format schemas lock bench clean-demo
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.installed: envs/requirements.lock pyproject.toml $(wildcard src/midnight/tiles/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Midnight needs Python 3.11 or newer; choose one with make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r envs/requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.installed-dev: .venv/.installed envs/requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r envs/requirements-dev.lock
	@touch $@

.venv/.installed-bench: .venv/.installed envs/requirements-bench.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r envs/requirements-bench.lock
	@touch $@

setup: .venv/.installed  ## the locked environment in .venv
setup-dev: .venv/.installed-dev

demo: setup  ## the whole chain on generated slides, into results/demo/report.html
	@$(SNAKEMAKE) --profile profiles/demo all
	@echo "Report: results/demo/report.html"

test: setup-dev  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

lint: setup-dev  ## formatting, types, Snakemake's own lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint --configfile config/demo.yaml
	$(BIN)/snakemake --lint

format: setup-dev  ## format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

NAME ?= tiles
bench: .venv/.installed-bench  ## a benchmark beside its peers: make bench NAME=tiles ARGS="--quick --json"
	$(BIN)/python benchmarks/$(NAME).py $(ARGS)

schemas: setup  ## write config/schemas/ from the dataclasses
	$(BIN)/midnight config schemas

lock: setup  ## resolve envs/*.lock anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --generate-hashes --no-header --no-annotate -p 3.11 -o envs/requirements.lock
	$(BIN)/uv pip compile pyproject.toml --group dev --quiet -c envs/requirements.lock --universal --generate-hashes --no-header --no-annotate -p 3.11 -o envs/requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml --group bench --quiet -c envs/requirements.lock --universal --generate-hashes --no-header --no-annotate -p 3.11 -o envs/requirements-bench.lock

clean-demo:  ## forget the demo's results
	rm -rf results/demo
