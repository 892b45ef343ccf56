# Everything a contributor or CI runs. Needs Python 3.11 and make; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that run the tests, which mostly wait; 0 is none but the one
WORKERS ?= 3
STAMP := $(VENV)/.installed

.PHONY: demo test check lint types imports spelling bench test-cluster lock clean
.PHONY: chart chart-docs image sbom chaos
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml requirements-dev.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo: $(STAMP) ## Run one job on the embedded sandbox and prove that nothing is left
	$(BIN)/pyvatti demo $(if $(SCENARIO),--scenario $(SCENARIO))

test: $(STAMP) check ## Lint, types, import rules, then the whole test suite
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: lint types imports spelling ## Everything but the tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports --no-cache

spelling: $(STAMP)
	$(BIN)/codespell .

bench: $(STAMP) ## Print the table of ratios; on a real API server with PYVATTI_TEST_KUBECONFIG
	$(BIN)/python -m bench

test-cluster: $(STAMP) ## Conformance, stories and the chart on the cluster of PYVATTI_TEST_KUBECONFIG
	@test -n "$$PYVATTI_TEST_KUBECONFIG$$USE_EXISTING_CLUSTER$$KUBEBUILDER_ASSETS" || \
	  { echo 'set PYVATTI_TEST_KUBECONFIG to the kubeconfig of a cluster' >&2; exit 2; }
	$(BIN)/pytest -m cluster --timeout 900

lock: ## Pin every dependency by hash (needs uv)
	uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --python-version 3.11 pyproject.toml -o requirements.lock
	uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --python-version 3.11 --group dev pyproject.toml -o requirements-dev.lock
	echo hatchling==1.33.0 | uv pip compile --universal --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url --python-version 3.11 - -o requirements-build.lock

chart: $(STAMP) ## Lint and render the chart with a real helm, print its permissions, run its tests
	$(BIN)/python tests/chart_tools.py check
	$(BIN)/python tests/chart_tools.py permissions
	$(BIN)/pytest tests/test_chart*.py tests/test_permissions.py

chart-docs: $(STAMP) ## Write the tables of chart/README.md anew
	$(BIN)/python tests/chart_docs.py

image: $(STAMP) ## Build the service's image and test it
	.ci/image build
	$(BIN)/pytest tests/test_image.py

sbom: ## Write the image's bill of materials to build/sbom.json
	mkdir -p build
	.ci/image sbom build/sbom.json

chaos: $(STAMP) ## Kill the service at every step and soak it; ONLY="replicas" for a part
	$(BIN)/python -m chaos $(if $(ONLY),--only "$(ONLY)") $(if $(SEED),--seed $(SEED))

clean: ## Remove everything that was made
	rm -rf $(VENV) .make build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage \
	  .import_linter_cache sandbox.kubeconfig
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
