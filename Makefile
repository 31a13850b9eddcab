# make setup    a virtual environment in .venv with the built wheel and every tool
# make demo     the main job on payments, from events to scores
# make demo-rank  a visitor's session in a shop: each click is in the next list
# make test     what CI runs: lint, types, contracts, C++ tests, then pytest on the installed wheel
# make test-faults  the faults that take too long for CI: real Kafka and processes, killed, frozen and cut off
# make develop  the native module in place, for working on the folder with PYTHONPATH=.
# make lint | test-native | test-python | bench | bench-model | bench-gpu | bench-columns | bench-serving | bench-ranking | bench-snapshots | bench-takeover | bench-capacity | bench-visible | bench-redis | loadtest | soak | compare | protos | lock | sbom | manifests | clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SITE = $(shell $(BIN)/python -P -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
JOBS ?= $(shell nproc)
# Processes that run the tests, each with its own brokers and servers: one more than there are cores, because tests also
# wait, but memory for more than eight is not everywhere.
WORKERS ?= $(shell echo $$(( $(JOBS) < 8 ? $(JOBS) + 1 : 8 )))
PYTEST_ARGS ?=

PACKAGES := protos stream graph_updater online_sampler model_server temporal_graph graph_transformer nowgraph
LINTED := $(wildcard $(PACKAGES) scripts loadtests tests examples)
# Folders too: their time changes when a file is deleted. Not the packages themselves: protos is also a target.
WHEEL_SOURCES := $(shell find $(PACKAGES) examples -mindepth 1 -not -name '*.pyc' -not -name '*.so' -not -name __pycache__) CMakeLists.txt README.md LICENSE
NATIVE_SOURCES := $(wildcard temporal_graph/native/*.?pp) CMakeLists.txt

.PHONY: setup develop demo demo-rank test test-faults lint bench bench-model bench-gpu bench-columns bench-serving bench-ranking bench-snapshots bench-takeover bench-capacity bench-visible bench-redis loadtest soak compare protos baseline lock sbom manifests clean test-native test-python

setup: $(VENV)/.wheel

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nowgraph needs Python 3.11 or later: make setup PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# What the C++ tests need, so that they are built while the rest is installed. pip of a fresh environment may be too old
# for dependency groups. Modules are compiled when they are first imported (--no-compile): most never are.
$(VENV)/.build-tools: pyproject.toml | $(BIN)/python
	$(BIN)/python -P -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -P -m pip install --quiet --no-compile --group build
	touch $@

$(VENV)/.dependencies: $(VENV)/.build-tools
	$(BIN)/python -P scripts/install_dependencies.py --no-compile --group dev
	touch $@

$(VENV)/.wheel: $(VENV)/.dependencies $(WHEEL_SOURCES)
	rm -rf build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) \
	  $(BIN)/python -P -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	$(BIN)/python -P -m pip install --quiet --no-deps --force-reinstall build/wheel/nowgraph-*.whl
	touch $@

# The native module inside temporal_graph/ and its stub. Works with whatever is in .venv.
develop: | $(VENV)/.dependencies
	mkdir -p build
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B build/develop -G Ninja -DPython_EXECUTABLE="$(CURDIR)/$(BIN)/python" \
	  -DCMAKE_INSTALL_PREFIX="$(CURDIR)" -DCMAKE_INSTALL_MESSAGE=NEVER >build/develop.log 2>&1 || { cat build/develop.log; exit 1; }
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build build/develop --target install -j $(JOBS)
	$(BIN)/python -P scripts/generate_stub.py temporal_graph

demo: setup
	$(BIN)/nowgraph demo

demo-rank: setup
	$(BIN)/nowgraph demo-rank

lint: setup
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy
	env -u PYTHONPATH $(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/baseline.binpb
	$(BIN)/python -P scripts/generate_protos.py --check
	$(BIN)/python -P scripts/generate_stub.py --check "$(SITE)/temporal_graph"

# The core's tests: plain, under ThreadSanitizer, under AddressSanitizer with the undefined behaviour one.
test-native: $(VENV)/.build-tools
	for sanitizer in "" thread address; do \
	  echo "C++ tests $${sanitizer:+with the $$sanitizer sanitizer}"; \
	  folder="build/native-$${sanitizer:-plain}"; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake -S . -B "$$folder" -G Ninja -DNOWGRAPH_PYTHON=OFF -DNOWGRAPH_NATIVE_TESTS=ON \
	    -DNOWGRAPH_SANITIZER="$$sanitizer" >/dev/null; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build "$$folder" -j $(JOBS) -- --quiet; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" ctest --test-dir "$$folder" -j $(JOBS) --output-on-failure --no-tests=error; \
	done

PYTEST := env -u PYTHONPATH PYTHONSAFEPATH=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P -m pytest

# The installed wheel: the repository's root is never on sys.path, nor on that of the processes that tests start.
# A file's tests stay together, in the order of the folders: what a module's fixtures start is started once.
test-python: setup
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# What pyproject.toml's marker `faults` leaves out of every other run.
test-faults: setup
	$(PYTEST) -m faults $(PYTEST_ARGS)

# Compilers and linters share the cores with what is installed meanwhile; the tests have the machine to themselves.
test:
	$(MAKE) --no-print-directory --jobs=2 --output-sync=line lint test-native
	$(MAKE) --no-print-directory test-python

# The benchmarks measure the wheel too: they are run by path, so that the root is not on sys.path.
bench: setup
	env -u PYTHONPATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P loadtests/bench.py $(BENCH_ARGS)

# How long an event takes to be seen, through the embedded broker and, on request, an Apache Kafka
# (BENCH_ARGS="--apache-kafka", with HOST:PORT one of your own).
bench-visible: setup
	env -u PYTHONPATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P loadtests/bench_visible.py $(BENCH_ARGS)

# The model's forward pass beside PyG's HGT; and on a GPU, where there is one, training and scoring, then a server's
# ScoreBatch and ScoreStream with the share of time the GPU is busy.
bench-model: setup
	env -u PYTHONPATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P loadtests/bench_model.py $(BENCH_ARGS)

bench-gpu: setup
	env -u PYTHONPATH $(BIN)/python -P loadtests/bench_model.py --device cuda $(BENCH_ARGS)
	env -u PYTHONPATH $(BIN)/python -P loadtests/serving/bench_device.py --device cuda $(BENCH_DEVICE_ARGS)

# Neighborhoods with their cells from memory, from the page cache and from a cold disk (BENCH_ARGS="--disk FOLDER").
bench-columns: setup
	env -u PYTHONPATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P loadtests/bench_columns.py $(BENCH_ARGS)

# What the server costs beside a bare echo and what batches are worth; what it answers when it is asked too much; then its
# latency while events stream in. Each is a command of its own.
bench-serving: setup
	env -u PYTHONPATH $(BIN)/python -P loadtests/serving/bench_overhead.py $(BENCH_OVERHEAD_ARGS)
	env -u PYTHONPATH $(BIN)/python -P loadtests/serving/bench_overload.py $(BENCH_OVERLOAD_ARGS)
	env -u PYTHONPATH $(BIN)/python loadtests/serving/bench_serving.py $(BENCH_ARGS)

# Latency of a list beside that of a score.
bench-ranking: setup
	env -u PYTHONPATH $(BIN)/python loadtests/serving/bench_ranking.py $(BENCH_ARGS)

# A snapshot beside a writer at full speed, and its way back; an updater killed, and how long until its standby answers;
# what the capacity model predicts beside graphs of three sizes. Each is a command of its own.
bench-snapshots: setup
	env -u PYTHONPATH $(BIN)/python -P loadtests/bench_snapshots.py $(BENCH_ARGS)

bench-takeover: setup
	env -u PYTHONPATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P loadtests/bench_takeover.py $(BENCH_ARGS)

# The same neighborhoods from RAM, from Redis, and from Redis by a call a row.
bench-redis: setup
	env -u PYTHONPATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P loadtests/bench_redis_store.py $(BENCH_ARGS)

bench-capacity: setup
	env -u PYTHONPATH OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -P loadtests/bench_capacity.py $(BENCH_ARGS)

# Two minutes: offered against achieved against p99, with events streaming in; then half of the capacity.
loadtest: setup
	env -u PYTHONPATH $(BIN)/python loadtests/loadtest.py curve $(LOAD_ARGS)

# Ten minutes at half of the capacity: is memory flat, does the event loop answer?
soak: setup
	env -u PYTHONPATH $(BIN)/python loadtests/loadtest.py soak $(LOAD_ARGS)

# Our generator beside k6 and h2load on the same load.
compare: setup
	env -u PYTHONPATH $(BIN)/python loadtests/loadtest.py compare $(LOAD_ARGS)

protos: $(VENV)/.dependencies
	$(BIN)/python -P scripts/generate_protos.py
	$(BIN)/buf lint

# After a release: what `buf breaking` compares with from then on.
baseline: $(VENV)/.dependencies
	$(BIN)/buf build -o protos/baseline.binpb

# What goes into the container image: every package by version and hash; LOCK_ARGS=--upgrade for the newest. Needs a package index.
lock: $(VENV)/.dependencies
	$(BIN)/python -P scripts/lock_image.py $(LOCK_ARGS)

# Its bill of materials (CycloneDX): of the image for CPUs, or by SBOM_LOCK=deploy/docker/requirements.lock for CUDA.
SBOM ?= build/sbom.cdx.json
SBOM_LOCK ?= deploy/docker/requirements-cpu.lock
sbom: $(VENV)/.dependencies
	mkdir -p $(dir $(SBOM))
	$(BIN)/python -P -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --spec-version 1.6 -o $(SBOM) $(SBOM_LOCK)

# The alerts and recording rules of deploy/prometheus as the Prometheus operator takes them.
manifests: $(VENV)/.dependencies
	$(BIN)/python -P scripts/generate_prometheus_rule.py

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis $(VENV)/.wheel temporal_graph/_native.*.so
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
