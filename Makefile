# make fit     the embedded digits experiment, from nothing to figures
# make test    the tests, without the long ones
# make claims  the papers' statements at length
# make lint    style and types
#
# PYTHON chooses the interpreter of the virtual environment, VENV its place, ARGS adds options to `make fit`.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PIP_ROOT_USER_ACTION := ignore

.PHONY: fit test claims lint clean
.DELETE_ON_ERROR:

fit: $(VENV)/.installed
	$(BIN)/python -m lazy_lightning fit --config digits_fc.yaml $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

claims: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path '*/.venv/*' -prune -exec rm -rf {} +

# Each stamp is younger than pyproject.toml once what that asks for is installed.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --editable ".[$*]"
	touch $@ $(VENV)/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("lazy_lightning needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
