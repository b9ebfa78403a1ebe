# make fit     the embedded digits experiment, from nothing to figures
# make phase   the phase diagram of the digits: a sweep and its report
# make test    the tests, without the long ones
# make claims  the experiments of the papers' claims that are not stored yet, and docs/claims.md (ARGS="scaling kernels" chooses)
# make slow    the tests that are too long for `make test`
# make cluster   sweeps on Ray and SLURM, with the packages of the extra `cluster`
# make faults  a thousand malformed configurations, checkpoints, data files and stores, then fifty random SIGKILLs
# make gpu     tests, speed and whole runs on a CUDA device, in under twelve minutes
# make bench   all benchmarks in turn and their table (ARGS="--quick": a quarter of an hour; --resume, --minutes M, --images FOLDER, --cifar FILE)
# make lint    style and types
# make docs    the documentation site, strictly: site/index.html opens without a server
# make gallery the figures of docs/gallery from stored runs (ARGS="--root FOLDER"), and their page
# make lower-bounds   a part of the tests on the oldest versions of the dependencies that pyproject.toml admits
#
# PYTHON chooses the interpreter of the virtual environment, VENV its place, ARGS adds options to `make fit`,
# to the sweep of `make phase` (INTEGRATOR=euler for the papers' rule, WORKERS processes), to `make gpu` (ARGS="--images FOLDER") and to `make faults` (ARGS="--count 5000 --seed 1" KILLS="--kills 200 --seed 1"), PHASE is the sweep's folder.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
KILLS ?=
PHASE ?= runs/phase_diagram
INTEGRATOR ?= auto
WORKERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PIP_ROOT_USER_ACTION := ignore

.PHONY: fit phase test slow cluster claims faults gpu bench lint docs gallery lower-bounds clean
.DELETE_ON_ERROR:

fit: $(VENV)/.installed
	$(BIN)/python -m lazy_lightning fit --config digits_fc.yaml $(ARGS)

phase: $(VENV)/.installed
	$(BIN)/python -m lazy_lightning sweep --config digits_fc.yaml --config callbacks/full.yaml \
		--sweep sweeps/phase_diagram.yaml --out $(PHASE) \
		--model.integrator $(INTEGRATOR) --workers $(WORKERS) $(ARGS)
	$(BIN)/python -m lazy_lightning report $(PHASE) --out $(PHASE)/report

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 -m "not slow" $(ARGS)

cluster: $(VENV)/.installed-test
	$(PIP) install --quiet -e ".[cluster]"
	$(BIN)/python -m pytest tests/experiments/test_ray_executor.py tests/experiments/test_slurm_executor.py $(ARGS)

slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 -m slow $(ARGS)

claims: $(VENV)/.installed
	$(BIN)/python docs/claims/run_claims.py $(ARGS)

faults: $(VENV)/.installed-test
	PYTHONPATH=tests $(BIN)/python tests/faults/campaign.py $(ARGS)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python tests/faults/kills.py $(KILLS)

gpu: $(VENV)/.installed-test
	$(BIN)/python benchmarks/gpu.py $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/bench.py $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet $(ARGS)

gallery: $(VENV)/.installed
	$(BIN)/python docs/gallery/make_gallery.py $(ARGS)

# "name>=1.2" in pyproject.toml becomes "name==1.2.*". The environment is one of its own, made by the interpreter PYTHON.
LOWER := .venv-lower
lower-bounds:
	$(PYTHON) -m venv $(LOWER)
	sed -n 's/^ *"\([A-Za-z0-9_-]*\)\(\[[a-z]*\]\)*>=\([0-9.]*\).*/\1==\3.*/p' pyproject.toml | grep -v hatchling > $(LOWER)/lowest.txt
	$(LOWER)/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(LOWER)/lowest.txt --editable ".[test]"
	$(LOWER)/bin/python -m pytest -n 2 -m "not slow" -W ignore::DeprecationWarning -W ignore::FutureWarning $(or $(ARGS),$(LOWER_TESTS))
LOWER_TESTS := tests $(foreach part,claims emulated faults modules nn ntk test_kernel_command.py test_member_ranks.py \
	test_mini_batch_command.py test_packaging.py test_resume_command.py test_sample_shards.py test_sweep_command.py,--ignore=tests/$(part))

clean:
	rm -rf build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
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
