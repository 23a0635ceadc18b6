# What a person types. Every target works on a fresh checkout and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MINUTES ?= 2
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help install run test coverage soak bench lint format requirements clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

install: $(STAMP) ## .venv with everything, from the locked requirements

$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: install ## the simulator and the service, on SQLite under var/
	@exec sh deploy/run-development.sh

test: install ## every test
	$(BIN)/pytest -n auto

coverage: install ## every test, with the branch coverage of service/, child processes counted
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

soak: install ## load and random faults against the real command, and a verdict; MINUTES=2 SEED=
	@$(BIN)/python -m soak --minutes "$(MINUTES)" --seed "$(SEED)"

bench: install ## the benchmarks, each beside its reference; PARTS="accept --quick" for some
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement benchmarks/requirements.txt
	$(BIN)/python -m benchmarks $(PARTS)

lint: install ## ruff, mypy, the import lines, the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

format: install ## ruff, mending what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

requirements: ## compiles the locks anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet pyproject.toml --output-file requirements/runtime.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet pyproject.toml requirements/dev.in --output-file requirements/dev.txt

clean: ## the virtual environment, var/ and every cache
	rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
