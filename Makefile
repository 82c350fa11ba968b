# The two commands of the README, on a machine that has Python and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: train test lint benchmark clean

train: $(VENV)/installed
	$(BIN)/python scripts/train.py fit --config configs/digits.yaml

test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# QUICK=1: some rows of the committed tables measured again, and what got worse
benchmark: $(VENV)/installed
ifdef QUICK
	cd scripts && ../$(BIN)/python benchmark_quick.py
else
	@echo "QUICK=1 measures some rows again (5 minutes). A whole table takes hours: scripts/benchmark_NAME.py --help"
endif

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
