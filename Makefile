# `make demo` and `make test` do everything on a fresh machine, installation included.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --durations=50 --junitxml=build/junit.xml

.PHONY: help demo test test-all test-faults mutants golden bench check check-format check-lint check-types check-imports fix clean
.DEFAULT_GOAL := help

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/runs ## Install, draw 3,000 pictures, classify them, evaluate
	$(BIN)/zsic demo

test: check ## Install, then check, then prove each promise once; ten minutes on 2 cores
	$(PYTEST)

test-all: check ## The same with every variant: servers, nodes, families, a browser, cold starts; three quarters of an hour
	$(PYTEST) --all

test-faults: $(VENV)/develops ## Install, then the long proofs: 200,000 mutants of each kind, for hours
	$(BIN)/python -m pytest --faults -m faults

mutants: $(VENV)/develops ## Install, then change 60 places of the code, one at a time, and list what no test notices; half an hour
	$(BIN)/python tests/mutation.py

golden: $(VENV)/develops ## Install, then renew the files that the golden run is compared with; read the difference
	$(BIN)/python -m pytest tests/test_golden.py --renew-golden

bench: $(VENV)/develops ## Install, then measure against limits and peers: decoding, encoding, relabelling, labels, a store, growth, the job, starts; 45 min
	$(BIN)/python benchmarks/decode.py --write
	$(BIN)/python benchmarks/encoder.py --write
	$(BIN)/python benchmarks/embeddings.py --write
	$(BIN)/python benchmarks/relabel.py --write
	$(BIN)/python benchmarks/labels.py --write
	$(BIN)/python benchmarks/explain.py --write
	$(BIN)/python benchmarks/store.py --keys 100000 --write
	$(BIN)/python benchmarks/scale.py --ledger 1e5,1e6,1e5s3 --images 20000 --write
	$(BIN)/python benchmarks/pipeline.py --write
	$(BIN)/python benchmarks/start.py --write

check: $(VENV)/develops ## Format, lint, types, imports, side by side; under a minute
	@$(MAKE) --no-print-directory --jobs 4 --output-sync=target check-format check-lint check-types check-imports

check-format:
	$(BIN)/ruff format --check .

check-lint:
	$(BIN)/ruff check .

check-types:
	$(BIN)/mypy

check-imports:
	$(BIN)/lint-imports

fix: $(VENV)/develops ## Format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment and what tools left
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/runs: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("zsic needs Python 3.11 or newer; use: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first, pinned: a range would let an index choose a build of gigabytes.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/develops: $(VENV)/runs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,int8,delta,video]'
	touch $@
