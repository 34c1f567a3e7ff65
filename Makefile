# The two commands: `make demo` and `make test`. Everything happens in .venv, with the Airflow and the Python named here;
# with others, in an environment of theirs.
AIRFLOW ?= 3.3.2
PYTHON ?= python3
ifeq ($(AIRFLOW) $(PYTHON),3.3.2 python3)
VENV := .venv
else
VENV := .venv-$(AIRFLOW)-py$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif

# Airflow imports more than a thousand modules in each of its processes: without byte code every start takes seconds more.
unexport PYTHONDONTWRITEBYTECODE
# What a user's shell says about another Airflow or other modules has no business here.
unexport PYTHONPATH AIRFLOW_HOME AIRFLOW_CONFIG

BIN := $(VENV)/bin
CONSTRAINTS := constraints/airflow-$(AIRFLOW).txt
# Made last, so it is there only when the installation is complete.
INSTALLED := $(VENV)/.airflow-$(AIRFLOW)
CELERY := $(VENV)/.celery-$(AIRFLOW)
# What needs no Airflow: for lint, docs, sbom and audit.
TOOLS := .venv-tools
# Two processes, each with whole files: what a file sets up, an Airflow even, is set up once.
HALVES := --numprocesses 2 --dist loadfile

.PHONY: help demo test test-hostile test-crash test-storm test-celery test-ha servers test-browser screenshots demo-picture browser reference coverage lint types docs build sbom audit clean
.DEFAULT_GOAL := help

help:
	@echo "make demo         start a real Airflow, run a job of an Agenty agent, land its CSV"
	@echo "make test         run all tests (ARGS='-k landing' for some of them)"
	@echo "make test-hostile have each call answered badly (EXAMPLES=5000 for a longer run)"
	@echo "make test-crash   run the tests that kill real processes of Airflow"
	@echo "make test-storm   kill Airflow and fail Agenty at random moments (SEED=7 MINUTES=20; 3 minutes of any seed else)"
	@echo "make test-celery  run 39 jobs over two of each of Airflow's components, and take three things away"
	@echo "make test-ha      the same with 200 jobs and all that can be taken away: up to 20 minutes on two cores"
	@echo "                  (both need Debian's postgresql and redis-server)"
	@echo "make test-browser look at Airflow's pages with a headless Chromium (needs Debian's chromium)"
	@echo "make screenshots  take the pictures in docs/images again"
	@echo "make reference    write docs/reference.md from the docstrings"
	@echo "make demo-picture draw docs/images/demo.svg from a run of the demo"
	@echo "make coverage     run all tests and show which lines and branches none of them reaches"
	@echo "make lint         check style and format"
	@echo "make types        check types"
	@echo "make docs         build the site in build/site from docs/ (ARGS='serve' to look at it)"
	@echo "make build        build and check the packages in dist/"
	@echo "make sbom         list in build/sbom.cdx.json what a new Airflow $(AIRFLOW) with the wheel of dist/ consists of"
	@echo "make audit        tell of known vulnerabilities in what Airflow $(AIRFLOW) comes with"
	@echo "make clean        remove everything that was made here"
	@echo "With AIRFLOW=$(AIRFLOW) PYTHON=$(PYTHON); both can be given."

demo: $(INSTALLED)
	@$(BIN)/python demo.py

# With ARGS only what they say; the hostile suite wants a process in which no other test has run.
test: $(INSTALLED)
	$(BIN)/python -m pytest -q $(or $(ARGS),$(HALVES))
	$(if $(ARGS),,$(BIN)/python -m pytest -q -m hostile tests/hostile)

test-hostile: $(INSTALLED)
	AGENTY_HOSTILE_EXAMPLES=$(or $(EXAMPLES),240) $(BIN)/python -m pytest -q -m hostile tests/hostile $(ARGS)

test-crash: $(INSTALLED)
	$(BIN)/python -m pytest -q -m crash $(ARGS)

test-storm: $(INSTALLED)
	AGENTY_STORM_SEED=$(SEED) AGENTY_STORM_MINUTES=$(MINUTES) $(BIN)/python -m pytest -q -m storm tests/storm $(ARGS)

test-celery: servers $(CELERY)
	$(BIN)/python -m pytest -q -m celery $(ARGS)

test-ha: servers $(CELERY)
	AGENTY_CELERY=whole $(BIN)/python -m pytest -q -m celery $(ARGS)

servers: $(INSTALLED)
	@$(BIN)/python -m tests.airflow_harness.services

test-browser: browser
	$(BIN)/python -m pytest -q -m browser tests/browser $(ARGS)

screenshots: browser
	$(BIN)/python -m tests.browser.screenshots

reference: $(INSTALLED)
	$(BIN)/python -m tests.docs.reference

demo-picture: $(INSTALLED)
	mkdir -p build
	$(BIN)/python demo.py > build/demo.txt
	$(BIN)/python -m tests.browser.demo_picture < build/demo.txt > docs/images/demo.svg

# What drives Chromium, which only test-browser and screenshots need.
browser: $(INSTALLED)
	@$(BIN)/python -c 'import playwright' 2>/dev/null || \
		$(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(CONSTRAINTS) --editable '.[browser]'

coverage: $(INSTALLED)
	rm -rf .coverage
	mkdir .coverage
	$(BIN)/python -m coverage run -m pytest -q $(ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

# All that git runs before a commit, on all files; mypy has a target of its own.
lint: $(TOOLS)/.installed
	@SKIP=mypy $(TOOLS)/bin/pre-commit run --all-files --show-diff-on-failure

types: $(INSTALLED)
	$(BIN)/mypy

# Material tells of its successor at each build.
docs: $(TOOLS)/.installed
	@NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs $(or $(ARGS),build --clean)
	$(if $(ARGS),,@echo "The site is in build/site.")

build: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

sbom: $(TOOLS)/.installed $(CONSTRAINTS)
	$(PYTHON) -m venv --clear build/sbom
	build/sbom/bin/python -m pip --disable-pip-version-check install --quiet --constraint $(CONSTRAINTS) dist/*.whl
	$(TOOLS)/bin/cyclonedx-py environment --output-reproducible \
		--output-file build/sbom.cdx.json build/sbom/bin/python

audit: $(TOOLS)/.installed $(CONSTRAINTS)
	@$(TOOLS)/bin/pip-audit --progress-spinner off --disable-pip --no-deps --requirement $(CONSTRAINTS)

clean:
	rm -rf .venv .venv-* .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(CONSTRAINTS):
	@echo "There is no $(CONSTRAINTS): Airflow $(AIRFLOW) is not one of those tested here. There are:" >&2
	@ls constraints >&2
	@exit 1

$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or later is needed, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "Installing Airflow $(AIRFLOW) into $(VENV); this takes a minute or two, and only the first time."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	@touch $@

$(TOOLS)/.installed: constraints/tools.txt
	@echo "Installing the tools for style and docs into $(TOOLS), only the first time."
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

$(CELERY): $(INSTALLED)
	@echo "Installing the CeleryExecutor into $(VENV), only the first time."
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint $(CONSTRAINTS) --editable '.[celery]'
	@touch $@
