# make demo   data, classifier, CASM, figures: from nothing to saliency maps
# make test   lint and tests, in two processes (make test WORKERS=8 for more)
# make bench  speed beside PyTorch's on a CPU; make bench-gpu on a GPU. A table and JSON
#             (BENCH="--only=masks --rounds=3" passes flags of benchmarks.versus_torch)
# Python >= 3.11 is all that has to be there; `make PYTHON=python3.13 ...` picks one.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
DATA := data
RUNS := runs/demo
WORKERS ?= 2
GPU := $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
REQUIREMENTS := $(if $(GPU),requirements.txt,requirements-cpu.txt)

.PHONY: demo install test test-slow lint bench bench-gpu clean
.DELETE_ON_ERROR:

install: .venv/.installed

.venv/.installed: requirements.txt requirements-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11: make PYTHON=python3.13"; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement $(REQUIREMENTS)
	touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

.venv/.installed-bench: .venv/.installed benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement benchmarks/requirements.txt
	touch $@

# Huge pages for the arrays of a training step; where the system offers none, nothing.
demo test test-slow bench: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

demo:
	@bash scripts/demo.sh "$(MAKE)" $(BIN)/python $(DATA) $(RUNS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: lint
	$(BIN)/python -m pytest -m slow

bench: .venv/.installed-bench
	$(BIN)/python -m benchmarks.versus_torch --device=cpu --out=build/bench_cpu.json $(BENCH)

bench-gpu: .venv/.installed-bench
	$(BIN)/python -m benchmarks.versus_torch --device=gpu --out=build/bench_gpu.json $(BENCH)

clean:
	rm -rf .venv .pytest_cache .ruff_cache
