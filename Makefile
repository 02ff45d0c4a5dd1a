# Everything a person needs by hand. Each target does its own set-up; a second call reuses it.
#   make demo    fill, migrate and prove sample tables on real servers
#                (JOB=enrolments, users, customers, tenant or sync for one alone, ENROLMENTS=100000,
#                USERS=100000, CUSTOMERS=100000, TENANT_USERS=10000, LIVE_ENROLMENTS=20000)
#   make ui      open Dagster on the demo
#   make test    run every test against real servers
#   make bench   measure this project beside its peers, and write docs/benchmarks.md,
#                docs/benchmarks-postgres.md and docs/benchmarks-sync.md
#                (ROWS=200000, ITEMS=20000, RUNS=3, ONLY=own,plain for some alone; half an hour,
#                and nothing else should run meanwhile)
#   make check   linters, type checker, definitions
#   make stop    stop the local servers
#   make lock    renew the locks of packages after a change in pyproject.toml (needs uv)

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
JOB ?= all
ENROLMENTS ?= 100000
USERS ?= 100000
CUSTOMERS ?= 100000
LIVE_ENROLMENTS ?= 20000
TENANT_USERS ?= 10000
ROWS ?= 200000
ITEMS ?= 20000
RUNS ?= 3
ONLY ?=
export MIGRATION_PLATFORM_HOME ?= $(CURDIR)/.migration-platform
export DAGSTER_HOME ?= $(MIGRATION_PLATFORM_HOME)/dagster
# `dg` warns when it runs outside of the environment that it finds in the project.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# DynamoDB Local takes any credentials, but wants some: these where a person has none.
LOCAL_CREDENTIALS = test -n "$$AWS_ACCESS_KEY_ID$$AWS_PROFILE$$AWS_WEB_IDENTITY_TOKEN_FILE" -o -e ~/.aws \
	-o -n "$$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI$$AWS_CONTAINER_CREDENTIALS_FULL_URI" \
	|| export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local
# What the local stand-in of Sunbird's services takes; another one for services elsewhere.
export SUNBIRD_SYNC_API_KEY ?= local-sunbird

.PHONY: demo ui test bench check stop lock install instance browser peers
.DEFAULT_GOAL := demo

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Error: Python 3.11 or newer is needed; name it with PYTHON=..."; exit 1; }
	@echo "Making the virtual environment in $(VENV) (a minute the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Settings first, or Dagster starts with its telemetry on.
instance:
	@mkdir -p "$(DAGSTER_HOME)" && { test -e "$(DAGSTER_HOME)/dagster.yaml" \
	|| cp deploy/local/dagster.yaml "$(DAGSTER_HOME)/"; }

demo: install
	@$(BIN)/migration-platform demo --job $(JOB) --enrolments $(ENROLMENTS) --users $(USERS) \
		--customers $(CUSTOMERS) --tenant-users $(TENANT_USERS) --live-enrolments $(LIVE_ENROLMENTS)

ui: install instance
	@$(BIN)/migration-platform local up cassandra kafka dynamodb postgres neo4j sunbird
	@echo "Dagster opens on http://127.0.0.1:3000 (Ctrl-C ends it; the servers go on until: make stop)"
	@$(LOCAL_CREDENTIALS); $(BIN)/dg dev --host 127.0.0.1 --port 3000

test: install browser
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(TESTS)

# The tests look at the UI with a real browser.
browser: install
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	     && echo "Installing Chromium" && apt-get update -qq && apt-get install -y -qq chromium >/dev/null; } \
	|| $(BIN)/playwright install chromium

bench: install peers
	@$(BIN)/python -m benchmarks.bench --rows $(ROWS) --items $(ITEMS) --runs $(RUNS) --only "$(ONLY)"
	@test -n "$(ONLY)" || $(BIN)/python -m benchmarks.postgres --rows $(ROWS) --runs $(RUNS)
	@test -n "$(ONLY)" || $(BIN)/python -m benchmarks.sync --rows 100000 --keys 10000 --runs $(RUNS)

# In a folder of their own: never beside the package, nor seen by it.
peers: install
	@to="$(MIGRATION_PLATFORM_HOME)/bench/packages"; \
	test "$$to/.installed" -nt requirements-bench.lock || { \
		echo "Installing the benchmark's peers (some minutes the first time)" && rm -rf "$$to" \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
			--no-build-isolation --target "$$to" -r requirements-bench.lock && touch "$$to/.installed"; }

check: install instance
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/dg check defs

stop: install
	@$(BIN)/migration-platform local down

lock:
	uv pip compile pyproject.toml --extra local --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --no-strip-extras \
		--quiet --output-file requirements.lock
	uv pip compile --group bench --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --no-annotate --no-strip-extras \
		--quiet --output-file requirements-bench.lock
