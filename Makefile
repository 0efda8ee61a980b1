# Every habit is a target; bare `make` prints them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UP_OPTIONS ?=
HISTORIES_OPTIONS ?=
SCALE_OPTIONS ?=
UPGRADE_OPTIONS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# uv takes a tenth of pip's time. Where it can't install (an index or certificates that only pip was told of), pip does.
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
INSTALL = $(UV) --require-hashes -r $(1) || $(PIP) --require-hashes -r $(1)
COMPILE = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock"

# Imports are most of a start: whoever keeps no compiled modules compiles them again and again.
unexport PYTHONDONTWRITEBYTECODE

# So that what runs side by side is told one after the other; older makes can't.
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
CHECKS := check-style check-types check-imports check-schema check-refusals check-migrations
.PHONY: help up install test full mutants chaos histories scale-out conformance check $(CHECKS) fmt schema roles migration upgrade release bench lock clean

help: ## Print this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

$(VENV)/runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes -r requirements-uv.lock || echo "uv can't be installed; pip takes a minute instead."
	$(call INSTALL,requirements.lock)
	$(UV) --no-deps --no-build-isolation --editable . || $(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/development: requirements-dev.lock $(VENV)/runtime
	$(call INSTALL,requirements-dev.lock)
	@touch $@

up: $(VENV)/runtime ## Start the whole engine with demo data; UP_OPTIONS="--port 9000" and so on
	@$(BIN)/flash up $(UP_OPTIONS)

install: $(VENV)/development ## Install everything that development needs into .venv

test: $(VENV)/development ## Run every test, in parallel
	$(BIN)/pytest -n auto

full: $(VENV)/development ## Run every test at its full size, each process started as in production, then the mutants and histories
	FLASH_TEST_FULL=1 FLASH_CONFORMANCE_CASES=2000 $(BIN)/pytest -n auto
	$(BIN)/python -m tests.mutants
	$(BIN)/python -m tests.histories --seconds 120

mutants: $(VENV)/development ## Break verbs in eleven ways and see that the tests catch each
	$(BIN)/python -m tests.mutants

chaos: $(VENV)/development ## Kill and freeze servers for a minute, under live wallets and under a whole engine's load
	FLASH_TEST_FULL=1 FLASH_CHAOS_SECONDS=60 FLASH_CHAOS_MEMBERS=100 FLASH_CHAOS_RATE=50 $(BIN)/pytest -n 1 tests/chaos

histories: $(VENV)/development ## Judge what clients were told of an engine in trouble; HISTORIES_OPTIONS="--seconds 3600 --seed 7"
	$(BIN)/python -m tests.histories $(HISTORIES_OPTIONS)

scale-out: $(VENV)/development ## Try an engine on two servers behind the real router, in trouble: make scale-out PGDOG=path/to/pgdog
	@$(BIN)/python -m tests.scale_out $(if $(PGDOG),"$(PGDOG)") $(SCALE_OPTIONS)

conformance: $(VENV)/development ## Send 2,000 made-up documents and every hostile value in every argument; audit HTTP and sockets
	FLASH_CONFORMANCE_CASES=2000 $(BIN)/pytest -n 2 tests/conformance tests/clients tests/web/test_sockets.py

check: $(VENV)/development ## Lint, types, import rules, schema.graphql current and breaking nobody, refusals provoked, migrations complete
	@$(MAKE) --no-print-directory --jobs --keep-going $(SYNC) $(CHECKS)

check-style: $(VENV)/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: $(VENV)/development
	$(BIN)/mypy

check-imports: $(VENV)/development
	$(BIN)/lint-imports

check-schema: $(VENV)/development
	@$(BIN)/flash schema | diff - schema.graphql || { echo "schema.graphql is not current: make schema"; exit 1; }
	@$(BIN)/flash schema --since schema.released.graphql

check-refusals: $(VENV)/development
	@$(BIN)/python -m tests.histories.provoked

check-migrations: $(VENV)/development
	@$(BIN)/python -m migrations

fmt: $(VENV)/development ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(VENV)/development ## Write schema.graphql
	$(BIN)/flash schema > schema.graphql

roles: $(VENV)/development ## Write docs/roles.md
	$(BIN)/python -m app.operate.roles_page > docs/roles.md

migration: $(VENV)/development ## Write a migration for changed models: make migration name=add_rewards
	@test -n "$(name)" || { echo "make migration name=add_rewards"; exit 1; }
	@$(BIN)/tortoise makemigrations --name $(name)
	@$(BIN)/ruff check --quiet --fix migrations
	@$(BIN)/ruff format --quiet $$(ls migrations/[0-9]*.py | tail -n 1)

upgrade: $(VENV)/development ## Let an older version serve under load while this one takes over: make upgrade FROM=v0.2.0
	@test -n "$(FROM)" || { echo "make upgrade FROM=v0.2.0"; exit 1; }
	@$(BIN)/python -m tests.upgrade $(FROM) $(UPGRADE_OPTIONS)

release: $(VENV)/development ## Write down what a release fixes, and check it: make release version=0.3.0
	@echo "$(version)" | grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+' || { echo "make release version=0.3.0"; exit 1; }
	@grep -Eq '^## $(version)( |$$)' CHANGELOG.md || { echo "CHANGELOG.md has no section ## $(version)."; exit 1; }
	@sed -i.before -E 's/^version = "[0-9.]+"$$/version = "$(version)"/' pyproject.toml
	@sed -i.before -E 's/^## $(subst .,\.,$(version))( .*)?$$/## $(version) ($(shell date -u +%Y-%m-%d))/' CHANGELOG.md
	@rm pyproject.toml.before CHANGELOG.md.before
	@$(BIN)/python -m migrations --release
	@$(MAKE) --no-print-directory check
	@echo 'Released as soon as it is said: git commit --all --message "release: $(version)" && git tag v$(version)'

bench: $(VENV)/development ## Measure, side by side, and write bench/RESULTS.md
	$(BIN)/python -m bench

lock: $(VENV)/development ## Pin the newest versions that fit
	$(COMPILE) --group build --extra embedded pyproject.toml -o requirements.lock
	$(COMPILE) --group build --extra embedded --extra export --extra otel --extra replay --extra dev -c requirements.lock pyproject.toml \
		-o requirements-dev.lock
	echo uv | $(COMPILE) -c requirements-dev.lock - -o requirements-uv.lock

define ASK_FIRST
import fcntl, sys
try:
    lock = open(".flash/flash.lock")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except FileNotFoundError:
    pass
except BlockingIOError:
    print(f"An engine runs on .flash (process {lock.read().strip()}). Delete its data? [y/N] ", end="", flush=True)
    sys.exit(sys.stdin.readline().strip().lower() not in {"y", "yes"} and "Nothing was removed.")
endef
export ASK_FIRST

clean: ## Remove what was installed and built, and the development data; ask while an engine runs on it
	@$(PYTHON) -c "$$ASK_FIRST"
	rm -rf $(VENV) .flash *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
