# `make demo` and `make test` do all the set-up they need.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
POSEGRID := $(BIN)/posegrid
DATA ?=
HOME_FOLDER ?= runs
HERE := not ray and not cluster and not cloud

.DEFAULT_GOAL := help

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## make a virtual environment with the pinned, verified set of packages

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## run the demo grid: `make demo` (synthetic motion) or `make demo DATA=FOLDER` (CMU motion capture)
ifeq ($(strip $(DATA)),)
	$(POSEGRID) prepare synthetic --out data/synthetic
	$(POSEGRID) grid demo --data data/synthetic --home $(HOME_FOLDER)
else
	$(POSEGRID) prepare cmu --raw '$(DATA)' --out data/cmu
	$(POSEGRID) grid demo --data data/cmu --home $(HOME_FOLDER)
endif

test: setup ## all tests but the slow ones, with those that start Ray on this machine
	$(BIN)/python -m pytest -m "$(HERE) and not slow" --numprocesses 3 --dist loadscope
	$(BIN)/python -m pytest -m "ray and not slow"

test-slow: setup ## the slow tests without Ray: every model overfits, exports, compiles; kills at random
	$(BIN)/python -m pytest -m "$(HERE) and slow" --numprocesses 3 --dist loadscope

test-ray: setup ## all tests that start Ray, also the slow ones
	$(BIN)/python -m pytest -m ray

test-unit: setup ## tests that need no Ray
	$(BIN)/python -m pytest -m "$(HERE)" --numprocesses 3 --dist loadscope

test-cluster: setup ## `ray up` for real on test hosts of this machine (root; see CLUSTER.md)
	$(BIN)/python -m pytest -m cluster -s

test-cloud: setup ## `ray up cluster.yaml` on mocked EC2 with test hosts (root; see CLUSTER.md)
	$(BIN)/python -m pytest -m cloud -s

check: setup ## lint, format, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/typing && mkdir -p build/typing/posegrid
	for room in datasets models orchestration experiments; do ln -s ../../../$$room build/typing/posegrid/$$room; done
	cd build/typing && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p posegrid
	$(BIN)/python -m pytest -q tests/test_architecture.py

wheel: setup ## build the wheel that cluster nodes install, with its constraints, in dist/
	rm -rf dist && $(BIN)/python -m build --wheel --outdir dist .
	cp constraints.txt dist/

docs: setup ## API reference from the docstrings, in docs/
	$(BIN)/pdoc --docformat markdown --output-directory docs posegrid.datasets.store posegrid.datasets.schema posegrid.datasets.skeletons \
		posegrid.datasets.windows posegrid.datasets.keypoints.pose_files posegrid.models.interface posegrid.models.registry \
		posegrid.orchestration.settings posegrid.orchestration.own_keypoints posegrid.orchestration.served_model \
		posegrid.orchestration.model_registry posegrid.orchestration.tracking posegrid.orchestration.loop \
		posegrid.experiments.catalogue posegrid.experiments.planning posegrid.experiments.reproductions

ui: setup ## open the results at http://127.0.0.1:5000
	$(POSEGRID) ui --home $(HOME_FOLDER)

.PHONY: help setup demo test test-slow test-ray test-unit test-cluster test-cloud check wheel docs ui
