# A fresh clone needs Python >= 3.11 and make: `make demo`, then `make test`.
# Everything is installed into .venv, once; `make clean` removes what was made here.
# PYTHON=... picks the interpreter, VENV=... another environment, WORKERS=... the test processes.

VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
DEMO ?= demo-report
CANDIDATES := python3 python3.13 python3.12 python3.11 python
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help install demo test test-slow test-gpu lint format bench gallery clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       analyse the embedded language model; the page is written to $(DEMO)/"
	@echo "make test       the default tests (no network, no GPU, under five minutes on two cores)"
	@echo "make test-slow  the long ones: kill-and-resume, several processes, real browsers"
	@echo "make test-gpu   what needs a CUDA device; skipped without one"
	@echo "make lint       ruff, pyright, import rules"
	@echo "make format     let ruff rewrite the layout"
	@echo "make bench      every benchmark, as tables and JSON lines"
	@echo "make gallery    run the notebooks and show them as pages in docs/gallery/"
	@echo "make clean      remove .venv, caches, builds and the demo's report"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 1; }
	@echo "installing interp-toolkit into $(VENV) (a few minutes, the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/.testing: $(VENV)/.installed
	$(PIP) --editable ".[test,datasets,tensorboard]"
	@touch $@

$(VENV)/.linting: $(VENV)/.testing
	$(PIP) --editable ".[dev]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/interp analyze --out $(DEMO)
	@echo "open $(abspath $(DEMO))/report.html"

test: $(VENV)/.testing
	$(BIN)/python -m pytest -n $(WORKERS) -q

test-slow: $(VENV)/.testing
	$(BIN)/python -m pytest -n $(WORKERS) -q -m "slow and not gpu"

test-gpu: $(VENV)/.testing
	$(BIN)/python -m pytest -q -rs -m gpu
	$(BIN)/python -m pytest -q -m slow tests/sae/test_kernels.py
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		$(BIN)/python -m benchmarks.sae_training --device cuda; fi

lint: $(VENV)/.linting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.linting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.testing
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

gallery: $(VENV)/.testing
	$(BIN)/python docs/build_gallery.py

clean:
	rm -rf $(VENV) $(DEMO) docs/gallery build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
