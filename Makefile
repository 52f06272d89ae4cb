# Every target makes .venv on first use and reuses it while pyproject.toml is unchanged.
PYTHON ?= python3
EXTRAS ?= all,dev
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := retrieval index tests benchmarks

# torch's threads spin while they wait; on two cores that costs whoever else has work.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check format docs wheel-test soak clean

demo: $(READY)
	$(BIN)/retrieval demo demo

test: $(READY)
	$(BIN)/pytest

check: $(READY)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q --durations=0 tests/test_imports.py
	$(BIN)/python benchmarks/readme.py --check

format: $(READY)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# The README's help texts and tables, written from the commands and from benchmarks/results.
docs: $(READY)
	$(BIN)/python benchmarks/readme.py

# The same tests against the built wheel instead of the source tree.
wheel-test: $(READY)
	rm -rf .wheel && $(BIN)/pip wheel -q --no-deps --wheel-dir .wheel/dist .
	$(BIN)/pip install -q --no-deps --target .wheel/site .wheel/dist/*.whl
	cd .wheel && PYTHONPATH=site ../$(BIN)/python -c "import retrieval, index; assert '.wheel' in retrieval.__file__ and '.wheel' in index.__file__"
	PYTHONPATH=.wheel/site $(BIN)/pytest -q

# Fifty kills of builds and twenty of trainings at random moments, where the tests run five and three; ten of a service.
soak: $(READY)
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/serve_soak.py

clean:
	rm -rf .wheel dist build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --editable ".[$(EXTRAS)]"
	touch $@
