# make demo: fresh machine → trained, validated, promoted, reported. make test: every check.
# make test-long: what takes minutes each, as root: losses on several hosts.
# Tests of whole flows take longest: in the order of the tree they come first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast test-long lint clean

demo: .venv/demo
	$(BIN)/python -m flows.train_sknet --recipe skresnet18_digits --data digits --store artifacts --workers 2

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone and not long"
	$(BIN)/python -m pytest -m "alone and not long"

test-long: .venv/dev
	$(BIN)/python -m pytest -m long

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
