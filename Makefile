# `make help` lists the targets; each installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test lint bench docs clean
help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: .venv/ready ## simulated survey -> request -> stamps, in ./demo-home
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh simtest/demo.sh

test: .venv/ready ## the whole test suite, on SQLite and MariaDB
	@sh tests/programs.sh
	$(BIN)/python -m pytest -n auto

lint: .venv/ready ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready ## benchmarks, as ratios to a peer in the same run
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks

docs: .venv/ready ## write the generated pages (drawing them takes graphviz)
	$(BIN)/python docs/generate.py

clean: ## remove what the targets made
	rm -rf .venv demo-home .pytest_cache .mypy_cache .ruff_cache .hypothesis
