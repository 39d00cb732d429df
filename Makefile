# `make demo` and `make test` need Python 3.11 or newer and nothing else; `make help` lists the rest.
#
# PyTorch: constraints.txt pins the release. On Linux, PyPI's wheel of it brings CUDA along
# (about 5 GB). For the CPU wheel (0.2 GB) name PyTorch's own index in the environment:
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test test-all lint docs-check format clean help .venv

demo: $(INSTALLED) ## score the clips in examples/ into demo/scores.csv and demo/report.html
	@$(BIN)/python scripts/demo.py

test: lint docs-check ## what CI runs
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m 'not slow'

test-all: lint docs-check ## the same with the slow tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

lint: $(INSTALLED) ## formatting, lint rules and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs-check: $(INSTALLED) ## what the docs say against what the code does
	$(BIN)/python scripts/check_docs.py

format: $(INSTALLED) ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what these targets made, but for .venv
	rm -rf build demo dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find bench docs scripts src tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

.venv: $(INSTALLED) ## the environment that the other targets run in

# pip is the last thing that venv installs: without it the folder is a leftover of a failure.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  -c constraints.txt torch==$(shell sed -n 's/^torch==//p' constraints.txt) -e '.[dev,media,parquet]'
	@touch $@
