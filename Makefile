# make demo: fresh machine → trained, validated, promoted, reported. make test: every check.
# make demo STORE=s3: the same, its artifacts on an S3 server that runs here for the time of it.
# make bench: the benchmarks in small form, some ten minutes on two quiet cores; tests/bench says the rest.
# make test-long: what takes minutes each, as root: losses on several hosts, Prefect on PostgreSQL.
# make crash-matrix: runs of which something is killed at 50 random moments; docs/reliability.md.
# Tests of whole flows take longest: in the order of the tree they come first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-long crash-matrix bench lint clean

TRAIN_DIGITS := $(BIN)/python -m flows.train_sknet --recipe skresnet18_digits --data digits --workers 2

demo: .venv/demo
ifeq ($(STORE),s3)
	$(BIN)/python -m infra.s3 start
	. .s3/environment; trap '$(BIN)/python -m infra.s3 stop' EXIT; $(TRAIN_DIGITS) --store s3://artifacts/demo
else
	$(TRAIN_DIGITS) --store artifacts
endif

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone and not long"
	$(BIN)/python -m pytest -m "alone and not long"

test-long: .venv/dev
	$(BIN)/python -m pytest -m long --ignore $(CRASH_MATRIX)

# A minute for each point; the table goes into docs/reliability.md.
POINTS ?= 50
SEED ?= 1
CRASH_MATRIX := tests/long/test_crash_matrix.py

crash-matrix: .venv/dev
	CRASH_POINTS=$(POINTS) CRASH_SEED=$(SEED) $(BIN)/python -m pytest -m long $(CRASH_MATRIX)

bench: .venv/dev
	$(BIN)/python -m pytest --durations 0 -m "not long" tests/bench

test-fast: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not long"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/%: pyproject.toml constraints.txt tests/peers.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$*]' --constraint constraints.txt
	$(if $(filter dev,$*),$(BIN)/python -m pip install --quiet --no-deps --requirement tests/peers.txt)
	@touch $@

clean:
	rm -rf .venv
