# `make` alone lists what there is to make. Python 3.11 or newer, make and a connection to the
# package registry are all that is needed; the connection only for the first installation.
#
# How long, measured on two cores: see the table in book/how_to_run.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book pages pdf links test lint types unit notebooks variants clean distclean

# OFFLINE=1: a book that needs no network. Its scripts come from the npm registry, by npm.
BUILD := $(BIN)/python tools/build_book.py $(if $(OFFLINE),--offline)

help: ## list what can be made
	@echo "FLoRA, the executable paper. Usage: make TARGET [PYTHON=python3.12] [OFFLINE=1]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

book: $(VENV)/.installed-book ## execute the notebooks and build the book
	@echo "==> The book: executing its notebooks (about a minute each), then building its pages"
	$(BUILD) $(PARAMETERS)

pages: $(VENV)/.installed-book ## build the book from the committed outputs, executing nothing
	@echo "==> The book, from the outputs its notebooks were committed with (seconds)"
	$(BUILD) --committed

pdf: $(VENV)/.installed-test ## print the built book into one PDF (needs Chromium or Chrome)
	@test -f _build/html/index.html || $(MAKE) pages OFFLINE=1
	$(BIN)/python tools/print_book.py

links: $(VENV)/.installed-test ## check the built book's links to other sites
	@test -f _build/html/index.html || $(MAKE) pages
	$(BIN)/python tools/check_links.py

test: lint types unit notebooks ## check everything: style, types, tests, notebooks
	@echo "==> All checks passed"

lint: $(VENV)/.installed-test ## check style and formatting with ruff
	@echo "==> Style (seconds)"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test ## check types with mypy
	@echo "==> Types (about a minute the first time)"
	$(BIN)/mypy

unit: $(VENV)/.installed-test ## run the tests with pytest
	@echo "==> Tests (about a quarter of an hour)"
	$(BIN)/python -m pytest -n auto --dist loadfile tests

notebooks: $(VENV)/.installed-test ## execute the notebooks and compare with their outputs
	@echo "==> Notebooks, each against the outputs it was committed with (about a minute each)"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval --nbval-current-env -n auto --dist loadscope notebooks

variants: $(VENV)/.installed-test ## execute the notebooks with other parameters
	@echo "==> Notebooks with another seed, and on the real samples of FLORA_DATA if it is set"
	$(BIN)/python tools/run_variants.py

clean: ## remove what was built and the caches, keep the environment
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache
	find flora tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)

# An installation happens in one resolution, so that torch and torchvision match, and again only
# when pyproject.toml changes. The test extra contains the book's.
$(VENV)/.installed-book: pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "==> Installing the library and the book's tools into $(VENV) (minutes, gigabytes: torch)"
	$(BIN)/python -m pip install -e ".[book]"
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "==> Installing the library and the test tools into $(VENV) (minutes, gigabytes: torch)"
	$(BIN)/python -m pip install -e ".[test]"
	@touch $(VENV)/.installed-book $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than 3.11: make PYTHON=/path/to/python3.11 (or newer)"; exit 1; }
	@echo "==> Creating the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no venv: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
