# Every target makes .venv (light-test: .venv-light) on first use and reuses it while pyproject.toml is unchanged.
PYTHON ?= python3
EXTRAS ?= all,dev
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LIGHT := .venv-light
LIGHT_READY := $(LIGHT)/.ready
HEAVY := torch torchvision open_clip transformers safetensors onnx faiss pyarrow matplotlib
SOURCES := retrieval index tests benchmarks
CHECK_PYTHON = $(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12')"

# torch's threads spin while they wait; on two cores that costs whoever else has work.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check format docs light-test soak clean

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

# The built wheel with the base and `serve` alone, in an environment of its own: every test that needs neither torch nor
# FAISS, pyarrow or matplotlib runs in it (tests/conftest.py leaves the others out), and all files are in the wheel.
light-test: $(LIGHT_READY)
	rm -rf .wheel build && $(LIGHT)/bin/pip wheel -q --no-deps --wheel-dir .wheel .
	$(LIGHT)/bin/pip install -q --no-deps --force-reinstall .wheel/*.whl
	$(LIGHT)/bin/python -c "from importlib.util import find_spec; there = [name for name in '$(HEAVY)'.split() if find_spec(name)]; assert not there, there"
	for package in retrieval index; do diff -r -x __pycache__ $$package $(LIGHT)/lib/python*/site-packages/$$package || exit 1; done
	$(LIGHT)/bin/pytest -q

# Fifty kills of builds and twenty of trainings at random moments, where the tests run five and three; ten of a service.
soak: $(READY)
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/serve_soak.py

clean:
	rm -rf .wheel dist build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	$(CHECK_PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --editable ".[$(EXTRAS)]"
	touch $@

$(LIGHT_READY): pyproject.toml
	$(CHECK_PYTHON)
	rm -rf $(LIGHT) && $(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/python -m pip install -q ".[serve,test]"
	touch $@
