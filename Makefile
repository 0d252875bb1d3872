# Needs only make and a Python >= 3.11 with venv; `make interop` needs Node >= 20 besides,
# `make conformance` npm.
# Each target makes the environments it uses. Environments are made anew when what they are
# made of changes; PYTHON chooses the interpreter (PYTHON=python3.13 make test).

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test check interop conformance chaos soak streams drain fuzz docs faults lock bench clean

IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The first that is new enough; python3 where none is, so that the message can name its version.
ifndef PYTHON
PYTHON := $(shell for each in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$each" -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo "$$each" && exit; done; echo python3)
endif
PORT ?= 8000
# Test modules at once: the tests wait for processes more than they compute.
JOBS ?= 3
PYTEST_ARGS ?=
BENCH_ARGS ?=
BRIDGE_ARGS ?=

BIN := .venv/bin
# Errors only: a mirror that holds less than the index is no concern of who runs make.
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
PEERS := .venv-mcp1/stamp .venv-mcp2/stamp
NODE_PEERS := tests/interop/node_modules/.stamp
REFEREES := tests/referees/node_modules/.stamp

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; do \
		printf 'make %-11s %s\n' "$$name" "$$what"; done

# exec: the signals of a terminal or a supervisor reach the bridge and not a shell before it.
run: .venv/stamp ## serve the bundled example on PORT (8000)
	exec $(BIN)/python -m mcpbridge --port $(PORT) -- $(BIN)/python -m mcpbridge.demo

test: .venv/stamp $(PEERS) ## every test that needs no Node; PYTEST_ARGS='-k name' is passed on
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

check: .venv/stamp ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

interop: .venv/stamp $(PEERS) $(NODE_PEERS) ## the tests that need Node >= 20
	$(BIN)/python -m pytest tests/interop $(PYTEST_ARGS)

conformance: .venv/stamp $(PEERS) $(REFEREES) ## the official suites; BRIDGE_ARGS is passed on
	$(BIN)/python -m tests.referees.conformance $(BRIDGE_ARGS)

chaos: .venv/stamp ## calls while children are killed; CALLS=100000 is the size, SEED repeats
	$(BIN)/python -m tests.suites.chaos

soak: .venv/stamp ## memory and whatever else could grow; CALLS=100000 and SESSIONS=20000 is the size
	$(BIN)/python -m tests.suites.soak

streams: .venv/stamp ## memory and p99 with many open streams; STREAMS=5000 is the size
	$(BIN)/python -m tests.suites.streams

drain: .venv/stamp ## replicas end under load behind a balancer; RUNS=100 is the size, SEED repeats
	$(BIN)/python -m tests.suites.drain

fuzz: .venv/stamp ## any bytes are read right or refused; SECONDS_EACH=60 for each of five targets
	$(BIN)/python -m tests.suites.fuzz

docs: .venv/stamp ## write the settings into README.md, and docs/faults.md
	$(BIN)/python -m mcpbridge.config.table README.md
	$(BIN)/python -m tests.faults.catalogue docs/faults.md

# What may go wrong, what mcpbridge does about it, and which tests prove it.
faults: .venv/stamp ## what may go wrong, what happens then, and the tests that prove it
	@$(BIN)/python -m tests.faults.catalogue

bench: .venv/stamp ## calls/s, CPU and memory as JSON lines; BENCH_ARGS is passed on
	$(BIN)/python benchmarks/throughput.py $(BENCH_ARGS)

# One resolution for all platforms and for every Python from the oldest supported on. The
# resolver lives in a directory of its own: no environment of the project holds it.
lock: ## resolve anew and write constraints.txt
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	$(PYTHON) -m venv "$$made/venv"; \
	"$$made/venv/bin/python" $(PIP_INSTALL) 'uv>=0.9,<1'; \
	{ echo '# Made by `make lock`; do not edit. Every release the project and its dev extra pull,'; \
	  echo '# on every platform and from Python 3.11 on.'; \
	  "$$made/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --extra dev \
		--no-header --no-annotate pyproject.toml; } > "$$made/constraints.txt"; \
	cat "$$made/constraints.txt" > constraints.txt

clean: ## remove environments, caches and built files
	rm -rf .venv .venv-mcp1 .venv-mcp2 build dist
	rm -rf tests/interop/node_modules tests/referees/node_modules
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find mcpbridge tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The build backend comes first and from the lock, hence no build isolation: nothing that make
# installs is left to the day's newest release.
.venv/stamp: pyproject.toml constraints.txt
	$(call make_venv,.venv)
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt editables hatchling
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# What the bridge is tested against keeps to its own releases, one environment for each SDK.
.venv-%/stamp: tests/e2e/peers/requirements-%.txt
	$(call make_venv,.venv-$*)
	.venv-$*/bin/python $(PIP_INSTALL) -r $<
	@touch $@

$(NODE_PEERS): tests/interop/package.json $(wildcard tests/interop/package-lock.json)
	@command -v node >/dev/null && command -v npm >/dev/null \
		|| { echo 'make interop: needs node >= 20 and npm; install Node.js' >&2; exit 1; }
	@node -e 'process.exit(parseInt(process.versions.node, 10) < 20 ? 1 : 0)' \
		|| { echo "make interop: needs node >= 20; found $$(node --version)" >&2; exit 1; }
	cd tests/interop && \
		if test -f package-lock.json; then npm ci --no-audit --no-fund --loglevel=error; \
		else npm install --no-audit --no-fund; fi
	@touch $@

# The suites need Node >= 22: where a package can bring one it is among what is installed here, so
# that any Node that runs npm will do.
$(REFEREES): tests/referees/package.json tests/referees/package-lock.json
	@command -v npm >/dev/null || { echo 'make conformance: needs npm; install Node.js' >&2; exit 1; }
	cd tests/referees && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# The first two lines fail with one sentence each where the interpreter cannot do it.
define make_venv
@$(PYTHON) -c '$(IS_NEW_ENOUGH)' 2>/dev/null || { echo "make: needs Python >= 3.11; $(PYTHON) is\
 $$($(PYTHON) --version 2>&1 | tail -n 1); install python3.11 or set PYTHON" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) has no venv;\
 install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
$(PYTHON) -m venv --clear $(1)
endef
