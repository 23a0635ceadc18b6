# What a person types. Every target works on a fresh checkout and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := .venv-tools/.installed
CLIENTS := tests/clients/node_modules/.installed
MINUTES ?= 2
SEED ?=
DATABASE ?= sqlite
TESTS ?= tests
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet

.DEFAULT_GOAL := help
.PHONY: help install run test test-all test-postgres tools coverage soak pythons wheel sbom audit \
	bench lint format openapi requirements clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

install: $(STAMP) ## .venv with everything, from the locked requirements

# The locks are installed as they are: --no-deps, for some pips resolve a lock anew.
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is no Python 3.11 or later; choose one with make PYTHON=python3.13" >&2; exit 1; }
	@echo "1 of 3: $(VENV), a virtual environment of $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "if venv or ensurepip is missing: apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }
	@echo "2 of 3: what requirements/dev.txt locks, which takes a minute or two"
	@$(BIN)/pip install --disable-pip-version-check --no-deps --require-hashes --requirement requirements/dev.txt
	@echo "3 of 3: Ackgate itself"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/pip check
	@touch $(STAMP)

run: install ## the simulator, a receiver and the service, on SQLite under var/
	@exec sh deploy/run-development.sh

# More workers than cores: most of the tests wait more than they compute. What is left at the end,
# where the longest are, is shared among those who have done theirs.
test: install ## the tests, without what is slow or needs programs of the system's, or PostgreSQL
	$(BIN)/pytest -n 4 --dist worksteal -m "not slow and not tools and not postgres"

# Those that choose their database themselves are among `test-all`. CI runs a part of these.
test-postgres: install tools ## each test of a database once more, on PostgreSQL; TESTS="tests/… …" for some
	$(BIN)/pytest -n 4 --dist worksteal --database postgresql $(TESTS)

# Says at its head which PostgreSQL it has for the tests that need one.
test-all: install tools ## every test, on SQLite where it doesn't say; fails where a program is missing
	$(BIN)/pytest -n 4 --dist worksteal --hypothesis-profile=deep

# The generators want other versions of some libraries than the service, so they are by themselves.
tools: $(TOOLS) $(CLIENTS) ## what some tests need besides: client generators, axe-core (both need npm), schemathesis

$(TOOLS): requirements/tools.txt
	@$(PYTHON) -m venv .venv-tools
	@.venv-tools/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements/tools.txt
	@.venv-tools/bin/pip check
	@touch $(TOOLS)

$(CLIENTS): tests/clients/package-lock.json
	npm ci --prefix tests/clients --ignore-scripts --no-audit --no-fund
	@touch $(CLIENTS)

coverage: install ## every test, with the branch coverage of service/, child processes counted
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=95

soak: install ## load and random faults against the real command, and a verdict; MINUTES=2 SEED= DATABASE=postgresql
	@$(BIN)/python -m tools.soak --minutes "$(MINUTES)" --seed "$(SEED)" --database "$(DATABASE)"

pythons: install ## unit, contract and property tests on every other Python that is here; NEWEST=1
	@$(BIN)/python .ci/pythons.py $(if $(NEWEST),--newest)

wheel: install $(TOOLS) ## sdist, wheel and SBOM into dist/, and the wheel alone in a new virtual environment
	@$(BIN)/python .ci/wheel.py

sbom: install $(TOOLS) ## the SBOM alone, into dist/
	@$(BIN)/python .ci/sbom.py

audit: $(TOOLS) ## known vulnerabilities of what a release installs, as PyPI knows them; fails where it can't be asked
	@$(PYTHON) .ci/audit.py

bench: install ## the benchmarks, each beside its reference; PARTS="accept --quick" for some
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement tools/bench/requirements.txt
	$(BIN)/pip check
	$(BIN)/python -m tools.bench $(PARTS)

# deptry: what the wheel needs is declared as its own; what the rest needs besides, in a group.
lint: install ## ruff, mypy, the import lines, the libraries' interfaces, the dependencies, the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/privates.py
	$(BIN)/deptry service
	$(BIN)/deptry service tools tests --ignore DEP004
	$(BIN)/hadolint Dockerfile

format: install ## ruff, mending what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

openapi: install ## docs/openapi.json anew, from the code
	$(BIN)/python .ci/openapi.py

requirements: ## compiles the locks anew (needs uv)
	$(COMPILE) pyproject.toml --output-file requirements/runtime.txt
	$(COMPILE) pyproject.toml --all-extras --group dev --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --extra alerts --constraints requirements/dev.txt \
		--output-file requirements/alerts.txt
	$(COMPILE) pyproject.toml --extra postgres --constraints requirements/dev.txt \
		--output-file requirements/postgres.txt
	$(COMPILE) pyproject.toml --extra simulator --constraints requirements/dev.txt \
		--output-file requirements/simulator.txt
	$(COMPILE) --group tools --output-file requirements/tools.txt
	$(COMPILE) --group bench --constraints requirements/dev.txt --output-file tools/bench/requirements.txt

clean: ## the virtual environments, dist/, var/ and every cache
	rm -rf $(VENV) .venv-* dist var .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
