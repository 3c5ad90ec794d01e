# Any Python from 3.11 on: make run PYTHON=python3.13
PYTHON ?= python3

# Or, with Podman 5: make up COMPOSE=podman-compose
COMPOSE ?= docker compose
export BUILDAH_FORMAT := docker  # Podman's own format of images knows no health checks

PIP_INSTALL := .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes
UV_VERSION := 0.13.9
UV := .venv/uv-$(UV_VERSION)/bin/uv
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --custom-compile-command "make lock"

# Or every process that tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install markdown run demo up down test torture mutants clients bench growth pages screenshots soak measure recall attacks migrations scaling aws-check lint lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: .venv/installed ## Make .venv and install the pinned dependencies into it

markdown: install ## Add what the processor text makes better Markdown of PDF with
	$(PIP_INSTALL) --requirement requirements-markdown.txt

run: install ## Serve on http://127.0.0.1:8000, the database migrated first
	.venv/bin/python -m app serve

demo: install ## Take a document through its whole life; ARGS="--url http://…": on a server that runs
	.venv/bin/python -m app demo $(ARGS)

up: ## Start all of compose.yaml: API, workers, PostgreSQL, object store, broker
	deploy/make-secrets
	$(COMPOSE) up --detach --build --wait

down: ## Stop it; its data stays, in volumes
	$(COMPOSE) down --timeout 40

test: .venv/installed-tests ## Run the tests; ARGS="-k upload" is handed on to pytest
	.venv/bin/python -m pytest $(ARGS)

torture: .venv/installed-tests ## Run what proves the promise again, for an hour instead of a minute
	TORTURE=1 .venv/bin/python -m pytest -o faulthandler_timeout=3600 -m "" $(ARGS) \
		tests/flows/test_chaos.py tests/flows/test_faults.py tests/flows/test_state_machine.py tests/api/test_openapi.py

mutants: .venv/installed-tests ## Remove each guard that the promise rests on, and see the tests fail
	.venv/bin/python -m tests.mutants

clients: .venv/installed-clients ## Generate clients in Python and TypeScript, and do the main job with each
	.venv/bin/python -m tests.clients

bench: .venv/installed-benchmarks ## Measure against a textbook app and the machine's limit; ARGS="--only upload"
	.venv/bin/python -m tests.benchmarks $(ARGS)

growth: .venv/installed-benchmarks ## Measure how cost grows to 1,000 connections and 1,000,000 documents
	.venv/bin/python -m tests.benchmarks.growth

pages: .venv/installed-tests ## Measure the first byte of each page of the console, with 100,000 documents
	.venv/bin/python -m tests.benchmarks.console

screenshots: .venv/installed-tests ## Make the pictures of the console in README.md; TEST_CHROMIUM names a browser
	.venv/bin/python -m tests.browser.screenshots

soak: .venv/installed-tests ## Ten minutes of mixed traffic at 80 % of capacity; SECONDS=60 is a shorter one
	.venv/bin/python -m tests.benchmarks.soak

measure: .venv/installed-tests ## Count lines, names and calls against their limits; ARGS="--calls upload" lists the calls
	.venv/bin/python -m tests.benchmarks.measure $(ARGS)

recall: .venv/installed-tests ## Compare texts with those of pdftotext and pandoc; FILES=folder
	.venv/bin/python -m tests.benchmarks.recall $(FILES)

attacks: .venv/installed-tests ## Measure what attacks cost another account; ARGS="hold logins" chooses
	.venv/bin/python -m tests.benchmarks.attacks $(ARGS)

migrations: .venv/installed-tests ## Measure how long writes wait for migrations of 1,000,000 documents on PostgreSQL
	.venv/bin/python -m tests.benchmarks.migrations

scaling: .venv/installed-tests ## Measure what a document takes of PostgreSQL, and what partitions of its events change
	.venv/bin/python -m tests.benchmarks.scaling

aws-check: .venv/installed-tests ## Run deploy/aws's scripts at AWS's services in .venv/ministack: deploy, destroy, and again
	.venv/bin/python -m tests.support.terraform

lint: .venv/installed-tests ## Check style, formatting and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

lock: $(UV) ## Pin what the *.in files ask for; ARGS=--upgrade takes newer releases
	$(COMPILE) $(ARGS) requirements.in --output-file requirements.txt
	$(COMPILE) $(ARGS) requirements-markdown.in --output-file requirements-markdown.txt
	$(COMPILE) $(ARGS) --constraints requirements.txt examples/langgraph/pyproject.toml \
		--output-file examples/langgraph/requirements.txt
	$(COMPILE) $(ARGS) tests/requirements.in --output-file tests/requirements.txt
	$(COMPILE) $(ARGS) tests/ministack.in --output-file tests/ministack.txt
	$(COMPILE) $(ARGS) tests/benchmarks/requirements.in --output-file tests/benchmarks/requirements.txt
	$(COMPILE) $(ARGS) tests/clients/requirements.in --output-file tests/clients/requirements.txt
	$(COMPILE) $(ARGS) --constraints tests/requirements.txt deploy/aws/lambda/requirements.in \
		--output-file deploy/aws/lambda/requirements.txt
	$(COMPILE) $(ARGS) .ci/requirements.in --output-file .ci/requirements.txt

.env.example: .venv/installed $(wildcard app/settings/*.py)
	.venv/bin/python -m tests.support.env_example > $@

# As the Prometheus Operator takes them.
deploy/kubernetes/monitoring/rules.yaml: deploy/monitoring/rules.yml
	printf '%s\n' '# Made of $< by `make $@`.' 'apiVersion: monitoring.coreos.com/v1' \
		'kind: PrometheusRule' 'metadata: { name: document-api }' 'spec:' > $@
	sed --quiet 's/^[^#]/  &/p' $< >> $@

clean: ## Remove what the other targets made, but not var/: that is data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find app tests -name __pycache__ -prune -exec rm -rf {} +

# Made anew, so that it never holds what the lock file has dropped.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'Python 3.11 or newer is needed. If it has another name: make PYTHON=python3.13 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'Python lacks its venv module. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@echo "Installing $$(grep -c == requirements.txt) packages into .venv. This takes about a minute."
	$(PIP_INSTALL) --requirement requirements.txt
	@touch $@

.venv/installed-tests: .venv/installed tests/requirements.txt tests/ministack.txt examples/langgraph/requirements.txt
	$(PIP_INSTALL) --requirement tests/requirements.txt
	$(PYTHON) -m venv --clear --without-pip .venv/ministack
	.venv/bin/pip --python .venv/ministack/bin/python install --quiet --disable-pip-version-check \
		--require-hashes --requirement tests/ministack.txt
	rm -rf .venv/langgraph
	$(PIP_INSTALL) --target .venv/langgraph --requirement examples/langgraph/requirements.txt
	@touch $@

.venv/installed-benchmarks: .venv/installed-tests tests/benchmarks/requirements.txt
	$(PIP_INSTALL) --requirement tests/benchmarks/requirements.txt
	@touch $@

.venv/installed-clients: .venv/installed-tests tests/clients/requirements.txt
	$(PYTHON) -m venv --clear --without-pip .venv/clients
	.venv/bin/pip --python .venv/clients/bin/python install --quiet --disable-pip-version-check --no-compile \
		--require-hashes --requirement tests/clients/requirements.txt
	@touch $@

$(UV):
	$(PYTHON) -m venv .venv/uv-$(UV_VERSION)
	.venv/uv-$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
