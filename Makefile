# make demo: fresh machine → trained, validated, promoted, reported. make test: every check.
# Tests of whole flows take longest: in the order of the tree they come first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint clean

demo: .venv/demo
	$(BIN)/python -m flows.train_sknet --recipe skresnet18_digits --data digits --store artifacts --workers 2

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone"
	$(BIN)/python -m pytest -m alone

test-fast: .venv/dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

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
