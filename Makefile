# The commands of this project; `make` alone lists them.

PYTHON ?= python3
ARGS ?=
UPGRADE ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CODE := api worker models tests
COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header
DEV_ONLY := --extra dev --constraint

.DEFAULT_GOAL := help
.PHONY: help run test check lint lock-check lock audit clean soak bench bench-growth bench-worker bench-storms scale

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

run: $(INSTALLED)  ## start everything on this machine (PORT, HOST, DEV_DIR, DATABASE_URL, REDIS_URL move it)
	@exec $(BIN)/python -m api.cli dev

# One process more than cores: most of a test is waiting for servers. Each takes a stretch of the suite, so that what the
# tests of a module share is started once, and who is done early takes from the others.
test: $(INSTALLED)  ## run the whole test suite on throw-away servers (ARGS='-k fence' picks some)
	@$(BIN)/python -m pytest -q --dist worksteal -n $$($(BIN)/python -c 'import os; print(min(max(os.cpu_count() or 2, 2) + 1, 4))') $(ARGS)

check: lint lock-check  ## lint, types, and the lock files against pyproject.toml

lint: $(INSTALLED)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy --strict $(CODE)

# Compiled over a copy of the locks, so that only what pyproject.toml asks for moves a pin.
lock-check: $(INSTALLED)
	@new=$$(mktemp -d) && trap 'rm -rf "$$new"' EXIT && cp requirements.txt requirements-dev.txt "$$new" && \
	$(COMPILE) -o "$$new/requirements.txt" >/dev/null && \
	$(COMPILE) $(DEV_ONLY) "$$new/requirements.txt" -o "$$new/requirements-dev.txt" >/dev/null || \
		{ echo "The lock files cannot be checked: uv could not resolve pyproject.toml (see above)." >&2; exit 1; }; \
	for lock in requirements.txt requirements-dev.txt; do \
		grep -v '^#' $$lock | diff - "$$new/$$lock" >/dev/null || \
			{ echo "$$lock does not match pyproject.toml: run 'make lock' and commit what it changes." >&2; exit 1; }; \
	done; \
	echo "the lock files match pyproject.toml"

lock: $(INSTALLED)  ## rewrite the lock files after a change of pyproject.toml (UPGRADE=1 takes newer versions)
	$(COMPILE) $(if $(UPGRADE),--upgrade) -o requirements.txt >/dev/null
	$(COMPILE) $(if $(UPGRADE),--upgrade) $(DEV_ONLY) requirements.txt -o requirements-dev.txt >/dev/null

audit: $(INSTALLED)  ## ask for known vulnerabilities in requirements.txt; says so when nobody can be asked
	@$(BIN)/python -m tests.audit $(ARGS)

soak: $(INSTALLED)  ## faults, races and attacks at full count, in two hours (ARGS=--help); keeps .soak/latest.json
	@exec $(BIN)/python -m tests.soak $(ARGS)

bench: $(INSTALLED)  ## the gate against its peers, in about three minutes (needs wrk; ARGS=--help)
	@exec $(BIN)/python -m tests.bench $(ARGS)

bench-growth: $(INSTALLED)  ## the gate with 1 thousand and 5 million users in the counters; memory of a user
	@exec $(BIN)/python -m tests.bench.growth $(ARGS)

bench-worker: $(INSTALLED)  ## the jobs with a million rows
	@exec $(BIN)/python -m tests.bench.worker_jobs $(ARGS)

bench-storms: $(INSTALLED)  ## a storm of logins, and Redis emptied under load
	@exec $(BIN)/python -m tests.bench.storms $(ARGS)

scale: $(INSTALLED)  ## what 1, 5 and 10 million users cost, and what a model foresees (ARGS=--help); draws docs/scale.svg
	@exec $(BIN)/python -m tests.scale $(ARGS)

clean:  ## delete .venv and the caches; the data in .dev stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# Written last, so that an installation which was cut short is done again.
$(INSTALLED): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Gatehouse needs Python 3.11 or newer as '$(PYTHON)': install it, or run make with PYTHON=<a newer one>." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "'$(PYTHON)' cannot make virtual environments: install its venv module (Debian: apt install python3-venv)." >&2; exit 1; }
	@echo "installing into $(VENV) …"
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@
