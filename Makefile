# Every target stands alone on a fresh machine and may be repeated.
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -q -c constraints.txt
# Each prints one table in a minute or so; the long ones (camvid_*, train_tiny, tiny_matchmask) are started by hand.
QUICK_BENCHMARKS := import_time layout_masks relative_filter sampling_overhead generate_memory
# Only for the tests of genaug_albumentations, in a folder that Python looks into before .venv. AGPL-3.0: see CONTRIBUTING.md.
ALBX_VERSION := 2.5.1
ALBX := .albumentationsx/$(ALBX_VERSION)
ALBX_WHEELS := albumentationsx==$(ALBX_VERSION) albucore==0.2.21 numkong==7.8.6

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-albumentationsx lint bench docs

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("genaug needs Python 3.11 or newer, e.g.: make PYTHON=python3.12 test" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/diffusion.installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[diffusion]"
	touch $@

$(VENV)/test.installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[test]"
	touch $@

$(VENV)/docs.installed: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e ".[docs]"
	touch $@

quickstart: $(VENV)/diffusion.installed ## Show MatchMask at work on drawn scenes; results in quickstart/
	$(BIN)/genaug quickstart --output quickstart

test: lint ## Run lint, types, layer contracts and all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

# The check of the place: without it, a folder that is not looked into would be tests of 2.0.8 once more.
test-albumentationsx: $(VENV)/test.installed ## Run the tests of albumentations again, on AlbumentationsX
	@if [ -f $(ALBX)/installed ] || { rm -rf $(ALBX); $(BIN)/python -m pip install -q --no-deps --only-binary :all: \
		--retries 1 --target $(ALBX) $(ALBX_WHEELS) && touch $(ALBX)/installed; }; then \
		export OMP_NUM_THREADS=1 PYTHONPATH="$(CURDIR)/$(ALBX)"; \
		$(BIN)/python -c 'import importlib.util as u; assert "$(ALBX)" in u.find_spec("albumentations").origin' && \
		$(BIN)/python -m pytest -q tests/integrations/genaug_albumentations; \
	else echo "SKIPPED the tests on AlbumentationsX: $(ALBX_WHEELS) cannot be installed here (see above)"; fi

lint: $(VENV)/test.installed ## Run lint, types and layer contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=plugins:integrations $(BIN)/lint-imports

bench: $(VENV)/test.installed ## Run the quick benchmarks
	@set -e; for name in $(QUICK_BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

docs: $(VENV)/docs.installed ## Build the documentation site; any warning is an error
	OMP_NUM_THREADS=1 $(BIN)/python docs/site/build.py build/docs
