SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
PYTEST := .venv/bin/python -m pytest
UV_VERSION := 0.13.9

.PHONY: help demo test test-fast gate chaos bench lint docs lock generate clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: ## cluster, images, chart and one training job; NIH_DIR=folder for real X-rays
	@$(PYTHON) dev/demo

# who has no real radiographs is told what is not tested
ifndef NIH_SAMPLE_DIR
AND_NO_SAMPLE := and not nih_sample
$(if $(filter test test-fast,$(MAKECMDGOALS)),$(info NIH_SAMPLE_DIR is not set: the tests on real radiographs are left out))
endif

test: test-fast build/python38/ready ## every test that needs no accelerator, on a real control plane and node
	$(PYTEST) tests/unit tests/contract -m "slow $(AND_NO_SAMPLE)"
	build/python38/bin/python -m pytest -c tests/python38/pytest.ini tests/python38
	@# side by side: each has a cluster of its own, for which it waits most of the time
	$(PYTEST) -m "not slow $(AND_NO_SAMPLE)" tests/chart tests/integration > build/test-integration.log 2>&1 & integration=$$!; \
	$(PYTEST) -m "not slow $(AND_NO_SAMPLE)" tests/e2e; rest=$$?; \
	wait $$integration || rest=1; cat build/test-integration.log; exit $$rest
	$(PYTEST) -m "not slow $(AND_NO_SAMPLE)" tests/chaos tests/gate
	XRAY_CHAOS_IMAGE=ipu $(PYTEST) tests/chaos

# side by side, about as long as each other: what imports torch and other large libraries on one core, the rest on the other
LARGE := $(addprefix tests/unit/trainer/test_,$(addsuffix .py,checkpoints dataset floors metrics model prepare prepare_sources privacy)) \
	$(wildcard tests/contract/test_trainer_*.py)

test-fast: .venv/ready ## unit and contract tests but the slow ones, and the coverage of the operator's core
	@mkdir -p build
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow $(AND_NO_SAMPLE)" $(LARGE) > build/test-large.log 2>&1 & large=$$!; \
	$(PYTEST) -m "not slow $(AND_NO_SAMPLE)" --cov --cov-report=term --cov-report=json:build/coverage.json \
		tests/unit tests/contract $(addprefix --ignore=,$(LARGE)); rest=$$?; \
	wait $$large || rest=1; cat build/test-large.log; [ $$rest = 0 ] && .venv/bin/python dev/branches.py || rest=1; \
	echo "$@: $$SECONDS s"; exit $$rest

gate: .venv/ready ## the proof that training learns, mean of three seeds
	XRAY_GATE_SEEDS=3 $(PYTEST) tests/gate -s

chaos: .venv/ready ## twenty stops at random steps of runs on the real node, and twenty on emulated IPUs
	XRAY_CHAOS_KILLS=20 $(PYTEST) tests/chaos -s
	XRAY_CHAOS_KILLS=20 XRAY_CHAOS_IMAGE=ipu $(PYTEST) tests/chaos -s

