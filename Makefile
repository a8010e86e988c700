# make demo: from a fresh machine to a trained, validated, promoted and reported network.
# make demo STORE=s3: the same with its artifacts on an S3 server that runs for the time of it.
# make test: every check, in 14 minutes on two cores; make test-fast: in 3, without slow tests.
# make test-long: tests that take minutes each, some as root: lost hosts, Prefect's automations.
# make crash-matrix: runs that lose a process at 50 random moments; docs/reliability.md.
# make test-versions: make test-fast and a small training on each supported MindSpore and Python.
# make bench: every benchmark in small form, in some ten minutes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt

.PHONY: demo test test-fast test-long test-versions crash-matrix bench lint clean

TRAIN_DIGITS := $(BIN)/python -m flows.train_sknet --recipe skresnet18_digits --data digits --workers 2

comma := ,

demo: $(VENV)/demo$(if $(filter s3,$(STORE)),$(comma)s3server)
ifeq ($(STORE),s3)
	$(BIN)/python -m infra.s3 start
	. .s3/environment; trap '$(BIN)/python -m infra.s3 stop' EXIT; $(TRAIN_DIGITS) --store s3://artifacts/demo
else
	$(TRAIN_DIGITS) --store artifacts
endif

# Tests marked `timed` have the machine for themselves. The others spend half of their time waiting, so
# three run at once on two cores; tests/conftest.py orders them.
# PYTEST_OPTIONS=--durations=0 lists every test's seconds; tests/durations.py sums them up.
PYTEST := $(BIN)/python -m pytest $(PYTEST_OPTIONS)
NO_BENCH := --ignore tests/bench

test: lint
	$(PYTEST) -n 3 --dist loadgroup --no-loadscope-reorder $(NO_BENCH) -m "not timed and not long"
	$(PYTEST) $(NO_BENCH) -m "timed and not long"

test-fast: $(VENV)/dev
	$(PYTEST) -n 3 --dist loadgroup --no-loadscope-reorder $(NO_BENCH) -m "not slow"

test-long: $(VENV)/dev
	$(PYTEST) $(NO_BENCH) --ignore $(CRASH_MATRIX) -m long

# Each version takes ten minutes. The table is written into docs/ascend.md, unless VERSIONS names some.
VERSIONS :=

test-versions:
	$(PYTHON) -m tests.versions $(VERSIONS)

# Each point takes a minute. The table is written into docs/reliability.md.
POINTS ?= 50
SEED ?= 1
CRASH_MATRIX := tests/long/test_crash_matrix.py

crash-matrix: $(VENV)/dev
	CRASH_POINTS=$(POINTS) CRASH_SEED=$(SEED) $(PYTEST) -m long $(CRASH_MATRIX)

bench: $(VENV)/dev
	$(PYTEST) --durations 0 -m "not long" tests/bench

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/%: pyproject.toml $(CONSTRAINTS) tests/peers.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]' --constraint $(CONSTRAINTS)
	$(if $(filter dev,$*),$(BIN)/python -m pip install --quiet --no-deps --requirement tests/peers.txt)
	@touch $@

clean:
	rm -rf .venv .venv-versions
