# make demo and make test do everything on a fresh machine. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
# The tested set, with torch as plain pip resolves it here. For another torch (CUDA), install it yourself and say
# KEEP_TORCH=1: the environment then sees the system's packages and nothing pins torch.
KEEP_TORCH ?=
PIN := $(if $(KEEP_TORCH),,-c constraints.txt)
SITE := $(if $(KEEP_TORCH),--system-site-packages,)
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt

.PHONY: help demo test test-all test-gpu test-kernels lint docs clean

help:
	@echo "make demo      install the core, train CosFace and CosFace + UNPG on synthetic faces, write demo/report.html"
	@echo "make test      install the test tools and run the tests"
	@echo "make test-all  the long tests too"
	@echo "make test-gpu  what is tested on a GPU: devices, rendering, kernels; with KEEP_TORCH=1 (test and test-all hide GPUs)"
	@echo "make test-kernels  install Triton (1 GB) and run its kernels: on a GPU, else in its interpreter"
	@echo "make lint      format, lint, types and import layers"
	@echo "make docs      build the documentation into site/"
	@echo "Settings: PYTHON=$(PYTHON) VENV=$(VENV) KEEP_TORCH=1 (use the torch that this Python already has)"

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unpg needs Python 3.11 or newer; say which: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(SITE) $(VENV)

$(VENV)/.demo: $(BIN)/python $(SOURCES)
	@echo "Installing unpg with the report extra into $(VENV)/: about 1.1 GB, most of it torch."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIN) -e ".[report]"
	@touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	@echo "Installing unpg with all extras and the test tools into $(VENV)/: about 2.3 GB."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIN) -e ".[dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIN) -e ".[dev,docs]"
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/unpg demo --out demo

# Without the GPUs that are there: most tests compare last bits, which are a CPU's.
test: $(VENV)/.dev
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow"

test-all: $(VENV)/.dev
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-gpu: $(VENV)/.dev
	$(BIN)/python -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "no GPU that this torch sees: install a torch for CUDA, then say make test-gpu KEEP_TORCH=1 VENV=<another folder>")'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/device tests/unit/similarity/test_fused.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests/unit/data tests/unit/transforms -k cuda

test-kernels: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIN) -e ".[kernels]"
	$(BIN)/python -c 'import sys, torch; sys.exit(torch.cuda.is_available())' && export TRITON_INTERPRET=1; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/unit/similarity/test_fused.py

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf demo site build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