bench: .venv/ready build/decoders/ready ## the benchmarks; figures in build/bench
	@set -e; for b in benchmarks/*.py; do PYTHONPATH=.:operator:trainer-image .venv/bin/python $$b; done

build/decoders/ready: benchmarks/decoders.txt .venv/ready
	.venv/bin/uv venv -q --clear --python .venv/bin/python build/decoders
	.venv/bin/uv pip sync -q --require-hashes --python build/decoders/bin/python $<
	touch $@

# Python 3.8 with the IPU's libraries; pyenv's python3.8 answers only to who has chosen it
build/python38/ready: tests/python38/requirements.txt
	PYENV_VERSION=3.8 .venv/bin/uv venv -q --clear --python 3.8 build/python38 || \
		{ echo "no Python 3.8, and uv can't download one; 'pyenv install 3.8' brings it"; exit 1; }
	.venv/bin/uv pip sync -q --require-hashes --python build/python38/bin/python $<
	touch $@

lint: .venv/ready ## format, lint, types, import rules, generated files
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy operator/xray_operator operator/xray_cli trainer-image/xray_trainer
	.venv/bin/mypy --explicit-package-bases dev
	cd operator && ../.venv/bin/lint-imports --no-cache
	.venv/bin/yamllint --strict .
	diff -r crds charts/xray-operator/crds
	diff docs/reference.md <(.venv/bin/python dev/reference.py)
	diff docs/sizing.md <(PYTHONPATH=operator .venv/bin/python -m dev.sizing)
	diff docs/cli.md <(PYTHONPATH=operator .venv/bin/python -m dev.cli)
	diff docs/cost.md <(PYTHONPATH=operator .venv/bin/python -m dev.comparison)
	.venv/bin/python -m dev.chart lint
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build 2>&1 | (! grep -v INFO) # with --quiet it is not strict

docs: .venv/ready ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build

generate: .venv/ready ## from the CRDs: the chart's copy and the API reference; the table of sizes; the commands; the tables of a comparison; the chart's table and schema of values
	rm -rf charts/xray-operator/crds && cp -r crds charts/xray-operator/crds
	.venv/bin/python dev/reference.py > docs/reference.md
	page=$$(PYTHONPATH=operator .venv/bin/python -m dev.sizing) && echo "$$page" > docs/sizing.md
	page=$$(PYTHONPATH=operator .venv/bin/python -m dev.cli) && echo "$$page" > docs/cli.md
	page=$$(PYTHONPATH=operator .venv/bin/python -m dev.comparison) && echo "$$page" > docs/cost.md
	.venv/bin/python -m dev.chart generate

LOCK_ANY := .venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate
LOCK := $(LOCK_ANY) --universal --python-version 3.11
LOCK38 := $(LOCK_ANY) --python-version 3.8 --python-platform linux

# triton (1 GB; in old versions with cmake and lit) compiles GPU kernels for torch.compile, which is not used; hf-xet
# (11 MB) brings another protocol for the hub's files, with certificates and proxies of its own
LEAN := --no-emit-package triton --no-emit-package cmake --no-emit-package lit --no-emit-package hf-xet

lock: .venv/ready ## write the lock files anew
	$(LOCK) pyproject.toml -o operator/requirements.txt
	$(LOCK) trainer-image/pyproject.toml --extra prepare $(LEAN) -o trainer-image/requirements/prepare.txt
	$(LOCK) trainer-image/pyproject.toml --extra torch $(LEAN) -o trainer-image/requirements/torch.txt
	$(LOCK) pyproject.toml trainer-image/pyproject.toml --extra cli --extra pictures --extra prepare --extra torch --group pyproject.toml:dev \
		$(LEAN) -o requirements-dev.txt
	$(LOCK) tests/s3/requirements.in trainer-image/pyproject.toml --extra prepare $(LEAN) -o tests/s3/requirements.txt
	$(LOCK) tests/mlflow/requirements.in -o tests/mlflow/requirements.txt
	$(LOCK) benchmarks/decoders.in -o benchmarks/decoders.txt
	$(LOCK38) trainer-image/pyproject.toml --extra ipu $(LEAN) -o trainer-image/requirements/ipu.txt
	$(LOCK38) trainer-image/pyproject.toml --extra ipu tests/python38/requirements.in \
		-c trainer-image/requirements/ipu.txt $(LEAN) -o tests/python38/requirements.txt

.venv/ready: requirements-dev.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q uv==$(UV_VERSION)
	.venv/bin/uv pip sync -q --python .venv/bin/python requirements-dev.txt
	touch $@

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/xray-operator

clean: ## list and remove what demo and tests left on this machine; ALL=1: built tools and images too
	@echo "stopping the clusters and removing:"; du -sh build .venv $(CACHE)/cluster $(CACHE)/volumes \
		$(if $(ALL),$(CACHE)/tools $(CACHE)/images) 2>/dev/null || true
	$(PYTHON) dev/cluster down --purge --name integration
	$(PYTHON) dev/cluster down --purge $(if $(ALL),--all)
	rm -rf build .venv $(CACHE)/volumes
	@echo "left: the caches of Go, pip and uv, and Debian packages, which belong to the machine"
