# All commands set themselves up in .venv; only Python 3.11 to 3.13, make and a package registry are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test bench soak lint types format clean

demo: $(READY)
	$(BIN)/python scripts/demo.py

test: lint types
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Hours, on a machine that does nothing else; benchmarks/.peers keeps the other toolkits' environments.
bench: $(READY)
	$(BIN)/python -m benchmarks all

lint: $(READY)
	$(BIN)/ruff format --check nmt scripts benchmarks tests
	$(BIN)/ruff check nmt scripts benchmarks tests

types: $(READY)
	$(BIN)/mypy

soak: $(READY)
	$(BIN)/python tests/training/soak.py --minutes 10

format: $(READY)
	$(BIN)/ruff format nmt scripts benchmarks tests
	$(BIN)/ruff check --fix nmt scripts benchmarks tests

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): requirements.txt requirements-ray.txt requirements-serve.txt requirements-litert.txt requirements-dev.txt constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
