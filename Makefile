# Every target sets itself up in .venv; only Python 3.11 to 3.13, make and a package registry are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
DEV := $(VENV)/.dev
INSTALL := $(BIN)/python scripts/install.py --quiet --editable
CODE := nmt scripts benchmarks tests docs

.PHONY: demo test docs bench soak lint types format clean

demo: $(BASE)
	$(BIN)/nmt demo

# One process more than there are processors: many tests wait for programs that they start.
test: lint types docs
	$(BIN)/python -m pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder

# The site, in build/docs/index.html. Warnings are errors, and so are references that lead nowhere.
docs: $(DEV)
	$(BIN)/sphinx-build -W --keep-going -n -q -d build/doctrees docs build/docs

# Takes hours on an otherwise idle machine; benchmarks/.peers keeps the environments of the other toolkits.
bench: $(DEV)
	$(BIN)/python -m benchmarks all

lint: $(DEV)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)

types: $(DEV)
	$(BIN)/mypy

soak: $(DEV)
	$(BIN)/python tests/training/soak.py --minutes 10

format: $(DEV)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The demo needs neither the server's nor the tests' packages.
$(BASE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL)
	touch $@

$(DEV): $(BASE)
	$(INSTALL) dev
	touch $@
