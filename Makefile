# Two commands: `make app` sets up and opens the app, `make test` sets up and tests everything.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
.DEFAULT_GOAL := help
.PHONY: help app test fast lint lab models bench browser constraints clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

app: $(VENV)/.installed models ## Set up, fetch the starter models, open the app on :7860
	$(BIN)/workbench app

test: $(VENV)/.installed-dev models browser lint ## Set up, then run every check and test
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 -p no:randomly notebooks

fast: $(VENV)/.installed-dev ## The tests that need neither models nor browser
	$(BIN)/python -m pytest -m "not models and not browser"

lint: $(VENV)/.installed-dev ## Style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

lab: $(VENV)/.installed models ## Start JupyterLab
	$(BIN)/workbench lab

models: $(VENV)/.installed ## Fetch the starter models (about 0.9 GB, once)
	$(BIN)/workbench models pull --starters

bench: $(VENV)/.installed models ## Compare with the bare libraries
	$(BIN)/python benchmarks/overhead.py

browser: $(VENV)/.installed-dev ## Make sure that a Chromium for the browser test is here
	@command -v chromium >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	|| $(BIN)/python -m playwright install chromium \
	|| { echo "The browser test needs Chromium: sudo apt-get install chromium" >&2; exit 1; }

constraints: $(VENV)/.installed-dev ## Pin what this environment has
	{ sed -n '/^#/p' constraints.txt; \
	  $(PIP) freeze --exclude-editable | sed -E 's/\+cpu$$//' | LC_ALL=C sort -f; } > constraints.new
	mv constraints.new constraints.txt

clean: ## Remove the environment and caches (models and results stay)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache artifacts

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	|| { echo "Python 3.11 or 3.12 is needed: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null; } \
	|| { echo "Debian keeps venv apart: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25"

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --progress-bar on -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --progress-bar on -c constraints.txt -e ".[dev]"
	@touch $@
