# `make demo` and `make test` need Python 3.11 to 3.13 and make, nothing else; PYTHON=... chooses another interpreter.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test slow lint bench install clean

demo: install        ## the quickstart sweep on scikit-learn's digits, its comparison, and how to open the MLflow UI
	$(BIN)/distillery sweep search_spaces/quickstart.yaml --resume

test: install        ## what CI runs; what starts no cluster runs in two processes
	$(BIN)/python -m pytest -m 'not ray and not slow' --numprocesses 2 --dist loadscope --no-loadscope-reorder
	$(BIN)/python -m pytest -m 'ray and not slow'

slow: install        ## the checks that take minutes
	$(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install       ## what a step, paths, aggregators, a sweep, orchestration, tracking and scale cost: ratios within one run, JSON in outputs/bench
	for each in step loading rounding paths aggregators tracking orchestration sweep scale; do \
		$(BIN)/python -m benchmarks.$$each --json outputs/bench/$$each.json || exit 1; done

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Distillery needs Python 3.11, 3.12 or 3.13; none was found. Name one: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv outputs
