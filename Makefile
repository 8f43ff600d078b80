# Needs only Python >= 3.11, git and make: every target sets up what it uses in .venv.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin
UV_VERSION := 0.13.8
SNAKEMAKE := $(BIN)/snakemake --cores $(CORES)
# Imports are most of a short job: let Python keep the bytecode that it compiles.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-dev demo test test-portable mutate lint format schemas lock bench clean-demo
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.installed: envs/requirements.lock pyproject.toml $(wildcard src/midnight/tiles/*.h src/midnight/tiles/*/*.c)
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
	@echo "Report: results/demo/report.html (the summary again: $(BIN)/midnight summary results/demo)"

test: setup-dev  ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

# What rounds differently on other processors. Each library is told to leave out instructions that this processor has.
NUMERICAL := tests/test_native.py tests/evaluate/test_hest.py tests/evaluate/test_perturb.py tests/evaluate/test_plus_minus.py \
	tests/tiles/augment tests/tiles/draw/test_hsv_filter.py $(addprefix tests/tiles/read/test_,area.py jpeg.py) \
	tests/ssl/loss $(addprefix tests/ssl/,test_optimizer.py test_step.py monitor/test_metrics.py) \
	$(addprefix tests/ssl/model/test_,packing.py residual.py network.py fused.py)
AVX2 := OPENBLAS_CORETYPE=Haswell NPY_DISABLE_CPU_FEATURES=X86_V4 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	ONEDNN_MAX_CPU_ISA=AVX2
SSE := OPENBLAS_CORETYPE=Prescott NPY_DISABLE_CPU_FEATURES="X86_V4 X86_V3" ATEN_CPU_CAPABILITY=default \
	MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 NUMBA_CPU_NAME=generic
# The compiled part for the baseline instructions; without a C compiler there is none, and numba does its work.
PLAIN := .venv/native-plain.so

test-portable: setup-dev  ## the numerical tests as on x86-64 processors without AVX-512, and without AVX
	OMP_NUM_THREADS=1 $(AVX2) $(BIN)/python -m pytest -n $(CORES) $(NUMERICAL)
	rm -f $(PLAIN)
	! command -v cc >/dev/null || $(BIN)/python tests/native_build.py $(PLAIN) cc -DVECTORIZED=
	OMP_NUM_THREADS=1 $(SSE) MIDNIGHT_NATIVE="$$(ls $(CURDIR)/$(PLAIN) 2>/dev/null)" $(BIN)/python -m pytest -n $(CORES) $(NUMERICAL)

mutate: setup-dev  ## deliberate faults in the core, and whether a test notices, into docs/mutations.md (15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutants.mutate $(ARGS)

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
