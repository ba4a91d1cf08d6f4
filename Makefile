# Every target works on a machine that has only Python 3.10+; VENV and PYTHON can be given.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup test test-all check bench demo pictures clean

setup: $(VENV)/ready

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e '.[dev]'
	touch $@

test: setup        ## everything but the slow tests
	$(BIN)/python -m pytest -n 2

test-all: test     ## the slow ones as well
	$(BIN)/python -m pytest -m slow

check: setup       ## style, types, packaging
	$(BIN)/ruff check .
	$(BIN)/mypy -p actorpool
	$(BIN)/python -m pytest -m "slow or not slow" tests/test_packaging.py tests/test_architecture.py

bench: setup
	$(BIN)/actorpool bench

demo: setup
	$(BIN)/actorpool demo

pictures: setup    ## of the dashboard's page and of `top`, from a real run: docs/img; needs chromium and chromedriver
	$(BIN)/python -m benchmarks.pictures docs/img

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
