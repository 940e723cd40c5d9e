# make demo    analyze and compare bundled traces; the reports go to demo/
# make test    lint, format, types and tests
# make docs    build the documentation and the man pages into build/docs
# make bench   measure speed and memory against xenalyze
# make format  put the sources into the common format
# make clean   remove all that these have made
#
# Each sets up what it needs in .venv by itself. It takes Python 3.11 or newer: make PYTHON=python3.12 names one.

PYTHON ?= python3
PYTEST_ARGS ?= -n auto
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The frequency is what `xl info` said on that machine: a trace of these events only does not tell it.
DEMO := --cpu-hz 60000000 --force

.PHONY: demo test docs bench format clean

demo: $(READY)
	@mkdir -p demo
	@$(BIN)/xtrace analyze sample_traces/bench8-lockless.bin --symbols sample_traces/symbols-lockless.map \
		$(DEMO) --html demo/analysis.html
	@echo
	@$(BIN)/xtrace compare sample_traces/bench8-legacy.bin sample_traces/bench8-lockless.bin $(DEMO) \
		--symbols-before sample_traces/symbols-legacy.map --symbols-after sample_traces/symbols-lockless.map \
		--html demo/report.html
	@echo
	@echo "One trace: demo/analysis.html. Before and after: $(CURDIR)/demo/report.html"

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PYTEST_ARGS)

docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs/html
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2> /dev/null || date +%s)} \
		$(BIN)/python -m sphinx -q -W --keep-going -b man docs build/docs/man
	@echo "Documentation: build/docs/html/index.html; man pages: build/docs/man"

bench: $(READY)
	$(BIN)/python benchmarks/decode.py $(BENCH_ARGS)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo docs/commands build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find parsers reports xtrace tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || \
		{ echo "xtrace needs Python 3.11 or newer as $(PYTHON), or under another name: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
		{ echo "$(PYTHON) lacks the venv module (on Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Setting up $(VENV), once; this downloads some packages"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@
