# Two commands do all set-up on a fresh machine: `make serve` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: serve test test-full test-systemd attack soak bench lint types format deb rpm clean

serve: $(VENV)/serve.stamp
	$(BIN)/pounce serve demo:app --directory tests/apps

# The gate, half an hour. RETRY=1 gives what failed one more try by itself, and names it at the end.
test: $(VENV)/test.stamp
	$(BIN)/python -m tests.run $(if $(RETRY),--retry)

# All of it: every interpreter and systemd, a browser, attacks, a short soak.
test-full: $(VENV)/test.stamp
	$(BIN)/python -m tests.run --full $(if $(RETRY),--retry)

test-systemd: $(VENV)/test.stamp
	$(BIN)/python -m tests.run systemd

# Attacks in full, minutes of them; `make attack ATTACK=pipelined` is one. The figures go to build/.
attack: $(VENV)/test.stamp
	$(BIN)/python -m tests.attack $(ATTACK)

# An hour of reloads, restarts and kills on a real systemd; `make soak SOAK=--short` is minutes.
soak: $(VENV)/test.stamp
	$(BIN)/python -m tests.systemd.prepare
	$(BIN)/python -m tests.soak $(SOAK)

# Speed beside other servers, which get an environment of their own. It wants two cores and quiet;
# `make bench BENCH="--rounds 1"` is a quick look. Table, plot and profile are in build/.
bench: $(VENV)/test.stamp
	$(BIN)/python -m tests.benchmarks $(BENCH)
	$(BIN)/python -m tests.benchmarks.threads

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/lint.stamp $(VENV)/test.stamp
	$(BIN)/mypy

format: $(VENV)/lint.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Packages, built and judged in a root file system of their own; the result is in dist/.
deb rpm:
	$(PYTHON) packaging/build.py $@

clean:
	rm -rf $(VENV) build dist service/*.egg-info

# `python3 -m venv` needs python3-venv where Debian's own Python is used.
$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pounce needs Python 3.11 or later; try make PYTHON=python3.13")'
	$(PYTHON) -m venv $(VENV) || (rm -rf $(VENV); \
	    echo "No virtual environment could be made; on Debian: apt install python3-venv" >&2; exit 1)

$(VENV)/serve.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/test.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/lint.stamp: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[lint]'
	touch $@
